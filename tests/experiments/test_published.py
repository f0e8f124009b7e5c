"""The published numbers agree with each other: a wrongly typed digit would stand out."""

import re

import numpy as np
import pytest

from experiments import generation_rotation, generation_shift, recognition_rotation, rotation_compensation
from experiments.article import published, repository_claims
from experiments.article.claims import CLAIMS
from invariance.experiment import PROFILES
from invariance.ranges import contains
from invariance.report.claims import CONTRADICTED, REPRODUCED, UNTESTED, judge
from invariance.runs.find import Run
from invariance.runs.folder import RunFolder
from invariance.tasks.columns import ROUGH

MODULES = (recognition_rotation, generation_rotation, generation_shift)
EXPERIMENTS = {module.EXPERIMENT.name: module.EXPERIMENT for module in MODULES}
GENERATION = [EXPERIMENTS["generation_rotation"], EXPERIMENTS["generation_shift"]]
PICTURES = {**published.GENERATION_ROTATION_PICTURES, **published.ROTATION_COMPENSATION_PICTURES}
ROWS = [pytest.param(each, model, id=model) for each in GENERATION for model in each.published if model not in PICTURES]
CURVES = [pytest.param(each, model, id=model) for each in GENERATION for model in each.published_curves]


def test_the_experiments_show_these_numbers():
    recognition, rotation, shift = EXPERIMENTS.values()
    assert recognition.published is published.RECOGNITION_ROTATION
    assert rotation.published == {**published.GENERATION_ROTATION, **published.GENERATION_ROTATION_PICTURES}
    assert shift.published is published.GENERATION_SHIFT
    assert rotation_compensation.EXPERIMENT.published is published.ROTATION_COMPENSATION_PICTURES
    assert rotation.published_curves is published.GENERATION_ROTATION_CURVES
    assert shift.published_curves is published.GENERATION_SHIFT_CURVES
    assert len(ROWS) == 14 and len(CURVES) == 3
    assert {each.published_on for each in EXPERIMENTS.values()} == {"mnist"}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_names(experiment):
    assert set(experiment.published) <= set(experiment.models)
    assert set(experiment.published_curves) <= set(experiment.published)
    assert set(experiment.defaults) <= set(experiment.models)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in experiment.models)
    assert all(set(entry.budgets) == set(PROFILES) for entry in experiment.models.values())


@pytest.mark.parametrize("experiment", GENERATION, ids=lambda experiment: experiment.name)
def test_autoencoders_have_their_published_size_from_standard_on(experiment):
    for entry in experiment.models.values():
        assert entry.model_for("standard") == entry.model_for("paper") == entry.model


def test_numbers_read_from_pictures_are_marked_texts():
    def numbers(value):
        return [each for item in value.values() for each in numbers(item)] if isinstance(value, dict) else [value]

    assert all(isinstance(each, str) and each.endswith(ROUGH) for each in numbers(PICTURES))


@pytest.mark.parametrize("experiment, model", ROWS)
def test_ratios_are_quotients_of_errors(experiment, model):
    values = experiment.published[model]
    assert set(values) == {"mse_in", "mse_out", "ratio", "ratio_others"}
    for digit in (4, 9):
        inside, outside, ratio = (values[name][digit] for name in ("mse_in", "mse_out", "ratio"))
        assert 0 < inside < 1 and 0 < outside < 1
        # Two significant digits of a ratio, 1 in 40, and errors of .0053 to half of .0001: 2 % at the worst.
        assert outside / inside == pytest.approx(ratio, rel=0.02)
    assert all(set(values[name]) == {4, 9} for name in ("mse_in", "mse_out", "ratio"))
    low, high = values["ratio_others"]
    assert 0 < low <= high
    four, nine = values["ratio"][4], values["ratio"][9]
    if model.endswith(("halfplane", "central")):
        # Parameters that no digit was shown at: all are drawn badly.
        assert min(four, nine, low) > 3.5
    elif model.endswith("single"):
        # But for one angle, no range was shown.
        assert min(four, nine) > 0.7 and max(four, nine) < 1.25
    elif model == "gencaps_shift":
        # A yes: no worse than the others.
        assert low <= min(four, nine) and max(four, nine) <= high
    else:
        # 4 is worse than 9, 9 worse than all digits that were shown everywhere.
        assert four > nine > high


@pytest.mark.parametrize("experiment, model", CURVES)
def test_curves_average_to_the_table(experiment, model):
    task, curves, values = experiment.task, experiment.published_curves[model], experiment.published[model]
    assert set(curves) == {3, 4, 9}
    ratios = {}
    for digit, curve in curves.items():
        points = np.array(list(curve), float)
        expected = np.arange(-171, 180, 18) if task.transformation.period else task.points(None)
        np.testing.assert_array_equal(points, expected)
        means = {}
        for name, pairs in (("mse_in", task.inside), ("mse_out", task.outside)):
            chosen = contains(pairs, points, task.transformation.period, closed=True)
            means[name] = np.mean([curve[int(point)] for point in points[chosen]])
            if digit in task.restricted:
                # Every tenth point of the curve that the table averages, and at 45 degrees the rise has begun: the
                # means differ by up to 3.2 %. Twice that still shows a point typed in the wrong row.
                assert means[name] == pytest.approx(values[name][digit], rel=0.06), (digit, name)
        ratios[digit] = means["mse_out"] / means["mse_in"]
        # From one point to the next the error grows by no more than 2.7 times (4 shifted by 4 and 6 pixels): a point
        # typed in the wrong place would stand out by more.
        assert np.abs(np.diff(np.log(list(curve.values())))).max() < np.log(2.7)
    # 3 is one of those that were shown everywhere; the same tolerance.
    low, high = values["ratio_others"]
    assert 0.94 * low <= ratios[3] <= 1.06 * high
    assert ratios[4] > ratios[9] > ratios[3]


# The article's claims


def run(model, experiment, **metrics):
    names = {"experiment": experiment, "model": model, "dataset": "mnist", "profile": "standard", "seed": 0}
    folder = RunFolder.of("nowhere", experiment, "mnist", "standard", model, 0)
    return Run(folder, {}, {**names, **metrics}, EXPERIMENTS[experiment].task)


def published_runs():
    """Runs that measured exactly what is published, as far as it is."""
    for model, values in published.RECOGNITION_ROTATION.items():
        more = {"reconstruction": {"mse_in": 0.03, "mse_out": 0.05}} if model == "capsnet_dr" else {}
        yield run(model, "recognition_rotation", **values, **more)
    for experiment in GENERATION:
        for model, values in experiment.published.items():
            if model in PICTURES:
                continue
            low, high = values["ratio_others"]
            restricted = {str(digit): value for digit, value in values["ratio"].items()}
            ratio = {str(digit): low if digit % 2 else high for digit in range(10)} | restricted
            inside, outside = dict.fromkeys(ratio, 0.02), {digit: 0.02 * value for digit, value in ratio.items()}
            unblurred = {"0": dict.fromkeys(ratio, 0.022)}
            yield run(model, experiment.name, ratio=ratio, mse_in=inside, mse_out=outside, unblurred=unblurred)


def test_the_published_numbers_support_the_articles_claims():
    """Except R3, which they do not fully support (P_test falls from cnn_bn_00 to cnn_bn_01), and G4, not published."""
    verdicts = {each.claim.name: each for each in judge(CLAIMS, published_runs())}
    assert {name for name, each in verdicts.items() if each.verdict == UNTESTED} == {"G4"}
    assert {name for name, each in verdicts.items() if each.verdict == CONTRADICTED} <= {"R3"}
    assert all(each.verdict == REPRODUCED for name, each in verdicts.items() if name not in ("G4", "R3"))
    assert all(each.numbers for name, each in verdicts.items() if name != "G4")


def test_the_published_numbers_support_what_we_read_from_the_repository():
    # Of second-order networks there are pictures only.
    claims = [claim for claim in repository_claims.CLAIMS if not set(claim.models) & set(PICTURES)]
    verdicts = judge(claims, published_runs())
    assert {each.claim.name: each.verdict for each in verdicts} == dict.fromkeys(("H1", "H3"), REPRODUCED)
    # They could have been otherwise: the article's autoencoder does not transfer shifts, gencaps_shift does.
    swapped = [
        run("gencaps_shift", "generation_shift", ratio=each.metrics["ratio"])
        for each in published_runs()
        if each.metrics["model"] == "ae_shift"
    ] + [
        run(model, "generation_rotation", ratio=each.metrics["ratio"])
        for each in published_runs()
        if each.metrics["model"] == "gencaps_shift"
        for model in ("gencaps_digits_rotation", "gencaps_address_rotation")
    ]
    assert {each.verdict for each in judge(claims, swapped)} == {CONTRADICTED}


def test_claims_are_about_models_that_exist():
    assert [claim.name for claim in CLAIMS] == ["R1", "R2", "R3", "R4", "R5", "R6", "G1", "G2", "G3", "G4", "S1", "S2"]
    experiments = {**EXPERIMENTS, "rotation_compensation": rotation_compensation.EXPERIMENT}
    for claim in (*CLAIMS, *repository_claims.CLAIMS):
        assert set(claim.models) <= set(experiments[claim.experiment].models), claim.name
        assert claim.criterion and claim.text.endswith(".")


def test_variants_do_not_enter_r6():
    [claim] = [claim for claim in CLAIMS if claim.name == "R6"]
    odd = run("cnn_00_corrected", "recognition_rotation", p_test=0.1, p_in=0.1, p_out=0.9, p_inv=0.9)
    assert judge([claim], [*published_runs(), odd])[0].verdict == REPRODUCED
