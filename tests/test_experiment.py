"""Budgets and entries: learning rates, departures from the original, what is refused."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from experiments.recognition_rotation import MODELS, PAPER
from invariance.errors import UserError
from invariance.experiment import (
    Budget,
    Entry,
    Experiment,
    describe_model,
    installed_experiments,
    installed_modules,
)
from invariance.models.cnn import CNN

BUDGET = Budget(steps=100, batch_size=8, steps_per_epoch=10, learning_rate=0.4)


def rates(budget, steps):
    schedule = budget.schedule()
    return [float(schedule(np.int64(step))) for step in steps]


def test_constant_rate():
    assert BUDGET.schedule() == 0.4


def test_staircase():
    budget = replace(BUDGET, decay_rate=0.5, decay_steps=30)
    # float32 rounding.
    np.testing.assert_allclose(rates(budget, [0, 29, 30, 60]), [0.4, 0.4, 0.2, 0.1], rtol=1e-6)


def test_warm_up_and_cosine():
    budget = replace(BUDGET, warmup_steps=20)
    # Linear to step 20, half of it at 10; a cosine over the other 80, half of it at 60; zero at the end.
    np.testing.assert_allclose(rates(budget, [0, 10, 20, 60, 100]), [0, 0.2, 0.4, 0.2, 0], atol=1e-7)


def test_the_original_budget():
    # 300 epochs of 376 batches of 128; 1e-4 times .9 every 10,000 steps.
    assert (PAPER.steps, PAPER.batch_size) == (112_800, 128)
    np.testing.assert_allclose(rates(PAPER, [0, 9_999, 10_000, 112_799]), [1e-4, 1e-4, 9e-5, 1e-4 * 0.9**11], rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 1e4},
        {"batch_size": 64.0},
        {"images_per_class": 0},
        {"images_per_class": -1},
        {"learning_rate": None},
        {"decay_rate": None},
        {"decay_rate": -3},
        {"decay_rate": 0},
        {"batch_size": -1},
        {"steps_per_epoch": 0},
        {"decay_steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"grid_spacing": 0},
        {"grid_spacing": float("inf")},
        {"warmup_steps": 100},
        {"warmup_steps": -1},
    ],
)
def test_bad_budget_is_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .*Received"):
        replace(BUDGET, **wrong)


def test_departures_name_each_setting_that_differs():
    model = MODELS["cnn_bn_00"].model
    entry = Entry(
        model,
        {"paper": PAPER, "quick": replace(PAPER, steps=1000, grid_spacing=15)},
        {"quick": replace(model, moving_average_decay=0.9)},
    )
    assert entry.departures("paper") == []
    # The grid is how it is measured, not how it is trained.
    assert entry.departures("quick") == [
        "steps 1,000 (original 112,800)",
        "moving_average_decay 0.9 (original 0.999)",
    ]
    assert Entry(model, {"quick": BUDGET}).departures("quick") == []


@pytest.mark.parametrize("name", MODELS)
def test_paper_profile_is_the_original(name):
    entry = MODELS[name]
    assert set(entry.budgets) == {"smoke", "quick", "standard", "paper"}
    if isinstance(entry.model, CNN):
        assert entry.budgets["paper"] == PAPER
    assert entry.model_for("paper") is entry.model
    assert entry.departures("paper") == []


def test_model_is_described_by_its_fields():
    described = describe_model(MODELS["cnn_00"].model)
    assert described["builder"] == "CNN" and described["double_softmax"] is True and described["activate_last"] is True

    def own(shape, classes, learning_rate):
        """Nothing."""

    described = describe_model(own)
    assert described["builder"].endswith("own")

    def own(shape, classes, learning_rate):
        """Something else."""

    # An edited function is another model: its runs are not gone on with.
    changed = describe_model(own)
    assert changed["builder"] == described["builder"] and changed["source_sha256"] != described["source_sha256"]
    assert describe_model(eval("lambda *_: None"))["builder"] == "<lambda>"


# Experiments that are found


def test_every_experiment_can_be_measured_in_every_profile():
    found = installed_experiments()
    assert {"recognition_rotation", "recognition_shift", "generation_scaling", "recognition_upright"} <= found.keys()
    for experiment in found.values():
        assert set(experiment.defaults) <= set(experiment.models)
        for name, entry in experiment.models.items():
            for budget in entry.budgets.values():
                experiment.task_of(name).check(budget.evaluation())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that the entry point names, and a function that adds a module to it."""
    from importlib import metadata

    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("studies", "studies", "invariance.experiments")
    monkeypatch.setattr("invariance.experiment.entry_points", lambda group: [point])
    yield lambda name, text: (folder / f"{name}.py").write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "studies"]:
        del sys.modules[name]


DECLARED = """
from experiments.recognition_rotation import MODELS, TASK
from invariance.experiment import Experiment
EXPERIMENT = Experiment("{name}", TASK, {{"cnn_00": MODELS["cnn_00"]}})
"""


def test_a_new_file_is_a_new_experiment(package):
    package("mine", DECLARED.format(name="mine"))
    package("helpers", "X = 1")
    assert list(installed_experiments()) == ["mine"]
    assert installed_experiments()["mine"].defaults == ("cnn_00",)


def test_an_experiment_is_named_as_its_file(package):
    package("mine", DECLARED.format(name="yours"))
    with pytest.raises(UserError, match=r"studies\.mine must declare an experiment named 'mine'; it is 'yours'"):
        installed_experiments()


def test_a_file_that_cannot_be_imported_is_named(package):
    package("broken", "1 / 0")
    with pytest.raises(UserError, match=r"studies\.broken cannot be imported .*division by zero"):
        list(installed_modules())


def test_defaults_are_models():
    with pytest.raises(ValueError, match="defaults"):
        Experiment("mine", None, {}, ("cnn_00",))
