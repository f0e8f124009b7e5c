"""What a learnt movement answers when asked how far, and which way, a test image was moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance import random
from invariance.ranges import Ranges

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.transfer.learned_movement import LearnedMovement
    from invariance.transforms import Transformation

# Test images of each group: of a movement of one parameter, and fewer by the second number for each further one, since
# there are as many times more movements to be tried.
_IMAGES, _FEWER = 512, 8


@dataclass(frozen=True, eq=False)
class Answers:
    """True parameters of moved test images, and those that a learnt movement answers.

    Attributes:
        transformation: that moved the images.
        true: (images, dimensions), on the scale of `Transformation.to_coordinate`, from the identity on.
        answered: the same.
        restricted: (images,), which of them show restricted classes.
        unit: how the unit of its time was found.
        half_way: (images,), relative squared errors of images moved by half the period; None without a period.
    """

    transformation: Transformation
    true: np.ndarray
    answered: np.ndarray
    restricted: np.ndarray
    unit: str
    half_way: np.ndarray | None = None

    @property
    def errors(self) -> np.ndarray:
        """Distances (images,) between answers and truth; of periodic parameters the shorter way round."""
        return np.linalg.norm(_centred(self.answered - self.true, self.transformation.period), axis=-1)

    def metrics(self) -> dict[str, Any]:
        """The errors in numbers.

        Returns:
            "unit", "within": the default spacing of evaluations (5 degrees, 2 pixels, .1 octaves as a factor), and for
            "free" and "restricted" classes {"images", "median_error" (in the parameter's unit; of factors, a factor),
            "share_within"}; for periodic parameters also "share_opposite": off by half a period, up to twice that
            spacing, which is the right answer for a symmetric image; and "half_period_error", the median of
            `half_way`.
        """
        kind, errors = self.transformation, self.errors
        found: dict[str, Any] = {"unit": self.unit, "within": float(kind.from_coordinate(kind.spacing))}
        for name, mask in (("free", ~self.restricted), ("restricted", self.restricted)):
            own = errors[mask]
            if not own.size:
                continue
            found[name] = {
                "images": own.size,
                "median_error": float(kind.from_coordinate(np.median(own))),
                "share_within": float(np.mean(own <= kind.spacing)),
            }
            if kind.period:
                opposite = np.abs(own - kind.period / 2) <= 2 * kind.spacing
                found[name]["share_opposite"] = float(np.mean(opposite))
            if self.half_way is not None:
                found[name]["half_period_error"] = float(np.median(self.half_way[mask]))
        return found


def ask(learned: LearnedMovement, data: Data, seed: int) -> Answers:
    """Moves test images over the whole range of the free classes, and asks by how much.

    The learnt time has no unit and no sign. If movement and transformation are periodic, their periods are the same,
    and the sign is that of the majority of the images of free classes. Otherwise the linear map of times that fits
    these images best is taken (for one parameter, a factor). Without free classes, it is taken from all images.

    Args:
        learned: the movement, with its task.
        data: test images.
        seed: chooses images and parameters.
    """
    task, period = learned.task, learned.movements.period
    kind, rng = task.transformation, np.random.default_rng(seed)
    restricted = np.isin(data.y_test, list(task.restricted))
    most = max(1, _IMAGES // _FEWER ** (task.transformation.dimensions - 1))
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(mask))[:most] for mask in (~restricted, restricted) if mask.any()]
    )
    images, labels = data.x_test[chosen].astype("float32") / 255.0, data.y_test[chosen]
    whole, positions = Ranges(task.ranges.default), np.arange(len(chosen), dtype="int64")
    parameters = np.asarray(kind.draw(whole, seed, positions, labels, random.EVALUATION), "float32")
    upright = np.asarray(kind.apply(images, np.full_like(parameters, kind.identity)))
    times = learned.times_between(upright, np.asarray(kind.apply(images, parameters)))
    coordinates = np.array([kind.to_coordinate(value) for value in parameters.ravel().tolist()])
    true = coordinates.reshape(len(chosen), -1) - kind.to_coordinate(kind.identity)
    true = _centred(true, kind.period)
    # What cannot be answered counts as not moved.
    times = np.where(np.isfinite(times), times, 0.0)
    half_way = None
    taught = ~restricted[chosen] if not restricted.all() else restricted[chosen]
    if period and kind.period:
        answered = times * (kind.period / period)
        off = [np.abs(_centred(sign * answered - true, kind.period))[taught] for sign in (1.0, -1.0)]
        answered = answered if np.mean(off[0] < off[1]) >= 0.5 else -answered
        opposite = kind.from_coordinate(kind.to_coordinate(kind.identity) + kind.period / 2)
        right = np.asarray(kind.apply(images, np.full_like(parameters, opposite)))
        half_way = _half_way(learned, upright, right, period)
        unit = f"one period is {kind.period:g} {kind.unit}; the sign is the majority's"
    else:
        answered = times @ np.linalg.lstsq(times[taught], true[taught], rcond=None)[0]
        unit = "least squares over the images of free classes"
    return Answers(kind, true, _centred(answered, kind.period), restricted[chosen], unit, half_way)


def _half_way(learned: LearnedMovement, upright: np.ndarray, right: np.ndarray, period: float) -> np.ndarray:
    """Squared errors (images,) of upright images moved by half the period, relative to the right images' squares.

    The right images are moved by zero, so that what the movement cannot represent counts on neither side.
    """
    times = np.full((len(right), 1), period / 2, "float32")  # a movement with a period has one parameter
    right, moved = np.asarray(learned.move(right, 0.0 * times)), np.asarray(learned.move(upright, times))
    return np.square(moved - right).sum((1, 2, 3)) / np.square(right).sum((1, 2, 3))


def _centred(values: np.ndarray, period: float | None) -> np.ndarray:
    """Values in [-period / 2, period / 2); as they are without a period."""
    return values if period is None else (values + period / 2) % period - period / 2
