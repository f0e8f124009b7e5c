"""Sweeps as data: what they expand to, what they refuse, and what is read back from the runs' configurations."""

from dataclasses import replace
from itertools import pairwise

import pytest

from experiments import dose, generation_rotation, recognition_rotation
from invariance.cli.run import checked
from invariance.cli.suite import arguments_of
from invariance.files import write_csv
from invariance.runs.find import find
from invariance.sweeps import FREE_CLASSES, HALF_WIDTH, STEPS, Sweep, contributes, only_for_curves, record, settings
from tests.helpers import store_run

R, G = recognition_rotation.EXPERIMENT, generation_rotation.EXPERIMENT
FREE = Sweep(R, ("baseline",), FREE_CLASSES, (6, 4, 0), order=(0, 1, 2, 5, 7, 8), seeds=(0, 4))


def options(sweep, profile="quick"):
    return [" ".join(part.options) for part in sweep.parts(profile)]


@pytest.mark.parametrize(
    "sweep, expected",
    [
        # First the setting of all other sweeps; with all classes free there is nothing to change.
        (FREE, ["--seed 0,4", "--seed 0,4", "--seed 0,4 --also-restricted 0,1",
                "--seed 0,4 --also-restricted 0,1,2,5,7,8"]),
        (Sweep(R, ("p4cnn", "flow"), HALF_WIDTH, (0, 22.5)),
         ["--seed 0,1,2", "--seed 0,1,2 --shown=0..0", "--seed 0,1,2 --shown=-22.5..22.5"]),
        # Half of 30 % and twice 30 % of the profile's steps.
        (Sweep(R, ("baseline",), STEPS, (50, 200), percent={"quick": 30}, seeds=(0,)),
         ["--seed 0 --steps 30%", "--seed 0 --steps 15%", "--seed 0 --steps 60%"]),
        (Sweep(G, ("ae_rotation",), "code_size", (16,), percent={"quick": 30}, seeds=(0,)),
         ["--seed 0 --steps 30%", "--seed 0 --steps 30% --set code_size=16"]),
    ],
)  # fmt: skip
def test_parts(sweep, expected):
    assert options(sweep) == expected
    assert all(part.models == sweep.models and part.experiment is sweep.experiment for part in sweep.parts("quick"))


def test_a_full_budget_shortens_nothing():
    sweep = Sweep(R, ("baseline",), STEPS, (50, 100), percent={"quick": 30}, seeds=(0,))
    assert options(sweep, "standard") == ["--seed 0", "--seed 0 --steps 50%", "--seed 0"]


@pytest.mark.parametrize("sweep", [sweep for sweep in dose.SWEEPS if sweep.factor == FREE_CLASSES])
def test_restricted_classes_are_nested_and_those_that_are_measured_stay(sweep):
    measured = sweep.experiment.task.restricted
    _, *parts = sweep.parts("quick")
    found = []
    for value, part in zip(sweep.values, parts, strict=True):
        task, *same = [variant.task for variant in checked(part.experiment, arguments_of(part, [])).variants]
        assert all(each == task for each in same)
        restricted = set(task.drawn.restricted)
        assert set(measured) <= restricted and task.restricted == measured
        assert len(sweep.order) - len(restricted - set(measured)) == value
        # What teaches is free in training; without any, all classes.
        free = [label for label in (*measured, *sweep.order) if label not in restricted]
        assert set(task.teaching((*measured, *sweep.order))) == set(free or (*measured, *sweep.order))
        # Measured as published.
        assert replace(task, training=None) == sweep.experiment.task
        found.append(restricted)
    assert all(fewer <= more for more, fewer in pairwise(found))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"models": ()}, "`models` must name models of recognition_rotation"),
        ({"models": ("baseline", "cnn_99")}, "Received: .*cnn_99"),
        ({"factor": "width", "order": ()}, "`factor` must be free_classes, half_width, steps or a number .*'width'"),
        # A truth value and a tuple are not numbers.
        ({"factor": "batch_norm", "order": ()}, "`factor`"),
        ({"factor": "convolutions", "order": ()}, "`factor`"),
        ({"values": ()}, "`values` must be numbers, at least one"),
        ({"values": (1, "2")}, "`values` must be numbers"),
        ({"values": (1, True)}, "`values` must be numbers"),
        ({"values": (1, float("nan"))}, "`values` must be numbers"),
        ({"values": (1, 1)}, "`values` must not repeat"),
        ({"values": (7,)}, "whole numbers from 0 to 6"),
        ({"values": (0.5,)}, "whole numbers from 0 to 6"),
        ({"values": (0,), "order": (0, 3)}, "`order` must be free classes of baseline"),
        ({"values": (0,), "order": (0, 6)}, "`order` must be free classes of baseline"),
        ({"values": (0,), "order": (0, 0)}, "each once"),
        ({"factor": HALF_WIDTH}, "`order` belongs to free_classes"),
        ({"factor": HALF_WIDTH, "order": (), "values": (-1,)}, "out of range for half_width"),
        ({"factor": STEPS, "order": (), "values": (0,)}, "out of range for steps"),
        ({"seeds": ()}, "`seeds` must be integers"),
        ({"seeds": (-1,)}, "`seeds` must be integers"),
        ({"percent": {"fast": 10}}, "`percent` must give profiles"),
        ({"percent": {"quick": 0}}, "`percent` must give profiles"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        replace(FREE, **changes)
    assert "\n" not in str(caught.value)


def stored(runs, *argv, model="baseline", **config):
    """The settings of a finished run with a command line's configuration."""
    [written] = checked(R, ["--models", model, *argv]).configs("mnist")
    folder = store_run(runs, written.model, profile="quick", config={**written.to_json(), **config})
    rows = [{"digit": label, "parameter": 0, "value": 0, "images": 1} for label in (0, 1, 2, 3, 4, 5, 7, 8)]
    write_csv(folder / "curves.csv", rows)
    [run] = [run for run in find(runs)[0] if run.folder.path == folder.path]
    return run


@pytest.mark.parametrize(
    "argv, changes",
    [
        ((), {}),
        (("--also-restricted", "0,1"), {FREE_CLASSES: 4}),
        (("--also-restricted", "0,1,2,5,7,8"), {FREE_CLASSES: 0}),
        (("--shown=-15..15",), {HALF_WIDTH: 15}),
        (("--shown=0..0",), {HALF_WIDTH: 0}),
        # Shown at all angles, but not free: the same six are.
        (("--shown=-180..180",), {HALF_WIDTH: 180}),
        (("--steps", "50%"), {STEPS: 564}),
        (("--set", "dropout=0.25"), {"dropout": 0.25}),
    ],
)  # fmt: skip
def test_settings_are_read_back_and_nothing_else_differs(tmp_path, argv, changes):
    usual, rest = settings(stored(tmp_path / "usual"))
    assert {FREE_CLASSES: 6, HALF_WIDTH: 45, STEPS: 1128, "dropout": 0.5}.items() <= usual.items()
    assert settings(stored(tmp_path / "varied", *argv)) == (usual | changes, rest)


def test_other_measurements_and_other_models_are_not_mixed(tmp_path):
    rests = {
        settings(stored(tmp_path / str(number), *argv, model=model))[1]
        for number, (model, *argv) in enumerate(
            [("baseline",), ("baseline", "--restricted", "5"), ("baseline", "--grid", "45"), ("p4cnn",)]
        )
    }
    assert len(rests) == 4


def test_runs_of_a_sweep_are_known_by_their_configuration(tmp_path):
    varied = stored(tmp_path / "a", "--shown=0..0", **record("dose", HALF_WIDTH))
    by_hand = stored(tmp_path / "b", "--shown=0..0")
    shared = stored(tmp_path / "c", **record("dose", None))
    as_it_is = stored(tmp_path / "d")
    assert [only_for_curves(run) for run in (varied, by_hand, shared, as_it_is)] == [True, False, False, False]
    assert [contributes(run) for run in (varied, by_hand, shared, as_it_is)] == [True, False, True, True]
