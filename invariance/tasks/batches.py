"""Images in batches of one size, so that functions are compiled once, and computations that all evaluations share."""

from collections.abc import Callable, Iterable, Iterator
from math import ceil

import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from invariance.datasets import checked_images
from invariance.errors import UserError
from invariance.progress import Progress, Watch
from invariance.typing import Tensor

# Batch sizes are multiples of this.
_ROUND = 16


class Batches:
    """Images as tensors (batch, height, width, channels) uint8 of one shape, the last one padded.

    Args:
        images: (n, height, width) or (n, height, width, channels), see `datasets.checked_images`.
        image_shape: (height, width, channels) that is expected.
        most: largest number of images per batch, rounded up to a multiple of 16.

    Raises:
        UserError: if they are not images of that shape.
    """

    def __init__(self, images: ArrayLike, image_shape: tuple[int, ...], most: int):
        images = checked_images(images, "images")
        if images.shape[1:] != image_shape:
            raise UserError(f"the images are {images.shape[1:]}, but images {image_shape} are needed")
        self.count = len(images)
        number = ceil(self.count / most)
        self.size = _ROUND * ceil(self.count / (_ROUND * number))
        self.images = self.split(images)

    def __iter__(self) -> Iterator[tf.Tensor]:
        return iter(self.images)

    def split(self, values: np.ndarray) -> list[tf.Tensor]:
        """Splits values (n, ...) that belong to the images into batches, the last one padded."""
        padded = np.concatenate([values, np.zeros((-len(values) % self.size, *values.shape[1:]), values.dtype)])
        return [tf.constant(padded[start : start + self.size]) for start in range(0, len(padded), self.size)]

    def join(self, parts: Iterable[Tensor]) -> np.ndarray:
        """Joins the results of all batches, without the padding: (n, ...)."""
        return np.concatenate([np.asarray(part) for part in parts])[: self.count]


def mean_squared(images: Tensor, others: Tensor) -> Tensor:
    """Mean squared errors, (batch,), between two batches of images (batch, height, width, channels)."""
    return ops.mean(ops.square(images - ops.cast(others, "float32")), axis=(1, 2, 3))


def over_both(
    points: np.ndarray, measure: Callable[[tuple[float, float]], float], progress: Progress | None = None
) -> np.ndarray:
    """Measures a number at all pairs of two parameters: (points, points), one row for each value of the first."""
    progress, watch, rows = progress or Progress("map", quiet=True), Watch(len(points)), []
    for first in points:
        rows.append([measure((first, second)) for second in points])
        if progress.due():
            progress.show(len(rows) / len(points), f"map, row {len(rows)}/{len(points)}  {watch.left(len(rows))} left")
    return np.array(rows)


def limited(images: np.ndarray, labels: np.ndarray, per_class: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first ``per_class`` images of each class and their labels, in their order; all of them for None."""
    if per_class is None:
        return images, labels
    keep = np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]))
    return images[keep], labels[keep]
