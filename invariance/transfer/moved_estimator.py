"""Estimates the vector fields of a flow from drawings of one class, not knowing which show the same image."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from invariance.layers.flow import Flow
from invariance.transfer.flow_estimator import FlowEstimator, blurred
from invariance.transfer.movements import Movements
from invariance.typing import Tensor


def nearest_neighbours(images: Tensor, pool: Tensor, same: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest image of a pool to each of some images, by squared difference.

    Args:
        images: (n, height, width, channels).
        pool: (m, height, width, channels).
        same: (n, m), pairs that do not count.

    Returns:
        Indices (n,) into the pool, and squared distances (n,).
    """
    flat, others = (tf.reshape(each, (tf.shape(each)[0], -1)) for each in (images, pool))
    distances = (
        tf.reduce_sum(tf.square(flat), 1)[:, None]
        + tf.reduce_sum(tf.square(others), 1)[None]
        - 2.0 * tf.matmul(flat, others, transpose_b=True)
    )
    if same is not None:
        distances = tf.where(same, np.float32(np.inf), distances)
    return tf.argmin(distances, 1), tf.maximum(tf.reduce_min(distances, 1), 0.0)


class MovedEstimator(FlowEstimator):
    """Learns fields such that moved images look like real drawings of their class.

    Images are moved at random along the present fields. Each is compared with the nearest among thousands of drawings
    of its class: if the fields were right, the difference would be that of two images at the same parameter, which has
    no direction in common with those of other images. What the differences have in common corrects the fields. The
    first movements are short, so that an image's neighbours are near it, and random fields suffice as a beginning.

    Images that were moved farther than any drawing goes have neighbours that are all on one side, which would bend the
    fields back. Their neighbours are also far, compared with those that the image had before it was moved: as the reach
    grows, more and more of the images for which this is so are left out, in the end half.

    Args:
        flow: a built `Flow`.
        moved: number of images moved for an update.
        reach: images are moved by up to this many pixels (root mean square).
        seed: of the movements.
        steps: number of updates. The reach grows from a fifth to its full size over the first half of them.

    ``train_step`` takes ((drawings, identities), anything): drawings (batch, height, width, channels) of one class, of
    which the first ``moved`` are moved and the others compared with them; identities (batch,), equal for drawings of
    the same image, which are not compared.
    """

    # Share of the images that is left out in the end.
    EXCLUDED = 0.5
    ITERATIONS = 2
    DAMPING = 0.6

    def __init__(self, flow: Flow, moved: int, reach: float, seed: int, steps: int, **kwargs: Any):
        super().__init__(flow, 0.0, refine=True, **kwargs)
        self.moved, self.seed, self.steps = moved, seed, steps
        self.movements = Movements(flow.fields, None, reach * np.eye(flow.fields))
        self.step = self.add_weight(name="step", shape=(), initializer="zeros", trainable=False)

    def train_step(self, data: Any) -> dict[str, Any]:
        (drawings, identities), _ = data
        images, pool = drawings[: self.moved], drawings[self.moved :]
        positions = tf.cast(self.step, tf.int64) * self.moved + tf.range(self.moved, dtype=tf.int64)
        progress = tf.minimum(1.0, 2.0 * self.step / self.steps)
        times = self.movements.draw(self.seed, positions) * (0.2 + 0.8 * progress)
        same, smooth = identities[: self.moved, None] == identities[None, self.moved :], blurred(pool)
        chosen, distances = nearest_neighbours(blurred(self._move(images, times)), smooth, same)
        _, unmoved = nearest_neighbours(blurred(images), smooth, same)
        excess = distances / (unmoved + 1e-6)
        last = tf.cast((1.0 - self.EXCLUDED * progress) * (self.moved - 1), tf.int32)
        kept = tf.cast(excess <= tf.sort(excess)[last], tf.float32)
        self.residual.update_state(self._refine(images, tf.gather(pool, chosen), times, kept))
        self.step.assign_add(1.0)
        return {"residual": self.residual.result()}
