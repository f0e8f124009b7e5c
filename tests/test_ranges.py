"""Ranges of parameters: checks, interval arithmetic modulo a period, and the weights of a grid's points."""

import json

import numpy as np
import pytest

from invariance.ranges import (
    Ranges,
    cell_weights,
    centred,
    complement,
    contains,
    extent,
    intervals,
    length,
    middles,
    overlap,
)

SPACING = 15.0
# The midpoints of the 24 cells of 15 degrees: -172.5, -157.5, ..., 172.5.
GRID = -180.0 + SPACING * (np.arange(24) + 0.5)

# Weights are quotients of sums of some 24 float64 numbers: a few units of 2**-52.
ROUNDING = 1e-14


def weights(pairs, period=360.0, grid=GRID, **options):
    return np.array(cell_weights(grid, intervals(pairs), period, **options))


# Checks


@pytest.mark.parametrize(
    "value",
    [
        (), None, 45, (-45, 45), ((1, 2, 3),), ((1, "x"),), ((45, -45),), ((0, float("nan")),), ((0, float("inf")),),
        ((20, 40), (-10, -5)), ((0, 10), (9, 20)),
    ],
    ids=str,
)  # fmt: skip
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
    assert extent(pairs, (), ((2.0, 9.0),)) == (-10.0, 9.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((((0, 360),), {-1: ((0, 1),)}), r"non-negative integers\. Received: -1"),
        ((((0, 360),), {2.5: ((0, 1),)}), r"non-negative integers\. Received: 2\.5"),
        ((((0, 360),), {3: ((1, 0),)}), r"Argument `restricted\[3\]`"),
        ((((1, 0),),), "Argument `default`"),
    ],
)
def test_malformed_ranges_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ranges(*arguments)


def test_each_class_has_its_range():
    ranges = Ranges(((0, 360),), {4: ((-45, 45),), 3: ((-10, -5), (20, 40))})
    assert ranges.of(3) == ((-10.0, -5.0), (20.0, 40.0))
    assert ranges.of(np.int64(4)) == ((-45.0, 45.0),)
    assert ranges.of(0) == ranges.of(99) == ((0.0, 360.0),)
    assert list(ranges.restricted) == [3, 4]
    assert ranges.all == [ranges.of(0), ranges.of(3), ranges.of(4)]
    assert ranges.mapped(lambda value: 2 * value).of(3) == ((-20.0, -10.0), (40.0, 80.0))


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


# Arithmetic modulo a period

CIRCLE = ((0.0, 360.0),)
RANGES = [((-45, 45),), ((45, 315),), ((170, 190),), ((-10, -5), (20, 40)), ((700, 715),), ((5, 5),), ((-180, 180),)]


@pytest.mark.parametrize("pairs", RANGES, ids=str)
@pytest.mark.parametrize("period", [None, 360.0])
def test_arithmetic_agrees_with_membership_of_points(pairs, period):
    """Of 7,200 points, each belongs to a range or to its complement; lengths are their numbers."""
    points = np.arange(-360, 360, 0.1) + 0.05
    inside = contains(pairs, points, period)
    turned = points[:, None] + ([-720, -360, 0, 360, 720] if period else [0])
    expected = np.any([(low <= turned) & (turned < high) for low, high in pairs], axis=0).any(axis=1)
    np.testing.assert_array_equal(inside, expected)
    rest = complement(((-180.0, 180.0),), pairs, period)
    np.testing.assert_array_equal(contains(rest, points), (np.abs(points) < 180) & ~inside)
    # The points between -180 and 180 that lie in the range, a tenth of a degree each.
    shared = overlap(((-180.0, 180.0),), pairs, period)
    assert shared == pytest.approx(inside[np.abs(points) < 180].sum() / 10)
    assert length(rest) == pytest.approx(360 - shared)
    moved = centred(pairs, period)
    if period:
        np.testing.assert_array_equal(contains(moved, points[np.abs(points) < 180]), inside[np.abs(points) < 180])
        assert extent(moved)[0] >= -180 and extent(moved)[1] <= 180
    else:
        assert moved == pairs


def test_ends_are_half_open_unless_closed():
    points = [-45.0, 44.0, 45.0, 7.0, 315.0, 405.0]
    pairs = ((-45.0, 45.0), (50.0, 50.0))
    assert contains(pairs, points).tolist() == [True, True, False, True, False, False]
    assert contains(pairs, points, closed=True).tolist() == [True, True, True, True, False, False]
    assert contains(pairs, points, 360.0).tolist() == [True, True, False, True, True, False]
    assert contains(pairs, points, 360.0, closed=True).tolist() == [True, True, True, True, True, True]
    assert contains(pairs, [50.0, 49.9, 50.1]).tolist() == [True, False, False]
    assert contains(pairs, []).shape == (0,)


def test_complement_keeps_single_values_and_pieces():
    assert complement(CIRCLE, ((-45, 45),), 360.0) == ((45.0, 315.0),)
    assert complement(((0.0, 0.0), (90.0, 90.0)), ((-45, 45),), 360.0) == ((90.0, 90.0),)
    assert complement(((0.0, 10.0), (20.0, 30.0)), ((5.0, 25.0),)) == ((0.0, 5.0), (25.0, 30.0))
    assert complement(CIRCLE, ((0, 360),)) == ()


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (((0, 45), (315, 360)), ((-45, 0), (0, 45))),
        (((315, 405),), ((-45, 45),)),
        # Across the end at 180.
        (((135, 225),), ((-180, -135), (135, 180))),
        (((-225, -135),), ((-180, -135), (135, 180))),
        (((-360, 360),), ((-180, 180),)),
    ],
)
def test_centred_ranges(pairs, expected):
    assert centred(pairs, 360.0) == expected


@pytest.mark.parametrize(
    ("pairs", "count", "expected"),
    [
        (((0, 4),), 4, [0.5, 1.5, 2.5, 3.5]),
        (((0, 1), (10, 13)), 4, [0.5, 10.5, 11.5, 12.5]),
        (((7, 7),), 2, [7, 7]),
        (((7, 7), (9, 9)), 3, [7, 9, 7]),
        (((0, 0.1), (5, 5.2)), 3, [0.05, 5.05, 5.15]),
    ],
)
def test_middles_of_equal_parts(pairs, count, expected):
    assert middles(pairs, count) == pytest.approx(expected)


# Weights


@pytest.mark.parametrize(
    "pairs",
    [*RANGES, ((-3.7, 12.2),), ((0, 720),), ((5, 5), (90, 90), (91, 91)), ((1e-3, 2e-3),)],
    ids=str,
)
def test_weights_sum_to_one_are_not_negative_and_periodic(pairs):
    found = weights(pairs)
    assert found.min() >= 0.0
    assert abs(found.sum() - 1.0) < ROUNDING
    for turns in (-360, 360, 720):
        np.testing.assert_allclose(weights([(a + turns, b + turns) for a, b in pairs]), found, atol=ROUNDING)


def cells(**shares):
    """Weights of the cells with these numbers, "c12" for the one that begins at 0."""
    expected = np.zeros(24)
    for name, value in shares.items():
        expected[int(name[1:])] = value
    return expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        # (-45, 45) is the six cells with the midpoints -37.5, ..., 37.5; the rest is the other eighteen.
        (((-45, 45),), np.where(np.abs(GRID) < 45, 1 / 6, 0.0)),
        (((45, 315),), np.where(np.abs(GRID) > 45, 1 / 18, 0.0)),
        (((-180, -45), (45, 180)), np.where(np.abs(GRID) > 45, 1 / 18, 0.0)),
        # Three below 180 and three above -180.
        (((135, 225),), np.where(np.abs(GRID) > 135, 1 / 6, 0.0)),
        (((-17.3, 342.7),), np.full(24, 1 / 24)),
        (((0, 100), (100, 360)), np.full(24, 1 / 24)),
        # 10 degrees of the cell (-15, 0), all 15 of (0, 15) and 5 of (15, 30), of 30 in all.
        (((-10, 20),), cells(c11=10 / 30, c12=15 / 30, c13=5 / 30)),
        (((1, 2),), cells(c12=1)),
        # One cell, and two: a third each.
        (((0, 15), (30, 60)), cells(c12=1 / 3, c14=1 / 3, c15=1 / 3)),
        # Single values: the nearest point, modulo 360.
        (((8, 8),), cells(c12=1)),
        (((-100, -100),), cells(c5=1)),
        (((187, 187),), cells(c0=1)),
        (((8, 8), (24, 24)), cells(c12=1 / 2, c13=1 / 2)),
    ],
)
def test_weights_by_hand(pairs, expected):
    np.testing.assert_allclose(weights(pairs), expected, atol=ROUNDING)


def test_grid_that_starts_at_zero_takes_negative_angles():
    grid = np.arange(0, 360, 90)
    # (-45, 45) is the cell around 0, half of it below; (-90, -90) is 270.
    np.testing.assert_array_equal(weights(((-45, 45),), grid=grid), [1, 0, 0, 0])
    np.testing.assert_array_equal(weights(((-90, -90),), grid=grid), [0, 0, 0, 1])


def test_grid_of_one_angle_gets_all_the_weight():
    assert cell_weights([0.0], ((-45.0, 45.0),), 360.0) == [1.0]


def test_without_a_period_nothing_wraps():
    np.testing.assert_array_equal(weights(((1, 3),), None, [0.0, 1.0, 2.0, 3.0]), [0, 0.25, 0.5, 0.25])
    with pytest.raises(ValueError, match=r"from 0\.0 to 3\.0 covers no part of the range \(\(10\.0, 12\.0\),\)"):
        weights(((10, 12),), None, [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="An empty range has no average"):
        cell_weights([0.0, 1.0], ())


def test_cells_of_whole_values_begin_at_their_points():
    # [-2, 2) is -2, -1, 0 and 1. On a grid of every second value, -2 stands for -2 and -1, and 0 for 0 and 1.
    np.testing.assert_array_equal(weights(((-2, 2),), None, np.arange(-3.0, 4), start=0.0), [0, *[0.25] * 4, 0, 0])
    np.testing.assert_array_equal(weights(((-2, 2),), None, np.arange(-4.0, 4, 2), start=0.0), [0, 0.5, 0.5, 0])
