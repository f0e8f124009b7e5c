"""The published numbers of generation agree with each other: a digit typed wrongly would stand out."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments import generation_rotation, generation_shift, published
from invariance import generation

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = {module.EXPERIMENT.name: module.EXPERIMENT for module in (generation_rotation, generation_shift)}
ROWS = [
    pytest.param(experiment, model, id=model) for experiment in EXPERIMENTS.values() for model in experiment.published
]
CURVES = [
    pytest.param(experiment, model, id=model)
    for experiment in EXPERIMENTS.values()
    for model in experiment.published_curves
]


def test_the_experiments_show_these_numbers():
    rotation, shift = EXPERIMENTS["generation_rotation"], EXPERIMENTS["generation_shift"]
    assert rotation.published is published.GENERATION_ROTATION and shift.published is published.GENERATION_SHIFT
    assert rotation.published_curves is published.GENERATION_ROTATION_CURVES
    assert shift.published_curves is published.GENERATION_SHIFT_CURVES
    assert len(ROWS) == 6 and len(CURVES) == 3
    assert rotation.published_on == shift.published_on == "mnist"


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_names(experiment):
    assert set(experiment.published) <= set(experiment.models)
    assert set(experiment.published_curves) <= set(experiment.published)
    assert set(experiment.defaults) <= set(experiment.models)
    for name, entry in experiment.models.items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert set(entry.budgets) == {"smoke", "quick", "standard", "paper"}
        assert entry.model_for("standard") == entry.model_for("paper") == entry.model


@pytest.mark.parametrize("experiment, model", ROWS)
def test_a_ratio_is_the_quotient_of_its_errors(experiment, model):
    values = experiment.published[model]
    assert set(values) == {"mse_in", "mse_out", "ratio", "ratio_others"}
    for digit in experiment.protocol.restricted:
        inside, outside, ratio = (values[name][digit] for name in ("mse_in", "mse_out", "ratio"))
        assert 0 < inside < outside < 1
        # Two significant digits of a ratio, 1 in 40, and errors of .0053 to half of .0001: 2 % at the worst.
        assert outside / inside == pytest.approx(ratio, rel=0.02)
    assert all(set(values[name]) == {4, 9} for name in ("mse_in", "mse_out", "ratio"))
    low, high = values["ratio_others"]
    assert 0 < low <= high


@pytest.mark.parametrize("experiment, model", ROWS)
def test_the_articles_claims_hold_for_its_numbers(experiment, model):
    values = experiment.published[model]
    four, nine = values["ratio"][4], values["ratio"][9]
    if model.endswith(("halfplane", "central")):
        # Parameters nobody was shown: all are drawn badly.
        assert min(four, nine, values["ratio_others"][0]) > 5
    else:
        # 4 is worse than 9, 9 worse than all that were shown everywhere.
        assert four > nine > values["ratio_others"][1]


@pytest.mark.parametrize("experiment, model", CURVES)
def test_curves_average_to_the_table(experiment, model):
    protocol, curves, values = experiment.protocol, experiment.published_curves[model], experiment.published[model]
    assert set(curves) == {3, 4, 9}
    ratios = {}
    for digit, curve in curves.items():
        points = np.array(list(curve), float)
        assert len(points) == 20
        np.testing.assert_array_equal(np.diff(points), 18 if protocol.parameter == "angle" else 2)
        if protocol.parameter == "angle":
            assert points[0] == -171 and points[-1] == 171
        else:
            np.testing.assert_array_equal(points, protocol.grid(None))
        means = {}
        for name, pairs in (("mse_in", protocol.inside), ("mse_out", protocol.outside)):
            chosen = [curve[int(point)] for point in points[generation.within(points, pairs, protocol)]]
            means[name] = np.mean(chosen)
            if digit in protocol.restricted:
                # Every tenth point of the curve that the table averages, and at 45 degrees the rise has begun: the
                # means differ by up to 3.2 %. Twice that still shows a point typed in the wrong row.
                assert means[name] == pytest.approx(values[name][digit], rel=0.06), (digit, name)
        ratios[digit] = means["mse_out"] / means["mse_in"]
    # 3 is one of those that were shown everywhere; the same tolerance.
    low, high = values["ratio_others"]
    assert 0.94 * low <= ratios[3] <= 1.06 * high
    assert ratios[4] > ratios[9] > ratios[3]


@pytest.mark.parametrize("experiment, model", CURVES)
def test_neighbours_on_a_curve_are_alike(experiment, model):
    # From one point to the next the error grows by no more than 2.7 times (4 shifted by 4 and 6 pixels): a point typed
    # in the wrong place would stand out by more.
    for curve in experiment.published_curves[model].values():
        steps = np.diff(np.log(list(curve.values())))
        assert np.abs(steps).max() < np.log(2.7)


def test_numbers_are_typed_once():
    values = {
        f"{value:.4f}"
        for table in (published.GENERATION_ROTATION, published.GENERATION_SHIFT)
        for row in table.values()
        for name in ("mse_in", "mse_out")
        for value in row[name].values()
    }
    pattern = re.compile("|".join(rf"(?<!\d){re.escape(value[1:])}(?!\d)" for value in sorted(values)))
    for path in [*REPOSITORY.glob("invariance/**/*.py"), *REPOSITORY.glob("experiments/*.py")]:
        if path.name != "published.py":
            assert not pattern.findall(path.read_text()), path
