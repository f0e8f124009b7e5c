"""Losses that Keras has not."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="invariance")
class DoubleSoftmaxCrossentropy(keras.losses.Loss):
    """Cross-entropy that takes probabilities for logits, as the original classifiers did.

    ``-log softmax(p)[y]``: the network's softmax output goes through a second softmax, so for C classes the loss lies
    between log(1 + (C - 1) / e) and log(C - 1 + e). (Keras' own cross-entropy with ``from_logits=True`` cannot be
    used for this: where it sees that its input comes from a softmax, it goes back to the true logits.)

    Input shape: labels (batch,) or (batch, 1), integers; probabilities (batch, classes).
    Output shape: (batch,) before the reduction.
    """

    def __init__(self, reduction="sum_over_batch_size", name="double_softmax_crossentropy", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        chosen = ops.one_hot(labels, ops.shape(y_pred)[-1], dtype=y_pred.dtype)
        return -ops.sum(chosen * ops.log_softmax(y_pred), axis=-1)
