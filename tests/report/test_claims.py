"""Verdicts on claims. The claims and the numbers are invented."""

from dataclasses import replace

import pytest

from experiments.recognition_rotation import TASK
from invariance.report import claims
from invariance.report.claims import CONTRADICTED, REPRODUCED, UNDECIDED, UNTESTED, Claim, judge
from invariance.runs.find import Run
from invariance.runs.folder import RunFolder


def run(model, value, seed=0, profile="standard", dataset="mnist", experiment="here", **metrics):
    names = {"experiment": experiment, "model": model, "dataset": dataset, "profile": profile, "seed": seed}
    folder = RunFolder.of("nowhere", experiment, dataset, profile, model, seed)
    return Run(folder, {}, {**names, "value": value, **metrics}, TASK)


SMALL = Claim(
    "X1",
    "a is small.",
    {"a: value < 1": lambda metrics: metrics["a"]["value"] < 1, "above 0": lambda metrics: metrics["a"]["value"] > 0},
    "here",
    ("a",),
    lambda metrics: f"a {metrics['a']['value']:.2f}",
)


def verdict_on(*runs, claim=SMALL):
    [verdict] = judge([claim], runs)
    return verdict


def test_numbers_decide():
    assert verdict_on(run("a", 0.5)).verdict == REPRODUCED and verdict_on(run("a", 0.5)).failed == ()
    verdict = verdict_on(run("a", 1.5))
    assert (verdict.verdict, verdict.failed) == (CONTRADICTED, ("a: value < 1",))
    assert "Fails: a: value < 1" in verdict.reasons()
    assert verdict_on(run("a", -1.0)).failed == ("above 0",)
    untested = verdict_on()
    assert (untested.verdict, untested.command) == (UNTESTED, "make here PROFILE=standard MODELS=a")


def test_findings_are_shown_only_where_a_claim_is_not_reproduced():
    class Finding:
        def __str__(self):
            return "it grows"

    claim = replace(SMALL, finding=Finding())
    assert "Finding: it grows" in verdict_on(run("a", 1.5), claim=claim).reasons()
    assert "grows" not in verdict_on(run("a", 0.5), claim=claim).text()


def test_disagreeing_seeds_leave_a_claim_undecided():
    verdict = verdict_on(*(run("a", value, seed) for seed, value in enumerate([0.5, 0.6, 1.5])))
    # (.5 + .6 + 1.5) / 3 = .867 < 1; two of the three seeds agree.
    assert (verdict.verdict, verdict.holding, verdict.numbers) == (UNDECIDED, (2, 3), "a 0.87")
    assert verdict.failed == ("a: value < 1 (1 of 3)",)
    assert "Seeds: a 0, 1, 2 (it holds with 2 of 3 seeds)" in verdict.text()
    # One of twenty may disagree, on either side.
    verdict = verdict_on(*(run("a", 0.5 + (seed == 7), seed) for seed in range(20)))
    assert (verdict.verdict, verdict.holding, verdict.failed) == (REPRODUCED, (19, 20), ())
    verdict = verdict_on(*(run("a", 1.5 - (seed == 7), seed) for seed in range(20)))
    assert (verdict.verdict, verdict.holding, verdict.failed) == (CONTRADICTED, (1, 20), ("a: value < 1",))


def test_all_combinations_of_seeds_are_judged():
    condition = {"a above b": lambda metrics: metrics["a"]["value"] > metrics["b"]["value"]}
    claim = replace(SMALL, conditions=condition, models=("a", "b"))
    runs = [run("a", value, seed) for seed, value in enumerate([3, 5])]
    runs += [run("b", value, seed) for seed, value in enumerate([1, 2, 4], 5)]
    verdict = verdict_on(*runs, claim=claim)
    # 3 is above 1 and 2, 5 above all.
    assert (verdict.verdict, verdict.holding) == (UNDECIDED, (5, 6))
    assert verdict.summary() == "undecided (holds in 5 of 6 combinations of seeds)"
    many = [run(model, number + seed, seed) for number, model in enumerate("ba") for seed in range(40)]
    verdict = verdict_on(*many, claim=claim)
    # Of 1,600 combinations a is above b in 820 (seed of a at least that of b), 512.5 of a thousand; the tolerance is
    # four standard deviations of a sample.
    assert verdict.holding[1] == claims.COMBINATIONS and verdict.holding[0] == pytest.approx(512, abs=64)


def test_summary_tells_the_number_of_seeds_and_warnings():
    one, two = run("a", 0.5), run("a", 0.5, seed=1)
    assert verdict_on(one).summary() == "reproduced (one seed)"
    assert verdict_on(one, two).summary() == "reproduced (holds with 2 of 2 seeds)"
    assert verdict_on(one, two, run("a", 1.6, seed=2)).summary() == "undecided (holds with 2 of 3 seeds)"
    assert verdict_on(run("a", 1.5, profile="quick")).summary() == "contradicted (provisional, one seed)"
    broken = run("a", 0.5, seed=1, chance=0.125, never_answers=[2])
    other = run("b", 0.5, chance=0.125, never_answers=[3])
    expected = "reproduced (holds with 2 of 2 seeds, a never answers 2 (seed 1))"
    assert verdict_on(one, broken, other).summary() == expected


def test_the_longest_profile_decides_and_short_ones_are_provisional():
    quick, standard, paper = run("a", 0.5, profile="quick"), run("a", 1.5), run("a", 0.5, profile="paper")
    verdict = verdict_on(quick)
    assert (verdict.verdict, verdict.provisional, verdict.profile) == (REPRODUCED, True, "quick") and verdict.command
    verdict = verdict_on(quick, standard)
    assert (verdict.verdict, verdict.provisional, verdict.command) == (CONTRADICTED, False, None)
    verdict = verdict_on(standard, paper)
    assert (verdict.verdict, verdict.profile) == (REPRODUCED, "paper")


@pytest.mark.parametrize(
    "runs",
    [
        [run("a", 0.5, profile="smoke")],
        [run("a", 0.5, dataset="digits")],
        [run("a", 0.5, experiment="there")],
        [run("b", 0.5)],
        [run("a", None)],
        [run("a", 0.5), run("a", None, seed=1)],
    ],
)
def test_runs_that_decide_nothing(runs):
    assert verdict_on(*runs).verdict == UNTESTED
