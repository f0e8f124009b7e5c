"""Mistakes on the command line: exit code 2 and one line, before anything slow, and without importing TensorFlow."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import generation_rotation, generation_shift, recognition_rotation, recognition_upright
from invariance import datasets
from invariance.cli import main, run_experiment
from invariance.cli.run import parser
from invariance.experiment import PROFILES
from invariance.processes import cores
from invariance.runs.execute import PRECISIONS
from tests.helpers import assert_one_line, in_this_process, python, refused, store_run

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (generation_rotation, generation_shift, recognition_rotation, recognition_upright)
}
R, G, S, U = "recognition_rotation", "generation_rotation", "generation_shift", "recognition_upright"
SEEDS = f"integers from 0 to {2**32 - 1}"
JOBS = f"--jobs: expected an integer from 1 to {len(cores())}; received "


@pytest.fixture(autouse=True)
def nothing_slow(monkeypatch):
    """A command that would train, or measure, fails."""
    in_this_process(monkeypatch)
    for name in ("cli.run.carry_out", "cli.run.forecast", "runs.evaluate.evaluate", "benchmark.main"):
        monkeypatch.setattr(f"invariance.{name}", lambda *_: pytest.fail("something slow was begun"))


# Commands are split at blanks; '' is an empty text.


def split(command):
    return ["" if word == "''" else word for word in command.split()]


@pytest.mark.parametrize(
    "name, command, expected",
    [
        # Names
        *((name, "--models cnn_99", ["--models: unknown model 'cnn_99'", *experiment.models, "FILE.py:FUNCTION"])
          for name, experiment in EXPERIMENTS.items()),
        (R, "--models cnn_00,cnn_99", ["'cnn_99'"]),
        *((R, f"--models {names}", ["--models: no model named", "cnn_bn_02"]) for names in (",", ",,", "cnn_00,")),
        (R, "--profile fast", ["--profile: unknown value 'fast'", *PROFILES]),
        (R, "--precision float16", ["--precision: unknown value 'float16'", *PRECISIONS]),
        (R, "--dataset cifar", ["--dataset: unknown name 'cifar'", *datasets.NAMES]),
        (R, "--dataset cifar --print-config", ["'cifar'"]),
        (R, "--dataset no/file.npz", ["--dataset: there is no file no/file.npz"]),
        # Options
        (R, "--epochs 3", ["--epochs", "--help"]),
        (R, "--model cnn_00", ["--model", "--help"]),
        (R, "--seed", ["--seed", "--help"]),
        # Numbers
        *((R, f"--seed={seed}", ["--seed: expected", SEEDS, repr(seed)])
          for seed in ("-1", "one", "1.5", "nan", str(2**32), "1,", "3-1", "0-1000", "1-2-3", "-", "0;1")),
        (R, "--seed ''", [SEEDS, "received ''"]),
        *((R, f"--jobs={jobs}", [JOBS + repr(jobs)]) for jobs in ("0", "two", f"{len(cores()) + 1}")),
        *((R, f"--redraws={number}", ["--redraws: expected an integer", repr(number)])
          for number in ("-1", "many", "0.5")),
        *((R, f"{option} ''", [f"{option}: expected", "received ''"])
          for option in ("--redraws", "--steps", "--learning-rate")),
        (G, "--redraws 3", ["--redraws", "recognition"]),
        # The learning rate of cnn_00 rises for 188 steps; then it must fall.
        *((R, f"--models cnn_00 --profile standard --steps={steps}", ["--steps: ", steps])
          for steps in ("0", "-5", "1e3", "188")),
        *((R, f"--learning-rate={rate}", ["--learning-rate: expected a positive number", repr(rate)])
          for rate in ("0", "-1", "nan", "inf", "fast")),
        # Classes
        *((R, f"{option}={labels}", [f"{option}: expected class labels", repr(labels)])
          for option in ("--restricted", "--excluded") for labels in ("three", "3,four", "-1", "3;4", "3.5")),
        (R, "--restricted 6", ["both excluded and restricted", "[6]"]),
        (U, "--restricted 3", ["--restricted: capsnet_dr has no range for restricted classes"]),
        # Arguments of the models
        (G, "--set width=3",
         ["--set: expected ARGUMENT=VALUE", "'width=3'", "ae_rotation", "feature_maps=256", "code_size=10"]),
        (G, "--set feature_maps", ["'feature_maps'", "ARGUMENT=VALUE"]),
        (G, "--set feature_maps=", ["--set feature_maps: expected a value like 256", "''"]),
        (G, "--set feature_maps=many", ["--set feature_maps", "'many'"]),
        (G, "--set feature_maps=1.5", ["--set feature_maps", "'1.5'"]),
        (G, "--set feature_maps=0", ["--set: ", "`feature_maps` must be a positive integer"]),
        (G, "--set penalty_weight=ten", ["--set penalty_weight: expected a value like 10.0"]),
        (G, "--set units=8,,", ["ARGUMENT=VALUE"]),
        (G, "--set filters=8", ["'filters=8'"]),
        (G, "--set regulariser=gan", ["regulariser", "'gan'", "wasserstein"]),
        (R, "--models capsnet_dr --set primary_stride=0", ["primary_stride", "positive", "0"]),
        (R, "--models capsnet_em --set margin_steps=0", ["margin_steps", "positive", "0"]),
        *((R, f"--models cnn_bn_00 --set {value}", ["--set", *value.split("=")])
          for value in ("slope=nan", "slope=inf", "dropout=1", "dropout=-0.1", "moving_average_decay=2")),
        (G, "--corrected", ["--corrected: nothing to correct in ae_rotation"]),
        # Several times: all of them count, none is lost.
        (G, "--set units=8,units=9", ["--set: units is given twice, '8' and '9'"]),
        (G, "--set units=8 --set feature_maps=64,units=8", ["--set: units is given twice, '8' and '8'"]),
        (G, "--set units=1000001", ["--set units: expected an integer from -1000000 to 1000000"]),
        *((R, f"{option} 3 {option}=4", [f"{option}: given twice; expected one list, separated by commas"])
          for option in ("--models", "--seed", "--restricted", "--excluded", "--also-restricted")),
        # Empty, or no text in a line
        *((R, f"{option} ''", [f"{option}: expected", "''"])
          for option in ("--models", "--dataset", "--runs", "--set", "--grid", "--also-restricted", "--shown")),
        (R, "--grid=--", ["argument --grid: expected a value"]),
        # Numbers that Python reads, and bounds.
        *((R, f"{option}={number}", [f"{option}: expected", repr(number)])
          for option in ("--seed", "--redraws", "--steps", "--learning-rate", "--restricted", "--grid")
          for number in ("1_0", "\u0661", "0x1")),
        (R, "--steps 1e300%", ["--steps: expected a positive number up to 100,000; received '1e300'"]),
        (R, "--shown=-1e9..1e9", ["--shown: expected LOW..HIGH", "10,000", "'-1e9..1e9'"]),
        *((name, f"--grid={grid}", ["--grid: A grid may have 10,000 points at most. Received: spacing=" + grid])
          for name in (R, G, S) for grid in ("1e-09", "0.001")),
        # Names of folders
        (R, f"--restricted {','.join(map(str, range(10, 90)))}",
         ["stored as 'cnn_00+restricted=10,", "which has 257 bytes, more than 200"]),
        # Grids
        *((name, f"--grid={grid}", ["--grid: ", repr(grid)]) for name in (R, G, S) for grid in ("fine", "Full")),
        *((name, f"--grid={grid}", ["--grid: ", "spacing", grid])
          for name in (R, G) for grid in ("0", "-9", "7", "360", "nan", "inf")),
        *((S, f"--grid={grid}", ["--grid: ", grid]) for grid in ("0", "-9", "1.5", "nan", "inf", "40")),
    ],
)  # fmt: skip
def test_experiments(capsys, tmp_path, name, command, expected):
    argv = ["--runs", str(tmp_path), "--quiet", *split(command)]
    refused(capsys, lambda: run_experiment(EXPERIMENTS[name], argv), *expected)
    assert not list(tmp_path.iterdir())


def test_profile_missing_from_a_model(capsys):
    entry = EXPERIMENTS[R].models["cnn_00"]
    only = replace(
        EXPERIMENTS[R], models={"mine": replace(entry, budgets={"quick": entry.budgets["quick"]})}, defaults=()
    )
    action = lambda: run_experiment(only, ["--profile", "standard"])  # noqa: E731
    refused(capsys, action, "--profile of mine: unknown value 'standard'; choose from quick")


def test_model_without_arguments(capsys):
    entry = EXPERIMENTS[G].models["ae_rotation"]
    own = replace(EXPERIMENTS[R], models={"mine": replace(entry, model=len, variants={})}, defaults=())
    refused(capsys, lambda: run_experiment(own, ["--set", "units=3"]), "an argument of mine (none)")
    refused(capsys, lambda: run_experiment(own, ["--corrected"]), "nothing to correct in mine")


def test_tensorboard_missing(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    refused(capsys, lambda: run_experiment(EXPERIMENTS[R], ["--tensorboard"]), "--tensorboard", "'.[tensorboard]'")


@pytest.mark.parametrize("models", ["cnn_00", "cnn_00,cnn_01"])
@pytest.mark.parametrize(
    "classes, option, expected",
    [
        (4, ["--restricted", "3,5,8"], ["own.npz: restricted classes [5, 8]", "[0, 1, 2, 3]"]),
        (4, ["--restricted", "0", "--excluded", "1,2,3"], ["own.npz: at least two classes"]),
    ],
)
def test_classes_missing_from_the_data(capsys, tmp_path, monkeypatch, models, classes, option, expected):
    """Found before the forecast, which measures the machine, also where a single run loads its data itself."""
    monkeypatch.setattr("invariance.cli.run.carry_out", lambda *given: given[-1][1]())
    images, labels = np.zeros((8, 8, 8), np.uint8), np.arange(8) % classes
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    argv = ["--dataset", str(tmp_path / "own.npz"), "--runs", str(tmp_path / "runs"), "--models", models, "--quiet"]
    refused(capsys, lambda: run_experiment(EXPERIMENTS[R], [*argv, *option]), *expected)
    # Nothing is left that a later, right command could stumble over.
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("mnist", "would be taken for the built-in mnist; rename the file"),
        # They would lead out of the experiment's folder.
        ("..", "runs cannot be stored as '..', which is no name; rename"),
        (".", "runs cannot be stored as '.', which is no name; rename"),
        ("x" * 201, "which has 201 bytes, more than 200; rename"),
        ("a\udcff", "which has characters that cannot be printed; rename"),
    ],
)
def test_file_whose_name_cannot_name_a_folder_of_runs(capsys, tmp_path, name, expected):
    (tmp_path / f"{name}.npz").write_bytes(b"")
    argv = ["--dataset", str(tmp_path / f"{name}.npz"), "--quiet"]
    refused(capsys, lambda: run_experiment(EXPERIMENTS[R], argv), "--dataset: ", expected)


def test_models_with_one_name(capsys, tmp_path):
    names = [str(folder / "mine.py") for folder in (tmp_path, tmp_path / "other")]
    (tmp_path / "other").mkdir()
    for name in names:
        Path(name).write_text("def build(*_): ...\n")
    argv = ["--models", ",".join(f"{name}:build" for name in names), "--quiet"]
    refused(capsys, lambda: run_experiment(EXPERIMENTS[R], argv), "--models: two models would be stored as mine.build")


def test_changed_run_is_refused_before_any_other_starts(capsys, tmp_path):
    for model in ("cnn_00", "cnn_01"):
        store_run(tmp_path, model, dataset="own", profile="quick")
    images, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10)
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    argv = ["--dataset", str(tmp_path / "own.npz"), "--runs", str(tmp_path), "--models", "cnn_02,cnn_01", "--quiet"]
    refused(
        capsys, lambda: run_experiment(EXPERIMENTS[R], argv), "holds a run with other settings", "--overwrite", "--runs"
    )
    assert not (tmp_path / "recognition_rotation" / "own" / "quick" / "cnn_02").exists()


# python -m invariance


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with RUN, a finished run of recognition, DRAWN, one of generation, and EMPTY."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUN", "DRAWN"):
        (tmp_path / name).symlink_to(store_run(tmp_path, name, mse_in={}, mse_out={}, ratio={}).path)
    (tmp_path / "DRAWN" / "config.json").write_text(json.dumps({"protocol": EXPERIMENTS[S].task.to_json()}))
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "a.txt").write_text("")
    os.mkfifo(tmp_path / "pipe")


@pytest.mark.parametrize(
    "command, expected",
    [
        ("", ["COMMAND", "--help"]),
        ("train", ["'train'", "report", "list", "evaluate", "bench", "notebooks"]),
        ("report --runs no", ["--runs: no such folder: no"]),
        ("evaluate", ["RUN_FOLDER"]),
        ("evaluate EMPTY", ["is not the folder of a finished run"]),
        ("evaluate no", ["no is not the folder of a finished run"]),
        *((f"evaluate RUN --grid-spacing={grid}", ["--grid-spacing: ", grid])
          for grid in ("0", "-5", "7", "360", "five", "nan", "inf")),
        *((f"evaluate DRAWN --grid-spacing={grid}", ["--grid-spacing: ", grid])
          for grid in ("0", "0.5", "fine", "nan")),
        # One point, which cannot be in range and out of range.
        ("evaluate DRAWN --grid-spacing=40", ["--grid-spacing: "]),
        *((f"evaluate RUN --redraws={number}", ["--redraws: ", repr(number)]) for number in ("-1", "many")),
        ("evaluate DRAWN --redraws 3", ["--redraws", "recognition"]),
        ("evaluate RUN --redraws 2 --upright-last=-1", ["--upright-last: ", "'-1'"]),
        ("evaluate RUN --upright-last 72", ["--upright-last: ", "add --redraws N"]),
        *((f"{command} --json {file}", ["--json: expected a file in an existing folder", repr(file)])
          for command in ("evaluate RUN", "bench") for file in ("EMPTY", "no/file.json")),
        # It might be one of the run's own.
        *((f"{command} ''", [f"{option}: expected", "received ''"])
          for command, option in (
              *((f"report {option}", option) for option in ("--html", "--markdown", "--readme")),
              ("list --runs", "--runs"),
              *((f"evaluate RUN {option}", option) for option in ("--dataset", "--grid-spacing")),
              ("notebooks a.txt --out", "--out"))),
        ("report --html a --markdown ./a", ["--markdown: expected another file than that of --html"]),
        ("report --markdown a.txt --readme a.txt", ["--readme: expected another file than that of --markdown"]),
        ("report --html RUN/metrics.json", ["--html: expected a file outside the folders of runs"]),
        ("report --html pipe", ["--html: expected a new file or a regular one"]),
        *((f"report --html {path}", ["--html: expected a file in an existing folder"])
          for path in ("no/a", "EMPTY", "new/")),
        ("report --readme no.md", ["--readme: no such file: no.md"]),
        ("notebooks a.txt --runs a.txt", ["--runs: expected a folder", "a.txt is not a folder"]),
        ("notebooks a.txt --out a.txt/new", ["--out: expected a folder", "a.txt is not a folder"]),
        ("bench --precision float32 --precision bfloat16", ["--precision: given twice"]),
        ("evaluate RUN --json RUN/metrics.json", ["--json: expected a new file", "metrics.json' exists"]),
        *((f"bench --seconds {seconds}", [f"--seconds: expected a positive number up to 3,600; received '{seconds}'"])
          for seconds in ("ten", "0", "1e300")),
        ("bench --precision float16", ["--precision: unknown value 'float16'", *PRECISIONS]),
        ("notebooks", ["FILE.ipynb"]),
        ("notebooks no.ipynb", ["FILE.ipynb: no such file: no.ipynb"]),
        ("notebooks EMPTY", ["FILE.ipynb: no such file: EMPTY"]),
    ],
)  # fmt: skip
def test_commands(capsys, runs, command, expected):
    refused(capsys, lambda: main(split(command)), *expected)


def test_list_prints_the_experiments_before_it_looks_for_runs(capsys):
    assert main(["list", "--runs", "no"]) == 2
    out, err = capsys.readouterr()
    assert EXPERIMENTS[R].task.title() in out
    assert_one_line(err, "--runs: no such folder: no")


@pytest.mark.parametrize("protocol", [{}, {"kind": "drawing"}, {"kind": "generation_by_shift", "ranges": 3}])
def test_evaluate_what_describes_no_task(capsys, tmp_path, protocol):
    folder = store_run(tmp_path, config={"protocol": protocol})
    refused(capsys, lambda: main(["evaluate", str(folder.path)]), "config.json: not a run's configuration")


# What costs nothing


def test_help_names_every_option_and_model(capsys):
    for experiment in EXPERIMENTS.values():
        text = parser(experiment).format_help()
        assert experiment.task.title() in " ".join(text.split())
        assert all(name in text for name in experiment.models)
        for option in (
            "--models",
            "--profile",
            "--dataset",
            "--seed",
            "--runs",
            "--jobs",
            "--precision",
            "--overwrite",
        ):
            assert option in text


IMPORTED = """
import runpy, sys
module, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    print(end.code, sorted({"tensorflow", "keras", "sklearn", "scipy", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize("module", ["experiments.recognition_rotation", "invariance"])
@pytest.mark.parametrize("argv, code", [(["--help"], 0), (["--runs", "x", "--jobs", "0", "--epochs"], 2)])
def test_help_and_mistakes_import_nothing_slow(module, argv, code):
    done = python("-c", IMPORTED, module, *argv)
    *text, last = done.stdout.splitlines()
    assert last == f"{code} []"
    if code:
        assert not text
        assert_one_line(done.stderr)
    else:
        assert done.stderr == "" and text[0].startswith("usage: python -m ")
