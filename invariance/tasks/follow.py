"""Measures predicted tangents: how much of the true ones they miss, and where following them leads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from invariance import xla
from invariance.errors import UserError, one_line
from invariance.losses import outside_span, projected
from invariance.progress import Progress, Watch
from invariance.tasks.batches import Batches, limited
from invariance.tasks.draw import BATCH, Errors
from invariance.tasks.task import Evaluation, Measured
from invariance.typing import Tensor

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks.tangents import Tangents


class Predictor:
    """A model that predicts tangents, combined with a task's transformation and compiled once for all uses.

    Args:
        model: maps images (batch, height, width, channels) in [0, 1] to tangents (batch, dimensions, height, width,
            channels).
        task: gives the transformation.
        image_shape: (height, width, channels) of untransformed images.

    Raises:
        UserError: if the model does not take such images, or predicts something of another shape.
    """

    def __init__(self, model: Any, task: Tangents, image_shape: tuple[int, ...]):
        self.task, self.image_shape = task, tuple(image_shape)
        kind = task.transformation
        start = kind.to_coordinate(kind.identity)
        shape = kind.output_shape(self.image_shape)

        def transformed(images: Tensor, parameters: Tensor) -> Tensor:
            return kind.apply(images, ops.repeat(parameters[None], images.shape[0], axis=0))

        def drawn(images: Tensor, parameters: Tensor) -> Tensor:
            return transformed(ops.cast(images, "float32") / 255.0, parameters)

        def true(images: Tensor) -> Tensor:
            """The true tangents of images in [0, 1], as central differences: (batch, dimensions, ...)."""
            found = []
            for row in np.eye(kind.dimensions):
                ends = (
                    np.where(row, kind.from_coordinate(start + sign * task.step), kind.identity).astype("float32")
                    for sign in (1.0, -1.0)
                )
                after, before = (transformed(images, ops.convert_to_tensor(each.squeeze())) for each in ends)
                found.append(after - before)
            return ops.stack(found, 1)

        def missed(images: Tensor, parameters: Tensor) -> Tensor:
            shown = self.drawn(images, parameters)
            tangents, truth = self.tangents(shown), self.true(shown)
            shares = [outside_span(truth[:, number], tangents) for number in range(kind.dimensions)]
            return ops.mean(ops.stack(shares), 0)

        def step(images: Tensor, target: Tensor) -> Tensor:
            middle = ops.clip(images + projected(target - images, self.tangents(images)) / 2.0, 0.0, 1.0)
            return ops.clip(images + projected(target - images, self.tangents(middle)), 0.0, 1.0)

        # XLA always compiles the warp. On a CPU, networks run faster on TensorFlow's own kernels.
        by_xla = xla.on_gpu()
        self.drawn, self.true = xla.compiled(drawn), xla.compiled(true)
        self.tangents = tf.function(lambda images: model(images, training=False), jit_compile=by_xla, autograph=False)
        self._missed, self._step = (tf.function(each, jit_compile=by_xla, autograph=False) for each in (missed, step))
        try:
            found = tuple(getattr(self.tangents(tf.zeros((2, *shape))), "shape", ()))
        except Exception as error:  # a model may raise anything
            raise UserError(f"the model does not take images {shape} ({one_line(error)})") from error
        if found != (2, kind.dimensions, *shape):
            raise UserError(f"the model predicts {found[1:]}, but tangents {(kind.dimensions, *shape)} are needed")

    def batches(self, images: ArrayLike) -> Batches:
        """Untransformed images, to be given to the other methods."""
        return Batches(images, self.image_shape, BATCH)

    def parameters(self, point: float) -> Tensor:
        """The parameters at a point of the grid: a number, or (dimensions,)."""
        return tf.constant(self.task.transformation.parameters(np.array([point], "float32"))[0])

    def errors(self, batches: Batches, point: float) -> np.ndarray:
        """The share of the true tangents outside the predicted ones at a point of the grid, (n,).

        Raises:
            UserError: if predictions are not finite.
        """
        parameters = self.parameters(point)
        errors = batches.join(self._missed(batch, parameters) for batch in batches)
        if not np.isfinite(errors).all():
            raise UserError(f"the model's tangents of {int((~np.isfinite(errors)).sum())} images are not finite")
        return errors

    def walk(self, batches: Batches, steps: int) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
        """Follows the tangents from the untransformed images on, in steps of the task's size, by the midpoint method.

        What tangents leave open is told: each step goes to their point that is nearest to the next true image.

        Yields:
            For each step the images that are reached, the true ones, and those at the start; batches of each.
        """
        kind = self.task.transformation
        start = kind.to_coordinate(kind.identity)
        first = [self.drawn(batch, self.parameters(kind.identity)) for batch in batches]
        reached = first
        for number in range(1, steps + 1):
            parameters = self.parameters(kind.from_coordinate(start + number * self.task.step))
            true = [self.drawn(batch, parameters) for batch in batches]
            reached = [self._step(images, target) for images, target in zip(reached, true, strict=True)]
            yield reached, true, first


@dataclass(eq=False)
class MeasuredTangents(Measured):
    """The results of measuring predicted tangents, see `Measured`.

    Attributes:
        errors: the share of the true tangent that is missed, on the grid.
        left: (classes, steps), the share of the squared difference to the true images that is left after each step.
    """

    task: Tangents
    predictor: Predictor
    data: Data
    classes: tuple[int, ...]
    errors: Errors
    left: np.ndarray
    metrics: dict

    @property
    def _walked(self) -> np.ndarray:
        """The parameter after each step."""
        kind = self.task.transformation
        steps = self.task.step * np.arange(1, self.left.shape[1] + 1)
        return np.asarray(kind.from_coordinate(kind.to_coordinate(kind.identity) + steps))

    @property
    def tables(self) -> dict[str, list[dict]]:
        walks = [
            {"digit": label, "parameter": float(point), "left": float(self.left[row, column])}
            for row, label in enumerate(self.classes)
            for column, point in enumerate(self._walked)
        ]
        return {"curves.csv": self.errors.curves(), "walks.csv": walks}

    def summary(self) -> str:
        return "; ".join(
            f"{group} in {self.metrics[group]['in']:.3f} out {self.metrics[group]['out']:.3f}, left of "
            f"{self.task.walks[-1]:g} {self.task.transformation.unit}: {self.metrics[group][self.task.keys[-1]]:.3f}"
            for group in ("restricted", "free")
            if group in self.metrics
        )

    def lines(self) -> list[str]:
        found = ["share of the true tangent that is missed, and of the difference that is left after following them"]
        for digit, values in self.metrics["digits"].items():
            mark = " (restricted)" if int(digit) in self.task.restricted else ""
            found.append(f"{digit}: " + "  ".join(f"{key} {value:.4f}" for key, value in values.items()) + mark)
        return found

    def figures(self, title: str = "") -> Iterator[Any]:
        from invariance import figures

        task, kind = self.task, self.task.transformation
        digit = task.example(self.classes)
        yield figures.Picture(
            "error_by_parameter.png",
            figures.error_by_parameter(self.errors, task, digit, title, what="1 − cos² of the true tangent"),
        )
        free = [label for label in self.classes if label not in task.restricted]
        shown = [*task.restricted, *free[:2]] if task.restricted else list(self.classes[:4])
        images = np.stack([self.data.x_test[np.flatnonzero(self.data.y_test == label)[0]] for label in shown])
        batches, points = self.predictor.batches(images), kind.even(20, task.extent)
        expected, found = [], []
        for point in points:
            drawn = [self.predictor.drawn(batch, self.predictor.parameters(point)) for batch in batches]
            true = [self.predictor.true(each)[:, 0] for each in drawn]
            nearest = [projected(one, self.predictor.tangents(each)) for one, each in zip(true, drawn, strict=True)]
            expected.append(batches.join(true))
            found.append(batches.join(nearest))
        # Grey is zero.
        yield figures.Picture(
            "tangents.png",
            figures.pairs(
                np.clip(np.stack(expected), -1, 1),
                np.clip(np.stack(found), -1, 1),
                shown,
                points,
                task,
                f"{title}\nabove: true tangent; below: its nearest point in the predicted span",
            ),
            greys=True,
        )
        walked = [
            (batches.join(true), batches.join(reached))
            for reached, true, _ in self.predictor.walk(batches, self.left.shape[1])
        ]
        images, reached = (np.stack(each) * 2 - 1 for each in zip(*walked, strict=True))
        yield figures.Picture(
            "walks.png",
            figures.pairs(
                images, reached, shown, self._walked, task, f"{title}\nabove: true image; below: reached by tangents"
            ),
            greys=True,
        )


def measure(
    task: Tangents,
    model: Any,
    data: Data,
    classes: Sequence[int],
    evaluation: Evaluation,
    progress: Progress | None = None,
) -> MeasuredTangents:
    """Measures predicted tangents, see `Task.measure` and `Predictor`.

    Raises:
        UserError: if the model does not fit the data, or a class has no images.
    """
    images, labels = limited(data.x_test, data.y_test, evaluation.images_per_class)
    if missing := sorted(set(classes) - set(labels.tolist())):
        raise UserError(f"no test image of the classes {missing}")
    predictor = Predictor(model, task, images.shape[1:])
    batches, points = predictor.batches(images), task.points(evaluation.spacing)
    progress = progress or Progress("evaluation", quiet=True)
    rows = np.searchsorted(classes, labels)
    counts = np.bincount(rows)
    values, watch = np.zeros((2, len(classes), len(points))), Watch(len(points))
    for column, point in enumerate(points):
        missed = predictor.errors(batches, point).astype("float64")
        values[:, :, column] = [np.bincount(rows, each) / counts for each in (missed, missed**2)]
        if progress.due():
            done = column + 1
            progress.show(
                done / len(points), f"{task.transformation.parameter} {done}/{len(points)}  {watch.left(done)} left"
            )
    mean, square = values
    deviations = np.sqrt(np.maximum(0.0, square - mean**2))
    errors = Errors(tuple(classes), np.asarray(points, float), mean, deviations, counts, {})
    # Sums over the images of a class, (classes, steps): of what is left, and of what doing nothing leaves.
    sums = np.array(
        [
            [np.bincount(rows, batches.join(map(_difference, after, other))) for other in (reached, first)]
            for reached, after, first in predictor.walk(batches, max(task.steps))
        ]
    ).transpose(1, 2, 0)
    chosen = task.averaged(errors.points)
    last = [step - 1 for step in task.steps]

    def numbers(members: list[int]) -> dict[str, float]:
        shares = [mean[members][:, mask].mean() for mask in chosen.values()]
        left, undone = sums[:, members][:, :, last].sum(1)
        return dict(zip(task.keys, map(float, (*shares, *(left / undone))), strict=True))

    metrics: dict[str, Any] = {}
    for group, restricted in (("restricted", True), ("free", False)):
        if members := [row for row, label in enumerate(classes) if (label in task.restricted) is restricted]:
            metrics[group] = numbers(members)
    metrics["digits"] = {str(label): numbers([row]) for row, label in enumerate(classes)}
    metrics["images"] = {str(label): int(count) for label, count in zip(classes, counts, strict=True)}
    return MeasuredTangents(task, predictor, data, tuple(classes), errors, sums[0] / sums[1], metrics)


def _difference(images: Tensor, others: Tensor) -> Tensor:
    """Squared differences of images, (batch,)."""
    return ops.sum(ops.square(images - others), (1, 2, 3))
