"""The experiments' declarations: original budgets, narrower networks in short profiles, grids that can be measured."""

import re

import numpy as np
import pytest

from experiments import recognition_rotation, recognition_upright
from experiments.article import published
from experiments.recognition_rotation import MODELS, PAPER
from invariance.experiment import PROFILES, installed_experiments
from invariance.models.capsnet import CapsNet
from invariance.models.cnn import CNN
from invariance.tasks.metrics import METRICS


def rates(budget, steps):
    schedule = budget.schedule()
    return [float(schedule(np.int64(step))) for step in steps]


@pytest.mark.parametrize("name", installed_experiments())
def test_every_model_can_be_measured_in_every_profile(name):
    experiment = installed_experiments()[name]
    for name, entry in experiment.models.items():
        assert re.fullmatch(r"[a-z0-9_]+", name) and not name.endswith("_corrected")
        for profile, budget in entry.budgets.items():
            assert profile in PROFILES and callable(entry.model_for(profile))
            experiment.task_of(name).check(budget.evaluation())


def test_published_shares_are_those_of_an_article_that_reports_no_invariance():
    assert set(MODELS) <= set(published.RECOGNITION_ROTATION)
    for four in published.RECOGNITION_ROTATION.values():
        assert tuple(four) == tuple(METRICS)[:4]
        # Each is smaller than the one before, but for P_test and P_in.
        assert 1 > four["p_in"] > four["p_test"] > four["p_out"] > four["p_inv"] >= 0


def test_original_budget():
    # 300 epochs of 376 batches of 128; 1e-4 times .9 every 10,000 steps.
    assert (PAPER.steps, PAPER.batch_size) == (112_800, 128)
    np.testing.assert_allclose(rates(PAPER, [0, 9_999, 10_000, 112_799]), [1e-4, 1e-4, 9e-5, 1e-4 * 0.9**11], rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_paper_profile_is_the_original(name):
    entry = MODELS[name]
    assert set(entry.budgets) == set(PROFILES)
    if isinstance(entry.model, CNN):
        assert entry.budgets["paper"] == PAPER
    assert entry.model_for("paper") is entry.model
    assert entry.departures("paper") == []


def test_original_budget_of_the_capsule_network():
    # 200 epochs of 481 batches of 100; 1e-3 times .9 after each epoch.
    budget = MODELS["capsnet_dr"].budgets["paper"]
    assert (budget.steps, budget.batch_size, budget.steps_per_epoch) == (96_200, 100, 481)
    expected = [1e-3, 1e-3, 9e-4, 1e-3 * 0.9**199]
    np.testing.assert_allclose(rates(budget, [0, 480, 481, 96_199]), expected, rtol=1e-4)  # float32 powers
    assert budget.images_per_class is None


@pytest.mark.parametrize(
    "experiment, profile, batch_size, images",
    [
        # 48,133 training images without 6 and 9; 60,000 of all digits.
        (recognition_rotation.EXPERIMENT, "standard", 100, 48_133),
        (recognition_rotation.EXPERIMENT, "paper", 100, 48_133),
        (recognition_upright.EXPERIMENT, "standard", 50, 60_000),
        (recognition_upright.EXPERIMENT, "paper", 100, 60_000),
    ],
)
def test_capsule_network_is_the_published_one_and_sees_the_data_several_times(experiment, profile, batch_size, images):
    entry = experiment.models["capsnet_dr"]
    assert entry.model_for(profile) == entry.model == CapsNet()
    budget = entry.budgets[profile]
    assert budget.batch_size == batch_size and budget.images_per_class is None
    assert budget.steps * budget.batch_size >= 3 * images


def test_capsule_network_is_narrower_in_the_short_profiles():
    entry = MODELS["capsnet_dr"]
    flops = [entry.model_for(profile).training_flops((28, 28, 1), 8) for profile in PROFILES]
    assert flops[0] < flops[1] < flops[2] == flops[3]
    costs = [cost * entry.budgets[profile].steps for profile, cost in zip(PROFILES, flops, strict=True)]
    assert costs == sorted(costs)
    # Both are printed before a run.
    departures = "; ".join(entry.departures("quick"))
    assert "filters" in departures and "primary_channels" in departures and "steps" in departures


def test_upright_experiment():
    experiment = recognition_upright.EXPERIMENT
    task = experiment.task
    assert task.restricted == () and task.excluded == ()
    assert task.classes(range(10)) == tuple(range(10))
    assert all(task.ranges.of(label) == ((0.0, 0.0),) for label in range(10))
    draws = np.arange(50)
    np.testing.assert_array_equal(task.transformation.draw(task.ranges, 0, draws, draws % 10), 0.0)
    # The paper's augmentation; the rotated digits have none.
    assert (task.max_shift, recognition_rotation.TASK.max_shift) == (2, 0)
    # What is not changed is the other experiment's, which is as it was.
    ours, theirs = (which.models["capsnet_dr"].budgets for which in (experiment, recognition_rotation.EXPERIMENT))
    assert {profile for profile in theirs if ours[profile] == theirs[profile]} == {"smoke", "quick", "paper"}
