"""All models in one table, sorted by what they are told, and the answer in one sentence. The numbers are invented."""

import pytest

from experiments.recognition_rotation import EXPERIMENT
from invariance.report import table as report
from invariance.report.overview import answer, markdown, overview
from invariance.runs.find import find
from tests.helpers import store_run

EXPERIMENTS = {EXPERIMENT.name: EXPERIMENT}
K0, K1 = "K0: labelled images", "K1: which drawings show the same image"


@pytest.fixture
def made(tmp_path):
    """The tables of some runs: (model, P_inv, profile, seed)."""

    def make(*runs):
        for model, p_inv, profile, seed in runs:
            store_run(tmp_path, model, (0.9, 0.8, 0.5, p_inv), profile=profile, seed=seed)
        return report.tables(find(tmp_path)[0], EXPERIMENTS)

    return make


def test_a_row_for_each_model_that_was_trained_in_earnest(made):
    tables = made(
        ("flow", 0.9, "standard", 0),
        ("cnn_00", 0.1, "standard", 0),
        ("cnn_00", 0.3, "standard", 1),
        ("cnn_00+steps=9", 0.4, "standard", 0),
        ("cnn_01+unrestricted", 0.95, "standard", 0),
        ("cnn_02", 0.2, "paper", 0),
        ("cnn_bn_00", 0.2, "quick", 0),
    )
    rows = [(where, model, told, seeds, p_inv) for where, model, told, seeds, _, _, p_inv in overview(tables)]
    assert rows == [
        # The standard deviation of .1 and .3 is .1414.
        ("recognition_rotation", "cnn_00", K0, "0, 1", ".2000 ±.1414"),
        ("recognition_rotation, paper", "cnn_02", K0, "0", ".2000"),
        (
            "recognition_rotation",
            "cnn_01+unrestricted",
            f"{K0} and the missing drawings of the restricted classes",
            "0",
            ".9500",
        ),
        ("recognition_rotation", "flow", K1, "0", ".9000"),
    ]
    assert "| recognition_rotation | flow | " + K1 + " | 0 | .8000 | .5000 | .9000 |" in markdown(tables)


def test_the_answer_takes_the_best_plain_network_and_each_way_to_learn(made):
    assert answer(made(("cnn_00", 0.1, "standard", 0)), EXPERIMENTS) == ""
    tables = made(
        ("cnn_01", 0.3, "standard", 0),
        ("cnn_02+unrestricted", 0.99, "standard", 0),
        ("p4cnn", 0.98, "standard", 0),
        ("flow", 0.9, "standard", 0),
        ("flow_k0", 0.8, "standard", 0),
    )
    assert answer(tables, EXPERIMENTS) == (
        "Shown from 135 to 225 degrees, 3 and 4 are recognised in 30.0 % of all cases by the best of 2 plain networks, "
        f"and in 80.0 % ({K0}) and 90.0 % ({K1}) by a network that first learnt from the other classes how images move."
    )


def test_nothing_to_show(made):
    tables = made(("cnn_00", 0.1, "quick", 0))
    assert overview(tables) == [] and markdown(tables) == "" and answer(tables, EXPERIMENTS) == ""
