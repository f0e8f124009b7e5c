"""A dense layer whose weights are the output of another dense layer."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from invariance import xla
from invariance.errors import require_count, require_positive
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class SecondOrderDense(layers.Layer):
    """Averages its inputs with weights that a control makes: a second-order dense layer without a bias.

    With values x (in), a control c (numbers), a learnt kernel K and bias b,

        y_o = sum_i x_i w_oi,    w_oi = softmax over i of (K_oi . c + b_oi)

    so that each output is an average of the inputs, and the control says of which.

    Every control has in x units weights of its own, 2.5 MB for 28 x 28 pixels. With `shared`, they are computed once
    for all images of a batch that have the same control: in an evaluation, which tells all images the same angle, or
    where few angles occur. The result is the same. On GPUs, where XLA compiles a step and knows no sizes that depend on
    values, and on backends other than TensorFlow, each image has weights of its own.

    Args:
        units: number of outputs.
        hidden: if positive, units of a dense layer (ReLU) through which the control passes first.
        shared: whether controls are numbers that were told, which may repeat within a batch. They get no gradient.

    Input shape: values (batch, in); controls (batch, numbers).
    Output shape: (batch, units) float32.

    Raises:
        ValueError: if `units` is not a positive integer, `hidden` is not a count, or the input has another shape.
    """

    def __init__(self, units: int, hidden: int = 0, shared: bool = False, **kwargs: Any):
        # A softmax over hundreds of inputs needs all bits.
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.units, self.hidden, self.shared = units, hidden, shared
        require_positive(self, "units")
        require_count(self, "hidden")

    def build(self, values_shape: Shape, controls_shape: Shape) -> None:
        values, controls = tuple(values_shape), tuple(controls_shape)
        if len(values) != 2 or len(controls) != 2 or None in (values[1], controls[1]):
            raise ValueError(
                "Inputs must be values (batch, in) and controls (batch, numbers). "
                f"Received: controls_shape={controls}, values_shape={values}"
            )
        numbers = controls[1]
        if self.hidden:
            self.hidden_kernel = self.add_weight(name="hidden_kernel", shape=(numbers, self.hidden))
            self.hidden_bias = self.add_weight(name="hidden_bias", shape=(self.hidden,), initializer="zeros")
            numbers = self.hidden
        # In one row per number, as one dense layer has them.
        self.kernel = self.add_weight(name="kernel", shape=(numbers, self.units * values[1]))
        self.bias = self.add_weight(name="bias", shape=(self.units * values[1],), initializer="zeros")
        self.built = True

    def weights_of(self, controls: Tensor) -> Tensor:
        """The averaging weights that controls (batch, numbers) make, (batch, units, in)."""
        if self.hidden:
            controls = ops.relu(ops.matmul(controls, self.hidden_kernel) + self.hidden_bias)
        logits = ops.matmul(controls, self.kernel) + self.bias
        return ops.softmax(ops.reshape(logits, (-1, self.units, self.kernel.shape[1] // self.units)), axis=-1)

    def call(self, values: Tensor, controls: Tensor) -> Tensor:
        if self.shared:
            controls = ops.stop_gradient(controls)
            symbolic = keras.backend.is_keras_tensor(values)
            if not symbolic and keras.backend.backend() == "tensorflow" and not xla.on_gpu():
                return self._grouped(values, controls)
        # (batch, units, in) (batch, in, 1) -> (batch, units)
        return ops.squeeze(ops.matmul(self.weights_of(controls), values[..., None]), -1)

    def _grouped(self, values: Tensor, controls: Tensor) -> Tensor:
        """The same, with weights that images of the same control share."""
        import tensorflow as tf

        distinct, group = tf.raw_ops.UniqueV2(x=controls, axis=[0])
        count = tf.shape(distinct)[0]
        order = tf.argsort(group, stable=True)
        # (groups, most, in): the values of a group in a row, followed by zeros
        rows = tf.RaggedTensor.from_value_rowids(tf.gather(values, order), tf.gather(group, order), count).to_tensor()
        outputs = tf.matmul(rows, self.weights_of(distinct), transpose_b=True)
        # An image's place in its row is its place in the order, less that of its group's first.
        first = tf.cumsum(tf.math.bincount(group, minlength=count), exclusive=True)
        place = tf.argsort(order) - tf.gather(first, group)
        return tf.gather_nd(outputs, tf.stack([group, place], axis=-1))

    def compute_output_shape(self, values_shape: Shape, controls_shape: Shape) -> Shape:
        return (values_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "hidden": self.hidden, "shared": self.shared}
