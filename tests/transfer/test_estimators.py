"""Flows are learnt from small movements of synthetic images, and from nothing but images and labels."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from experiments.recognition_rotation import TASK
from invariance.datasets import Data
from invariance.layers.movement_times import MovementTimes
from invariance.ranges import Ranges
from invariance.runs import pipeline, training
from invariance.transfer.flow_estimator import FlowEstimator, blurred, squares
from invariance.transfer.flow_from_labels import FlowFromLabels
from invariance.transfer.flow_from_pairs import FlowFromPairs
from invariance.transfer.generator_from_pairs import GeneratorFromPairs
from invariance.transfer.moved_estimator import nearest_neighbours
from invariance.transfer.movements import Movements, find_period, fit_times, times_between
from tests.helpers import noise
from tests.layers.test_flow import SIDE, flow_of, images, rotation

PAIRS = FlowFromPairs(degree=3, steps=15, refine_steps=5, batch_size=128, nearest=0.2, refine_nearest=0.3)
LABELS = FlowFromLabels(degree=2, steps=40, pool=700, moved=64, reach=6.0)


def strokes(count, seed):
    """Random broken lines within a circle, as uint8: like digits, but made here."""
    rng, found = np.random.default_rng(seed), np.zeros((count, SIDE, SIDE, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image in found:
        points = rng.uniform(-7, 7, (4, 2)) + (SIDE - 1) / 2
        for start, end in pairwise(points):
            for share in np.linspace(0, 1, 12):
                row, column = start + share * (end - start)
                image[..., 0] = np.maximum(image[..., 0], np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 2))
    return np.round(found * 255).astype("uint8")


@pytest.fixture(scope="module")
def data():
    x, y = (
        strokes(400, 0),
        np.arange(400, dtype="int32") % 4 + 2,
    )  # the classes 2, 3, 4, 5, of which 3 and 4 are restricted
    return Data("strokes", x, y, x[:40], y[:40], "made")


def taught(learner, task, data, seed=0):
    """Carries out a learner's stages; returns what was learnt."""
    stages = learner.learn(task, data, seed)
    while True:
        try:
            stage = next(stages)
        except StopIteration as end:
            return end.value
        step = training.compiled_step(stage.model, stage.prepare, stage.budget.batch_size)
        given = (stage.images, stage.labels, seed, stage.budget.batch_size, 0, stage.budget.steps)
        for batch in pipeline.batches(*given, one_class=stage.one_class):
            step(*batch)


# Learning


@pytest.fixture(scope="module")
def from_pairs(data):
    return taught(PAIRS, TASK, data)


def test_rotation_is_learnt_from_pairs(from_pairs):
    # The bar; some thousand pairs of 20 x 20 informative pixels give .9999.
    assert from_pairs.metrics["cosines"][0] >= 0.999
    # It returns to where it began, to less than a pixel; one turn at a root mean square speed of one pixel.
    assert from_pairs.metrics["closing_error"] < 1
    assert from_pairs.metrics["period"] == pytest.approx(2 * np.pi * SIDE / 6**0.5, rel=0.1)


def test_restricted_classes_and_test_images_are_not_looked_at(from_pairs, data):
    """Others in their place change nothing, to the bit: not even their drawings in range are used."""
    restricted = np.isin(data.y_train, (3, 4))
    changed = replace(
        data,
        x_train=np.where(restricted[:, None, None, None], 255 - data.x_train, data.x_train),
        x_test=255 - data.x_test,
    )
    again = taught(PAIRS, TASK, changed)
    np.testing.assert_array_equal(again.flow.coefficients, from_pairs.flow.coefficients)
    assert again.metrics == from_pairs.metrics


def test_angles_are_not_told(data):
    """A stage's model is given drawings and labels only."""
    stage = next(PAIRS.learn(TASK, data, 0))
    seen = {}

    def train_step(given):
        seen["given"] = given
        return {"residual": tf.constant(0.0)}

    stage.model.train_step = train_step
    training.compiled_step(stage.model, stage.prepare, 8)(
        *next(iter(pipeline.batches(stage.images, stage.labels, 0, 8, 0, 1)))
    )
    (first, second), labels = seen["given"]
    assert [tuple(each.shape) for each in (first, second, labels)] == [(8, SIDE, SIDE, 1)] * 2 + [(8,)]


def test_nothing_is_learnt_where_nothing_moves(data):
    """The negative control: all classes upright. The field stays random, and images are not moved."""
    still = replace(TASK, training=Ranges(((0, 0),)))
    learned = taught(replace(PAIRS, steps=2, refine_steps=1), still, data)
    assert learned.metrics["cosines"][0] < 0.5 and "period" not in learned.metrics
    prepare = still.prepare(0, (2, 3, 4, 5))
    given = data.x_train[:8], data.y_train[:8], np.arange(8, dtype="int64")
    np.testing.assert_allclose(learned.prepare(prepare, 0)(*given)[0], prepare(*given)[0], atol=1e-6)


def test_rotation_is_learnt_from_labels(data):
    # One class, because the pool is small.
    one = data.select((2, 3, 4))
    learned = taught(LABELS, TASK, one)
    # Random fields have cosines of a few hundredths. With pools of 8,000 MNIST digits it becomes .9998.
    assert learned.metrics["cosines"][0] > 0.8


def test_generator_is_learnt_and_networks_see_projected_images(data):
    import keras

    learner = GeneratorFromPairs(components=40, batches=12, batch_size=512)
    learned = taught(learner, TASK, data)
    assert learned.metrics["period"] == pytest.approx(2 * np.pi)
    inputs = keras.Input((SIDE, SIDE, 1))
    network = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(inputs)))
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    attached = learned.attach(network)
    x = data.x_train[:5].astype("float32") / 255
    np.testing.assert_allclose(attached(x), network(learned.layer.project(x)), atol=1e-4)
    # What the network sees in training is within the components, too.
    moved, _ = learned.prepare(TASK.prepare(0, (2, 3, 4, 5)), 0)(data.x_train[:5], data.y_train[:5], np.arange(5))
    np.testing.assert_allclose(learned.layer.project(moved), moved, atol=1e-4)


# Parts


def test_blur_is_that_of_two_binomial_filters():
    from scipy.ndimage import convolve1d

    x = noise(2, 11, 9, 3)
    taps = np.convolve([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    expected = convolve1d(convolve1d(x, taps, 1, mode="constant"), taps, 2, mode="constant")
    np.testing.assert_allclose(blurred(tf.constant(x)), expected, atol=1e-5)


def test_nearest_neighbours():
    pool, x = noise(20, 3, 3, 1), noise(4, 3, 3, 1, seed=1)
    distances = np.square(x[:, None] - pool[None]).sum((2, 3, 4))
    chosen, least = nearest_neighbours(tf.constant(x), tf.constant(pool))
    np.testing.assert_array_equal(chosen, distances.argmin(1))
    np.testing.assert_allclose(least, distances.min(1), atol=1e-4)
    same = np.zeros(distances.shape, bool)
    same[np.arange(4), distances.argmin(1)] = True
    second, _ = nearest_neighbours(tf.constant(x), tf.constant(pool), tf.constant(same))
    np.testing.assert_array_equal(second, np.argsort(distances, 1)[:, 1])


def test_estimator_weighs_pairs_by_what_it_explains():
    flow = rotation(cubic=True)
    estimator = FlowEstimator(flow, 1.0)
    x = images(6)
    # Half of the pairs are small rotations, the others unrelated images.
    times = np.full((6, 1), 0.05, "float32")
    moved = np.array(flow([x, times]))
    moved[3:] = images(9)[6:]
    products, projections = estimator._equations(tf.constant((x + moved) / 2), tf.constant(moved - x))
    found, explained = estimator._times(products, projections)
    ratios = 1 - explained / squares(tf.constant(moved - x))
    np.testing.assert_allclose(found[:3] / np.array(found)[0], 1.0, atol=0.05)
    assert ratios.numpy()[:3].max() < 0.05 < 0.5 < ratios.numpy()[3:].min()


def test_times_between_and_their_fit_to_told_parameters():
    flow, x = rotation(), images(8)
    degrees = np.linspace(-150, 160, 8).astype("float32")
    moved = np.array(flow([x, np.deg2rad(degrees)[:, None]]))
    scaled = 11.0  # fields of about a pixel
    flow.coefficients.assign(flow.coefficients / scaled)
    times, left = times_between(flow, x, moved, 2 * np.pi * scaled)
    np.testing.assert_allclose(times[:, 0] / scaled, np.deg2rad(degrees), atol=0.01)
    assert left.max() < 0.01
    layer, told = (
        MovementTimes(1, circular=True),
        np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], -1),
    )
    layer(told)
    # Three of eight are wrong.
    times[[0, 4, 7]] *= -0.7
    fit_times(layer, told, times)
    assert float(layer.kernel[0, 0]) == pytest.approx(scaled, rel=0.02)


def test_period():
    ink = images(4).sum((0, 3))
    turning = rotation()
    period, error = find_period(turning, ink)
    # The fields are in pixels per radian.
    assert period == pytest.approx(2 * np.pi, abs=0.05) and error < 0.5
    # A spiral that grows by a fifth in a turn comes back to a tenth of the diameter; one that grows by half does not.
    half, found = SIDE / 2, []
    for rate in (0.03, 0.065):
        spiral = [(0, 0, 1, half), (1, 1, 0, -half), (0, 1, 0, rate * half), (1, 0, 1, rate * half)]
        found.append(find_period(flow_of(spiral), ink))
    assert found[0] is not None and found[0][0] == pytest.approx(2 * np.pi, abs=0.1) and found[1] is None
    assert find_period(flow_of([(0, 0, 1, 1.0)]), ink) is None  # a shear
    assert find_period(flow_of([(0, 1, 0, 1.0), (1, 0, 1, 1.0)]), ink) is None  # scaling


@pytest.mark.parametrize(
    "movements, low, high",
    [
        (Movements(1, 5.0, np.eye(1)), -2.5, 2.5),
        (Movements(1, None, 2.0 * np.eye(1)), -2.0, 2.0),
        (Movements(2, None, np.diag([3.0, 1.0])), None, None),
    ],
)
def test_random_movements(movements, low, high):
    times = np.asarray(movements.draw(3, tf.range(20_000, dtype=tf.int64)))
    assert times.shape == (20_000, movements.fields)
    if low is not None:
        # Uniform: 20,000 numbers leave the mean and the variance uncertain by a per cent.
        assert times.min() >= low and times.max() <= high
        assert times.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        assert times.var() == pytest.approx((high - low) ** 2 / 12, rel=0.03)
    else:
        radius = np.hypot(times[:, 0] / 3.0, times[:, 1])
        assert radius.max() <= 1.0 + 1e-6
        # In a disc, half the points lie within 1 / sqrt(2).
        assert np.mean(radius < 0.5**0.5) == pytest.approx(0.5, abs=0.02)
    # Vectorised differently, up to the last digit.
    np.testing.assert_allclose(times[5:9], movements.draw(3, tf.range(5, 9, dtype=tf.int64)), atol=1e-6)
