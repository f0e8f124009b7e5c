"""Layers of capsule networks with dynamic routing."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from invariance.errors import require_positive
from invariance.labels import indicators
from invariance.layers.fourier_conv2d import FourierConv2D
from invariance.layers.precision import routing_dtype
from invariance.routing import dynamic
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class PrimaryCapsules(layers.Layer):
    """A convolution whose filters, grouped by ``dimension``, are capsules: squash(reshape(conv(x))).

    Args:
        channels: number of capsules at each position.
        dimension: dimension of each capsule.
        kernel_size: side of the convolution's kernel, in pixels.
        strides: stride of the convolution, in pixels.

    Input shape: (batch, height, width, input channels).
    Output shape: (batch, positions * channels, dimension) with 'valid' padding; at least float32 under any precision
        policy.

    Reference: Sabour, Frosst and Hinton (2017), section 4.
    """

    def __init__(self, channels: int, dimension: int, kernel_size: int = 9, strides: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.channels, self.dimension, self.kernel_size, self.strides = channels, dimension, kernel_size, strides
        require_positive(self, "channels", "dimension", "kernel_size", "strides")
        self.convolution = FourierConv2D(
            channels * dimension,
            kernel_size,
            strides,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="convolution",
        )

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or None in input_shape[1:] or min(input_shape[1:3]) < self.kernel_size:
            raise ValueError(
                "Inputs must have shape (batch, height, width, channels), with height and width at least the kernel's "
                f"{self.kernel_size}. Received: input_shape={tuple(input_shape)}"
            )
        self.convolution.build(input_shape)
        self._capsules = self.compute_output_shape(input_shape)[1]
        self.input_spec = layers.InputSpec(shape=(None, *input_shape[1:]))

    def call(self, inputs: Tensor) -> Tensor:
        features = ops.cast(self.convolution(inputs), routing_dtype(self))
        return dynamic.squash(ops.reshape(features, (-1, self._capsules, self.dimension)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        positions = [(size - self.kernel_size) // self.strides + 1 for size in (height, width)]
        return batch, positions[0] * positions[1] * self.channels, self.dimension

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), routing_dtype(self))

    def get_config(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in ("channels", "dimension", "kernel_size", "strides")}
        return {**super().get_config(), **arguments}


@keras.saving.register_keras_serializable(package="invariance")
class RoutedCapsules(layers.Layer):
    """Densely connected capsules with routing by agreement.

    v_j = squash(sum_i c_ij W_ij u_i), where the agreement of votes and outputs gives the coupling coefficients
    c_ij = softmax_j(b_ij). Computed in float32 under any precision policy but float64.

    Args:
        capsules: number of output capsules.
        dimension: dimension of each output capsule.
        iterations: number of routing iterations.
        initializer: for the weights (in_capsules, capsules, dimension, in_dim). The default is the published network's,
            which has one such layer. Sums s = sum_i c_ij W_ij u_i are short with it, and squashing shortens them
            further, |v| = |s|^2 / (1 + |s|^2): of two layers in a row, the second has hardly any length or gradient and
            never learns. Stacked layers need weights of the order of capsules / sqrt(in_capsules * dimension), with
            which inputs of length one have sums of length one, for example ``RandomUniform(-1, 1)``.

    Input shape: (batch, in_capsules, in_dim).
    Output shape: (batch, capsules, dimension), at least float32.

    Reference: Sabour, Frosst and Hinton (2017), section 2 and procedure 1.
    """

    def __init__(
        self, capsules: int, dimension: int, iterations: int = 3, initializer: Any = "glorot_uniform", **kwargs: Any
    ):
        # Neither inputs nor weights are cast to a lower precision.
        super().__init__(**{"autocast": False, **kwargs})
        self.capsules, self.dimension, self.iterations = capsules, dimension, iterations
        require_positive(self, "capsules", "dimension", "iterations")
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 3 or None in input_shape[1:]:
            raise ValueError(
                f"Inputs must have shape (batch, in_capsules, in_dim). Received: input_shape={tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            (input_shape[1], self.capsules, self.dimension, input_shape[2]),
            self.initializer,
            routing_dtype(self),
            name="kernel",
            autocast=False,
        )
        self.input_spec = layers.InputSpec(shape=(None, *input_shape[1:]))

    def call(self, inputs: Tensor) -> Tensor:
        return self._routed(inputs)[0]

    def couplings(self, inputs: Tensor) -> Tensor:
        """Coupling coefficients of the last iteration, (batch, in_capsules, capsules)."""
        return self._routed(inputs)[1]

    def _routed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        inputs = ops.cast(inputs, routing_dtype(self))
        return dynamic.transform_and_route(inputs, ops.convert_to_tensor(self.kernel), self.iterations)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], self.capsules, self.dimension

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), routing_dtype(self))

    def get_config(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in ("capsules", "dimension", "iterations")}
        initializer = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), **arguments, "initializer": initializer}


@keras.saving.register_keras_serializable(package="invariance")
class Length(layers.Layer):
    """Length of each capsule: the evidence for the entity it represents.

    Input shape: (batch, capsules, dimension). Output shape: (batch, capsules), at least float32. Finite gradient at
    zero.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"autocast": False, **kwargs})

    def call(self, inputs: Tensor) -> Tensor:
        return dynamic.length(ops.cast(inputs, routing_dtype(self)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:-1])

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), routing_dtype(self))


@keras.saving.register_keras_serializable(package="invariance")
class Mask(layers.Layer):
    """Sets all capsules to zero except the labelled one or, without labels, the one with the largest score.

    Input shape: capsules (batch, capsules, dimension), scores (batch, capsules); ``labels`` (batch,) or (batch, 1),
        class numbers, or (batch, capsules), one-hot, or multi-hot to keep several capsules.
    Output shape: (batch, capsules * dimension).

    Raises:
        ValueError: if the capsules' number or dimension is unknown, or labels are malformed, see `labels.indicators`.

    Reference: Sabour, Frosst and Hinton (2017), section 4.1.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"autocast": False, **kwargs})

    def build(
        self, capsules_shape: Shape, scores_shape: Shape | None = None, labels_shape: Shape | None = None
    ) -> None:
        if len(capsules_shape) != 3 or None in capsules_shape[1:]:
            raise ValueError(
                "Inputs must be capsules (batch, capsules, dimension) and scores (batch, capsules). "
                f"Received: capsules_shape={tuple(capsules_shape)}"
            )
        self.built = True

    def call(self, capsules: Tensor, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            mask = ops.one_hot(ops.argmax(scores, axis=-1), capsules.shape[1], dtype=capsules.dtype)
        else:
            mask = indicators(labels, capsules[..., 0])
        return ops.reshape(capsules * mask[..., None], (-1, capsules.shape[1] * capsules.shape[2]))

    def compute_output_shape(
        self, capsules_shape: Shape, scores_shape: Shape | None = None, labels_shape: Shape | None = None
    ) -> Shape:
        return capsules_shape[0], capsules_shape[1] * capsules_shape[2]

    def compute_output_spec(self, capsules: Tensor, scores: Tensor, labels: Tensor | None = None) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(capsules.shape), capsules.dtype)
