"""Ranges of parameters, and the weights by which a grid of angles averages over them."""

import json

import numpy as np
import pytest

from invariance.ranges import Ranges, cell_weights, intervals, length

SPACING = 15.0
# The middles of the 24 cells of 15 degrees: -172.5, -157.5, ..., 172.5.
GRID = -180.0 + SPACING * (np.arange(24) + 0.5)

# Weights are quotients of sums of some 24 float64 numbers: a few units of 2**-52.
ROUNDING = 1e-14


def weights(pairs, period=360.0, grid=GRID):
    return np.array(cell_weights(grid, intervals(pairs), period))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param((), id="empty"),
        pytest.param(None, id="none"),
        pytest.param(45, id="number"),
        pytest.param((-45, 45), id="flat pair"),
        pytest.param(((1, 2, 3),), id="triple"),
        pytest.param(((1, "x"),), id="text"),
        pytest.param(((45, -45),), id="descending pair"),
        pytest.param(((0, float("nan")),), id="nan"),
        pytest.param(((0, float("inf")),), id="infinite"),
        pytest.param(((20, 40), (-10, -5)), id="descending intervals"),
        pytest.param(((0, 10), (9, 20)), id="overlap"),
    ],
)
def test_malformed_range_is_refused_with_name_expectation_and_value(value):
    with pytest.raises(ValueError) as refused:
        intervals(value, "inside")
    message = str(refused.value)
    assert message.startswith("Argument `inside` must be a non-empty sequence of pairs (low, high) of finite numbers")
    assert message.endswith(f"Received: {value!r}")


def test_intervals_become_floats_and_may_touch():
    pairs = intervals([[-10, -5], [-5, 3], [7, 7]])
    assert pairs == ((-10.0, -5.0), (-5.0, 3.0), (7.0, 7.0))
    assert all(isinstance(end, float) for pair in pairs for end in pair)
    assert length(pairs) == 5 + 8 + 0


@pytest.mark.parametrize("label", [-1, 2.5])
def test_malformed_class_label_is_refused(label):
    with pytest.raises(ValueError, match=r"non-negative integers\. Received: " + str(label)):
        Ranges(((0, 360),), {label: ((0, 1),)})


def test_malformed_range_of_a_class_is_named():
    with pytest.raises(ValueError, match=r"Argument `restricted\[3\]`"):
        Ranges(((0, 360),), {3: ((1, 0),)})
    with pytest.raises(ValueError, match=r"Argument `default`"):
        Ranges(((1, 0),))


def test_ranges_give_each_class_its_intervals():
    ranges = Ranges(((0, 360),), {4: ((-45, 45),), 3: ((-10, -5), (20, 40))})
    assert ranges.of(3) == ((-10.0, -5.0), (20.0, 40.0))
    assert ranges.of(np.int64(4)) == ((-45.0, 45.0),)
    assert ranges.of(0) == ranges.of(99) == ((0.0, 360.0),)
    assert list(ranges.restricted) == [3, 4]


@pytest.mark.parametrize(
    "ranges",
    [
        Ranges(((0, 360),)),
        Ranges(((0, 360),), {4: ((-45, 45),), 3: ((-10, -5), (20.25, 40))}),
        Ranges(((7, 7),), {10: ((0.1, 0.2),), 2: ((1, 1),)}),
    ],
)
def test_json_round_trip(ranges):
    text = json.dumps(ranges.to_json(), allow_nan=False)
    assert Ranges.from_json(json.loads(text)) == ranges


def test_json_with_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="limits"):
        Ranges.from_json({"default": [[0, 360]], "limits": []})


@pytest.mark.parametrize(
    "pairs",
    [
        ((-45, 45),),
        ((45, 315),),
        ((-10, -5), (20, 40)),
        ((0, 360),),
        ((-3.7, 12.2),),
        ((0, 720),),
        ((5, 5),),
        ((5, 5), (90, 90), (91, 91)),
        ((1e-3, 2e-3),),
    ],
)
def test_weights_sum_to_one_and_are_not_negative(pairs):
    found = weights(pairs)
    assert found.min() >= 0.0
    assert abs(found.sum() - 1.0) < ROUNDING


def test_range_that_is_a_union_of_cells_is_tiled_exactly():
    # (-45, 45) is the six cells with the middles -37.5, ..., 37.5.
    np.testing.assert_allclose(weights(((-45, 45),)), np.where(np.abs(GRID) < 45, 1 / 6, 0.0), atol=ROUNDING)
    # (45, 315) is the other eighteen, half of them beyond the end of the grid at 180.
    np.testing.assert_allclose(weights(((45, 315),)), np.where(np.abs(GRID) > 45, 1 / 18, 0.0), atol=ROUNDING)
    # (135, 225) is the three below 180 and the three above -180.
    np.testing.assert_allclose(weights(((135, 225),)), np.where(np.abs(GRID) > 135, 1 / 6, 0.0), atol=ROUNDING)


def test_whole_circle_weighs_all_angles_alike():
    for pairs in (((0, 360),), ((-180, 180),), ((0, 100), (100, 360)), ((-17.3, 342.7),)):
        np.testing.assert_allclose(weights(pairs), 1 / 24, atol=ROUNDING)


def test_cell_that_is_partly_covered_weighs_in_proportion():
    # (-10, 20): 10 degrees of the cell (-15, 0), all 15 of (0, 15), 5 of (15, 30); of 30 in all.
    expected = np.zeros(24)
    expected[[11, 12, 13]] = 10 / 30, 15 / 30, 5 / 30
    np.testing.assert_allclose(weights(((-10, 20),)), expected, atol=ROUNDING)


def test_range_inside_one_cell_gives_it_all_the_weight():
    np.testing.assert_array_equal(weights(((1, 2),)), np.eye(24)[12])


def test_several_intervals_weigh_by_their_lengths():
    # (0, 15) is one cell; (30, 60) two: a third each.
    expected = np.zeros(24)
    expected[[12, 14, 15]] = 1 / 3
    np.testing.assert_allclose(weights(((0, 15), (30, 60))), expected, atol=ROUNDING)


@pytest.mark.parametrize("pairs", [((-170, -20),), ((45, 100), (130, 180))])
def test_one_full_turn_changes_nothing(pairs):
    turned = tuple((low + 360, high + 360) for low, high in pairs)
    back = tuple((low - 360, high - 360) for low, high in pairs)
    np.testing.assert_allclose(weights(turned), weights(pairs), atol=ROUNDING)
    np.testing.assert_allclose(weights(back), weights(pairs), atol=ROUNDING)


def test_wrap_around_equals_the_two_parts():
    np.testing.assert_allclose(weights(((45, 315),)), weights(((-180, -45), (45, 180))), atol=ROUNDING)


@pytest.mark.parametrize(("pairs", "same"), [(((700, 715),), ((-20, -5),)), (((725, 725),), ((5, 5),))])
def test_two_full_turns_change_nothing(pairs, same):
    np.testing.assert_allclose(weights(pairs), weights(same), atol=ROUNDING)


def test_grid_that_starts_at_zero_takes_negative_angles():
    grid = np.arange(0, 360, 90)
    # (-45, 45) is the cell around 0, half of it below; (-90, -90) is 270.
    np.testing.assert_array_equal(weights(((-45, 45),), grid=grid), [1, 0, 0, 0])
    np.testing.assert_array_equal(weights(((-90, -90),), grid=grid), [0, 0, 0, 1])


def test_single_value_takes_the_nearest_angle():
    np.testing.assert_array_equal(weights(((8, 8),)), np.eye(24)[12])  # 7.5
    np.testing.assert_array_equal(weights(((-100, -100),)), np.eye(24)[5])  # -97.5
    np.testing.assert_array_equal(weights(((187, 187),)), np.eye(24)[0])  # 187 = -173 modulo 360, nearest to -172.5
    np.testing.assert_allclose(weights(((8, 8), (24, 24))), (np.eye(24)[12] + np.eye(24)[13]) / 2, atol=ROUNDING)


def test_grid_of_one_angle_gets_all_the_weight():
    assert cell_weights([0.0], ((-45.0, 45.0),), 360.0) == [1.0]


def test_without_a_period_nothing_wraps():
    np.testing.assert_array_equal(weights(((1, 3),), None, [0.0, 1.0, 2.0, 3.0]), [0, 0.25, 0.5, 0.25])
    with pytest.raises(ValueError, match=r"from 0\.0 to 3\.0 covers no part of the range \(\(10\.0, 12\.0\),\)"):
        weights(((10, 12),), None, [0.0, 1.0, 2.0, 3.0])
