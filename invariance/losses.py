"""Losses missing from Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from invariance.errors import require_tensorflow
from invariance.labels import indicators, is_class_numbers
from invariance.typing import Tensor


@keras.saving.register_keras_serializable(package="invariance")
class DoubleSoftmaxCrossentropy(keras.losses.Loss):
    """Cross-entropy that treats probabilities as logits, as the original classifiers did.

    ``-log softmax(p)[y]``: the network's softmax output passes through a second softmax, so with C classes the loss
    lies between log(1 + (C - 1) / e) and log(C - 1 + e). Keras' own cross-entropy with ``from_logits=True`` cannot
    compute this: it recognises the output of a softmax and goes back to the true logits.

    Input shape: labels (batch,) or (batch, 1), class numbers, or (batch, classes), one-hot; probabilities
        (batch, classes), at least two classes.
    Output shape: (batch,) before the reduction; for malformed labels, see `MarginLoss`.
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "double_softmax_crossentropy", **kwargs: Any
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return -ops.sum(indicators(y_true, y_pred, 1, 1) * ops.log_softmax(y_pred), axis=-1)


@keras.saving.register_keras_serializable(package="invariance")
class MarginLoss(keras.losses.Loss):
    """Margin loss on the lengths of class capsules, summed over the classes.

    L_k = T_k max(0, m+ - |v_k|)^2 + lambda (1 - T_k) max(0, |v_k| - m-)^2, where T_k = 1 for the labelled class, or for
    each of several.

    Labels that are neither class numbers nor rows of zeros and ones are refused where their values are known. In a
    compiled function, as in `fit`, they make the loss NaN.

    Args:
        present: m+, the length above which the labelled class costs nothing.
        absent: m-, the length below which another class costs nothing.
        weight: lambda, the weight of the other classes.

    Input shape: labels (batch,) or (batch, 1), class numbers, or (batch, classes), T, one-hot or multi-hot; lengths
        (batch, classes), at least two classes.
    Output shape: (batch,) before the reduction.

    Raises:
        ValueError: if labels have another shape, or wrong values, see above.

    Reference: Sabour, Frosst and Hinton (2017), eq. 4.
    """

    def __init__(
        self,
        present: float = 0.9,
        absent: float = 0.1,
        weight: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "margin_loss",
        **kwargs: Any,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.present, self.absent, self.weight = present, absent, weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        labelled = indicators(y_true, y_pred)
        missing = labelled * ops.square(ops.relu(self.present - y_pred))
        spurious = (1.0 - labelled) * ops.square(ops.relu(y_pred - self.absent))
        return ops.sum(missing + self.weight * spurious, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "present": self.present, "absent": self.absent, "weight": self.weight}


@keras.saving.register_keras_serializable(package="invariance")
class SpreadLoss(keras.losses.Loss):
    """Spread loss: the labelled class' activation should exceed every other by a margin that grows during training.

    sum_{i != t} max(0, m - (a_t - a_i))^2 for the labelled class t. With several labelled classes, the sum runs over
    all pairs of a labelled class t and another class i that is not labelled.

    An image must have a label. Malformed labels: see `MarginLoss`.

    Args:
        start: m at the first step.
        stop: largest m.
        increase: added to m ...
        steps: ... each time this many training steps have passed. The step comes from `follow`.

    Input shape: labels (batch,) or (batch, 1), class numbers, or (batch, classes), one-hot or multi-hot; activations
        (batch, classes), at least two classes.
    Output shape: (batch,) before the reduction.

    Raises:
        ValueError: if labels have another shape, or wrong values.

    Reference: Hinton, Sabour and Frosst, "Matrix Capsules with EM Routing" (2018), eq. 3.
    """

    def __init__(
        self,
        start: float = 0.2,
        stop: float = 0.9,
        increase: float = 0.035,
        steps: int = 1200,
        reduction: str | None = "sum_over_batch_size",
        name: str = "spread_loss",
        **kwargs: Any,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.start, self.stop, self.increase, self.steps = start, stop, increase, steps
        self._iterations: Any = None

    def follow(self, iterations: Any) -> None:
        """Reads the training step from a counter, such as an optimiser's ``iterations``, from now on.

        Without a counter the margin is ``stop``.
        """
        self._iterations = iterations

    def margin(self) -> float | Tensor:
        """The margin at the current step."""
        if self._iterations is None:
            return self.stop
        increases = ops.floor_divide(ops.cast(ops.convert_to_tensor(self._iterations), "int32"), self.steps)
        return ops.minimum(self.stop, self.start + self.increase * ops.cast(increases, "float32"))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        labelled = indicators(y_true, y_pred, 1)
        margin = ops.cast(self.margin(), y_pred.dtype)
        if is_class_numbers(y_true.shape):
            target = ops.sum(labelled * y_pred, axis=-1, keepdims=True)
            return ops.sum((1.0 - labelled) * ops.square(ops.relu(margin - (target - y_pred))), axis=-1)
        # (batch, labelled classes, others)
        shortfall = ops.square(ops.relu(margin - (y_pred[:, :, None] - y_pred[:, None])))
        return ops.einsum("bt,bti,bi->b", labelled, shortfall, 1.0 - labelled)

    def get_config(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in ("start", "stop", "increase", "steps")}
        return {**super().get_config(), **arguments}


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mixing: Tensor, per_sample: bool = True
) -> Tensor:
    """Mean of (|grad critic(x)| - 1)^2 over points x between two batches. Refuses other backends than TensorFlow.

    Args:
        critic: (n, dimension) -> (n, 1), twice differentiable.
        real: (batch, dimension).
        fake: (batch, dimension).
        mixing: (batch,), in [0, 1]: x = fake + mixing * (real - fake).
        per_sample: True for the penalty of the paper, with one norm for each x. False for that of the original program,
            whose mixing coefficients had the wrong shape: each of them mixes every pair, and a single norm is taken of
            the gradients at all batch * batch points together. It takes ``batch`` times as much work.

    Returns:
        A scalar, differentiable with respect to the critic's weights.

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs" (2017), eq. 3.
    """
    require_tensorflow("The gradient penalty")
    import tensorflow as tf

    if per_sample:
        points = fake + mixing[:, None] * (real - fake)
    else:
        # (batch, batch, dimension): coefficient, pair
        points = fake[None] + mixing[:, None, None] * (real - fake)[None]
        points = ops.reshape(points, (-1, fake.shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    squares = ops.square(tape.gradient(scores, points))
    # The gradient of a norm is not finite at zero.
    norms = ops.sqrt(ops.sum(squares, axis=-1 if per_sample else None) + 1e-12)
    return ops.mean(ops.square(norms - 1.0))


def orthonormal(vectors: Tensor) -> list[Tensor]:
    """An orthonormal basis of the span of some vectors, by Gram and Schmidt's procedure.

    Args:
        vectors: (batch, vectors, ...). Their lengths and signs do not matter; a vector of zeros stays zero.

    Returns:
        A list of tensors (batch, ...), one for each vector.
    """
    basis: list[Tensor] = []
    for number in range(vectors.shape[1]):
        rest = vectors[:, number]
        for each in basis:
            rest = rest - _inner(rest, each) * each
        basis.append(rest / ops.sqrt(_inner(rest, rest) + 1e-12))
    return basis


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """Inner products (batch, 1, ...) of tensors (batch, ...)."""
    return ops.sum(first * second, axis=tuple(range(1, len(first.shape))), keepdims=True)


def projected(vectors: Tensor, spanning: Tensor) -> Tensor:
    """The nearest point of a span to each vector.

    Args:
        vectors: (batch, ...).
        spanning: (batch, spanning vectors, ...).

    Returns:
        (batch, ...).
    """
    return sum(_inner(vectors, each) * each for each in orthonormal(spanning))


def outside_span(vectors: Tensor, spanning: Tensor) -> Tensor:
    """The share of each vector's squared length that lies outside a span: one minus the squared cosine.

    Args:
        vectors: (batch, ...).
        spanning: (batch, spanning vectors, ...).

    Returns:
        (batch,), from 0 to 1; 1 for a vector of zeros.
    """
    axes = tuple(range(1, len(vectors.shape)))
    explained = sum(ops.square(_inner(vectors, each)) for each in orthonormal(spanning))
    return 1.0 - ops.squeeze(explained / (_inner(vectors, vectors) + 1e-12), axes)


@keras.saving.register_keras_serializable(package="invariance")
class TangentLoss(keras.losses.Loss):
    """The squared distance of a difference from the span of predicted tangents, relative to its squared length.

    min_w |d - sum_j w_j t_j|^2 / |d|^2 for the difference d of two nearby images and the tangents t_j at one of them.
    The coefficients w of each pair are those of least squares.

    Input shape: differences (batch, ...); tangents (batch, tangents, ...).
    Output shape: (batch,) before the reduction.

    Reference: Bengio and Monperrus, "Non-local manifold tangent learning" (2004).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "tangent_loss", **kwargs: Any):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return outside_span(ops.cast(y_true, y_pred.dtype), y_pred)
