"""The claims on second-order networks: each holds, and fails, for invented numbers."""

import pytest

from experiments import generation_rotation, rotation_compensation
from experiments.article.repository_claims import CLAIMS
from invariance.report.claims import CONTRADICTED, REPRODUCED, judge
from invariance.runs.find import Run
from invariance.runs.folder import RunFolder

EXPERIMENTS = {each.EXPERIMENT.name: each.EXPERIMENT for each in (generation_rotation, rotation_compensation)}
BY_NAME = {claim.name: claim for claim in CLAIMS}


def run(name, of_4, of_9, free=(1.0, 1.2), out=0.01):
    """A run with these ratios, in which every error in range is ``out``."""
    claim = BY_NAME[name]
    [model], experiment = claim.models, EXPERIMENTS[claim.experiment]
    ratio = {str(digit): free[digit % 2] for digit in range(10)} | {"4": of_4, "9": of_9}
    metrics = {
        "experiment": experiment.name, "model": model, "dataset": "mnist", "profile": "standard", "seed": 0,
        "ratio": ratio, "mse_in": dict.fromkeys(ratio, out),
        "mse_out": {digit: out * value for digit, value in ratio.items()}, "mse_between": dict.fromkeys(ratio, 0.1),
    }  # fmt: skip
    return Run(RunFolder.of("nowhere", experiment.name, "mnist", "standard", model, 0), {}, metrics,
               experiment.task_of(model))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "of_4", "of_9", "verdict"),
    [
        # Up to 1.25 times the largest ratio of a free digit, 1.2.
        ("H2", 1.45, 1.0, REPRODUCED),
        ("H2", 1.55, 1.0, CONTRADICTED),
        ("H2", 1.0, 1.55, CONTRADICTED),
        # From 1.5 times that.
        ("H4", 6.2, 1.85, REPRODUCED),
        ("H4", 6.2, 1.75, CONTRADICTED),
        ("H4", 1.75, 6.2, CONTRADICTED),
    ],
)
def test_verdicts(name, of_4, of_9, verdict):
    [found] = judge([BY_NAME[name]], [run(name, of_4, of_9)])
    assert found.verdict == verdict
    assert f"4: {of_4:.2f}, 9: {of_9:.2f}; others 1.00 to 1.20" in found.numbers
    assert ("between the angles .1000–.1000" in found.numbers) == (name == "H2")


def test_claims_are_about_models_that_exist():
    assert {"H2", "H4"} <= set(BY_NAME)
    for claim in CLAIMS:
        assert claim.criterion and claim.text.endswith(".")
