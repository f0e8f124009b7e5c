"""A run of the real command line, killed, stopped by Ctrl-C, and finished."""

import os
import re
import signal
import subprocess
import sys

import pytest

from invariance.cli import run_experiment
from tests.helpers import PATIENCE, REPOSITORY, in_this_process
from tests.runs import cases
from tests.runs.test_execute import assert_equally_measured, assert_equally_trained

# In one process, which carries out the shared runs once.
pytestmark = pytest.mark.xdist_group("runs")

NAME = "recognition_by_rotation"


def interrupted(data, runs, number):
    """Starts the run, sends a signal to its processes after an epoch: (exit code, output before, standard error)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.runs.cases", "--models", NAME, "--profile", "smoke", "--dataset", data,
         "--runs", runs],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "SLOW": "1"},
    )  # fmt: skip
    try:
        lines = []
        # A checkpoint is written before the line of an epoch is printed.
        while not lines or (lines[-1] and "  epoch " not in lines[-1]):
            lines.append(process.stdout.readline())
        os.killpg(process.pid, number)
        # The pipes are closed when the child has ended, too.
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, "".join(lines), err


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """(runs, what is known after SIGKILL, what is known after SIGINT); each: exit code, output, errors, files."""
    runs, parts = tmp_path_factory.mktemp("stopped"), []
    for number in (signal.SIGKILL, signal.SIGINT):
        result = interrupted(data, runs, number)
        files = {path.name for path in cases.config(NAME, data).folder(runs).path.iterdir()}
        parts.append((*result, files))
    return runs, *parts


def test_sigkill_leaves_a_checkpoint(stopped):
    _, (code, out, err, files), _ = stopped
    assert (code, err) == (-signal.SIGKILL, "")
    assert "checkpoint.npz" in files and "metrics.json" not in files
    first, second, *_ = out.splitlines()
    assert first == "Recognition under rotation: classes 3 and 4 shown within ±45 degrees only"
    assert second.startswith(f"{cases.config(NAME, '').dataset}")
    assert re.search(
        r"^Expected: about \d+ s for 1 run \(on this CPU, \d+ GFLOP/s; a GPU is faster\)$", out, re.MULTILINE
    )


def test_ctrl_c_says_how_to_resume(stopped):
    _, _, (code, out, err, files) = stopped
    assert code == 130
    assert f"{NAME} seed 0: resuming from step 4 of 12\n" in out
    assert re.fullmatch(r"error: SIGINT at step \d+ of 12; saved; repeat the command to resume\n", err), err
    assert "checkpoint.npz" in files and "metrics.json" not in files


def test_run_that_was_killed_and_stopped_ends_as_if_it_had_not_been(stopped, whole, data, monkeypatch, capsys):
    runs, *_ = stopped
    in_this_process(monkeypatch)
    cases.no_figures(monkeypatch)
    argv = ["--models", NAME, "--profile", "smoke", "--dataset", str(data), "--runs", str(runs), "--redraws", "2"]
    assert run_experiment(cases.EXPERIMENT, argv) == 0
    folder = cases.config(NAME, data).folder(runs)
    assert_equally_trained(folder, whole(NAME))
    assert_equally_measured(folder, whole(NAME))
    # What it prints: the rest of its epochs, what was measured, the table.
    lines = capsys.readouterr().out.splitlines()
    metrics = folder.json("metrics.json")
    assert lines[0] == "Recognition under rotation: classes 3 and 4 shown within ±45 degrees only"
    assert any(re.match(rf"{NAME} seed 0: resuming from step \d+ of 12$", line) for line in lines)
    assert sum(line.startswith(f"{NAME} seed 0  epoch ") for line in lines) in (1, 2)
    [summary] = [line for line in lines if line.startswith(f"{NAME} seed 0: P_test {metrics['p_test']:.4f}, ")]
    # Three epochs do not teach every class; which are never answered depends on the machine's rounding.
    rows = folder.csv("predictions.csv")
    answered = {row["predicted"] for row in rows if row["images"]}
    never = [f"{label:.0f}" for label in dict.fromkeys(row["predicted"] for row in rows) if label not in answered]
    marked = "gives the same answer" if len(never) == 7 else f"never answers {never[0]}" if never else "  (trained"
    assert marked in summary and summary.endswith(f"; {folder.path})")
    assert any(line.startswith(f"{NAME}  ") and f"{metrics['p_test']:.4f}"[1:] in line for line in lines)
    assert lines[-1] == f"Table, curves and figures: {folder.path.parents[1]}"
    assert f"\n| {NAME}" in (folder.path.parents[1] / "table.md").read_text()
