"""A dense layer whose training step is faster on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import keras
from keras import layers

from invariance import xla
from invariance.typing import Tensor


@keras.saving.register_keras_serializable(package="invariance")
class LargeDense(layers.Dense):
    """`keras.layers.Dense` whose forward product in training is compiled by XLA on a CPU.

    oneDNN rearranges the weights before each product. In training, where they change at every step, that takes as long
    as the product itself. The backward products are left to oneDNN. Weights, arguments and results are those of Keras'
    layer.

    Args, input shape, output shape: as `keras.layers.Dense`.
    """

    # With fewer weights there is nothing to gain.
    _FEWEST_WEIGHTS = 2**20

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not (training and self._compiled(inputs)):
            return super().call(inputs, training=training)
        import tensorflow as tf

        outputs = _product()(inputs, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs) if self.activation is not None else outputs

    def _compiled(self, inputs: Tensor) -> bool:
        if keras.backend.backend() != "tensorflow" or keras.backend.is_keras_tensor(inputs):
            return False
        return (
            not xla.on_gpu()
            and len(inputs.shape) == 2
            and self.compute_dtype == "float32"
            and self.quantization_mode is None
            and not self.lora_enabled
            and inputs.shape[-1] * self.units >= self._FEWEST_WEIGHTS
        )


@lru_cache
def _product() -> Callable[[Tensor, Tensor], Tensor]:
    """inputs @ kernel, the forward product compiled by XLA."""
    import tensorflow as tf

    forward = xla.compiled(tf.matmul)

    @tf.custom_gradient
    def product(inputs, kernel):
        def gradient(upstream):
            return tf.matmul(upstream, kernel, transpose_b=True), tf.matmul(inputs, upstream, transpose_a=True)

        return forward(inputs, kernel), gradient

    return product
