"""Suites: every part is checked before the first one starts, and none stops the others."""

import pytest

from experiments import transfer
from experiments.recognition_rotation import EXPERIMENT
from invariance.cli import run_suite, suite
from invariance.experiment import Part, Suite
from tests.helpers import assert_one_line, refused

TWO = Suite(
    "two", "Two parts", (Part(EXPERIMENT, ("cnn_00",)), Part(EXPERIMENT, ("cnn_bn_00",), ("--restricted", "3")))
)


@pytest.fixture
def called(monkeypatch):
    """The command lines of the parts; their exit codes are taken from ``codes``."""
    lines, codes = [], [0, 0]

    def run_experiment(experiment, argv):
        lines.append((experiment.name, *argv))
        return codes[len(lines) - 1]

    monkeypatch.setattr(suite.run, "run_experiment", run_experiment)
    return lines, codes


def test_parts_are_run_in_order_with_the_given_options(called, capsys):
    assert run_suite(TWO, ["--profile", "smoke", "--seed=1"]) == 0
    assert called[0] == [
        ("recognition_rotation", "--models", "cnn_00", "--profile", "smoke", "--seed=1"),
        ("recognition_rotation", "--models", "cnn_bn_00", "--restricted", "3", "--profile", "smoke", "--seed=1"),
    ]
    assert "[2 of 2] recognition_rotation cnn_bn_00 --restricted 3" in capsys.readouterr().out


@pytest.mark.parametrize("codes, expected, parts", [([1, 0], 1, 2), ([0, 1], 1, 2), ([130, 0], 130, 1), ([2, 0], 2, 1)])
def test_a_part_that_fails_does_not_stop_the_others(called, capsys, codes, expected, parts):
    called[1][:] = codes
    assert run_suite(TWO, ["--quiet"]) == expected
    assert len(called[0]) == parts
    if expected == 1:
        failed = "cnn_bn_00 --restricted 3" if codes[0] == 0 else "cnn_00"
        assert_one_line(capsys.readouterr().err, f"not finished: recognition_rotation {failed}")


@pytest.mark.parametrize("argv", [["--models", "cnn_00"], ["--steps=3"], ["--control", "unrestricted"]])
def test_what_the_parts_decide_is_refused(called, capsys, argv):
    refused(capsys, lambda: run_suite(TWO, argv), argv[0].partition("=")[0], "decided by the suite")
    assert not called[0]


def test_help_and_mistakes_start_nothing(called, capsys):
    assert run_suite(TWO, ["--help"]) == 0
    assert "recognition_rotation cnn_bn_00 --restricted 3" in capsys.readouterr().out
    refused(capsys, lambda: run_suite(TWO, ["--nonsense"]), "unrecognized arguments: --nonsense")
    assert not called[0]


def test_every_part_of_transfer_names_models_of_its_experiment():
    assert all(set(part.models) <= set(part.experiment.models) for part in transfer.SUITE.parts)
