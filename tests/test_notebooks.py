"""The notebooks, executed from a clean kernel on tiny runs that they train themselves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.recognition_rotation import TASK
from invariance import notebooks
from invariance.files import write_json
from invariance.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def stored(tmp_path, model="cnn_00", seed=0, name="recognition_rotation"):
    """A run folder that says it is finished, with a network's file."""
    folder = RunFolder.of(tmp_path, name, "digits", "smoke", model, seed)
    folder.path.mkdir(parents=True)
    write_json(folder / "config.json", {"protocol": TASK.to_json()})
    metrics = {"experiment": name, "model": model, "dataset": "digits", "profile": "smoke", "seed": seed, "p_test": 0.5}
    (folder / "model.keras").write_bytes(b"")
    write_json(folder / "metrics.json", metrics)
    return folder


def age(folder, seconds):
    os.utime(folder / "metrics.json", (seconds, seconds))


def test_the_newest_suitable_run_is_found(tmp_path):
    for number, model in enumerate(["cnn_00", "cnn_01", "capsnet_dr"]):
        age(stored(tmp_path, model), 1000 + number)
    age(stored(tmp_path, "ae_rotation", name="another"), 2000)
    assert notebooks.newest_run("recognition_rotation", runs=[tmp_path]).metrics["model"] == "capsnet_dr"
    assert (
        notebooks.newest_run("recognition_rotation", ["cnn_00", "cnn_01"], runs=[tmp_path]).metrics["model"] == "cnn_01"
    )
    assert notebooks.newest_run("recognition_rotation", ["cnn_02"], runs=[tmp_path]) is None
    assert notebooks.newest_run("recognition_rotation", runs=[tmp_path / "nowhere"]) is None


def test_a_run_without_its_network_is_not_suitable(tmp_path):
    age(stored(tmp_path, "cnn_00"), 1000)
    bare = stored(tmp_path, "cnn_01")
    age(bare, 2000)
    (bare / "model.keras").unlink()
    assert notebooks.newest_run("recognition_rotation", runs=[tmp_path]).metrics["model"] == "cnn_00"


def test_the_three_notebooks_are_stored_without_outputs_and_short():
    assert [path.stem for path in NOTEBOOKS] == ["capsnet_reconstructions", "generation", "recognition"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert len(cells) <= 15
        assert all(
            not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


# One of them always; all of them take minutes.
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == "recognition" else [pytest.mark.slow]) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_executed_from_a_clean_kernel(path, runs):
    environment = os.environ | {notebooks.PROFILE: "smoke", notebooks.DATASET: "digits"}
    command = [sys.executable, "-m", "invariance", "notebooks", "--runs", str(runs), str(path)]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    executed = json.loads((runs / "notebooks" / path.name).read_text(encoding="utf-8"))
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", ())]
    text = "".join("".join(output.get("text", "")) for output in outputs)
    # Where there was no run yet, that is said before one is trained.
    assert re.search(r"No finished run of \w+ was found. One is trained now|Run: ", text)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_a_missing_notebook_is_one_line(tmp_path):
    command = [sys.executable, "-m", "invariance", "notebooks", str(tmp_path / "none.ipynb")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path / 'none.ipynb'}: no such notebook\n"


def test_what_is_no_notebook_is_one_line(tmp_path):
    path = tmp_path / "wrong.ipynb"
    path.write_bytes(b"\xff{")
    command = [sys.executable, "-m", "invariance", "notebooks", "--runs", str(tmp_path), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (2, f"error: {path}: not a notebook (UnicodeDecodeError)\n")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "a cell failed (ZeroDivisionError: division by zero)"),
        ("import os; os.write(2, b'no more memory'); os._exit(9)", "the kernel died (no more memory)"),
    ],
)
def test_a_failure_is_one_line(tmp_path, source, reason):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    path = tmp_path / "wrong.ipynb"
    write_json(path, {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    command = [sys.executable, "-m", "invariance", "notebooks", "--runs", str(tmp_path), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == f"error: {path}: {reason}\n"
    assert not (tmp_path / "notebooks").exists()
