"""How far images are moved along a learnt flow: a period, or a range, found from images."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from invariance import random, xla
from invariance.layers.flow import Flow
from invariance.layers.movement_times import MovementTimes
from invariance.transfer.flow_estimator import blurred, squares
from invariance.typing import Tensor

# A flow that returns to within this share of its greatest distance is periodic, up to its error. Images are moved by at
# most half a period, where half of that error has gathered.
_CLOSED = 0.15
# Distance between candidate movements, in pixels (root mean square).
_SPACING = 2.0


class Movements:
    """The distribution of times by which images are moved at random.

    Args:
        fields: number of fields.
        period: of a single field that is periodic; times are uniform in [-period / 2, period / 2).
        axes: otherwise, (fields, fields): times are uniform in the image of the unit ball under this matrix.
    """

    def __init__(self, fields: int, period: float | None, axes: np.ndarray):
        self.fields, self.period, self.axes = fields, period, np.asarray(axes, "float32")

    @classmethod
    def like(cls, times: np.ndarray, period: float | None) -> Movements:
        """Those of images between which times (pairs, fields) were found, of a movement with this period or none.

        The difference of two independent parameters, each uniform in [-r, r], has the variance 2 r^2 / 3. For several
        parameters the ellipsoid also holds the corners of their box.
        """
        fields = times.shape[1]
        second_moment = times.T @ times / max(1, len(times))
        return cls(fields, period, np.linalg.cholesky(1.5 * fields * second_moment + 1e-12 * np.eye(fields)))

    def draw(self, seed: int, draws: Tensor) -> Tensor:
        """Times (batch, fields) for draw numbers (batch,), a pure function of seed and draw number."""
        first, second = random.uniform(seed, random.TIMES, draws)
        if self.period is not None:
            return ((first - 0.5) * self.period)[:, None]
        if self.fields == 1:
            return (2.0 * first[:, None] - 1.0) * self.axes
        radius, angle = ops.sqrt(first), 2.0 * np.pi * second
        return ops.stack([radius * ops.cos(angle), radius * ops.sin(angle)], -1) @ self.axes.T


def times_between(flow: Flow, first: np.ndarray, second: np.ndarray, period: float | None = None) -> tuple[Any, Any]:
    """The movement that carries one image to another.

    The best of a lattice of movements (up to half the image's size, or over one period), improved by least squares.

    Args:
        flow: the flow.
        first, second: (pairs, height, width, channels) in [0, 1].
        period: of the flow, if it is periodic.

    Returns:
        Times (pairs, fields), and the share of the squared difference that is left, (pairs,).
    """
    from invariance.transfer.flow_estimator import FlowEstimator

    reach = period / 2.0 if period else max(flow.size) / 2.0
    line = np.arange(-reach, reach, _SPACING)
    lattice = np.stack(np.meshgrid(*[line] * flow.fields, indexing="ij"), -1).reshape(-1, flow.fields)
    lattice = lattice[np.linalg.norm(lattice, axis=-1) <= reach].astype("float32")

    @xla.compiled
    def distance(images: Tensor, targets: Tensor, times: Tensor) -> Tensor:
        moved = flow.move(images, flow.displacements(times[None]))
        return squares(blurred(moved) - targets)

    targets = blurred(tf.constant(second))
    distances = np.stack([distance(first, targets, times).numpy() for times in lattice])
    times = tf.constant(lattice[distances.argmin(0)])
    estimator = FlowEstimator(flow, 1.0, refine=True)

    @xla.compiled
    def improved(times: Tensor) -> tuple[Tensor, Tensor]:
        moved = blurred(flow([first, times]))
        products, projections = estimator._equations((moved + targets) / 2.0, targets - moved)
        more, _ = estimator._times(products, projections)
        return times + more, squares(targets - moved)

    for _ in range(5):
        times, left = improved(times)
    total = squares(targets - blurred(tf.constant(first)))
    return times.numpy(), (left / (total + 1e-9)).numpy()


def find_period(flow: Flow, ink: np.ndarray) -> tuple[float, float] | None:
    """The time after which a flow of one field returns to the identity, and the error there in pixels.

    Args:
        flow: of one field.
        ink: (height, width), the weight of each pixel.

    Returns:
        None if it does not return within four times the image's size (at one pixel per unit of time, root mean square;
        a rotation takes 2.6 times).
    """
    weights = ink / ink.sum()
    compiled = xla.compiled(flow.displacements)

    def distance(times: np.ndarray) -> np.ndarray:
        parts = np.array_split(times.astype("float32"), max(1, len(times) // 64))
        moved = np.concatenate([compiled(part[:, None]).numpy() for part in parts])
        return np.sqrt((np.square(moved).sum(-1) * weights).sum((1, 2)))

    times = np.arange(0.0, 4.0 * max(flow.size), 0.25)
    away = distance(times)
    returned = away < _CLOSED * np.maximum.accumulate(away)
    # The beginning is near the identity, too.
    returned[: np.argmax(away > 1.0)] = False
    if not returned.any():
        return None
    start = int(np.argmax(returned))
    end = start + int(np.argmin(returned[start:])) if not returned[start:].all() else len(times)
    finer = np.arange(times[start] - 0.25, times[end - 1] + 0.25, 0.01)
    errors = distance(finer)
    return float(finer[errors.argmin()]), float(errors.min())


def fit_times(layer: MovementTimes, told: np.ndarray, times: np.ndarray) -> None:
    """Fits the linear function from told parameters to times.

    By iterated least squares, at first of small parameters, then of pairs whose times fit to about a unit: what looks
    alike at different parameters has wrong times.

    Args:
        layer: the function.
        told: (pairs, numbers) encoded parameters.
        times: (pairs, fields).
    """
    parameters = np.asarray(layer.parameters(told))
    squares = np.square(parameters).sum(-1)
    weights = 1.0 / (0.01 * squares.max() + squares)
    scale = np.square(times).mean() / 1000.0
    for _ in range(50):
        root = np.sqrt(weights)[:, None]
        fitted = np.linalg.lstsq(root * parameters, root * times, rcond=None)[0]
        weights = 1.0 / (scale + np.square(times - parameters @ fitted).sum(-1))
    layer.kernel.assign(fitted)
