"""The tf.data pipeline: it decides which image comes at which position, and delivers it as bytes."""

import numpy as np
import tensorflow as tf

from invariance import random
from invariance.typing import Tensor


def image_index(seed: Tensor, positions: Tensor, size: Tensor, stream: int = random.ORDER) -> tf.Tensor:
    """The image at each position of an endless sequence, drawn with replacement as in the original program.

    Args:
        seed: the run's seed.
        positions: (batch,) int64 positions in the sequence.
        size: number of images.
        stream: of random numbers.

    Returns:
        (batch,) int32 indices, uniform in [0, size): a pure function of seed and position.
    """
    word = tf.cast(random.words(seed, stream, positions)[0], tf.uint64)
    return tf.cast(tf.bitwise.right_shift(word * tf.cast(size, tf.uint64), tf.constant(32, tf.uint64)), tf.int32)


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    batch_size: int,
    start: int,
    stop: int,
    *,
    one_class: bool = False,
) -> tf.data.Dataset:
    """Steps ``start`` to ``stop - 1`` of a run's sequence of batches.

    Args:
        images: (n, height, width, channels) uint8.
        labels: (n,) integers.
        seed: the run's seed.
        batch_size: images per step.
        start: first step, counted from 0.
        stop: end of the steps, exclusive.
        one_class: whether all images of a batch are of one class, drawn at random.

    Returns:
        A dataset of (images (batch, height, width, channels) uint8, labels (batch,) int32, draw numbers (batch,)
        int64). The draw number is the image's position in the run, of which `Transformation.draw` is a function.
    """
    if one_class:
        order = np.argsort(labels, kind="stable")
        images, labels = images[order], labels[order]
    _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    images, labels = tf.constant(images), tf.constant(labels, tf.int32)
    first, sizes = tf.constant(first, tf.int32), tf.constant(sizes, tf.int32)

    def batch(step: tf.Tensor) -> tuple:
        positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        if one_class:
            chosen = image_index(seed, step[None], len(first), random.CLASSES)[0]
            index = first[chosen] + image_index(seed, positions, sizes[chosen])
        else:
            index = image_index(seed, positions, len(labels))
        return tf.gather(images, index), tf.gather(labels, index), positions

    options = tf.data.Options()
    # There is nothing to tune, and the end of the data waits for the tuner, which sleeps for up to a minute.
    options.autotune.enabled = False
    return tf.data.Dataset.range(start, stop).map(batch, num_parallel_calls=1).prefetch(4).with_options(options)
