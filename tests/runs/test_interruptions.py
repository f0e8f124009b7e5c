"""A run of the real command line, killed, stopped by Ctrl-C, and finished."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.helpers import PATIENCE, REPOSITORY
from tests.runs import cases
from tests.runs.test_execute import assert_equally_measured, assert_equally_trained

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


def test_run_that_was_killed_and_stopped_ends_as_if_it_had_not_been(stopped, whole, data):
    runs, *_ = stopped
    folder = cases.run(cases.config(NAME, data), runs, redraws=2)
    assert_equally_trained(folder, whole(NAME))
    assert_equally_measured(folder, whole(NAME))
