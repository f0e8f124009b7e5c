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


@keras.saving.register_keras_serializable(package="invariance")
class MarginLoss(keras.losses.Loss):
    """Margin loss of capsule lengths, summed over the classes.

    L_k = T_k max(0, m+ - |v_k|)^2 + lambda (1 - T_k) max(0, |v_k| - m-)^2, T_k = 1 for the label's class.

    Args:
        present: m+, the length above which a present class costs nothing.
        absent: m-, the length below which an absent class costs nothing.
        weight: lambda, weight of the absent classes.

    Input shape: labels (batch,) or (batch, 1), integers; lengths (batch, classes).
    Output shape: (batch,) before the reduction.

    Reference: Sabour, Frosst and Hinton (2017), eq. 4.
    """

    def __init__(
        self, present=0.9, absent=0.1, weight=0.5, reduction="sum_over_batch_size", name="margin_loss", **kwargs
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.present, self.absent, self.weight = present, absent, weight

    def call(self, y_true, y_pred):
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        here = ops.one_hot(labels, ops.shape(y_pred)[-1], dtype=y_pred.dtype)
        missing = here * ops.square(ops.relu(self.present - y_pred))
        spurious = (1.0 - here) * ops.square(ops.relu(y_pred - self.absent))
        return ops.sum(missing + self.weight * spurious, axis=-1)

    def get_config(self):
        return {**super().get_config(), "present": self.present, "absent": self.absent, "weight": self.weight}


@keras.saving.register_keras_serializable(package="invariance")
class SpreadLoss(keras.losses.Loss):
    """Spread loss: the activation of the label's class should exceed each other's by a margin that grows in training.

    sum_{i != t} max(0, m - (a_t - a_i))^2.

    Args:
        start: margin at the first step.
        stop: margin that is reached at last.
        increase: added to the margin ...
        steps: ... after every so many steps of training (staircase). A model tells the loss its step by `follow`.

    Input shape: labels (batch,) or (batch, 1), integers; activations (batch, classes).
    Output shape: (batch,) before the reduction.

    Reference: Hinton, Sabour and Frosst, "Matrix Capsules with EM Routing" (2018), eq. 3.
    """

    def __init__(
        self,
        start=0.2,
        stop=0.9,
        increase=0.035,
        steps=1200,
        reduction="sum_over_batch_size",
        name="spread_loss",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.start, self.stop, self.increase, self.steps = start, stop, increase, steps
        self._iterations = None

    def follow(self, iterations):
        """Takes the step from a counter, an optimiser's ``iterations``; without one the margin is the last."""
        self._iterations = iterations

    def margin(self):
        """The margin at the present step."""
        if self._iterations is None:
            return self.stop
        increases = ops.floor_divide(ops.cast(ops.convert_to_tensor(self._iterations), "int32"), self.steps)
        return ops.minimum(self.stop, self.start + self.increase * ops.cast(increases, "float32"))

    def call(self, y_true, y_pred):
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        here = ops.one_hot(labels, ops.shape(y_pred)[-1], dtype=y_pred.dtype)
        right = ops.sum(here * y_pred, axis=-1, keepdims=True)
        return ops.sum((1.0 - here) * ops.square(ops.relu(self.margin() - (right - y_pred))), axis=-1)

    def get_config(self):
        arguments = {name: getattr(self, name) for name in ("start", "stop", "increase", "steps")}
        return {**super().get_config(), **arguments}


def gradient_penalty(critic, real, fake, mixing, per_sample=True):
    """How far the critic's slope is from one between two batches: mean of (|grad critic(x)| - 1)^2.

    Args:
        critic: (n, dimension) -> (n, 1), differentiable twice.
        real: (batch, dimension).
        fake: (batch, dimension).
        mixing: (batch,) numbers in [0, 1]: x = fake + mixing * (real - fake).
        per_sample: True for the penalty of the paper, a norm for each x. False for that of the original program, whose
            mixing coefficients had the wrong shape: each of them mixes all pairs, and one norm is taken over the
            gradients at all batch * batch points together. That costs batch times the work.

    Returns:
        A scalar, differentiable in the critic's weights. TensorFlow only.

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs" (2017), eq. 3.
    """
    import tensorflow as tf

    if per_sample:
        points = fake + mixing[:, None] * (real - fake)
    else:
        points = fake[None] + mixing[:, None, None] * (real - fake)[None]
        points = ops.reshape(points, (-1, fake.shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    squares = ops.square(tape.gradient(scores, points))
    # The gradient of a norm is not finite at zero.
    norms = ops.sqrt(ops.sum(squares, axis=-1 if per_sample else None) + 1e-12)
    return ops.mean(ops.square(norms - 1.0))
