"""What is declared: budgets, entries, bands, experiments; how experiments are found and models are described."""

import sys
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from experiments import recognition_rotation
from experiments.recognition_rotation import EXPERIMENT, MODELS, PAPER, TASK
from invariance import experiment as declarations
from invariance.cli import main
from invariance.errors import UserError
from invariance.experiment import (
    PROFILES,
    Band,
    Budget,
    Entry,
    Experiment,
    comparable,
    describe_model,
    installed_experiments,
    installed_modules,
)

BUDGET = Budget(steps=100, batch_size=8, steps_per_epoch=10, learning_rate=0.4)


def rates(budget, steps):
    schedule = budget.schedule()
    return [float(schedule(np.int64(step))) for step in steps]


# Budgets


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


def test_evaluation():
    budget = replace(BUDGET, grid_spacing=9, images_per_class=7)
    evaluation = budget.evaluation(redraws=3)
    assert (evaluation.spacing, evaluation.images_per_class, evaluation.redraws) == (9, 7, 3)
    assert budget.evaluation(spacing=None).spacing is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("steps", "batch_size", "steps_per_epoch", "decay_steps")
          for value in (0, -1, 64.0, True)),
        {"images_per_class": 0}, {"images_per_class": -1},
        *({name: value} for name in ("learning_rate", "decay_rate") for value in (None, 0.0, -3, float("nan"), True)),
        {"grid_spacing": 0}, {"grid_spacing": float("inf")},
        {"warmup_steps": 100}, {"warmup_steps": -1}, {"warmup_steps": 1.5},
    ],
)  # fmt: skip
def test_bad_budget_is_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .*Received"):
        replace(BUDGET, **wrong)


# Entries


def test_departures_name_each_setting_that_differs():
    model = MODELS["cnn_bn_00"].model
    entry = Entry(
        model,
        {"paper": PAPER, "quick": replace(PAPER, steps=1000, grid_spacing=15)},
        {"quick": replace(model, moving_average_decay=0.9)},
    )
    assert entry.departures("paper") == []
    # The grid changes the measurement, not the model.
    assert entry.departures("quick") == ["steps 1,000 (original 112,800)", "moving_average_decay 0.9 (original 0.999)"]
    assert Entry(model, {"quick": BUDGET}).departures("quick") == []


def test_other_settings_of_the_budgets():
    entry = Entry(len, {"quick": BUDGET, "paper": PAPER}, {"quick": max})
    changed = entry.with_budgets(["quick"], steps=7)
    assert changed.budgets == {"quick": replace(BUDGET, steps=7), "paper": PAPER} and changed.model_for("quick") is max
    assert {budget.grid_spacing for budget in entry.with_budgets(grid_spacing=3).budgets.values()} == {3}
    with pytest.raises(ValueError, match="`steps`"):
        entry.with_budgets(steps=0)


def test_model_is_described_by_its_fields():
    described = describe_model(MODELS["cnn_00"].model)
    assert described["builder"] == "CNN" and described["double_softmax"] is True and described["activate_last"] is True

    def own(shape, classes, learning_rate):
        """Nothing."""

    described = describe_model(own)
    assert described["builder"].endswith("own")

    def own(shape, classes, learning_rate):
        """Something else."""

    # An edited function is another model: its runs are not resumed.
    changed = describe_model(own)
    assert changed["builder"] == described["builder"] and changed["source_sha256"] != described["source_sha256"]
    assert describe_model(eval("lambda *_: None"))["builder"] == "<lambda>"
    # A class, even of declarations, is not one of them.
    assert describe_model(dataclass(type("Own", (), {})))["builder"] == "Own"


# Bands


@pytest.mark.parametrize(
    "band, ours, published, holds, text",
    [
        (Band(absolute=0.05), 0.25, 0.21, True, "within 0.05"),
        (Band(absolute=0.05), 0.15, 0.21, False, "within 0.05"),
        (Band(relative=0.25), 2.2, 2.78, True, "within 25%"),
        (Band(relative=0.25), 2.0, 2.78, False, "within 25%"),
        (Band(absolute=0.06, below=0.125), 0.12, 0.1, True, "within 0.06 and below 0.125"),
        (Band(absolute=0.06, below=0.125), 0.13, 0.1, False, "within 0.06 and below 0.125"),
        (Band(), 9.0, 0.0, True, ""),
    ],
)
def test_bands(band, ours, published, holds, text):
    assert (band.holds(ours, published), band.text()) == (holds, text)


# Experiments


def test_unknown_defaults_are_refused():
    with pytest.raises(ValueError, match=r"`defaults` must name models.*\['other'\]"):
        Experiment("mine", TASK, {"model": MODELS["cnn_00"]}, defaults=("model", "other"))
    assert Experiment("mine", TASK, {"model": MODELS["cnn_00"]}).defaults == ("model",)


def test_profiles_long_enough_to_be_compared():
    assert [profile for profile in PROFILES if comparable(profile)] == ["standard", "paper"]
    assert not comparable("some other")


def test_installed_experiments_are_found():
    found = installed_experiments()
    assert found["recognition_rotation"] is EXPERIMENT and len(found) > 5
    assert all(name == experiment.name for name, experiment in found.items())
    assert recognition_rotation in list(installed_modules())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a module of a package of one's own, which an entry point names beside ours."""
    (tmp_path / "my_package" / "inner").mkdir(parents=True)
    for folder in ("my_package", "my_package/inner"):
        (tmp_path / folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("mine", "my_package", "invariance.experiments")
    ours = declarations.entry_points(group="invariance.experiments")
    monkeypatch.setattr(declarations, "entry_points", lambda group: [*ours, point])

    def write(name, text):
        (tmp_path / "my_package" / name).write_text(text)

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


OWN = """
from experiments.recognition_rotation import MODELS, TASK
from invariance.experiment import Experiment
EXPERIMENT = Experiment({!r}, TASK, {{"cnn_00": MODELS["cnn_00"]}})
"""


@pytest.mark.parametrize("file", ["my_experiment.py", "inner/my_experiment.py"])
def test_new_file_is_an_experiment(package, capsys, tmp_path, file):
    package(file, OWN.format("my_experiment"))
    assert "my_experiment" in installed_experiments()
    assert main(["list", "--runs", str(tmp_path)]) == 0
    assert "my_experiment: Recognition under rotation" in capsys.readouterr().out


def test_other_name_than_the_modules_is_refused(package):
    package("my_experiment.py", OWN.format("other"))
    text = "^my_package.my_experiment must declare an experiment named 'my_experiment'; it is 'other'$"
    with pytest.raises(UserError, match=text):
        installed_experiments()


def test_module_that_cannot_be_imported_is_named(package):
    package("broken.py", "1 / 0\n")
    with pytest.raises(
        UserError, match=r"^my_package\.broken cannot be imported \(ZeroDivisionError: division by zero"
    ):
        installed_experiments()
