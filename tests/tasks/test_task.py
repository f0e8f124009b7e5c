"""Tasks and transformations: declarations, JSON, classes, what a network is given, grids, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import generation_rotation, generation_shift, recognition_rotation, recognition_upright
from invariance.errors import UserError
from invariance.ranges import Ranges
from invariance.tasks import Generation, Recognition, task_from_json
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Scaling, Shear, Shift
from invariance.warp import rotate
from invariance.warp import shift as shifted

NARROW = {
    Rotation(): (((-180, 180),), ((-45, 45),)),
    Shift((13, 15)): (((-4, 4),), ((-1, 2),)),
    Shift(): (((-4, 4),), ((-1, 2),)),
    Scaling(): (((0.5, 1.5),), ((0.85, 1.15),)),
    Shear(): (((-0.6, 0.6),), ((-0.2, 0.2),)),
}
TASKS = [
    kind(transformation, Ranges(free, {4: narrow}), excluded=(6,))
    for kind in (Recognition, Generation)
    for transformation, (free, narrow) in NARROW.items()
]
tasks = pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind} {task.transformation.to_json() or ''}")
RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"
SHAPE = (9, 11, 1)


def batch(count=64, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype("uint8")
    # Positions beyond 32 bits, as in long runs.
    return images, np.arange(count) % 10, np.arange(count, dtype="int64") + 2**33


# JSON


@tasks
def test_json_round_trip(task):
    text = json.dumps(task.to_json(), allow_nan=False)
    again = task_from_json(json.loads(text))
    assert type(again) is type(task) and again == task and json.dumps(again.to_json()) == text
    # Flat: a reader finds everything at the top.
    assert {"kind", "ranges", "excluded", "inside", "outside"} <= json.loads(text).keys()


def test_committed_runs_describe_their_tasks_as_they_did():
    configs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/*/*/*/seed-*/config.json"))]
    assert {"recognition", "generation_by_rotation", "generation_by_shift"} <= {c["protocol"]["kind"] for c in configs}
    for config in configs:
        assert json.loads(json.dumps(task_from_json(config["protocol"]).to_json())) == config["protocol"]


def test_kinds():
    assert {task.kind for task in TASKS} == {
        "recognition",
        "recognition_by_shift",
        "recognition_by_scaling",
        "recognition_by_shear",
        "generation_by_rotation",
        "generation_by_shift",
        "generation_by_scaling",
        "generation_by_shear",
    }


@pytest.mark.parametrize(
    "change",
    [{"kind": "sorting"}, {"kind": "generation_by_dream"}, {"kind": 3}, {"ranges": 5}, {"colour": 1}, {"inside": "x"}],
)
def test_descriptions_of_something_else_are_refused(change):
    for task in TASKS:
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            task_from_json({**task.to_json(), **change})


# Declarations


@tasks
def test_ranges_in_and_out_by_default(task):
    free, narrow = NARROW[task.transformation]
    assert task.restricted == (4,)
    assert task.inside == narrow
    (low, high), (start, stop) = free[0], narrow[0]
    assert task.outside == ((low, start), (stop, high))
    own = replace(task, inside=((1, 2),), outside=((stop, high),))
    assert own.inside == ((1, 2),) and own.outside == ((stop, high),)


@tasks
def test_classes(task):
    assert task.classes([9, 4, 4, 6, 0]) == (0, 4, 9)
    with pytest.raises(ValueError, match=r"restricted classes \[4\] are not in the data"):
        task.classes([0, 1, 2])
    with pytest.raises(ValueError, match="at least two classes"):
        task.classes([4, 6])
    with pytest.raises(ValueError, match="both excluded and restricted"):
        replace(task, excluded=(4,))


def test_titles_say_what_is_in_force():
    task = recognition_rotation.TASK
    assert task.title() == "Recognition under rotation: classes 3 and 4 shown within ±45 degrees only"
    own = replace(task, ranges=Ranges(task.ranges.default, {1: ((18, 18),)}), inside=((-45, 45),))
    assert own.title() == "Recognition under rotation: class 1 shown at 18 degrees only"
    assert "-5..4 pixels" in generation_shift.TASK.title()
    assert "every class" in recognition_upright.EXPERIMENT.task.title()
    two = replace(own, ranges=Ranges(task.ranges.default, {1: ((18, 18),), 2: ((-45, 45),)}))
    assert "1 shown at 18 degrees" in two.title() and "2 shown within ±45 degrees" in two.title()


def test_caveats():
    every = Recognition(Rotation(), Ranges(((0, 360),), dict.fromkeys((1, 2), ((-45, 45),))))
    assert every.caveats((1, 2))[0].startswith("No free class remains")
    assert every.caveats((1, 2, 3)) == [] and recognition_upright.EXPERIMENT.task.caveats((1, 2)) == []


@pytest.mark.parametrize(
    ("shown", "changes", "message"),
    [
        (((-45, 45),), {"outside": ((40, 315),)}, "`outside` .* shares 5 degrees"),
        (((-45, 45),), {"inverted": ((135, 340),)}, "`inverted` .* shares 25 degrees"),
        (((300, 420),), {"outside": ((45, 310),)}, "`outside` .* shares 25 degrees"),
        (((-45, 45),), {"max_shift": 1.5}, "max_shift"),
        (((-45, 45),), {"max_shift": -1}, "max_shift"),
        (((-45, 45),), {"inside": ((5, 1),)}, "inside"),
    ],
)
def test_shown_parameters_are_not_measured_as_unseen(shown, changes, message):
    with pytest.raises(ValueError, match=message):
        Recognition(Rotation(), Ranges(((0, 360),), {3: shown}), **changes)


def test_transformations_check_the_ranges():
    for transformation, ranges in ((Shift(), ((-1.5, 2),)), (Scaling(), ((0, 1),)), (Scaling(), ((-1, 2),))):
        for kind in (Recognition, Generation):
            with pytest.raises(ValueError):
                kind(transformation, Ranges(ranges))


# What a network is given


@tasks
def test_prepared_batches_are_what_the_builder_is_told(task):
    images, labels, draws = batch()
    classes = task.classes(range(10))
    inputs, targets = task.prepare(7, classes)(images, labels, draws)
    arguments = task.arguments(SHAPE, classes)
    shown, phrase = task.shown(inputs, targets)
    assert np.asarray(shown).min() >= 0 and np.asarray(shown).max() <= 1 and "training images" in phrase
    if isinstance(task, Recognition):
        assert (inputs.shape[1:], 9) == arguments
        np.testing.assert_array_equal(targets, np.searchsorted(classes, np.where(labels == 6, 0, labels))[...])
    else:
        (upright, told), drawn = inputs, targets
        assert (upright.shape[1:], drawn.shape[1:], told.shape[-1]) == arguments
        np.testing.assert_allclose(upright, images / 127.5 - 1, atol=1e-6)


@tasks
def test_prepared_batches_depend_on_seed_and_draw_alone(task):
    images, labels, draws = batch()
    prepare = task.prepare(7, task.classes(range(10)))

    def flat(prepared):
        inputs, targets = prepared
        return [np.asarray(each) for each in (*(inputs if isinstance(inputs, tuple) else (inputs,)), targets)]

    first, half = flat(prepare(images, labels, draws)), flat(prepare(images[32:], labels[32:], draws[32:]))
    for one, other in zip(first, half, strict=True):
        # A number's place in its batch may change its last bit.
        np.testing.assert_allclose(one[32:], other, atol=1e-5)
    for changed in (prepare(images, labels, draws + 1000), task.prepare(8, range(10))(images, labels, draws)):
        assert any(np.abs(a - b).max() > 0.01 for a, b in zip(first, flat(changed), strict=True) if a.dtype != int)


def test_generation_is_told_the_parameters_it_has_to_draw():
    images, labels, draws = batch(16)
    (upright, told), drawn = generation_rotation.TASK.prepare(3, range(10))(images[:, :, :9], labels, draws)
    angles = np.degrees(np.arctan2(told[:, 1], told[:, 0])).astype("float32")
    np.testing.assert_allclose(drawn, rotate(upright, angles, -1.0), atol=2e-4)  # degrees of float32
    assert np.abs(angles[labels == 4]).max() <= 45 and np.abs(angles).max() > 90
    (upright, told), drawn = generation_shift.TASK.prepare(3, range(10))(images, labels, draws)
    dy, dx = np.round(np.asarray(told).T * 20)
    np.testing.assert_allclose(drawn, shifted(upright, dy, dx, (68, 68), -1.0), atol=1e-6)
    assert (np.asarray(drawn)[:, 0, 0] == -1).all()


def test_training_images_are_also_shifted_if_asked_to():
    images = np.zeros((400, 9, 9, 1), "uint8")
    images[:, 4, 4] = 255
    upright = Recognition(Rotation(), Ranges(((0, 0),)), max_shift=2)
    inputs, _ = upright.prepare(0, (0, 1))(images, np.zeros(400, int), np.arange(400))
    places = {divmod(int(np.argmax(image)), 9) for image in np.asarray(inputs)}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}
    assert "2 pixels" in upright.shown(inputs, None)[1]


# Evaluation


def test_grids_of_the_tasks():
    rotation = generation_rotation.TASK
    full = rotation.points(None)
    assert len(full) == 200 and full[0] == -180 and {-90, 0, 90} <= set(full)
    # Unblurred points are there whatever the spacing.
    assert set(rotation.points(9)) >= {-180, -90, 0, 90} and len(rotation.points(9)) == 44
    np.testing.assert_array_equal(generation_shift.TASK.points(None), np.arange(-20, 20, 2))
    assert recognition_rotation.TASK.usual_spacing == 5 and rotation.usual_spacing is None
    np.testing.assert_array_equal(recognition_upright.EXPERIMENT.task.points(5), [0])
    two = Recognition(Rotation(), Ranges(((-30, -30), (90, 90))))
    np.testing.assert_array_equal(two.points(5), [-30, 90])


@tasks
def test_impossible_evaluations_are_refused_in_one_line(task):
    task.check(Evaluation(task.transformation.spacing))
    for spacing in (0, -1, float("nan"), 1e9, 1e-9):
        with pytest.raises(UserError) as refused:
            task.check(Evaluation(spacing))
        assert "\n" not in str(refused.value)
    if isinstance(task, Generation):
        with pytest.raises(UserError, match="--redraws"):
            task.check(Evaluation(None, redraws=3))


@tasks
def test_columns_remarks_and_pictures(task):
    if isinstance(task, Recognition):
        metrics = {"p_test": 0.5, "chance": 0.1, "images": {"p_test": 80, "p_in": 10}}
        assert [column.title for column in task.columns((4,))][:3] == ["P_test", "P_in", "P_out"]
        assert "P_out: " in " ".join(task.remarks(metrics))
    else:
        metrics = {key: {"4": 1.0, "7": 2.0} for key in ("mse_in", "mse_out", "ratio")} | {"images": {"4": 5, "7": 6}}
        titles = [column.title for column in task.columns((4,))]
        assert titles == ["4 in", "4 out", "4 out/in", "others out/in"]
        assert task.columns((4,))[-1].read(metrics) == (2.0, 2.0)
        assert task.summary(metrics["ratio"]) == "4: out/in 1.00; others 2.00 to 2.00"
    task.require_metrics(metrics)
    first = next(iter(metrics))
    for wrong in ({**metrics, first: "x"}, {**metrics, first: -3}, {}, {**metrics, "images": 3}):
        with pytest.raises(ValueError):
            task.require_metrics(wrong)
    assert all(name.endswith(".png") and caption for name, caption in task.pictures().items())
    assert task.example((0, 4, 9)) == 4 and replace(task, ranges=Ranges(task.ranges.default)).example((1, 2)) == 1
