"""Sweeps from the command line: all runs together, each once, and mistakes before anything slow."""

import json

import numpy as np
import pytest

from experiments import dose
from experiments.recognition_rotation import EXPERIMENT
from invariance.cli import run_sweeps
from invariance.sweeps import FREE_CLASSES, HALF_WIDTH, RECORD, Sweep
from tests.helpers import in_this_process, refused

TWO = (
    Sweep(EXPERIMENT, ("baseline",), HALF_WIDTH, (15, 45), seeds=(0, 1), percent={"quick": 50}),
    Sweep(EXPERIMENT, ("baseline",), FREE_CLASSES, (1, 2), order=(5, 8), seeds=(0, 1), percent={"quick": 50}),
)


@pytest.fixture
def carried(monkeypatch):
    """What was handed to `carry_out` and to the forecast."""
    in_this_process(monkeypatch)
    given = []
    monkeypatch.setattr("invariance.cli.run.forecast", lambda configs, *_: given.append(configs))

    def carry_out(configs, runs, options, jobs, data, first):
        first[1]()
        given.append(configs)
        return []

    monkeypatch.setattr("invariance.cli.run.carry_out", carry_out)
    return given


@pytest.fixture
def own(tmp_path):
    images, labels = np.zeros((10, 8, 8), "uint8"), np.arange(10)
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return ["--dataset", str(tmp_path / "own.npz"), "--runs", str(tmp_path / "runs")]


NAMES = ["baseline+steps=50%" + suffix for suffix in ("", "+shown=-15..15", "+also_restricted=5")]


def test_all_runs_of_all_sweeps_are_announced_and_carried_out_together_each_once(carried, own, capsys):
    assert run_sweeps("dose", "Title", TWO, own) == 0
    announced, configs = carried
    # Half-width 45 and two free classes are the usual setting. The first seed's curves come first.
    assert [(config.seed, config.model) for config in configs] == [(seed, name) for seed in (0, 1) for name in NAMES]
    assert list(announced) == list(configs)
    assert [config.record[RECORD]["varied"] for config in configs[:3]] == [None, HALF_WIDTH, FREE_CLASSES]
    out = capsys.readouterr().out
    assert "recognition_rotation baseline: half_width 15, 45; 50 % of the profile's steps\n" in out
    assert "6 runs, 0 of them finished\n" in out and "No curves yet" in out
    # What the command line gives replaces what the sweep does.
    assert run_sweeps("dose", "Title", TWO, [*own, "--seed", "7", "--quiet"]) == 0
    assert [(config.seed, config.model) for config in carried[-1]] == [(7, name) for name in NAMES]


def test_no_two_points_of_the_whole_sweep_are_the_same(capsys):
    assert run_sweeps("dose", dose.TITLE, dose.SWEEPS, ["--print-config"]) == 0
    configs = json.loads(capsys.readouterr().out)
    names = [(config["experiment"], config["model"], config["seed"]) for config in configs]
    assert len(names) == len(set(names))
    base = [config.pop("model").partition("+")[0] for config in configs]
    described = {json.dumps([name, config]) for name, config in zip(base, configs, strict=True)}
    assert len(described) == len(configs)
    assert {config["seed"] for config in configs} == {0, 1, 2}


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--shown=0..0"], ["--shown", "decided by the suite"]),
        (["--also-restricted", "5"], ["--also-restricted", "decided by the suite"]),
        (["--profile", "fast"], ["--profile: unknown value 'fast'"]),
        (["--nonsense"], ["unrecognized arguments: --nonsense"]),
        (["--seed", "one"], ["--seed: expected"]),
    ],
)
def test_mistakes(carried, capsys, argv, expected):
    refused(capsys, lambda: run_sweeps("dose", "Title", TWO, argv), *expected)
    assert not carried


def test_help_says_what_is_run(capsys):
    assert run_sweeps("dose", "Title", TWO, ["--help"]) == 0
    assert (
        "recognition_rotation baseline: free_classes 1, 2 (restricted one after the other: 5, 8)"
        in capsys.readouterr().out
    )
