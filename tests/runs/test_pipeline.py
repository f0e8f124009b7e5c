"""Which image comes at which position."""

import numpy as np
import pytest
import tensorflow as tf

from invariance import random
from invariance.runs.pipeline import batches, image_index

SIZE = 50


@pytest.fixture(scope="module")
def images():
    """Fifty 3 x 3 images; all pixels of number i are i."""
    return np.broadcast_to(np.arange(SIZE, dtype="uint8")[:, None, None, None], (SIZE, 3, 3, 1)).copy()


@pytest.fixture(scope="module")
def labels():
    """Labels that are no simple function of the number."""
    return np.random.default_rng(0).integers(0, 10, SIZE)


def read(dataset):
    parts = [tuple(value.numpy() for value in batch) for batch in dataset]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def test_batches_from_a_step_on_are_those_of_the_whole_sequence(images, labels):
    whole = read(batches(images, labels, seed=3, batch_size=8, start=0, stop=12))
    later = read(batches(images, labels, seed=3, batch_size=8, start=5, stop=9))
    for one, other in zip(whole, later, strict=True):
        np.testing.assert_array_equal(one[5 * 8 : 9 * 8], other)


def test_steps_and_batch_size(images, labels):
    shapes = [tuple(batch[0].shape) for batch in batches(images, labels, seed=0, batch_size=8, start=2, stop=5)]
    assert shapes == [(8, 3, 3, 1)] * 3
    assert len(list(batches(images, labels, seed=0, batch_size=8, start=4, stop=4))) == 0


def test_the_sequence_does_not_depend_on_the_batch_size(images, labels):
    eight = read(batches(images, labels, seed=1, batch_size=8, start=0, stop=3))
    three = read(batches(images, labels, seed=1, batch_size=3, start=0, stop=8))
    for one, other in zip(eight, three, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bytes_with_their_labels_and_positions(images, labels):
    shown, targets, draws = read(batches(images, labels, seed=2, batch_size=16, start=10, stop=20))
    assert (shown.dtype, targets.dtype, draws.dtype) == (np.uint8, np.int32, np.int64)
    index = shown[:, 0, 0, 0]
    np.testing.assert_array_equal(shown, images[index])
    np.testing.assert_array_equal(targets, labels[index])
    np.testing.assert_array_equal(draws, np.arange(160, 320))


def test_seeds_and_epochs_differ(images, labels):
    first, again, second_epoch, other_seed = (
        read(batches(images, labels, seed, batch_size=10, start=start, stop=start + 10))[0][:, 0, 0, 0]
        for seed, start in ((0, 0), (0, 0), (0, 10), (1, 0))
    )
    np.testing.assert_array_equal(first, again)
    # Independent sequences agree in 100 / 50 = 2 +/- 1.4 of 100 places: 12 is 7 standard deviations above.
    assert (first == second_epoch).sum() < 12
    assert (first == other_seed).sum() < 12


@pytest.mark.parametrize("size", [1, 10, 48_133, 2**31 - 1])
def test_index_is_the_random_word_scaled_to_the_size(size):
    positions = tf.range(1000, dtype=tf.int64)
    word = random.words(9, random.ORDER, positions)[0].numpy()
    expected = [int(value) * size // 2**32 for value in word]
    found = image_index(9, positions, size)
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_indices_are_uniform():
    count, size = 100_000, 50
    observed = np.bincount(image_index(4, tf.range(count, dtype=tf.int64), size).numpy(), minlength=size)
    assert len(observed) == size
    # Chi-square with 49 degrees of freedom has standard deviation sqrt(98) = 9.9; five of them above its mean.
    assert ((observed - count / size) ** 2).sum() / (count / size) < 49 + 5 * 9.9


def test_the_end_does_not_wait_for_the_tuner(images, labels):
    # tf.data's tuner sleeps for twice as long each time, a minute at most, and the last batch waits for it.
    assert batches(images, labels, 0, 4, 0, 3).options().autotune.enabled is False


def test_batches_of_one_class():
    labels = np.array([5, 2, 5, 7, 2, 5] * 10, "int32")
    images = np.arange(len(labels), dtype="uint8")[:, None, None, None]
    seen = []
    for x, y, draws in batches(images, labels, 3, 16, 0, 60, one_class=True):
        assert len(set(y.numpy())) == 1 and (labels[x.numpy()[:, 0, 0, 0]] == y.numpy()).all()
        seen.append((int(y[0]), *x.numpy()[:, 0, 0, 0]))
        assert draws.numpy().tolist() == list(range(16 * (len(seen) - 1), 16 * len(seen)))
    # Each class and each of its images comes; 60 batches leave out a class with probability 1e-10.
    assert {each[0] for each in seen} == {2, 5, 7} and len({image for each in seen for image in each[1:]}) == 60
    # From any step on it is the same sequence.
    again = [int(y[0]) for _, y, _ in batches(images, labels, 3, 16, 40, 60, one_class=True)]
    assert again == [each[0] for each in seen[40:]]
