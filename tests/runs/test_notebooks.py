"""The notebooks find runs, or train one; they are executed from a clean kernel; what fails is one line."""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invariance import notebooks
from invariance.cli import main
from invariance.files import write_json
from invariance.runs.folder import RunFolder
from tests.helpers import REPOSITORY, assert_one_line, python, refused, store_run
from tests.runs import cases

# In one process, which carries out the shared runs once.
pytestmark = pytest.mark.xdist_group("runs")

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAME = "recognition_by_rotation"


def stored(runs, model, seconds, **changes):
    """A finished run with a model, that was finished so many seconds after the epoch."""
    folder = store_run(runs, model, **changes)
    (folder / "model.keras").write_bytes(b"")
    os.utime(folder / "metrics.json", (seconds, seconds))
    return folder


def test_newest_suitable_run(tmp_path):
    for number, model in enumerate(["cnn_00", "cnn_01", "capsnet_dr"]):
        stored(tmp_path, model, 1000 + number)
    # Newer, but without its model.
    (stored(tmp_path, "cnn_02", 2000) / "model.keras").unlink()

    def newest(*models, runs=tmp_path, experiment="recognition_rotation"):
        run = notebooks.newest_run(experiment, models or None, runs=[runs])
        return run and run.metrics["model"]

    assert newest() == "capsnet_dr" and newest("cnn_00", "cnn_01") == "cnn_01"
    assert newest("cnn_02") is None and newest(runs=tmp_path / "nowhere") is None
    assert newest(experiment="generation_rotation") is None


def test_run_is_trained_where_there_is_none(whole, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(notebooks.RUNS, str(tmp_path))
    monkeypatch.setenv(notebooks.PROFILE, "smoke")
    monkeypatch.setenv(notebooks.DATASET, str(data))
    trained = []

    def execute(config, runs):
        trained.append(config)
        shutil.copytree(whole(NAME).path, config.folder(runs).path)

    monkeypatch.setattr("invariance.runs.execute.execute", execute)
    for number in (1, 2):
        run = notebooks.newest_or_trained(cases.EXPERIMENT, NAME)
        said = f"No finished run of cases was found. Training {NAME} now, profile smoke.\n" * (number == 1)
        assert capsys.readouterr().out == f"{said}Run: {run.folder.path}\n"
    [config] = trained
    assert (config.dataset, config.task) == (str(data), cases.CASES[NAME].task)
    model, given, classes = notebooks.loaded(run)
    assert classes == (0, 1, 2, 3, 4, 5, 7, 8) and model(given.x_test / 255.0).shape == (len(given.x_test), 8)


def test_notebooks_are_stored_without_outputs_and_short():
    assert [path.stem for path in NOTEBOOKS] == ["capsnet_reconstructions", "generation", "recognition"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert len(cells) <= 15
        for cell in cells:
            assert cell["cell_type"] == "markdown" or (not cell["outputs"] and cell["execution_count"] is None)


def outputs(path):
    """What an executed notebook shows: text, and the number of figures."""
    executed = json.loads(path.read_text(encoding="utf-8"))
    shown = [output for cell in executed["cells"] for output in cell.get("outputs", ())]
    text = "".join("".join(output.get("text", "")) for output in shown)
    return text, sum("image/png" in output.get("data", {}) for output in shown)


def test_executed_on_a_run(whole, tmp_path, capsys):
    folder = RunFolder.of(tmp_path, "recognition_rotation", "own", "smoke", "cnn_bn_01", 0)
    shutil.copytree(whole(NAME).path, folder.path)
    write_json(folder / "metrics.json", folder.json("metrics.json") | {"experiment": "recognition_rotation"})
    [path] = [path for path in NOTEBOOKS if path.stem == "recognition"]
    assert main(["notebooks", "--runs", str(tmp_path), str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: executed, see {tmp_path / 'notebooks' / path.name}\n"
    text, figures = outputs(tmp_path / "notebooks" / path.name)
    assert f"Run: {folder.path}\n" in text and "No finished run" not in text and figures == 3


@pytest.mark.slow
def test_all_executed_without_a_run(tmp_path):
    environment = os.environ | {notebooks.PROFILE: "smoke", notebooks.DATASET: "digits"}
    done = python("-m", "invariance", "notebooks", "--runs", tmp_path, *NOTEBOOKS, env=environment, timeout=None)
    assert (done.returncode, done.stderr) == (0, "")
    for path in NOTEBOOKS:
        text, figures = outputs(tmp_path / "notebooks" / path.name)
        # Two train their own; the last one finds the first one's.
        assert bool(re.search(r"No finished run of \w+ was found\. Training", text)) == (path.stem != "recognition")
        assert figures >= 3


EMPTY = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*EMPTY, "cell_type", "source", "worksheets", ""]), inner, max_size=4)
    ),
    max_leaves=8,
)
# A notebook with other values in some of its fields, or anything else.
NO_NOTEBOOKS = JSON.map(json.dumps) | st.dictionaries(st.sampled_from([*EMPTY]), JSON, min_size=1).map(
    lambda changes: json.dumps(EMPTY | changes)
)


@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(NO_NOTEBOOKS.map(str.encode) | st.binary(max_size=20))
@example(b"")
@example(b"[" * 100_000)
@example(json.dumps(EMPTY | {"nbformat": 3, "cells": 3}).encode())
@example(json.dumps(EMPTY | {"cells": [{"cell_type": "code"}]}).encode())
def test_any_file_is_a_notebook_or_one_line(content):
    executed, out, err = [], io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(notebooks, "_execute", lambda page, path: executed.append(path))
        path = Path(folder, "any.ipynb")
        path.write_bytes(content)
        code = main(["notebooks", "--runs", f"{folder}/runs", str(path)])
        assert Path(folder, "runs", "notebooks", "any.ipynb").exists() == bool(executed) == (code == 0)
    if code:
        assert code == 2
        assert_one_line(err.getvalue(), f"{path}: not a notebook (")


def test_no_result_replaces_another_or_a_notebook(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(notebooks, "_execute", lambda page, path: pytest.fail("executed"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "same.ipynb", EMPTY)
    first, second = (str(tmp_path / name / "same.ipynb") for name in ("a", "b"))
    refused(capsys, lambda: main(["notebooks", first, second]), f"{second}: its result would replace that of {first}")
    argv = ["notebooks", first, "--out", str(tmp_path / "a")]
    refused(capsys, lambda: main(argv), f"{first}: its result would replace it")
    # A mistake in the last is found before the first is executed.
    (tmp_path / "last.ipynb").write_text("{}")
    refused(capsys, lambda: main(["notebooks", first, str(tmp_path / "last.ipynb")]), "last.ipynb: not a notebook")
    refused(capsys, lambda: main(["notebooks", str(tmp_path)]), "no such file")


def test_kernel_that_is_not_installed(tmp_path, capsys, monkeypatch):
    import nbclient

    def missing(*_, **__):
        raise KeyError("No such kernel")

    monkeypatch.setattr(nbclient, "NotebookClient", missing)
    write_json(tmp_path / "a.ipynb", EMPTY)
    assert main(["notebooks", "--runs", str(tmp_path), str(tmp_path / "a.ipynb")]) == 1
    assert_one_line(capsys.readouterr().err, "a.ipynb: cannot be executed (KeyError: 'No such kernel')")


@pytest.mark.parametrize(
    "source, code, reason",
    [
        (b"\xff{", 2, "not a notebook (UnicodeDecodeError)"),
        ("1 / 0", 1, "a cell failed (ZeroDivisionError: division by zero)"),
        ("import os; os.write(2, b'no more memory'); os._exit(9)", 1, "the kernel died (no more memory)"),
    ],
)
def test_failure_is_one_line(tmp_path, capsys, source, code, reason):
    path = tmp_path / "wrong.ipynb"
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        write_json(path, {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    assert main(["notebooks", "--runs", str(tmp_path), str(path)]) == code
    assert_one_line(capsys.readouterr().err, f"{path}: {reason}\n")
    assert not (tmp_path / "notebooks").exists()
