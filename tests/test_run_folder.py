"""Whole runs through the real command line: the files of a run, interruptions of every kind, refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from invariance.results import RunFolder, find, read_csv

from invariance import datasets

REPOSITORY = Path(__file__).resolve().parents[1]
# The smallest model with dropout and batch norm.
MODEL = "cnn_bn_01"
# A run takes some 15 s on two idle cores; a machine that does other things as well may need far more.
PATIENCE = 300
VARYING = ("train_seconds", "evaluate_seconds", "train_images_per_second", "peak_memory_mb")


def start(data, runs, *options, model=MODEL):
    """Starts a smoke run in a session of its own, so that parent and child can be signalled together."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.recognition_rotation", "--profile", "smoke", "--models", model,
         "--dataset", str(data), "--runs", str(runs), *options],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process):
    """(exit code, stdout, stderr) of a process; nothing of its session outlives a failure."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def run(*arguments, **options):
    return finish(start(*arguments, **options))


def refused(result, code, *expected):
    assert result[0] == code, result
    assert result[2].startswith("error: ") and result[2].count("\n") == 1, result[2]
    for text in expected:
        assert text in result[2]


def folder_of(runs, data="own", model=MODEL):
    return RunFolder.of(runs, "recognition_rotation", data, "smoke", model, 0)


def contents(folder):
    """Name -> (time, bytes) of a folder's files."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.path.iterdir()}


def weights(folder):
    """The weights in model.keras, name -> array, without importing Keras."""
    import io
    import zipfile

    import h5py

    found = {}
    with (
        zipfile.ZipFile(folder / "model.keras") as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Some of the embedded digits as a user's own file."""
    path = tmp_path_factory.mktemp("data") / "own.npz"
    digits = datasets.load("digits")
    np.savez(path, x_train=digits.x_train[:600], y_train=digits.y_train[:600],
             x_test=digits.x_test[:200], y_test=digits.y_test[:200])  # fmt: skip
    return path


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """A run that was never interrupted: (its folder, what it printed)."""
    runs = tmp_path_factory.mktemp("whole")
    code, out, err = run(data, runs)
    assert (code, err) == (0, "")
    return folder_of(runs), out


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished run that a test may change: (runs, folder)."""
    shutil.copytree(whole[0].path.parents[4], tmp_path / "runs")
    return tmp_path / "runs", folder_of(tmp_path / "runs")


# What a run leaves


def test_files(whole):
    folder, _ = whole
    assert {path.name for path in folder.path.iterdir()} == {
        ".lock", "config.json", "history.csv", "curves.csv", "predictions.csv", "metrics.json", "model.keras",
        "accuracy_by_angle.png", "taken_for.png", "training.png", "training_images.png",
    }  # fmt: skip
    assert all(path.stat().st_size for path in folder.path.iterdir())
    # The mark of completeness is the last file written.
    times = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert max(times, key=times.get) == "metrics.json"
    finished, others = find(folder.path.parents[4])
    assert [found.folder for found in finished] == [folder] and not others


def test_metrics(whole):
    folder, _ = whole
    metrics = folder.json("metrics.json")
    names = ("experiment", "model", "dataset", "profile", "seed")
    assert [metrics[name] for name in names] == ["recognition_rotation", MODEL, "own", "smoke", 0]
    assert metrics["chance"] == 1 / 8
    for name in ("p_test", "p_in", "p_out", "p_inv"):
        assert 0 <= metrics[name] <= 1
        low, high = metrics["interval"][name]
        assert low <= metrics[name] <= high
    assert all(metrics[name] > 0 for name in VARYING)
    # SMOKE takes 8 images of each class: 8 classes, and 3 and 4 for the others.
    assert metrics["images"] == {"p_test": 64, "p_in": 16, "p_out": 16, "p_inv": 16}


def test_config(whole, data):
    folder, _ = whole
    config = folder.json("config.json")
    assert config["data_source"] == str(data)
    selected = datasets.load(str(data)).select([0, 1, 2, 3, 4, 5, 7, 8])
    assert config["data_sha256"] == selected.sha256()
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in config["data_sha256"].values())
    assert config["versions"]["keras"].startswith("3.15") and config["versions"]["tensorflow"].startswith("2.21")
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert config["device"]
    if (REPOSITORY / ".git").exists() and shutil.which("git"):
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", config["commit"])
    assert {"protocol", "model_arguments", "budget", "seed", "precision"} <= config.keys()


def test_tables_of_numbers(whole):
    folder, _ = whole
    history = folder.csv("history.csv")
    assert [(row["step"], row["images"]) for row in history] == [(step, 32 * step) for step in range(4, 25, 4)]
    assert list(history[0]) == ["step", "images", "seconds", "loss", "accuracy"]
    curves = folder.csv("curves.csv")
    assert list(curves[0]) == ["digit", "parameter", "value", "images"]
    assert len(curves) == 8 * 8  # classes and angles
    predictions = folder.csv("predictions.csv")
    for row in curves:
        same = [other for other in predictions if all(other[key] == row[key] for key in ("digit", "parameter"))]
        assert sum(other["images"] for other in same) == row["images"] == 8
        right = [other["images"] for other in same if other["predicted"] == row["digit"]]
        assert right == [round(row["value"] * row["images"])]


def test_pictures(whole):
    for path in whole[0].path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_what_is_printed(whole):
    folder, out = whole
    lines = out.splitlines()
    assert lines[0].startswith("Recognition under rotation")
    assert sum(line.startswith(f"{MODEL} seed 0  epoch ") for line in lines) == 6
    assert "\r" not in out
    p_test = folder.json("metrics.json")["p_test"]
    assert any(line.startswith(MODEL) and f"{p_test:.4f}"[1:] in line and "trained" not in line for line in lines)
    # Two epochs do not teach every class; which are left out depends on the machine's rounding.
    rows = folder.csv("predictions.csv")
    answered = {row["predicted"] for row in rows if row["images"]}
    left_out = [label for label in dict.fromkeys(row["predicted"] for row in rows) if label not in answered]
    never = " or ".join(f"{label:.0f}" for label in left_out)
    (summary,) = (line for line in lines if line.startswith(f"{MODEL} seed 0: "))
    p_inv = folder.json("metrics.json")["p_inv"]
    assert f"p_inv {p_inv:.4f}{never and f', never answers {never}'}  (trained" in summary
    assert (folder.path.parents[1] / "table.md").is_file()


def test_model_loads_in_a_fresh_process(whole, data):
    code = """
import sys
import invariance
import keras
import numpy as np
model = keras.saving.load_model(sys.argv[1])
with np.load(sys.argv[2]) as archive:
    images = archive["x_test"].astype("float32") / 255.0
probabilities = model.predict(images, verbose=0)
assert probabilities.shape == (200, 8), probabilities.shape
# Eight float32 terms of at most one: rounding stays below 1e-6.
assert np.allclose(probabilities.sum(-1), 1.0, atol=1e-6)
assert (probabilities >= 0).all()
"""
    result = subprocess.run(
        [sys.executable, "-c", code, whole[0] / "model.keras", data],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_evaluate_again_finds_the_same(whole, tmp_path):
    """On the run's own grid, but on all test images; and the run's files stay as they are."""
    folder, _ = whole
    before, file = contents(folder), tmp_path / "again.json"
    options = ["--grid-spacing", "45", "--redraws", "2", "--upright-last", "3", "--json", file]
    result = subprocess.run(
        [sys.executable, "-m", "invariance", "evaluate", folder.path, *options],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    written, config = json.loads(file.read_text()), folder.json("config.json")
    assert written["run"] == {key: config[key] for key in ("experiment", "model", "profile", "seed", "commit")}
    assert (written["grid_spacing"], written["upright_last"], written["dataset"]) == (45, 3, "own")
    assert written["versions"] == config["versions"]
    for line in result.stdout.splitlines()[1:]:
        metric = line.split()[0]
        assert f"grid {written['grid'][metric]:.4f} " in line
        assert f"2 redraws: mean {written['redraws'][metric]['mean']:.4f}, " in line
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{MODEL} on own, angles every 45 degrees, ")
    assert [line.split()[0] for line in lines[1:]] == ["p_test", "p_in", "p_out", "p_inv"]
    assert all("2 redraws: mean " in line for line in lines[1:])
    assert contents(folder) == before


def test_evaluating_a_damaged_network_is_refused(copy):
    _, folder = copy
    whole = (folder / "model.keras").read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:1000] + bytes(200) + whole[1200:]):
        (folder / "model.keras").write_bytes(damaged)
        result = subprocess.run(
            [sys.executable, "-m", "invariance", "evaluate", folder.path, "--grid-spacing", "45"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        refused((result.returncode, result.stdout, result.stderr), 2, "model.keras: cannot be loaded (")


def test_own_model_with_too_many_outputs_is_not_trained(tmp_path):
    """README's model of one's own, with a mistake."""
    from invariance.protocol import Entry
    from invariance.running import RunConfig, execute

    from experiments.recognition_rotation import EXPERIMENT
    from invariance.errors import ModelError

    entry = EXPERIMENT.models["cnn_00"]
    wide = Entry(lambda shape, classes, rate: entry.model(shape, classes + 2, rate), entry.budgets)
    config = RunConfig("mine", "smoke", "wide", wide, EXPERIMENT.protocol, "digits")
    with pytest.raises(ModelError, match=r"^wide on digits: the model returns \(None, 10\), but 8 scores an image"):
        execute(config, tmp_path, quiet=True)
    assert not (config.folder(tmp_path) / "history.csv").exists()


# Interruptions


def until_an_epoch(process):
    """Waits for the next line of an epoch, behind which a checkpoint was written; False if there is none any more."""
    return any("  epoch " in line for line in process.stdout)


def interrupted(data, runs):
    """One run, stopped in three ways, one after the other, and finished by the fourth command.

    Returns:
        name -> what is known of each part, or None if the run was too quick for the signals.
    """
    folder, parts = folder_of(runs), {}
    for name in ("SIGKILL", "SIGINT", "parent killed"):
        process = start(data, runs)
        if not until_an_epoch(process):
            finish(process)
            return None
        if name == "parent killed":
            process.kill()
        else:
            # Both processes: as the power goes off, and as a terminal's Ctrl-C.
            os.killpg(process.pid, getattr(signal, name))
        # The pipes are closed when the child has gone, too.
        code, _, err = finish(process)
        if folder.done:
            return None
        parts[name] = {
            "code": code,
            "err": err,
            "files": {path.name for path in folder.path.iterdir()},
            "step": folder.csv("history.csv")[-1]["step"],
        }
    # In the middle of the last part, which is held up for that, another process wants the same folder.
    before = (folder / ".lock").read_text()
    process = start(data, runs)
    while (folder / ".lock").read_text() in ("", before) and process.poll() is None:
        time.sleep(0.05)
    other = start(data, runs)
    first = process.stdout.readline()
    if not until_an_epoch(process):
        finish(process), finish(other)
        return None
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        parts["second process"] = finish(other)
        if folder.done:
            return None
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        code, out, err = finish(process)
    parts["last"] = {"code": code, "out": first + out, "err": err}
    return parts


@pytest.fixture(scope="session")
def stopped(data, whole, tmp_path_factory):
    """The parts of an interrupted run and its folder."""
    for _ in range(3):
        runs = tmp_path_factory.mktemp("stopped")
        parts = interrupted(data, runs)
        if parts:
            return parts, folder_of(runs)
    pytest.fail("three times the run was finished before it could be interrupted")


def test_sigkill_leaves_a_checkpoint(stopped):
    part = stopped[0]["SIGKILL"]
    assert part["code"] == -signal.SIGKILL
    assert "checkpoint.npz" in part["files"] and "metrics.json" not in part["files"]


def test_ctrl_c_says_how_to_go_on(stopped):
    part = stopped[0]["SIGINT"]
    assert part["code"] == 130
    text = r"error: SIGINT at step \d+ of 24; saved\. Repeat the command to go on\n"
    assert re.fullmatch(text, part["err"]), part["err"]
    assert "checkpoint.npz" in part["files"] and "metrics.json" not in part["files"]


def test_end_of_the_parent_stops_the_child(stopped):
    part = stopped[0]["parent killed"]
    assert part["code"] == -signal.SIGKILL
    assert "checkpoint.npz" in part["files"] and "metrics.json" not in part["files"]
    # The child has ended, or its pipes would not have been closed; it has not trained to the end.
    assert part["step"] < 24


def test_second_process_is_refused(stopped):
    refused(stopped[0]["second process"], 1, f"the run folder {stopped[1].path} is in use by process ")


def test_interrupted_run_ends_as_if_it_had_not_been(stopped, whole):
    parts, folder = stopped
    assert (parts["last"]["code"], parts["last"]["err"]) == (0, "")
    assert {path.name for path in folder.path.iterdir()} == {path.name for path in whole[0].path.iterdir()}
    mine, theirs = weights(folder), weights(whole[0])
    assert mine.keys() == theirs.keys() and len(mine) > 20  # weights, moving averages, moments, iteration
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)

    def rows(path):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in read_csv(path)]

    assert rows(folder / "history.csv") == rows(whole[0] / "history.csv")
    seconds = [row["seconds"] for row in read_csv(folder / "history.csv")]
    assert seconds == sorted(seconds)
    for name in ("curves.csv", "predictions.csv"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes()
    metrics = [
        {key: value for key, value in run.json("metrics.json").items() if key not in VARYING}
        for run in (folder, whole[0])
    ]
    assert metrics[0] == metrics[1]
    assert folder.json("config.json")["data_sha256"] == whole[0].json("config.json")["data_sha256"]


# A run that is there already


def test_finished_run_is_not_run_again(copy, data):
    runs, folder = copy
    before = contents(folder)
    code, out, err = run(data, runs)
    assert (code, err) == (0, "")
    assert f"finished before, see {folder.path} (--overwrite runs it anew)" in out
    after = contents(folder)
    # Only the lock is taken.
    assert {name: value for name, value in before.items() if name != ".lock"} == {
        name: value for name, value in after.items() if name != ".lock"
    }


def test_redraws_of_a_finished_run_are_another_command(copy, data):
    runs, folder = copy
    code, out, err = run(data, runs, "--redraws", "2")
    assert (code, err) == (0, "")
    assert f"Redraws: python -m invariance evaluate {folder.path} --redraws 2\n" in out


@pytest.mark.parametrize("done", [True, False])
def test_results_of_nobody_knows_what_are_refused(copy, data, done):
    """Neither are they taken for those of this run, nor is a checkpoint gone on from."""
    runs, folder = copy
    (folder / "config.json").unlink()
    if not done:
        (folder / "metrics.json").rename(folder / "checkpoint.npz")
    before = contents(folder)
    refused(run(data, runs), 2, "without config.json", "--overwrite")
    assert {name for name in contents(folder) if name != ".lock"} == {name for name in before if name != ".lock"}


def test_further_seeds_beside_a_finished_run(copy, data):
    runs, folder = copy
    before = (folder / "metrics.json").read_bytes()
    code, out, err = run(data, runs, "--seed", "0-1")
    assert (code, err) == (0, "")
    assert " · seeds 0, 1 · " in out and "finished before" in out and "2 seeds" in out
    assert (folder / "metrics.json").read_bytes() == before
    other = RunFolder.of(runs, "recognition_rotation", "own", "smoke", MODEL, 1)
    assert other.json("metrics.json")["seed"] == other.json("config.json")["seed"] == 1
    one, two = weights(folder), weights(other)
    assert one.keys() == two.keys() and any(not np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("done", [True, False])
def test_other_settings_are_refused(copy, data, done):
    runs, folder = copy
    if not done:
        (folder / "metrics.json").unlink()
    before = contents(folder)
    # The second model's folder is there; the first has not been run, and is not begun.
    models = ("--models", f"cnn_00,{MODEL}")
    refused(run(data, runs, *models, "--grid", "90"), 2, "budget.grid_spacing", "--overwrite", "--runs")
    assert not folder_of(runs, model="cnn_00").path.exists()
    after = contents(folder)
    assert {name: value for name, value in before.items() if name != ".lock"} == {
        name: value for name, value in after.items() if name != ".lock"
    }


def changed(data, tmp_path):
    """Another file of the same name: one pixel differs."""
    with np.load(data) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    arrays["x_train"][0, 0, 0] ^= 1
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "own.npz", **arrays)
    return tmp_path / "other" / "own.npz"


def test_other_data_are_refused_and_overwrite_runs_anew(copy, data, tmp_path):
    runs, folder = copy
    (folder / "metrics.json").unlink()
    before = contents(folder)
    other = changed(data, tmp_path)
    assert datasets.load(str(data)).y_train[0] not in (6, 9)  # or the changed image would not be used
    refused(run(other, runs), 2, "data_sha256.x_train", "--overwrite")
    after = contents(folder)
    assert {name: value[1] for name, value in before.items() if name != ".lock"} == {
        name: value[1] for name, value in after.items() if name != ".lock"
    }
    config = folder.json("config.json")
    process = start(other, runs, "--overwrite")
    try:
        assert until_an_epoch(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    assert not (folder / "model.keras").exists() and folder.csv("history.csv")[0]["step"] == 4
    anew = folder.json("config.json")
    assert anew["data_sha256"]["x_train"] != config["data_sha256"]["x_train"]
    assert anew["data_sha256"]["x_test"] == config["data_sha256"]["x_test"]


def test_other_data_are_refused_for_a_finished_run(copy, data, tmp_path):
    runs, _ = copy
    refused(run(changed(data, tmp_path), runs), 2, "data_sha256.x_train", "--overwrite")


def test_data_without_a_restricted_class_are_refused_for_a_finished_run(copy, data, tmp_path):
    runs, _ = copy
    with np.load(data) as archive:
        few = archive["y_train"] < 3, archive["y_test"] < 3
        arrays = {name: archive[name][few[name.endswith("test")]] for name in archive.files}
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "own.npz", **arrays)
    refused(run(tmp_path / "other" / "own.npz", runs), 2, "[3, 4]")


# Real data


@pytest.mark.mnist
def test_mnist(mnist_folder, tmp_path):
    code, out, err = run("mnist", tmp_path, model="cnn_00")
    assert (code, err) == (0, "")
    folder = folder_of(tmp_path, "mnist", "cnn_00")
    config = folder.json("config.json")
    assert str(mnist_folder) in config["data_source"]
    metrics = folder.json("metrics.json")
    # cnn_00 on 28 x 28 pixels: 4*4*64 + 64, 4*4*64*128 + 128, 7*7*128*1024 + 1024, 1024*8 + 8 weights.
    assert metrics["parameters"] == 1088 + 131_200 + 6_423_552 + 8200
    assert "NOT MNIST" not in out and re.search(r"^ +published +\.9887 ", out, re.MULTILINE)
    # 24 steps teach little, but more than nothing: chance is .125, and 64 images give it a deviation of .04.
    assert metrics["p_test"] > 0.25
