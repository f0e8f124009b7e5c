"""Arrays in batches of one size, so that little is compiled, and what every evaluation computes on them."""

from collections.abc import Callable, Iterable, Iterator
from math import ceil

import numpy as np
import tensorflow as tf
from keras import ops

from invariance.errors import UserError
from invariance.progress import Progress, Watch
from invariance.typing import Tensor

# Sizes are multiples of it.
_ROUND = 16


class Batches:
    """Images as tensors of one shape, the last batch padded.

    Args:
        images: (n, height, width, channels) uint8.
        most: images a batch, at most.

    Raises:
        UserError: if there are no images.
    """

    def __init__(self, images: np.ndarray, most: int):
        if not len(images):
            raise UserError("there are no images to be measured")
        self.count = len(images)
        number = ceil(self.count / most)
        self.size = _ROUND * ceil(self.count / (_ROUND * number))
        self.images = self.split(images)

    def __iter__(self) -> Iterator[tf.Tensor]:
        return iter(self.images)

    def split(self, values: np.ndarray) -> list[tf.Tensor]:
        """Values (n, ...) that go with the images, batch by batch."""
        padded = np.concatenate([values, np.zeros((-len(values) % self.size, *values.shape[1:]), values.dtype)])
        return [tf.constant(padded[start : start + self.size]) for start in range(0, len(padded), self.size)]

    def join(self, parts: Iterable[Tensor]) -> np.ndarray:
        """What was computed batch by batch, (n, ...)."""
        return np.concatenate([np.asarray(part) for part in parts])[: self.count]


def mean_squared(images: Tensor, others: Tensor) -> Tensor:
    """Mean squared error of each image, (batch,), of two batches (batch, height, width, channels)."""
    return ops.mean(ops.square(images - ops.cast(others, "float32")), axis=(1, 2, 3))


def over_both(
    points: np.ndarray, measure: Callable[[tuple[float, float]], float], progress: Progress | None = None
) -> np.ndarray:
    """A number measured at each pair of two parameters, (points, points), rows for the first of the two."""
    progress, watch, rows = progress or Progress("map", quiet=True), Watch(len(points)), []
    for first in points:
        rows.append([measure((first, second)) for second in points])
        if progress.due():
            progress.show(len(rows) / len(points), f"map, row {len(rows)}/{len(points)}  {watch.left(len(rows))} left")
    return np.array(rows)


def limited(images: np.ndarray, labels: np.ndarray, per_class: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first so many images of each class (all for None), in their order, and their labels."""
    if per_class is None:
        return images, labels
    keep = np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]))
    return images[keep], labels[keep]


def one_line(error: Exception) -> str:
    """The first line of an error of Keras or TensorFlow, without escape sequences."""
    lines = [line for line in str(error).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
