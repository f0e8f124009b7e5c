"""How a network itself moves the images that it classifies, measured against how they were moved before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from invariance.tasks.batches import limited
from invariance.typing import Tensor

if TYPE_CHECKING:
    from invariance.tasks.classify import Classifier
    from invariance.tasks.task import Task

# Test images of each class.
_IMAGES = 100
# Slopes that are tried.
_SLOPES = np.arange(-400, 401) / 200


@dataclass(frozen=True, eq=False)
class AppliedMovement:
    """What a network applies to transformed images, in numbers such as an angle.

    Attributes:
        task: gives the transformation.
        points: (points,) of its parameter.
        values: name -> (points, images). One named like the transformation's parameter is compared with it.
        restricted: (images,), which of them show restricted classes.
    """

    task: Task
    points: np.ndarray
    values: Mapping[str, np.ndarray]
    restricted: np.ndarray

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """Name of the group -> (images,), which images belong to it."""
        masks = {"free": ~self.restricted, "restricted": self.restricted}
        return {name: mask for name, mask in masks.items() if mask.any()}

    @property
    def radian(self) -> float:
        """Of a periodic parameter, in its unit; infinite for other parameters."""
        return (self.task.transformation.period or np.inf) / (2 * np.pi)

    @property
    def angles(self) -> np.ndarray | None:
        """The values that are compared with a periodic parameter, in radians; None if there are none."""
        values = self.values.get(self.task.transformation.parameter)
        return None if values is None or self.radian == np.inf else values / self.radian

    def metrics(self) -> dict[str, Any]:
        """How much of a movement the network undoes; empty unless its parameter is periodic.

        Returns:
            For "free" and "restricted" classes {"images", "undone": minus the slope of the applied parameter over the
            true one (1 if all is undone, 0 if nothing), "correlation": their circular correlation (-1 if all is
            undone)}. Both are found for each image, and the slope is common to all.
        """
        angles, true, found = self.angles, self.points / self.radian, {}
        if angles is None:
            return {}
        for name, mask in self.groups.items():
            own = angles[:, mask]
            found[name] = {
                "images": int(mask.sum()),
                "undone": 0.0 - slope(true, own),
                "correlation": float(np.mean(circular_correlation(true, own))),
            }
        return found

    def means(self) -> dict[str, dict[str, np.ndarray]]:
        """The mean of each number over images: group -> name -> (points,).

        Angles have a circular mean, and its "concentration" beside it: 1 if all are equal, 0 if they are scattered.
        """
        angles, found = self.angles, {}
        for group, mask in self.groups.items():
            found[group] = {name: values[:, mask].mean(axis=1) for name, values in self.values.items()}
            if angles is not None:
                resultant = np.exp(1j * angles[:, mask]).mean(axis=1)
                found[group][self.task.transformation.parameter] = np.angle(resultant) * self.radian
                found[group]["concentration"] = np.abs(resultant)
        return found

    def table(self) -> list[dict]:
        """Rows (classes, parameter, ...) of the means."""
        return [
            {"classes": group, "parameter": float(point)} | {name: float(values[row]) for name, values in means.items()}
            for group, means in self.means().items()
            for row, point in enumerate(self.points)
        ]


def slope(true: np.ndarray, angles: np.ndarray) -> float:
    """The slope of angles (points, images) over a linear variable (points,) in radians, an intercept for each image.

    That for which angle - slope x true is most concentrated, between -2 and 2.

    Reference: Fisher, "Statistical analysis of circular data" (1993), section 6.4, for the regression.
    """
    # (slopes, points) x (points, images)
    resultants = np.exp(-1j * _SLOPES[:, None] * true) @ np.exp(1j * angles)
    return float(_SLOPES[np.abs(resultants).mean(axis=1).argmax()])


def circular_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The circular correlation of angles (points,) and (points, images) over the points, (images,), in radians.

    Zero for angles that do not vary.

    Reference: Fisher and Lee, "A correlation coefficient for circular data" (1983).
    """
    # The sums over all pairs of points of sin(a_i - a_j) sin(b_i - b_j), and of its squares.
    a, b = np.exp(1j * first)[:, None], np.exp(1j * second)
    products = np.abs((a * b.conj()).sum(0)) ** 2 - np.abs((a * b).sum(0)) ** 2
    squares = [len(first) ** 2 - np.abs((each**2).sum(0)) ** 2 for each in (a, b)]
    product = squares[0] * squares[1]
    varies = product > 1e-6 * len(first) ** 4
    return np.where(varies, products / np.sqrt(np.where(varies, product, 1.0)), 0.0)


def moving_part(model: Any) -> Callable[[Tensor], Mapping[str, Tensor]] | None:
    """A function of the model's input that says how a part of the model moves it; None if no part does.

    A part is the model, or one of its layers, that has a method ``applied_movement``: of its own input (batch, height,
    width, channels), and returning name -> (batch,) numbers, of which one named like a transformation's parameter
    ("angle", in degrees) is how far the part moves the image in the sense of this transformation. An example is
    `layers.spatial_transformer.SpatialTransformer`.
    """
    if hasattr(model, "applied_movement"):
        return model.applied_movement
    for layer in getattr(model, "layers", ()):
        if hasattr(layer, "applied_movement"):
            seen = keras.Model(model.inputs, layer.input)
            return lambda inputs: layer.applied_movement(seen(inputs, training=False))
    return None


def measure(
    classifier: Classifier, images: np.ndarray, labels: np.ndarray, points: np.ndarray
) -> AppliedMovement | None:
    """Measures how a classifier's model itself moves images; None if no part of it does, see `moving_part`.

    Args:
        classifier: the classifier.
        images, labels: test images, of which the first of each class are taken.
        points: (points,) of the transformation's parameter.
    """
    part = moving_part(classifier.model)
    if part is None or len(points) < 2:
        return None
    images, labels = limited(images, labels, _IMAGES)
    task, batches = classifier.task, classifier.batches(images)
    found: dict[str, list[np.ndarray]] = {}
    for point in points:
        parameters = batches.split(task.parameters_of(point, len(labels)).astype("float32"))
        parts = [
            part(classifier.inputs(classifier.transform(batch, own)))
            for batch, own in zip(batches, parameters, strict=True)
        ]
        for name in parts[0]:
            found.setdefault(name, []).append(batches.join(each[name] for each in parts))
    values = {name: np.stack(each).astype("float64") for name, each in found.items()}
    return AppliedMovement(task, np.asarray(points), values, np.isin(labels, list(task.restricted)))
