"""Two Keras layers whose training step is quicker on a CPU. Weights, arguments and results are Keras' own."""

from functools import lru_cache

import keras
from keras import layers

from invariance import xla


@keras.saving.register_keras_serializable(package="invariance")
class FusedBatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that trains with TensorFlow's fused kernel where there is one for it.

    That is for inputs (batch, height, width, channels) in float32, normalised over the last axis, with scale and
    offset. Keras computes the moments and the output one operation after the other, each of which goes through memory.

    Args, input shape, output shape: as `keras.layers.BatchNormalization`.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._fused(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        # The kernel's variance is that of a sample, Keras' that of the batch.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1.0) / count
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1.0 - self.momentum))
        return outputs

    def _fused(self, inputs) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and not keras.backend.is_keras_tensor(inputs)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and not self.renorm
            and self.compute_dtype == "float32"
            and not getattr(self, "synchronized", False)
        )


@keras.saving.register_keras_serializable(package="invariance")
class LargeDense(layers.Dense):
    """`keras.layers.Dense` whose forward product in training is compiled by XLA on a CPU.

    oneDNN rearranges the weights before each product, which in training, where they are new each time, takes as long as
    the product itself. The backward products are oneDNN's.

    Args, input shape, output shape: as `keras.layers.Dense`.
    """

    # Below this many weights there is nothing to gain.
    _FEWEST_WEIGHTS = 2**20

    def call(self, inputs, training=None):
        if not (training and self._compiled(inputs)):
            return super().call(inputs, training=training)
        import tensorflow as tf

        outputs = _product()(inputs, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs) if self.activation is not None else outputs

    def _compiled(self, inputs) -> bool:
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
def _product():
    import tensorflow as tf

    forward = xla.compiled(tf.matmul)

    @tf.custom_gradient
    def product(inputs, kernel):
        def gradient(upstream):
            return tf.matmul(upstream, kernel, transpose_b=True), tf.matmul(inputs, upstream, transpose_a=True)

        return forward(inputs, kernel), gradient

    return product
