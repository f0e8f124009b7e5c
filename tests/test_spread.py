"""The analysis of the spread over seeds: a textbook case by hand, and the README's table from the committed runs."""

import re
from pathlib import Path

import pytest

from experiments import leftover, spread
from invariance import results
from invariance.report import share

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_analysis_of_variance():
    # Means 2, 5 and 9 of (1, 2, 3), (4, 6) and (9,): within 2 + 2 with 3 degrees of freedom, deviation root of 4 / 3.
    # Between: grand mean 25 / 6; 3 * 4.6944 + 2 * .6944 + 23.3611 = 38.8333, by 2: F = 19.41667 / 1.33333 = 14.5625.
    # With two degrees of freedom above, p = (1 + 2 F / 3) ** -1.5 = .0285.
    deviation, p = spread.analysis([(1, 2, 3), (4, 6), (9,)])
    assert deviation == pytest.approx((4 / 3) ** 0.5)
    assert p == pytest.approx((1 + 2 * 14.5625 / 3) ** -1.5)


def test_the_readme_tells_what_the_committed_runs_say():
    runs = results.find(REPOSITORY / "experiments/results")[0]
    table = spread.table(runs)
    assert table in README, "out of date; write it with: python -m experiments.spread"
    [section] = re.findall(r"\n## Is the order .*?(?=\n## )", README, re.DOTALL)
    [block] = re.findall(r"<!-- results: begin.*?<!-- results: end -->", README, re.DOTALL)
    known = set(re.findall(r"\.\d{3,4}(?!\d)", block + table))
    pair = leftover.turned("cnn_bn_00"), leftover.turned("cnn_00")
    known |= {share(pair[0][key] - pair[1][key]) for key in ("p_out", "p_inv")}
    known |= {share(run.metrics["p_inv"]) for run in runs if run.metrics["model"] == "capsnet_em"}
    cited = re.findall(r"(?<!\d)\.\d{3,4}(?!\d)", section.replace(table, ""))
    assert cited and set(cited) <= known


def test_nothing_without_seeds():
    runs = results.find(REPOSITORY / "experiments/results")[0]
    assert spread.table(run for run in runs if run.metrics["seed"] == 0).count("\n") == 1
