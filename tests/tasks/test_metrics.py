"""Metrics of counted answers, on predictors whose numbers can be derived by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.tasks.columns import log_odds
from invariance.tasks.metrics import METRICS, Predictions, proportions, wilson
from invariance.transforms import Rotation, Scaling, Shift

# Labels are not 0, 1, 2, ... so that labels and outputs cannot be mixed up. Classes have unequal numbers of images, so
# that a mean over classes differs from a mean over images.
CLASSES, PER_CLASS = (1, 3, 4, 8), (10, 20, 30, 40)
RANGES = Ranges(((0, 360),), {3: ((-45, 45),), 4: ((-45, 45),)})
TASK = Recognition(Rotation(), RANGES, inverted=((135, 225),))
ACCURACIES = ("p_test", "p_in", "p_out", "p_inv")
GRID = Rotation().grid(15, (0, 360))
# Metrics are float64 sums of some hundred terms.
ROUNDING = 1e-12


def predictions(counts, errors=None, points=GRID, classes=CLASSES):
    return Predictions(Rotation(), classes, np.asarray(points, float), np.asarray(counts), errors)


def answers(choose, points=GRID, per_class=PER_CLASS):
    """All images of a class are taken for the class with the index ``choose(index, angle)``."""
    counts = np.zeros((4, len(points), 4), int)
    for row, number in enumerate(per_class):
        for column, angle in enumerate(points):
            counts[row, column, choose(row, angle)] = number
    return predictions(counts, points=points)


def right_between(low, high, points=GRID):
    """Right at angles in [low, high); elsewhere, each class is taken for the next one."""
    return answers(lambda row, angle: row if low <= angle < high else (row + 1) % 4, points)


def always(label):
    return answers(lambda row, angle: CLASSES.index(label))


def assert_metrics(result, **expected):
    for key, value in expected.items():
        assert result[key] == (None if value is None else pytest.approx(value, rel=0, abs=ROUNDING)), key


# Predictors


def test_perfect_predictor():
    result = proportions(right_between(-180, 180), TASK)
    assert_metrics(result, chance=0.25, **dict.fromkeys(ACCURACIES, 1.0), false_alarms=0.0)
    assert max(result[key] for key in ACCURACIES) <= 1.0
    # 3 and 4 have 20 and 30 test images.
    assert result["images"] == {"p_test": 100, "p_in": 50, "p_out": 50, "p_inv": 50, "false_alarms": 50}
    for key in METRICS:
        expected = wilson(float(key in ACCURACIES), result["images"][key])
        np.testing.assert_allclose(result["interval"][key], expected, rtol=0, atol=ROUNDING)
    assert result["never_answers"] == [] and TASK.warnings(result) == [] and "reconstruction" not in result


def test_useless_predictor_is_at_chance():
    # A quarter of each class's images is taken for each class.
    counts = np.ones((4, len(GRID), 4), int) * np.array(PER_CLASS)[:, None, None]
    result = proportions(predictions(counts), TASK)
    assert_metrics(result, **dict.fromkeys(ACCURACIES, 0.25), false_alarms=0.5)
    assert TASK.warnings(result) == []


def test_constant_predictor_is_marked():
    # Right for the 40 of 100 images that are an 8, none of which is restricted.
    assert_metrics(proportions(always(8), TASK), p_test=0.4, p_in=0.0, p_out=0.0, p_inv=0.0, false_alarms=0.0)
    # Right for the 20 images of 3, of 50 restricted ones, at every angle; all free images are taken for it.
    result = proportions(always(3), TASK)
    assert_metrics(result, p_test=0.2, p_in=0.4, p_out=0.4, p_inv=0.4, false_alarms=1.0)
    np.testing.assert_allclose(result["interval"]["p_in"], wilson(0.4, 50), rtol=0, atol=ROUNDING)
    # If 3 alone is restricted, it looks perfect.
    only = Recognition(Rotation(), Ranges(((0, 360),), {3: ((-45, 45),)}), inverted=((135, 225),))
    result = proportions(always(3), only)
    assert result["p_inv"] == 1.0 and result["never_answers"] == [1, 4, 8]
    assert only.warnings(result) == ["gives the same answer to every image"]
    assert only.warnings({**result, "never_answers": [1, 4]}) == ["never answers 1 or 4"]
    assert only.warnings({**result, "never_answers": []}) == only.warnings({}) == []


FREE, BARE = Recognition(Rotation(), Ranges(((0, 360),))), Recognition(Rotation(), RANGES)
# Class 3 was shown at (45, 90) only: P_test takes it there.
OWN = Recognition(Rotation(), Ranges(((0, 360),), {3: ((45, 90),)}), inside=((-45, 45),), outside=((90, 315),))
NOTHING = dict.fromkeys(("p_in", "p_out", "p_inv", "false_alarms"))


@pytest.mark.parametrize(
    ("shown", "task", "expected"),
    [
        # P_test: the restricted 50 images are right within their training range, the free 50 for 90 of 360 degrees.
        ((-45, 45), TASK, {"p_in": 1, "p_out": 0, "p_inv": 0, "p_test": (50 + 50 / 4) / 100}),
        # Of the 270 degrees of P_out the 15 at either end, of the 360 of the free classes 120. Beyond, of the 50 free
        # images the 10 of class 1 are taken for 3, and 8 for 1.
        ((-60, 60), TASK, {"p_in": 1, "p_out": 30 / 270, "p_inv": 0, "p_test": (50 + 50 / 3) / 100,
                           "false_alarms": 10 / 50 * 240 / 270}),
        # From 45 degrees clockwise to 90 counter-clockwise, which is positive.
        ((-45, 90), replace(BARE, outside=((45, 135),)), {"p_out": 0.5}),
        ((-45, 90), replace(BARE, outside=((-135, -45),)), {"p_out": 0}),
        ((-45, 90), replace(BARE, outside=((225, 315),)), {"p_out": 0}),
        # 80 free images are right for a quarter of the circle; the 20 of class 3 never.
        ((-45, 45), OWN, {"p_test": 80 / 4 / 100, "p_in": 1}),
        # What has no range, or no class, is not measured.
        ((-45, 45), BARE, {"p_in": 1, "p_out": 0, "p_inv": None}),
        ((-180, 180), FREE, {"p_test": 1, **NOTHING}),
        # A single angle has all the weight; of two, each has half.
        ((-1, 1), Recognition(Rotation(), Ranges(((0, 0),))), {"p_test": 1, **NOTHING}),
        ((-1, 1), Recognition(Rotation(), Ranges(((0, 0), (90, 90)))), {"p_test": 0.5, **NOTHING}),
    ],
)  # fmt: skip
def test_right_within_a_range(shown, task, expected):
    result = proportions(right_between(*shown, task.points(15)), task)
    assert_metrics(result, **expected)
    for key, value in expected.items():
        number = sum(PER_CLASS[CLASSES.index(label)] for label in METRICS[key].average(task, CLASSES).ranges)
        interval = None if value is None else pytest.approx(wilson(value, number), rel=0, abs=ROUNDING)
        assert (result["images"][key], result["interval"][key]) == (number, interval)


def test_false_alarms_are_of_free_classes():
    # 3 is taken for 4 all the time.
    assert_metrics(proportions(answers(lambda row, angle: 2 if row == 1 else row), TASK), p_in=0.6, false_alarms=0.0)


def test_classes_without_images_are_left_out():
    result = proportions(answers(lambda row, angle: 0, per_class=(0, 20, 30, 40)), TASK)
    assert result["images"]["p_test"] == 90 and result["p_test"] == 0.0
    # If the restricted classes have none, nothing is known of them.
    result = proportions(answers(lambda row, angle: row, per_class=(10, 0, 0, 40)), TASK)
    assert (result["p_in"], result["p_out"], result["images"]["p_in"]) == (None, None, 0)
    assert_metrics(result, p_test=1.0)


def test_single_values():
    # A single angle has all the weight; of two, each has half.
    for values, expected in ((((0, 0),), 1.0), (((0, 0), (90, 90)), 0.5)):
        task = Recognition(Rotation(), Ranges(values))
        assert_metrics(proportions(right_between(-1, 1, task.points(5)), task), p_test=expected)


# Weights


def test_ranges_that_end_within_cells():
    # Of (-10, 50) the cells (-15, 0), (0, 15), (15, 30), (30, 45), (45, 60) count 10, 15, 15, 15 and 5 degrees.
    shown, weights = right_between(-45, 45), np.zeros(24)
    weights[11:16] = np.array([10, 15, 15, 15, 5]) / 60
    np.testing.assert_allclose(shown.weights(((-10, 50),)), weights, rtol=0, atol=ROUNDING)
    # The last one is wrong.
    assert_metrics(proportions(shown, Recognition(Rotation(), RANGES, inside=((-10, 50),))), p_in=55 / 60)
    # The same range, a turn further.
    np.testing.assert_allclose(shown.weights(((350, 410),)), weights, rtol=0, atol=ROUNDING)


def test_whole_pixels_are_half_open_and_factors_logarithmic():
    counts = np.ones((1, 4, 1), int)
    shifts = Predictions(Shift(), (3,), np.array([-4.0, -2.0, 0.0, 2.0]), counts)
    np.testing.assert_allclose(shifts.weights(((-2, 2),)), [0, 0.5, 0.5, 0], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(shifts.weights(((-4, -2), (2, 4))), [0.5, 0, 0, 0.5], rtol=0, atol=ROUNDING)
    # The midpoints of the octaves from 1/4 to 4.
    factors = Predictions(Scaling(), (3,), 2.0 ** np.array([-1.5, -0.5, 0.5, 1.5]), counts)
    np.testing.assert_allclose(factors.weights(((0.5, 2),)), [0, 0.5, 0.5, 0], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(factors.weights(((1, 4),)), [0, 0, 0.5, 0.5], rtol=0, atol=ROUNDING)


# Tables

COUNTS = np.array([[[3, 1, 0], [2, 2, 0]], [[0, 5, 0], [4, 1, 0]], [[0, 0, 0], [0, 0, 0]]])


def test_shares_curves_and_table_by_hand():
    errors = np.array([[0.1, 0.2], [0.3, 0.4], [0.0, 0.0]])
    shown = predictions(COUNTS, errors, [-90, 90], (3, 7, 8))
    np.testing.assert_array_equal(shown.images, [4, 5, 0])
    np.testing.assert_array_equal(shown.shares[:2], COUNTS[:2] / np.array([4, 5])[:, None, None])
    # A class without images has neither accuracy nor error, and no rows.
    np.testing.assert_array_equal(shown.accuracy, [[0.75, 0.5], [1.0, 0.2], [0, 0]])
    for values, expected in ((None, (0.75, 0.5, 1.0, 0.2)), (errors, (0.1, 0.2, 0.3, 0.4))):
        assert shown.curves(values) == [
            {"digit": 3, "parameter": -90.0, "value": expected[0], "images": 4},
            {"digit": 3, "parameter": 90.0, "value": expected[1], "images": 4},
            {"digit": 7, "parameter": -90.0, "value": expected[2], "images": 5},
            {"digit": 7, "parameter": 90.0, "value": expected[3], "images": 5},
        ]
    assert shown.table()[6:8] == [
        {"digit": 7, "parameter": -90.0, "predicted": 3, "images": 0},
        {"digit": 7, "parameter": -90.0, "predicted": 7, "images": 5},
    ]
    assert len(shown.table()) == 18 and sum(row["images"] for row in shown.table()) == COUNTS.sum()
    # Over the half circle to the right: the angle -90 only.
    taken = shown.taken_for([7, 3], ((-180, 0),))
    np.testing.assert_allclose(taken, [[0, 1, 0], [0.75, 0.25, 0]], rtol=0, atol=ROUNDING)
    taken = shown.taken_for([3], ((0, 360),))
    np.testing.assert_allclose(taken, [[5 / 8, 3 / 8, 0]], rtol=0, atol=ROUNDING)


def test_classes_that_are_never_answered():
    assert predictions([[[4, 0], [4, 0]], [[5, 0], [5, 0]]], None, [-90, 90], (3, 7)).unanswered == [7]
    # Not one whose own images are taken for others, as long as others are taken for it.
    assert predictions([[[3, 1], [4, 0]], [[5, 0], [5, 0]]], None, [-90, 90], (3, 7)).unanswered == []


def test_errors_of_reconstruction():
    # Errors are the distance from upright in right angles, and ten times that for class 4.
    errors = np.abs(GRID) / 90 * np.array([1, 1, 10, 1])[:, None]
    result = proportions(predictions(right_between(-180, 180).counts, errors), TASK)["reconstruction"]
    # 20 images of a 3 and 30 of a 4: (20 + 300) / 50 = 6.4. Mean distances: of ±45 degrees .25, of all others 1.25,
    # of the inverted ones 1.75, of the circle 1; P_test takes 3 and 4 in ±45 degrees, the other 50 everywhere.
    expected = {"mse_in": 0.25 * 6.4, "mse_out": 1.25 * 6.4, "mse_inv": 1.75 * 6.4, "mse_test": (80 + 50) / 100}
    assert set(result) == set(expected)
    assert_metrics(result, **expected)
    # Not measured is None, as for the shares.
    free = proportions(predictions(right_between(-45, 45).counts, errors), Recognition(Rotation(), Ranges(((0, 360),))))
    assert free["reconstruction"]["mse_in"] is None and free["reconstruction"]["mse_test"] > 0


def test_columns():
    columns = TASK.columns([3, 4])
    titles = {"p_test": "P_test", "p_in": "P_in", "p_out": "P_out", "p_inv": "P_inv", "false_alarms": "false alarms"}
    assert {each.key: each.title for each in columns} == titles
    first = columns[0]
    assert (first.read({"p_test": 0.5}), first.read({})) == (0.5, None)
    assert [first.form(value) for value in (0.98765, 1.0, None)] == [".9877", "1.0000", "—"]
    assert (first.signed(-0.25), first.signed(0.25)) == ("−.2500", "+.2500")
    assert first.scale is log_odds and log_odds(0.75) == pytest.approx(np.log(3))
    for value in (0.0, 1.0):
        with pytest.raises((ValueError, ZeroDivisionError)):
            log_odds(value)


# Wilson's interval


def test_wilson_by_hand():
    # z^2 = 3.8415; centre (.5 + z^2 / 200) / (1 + z^2 / 100) = .5; half z / 1.038415 * sqrt(.0025 + z^2 / 40000).
    np.testing.assert_allclose(wilson(0.5, 100), (0.4038, 0.5962), rtol=0, atol=5e-5)  # four printed digits


@pytest.mark.parametrize("number", [1, 7, 100, 10_000])
def test_wilson_equals_scipy(number):
    for correct in sorted({0, 1, number // 3, number - 1, number}):
        expected = binomtest(correct, number).proportion_ci(0.95, method="wilson")
        # The same formula in float64.
        np.testing.assert_allclose(wilson(correct / number, number), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("end", [0, 1])
def test_wilson_is_exact_at_the_ends(end):
    assert all(wilson(float(end), number)[end] == end for number in range(1, 1000))


@pytest.mark.parametrize(("proportion", "number"), [(0.5, 0), (1.1, 10), (-0.1, 10), (float("nan"), 10)])
def test_wilson_refuses_what_is_no_proportion(proportion, number):
    with pytest.raises(ValueError, match="A proportion in"):
        wilson(proportion, number)
