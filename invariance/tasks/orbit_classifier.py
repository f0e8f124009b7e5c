"""Orbit pooling: a classifier that sees transformed copies of its input, and takes their largest or mean scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from invariance import xla
from invariance.errors import UserError
from invariance.progress import Progress
from invariance.tasks.batches import limited
from invariance.tasks.classify import Classifier, drawn_hits
from invariance.tasks.metrics import METRICS, wilson
from invariance.tasks.task import Evaluation
from invariance.typing import Tensor

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks.recognition import Recognition

# What is taken of the copies' scores, class by class.
POOLINGS = ("max", "mean")
# What any classifier is told by it.
TOLD = "K3: the transformation, at test time"


class OrbitClassifier(Classifier):
    """A classifier whose scores are pooled over copies of its input, moved by the true transformation.

    With input x and parameters u_1, ..., u_R, the scores are max_r f(T(u_r) x), or their mean. The copies are made of
    the image as it was transformed for the test, and so are interpolated twice.

    ``answers`` returns (n, 2) indices, a column for each of `POOLINGS`.

    Args:
        model, task, image_shape, classes, pixels: see `Classifier`.
        copies: about how many, see `Task.orbit`.

    Raises:
        UserError: see `Classifier`; also if the task has no orbit.
    """

    def __init__(
        self,
        model: Any,
        task: Recognition,
        image_shape: tuple[int, ...],
        classes: int,
        copies: int,
        pixels: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__(model, task, image_shape, classes, pixels)
        orbit = task.orbit(copies)
        if orbit is None:
            raise UserError("orbit pooling needs a range of parameters; the free classes were shown at a single value")
        self.orbit: np.ndarray = orbit.astype("float32")

        def score(images: Tensor, parameters: Tensor) -> Tensor:
            return self._outputs(task.transformation.apply(images, parameters, task.fill))[0]

        if isinstance(model, keras.Model):
            score = tf.function(score, jit_compile=xla.on_gpu(), autograph=False)

        def answer(images: Tensor, parameters: Tensor) -> tuple[Tensor, None]:
            seen = self.transform(images, parameters)
            # (copies, batch, classes)
            scores = tf.stack([score(seen, np.repeat(each[None], seen.shape[0], axis=0)) for each in self.orbit])
            # (batch, poolings, classes)
            pooled = tf.stack([tf.reduce_max(scores, 0), tf.reduce_mean(scores, 0)], 1)
            # A copy's score that is not finite shows in the mean.
            finite = tf.reduce_all(tf.math.is_finite(pooled), axis=(1, 2))[:, None]
            return tf.where(finite, tf.argmax(pooled, axis=-1, output_type=tf.int32), -1), None

        self._answer = answer


def measure(
    task: Recognition,
    model: Any,
    data: Data,
    classes: Sequence[int],
    evaluation: Evaluation,
    progress: Progress | None = None,
) -> dict:
    """All metrics of a classifier with orbit pooling; one random parameter is drawn for each image and metric.

    Args:
        task, model, data, classes, evaluation, progress: see `Task.measure_orbit`. The parameters are those of the
            first drawing of `classify.redraws`.

    Raises:
        UserError: see `OrbitClassifier`.
    """
    began = time.perf_counter()
    images, labels = limited(data.x_test, data.y_test, evaluation.images_per_class)
    classifier = OrbitClassifier(model, task, images.shape[1:], len(classes), evaluation.orbit, evaluation.pixels)
    counts: dict[str, int] = dict.fromkeys(METRICS, 0)
    pooled: dict[str, dict[str, Any]] = {
        name: {**dict.fromkeys(METRICS), "interval": dict.fromkeys(METRICS)} for name in POOLINGS
    }
    for key, hits in drawn_hits(classifier, images, labels, classes, evaluation, 1, progress):
        counts[key] = hits.shape[-1]
        for name, share in zip(POOLINGS, hits.mean(axis=-1).tolist(), strict=True):
            pooled[name][key] = share
            pooled[name]["interval"][key] = list(wilson(share, counts[key]))
    return {
        "copies": len(classifier.orbit),
        "told": TOLD,
        "seed": evaluation.seed,
        "images": counts,
        "pooled": pooled,
        "seconds": round(time.perf_counter() - began, 2),
    }
