"""Tasks as declared: JSON, classes, ranges, grids, words, and what models are trained on."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from experiments import (
    generation_rotation,
    generation_shift,
    recognition_rotation,
    recognition_scaling,
    recognition_shift,
    recognition_upright,
)
from invariance.errors import UserError
from invariance.experiment import installed_experiments
from invariance.ranges import Ranges, contains
from invariance.tasks import Generation, Recognition, task_from_json
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Scaling, Shear, Shift
from tests.helpers import REPOSITORY, noise, transformed

# Transformation, full range, range of the restricted classes, and what remains outside.
RANGES = {
    "rotation": (Rotation(), ((-180, 180),), ((-45, 45),), ((-180, -45), (45, 180))),
    "shift": (Shift((19, 15), 3.5), ((-3, 4),), ((-1, 2),), ((-3, -1), (2, 4))),
    "scaling": (Scaling(), ((0.5, 2),), ((0.8, 1.25),), ((0.5, 0.8), (1.25, 2))),
    "shear": (Shear(), ((-1, 1),), ((-0.25, 0.5),), ((-1, -0.25), (0.5, 1))),
}
# Labels are not 0, 1, 2, ... so that labels and outputs cannot be mixed up.
CLASSES, RESTRICTED = (2, 4, 9), (4, 9)
TASKS = {
    f"{kind.name} by {name}": kind(transformation, Ranges(full, dict.fromkeys(RESTRICTED, part)))
    for kind in (Recognition, Generation)
    for name, (transformation, full, part, _) in RANGES.items()
}
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
every_transformation = pytest.mark.parametrize("name", RANGES)
ROTATED, DRAWN, SHIFTED = recognition_rotation.TASK, generation_rotation.TASK, generation_shift.TASK
SHOWN = ((-45, 45),)


def images(count, height=9, width=11, channels=1):
    return noise(count, height, width, channels, spread=(0, 256)).astype("uint8")


def prepared(task, given, labels, draws, seed=1):
    """Inputs and targets as a flat list of arrays; draw numbers are beyond 32 bits, as in long runs."""
    values = task.prepare(seed, CLASSES)(given, np.asarray(labels), np.asarray(draws, "int64") + 2**33)
    return [np.asarray(each) for each in tf.nest.flatten(values)]


# JSON


@every_task
def test_json_round_trip(task):
    inside, outside = task.ranges.of(4), task.outside[:1]
    changed = replace(task, excluded=(3, 0), inside=inside, outside=outside)
    if isinstance(task, Recognition):
        changed = replace(changed, inverted=outside, max_shift=2)
    for each in (task, changed, replace(task, ranges=Ranges(task.ranges.default), outside=outside)):
        text = json.dumps(each.to_json(), allow_nan=False)
        again = task_from_json(json.loads(text))
        assert type(again) is type(task) and again == each
        assert json.dumps(again.to_json()) == text
    assert {task_from_json(each.to_json()).excluded for each in (task, changed)} == {(), (0, 3)}


def test_kinds():
    kinds = {name: task.to_json()["kind"] for name, task in TASKS.items()}
    # The oldest kind was defined when there was no other.
    assert kinds.pop("recognition by rotation") == "recognition"
    assert all(kind == name.replace(" ", "_") for name, kind in kinds.items()) and len(kinds) == 7
    # Nor did it have this field.
    assert "max_shift" not in ROTATED.to_json() and replace(ROTATED, max_shift=2).to_json()["max_shift"] == 2


def test_committed_runs_are_read_and_written_unchanged():
    paths = Path(REPOSITORY, "experiments/results").glob("*/*/*/*/seed-*/config.json")
    protocols = [json.loads(path.read_text())["protocol"] for path in paths]
    assert [each for each in protocols if task_from_json(each).to_json() != each] == []
    kinds = Counter(each["kind"] for each in protocols)
    assert {"recognition", "generation_by_rotation", "generation_by_shift"} <= set(kinds) and kinds.total() >= 47


@every_task
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "drawing"}, "unknown task 'drawing'; known are .*recognition"),
        ({"kind": "generation_by_zoom"}, "unknown transformation 'zoom'"),
        ({"kind": "generation"}, "unknown transformation ''"),
        ({"kind": None}, "NoneType"),
        ({"rotation": 3}, "rotation"),
        ({"ranges": {"default": [[0, 1]], "other": []}}, "other"),
        ({"ranges": {"default": []}}, "`default` must be"),
        ({"inside": [[3, 2]]}, "`inside` must be"),
        ({"excluded": [4, 3]}, r"both excluded and restricted\. Received: \[4\]"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_malformed_descriptions_are_refused(task, change, error):
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError), match=error) as refused:
        task_from_json(task.to_json() | change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("task", "change"), [(DRAWN, {"canvas": [68, 68]}), (SHIFTED, {"max_shift": 2})])
def test_fields_that_are_missing_or_of_another_kind_are_refused(task, change):
    with pytest.raises(TypeError, match=next(iter(change))):
        task_from_json(task.to_json() | change)
    for field in ("kind", "ranges"):
        with pytest.raises((KeyError, TypeError), match=field):
            task_from_json({key: value for key, value in task.to_json().items() if key != field})


# Classes


@every_task
def test_classes(task):
    assert task.restricted == RESTRICTED and task.excluded == ()
    assert task.classes([9, 4, 4, 0]) == (0, 4, 9)
    assert replace(task, excluded=(6, 6, 1)).excluded == (1, 6)
    assert replace(task, excluded=(6, 1)).classes(range(10)) == (0, 2, 3, 4, 5, 7, 8, 9)
    for labels in (range(9), [4], []):
        with pytest.raises(ValueError, match=r"^restricted classes \[.*9\] are not in the data"):
            task.classes(labels)
    free = replace(task, ranges=Ranges(task.ranges.default), excluded=(1,))
    with pytest.raises(ValueError, match=r"^at least two classes are needed; \[0\] remain of \[0, 1\]$"):
        free.classes([0, 1])
    with pytest.raises(ValueError, match=r"both excluded and restricted\. Received: \[4\]$"):
        replace(task, excluded=(3, 4))


@every_task
def test_example_and_caveats(task):
    free = replace(task, ranges=Ranges(task.ranges.default), outside=task.outside)
    assert (task.example(CLASSES), free.example(CLASSES), free.example((7, 8))) == (4, 4, 7)
    assert task.caveats(CLASSES) == free.caveats(CLASSES) == free.caveats(RESTRICTED) == []
    assert task.caveats(RESTRICTED) == [
        "No free class remains: every class is restricted, so there is nothing to transfer from."
    ]


# Ranges


@pytest.mark.parametrize("kind", [Recognition, Generation])
@every_transformation
def test_in_and_out_of_range_by_default(kind, name):
    _, full, part, rest = RANGES[name]
    task = TASKS[f"{kind.name} by {name}"]
    assert (task.inside, task.outside) == (part, rest)
    free = replace(task, ranges=Ranges(full), inside=(), outside=())
    assert (free.inside, free.outside, free.restricted) == (full, (), ())
    # Ranges that are given are kept.
    assert replace(task, inside=rest[:1], outside=rest[1:]).inside == rest[:1]
    assert task.extent == free.extent == full[0]
    # The extent covers what is only measured.
    wide = replace(free, outside=((full[0][1], 2 * full[0][1]),))
    assert wide.extent == (full[0][0], 2 * full[0][1])


def test_default_ranges_on_the_circle():
    task = Recognition(Rotation(), Ranges(((0, 360),), {3: SHOWN, 4: SHOWN}))
    assert (task.inside, task.outside, task.inverted) == (SHOWN, ((45, 315),), ())
    assert task.farthest == ((45, 315),) and ROTATED.farthest == ((135, 225),)


@pytest.mark.parametrize("kind", [Recognition, Generation])
def test_different_ranges_need_inside_and_outside(kind):
    ranges = Ranges(((0, 360),), {3: SHOWN, 4: ((0, 90),)})
    for given in ({}, {"inside": SHOWN}, {"outside": ((90, 315),)}):
        with pytest.raises(ValueError, match="`inside` and `outside` are required if restricted classes have diff"):
            kind(Rotation(), ranges, **given)
    assert kind(Rotation(), ranges, inside=SHOWN, outside=((90, 315),)).restricted == (3, 4)


@every_task
@pytest.mark.parametrize("value", [((1, 0),), ((0, 2), (1, 3)), ((0, math.nan),), 5])
def test_malformed_ranges_are_refused(task, value):
    for field in ("inside", "outside", *["inverted"] * isinstance(task, Recognition)):
        with pytest.raises(ValueError, match=f"^Argument `{field}` must be .* Received: ") as refused:
            replace(task, **{field: value})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [Recognition, Generation])
@pytest.mark.parametrize("field", ["default", "restricted", "inside", "outside"])
def test_values_the_parameter_cannot_take_are_refused(kind, field):
    for transformation, wrong, message in (
        (Shift(), (-2.5, 3), "must end at whole pixels"),
        (Scaling(), (-1, 1), "factors must be positive"),
    ):
        values = {"default": ((1, 4),), "restricted": ((1, 2),), "inside": ((1, 2),), "outside": ((2, 4),)}
        values[field] = (wrong,)
        ranges = Ranges(values.pop("default"), {4: values.pop("restricted")})
        with pytest.raises(ValueError, match=message):
            kind(transformation, ranges, **values)


TWO_SIDES = ((-20, 20), (160, 200))


@pytest.mark.parametrize(
    ("shown", "changes", "message"),
    [
        (TWO_SIDES, {"outside": ((45, 315),)}, "`outside` .* class 3.* 40 degrees"),
        (TWO_SIDES, {"outside": ((20, 160),), "inverted": ((135, 225),)}, "`inverted` .* class 3.* 40 degrees"),
        (((-50, 45),), {"outside": ((45, 315),)}, "`outside` .* 5 degrees"),
        (TWO_SIDES, {}, None),
        (((170, 170),), {"outside": ((45, 315),)}, None),
        (((315, 405),), {"outside": ((45, 315),)}, None),
        (TWO_SIDES, {"outside": ((20, 160), (200, 340)), "inverted": ((70, 110),)}, None),
    ],
)
def test_training_range_is_not_measured_as_out_of_range(shown, changes, message):
    ranges = Ranges(((0, 360),), {3: shown})
    if message is None:
        assert Recognition(Rotation(), ranges, **changes).restricted == (3,)
    else:
        with pytest.raises(ValueError, match=message):
            Recognition(Rotation(), ranges, **changes)


# Words


@pytest.mark.parametrize(
    ("task", "title"),
    [
        (ROTATED, "Recognition under rotation: classes 3 and 4 shown within ±45 degrees only"),
        (recognition_upright.EXPERIMENT.task, "Recognition under rotation: every class shown at 0 degrees"),
        (recognition_shift.NARROW, "Recognition under shift: classes 3 and 4 shown within -2..1 pixels only"),
        (
            recognition_scaling.EXPERIMENT.task,
            "Recognition under scaling: classes 3 and 4 shown from 0.85 to 1.15 times only",
        ),
        ("halfplane", "Generation under rotation: every class shown within ±90 degrees"),
        ("single", "Generation under rotation: classes 4 and 9 shown at 18 degrees only"),
        ("without_6", "Generation under rotation: classes 4 and 9 shown within ±45 degrees only"),
        (SHIFTED, "Generation under shift: classes 4 and 9 shown within -5..4 pixels only"),
        (Generation(Shear(), Ranges(((-1, 1),), {1: ((0, 1),), 2: SHOWN}), (), SHOWN, SHOWN), "Generation under shear: "
         "class 1 shown from 0 to 1 pixels per row only; class 2 shown within ±45 pixels per row only"),
    ],
)  # fmt: skip
def test_titles(task, title):
    task = generation_rotation.MODELS[f"ae_rotation_{task}"].task if isinstance(task, str) else task
    assert task.title() == title


def test_declared_classes():
    assert ROTATED.classes(range(10)) == (0, 1, 2, 3, 4, 5, 7, 8)
    assert generation_rotation.MODELS["ae_rotation_without_6"].task.excluded == (6,)
    upright = recognition_upright.EXPERIMENT.task
    # The paper's augmentation; rotated digits have none.
    assert (upright.excluded, upright.max_shift, ROTATED.max_shift) == ((), 2, 0)


@pytest.mark.parametrize(
    ("task", "metrics", "message"),
    [
        (ROTATED, {}, "lacks p_test"),
        *((ROTATED, {"p_test": value}, "p_test: expected a number") for value in ("0.5", True, 1.5, -0.1, [0.5])),
        *(
            (ROTATED, {"p_test": 0.5, key: 2}, f"^{key}: expected a number <= 1.0; received 2$")
            for key in ("p_inv", "chance", "false_alarms")
        ),
        (ROTATED, {"p_test": 0.5, "images": 3}, "^images: expected an object; received 3$"),
        (
            ROTATED,
            {"p_test": 0.5, "interval": {"p_in": [0.5]}},
            r"^interval\[\.\.\.\]: expected a list of length 2; received",
        ),
        # Whatever the task: a table or a claim may read it.
        (ROTATED, {"p_test": 0.5, "ratio": {"4": "x"}}, r"^ratio\[\.\.\.\]: expected a number; received {'4': 'x'}$"),
        (ROTATED, {"p_test": 0.5, "p_in": None}, None),
        (DRAWN, {"mse_in": {}, "mse_out": {}}, "lacks ratio"),
        *(
            (DRAWN, {"mse_in": {}, "mse_out": value, "ratio": {}}, r"mse_out(\[\.\.\.\])?: expected .* received")
            for value in (0.5, {"4": "1"}, {"4": True}, {"4": -1}, {"four": 1.0})
        ),
        (DRAWN, {"mse_in": {}, "mse_out": {}, "ratio": {}, "images": []}, "images: expected an object"),
        (DRAWN, {"mse_in": {"4": 0}, "mse_out": {"4": 0.5}, "ratio": {"4": 2.5}}, None),
    ],
)
def test_malformed_metrics_are_refused(task, metrics, message):
    if message is None:
        task.require_metrics(metrics)
    else:
        with pytest.raises(ValueError, match=message):
            task.require_metrics(metrics)


def test_remarks():
    metrics = {"chance": 0.125, "images": {"p_test": 8033, "p_in": 1992}}
    assert ROTATED.remarks(metrics) == [
        "Test images: 8,033 for P_test, 1,992 for the restricted classes; chance .1250; 95 % intervals over images, "
        "at most.",
        "P_in: within ±45 degrees; P_out: from 45 to 315 degrees; P_inv: from 135 to 225 degrees.",
    ]
    assert ROTATED.remarks({}) == []
    [remark] = DRAWN.remarks({"images": {"4": 1000, "9": 234}})
    assert "pixels in [-1, 1], 1,234 test images" in remark


def test_summary_of_generation():
    values, ranges = {"2": 1.0, "4": 4.0, "9": 2.0}, Ranges(((-180, 180),), dict.fromkeys(CLASSES, SHOWN))
    assert replace(DRAWN, ranges=ranges).summary(values) == "2: out/in 1.00, 4: out/in 4.00, 9: out/in 2.00"
    # A class that was not measured is not mentioned.
    assert replace(DRAWN, ranges=ranges).summary({"4": 4.0}) == "4: out/in 4.00"


def test_columns_of_generation():
    columns = DRAWN.columns([4])
    assert [column.title for column in columns] == ["4 in", "4 out", "4 out/in", "others out/in", "all between"]
    assert [column.key for column in columns] == ["mse_in_4", "mse_out_4", "ratio_4", "ratio_others", "mse_between"]
    metrics = {"mse_in": {"4": 0.02}, "mse_out": {"4": 0.08}, "ratio": {"2": 1.125, "4": 4.0, "9": 2.0}}
    metrics["mse_between"] = {"2": 0.5, "4": 0.125, "9": 0.25}
    texts = [column.form(column.read(metrics)) for column in columns]
    assert texts == [".0200", ".0800", "4.00", "1.12–2.00", ".1250–.5000"]
    # Published tables give the range of the others; numbers that are missing are dashes.
    assert columns[-2].read({"ratio_others": [1.04, 1.32]}) == (1.04, 1.32)
    assert [column.form(column.read({})) for column in columns] == ["—"] * 5
    # Numbers that are too rough to calculate with are shown as they are.
    rough = {"mse_in": {"4": "≤ .1*"}, "ratio": {"4": "6*"}, "ratio_others": "1–2*", "mse_between": ".1*"}
    assert [column.form(column.read(rough)) for column in columns] == ["≤ .1*", "—", "6*", "1–2*", ".1*"]


@every_task
def test_pictures_have_captions(task):
    assert all(name.endswith(".png") and caption for name, caption in task.pictures().items())
    first = f"accuracy_by_{task.transformation.parameter}.png" if isinstance(task, Recognition) else "pairs.png"
    assert first in task.pictures()


# Grids


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (Ranges(((0, 360),)), None),
        (Ranges(((-1, 1),)), None),
        # Models are trained at single angles only: no others are of interest. With restricted classes, all are.
        (Ranges(((0, 0),)), [0.0]),
        (Ranges(((-30, -30), (90, 90))), [-30.0, 90.0]),
        (Ranges(((0, 0),), {3: SHOWN}), None),
    ],
)
def test_points_of_recognition(ranges, expected):
    task = Recognition(Rotation(), ranges)
    np.testing.assert_array_equal(task.points(15), Rotation().grid(15, (-1, 1)) if expected is None else expected)
    assert task.single_values == tuple(expected or ())
    # Whatever range is measured belongs to the grid.
    shifts = Recognition(Shift(), Ranges(((-3, 4),), {3: ((-1, 2),)}), outside=((2, 4),), inverted=((6, 9),))
    np.testing.assert_array_equal(shifts.points(1), np.arange(-3, 9))


def test_points_of_generation():
    # The grid and the four angles without blur, ascending, none twice.
    np.testing.assert_array_equal(DRAWN.points(90), [-180, -135, -90, -45, 0, 45, 90, 135])
    # Octaves from 1/2 to 2, rounded to nine digits.
    np.testing.assert_allclose(TASKS["generation by scaling"].points(0.5), 2 ** np.array([-0.75, -0.25, 0, 0.25, 0.75]))
    np.testing.assert_array_equal(SHIFTED.points(4), np.arange(-20, 20, 4))
    # The widest of the ranges.
    near = Generation(Shift(), Ranges(((-3, 4),)), inside=((-2, 2),), outside=((-8, -5), (5, 6)))
    np.testing.assert_array_equal(near.points(1), np.arange(-8, 6))
    assert (DRAWN.usual_spacing, ROTATED.usual_spacing) == (None, 5.0)


def test_single_values_are_measured_and_what_lies_between():
    task = generation_rotation.DISCRETE
    assert task.discrete and not DRAWN.discrete and not generation_rotation.MODELS["ae_rotation_single"].task.discrete
    assert task.title() == "Generation under rotation: classes 4 and 9 shown at -45, -36, ..., 36 degrees only"
    for spacing in (9, None):
        points = task.points(spacing)
        assert set(range(-180, 180, 36)) <= set(points.tolist())
        chosen = {name: points[mask].tolist() for name, mask in task.averaged(points).items()}
        # Without the unblurred 0 and 180.
        assert (chosen["mse_in"], chosen["mse_out"]) == ([-36, 36], [-144, -108, -72, 72, 108, 144])
        # Neither where the free digits are trained, nor where 4 and 9 are.
        shown = {*range(-180, 180, 36), *range(-45, 45, 9), *Rotation.unblurred}
        assert chosen["mse_between"] == [point for point in points.tolist() if point not in shown]
        assert len(chosen["mse_between"]) > 30
    # What training draws, and nothing else, equally often.
    draws, labels = np.arange(4000), np.resize([2, 4], 4000)
    drawn = np.asarray(task.transformation.draw(task.ranges, 0, draws, labels))
    for label, first, step in ((2, -180, 36), (4, -45, 9)):
        values, counts = np.unique(drawn[labels == label], return_counts=True)
        assert values.tolist() == [first + step * number for number in range(10)]
        # 200 of each, give or take 14: five standard deviations.
        assert np.abs(counts - 200).max() < 70
    # Values at the period's end are those at its beginning.
    turned = replace(task, outside=((72, 72), (180, 180)))
    assert turned.points(90).tolist() == [-180, -135, -90, -45, -36, 0, 36, 45, 72, 90, 135]


def test_finest_grids_are_the_published_ones():
    points = DRAWN.points(None)
    # Decimal tenths, so that 45 is 45: it belongs to the range.
    assert points.tolist() == [tenths / 10 for tenths in range(-1800, 1800, 18)]
    # Of 200 angles 51 lie within 45 degrees, one of them 0; 148 beyond 47, three of them quarter turns.
    assert {name: mask.sum() for name, mask in DRAWN.averaged(points).items()} == {"mse_in": 50, "mse_out": 144}
    for name in generation_shift.MODELS:
        for spacing in (None, 2):
            points = generation_shift.EXPERIMENT.task_of(name).points(spacing)
            np.testing.assert_array_equal(points, np.arange(-20, 19, 2))
    chosen = SHIFTED.averaged(points)
    assert points[chosen["mse_in"]].tolist() == [-4, -2, 0, 2, 4] and chosen["mse_out"].sum() == 7 + 6


def test_grids_avoid_unblurred_angles_or_meet_them_exactly():
    unblurred, met = np.array(Rotation.unblurred), set()
    for count in range(2, 721):
        if 360_000 % count:
            continue  # a spacing that nobody types: more than three decimals
        grid = Rotation().grid(float(f"{360 / count:.3f}"), (0, 1))
        assert len(grid) == count
        np.testing.assert_allclose(grid, -grid[::-1], rtol=0, atol=1e-9)  # rounded to nine digits
        near = np.abs(grid[:, None] - unblurred).min(axis=1) < 1e-6
        # Counts that are odd, or twice an odd number, have some in the middle of a cell.
        assert near.any() == (count % 4 != 0)
        met |= set(grid[near].tolist())
        np.testing.assert_array_equal(near, np.isin(grid, unblurred), err_msg=str(count))
    assert met == {-90.0, 0.0, 90.0}


def test_ends_of_averages():
    task = replace(DRAWN, inside=SHOWN, outside=((-180, -47), (47, 180)))
    # 315 is -45, and -313 is 47; quarter turns are not blurred.
    for points, expected in (
        ([45, -45, 315], (True, False)),
        ([45.001, 46.8, 0, 90, -90, -180], (False, False)),
        ([47, -47, -179.9, 179.9, -313], (False, True)),
    ):
        for point in points:
            chosen = task.averaged(np.array([point, 20.5, 60.5]))
            assert [mask.tolist() for mask in chosen.values()] == [
                [expected[0], True, False],
                [expected[1], False, True],
            ]
    points = np.arange(-22, 23)
    chosen = SHIFTED.averaged(points)
    # Half-open as drawn; both ends of what is out of range.
    assert points[chosen["mse_in"]].tolist() == list(range(-5, 5))
    assert points[chosen["mse_out"]].tolist() == [*range(-20, -7), *range(8, 21)]
    # A shift has no period, and no point is in both averages.
    assert not any(mask[-2:].any() for mask in SHIFTED.averaged(np.array([0, 8, 360, 352])).values())
    touching = replace(SHIFTED, outside=((-20, -5), (5, 20))).averaged(points)
    assert points[touching["mse_out"]].tolist() == [*range(-20, -5), *range(5, 21)]


def test_grids_that_miss_a_range_are_refused():
    for points, name in (([10, 20, 46], "mse_out"), ([60, 100, 46], "mse_in"), ([0, 90], "mse_in")):
        with pytest.raises(ValueError, match=f"^no point of the evaluation's grid lies in the range of {name}"):
            replace(DRAWN, outside=((47, 180),)).averaged(np.array(points, float))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (ROTATED, {"spacing": 7}, "The spacing must divide 360 degrees"),
        (SHIFTED, {"spacing": 1.5}, "The spacing must be a whole number of pixels"),
        (DRAWN, {"spacing": 0}, "The spacing must be above 0"),
        (Generation(Rotation(), Ranges(SHOWN), outside=((100, 101),)), {"spacing": 90}, "the range of mse_out"),
        (DRAWN, {"redraws": 3}, "--redraws: only recognition"),
        (DRAWN, {"pixels": (-1.0, 1.0)}, "pixels: models that draw"),
    ],
)
def test_impossible_evaluations_are_refused_in_one_line(task, changes, message):
    with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
        task.check(Evaluation(**{"spacing": 15, **changes}))


def test_declared_grids_do_not_consist_of_what_averages_omit():
    for experiment in installed_experiments().values():
        for name, entry in experiment.models.items():
            task = experiment.task_of(name)
            for budget in entry.budgets.values():
                if budget.grid_spacing is not None and not (isinstance(task, Recognition) and task.single_values):
                    grid = task.transformation.grid(budget.grid_spacing, task.extent)
                    assert not np.isin(grid, task.transformation.unblurred).any()


# Training


@every_task
@pytest.mark.parametrize("channels", [1, 3])
def test_arguments_agree_with_what_is_prepared(task, channels):
    given, labels = images(6, channels=channels), np.array([2, 4, 9, 9, 4, 2])
    arguments = task.arguments(given.shape[1:], CLASSES)
    shape = (19, 15, channels) if isinstance(task.transformation, Shift) else given.shape[1:]
    assert tuple(arguments) == task.arguments(list(given.shape[1:]), CLASSES)
    if isinstance(task, Recognition):
        inputs, targets = prepared(task, given, labels, range(6))
        assert arguments == (shape, 3) == (inputs.shape[1:], len(CLASSES))
        np.testing.assert_array_equal(targets, [0, 1, 2, 2, 1, 0])
        assert targets.dtype == np.int32
    else:
        upright, encoded, targets = prepared(task, given, labels, range(6))
        assert arguments == (given.shape[1:], shape, task.transformation.numbers)
        assert arguments == (upright.shape[1:], targets.shape[1:], encoded.shape[-1])
        # Float32 of numbers up to one.
        np.testing.assert_allclose(upright, given / 127.5 - 1, rtol=0, atol=1e-6)
        assert encoded.dtype == targets.dtype == np.float32
    # What is shown of a batch are the transformed images, in [0, 1].
    batch = task.prepare(1, CLASSES)(given, labels, np.arange(6))
    shown, caption = task.shown(*batch)
    assert np.shape(shown) == (6, *shape) and np.min(shown) >= 0 and 0.4 < np.max(shown) <= 1.0 + 1e-6
    assert caption.startswith("the first training images")


DECODE = {
    "rotation": lambda encoded: np.degrees(np.arctan2(encoded[:, 1], encoded[:, 0])),
    "shift": lambda encoded: np.rint(3.5 * encoded),
    "scaling": lambda encoded: 2.0 ** encoded[:, 0],
    "shear": lambda encoded: encoded[:, 0],
}


@every_transformation
def test_training_images_agree_with_scipy_and_are_drawn_from_their_ranges(name):
    kind, full, part, _ = RANGES[name]
    task, labels = TASKS[f"generation by {name}"], np.resize(CLASSES, 300)
    given = images(300)
    _, encoded, targets = prepared(task, given, labels, range(300))
    parameters = DECODE[name](encoded).astype("float64")
    for image, own, target in zip(given[:40, ..., 0], parameters, targets[..., 0], strict=False):
        expected = transformed(kind, image / 127.5 - 1, own, -1.0)
        # Rotations known to 2e-5 degrees move pixels 7 from the centre by 2e-6, of differences up to 2; so do factors.
        np.testing.assert_allclose(target, expected, rtol=0, atol=1e-4)
    # Each class is drawn from its own range; restricted ones nowhere else, free ones beyond it.
    free, slack = labels == 2, 0 if kind.whole else 1e-4
    wide = tuple((low - slack, high + slack) for low, high in part)
    assert contains(wide, parameters[~free].ravel()).all()
    beyond = ~contains(wide, parameters[free].ravel())
    assert beyond.mean() > 0.25 and contains(((full[0][0] - slack, full[0][1] + slack),), parameters.ravel()).all()
    # Recognition shows the very same images.
    [shown, _] = prepared(TASKS[f"recognition by {name}"], given, labels, range(300))
    np.testing.assert_allclose(shown * 2 - 1, targets, rtol=0, atol=2e-6)  # float32


@pytest.mark.parametrize(
    "task", [*TASKS.values(), replace(TASKS["recognition by rotation"], max_shift=2)], ids=[*TASKS, "max_shift"]
)
def test_training_images_are_a_function_of_seed_and_draw_number(task):
    given, labels = images(12), np.resize(CLASSES, 12)
    whole = prepared(task, given, labels, range(12))
    parts = [prepared(task, given[n : n + 1], labels[n : n + 1], [n]) for n in range(12)]
    for each, own in zip(whole, zip(*parts, strict=True), strict=True):
        # A vectorised power of two rounds differently in a batch; it moves pixels by 1e-6.
        np.testing.assert_allclose(np.concatenate(own), each, rtol=0, atol=1e-5)
    for other in (prepared(task, given, labels, range(12), seed=2), prepared(task, given, labels, range(12, 24))):
        shown = 0 if isinstance(task, Recognition) else 2
        same = np.isclose(whole[shown], other[shown]).reshape(12, -1).all(axis=-1)
        # Of 49 or 9 pairs of shifts, one may come again.
        assert same.sum() <= (4 if isinstance(task.transformation, Shift) else 0)


# Random shifts of training images


def test_bad_max_shift_is_refused():
    for wrong in (-1, 1.5, True, "2", None):
        with pytest.raises(ValueError, match=r"^Argument `max_shift` must be a non-negative integer\. Received: "):
            replace(ROTATED, max_shift=wrong)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_training_images_are_shifted_by_up_to_max_shift(most):
    task = Recognition(Rotation(), Ranges(((0, 0),)), max_shift=most)
    given = np.zeros((500, 9, 7, 1), "uint8")
    given[:, 4, 3] = 255
    shown, _ = prepared(task, given, np.resize(CLASSES, 500), range(500))
    # The one white pixel is where it was or has moved by whole pixels; 500 draws of 25 pairs miss none of them.
    where = np.argwhere(shown == 1.0)
    assert len(where) == 500 and shown.sum() == 500
    steps = range(-most, most + 1)
    assert {tuple(at) for at in where[:, 1:3] - (4, 3)} == {(dy, dx) for dy in steps for dx in steps}
    counts = np.unique(where[:, 1:3], axis=0, return_counts=True)[1]
    mean = 500 / len(counts)
    # Five standard deviations of a count that is nearly Poisson.
    assert counts.min() > mean - 5 * mean**0.5 and counts.max() < mean + 5 * mean**0.5
    assert ("shifted" in task.shown(shown, None)[1]) == (most > 0)
    # They do not depend on what the parameters are drawn from: equal pairs are a coincidence, of 9 or 25.
    draws = np.arange(500, dtype="int64") + 2**33
    parameters = np.asarray(Shift().draw(Ranges(((-most, most + 1),)), 1, draws, np.zeros(500)))
    assert most == 0 or (where[:, 1:3] - (4, 3) == parameters).all(axis=-1).mean() < 0.25


def test_max_shift_leaves_the_angles_as_they_are():
    task, given, labels = TASKS["recognition by rotation"], images(8, 12, 12), np.resize(CLASSES, 8)
    plain, shifted = (prepared(replace(task, max_shift=most), given, labels, range(8))[0] for most in (0, 2))
    inner = (slice(2, -2), slice(2, -2))
    for image, moved in zip(plain, shifted, strict=True):
        rolled = [np.roll(image, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)]
        # Float32 interpolation.
        assert sum(np.allclose(moved[inner], one[inner], atol=1e-5) for one in rolled) == 1
