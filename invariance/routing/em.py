"""EM routing between matrix capsules.

Reference: Hinton, Sabour and Frosst, "Matrix Capsules with EM Routing" (2018), procedure 1. There are two forms: the
paper's, and that of the program whose results are reproduced, which differs in how assignments are weighted and how
activations are computed (see `Form`).

Votes have the shape (in_capsules, batch, pose, out_capsules) throughout, where "batch" counts images times positions.
In this order every sum of the routing runs over contiguous slices of memory, and the products that compute the votes
(a 4 x 4 matrix times a row of 4 x 4 matrices) write it without a transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from keras import ops

from invariance import xla
from invariance.errors import require_positive
from invariance.typing import Tensor

EPSILON = 1e-9


@dataclass(frozen=True)
class Form:
    """Which EM routing.

    Args:
        iterations: number of M steps.
        inverse_temperatures: lambda of the activation in each iteration; a single number holds for all.
        logistic: True for the paper's activation, logistic(lambda (beta_a - cost)) after every iteration. False for the
            program's: a softmax over the output capsules, of lambda (beta_a - cost) after the last iteration and of the
            assigned mass sum_i R_ij after earlier ones.
        normalised: True for the program's weighting: assignments times input activations, normalised over the output
            capsules (which all but cancels the activations). False for the paper's, without normalisation.

    Raises:
        ValueError: if there is not one positive number for each of a positive number of iterations.
    """

    iterations: int = 2
    inverse_temperatures: float | tuple[float, ...] = 0.01
    logistic: bool = False
    normalised: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "iterations")
        given: Any = self.inverse_temperatures
        try:
            each = given if hasattr(given, "__iter__") else (given,) * self.iterations
            values = tuple(float(value) for value in each)
        except (TypeError, ValueError):
            values = ()
        if len(values) != self.iterations or not all(0 < value < float("inf") for value in values):
            raise ValueError(
                "Argument `inverse_temperatures` must be a positive number, or one for each of the "
                f"{self.iterations} iterations. Received: {given!r}"
            )
        object.__setattr__(self, "inverse_temperatures", values)

    def gain(self, activations: Tensor) -> Tensor:
        """The factor that weights an input capsule's assignments, which themselves sum to one."""
        return activations / (activations + EPSILON) if self.normalised else activations

    def log_activation(self, iteration: int, mass: Tensor, variance: Tensor, beta_v: Tensor, beta_a: Tensor) -> Tensor:
        """Logarithm of the output activations after an iteration, (batch, 1, out_capsules).

        Args:
            iteration: counted from 0.
            mass: (batch, 1, out_capsules), sum_i R_ij.
            variance: (batch, pose, out_capsules).
            beta_v: (out_capsules, pose), or (out_capsules,) for one number per output capsule.
            beta_a: (out_capsules,).
        """
        if not self.logistic and iteration < self.iterations - 1:
            return ops.log_softmax(mass, axis=-1)
        # (pose, out_capsules), or (out_capsules,)
        beta_v = ops.transpose(beta_v) if len(beta_v.shape) == 2 else beta_v
        cost = ops.sum((beta_v + 0.5 * ops.log(variance)) * mass, axis=1, keepdims=True)
        score = cast(tuple[float, ...], self.inverse_temperatures)[iteration] * (beta_a - cost)
        return ops.log_sigmoid(score) if self.logistic else ops.log_softmax(score, axis=-1)


def m_step(votes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the votes for each output capsule.

    Args:
        votes: (in_capsules, batch, pose, out_capsules).
        weights: assignments times activations, (in_capsules, batch, out_capsules), or (in_capsules, batch, 1) if they
            are equal for all outputs.

    Returns:
        mean (batch, pose, out_capsules), variance + epsilon of the same shape, and mass (batch, 1, out_capsules).
    """
    weights = ops.expand_dims(weights, 2)
    mass = _sum_inputs(weights) + EPSILON
    mean = _sum_inputs(weights * votes) / mass
    variance = _sum_inputs(weights * ops.square(votes - mean)) / mass + EPSILON
    return mean, variance, mass + ops.zeros_like(mean[:, :1])


def e_step(votes: Tensor, mean: Tensor, variance: Tensor, log_activation: Tensor) -> Tensor:
    """Assignments of input to output capsules: the posterior of a mixture of axis-aligned Gaussians, in log space.

    Args:
        votes: (in_capsules, batch, pose, out_capsules).
        mean, variance: (batch, pose, out_capsules).
        log_activation: (batch, 1, out_capsules), the logarithm of the mixing proportions.

    Returns:
        (in_capsules, batch, out_capsules), summing to one over the output capsules.
    """
    distances = ops.sum(ops.square(votes - mean) * (0.5 / variance), axis=2)
    return ops.softmax(_bias(log_activation, variance) - distances, axis=-1)


def _bias(log_activation: Tensor, variance: Tensor) -> Tensor:
    """The part of the E step's logits that all input capsules share, (batch, out_capsules)."""
    return log_activation[:, 0] - 0.5 * ops.sum(ops.log(variance), axis=1)


def route(
    votes: Tensor, activations: Tensor, beta_v: Tensor, beta_a: Tensor, form: Form = Form()
) -> tuple[Tensor, Tensor]:
    """EM routing, operation by operation; the gradient flows through all iterations.

    Args:
        votes: (in_capsules, batch, pose, out_capsules).
        activations: (in_capsules, batch), in [0, 1].
        beta_v: (out_capsules, pose), or (out_capsules,) for one number per output capsule.
        beta_a: (out_capsules,).
        form: which EM routing.

    Returns:
        Poses (batch, pose, out_capsules) and activations (batch, out_capsules).
    """
    gain = ops.expand_dims(form.gain(activations), -1)
    # The first assignments are equal for all outputs.
    mean, variance, mass = m_step(votes, gain / votes.shape[-1])
    for iteration in range(1, form.iterations):
        log_activation = form.log_activation(iteration - 1, mass, variance, beta_v, beta_a)
        mean, variance, mass = m_step(votes, e_step(votes, mean, variance, log_activation) * gain)
    return mean, _activation(mass, variance, beta_v, beta_a, form)


def route_compiled(
    votes: Tensor, activations: Tensor, beta_v: Tensor, beta_a: Tensor, form: Form = Form()
) -> tuple[Tensor, Tensor]:
    """`route` for TensorFlow with a hand-written gradient, both compiled by XLA: equal to rounding.

    An iteration reads the votes three times forward and writes nothing of their size. It reads them three times
    backward. Their gradient is written once: it is linear in the votes, so the terms of all iterations are added first.
    """
    mean, variance, mass = _compiled(form)(votes, form.gain(activations), beta_v, beta_a)
    return mean, _activation(mass, variance, beta_v, beta_a, form)


def _activation(mass: Tensor, variance: Tensor, beta_v: Tensor, beta_a: Tensor, form: Form) -> Tensor:
    return ops.exp(form.log_activation(form.iterations - 1, mass, variance, beta_v, beta_a))[:, 0]


@lru_cache
def _compiled(form: Form) -> Callable[..., Any]:
    """(votes, gain, beta_v, beta_a) -> mean, variance, mass of the last iteration, with a custom gradient.

    Each function is compiled separately. Compiled together, XLA would recompute the results of one for each element of
    the next that they contribute to, instead of keeping them in memory.
    """
    import tensorflow as tf

    @xla.compiled
    def weighted_m_step(votes, gain, assignments):
        weights = gain[:, :, None] / votes.shape[-1] if assignments is None else assignments * gain[:, :, None]
        return weights, *m_step(votes, weights)

    @xla.compiled
    def distances(votes, mean, precision):
        """sum_h precision (V - mean)^2, (in, batch, out)."""
        return _sum_pose(votes, lambda vote, h: tf.square(vote - mean[:, h]) * precision[:, h])

    @xla.compiled
    def weights_gradient(votes, mean, first, second, constant):
        """Backward through the M step: constant + sum_h (V - mean) first + (V - mean)^2 second, (in, batch, out)."""

        def term(vote, h):
            away = vote - mean[:, h]
            return away * (first[:, h] + away * second[:, h])

        return constant + _sum_pose(votes, term)

    @xla.compiled
    def logits_gradient(d_weights, gain, assignments):
        """Backward through weighting and softmax."""
        d_assignments = d_weights * gain[..., None]
        mean = tf.reduce_sum(d_assignments * assignments, axis=-1, keepdims=True)
        return assignments * (d_assignments - mean), tf.reduce_sum(d_weights * assignments, axis=-1)

    @xla.compiled
    def gaussians_gradient(votes, d_logits, mean, variance):
        """Backward through the E step's densities to means, variances and mixing proportions."""
        logits, away = d_logits[:, :, None], votes - mean
        proportion = _sum_inputs(logits)
        d_mean = _sum_inputs(logits * away) / variance
        d_variance = 0.5 * (_sum_inputs(logits * tf.square(away)) / variance - proportion) / variance
        return d_mean, d_variance, proportion

    def activation_gradient(iteration, mass, variance, beta_v, beta_a, upstream):
        """Backward through the activations as mixing proportions. The tensors are small, so the tape does it."""
        with tf.GradientTape() as tape:
            small = (mass, variance, beta_v, beta_a)
            tape.watch(small)
            log_activation = form.log_activation(iteration, *small)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(log_activation, small, upstream, unconnected_gradients=zero)

    @xla.compiled
    def votes_gradient(votes, factors, products):
        """votes x slope + offset, summed over products of (in, batch, out) and (batch, pose, out)."""
        slope = offset = 0.0
        for factor, (steep, high) in zip(factors, products, strict=True):
            slope += factor[:, :, None] * steep
            offset += factor[:, :, None] * high
        return votes * slope + offset

    @tf.custom_gradient
    def moments(votes, gain, beta_v, beta_a):
        iterations: list[Any] = []
        assignments = None
        for iteration in range(form.iterations):
            if iteration:
                _, _, mean, variance, mass = iterations[-1]
                bias = _bias(form.log_activation(iteration - 1, mass, variance, beta_v, beta_a), variance)
                assignments = tf.nn.softmax(bias - distances(votes, mean, 0.5 / variance))
            iterations.append((assignments, *weighted_m_step(votes, gain, assignments)))

        def gradient(*upstream):
            factors, products = [], []
            d_gain, d_betas = 0.0, [tf.zeros_like(beta_v), tf.zeros_like(beta_a)]
            for iteration in reversed(range(form.iterations)):
                assignments, weights, mean, variance, mass = iterations[iteration]
                d_mean, d_variance, d_mass = upstream
                first, second = d_mean / mass, d_variance / mass
                constant = d_mass[:, 0] - tf.reduce_sum((variance - EPSILON) * second, axis=1)
                d_weights = weights_gradient(votes, mean, first, second, constant)
                factors.append(weights)
                products.append((2.0 * second, first - 2.0 * second * mean))
                if assignments is None:
                    d_gain += tf.reduce_mean(d_weights, axis=-1)
                    break
                d_logits, share = logits_gradient(d_weights, gain, assignments)
                d_gain += share
                _, _, mean, variance, mass = iterations[iteration - 1]
                d_mean, d_variance, d_log = gaussians_gradient(votes, d_logits, mean, variance)
                factors.append(d_logits)
                products.append((-1.0 / variance, mean / variance))
                d_mass, more, *betas = activation_gradient(iteration - 1, mass, variance, beta_v, beta_a, d_log)
                upstream = d_mean, d_variance + more, d_mass
                d_betas = [total + beta for total, beta in zip(d_betas, betas, strict=True)]
            return votes_gradient(votes, factors, products), d_gain, *d_betas

        return tuple(iterations[-1][2:]), gradient

    return moments


# XLA splits a sum over more than about 32 terms in two and writes the terms to memory in between. Shorter sums are
# accumulated as the terms are computed. Hence the slices.
_SLICE = 24


def _sum_inputs(values: Tensor) -> Tensor:
    """Sum over the input capsules, the first axis."""
    return sum(ops.sum(values[start : start + _SLICE], axis=0) for start in range(0, values.shape[0], _SLICE))


def _sum_pose(votes: Tensor, term: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Sum over the pose's entries of ``term(votes[:, :, h], h)``, (in_capsules, batch, out_capsules).

    Unrolled, so that the output capsules, contiguous in memory, are the innermost loop. Only for functions that return
    the sum: XLA would recompute it for each element of anything else computed from it.
    """
    return sum(term(votes[:, :, entry], entry) for entry in range(votes.shape[2]))
