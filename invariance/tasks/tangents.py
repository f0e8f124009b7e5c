"""Predicting how images move: the tangents of a transformation at any image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from invariance.errors import require_positive
from invariance.ranges import contains
from invariance.schema import Amount, Count, Label, record
from invariance.tasks.columns import Column, share
from invariance.tasks.task import Task
from invariance.wording import join

if TYPE_CHECKING:
    import numpy as np


GROUPS = ("restricted", "free")


@dataclass(frozen=True)
class Tangents(Task):
    """Prediction of the directions in which the transformation changes an image, at any image.

    A model maps transformed images (batch, height, width, channels) in [0, 1] to tangents (batch, dimensions, height,
    width, channels), one for each parameter; their lengths and signs do not matter. It is trained on differences of
    drawings of one image that are near each other, for example with `losses.TangentLoss`, and never told by how much
    they differ.

    Two things are measured: the share of the true tangent that lies outside the predicted span, and how far one comes
    by following the tangents from the untransformed image on, see `follow`.

    Args:
        partners: each training image is compared with the nearest of this many other drawings of it.
        step: half the distance of the images whose difference is the true tangent, and the step in which tangents are
            followed; on the scale of `Transformation.to_coordinate`.
        walks: parameters to which tangents are followed, as whole steps from the identity on.

    Raises:
        ValueError: see `Task`; also if `partners` or `step` is not positive, or a walk does not consist of whole steps.

    Reference: Bengio and Monperrus, "Non-local manifold tangent learning" (2004).
    """

    partners: int = 16
    step: float = 5.0
    walks: tuple[float, ...] = (10.0, 45.0, 90.0)

    name = "tangents"
    measurer = "follow"
    curve = "share of the tangent that is missed"
    logarithmic = True
    told = "K1: which drawings show the same image"
    measures: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(GROUPS, dict[str, Amount]),
        "digits": dict[Label, dict[str, Amount]],
        "images": dict[str, Count],
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "partners")
        if not 0 < self.step < float("inf"):
            raise ValueError(f"Argument `step` must be positive. Received: {self.step!r}")
        object.__setattr__(self, "walks", tuple(map(float, self.walks)))
        if not self.walks or any(not 1 <= count < 1e5 or abs(count - round(count)) > 1e-6 for count in self._steps()):
            raise ValueError(
                f"Argument `walks` must be parameters a whole number of steps above the identity, in steps of "
                f"{self.step:g}. Received: {self.walks}"
            )

    def _steps(self) -> list[float]:
        kind = self.transformation
        start = kind.to_coordinate(kind.identity)
        return [(kind.to_coordinate(each) - start) / self.step for each in self.walks]

    @property
    def steps(self) -> tuple[int, ...]:
        """The number of steps of each walk."""
        return tuple(map(round, self._steps()))

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """(shape of transformed images, number of tangents)"""
        return self.transformation.output_shape(image_shape), self.transformation.dimensions

    def prepare(self, seed: int, classes: Sequence[int]) -> Callable:
        """See `Task.prepare`; inputs are images in [0, 1], targets their differences to the nearest other drawing."""
        from keras import ops

        from invariance import random

        count = self.partners

        def prepare(images: Any, labels: Any, draws: Any) -> tuple:
            first = self.drawings(seed, images, labels, draws)
            size = first.shape[0]
            numbers = ops.reshape(draws[:, None] * count + ops.arange(count, dtype="int64"), (-1,))
            images, labels = (ops.repeat(each, count, axis=0) for each in (images, labels))
            others = self.drawings(seed, images, labels, numbers, random.PARTNERS)
            distances = ops.sum(
                ops.square(ops.reshape(others, (size, count, -1)) - ops.reshape(first, (size, 1, -1))), -1
            )
            nearest = ops.arange(size) * count + ops.cast(ops.argmin(distances, -1), "int32")
            return first, ops.take(others, nearest, axis=0) - first

        return prepare

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        return inputs, f"the first training images; each is compared with the nearest of {self.partners} other drawings"

    def require_outputs(self, model: Any, image_shape: tuple[int, ...], classes: Sequence[int]) -> None:
        from invariance.tasks.follow import Predictor

        Predictor(model, self, image_shape)

    def evaluator(self, model: Any, images: np.ndarray, classes: Sequence[int]) -> Callable[[float], Any]:
        from invariance.tasks.follow import Predictor

        predictor = Predictor(model, self, images.shape[1:])
        batches = predictor.batches(images)
        return lambda point: predictor.errors(batches, point)

    def averaged(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """The points that each average includes: {"in", "out": (points,) booleans}.

        Raises:
            ValueError: if one of the averages includes no point.
        """
        kind = self.transformation
        inside = contains(self.inside, points, kind.period, closed=not kind.whole)
        chosen = {"in": inside, "out": contains(self.outside, points, kind.period, closed=True) & ~inside}
        for name, mask in chosen.items():
            if not mask.any():
                raise ValueError(f"no point of the evaluation's grid lies {name} of range; a finer grid is needed")
        return chosen

    def points(self, spacing: float | None) -> np.ndarray:
        points = super().points(spacing)
        self.averaged(points)
        return points

    @property
    def keys(self) -> tuple[str, ...]:
        """What is measured of each group of classes, as metrics.json names it."""
        return ("in", "out", *(f"walk_{each:g}" for each in self.walks))

    def columns(self, labels: Sequence[int]) -> tuple[Column, ...]:
        """Each of `keys` for the restricted classes together, and for the free ones."""

        def reader(group: str, key: str) -> Callable[[Mapping], Any]:
            return lambda values: (values.get(group) or {}).get(key)

        return tuple(
            Column(f"{group}_{key}", f"{group} {key.replace('_', ' to ')}", reader(group, key), share)
            for group in GROUPS
            for key in self.keys
        )

    def remarks(self, metrics: Mapping) -> list[str]:
        number, unit = sum((metrics.get("images") or {}).values()), self.transformation.unit
        walks = f"{join(f'{each:g}' for each in self.walks)} {unit}".rstrip()
        return [
            "In and out of the range of the restricted classes: the share of the true tangent outside the predicted "
            f"one, 1 − cos², {number:,} test images. Walks to {walks}: the share of the squared difference to the true "
            f"image that is left after following the tangents there, in steps of {self.step:g}, each as far as brings "
            "it nearest to the true image; doing nothing is 1."
        ]

    @property
    def required(self) -> Mapping[str, Any]:
        group = "restricted" if self.restricted else "free"
        return {group: record(group, dict.fromkeys(self.keys, Amount))}

    def pictures(self) -> Mapping[str, str]:
        by = self.transformation.parameter
        return {
            "error_by_parameter.png": f"Share of the tangent that is missed by {by}, one line per class",
            "tangents.png": "True and predicted tangents",
            "walks.png": "True images, and what following the tangents leads to",
        }
