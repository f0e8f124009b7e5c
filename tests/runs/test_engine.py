"""Several runs of one command: what a failure does to the others. Runs are replaced, so TensorFlow is not needed."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from invariance.processes import cores
from tests.helpers import PATIENCE, REPOSITORY, python

two_cores = pytest.mark.skipif(len(cores()) < 2, reason="runs at the same time need a core each")

# Each scenario: code for the runs of cnn_00, code for those of cnn_01, options. One process carries all of them out.
PROGRAM = """
import contextlib, json, os, signal, sys, tempfile, time
from pathlib import Path
import numpy as np
from experiments.recognition_rotation import EXPERIMENT
from invariance import cli
from invariance.cli import run
from invariance.errors import Interrupted, ModelError, RunError, UserError
from invariance.progress import Progress
from invariance.runs import engine
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without it
run.forecast = lambda *_: None
def carried_out(first, other, options):
    def execute(config, runs, options, data):
        # In one piece, because others print at the same time. A reader may have gone away.
        with contextlib.suppress(BrokenPipeError):
            os.write(1, f"began {config.model} {config.seed}\\n".encode())
        exec(first if config.model.startswith("cnn_00") else other)
    engine.execute = execute
    with tempfile.TemporaryDirectory() as folder:
        images, labels = np.zeros((10, 4, 4), "uint8"), np.arange(10)
        np.savez(folder + "/own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        models = [] if "--models" in options else ["--models", "cnn_00,cnn_01"]
        argv = [*models, "--dataset", folder + "/own.npz", "--profile", "smoke", *options]
        return cli.run_experiment(EXPERIMENT, argv)
"""
ALL = """
outcomes = {}
for name, scenario in json.loads(sys.argv[1]).items():
    with tempfile.TemporaryDirectory() as runs, open(runs + "/out", "w+") as out, open(runs + "/err", "w+") as err:
        before = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        began = time.monotonic()
        code = carried_out(*scenario[:2], [*scenario[2], "--runs", runs])
        seconds = time.monotonic() - began
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(before[0], 1), os.dup2(before[1], 2)
        outcomes[name] = code, Path(runs, "out").read_text(), Path(runs, "err").read_text(), seconds
print(json.dumps(outcomes))
"""
FAIL = "raise RunError('the loss is not finite')"
STOP = "raise Interrupted('saved; repeat the command to resume')"
SCENARIOS = {
    "one fails": (FAIL, "pass", []),
    "seeds fail": ("raise RunError(f'seed {config.seed} fails')", "pass", ["--seed", "5,2"]),
    "one is killed": ("os.kill(os.getpid(), signal.SIGKILL)", "pass", []),
    "one does not fit": ("raise ModelError('images are too small')", "pass", []),
    "one does not fit, one fails": ("raise ModelError('images are too small')", FAIL, []),
    "mistake": ("raise UserError('no such class')", "pass", []),
    "stopped": (STOP, "pass", []),
    "stopped with --overwrite": (STOP, "pass", ["--overwrite"]),
    "only one": (FAIL, "pass", ["--models", "cnn_00"]),
    "error of ours": ("raise KeyError('a mistake of ours')", "pass", []),
    "nothing to correct": ("pass", "pass", ["--models", "cnn_01,capsnet_dr", "--corrected"]),
    "end of the parent": ("print(options.parent == os.getppid(), options.live)", "pass", ["--models", "cnn_00"]),
}
TWO_AT_A_TIME = {
    "mistake beside another": ("time.sleep(0.5); raise UserError('no such class')", "time.sleep(60)", ["--jobs", "2"]),
    "failure beside another": (FAIL, "time.sleep(0.5); print('began on')", ["--jobs", "2"]),
    "quiet lines": ("print(options.live)", "pass", ["--jobs", "2"]),
}


@pytest.fixture(scope="module")
def outcome():
    """Name of a scenario -> exit code, the runs that began, standard output, standard error, seconds."""
    scenarios = SCENARIOS | (TWO_AT_A_TIME if len(cores()) > 1 else {})
    done = python("-c", PROGRAM + ALL, json.dumps(scenarios))
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)

    def of(name):
        code, out, err, seconds = outcomes[name]
        return code, re.findall(r"^began (.*)$", out, re.MULTILINE), out, err, seconds

    return of


BOTH = ["cnn_00 0", "cnn_01 0"]


@pytest.mark.parametrize(
    "name, code, began, errors",
    [
        ("one fails", 1, BOTH, ["the loss is not finite", "not finished: cnn_00"]),
        # One seed after the other, each with all models.
        ("seeds fail", 1, ["cnn_00 5", "cnn_01 5", "cnn_00 2", "cnn_01 2"],
         ["seed 5 fails", "seed 2 fails", "not finished: cnn_00 seed 5, cnn_00 seed 2"]),
        ("one is killed", 1, BOTH,
         ["the run's process was killed by signal 9 (out of memory?); repeat the command to resume",
          "not finished: cnn_00"]),
        ("one does not fit", 2, BOTH, ["images are too small", "not finished: cnn_00"]),
        # With a run among them that may be resumed, repeating makes sense.
        ("one does not fit, one fails", 1, BOTH,
         ["images are too small", "the loss is not finite", "not finished: cnn_00, cnn_01"]),
        # Common to all.
        ("mistake", 2, BOTH[:1], ["no such class"]),
        ("stopped", 130, BOTH[:1], ["saved; repeat the command to resume"]),
        # The same command would throw away what was saved.
        ("stopped with --overwrite", 130, BOTH[:1], ["saved; repeat the command without --overwrite to resume"]),
        ("only one", 1, BOTH[:1], ["the loss is not finite"]),
    ],
)  # fmt: skip
def test_what_a_failure_does_to_the_others(outcome, name, code, began, errors):
    found, names, _, err, _ = outcome(name)
    assert (found, names) == (code, began)
    assert err.splitlines() == [f"error: {error}" for error in errors]


def test_programming_error_shows_its_place(outcome):
    code, began, _, err, _ = outcome("error of ours")
    assert (code, began) == (1, BOTH)
    assert "Traceback" in err and "KeyError: 'a mistake of ours'" in err
    assert "error: the run's process exited with code 1; see its output above\n" in err and "repeat" not in err


def test_models_with_nothing_to_correct_are_named(outcome):
    code, began, out, _, _ = outcome("nothing to correct")
    assert (code, began) == (0, ["cnn_01_corrected 0"])
    assert "--corrected: nothing to correct in capsnet_dr; omitted\n" in out


def test_runs_end_with_their_parent(outcome):
    # The child asks for the process that it must not outlive.
    assert "True True" in outcome("end of the parent")[2]


@two_cores
def test_mistake_ends_the_runs_beside_it(outcome):
    code, began, _, err, seconds = outcome("mistake beside another")
    assert (code, sorted(began), err) == (2, BOTH, "error: no such class\n")
    assert seconds < 50  # of the other's 60


@two_cores
def test_failure_lets_the_runs_beside_it_go_on(outcome):
    code, began, _, err, _ = outcome("failure beside another")
    assert (code, sorted(began)) == (1, [*BOTH, "on"])
    assert err == "error: the loss is not finite\nerror: not finished: cnn_00\n"


@two_cores
def test_lines_are_not_rewritten_where_several_print(outcome):
    assert "False\n" in outcome("quiet lines")[2]


def test_reader_that_has_gone_does_not_stop_a_run(tmp_path):
    code = "time.sleep(0.5); Progress('x').line('y'); Path(runs, 'finished').touch()"
    end = f"carried_out({code!r}, 'pass', ['--models', 'cnn_00', '--runs', {str(tmp_path)!r}])"
    result = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"$PROGRAM\" | head -1"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "PROGRAM": PROGRAM + end},
    )  # fmt: skip
    assert "Traceback" not in result.stderr and result.stdout
    # `head` does not wait for the program.
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "finished").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert (tmp_path / "finished").exists()
