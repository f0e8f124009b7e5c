"""What is counted of a classifier's answers. A new metric is one function with the decorator `metric`."""

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
    """What a metric averages over.

    Args:
        ranges: label -> the parameters at which its test images count. Every image has the same weight, so a class
            weighs as its number of test images.
        answers: the labels that count as a hit; None for an image's own label.
    """

    ranges: Mapping[int, Intervals]
    answers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Metric:
    """A share of test images, see `metric`."""

    key: str
    title: str
    average: Callable[[Recognition, Sequence[int]], Average]

    @property
    def text(self) -> str:
        """What it is, one sentence."""
        return (self.average.__doc__ or "").strip()


METRICS: dict[str, Metric] = {}


def metric(key: str, title: str) -> Callable:
    """Declares a metric: a function of task and classes that returns an `Average`. Its docstring says what it is.

    Args:
        key: its name in metrics.json.
        title: its name in tables.
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
    """Share of the free classes' images that are taken for a restricted class, at the parameters of P_out."""
    free = [label for label in classes if label not in task.restricted] if task.restricted else []
    return Average(dict.fromkeys(free, task.outside), answers=task.restricted)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier took the transformed test images for.

    Attributes:
        transformation: of the images.
        classes: labels, in the order of the network's outputs.
        points: (points,) parameters, an even grid or the single values that were trained.
        counts: (classes, points, outputs) number of images of a class, at a point, taken for an output.
        errors: (classes, points) mean squared error of the reconstruction, of pixels in [0, 1]; None for a network
            that reconstructs nothing.
    """

    transformation: Transformation
    classes: tuple[int, ...]
    points: np.ndarray
    counts: np.ndarray
    errors: np.ndarray | None = None

    @property
    def images(self) -> np.ndarray:
        """Number of test images of each class, (classes,); a class may have none."""
        return self.counts[:, 0].sum(-1)

    @property
    def shares(self) -> np.ndarray:
        """Share of a class' images taken for an output, (classes, points, outputs); 0 for a class without images."""
        return self.counts / np.maximum(1, self.images)[:, None, None]

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy, (classes, points); 0 for a class without images."""
        return np.stack([self.shares[row, :, row] for row in range(len(self.classes))])

    @property
    def unanswered(self) -> list[int]:
        """The classes that no image was taken for, whatever its class and parameter."""
        return [label for label, answers in zip(self.classes, self.counts.sum((0, 1)), strict=True) if not answers]

    def weights(self, pairs: Intervals) -> np.ndarray:
        """How much of a range each point represents, (points,), adding up to one."""
        kind = self.transformation
        # A coordinate in which draws are uniform; of whole values, a point represents itself and those up to the next.
        scaled = tuple((kind.to_coordinate(low), kind.to_coordinate(high)) for low, high in pairs)
        points = [kind.to_coordinate(point) for point in self.points.tolist()]
        return np.asarray(cell_weights(points, scaled, kind.period, 0.0 if kind.whole else -0.5))

    def taken_for(self, labels: Sequence[int], pairs: Intervals) -> np.ndarray:
        """Shares (labels, outputs) of what the labels' images are taken for, averaged over a range."""
        rows = [self.classes.index(label) for label in labels]
        return np.einsum("lao,a->lo", self.shares[rows], self.weights(pairs))

    def proportion(self, average: Average) -> tuple[float | None, int, float | None]:
        """(share of hits, number of images, mean squared error of the reconstruction) of a metric.

        Share and error are None where no image counts; the error also for a network that reconstructs nothing.
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
        """A long table: digit, parameter, value (accuracy, or other ``values`` (classes, points)), images."""
        return [
            {"digit": label, "parameter": float(point), "value": float(value), "images": int(images)}
            for label, images, row in zip(
                self.classes, self.images, self.accuracy if values is None else values, strict=True
            )
            for point, value in zip(self.points, row, strict=True)
            if images
        ]

    def table(self) -> list[dict]:
        """A longer table: digit, parameter, predicted (label), images."""
        return [
            {"digit": label, "parameter": float(point), "predicted": predicted, "images": int(self.counts[i, j, k])}
            for i, label in enumerate(self.classes)
            for j, point in enumerate(self.points)
            for k, predicted in enumerate(self.classes)
        ]


def proportions(predictions: Predictions, task: Recognition) -> dict:
    """Every metric of a classifier, from its predictions on a grid.

    Returns:
        {key of each metric: share (None where no image counts), "chance": 1 / classes, "images": key -> number of
        images, "interval": key -> 95 % Wilson interval on that number, "never_answers": labels no image was taken for};
        and for a network that reconstructs, "reconstruction": {"mse_test", "mse_in", "mse_out", "mse_inv"}, mean
        squared errors over the same images and parameters as the accuracies.
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
    """Wilson's score interval of a proportion measured on n independent images.

    Args:
        proportion: in [0, 1].
        n: number of images.
        z: normal quantile; the default gives 95 %.

    Raises:
        ValueError: if the proportion is out of bounds, or there is no image.

    Reference: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if n < 1 or not 0.0 <= proportion <= 1.0:
        raise ValueError(f"A proportion in [0, 1] of at least one image is needed. Received: {proportion!r}, n={n!r}")
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    # At 0 and 1 the ends are exact, but for rounding.
    return 0.0 if proportion == 0.0 else centre - half, 1.0 if proportion == 1.0 else centre + half
