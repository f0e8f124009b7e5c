"""The capsule networks' declarations, and what their runs leave behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import recognition_rotation, recognition_upright
from experiments.recognition_rotation import MODELS
from invariance.experiment import PROFILES
from invariance.models.capsnet import CapsNet
from invariance.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
# A run takes some 20 s on two idle cores; a busy machine may need far more.
PATIENCE = 300


def rates(budget, steps):
    schedule = budget.schedule()
    return [float(schedule(np.int64(step))) for step in steps]


# Declarations


def test_the_original_budget_of_the_capsule_network():
    # 200 epochs of 481 batches of 100; 1e-3 times .9 after each epoch.
    budget = MODELS["capsnet_dr"].budgets["paper"]
    assert (budget.steps, budget.batch_size, budget.steps_per_epoch) == (96_200, 100, 481)
    expected = [1e-3, 1e-3, 9e-4, 1e-3 * 0.9**199]
    np.testing.assert_allclose(rates(budget, [0, 480, 481, 96_199]), expected, rtol=1e-4)  # float32 powers
    assert budget.images_per_class is None


@pytest.mark.parametrize("experiment", [recognition_rotation, recognition_upright])
@pytest.mark.parametrize("profile", ["standard", "paper"])
def test_capsule_network_is_the_published_one_and_sees_the_data_more_than_once(experiment, profile):
    entry = experiment.EXPERIMENT.models["capsnet_dr"]
    assert entry.model_for(profile) == entry.model == CapsNet()
    budget = entry.budgets[profile]
    # 48,133 training images without 6 and 9; 60,000 of all digits.
    images = 48_133 if experiment is recognition_rotation else 60_000
    upright_standard = experiment is recognition_upright and profile == "standard"
    assert budget.batch_size == (50 if upright_standard else 100)
    assert budget.steps * budget.batch_size >= 3 * images
    assert budget.images_per_class is None


def test_capsule_network_is_narrower_in_the_short_profiles():
    entry = MODELS["capsnet_dr"]
    assert set(entry.budgets) == set(PROFILES)
    flops = [entry.model_for(profile).training_flops((28, 28, 1), 8) for profile in PROFILES]
    assert flops[0] < flops[1] < flops[2] == flops[3]
    costs = [cost * entry.budgets[profile].steps for profile, cost in zip(PROFILES, flops, strict=True)]
    assert costs == sorted(costs)
    # Both are said before a run.
    departures = "; ".join(entry.departures("quick"))
    assert "filters" in departures and "primary_channels" in departures and "steps" in departures
    assert entry.departures("paper") == []


def test_upright_experiment():
    experiment = recognition_upright.EXPERIMENT
    protocol = experiment.task
    assert protocol.restricted == () and protocol.excluded == ()
    assert protocol.classes(range(10)) == tuple(range(10))
    assert all(protocol.ranges.of(label) == ((0.0, 0.0),) for label in range(10))
    np.testing.assert_array_equal(
        protocol.transformation.draw(protocol.ranges, 0, np.arange(50), np.arange(50) % 10), 0.0
    )
    # The paper's augmentation; the rotated digits have none.
    assert (protocol.max_shift, recognition_rotation.TASK.max_shift) == (2, 0)
    assert set(experiment.defaults) <= set(experiment.models)
    # What is not changed is the other experiment's, which is as it was.
    ours, theirs = (which.models["capsnet_dr"].budgets for which in (experiment, recognition_rotation.EXPERIMENT))
    assert {profile for profile in theirs if ours[profile] == theirs[profile]} == {"smoke", "quick", "paper"}


# Runs


def smoke(experiment, runs, *options):
    """A smoke run of the capsule network on the embedded digits: (its folder, what it printed)."""
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{experiment}", "--models", "capsnet_dr", "--profile", "smoke",
         "--dataset", "digits", "--runs", str(runs), *options],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return RunFolder.of(runs, experiment, "digits", "smoke", "capsnet_dr", 0), done.stdout


def check_pictures(folder):
    for path in folder.path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000, path.name


ALWAYS = {
    ".lock", "config.json", "history.csv", "curves.csv", "predictions.csv", "reconstruction.csv", "metrics.json",
    "model.keras", "training.png", "training_images.png", "reconstructions_in_range.png", "dimensions.png",
}  # fmt: skip


def test_run_of_upright_digits(tmp_path):
    folder, out = smoke("recognition_upright", tmp_path)
    # Nothing over angles, of which there is one; nothing of restricted digits, of which there are none.
    assert {path.name for path in folder.path.iterdir()} == ALWAYS
    check_pictures(folder)
    metrics = folder.json("metrics.json")
    assert metrics["chance"] == 0.1
    assert 0 <= metrics["p_test"] <= 1
    assert metrics["p_in"] is metrics["p_out"] is metrics["p_inv"] is None
    assert metrics["images"] == {"p_test": 80, "p_in": 0, "p_out": 0, "p_inv": 0, "false_alarms": 0}
    curves, errors = folder.csv("curves.csv"), folder.csv("reconstruction.csv")
    assert [(row["digit"], row["parameter"], row["images"]) for row in curves] == [(n, 0, 8) for n in range(10)]
    assert metrics["p_test"] == pytest.approx(np.mean([row["value"] for row in curves]), rel=1e-12)  # float64
    assert [(row["digit"], row["parameter"], row["images"]) for row in errors] == [(n, 0, 8) for n in range(10)]
    assert metrics["reconstruction"]["mse_test"] == pytest.approx(np.mean([row["value"] for row in errors]), rel=1e-12)
    assert "capsnet_dr" in out and (folder.path.parents[1] / "table.md").is_file()


def test_run_of_rotated_digits(tmp_path):
    folder, _ = smoke("recognition_rotation", tmp_path)
    pictures = {f"reconstructions_{name}.png" for name in ("in_range", "one_in_range", "one_outside", "inverted")}
    over_angles = {"accuracy_by_angle.png", "reconstruction_by_angle.png", "taken_for.png"}
    assert {path.name for path in folder.path.iterdir()} == ALWAYS | pictures | over_angles
    check_pictures(folder)
    errors = folder.json("metrics.json")["reconstruction"]
    assert set(errors) == {"mse_test", "mse_in", "mse_out", "mse_inv"}
    assert all(0 < value < 1 for value in errors.values())
    rows = folder.csv("reconstruction.csv")
    assert list(rows[0]) == ["digit", "parameter", "value", "images"]
    assert len(rows) == 8 * 8  # classes and angles
    # Angles -22.5 and 22.5 are P_in's of the grid of 45 degrees; both restricted classes have 8 images.
    inside = [row["value"] for row in rows if row["digit"] in (3, 4) and abs(row["parameter"]) < 45]
    assert len(inside) == 4
    assert errors["mse_in"] == pytest.approx(np.mean(inside), rel=1e-12)  # float64
    history = folder.csv("history.csv")
    assert {"loss", "classification_loss", "reconstruction_error", "accuracy"} <= set(history[0])
    config = folder.json("config.json")
    assert config["model_arguments"]["builder"] == "CapsNet" and config["model_arguments"]["decoder"] == [64, 128]
    json.dumps(config, allow_nan=False)
