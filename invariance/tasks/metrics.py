"""A classifier's metrics, from its answers to all images at all parameters. A new one is a function, see `metric`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from invariance.ranges import Intervals, cell_weights

if TYPE_CHECKING:
    from invariance.tasks.recognition import Recognition
    from invariance.transforms import Transformation


@dataclass(frozen=True)
class Average:
    """The images and parameters that a metric averages over.

    Args:
        ranges: label -> the range of parameters at which its test images count. Each image has the same weight, so a
            class is weighted by its number of test images.
        answers: the labels that count as hits; None for an image's own label.
    """

    ranges: Mapping[int, Intervals]
    answers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Metric:
    """A share of test images, see `metric`."""

    key: str
    title: str
    average: Callable[[Recognition, Sequence[int]], Average]


METRICS: dict[str, Metric] = {}


def metric(key: str, title: str) -> Callable:
    """Declares a metric: decorates a function of task and classes that returns an `Average`.

    Args:
        key: name in metrics.json.
        title: name in tables.
    """

    def declare(average: Callable[[Recognition, Sequence[int]], Average]) -> Callable:
        METRICS[key] = Metric(key, title, average)
        return average

    return declare


@metric("p_test", "P_test")
def p_test(task: Recognition, classes: Sequence[int]) -> Average:
    """Accuracy on all classes, each in its own training range."""
    return Average({label: task.ranges.of(label) for label in classes})


@metric("p_in", "P_in")
def p_in(task: Recognition, classes: Sequence[int]) -> Average:
    """Accuracy on the restricted classes in range."""
    return Average(dict.fromkeys(task.restricted, task.inside))


@metric("p_out", "P_out")
def p_out(task: Recognition, classes: Sequence[int]) -> Average:
    """Accuracy on the restricted classes out of range."""
    return Average(dict.fromkeys(task.restricted, task.outside))


@metric("p_inv", "P_inv")
def p_inv(task: Recognition, classes: Sequence[int]) -> Average:
    """Accuracy on the restricted classes farthest from their training range (upside down, for rotations)."""
    return Average(dict.fromkeys(task.restricted, task.inverted))


@metric("false_alarms", "false alarms")
def false_alarms(task: Recognition, classes: Sequence[int]) -> Average:
    """Share of the free classes' images taken for a restricted class, over the parameters of P_out."""
    free = [label for label in classes if label not in task.restricted] if task.restricted else []
    return Average(dict.fromkeys(free, task.outside), answers=task.restricted)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A classifier's answers to the transformed test images, counted.

    Attributes:
        transformation: of the images.
        classes: labels, in the order of the classifier's outputs.
        points: (points,) parameters, an even grid or single values.
        counts: (classes, points, outputs) number of a class's images taken for an output, at each point.
        errors: (classes, points) mean squared error of the reconstruction, pixels in [0, 1]; None without one.
    """

    transformation: Transformation
    classes: tuple[int, ...]
    points: np.ndarray
    counts: np.ndarray
    errors: np.ndarray | None = None

    @property
    def images(self) -> np.ndarray:
        """Number of test images per class, (classes,); may be zero."""
        return self.counts[:, 0].sum(-1)

    @property
    def shares(self) -> np.ndarray:
        """Share of a class's images taken for an output, (classes, points, outputs); 0 for classes without images."""
        return self.counts / np.maximum(1, self.images)[:, None, None]

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy, (classes, points); 0 for classes without images."""
        return np.stack([self.shares[row, :, row] for row in range(len(self.classes))])

    @property
    def unanswered(self) -> list[int]:
        """The classes that no image was taken for at any point."""
        return [label for label, answers in zip(self.classes, self.counts.sum((0, 1)), strict=True) if not answers]

    def weights(self, pairs: Intervals) -> np.ndarray:
        """The weight of each point in an average over a range, (points,); their sum is one."""
        kind = self.transformation
        # On the scale on which draws are uniform. If values are whole, a cell begins at its point.
        scaled = tuple((kind.to_coordinate(low), kind.to_coordinate(high)) for low, high in pairs)
        points = [kind.to_coordinate(point) for point in self.points.tolist()]
        return np.asarray(cell_weights(points, scaled, kind.period, 0.0 if kind.whole else -0.5))

    def taken_for(self, labels: Sequence[int], pairs: Intervals) -> np.ndarray:
        """Share of each label's images taken for each output, averaged over a range: (labels, outputs)."""
        rows = [self.classes.index(label) for label in labels]
        return np.einsum("lao,a->lo", self.shares[rows], self.weights(pairs))

    def proportion(self, average: Average) -> tuple[float | None, int, float | None]:
        """A metric: share of hits, number of images, and mean squared error of the reconstruction.

        Share and error are None if no image counts; so is the error without a reconstruction.
        """
        images = dict(zip(self.classes, self.images.tolist(), strict=True))
        total = sum(images[label] for label in average.ranges)
        if not total or not all(average.ranges.values()):
            return None, total, None
        weights = np.zeros(self.accuracy.shape)
        for label, pairs in average.ranges.items():
            weights[self.classes.index(label)] = images[label] / total * self.weights(pairs)
        hits = self.accuracy
        if average.answers is not None:
            hits = self.shares[:, :, [self.classes.index(label) for label in average.answers]].sum(-1)
        error = None if self.errors is None else float(np.sum(weights * self.errors))
        return min(1.0, float(np.sum(weights * hits))), total, error

    def curves(self, values: np.ndarray | None = None) -> list[dict]:
        """Rows (digit, parameter, value, images) of the accuracy, or of other ``values`` (classes, points)."""
        return [
            {"digit": label, "parameter": float(point), "value": float(value), "images": int(images)}
            for label, images, row in zip(
                self.classes, self.images, self.accuracy if values is None else values, strict=True
            )
            for point, value in zip(self.points, row, strict=True)
            if images
        ]

    def table(self) -> list[dict]:
        """Rows (digit, parameter, predicted, images), where ``predicted`` is a label."""
        return [
            {"digit": label, "parameter": float(point), "predicted": predicted, "images": int(self.counts[i, j, k])}
            for i, label in enumerate(self.classes)
            for j, point in enumerate(self.points)
            for k, predicted in enumerate(self.classes)
        ]


def proportions(predictions: Predictions, task: Recognition) -> dict:
    """All metrics of a classifier, from its predictions on a grid.

    Returns:
        {key of each metric: share (None if no image counts), "chance": 1 / classes, "images": key -> number of images,
        "interval": key -> 95 % Wilson interval for that number, "never_answers": labels no image was taken for}; with a
        reconstruction also "reconstruction": {"mse_test", "mse_in", "mse_out", "mse_inv"}, its mean squared errors over
        the images and parameters of the accuracies.
    """
    result: dict = {"chance": 1 / len(predictions.classes), "images": {}, "interval": {}}
    reconstruction = {}
    for key, each in METRICS.items():
        average = each.average(task, predictions.classes)
        value, images, error = predictions.proportion(average)
        result[key], result["images"][key] = value, images
        result["interval"][key] = None if value is None else list(wilson(value, images))
        if average.answers is None:
            reconstruction["mse" + key.removeprefix("p")] = error
    if predictions.errors is not None:
        result["reconstruction"] = reconstruction
    return result | {"never_answers": predictions.unanswered}


def wilson(proportion: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a proportion of n independent images.

    Args:
        proportion: in [0, 1].
        n: number of images.
        z: normal quantile; the default gives 95 %.

    Raises:
        ValueError: if the proportion is out of range, or n is not positive.

    Reference: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if n < 1 or not 0.0 <= proportion <= 1.0:
        raise ValueError(f"A proportion in [0, 1] of at least one image is needed. Received: {proportion!r}, n={n!r}")
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    # Rounding must not move the ends at 0 and 1.
    return 0.0 if proportion == 0.0 else centre - half, 1.0 if proportion == 1.0 else centre + half
