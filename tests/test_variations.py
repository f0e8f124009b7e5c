"""Changed models and their names. (What each option of the command line changes is in cli/test_run.)"""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import recognition_rotation
from experiments.generation_rotation import MODELS
from experiments.generation_rotation import TASK as ROTATED
from experiments.recognition_upright import EXPERIMENT as UPRIGHT
from invariance.errors import UserError
from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.tasks.task import task_from_json
from invariance.transforms import Rotation
from invariance.variations import Variant, base, is_changed, told, without_precision

ALL, UP = ((0, 360),), ((-15, 15),)


def variant(task, model="ae_rotation"):
    return Variant(model, MODELS[model], task)


@pytest.mark.parametrize(
    "name, original, changed, steps_changed, in_any_precision",
    [
        ("cnn_00", "cnn_00", False, False, "cnn_00"),
        ("cnn_00_corrected", "cnn_00_corrected", False, False, "cnn_00_corrected"),
        ("cnn_00+bfloat16", "cnn_00", True, False, "cnn_00"),
        ("cnn_00+steps=9", "cnn_00", True, True, "cnn_00+steps=9"),
        ("cnn_00+units=7+steps=9+bfloat16", "cnn_00", True, True, "cnn_00+units=7+steps=9"),
    ],
)
def test_names_can_be_read_back(name, original, changed, steps_changed, in_any_precision):
    assert base(name) == original
    assert (is_changed(name), is_changed(name, "steps")) == (changed, steps_changed)
    assert without_precision(name) == in_any_precision


def test_nothing_changed_leaves_everything():
    plain = variant(ROTATED)
    assert plain.with_classes(None, None) is plain and plain.with_precision("float32") is plain
    assert plain.corrected() is None


@pytest.mark.parametrize(
    "task, number",
    [
        (replace(ROTATED, ranges=Ranges(ALL, {3: ((0, 10),), 4: ((0, 20),)})), "several ranges"),
        # All classes are shown single values, or what counts as in range at most: nothing is restricted by that.
        (UPRIGHT.task, "no range"),
        (Recognition(Rotation(), Ranges(ALL)), "no range"),
        (Recognition(Rotation(), Ranges(((0, 90),)), inside=((0, 90),), outside=((90, 360),)), "no range"),
        (Recognition(Rotation(), Ranges(((0, 90),)), inside=((45, 135),), outside=((180, 270),)), "no range"),
    ],
)
def test_no_single_range_for_other_restricted_classes(task, number):
    with pytest.raises(UserError, match=f"^--restricted: ae_rotation has {number} for restricted classes$"):
        variant(task).with_classes((5,), None)
    # None needs none.
    assert variant(task).with_classes((), None).task.restricted == ()


def test_range_of_restricted_classes():
    task = Recognition(Rotation(), Ranges(ALL, {3: ((0, 10),), 4: ((0, 10),)}))
    assert variant(task).with_classes((5,), None).task.ranges == Ranges(ALL, {5: ((0, 10),)})
    # Without restricted classes, a proper part of the training range; also one that wraps around.
    task = Recognition(Rotation(), Ranges(ALL), inside=((315, 405),), outside=((45, 315),))
    assert variant(task).with_classes((5, 6), None).task.ranges == Ranges(ALL, dict.fromkeys((5, 6), ((315, 405),)))
    # The task itself refuses classes.
    with pytest.raises(UserError, match="excluded and restricted"):
        variant(task).with_classes((5,), (5,))


def test_arguments_that_can_be_changed():
    arguments = variant(ROTATED).arguments()
    assert arguments["feature_maps"] == 256 and arguments["regulariser"] is None and "filters" not in arguments
    assert replace(variant(ROTATED), entry=replace(MODELS["ae_rotation"], model=len)).arguments() == {}


@pytest.mark.parametrize("control, shown", [("unrestricted", ((0.0, 360.0),)), ("all_restricted", ((-45.0, 45.0),))])
def test_controls_change_what_is_shown_and_nothing_that_is_measured(control, shown):
    task = recognition_rotation.TASK
    variant = Variant("cnn_00", recognition_rotation.MODELS["cnn_00"], task).with_control(control)
    assert variant.name == f"cnn_00+{control}" and variant.entry is recognition_rotation.MODELS["cnn_00"]
    assert [variant.task.drawn.of(label) for label in (0, 3, 4)] == [shown] * 3
    assert replace(variant.task, training=None) == task
    assert task_from_json(json.loads(json.dumps(variant.task.to_json()))) == variant.task
    assert "(control, in training: every class shown" in variant.task.title()
    # What is drawn depends on the training ranges alone.
    drawn = variant.task.transformation.draw(variant.task.drawn, 0, np.arange(200), np.full(200, 3))
    assert (np.abs((np.asarray(drawn) + 180) % 360 - 180).max() > 90) == (control == "unrestricted")


def test_control_without_restricted_classes():
    task = replace(recognition_rotation.TASK, ranges=Ranges(((0, 360),)), inside=(), outside=(), inverted=())
    with pytest.raises(UserError, match=r"^--control: cnn_00 has no restricted classes$"):
        Variant("cnn_00", recognition_rotation.MODELS["cnn_00"], task).with_control("unrestricted")


def test_what_models_are_told():
    entry, task = recognition_rotation.MODELS["cnn_00"], recognition_rotation.TASK
    assert told("cnn_00+steps=5", entry, task) == "K0: labelled images" == told("unknown", None, task)
    assert told("cnn_00+unrestricted+bfloat16", entry, task).startswith("K0: labelled images and the missing")
    assert told("flow", replace(entry, told="K1: pairs"), task) == "K1: pairs"


def test_what_is_shown_changes_and_nothing_that_is_measured():
    task = recognition_rotation.TASK
    plain = Variant("cnn_00", recognition_rotation.MODELS["cnn_00"], task)
    changed = plain.with_shown(((-15, 15),), (0, 8))
    assert changed.name == "cnn_00+also_restricted=0,8+shown=-15..15"
    assert [changed.task.drawn.of(label) for label in (0, 1, 3, 4, 8)] == [UP, ALL, UP, UP, UP]
    assert replace(changed.task, training=None) == task and changed.entry is plain.entry
    assert task_from_json(json.loads(json.dumps(changed.task.to_json()))) == changed.task
    assert "(in training: classes 0, 3, 4 and 8 shown within ±15 degrees only): classes 3 and 4" in changed.task.title()
    # A transformation is learnt from what is free in training; without any, from all.
    assert changed.task.teaching((0, 1, 2, 3, 4, 5, 7, 8)) == (1, 2, 5, 7)
    assert plain.with_shown(None, (0, 1, 2, 5, 7, 8)).task.teaching((0, 1, 2, 3, 4, 5, 7, 8)) == (
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        8,
    )
    # As it is, it keeps its name.
    assert plain.with_shown(((-45, 45),)) is plain is plain.with_shown(None)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda variant: variant.with_shown(None, (3,)), "--also-restricted: expected free classes .*; received 3"),
        (lambda variant: variant.with_shown(None, (0, 6)), "--also-restricted: expected free classes .*; received 6"),
        (lambda variant: variant.with_control("unrestricted").with_shown(((0, 0),)), "--shown: .* other training data"),
        (lambda variant: variant.with_classes((), None).with_shown(((0, 0),)), "--shown: .* no restricted classes"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown(change, expected):
    task = replace(recognition_rotation.TASK)
    with pytest.raises(UserError, match=f"^{expected}"):
        change(Variant("cnn_00", recognition_rotation.MODELS["cnn_00"], task))


def test_a_share_of_the_steps_shortens_the_whole_schedule():
    plain = variant(ROTATED)
    half, paper = plain.with_share_of_steps("quick", 50), plain.with_share_of_steps("paper", 12.5)
    before, after = (each.entry.budgets["quick"] for each in (plain, half))
    assert (half.name, paper.name) == ("ae_rotation+steps=50%", "ae_rotation+steps=12.5%")
    assert (before.steps, before.warmup_steps) == (2500, 20) and after == replace(before, steps=1250, warmup_steps=10)
    assert half.entry.budgets["standard"] == plain.entry.budgets["standard"]
    assert paper.entry.budgets["paper"].steps == 12_500
    assert plain.with_share_of_steps("quick", 100) is plain
