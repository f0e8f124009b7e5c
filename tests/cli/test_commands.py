"""``python -m invariance report`` and ``list``; output that nobody reads; the index of everything that can be run."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from invariance.cli import main
from invariance.experiment import installed_experiments
from tests.helpers import PATIENCE, REPOSITORY, assert_one_line, store_run


def test_report_and_list(capsys, tmp_path):
    names = {"dataset": "mine", "profile": "smoke", "interval": {}, "config": {"commit": "abc"}}
    done, begun = (store_run(tmp_path, "cnn_00", (0.5, 0.4, 0.3, 0.2), seed, **names) for seed in (0, 1))
    (begun / "metrics.json").unlink()
    markdown = tmp_path / "table.md"
    assert main(["report", "--runs", str(tmp_path), "--markdown", str(markdown)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "cnn_00  .5000" in out and f"written to {markdown}" in out
    assert f"{begun.path}: not finished; repeat its command to resume it" in out
    assert "| cnn_00 | 0 | .5000 | .4000 | .3000 | .2000 |" in markdown.read_text()
    assert main(["list", "--runs", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert (
        f"{done.path}: finished, commit abc; without curves.csv and model.keras\n" in out
        and f"{begun.path}: not finished" in out
    )
    for name, experiment in installed_experiments().items():
        assert f"{name}: {experiment.task.title()}\n  models: {', '.join(experiment.models)}\n" in out


def test_damaged_run_is_named_and_the_others_are_shown(capsys, tmp_path):
    store_run(tmp_path, "cnn_00")
    damaged = store_run(tmp_path, "cnn_01")
    (damaged / "metrics.json").write_text("{")
    assert main(["report", "--runs", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "cnn_00" in out and f"{damaged.path}: {damaged / 'metrics.json'}: unreadable" in out
    assert_one_line(err, f"unreadable: {damaged.path}")


def test_report_without_runs(capsys, tmp_path):
    assert main(["report", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "No finished runs.\n"


def test_report_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("invariance.files.os.fsync", full)
    assert main(["report", "--runs", str(tmp_path), "--markdown", str(tmp_path / "table.md")]) == 1
    assert_one_line(capsys.readouterr().err, "cannot write", "No space left on device")


def test_reader_that_goes_away():
    """`... --help | head -1` and the like end without a traceback."""
    code = "import sys; from invariance.cli.arguments import guarded; sys.exit(guarded(lambda: print('x' * 10**6)))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_prints_its_targets():
    # Not as a part of the make that runs these tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def make(*argv):
        done = subprocess.run(
            ["make", *argv], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode, done.stderr) == (0, "")
        return set(re.findall(r"[\w-]+", done.stdout))

    printed = make()
    experiments = {name.replace("_", "-") for name in installed_experiments()}
    targets = {*experiments, "report", "notebooks", "bench", "test", "test-slow", "lint", "format", "clean"}
    assert {"recognition-rotation", "generation-scaling"} <= experiments and targets <= printed
    assert {"PROFILE", "MODELS", "DATASET", "SEED", "RUNS", "JOBS", "PRECISION", "PYTHON", "ARGS"} <= printed
    # They are known: of several, the last is looked up, too.
    make("-n", *sorted(targets))
