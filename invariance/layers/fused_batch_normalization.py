"""Batch normalisation whose training step is faster on a CPU."""

from __future__ import annotations

import keras
from keras import layers

from invariance.typing import Tensor


@keras.saving.register_keras_serializable(package="invariance")
class FusedBatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that trains with TensorFlow's fused kernel where it can.

    The kernel takes float32 inputs (batch, height, width, channels), normalised over the last axis, with scale and
    offset. Keras computes moments and output one operation after the other, each of which passes through memory.
    Weights, arguments and results are those of Keras' layer.

    Args, input shape, output shape: as `keras.layers.BatchNormalization`.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if not (training and self.trainable and mask is None and self._fused(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        # The kernel returns the unbiased variance; Keras uses the variance of the batch itself.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1.0) / count
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1.0 - self.momentum))
        return outputs

    def _fused(self, inputs: Tensor) -> bool:
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
