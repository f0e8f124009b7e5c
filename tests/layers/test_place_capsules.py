"""Placing of features: an oracle by loops, what a moved capsule moves, the sum of its weights, gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.place_capsules import PlaceCapsules
from tests.helpers import assert_reached, noise

# Weights are products of two float32 numbers up to 1, known to about 1e-6 at coordinates up to 8, times features of up
# to 4, summed over seven capsules.
ROUNDING = 3e-5
SIZES = pytest.mark.parametrize("size", [(5, 5), (4, 7), (1, 3), (17, 17)])


def at(cells, size):
    """Positions in [-1, 1] of places in cells, (..., 2)."""
    # A side of one cell has no second place.
    return np.asarray(cells, "float64") / np.maximum(1, np.array(size) - 1) * 2 - 1


def placed(positions, features, size):
    """Oracle: each feature of each capsule is shared out among the cells around it, one after the other."""
    result = np.zeros((len(features), *size, features.shape[-1]))
    for image, capsule in np.ndindex(features.shape[:2]):
        row, column = (positions[image, capsule].astype("float64") + 1) * (np.array(size) - 1) / 2
        for y, x in np.ndindex(*size):
            if abs(y - row) < 1 and abs(x - column) < 1:
                share = (1 - abs(y - row)) * (1 - abs(x - column))
                result[image, y, x] += share * features[image, capsule]
    return result


@SIZES
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_oracle(size, in_graph):
    # Some are outside the map, wholly or by less than a cell.
    positions, features = noise(3, 7, 2, spread=(-1.6, 1.6)), noise(3, 7, 4)
    layer = PlaceCapsules(*size)
    found = (tf.function(layer, autograph=False) if in_graph else layer)(*map(tf.constant, (positions, features)))
    np.testing.assert_allclose(found, placed(positions, features, size), rtol=0, atol=ROUNDING)


def test_first_row_is_at_minus_one_and_first_column_too():
    positions = at([[[0, 0], [1, 3], [2, 1.5]]], (3, 4)).astype("float32")
    found = PlaceCapsules(3, 4)(positions, np.array([[[1.0], [2.0], [4.0]]], "float32"))
    # The third lies between two cells of the last row.
    np.testing.assert_allclose(found[0, ..., 0], [[1, 0, 0, 0], [0, 0, 0, 2], [0, 2, 2, 0]], atol=1e-6)


@SIZES
def test_weights_of_a_capsule_inside_the_map_sum_to_one(size):
    rng = np.random.default_rng(0)
    cells = rng.uniform(0, np.array(size) - 1, (9, 1, 2))
    cells[0], cells[1] = 0, np.array(size) - 1
    total = np.sum(PlaceCapsules(*size)(at(cells, size).astype("float32"), np.ones((9, 1, 1), "float32")), (1, 2, 3))
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-5)
    # Half a cell beyond the edge it has half the weight, one cell beyond none.
    beyond = at([[[-0.5, 0]], [[-1, 0]], [[-7, 0]]], (5, 5)).astype("float32")
    outside = np.sum(PlaceCapsules(5, 5)(beyond, np.ones((3, 1, 1), "float32")), (1, 2, 3))
    np.testing.assert_allclose(outside, [0.5, 0, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("move", [(1, 0), (0, 1), (-2, 3)])
def test_capsules_that_move_by_whole_cells_move_their_features_by_as_many(move):
    size, cells, features = (9, 10), noise(2, 6, 2, spread=(3, 6)), noise(2, 6, 3)
    before, after = (
        np.asarray(PlaceCapsules(*size)(at(where, size).astype("float32"), features)) for where in (cells, cells + move)
    )
    # Nothing comes near the edge, across which `roll` would carry it.
    np.testing.assert_allclose(after, np.roll(before, move, axis=(1, 2)), rtol=0, atol=ROUNDING)
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_gradients_against_finite_differences(in_graph):
    size, rng = (5, 7), np.random.default_rng(0)
    # At least a tenth of a cell from the next row and column, where the gradient jumps.
    cells = rng.integers(-1, 6, (2, 6, 2)) + rng.uniform(0.1, 0.9, (2, 6, 2))
    positions, features = at(cells, size).astype("float32"), noise(2, 6, 3)
    weights = noise(2, *size, 3, seed=1)
    layer = PlaceCapsules(*size)

    def gradients(positions, features):
        with tf.GradientTape() as tape:
            tape.watch([positions, features])
            loss = tf.reduce_sum(layer(positions, features) * weights)
        return tape.gradient(loss, [positions, features])

    found = (tf.function(gradients) if in_graph else gradients)(tf.constant(positions), tf.constant(features))
    given = [positions.astype("float64"), features.astype("float64")]
    for number, gradient in enumerate(map(np.asarray, found)):
        for place in np.ndindex(given[number].shape):
            values = []
            for step in (-1e-3, 1e-3):
                changed = [each.copy() for each in given]
                changed[number][place] += step
                values.append(np.sum(placed(*changed, size) * weights))
            # The oracle is linear between cells: its differences in float64 are exact to 1e-12.
            assert gradient[place] == pytest.approx((values[1] - values[0]) / 2e-3, rel=1e-4, abs=1e-4)
    assert_reached(found, map(tf.Variable, given))


def test_positions_keep_their_bits_in_mixed_precision(bfloat16):
    positions, features = noise(2, 3, 2, spread=(-1, 1)), noise(2, 3, 4)
    found = PlaceCapsules(17, 17)(positions, features)
    np.testing.assert_allclose(found, placed(positions, features, (17, 17)), rtol=0, atol=ROUNDING)


def test_learns_to_move_a_pattern_where_it_belongs():
    """Two spots in the wrong places and of the wrong strength: both are learnt, by less than a cell's steps."""
    size = (6, 6)
    target = placed(at([[[1.3, 4.2], [3.6, 1.1]]], size), np.array([[[1.0], [2.0]]]), size).astype("float32")
    positions = tf.Variable(at([[[1.9, 3.4], [3.1, 1.8]]], size).astype("float32"))
    features, layer = tf.Variable(np.ones((1, 2, 1), "float32")), PlaceCapsules(*size)
    optimizer = keras.optimizers.Adam(0.02)
    for _ in range(150):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((layer(positions, features) - target) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, [positions, features]), [positions, features], strict=True))
    # Adam's last steps are some hundredths of the range of positions.
    np.testing.assert_allclose(positions, at([[[1.3, 4.2], [3.6, 1.1]]], size), atol=0.05)
    np.testing.assert_allclose(features[0, :, 0], [1, 2], atol=0.1)
