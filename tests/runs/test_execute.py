"""Whole runs of every task: what they leave, resumed exactly, refused, not repeated."""

import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from invariance import datasets
from invariance.errors import Interrupted, ModelError, RunError, UserError
from invariance.files import read_csv, write_json
from invariance.models.capsnet import CapsNet
from invariance.progress import Progress
from invariance.ranges import Ranges
from invariance.runs import execute, pipeline
from invariance.runs.find import find
from invariance.runs.folder import CHECKPOINT, RunFolder
from invariance.tasks import Generation, Recognition
from invariance.tasks.task import Evaluation, Measured
from invariance.transforms import Rotation
from tests.helpers import REPOSITORY, stored_arrays
from tests.runs import cases
from tests.runs.cases import ALWAYS, CASES, VARYING

# In one process, which carries out the shared runs once.
pytestmark = pytest.mark.xdist_group("runs")

every_task = pytest.mark.parametrize(
    "name", ["recognition_by_rotation", "generation_by_rotation", "generation_by_shift"]
)
RECOGNITION, ROTATED, SHIFTED = "recognition_by_rotation", "generation_by_rotation", "generation_by_shift"


def names(folder):
    return {path.name for path in folder.path.iterdir()}


def contents(folder):
    """Name -> (time, bytes) of a folder's files, except for the lock."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.path.iterdir()
        if path.name != ".lock"
    }


def weights(folder):
    """The arrays in model.keras, weights and optimisers: name -> array."""
    return stored_arrays(folder / "model.keras")


@pytest.fixture
def copy(whole, tmp_path):
    """A finished run that a test may change: (the folder of all runs, its own folder)."""

    def copied(name=RECOGNITION):
        shutil.copytree(whole(name).path, folder_of(tmp_path / "runs", name).path)
        return tmp_path / "runs", folder_of(tmp_path / "runs", name)

    return copied


def folder_of(runs, name, seed=0):
    return RunFolder.of(runs, "cases", "own", "smoke", name, seed)


# What a run leaves


@pytest.mark.parametrize("name", CASES)
def test_files(whole, name):
    folder = whole(name)
    # The figures of one case are left out, because another has them all.
    files = {*ALWAYS, *CASES[name].files}
    assert names(folder) == {file for file in files if name != ROTATED or not file.endswith((".png", ".gif"))}
    assert all(path.stat().st_size for path in folder.path.iterdir())
    # The mark of completeness is the last file written; the checkpoint has been removed.
    times = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert max(times, key=times.get) == "metrics.json"
    finished, others = find(folder.path.parents[4])
    run = next(run for run in finished if run.folder == folder)
    assert run.task == CASES[name].task and not others


def test_files_without_restricted_classes(tmp_path, data):
    """At a single angle and without restricted classes there is less to draw."""
    task = Recognition(Rotation(), Ranges(((0, 0),)))
    given, classes = datasets.load(str(data)).of_task(task)

    def model(images):
        return {"scores": np.tile(np.eye(10)[0], (len(images), 1)), "reconstruction": images}

    with pytest.MonkeyPatch.context() as patch:
        cases.small_sheets(patch)
        measured = task.measure(model, given, classes, Evaluation(45, images_per_class=2))
        measured.save(tmp_path, "title")
    assert {path.name for path in tmp_path.iterdir()} == {
        "curves.csv", "predictions.csv", "reconstruction.csv", "reconstructions_in_range.png",
    }  # fmt: skip
    assert measured.metrics["chance"] == measured.metrics["p_test"] == 0.1
    for key in ("p_in", "p_out", "p_inv"):
        assert measured.metrics[key] is None and measured.metrics["images"][key] == 0
    curves = read_csv(tmp_path / "curves.csv")
    assert [(row["digit"], row["parameter"], row["images"]) for row in curves] == [(n, 0, 2) for n in range(10)]


@pytest.mark.parametrize("name", [RECOGNITION, SHIFTED, "reconstruction_by_rotation"])
def test_figures(whole, name):
    sheets = []
    for path in whole(name).path.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) >= 80, path
            # Not an empty sheet, except for those that `small_sheets` leaves empty.
            if np.asarray(picture.convert("L")).std() < 10:
                sheets.append(path.name)
    assert all(sheet.startswith(("training_images", "reconstructions_", "samples_")) for sheet in sheets)
    if name == SHIFTED:
        with Image.open(whole(name) / "round.gif") as film:
            # Every pixel of shift; frames that are equal to their neighbours may be joined.
            assert 1 < film.n_frames <= 60 and film.info["loop"] == 0
            # Two images, two pixels between them, and a bar of two, four times as large.
            assert film.size == (4 * (2 * 40 + 2), 4 * (40 + 2))


@every_task
def test_config(whole, data, name):
    config, case = whole(name).json("config.json"), CASES[name]
    assert (
        config["protocol"] == json.loads(json.dumps(case.task.to_json()))
        and config["protocol"]["kind"] == case.task.kind
    )
    described = execute.describe_model(case.model)
    assert config["model_arguments"] == json.loads(json.dumps(described)) and described["builder"] in (
        "CNN",
        "Autoencoder",
    )
    assert config["budget"]["steps"] == 12 and config["budget"]["grid_spacing"] == case.grid_spacing
    assert (config["seed"], config["precision"], config["data_source"]) == (0, "float32", str(data))
    selected, _ = datasets.load(str(data)).of_task(case.task)
    assert config["data_sha256"] == selected.sha256()
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in config["data_sha256"].values())
    assert config["versions"]["keras"].startswith("3.15") and config["versions"]["tensorflow"].startswith("2.21")
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert config["device"]
    if (REPOSITORY / ".git").exists() and shutil.which("git"):
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", config["commit"])


@pytest.mark.parametrize("name", CASES)
def test_history(whole, name):
    history = whole(name).csv("history.csv")
    assert [(row["step"], row["images"]) for row in history] == [(4, 32), (8, 64), (12, 96)]
    assert list(history[0]) == ["step", "images", "seconds", *CASES[name].logged]


@pytest.mark.parametrize("name", CASES)
def test_metrics_of_every_run(whole, name):
    metrics = whole(name).json("metrics.json")
    known = ("experiment", "model", "dataset", "profile", "seed", "precision")
    assert [metrics[key] for key in known] == ["cases", name, "own", "smoke", 0, "float32"]
    assert all(metrics[key] > 0 for key in (*VARYING, "parameters"))


@pytest.mark.parametrize("name", [RECOGNITION, "reconstruction_by_rotation"])
def test_metrics_of_recognition(whole, name):
    folder = whole(name)
    metrics, curves = folder.json("metrics.json"), folder.csv("curves.csv")
    assert metrics["chance"] == 1 / 8
    # Four images of each of eight classes.
    counts = {"p_test": 32, "p_in": 8, "p_out": 8, "p_inv": 8}
    assert {key: metrics["images"][key] for key in counts} == counts
    for key in ("p_test", "p_in", "p_out", "p_inv"):
        low, high = metrics["interval"][key]
        assert 0 <= low <= metrics[key] <= high <= 1
    assert list(curves[0]) == ["digit", "parameter", "value", "images"]
    angles = np.arange(-157.5, 180, 45)
    classes = (0, 1, 2, 3, 4, 5, 7, 8)
    assert [(row["digit"], row["parameter"]) for row in curves] == [(n, angle) for n in classes for angle in angles]
    # A cell of 45 degrees lies in P_in's range or outside, for all but P_inv's at 135 and 225 degrees.
    for key, inside in (("p_in", abs(angles) < 45), ("p_out", abs(angles) > 45), ("p_inv", abs(angles) > 135)):
        values = [row["value"] for row in curves if row["digit"] in (3, 4) and inside[angles == row["parameter"]][0]]
        assert metrics[key] == pytest.approx(np.mean(values), rel=1e-12)  # float64
    predictions = folder.csv("predictions.csv")
    for row in curves:
        same = [other for other in predictions if all(other[key] == row[key] for key in ("digit", "parameter"))]
        assert sum(other["images"] for other in same) == row["images"] == 4
        right = [other["images"] for other in same if other["predicted"] == row["digit"]]
        assert right == [round(row["value"] * row["images"])]
    if name != RECOGNITION:
        errors = metrics["reconstruction"]
        assert set(errors) == {"mse_test", "mse_in", "mse_out", "mse_inv"} and all(
            0 < each < 1 for each in errors.values()
        )
        rows = folder.csv("reconstruction.csv")
        assert list(rows[0]) == ["digit", "parameter", "value", "images"] and len(rows) == len(curves)
        inside = [row["value"] for row in rows if row["digit"] in (3, 4) and abs(row["parameter"]) < 45]
        assert len(inside) == 4 and errors["mse_in"] == pytest.approx(np.mean(inside), rel=1e-12)  # float64


@pytest.mark.parametrize(
    "name, points, unblurred, inside, outside",
    [
        # The middles of cells of 45 degrees, and the four angles at which nothing is blurred, which do not count.
        (ROTATED, sorted([*np.arange(-157.5, 180, 45), -180, -90, 0, 90]), [-180, -90, 0, 90],
         [-22.5, 22.5], [-157.5, -112.5, -67.5, 67.5, 112.5, 157.5]),
        # Restricted digits are shown at -2, ..., 1.
        (SHIFTED, list(range(-6, 6, 2)), [], [-2, 0], [-6, -4, 2, 4]),
    ],
)  # fmt: skip
def test_metrics_of_generation(whole, name, points, unblurred, inside, outside):
    folder = whole(name)
    metrics, curves = folder.json("metrics.json"), folder.csv("curves.csv")
    digits = [str(digit) for digit in range(10)]
    assert list(curves[0]) == ["digit", "parameter", "value", "images", "deviation"]
    assert [(row["digit"], row["parameter"]) for row in curves] == [(n, x) for n in range(10) for x in points]
    assert all(row["images"] == 4 and row["value"] > 0 and row["deviation"] > 0 for row in curves)
    assert metrics["images"] == dict.fromkeys(digits, 4)

    def averages(rows):
        return (np.mean([row["value"] for row in rows if row["parameter"] in of]) for of in (inside, outside))

    for key in ("mse_in", "mse_out", "ratio"):
        assert list(metrics[key]) == digits
    for digit in digits:
        low, high = averages([row for row in curves if row["digit"] == int(digit)])
        # Float64 sums in another order.
        assert metrics["mse_in"][digit] == pytest.approx(low, rel=1e-12)
        assert metrics["mse_out"][digit] == pytest.approx(high, rel=1e-12)
        assert metrics["ratio"][digit] == pytest.approx(high / low, rel=1e-12)
    assert list(metrics["unblurred"]) == [str(point) for point in unblurred]
    baselines = folder.csv("baselines.csv")
    assert list(baselines[0]) == ["baseline", "digit", "parameter", "value"] and len(baselines) == 3 * len(curves)
    assert set(metrics["baselines"]) == {"all black", "mean image of the digit", "input copied"}
    for name, means in metrics["baselines"].items():
        low, high = averages([row for row in baselines if (row["baseline"], row["digit"]) == (name, 4)])
        assert means["mse_in"]["4"] == pytest.approx(low, rel=1e-12)
        assert means["mse_out"]["4"] == pytest.approx(high, rel=1e-12)


def test_map(whole):
    rows, shifts = whole(SHIFTED).csv("map.csv"), range(-6, 6)
    assert list(rows[0]) == ["digit", "dy", "dx", "value"]
    assert [(row["digit"], row["dy"], row["dx"]) for row in rows] == [(4, dy, dx) for dy in shifts for dx in shifts]
    # The diagonal is the curve of digit 4, of which both take the same 4 images.
    diagonal = [row["value"] for row in rows if row["dy"] == row["dx"] and row["dy"] % 2 == 0]
    curve = [row["value"] for row in whole(SHIFTED).csv("curves.csv") if row["digit"] == 4]
    # Float32 means of 4 numbers.
    np.testing.assert_allclose(diagonal, curve, rtol=1e-6)


def test_redraws(whole, data, tmp_path):
    drawn = whole(RECOGNITION).json("metrics.json")["redraws"]
    assert all(drawn[key]["redraws"] == 2 for key in ("p_test", "p_in", "p_out", "p_inv"))
    with pytest.raises(UserError, match="--redraws: only recognition"):
        cases.run(cases.config(SHIFTED, data), tmp_path, redraws=2)
    assert names(folder_of(tmp_path, SHIFTED)) == {".lock"}


# Interrupted


def stop(name, data, runs, step, action, error):
    """A run that ends with an error after some steps."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
        patch.setattr(pipeline, "batches", cases.stopping_after(step, action))
        cases.run(cases.config(name, data), runs)


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def crash():
    raise ZeroDivisionError("stands for whatever ends a process without asking")


def assert_equally_trained(folder, other):
    mine, theirs = weights(folder), weights(other)
    # Weights, moving averages, moments, iterations.
    assert mine.keys() == theirs.keys() and len(mine) > 20
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    histories = [[{**row, "seconds": 0} for row in each.csv("history.csv")] for each in (folder, other)]
    assert histories[0] == histories[1]
    seconds = [row["seconds"] for row in folder.csv("history.csv")]
    assert seconds == sorted(seconds)


def assert_equally_measured(folder, other):
    for name in ("curves.csv", "predictions.csv", "baselines.csv", "map.csv"):
        assert (folder / name).exists() == (other / name).exists()
        if (folder / name).exists():
            assert (folder / name).read_bytes() == (other / name).read_bytes()
    metrics = [
        {key: value for key, value in each.json("metrics.json").items() if key not in VARYING}
        for each in (folder, other)
    ]
    assert metrics[0] == metrics[1]
    assert folder.json("config.json")["data_sha256"] == other.json("config.json")["data_sha256"]


class NotMeasured(Measured):
    metrics, tables = {}, {}
    summary = figures = lambda *_: ""


@pytest.mark.parametrize(
    "name, step, action, error, kept",
    [
        (ROTATED, 6, crash, ZeroDivisionError, 4),
        (SHIFTED, 1, ask_to_stop, Interrupted, 2),
    ],
)
def test_interrupted_run_ends_as_if_it_had_not_been(
    whole, data, tmp_path, monkeypatch, name, step, action, error, kept
):
    """(Recognition is interrupted in `test_interruptions`.)"""
    stop(name, data, tmp_path, step, action, error)
    folder = folder_of(tmp_path, name)
    assert names(folder) == {".lock", "config.json", "history.csv", CHECKPOINT}
    with np.load(folder / CHECKPOINT) as archive:
        assert json.loads(str(archive["progress"]))["step"] == kept
    if name == ROTATED:
        # One evaluation, which takes as long as the training, is enough.
        monkeypatch.setattr(Generation, "measure", lambda *_: NotMeasured())
    cases.run(cases.config(name, data), tmp_path)
    assert_equally_trained(folder, whole(name))
    if name == SHIFTED:
        assert_equally_measured(folder, whole(name))
    else:
        # The states of three optimisers.
        arrays = weights(folder)
        for optimizer, count in (("optimizer", 12), ("critic_optimizer", 12), ("encoder_optimizer", 12)):
            states = [array for key, array in arrays.items() if key.startswith(f"{optimizer}/")]
            assert len(states) > 6 and [int(state) for state in states if state.dtype.kind in "iu"] == [count]


def test_killed_at_the_very_end(copy, data):
    """Behind metrics.json, before the checkpoint was removed."""
    runs, folder = copy()
    (folder / CHECKPOINT).write_bytes(b"")
    cases.run(cases.config(RECOGNITION, data), runs)
    assert not (folder / CHECKPOINT).exists() and folder.done


def test_run_in_use_by_another_process(copy, data, monkeypatch):
    runs, folder = copy()
    monkeypatch.setattr(RunFolder.locked.__wrapped__, "__defaults__", (0.0,))
    with folder.locked(), pytest.raises(RunError, match=f"{folder.path} is in use by process {os.getpid()}$"):
        cases.run(cases.config(RECOGNITION, data), runs)


def test_resuming_with_another_program_is_recorded(tmp_path, monkeypatch, capsys):
    folder = RunFolder(tmp_path)
    first, second = {"device": "a", "commit": "1"}, {"device": "b", "commit": "1"}
    config = {"protocol": {}, "model": "x", **first}
    write_json(folder / "config.json", config)
    for here in (first, second, second, first):
        monkeypatch.setattr(execute, "provenance", lambda here=here: here)
        execute._record_provenance(folder, Progress("x"))
    assert folder.json("config.json") == {**config, "resumed": [second, first]}
    assert capsys.readouterr().out == "x: resumed with another device; see config.json\n" * 2


# A run that exists


def test_finished_run_is_not_repeated(copy, data, capsys):
    runs, folder = copy()
    metrics = folder.json("metrics.json")
    del metrics["redraws"]
    write_json(folder / "metrics.json", metrics)
    before = contents(folder)
    execute.execute(cases.config(RECOGNITION, data), runs, execute.Options(redraws=2))
    assert contents(folder) == before
    out = capsys.readouterr().out
    assert f"already finished, see {folder.path} (--overwrite starts it again)\n" in out
    assert f"Redraws: python -m invariance evaluate {folder.path} --redraws 2\n" in out


@pytest.mark.parametrize("finished", [True, False])
def test_results_without_config_are_refused(copy, data, finished):
    """They are neither taken for this run's, nor is their checkpoint resumed."""
    runs, folder = copy()
    (folder / "config.json").unlink()
    if not finished:
        (folder / "metrics.json").rename(folder / CHECKPOINT)
    before = contents(folder)
    with pytest.raises(UserError, match=r"without config\.json.*--overwrite"):
        cases.run(cases.config(RECOGNITION, data), runs)
    assert contents(folder) == before


@every_task
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused(copy, data, name, finished):
    runs, folder = copy(name)
    if not finished:
        (folder / "metrics.json").unlink()
    before = contents(folder)
    entry = CASES[name].entry.with_budgets(steps=11)
    with pytest.raises(UserError, match=r"budget\.steps: 12 there, 11 wanted.*--overwrite.*--runs"):
        cases.run(cases.config(name, data, entry=entry), runs)
    assert contents(folder) == before


@pytest.fixture
def changed(data, tmp_path):
    """A file of the same name in which one pixel of a training image differs."""
    with np.load(data) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    # Of a class that the task keeps.
    arrays["x_train"][np.flatnonzero(~np.isin(arrays["y_train"], (6, 9)))[0], 0, 0] ^= 1
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "own.npz", **arrays)
    return tmp_path / "other" / "own.npz"


@pytest.mark.parametrize("finished", [True, False])
def test_other_data_are_refused(copy, changed, finished):
    runs, folder = copy()
    if not finished:
        (folder / "metrics.json").unlink()
    before = contents(folder)
    with pytest.raises(UserError, match=r"data_sha256\.x_train.*--overwrite"):
        cases.run(cases.config(RECOGNITION, changed), runs)
    assert contents(folder) == before


def test_data_without_a_restricted_class_are_refused(copy, data, tmp_path):
    """Also for a finished run."""
    runs, _ = copy()
    with np.load(data) as archive:
        few = {name: archive[f"y_{name}"] < 3 for name in ("train", "test")}
        arrays = {name: archive[name][few[name[2:]]] for name in archive.files}
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "own.npz", **arrays)
    with pytest.raises(UserError, match=r"restricted classes \[3, 4\]"):
        cases.run(cases.config(RECOGNITION, tmp_path / "other" / "own.npz"), runs)


def untrained(patch):
    """Makes runs end before their first step; returns the weights and seeds that they would have begun with."""
    seen = []

    def train(model, prepare, images, labels, budget, seed, *others, **options):
        seen.append(([np.asarray(weight) for weight in model.weights], seed))
        raise ZeroDivisionError

    patch.setattr("invariance.runs.training.train", train)
    return seen


def test_overwrite_starts_from_scratch(copy, changed, monkeypatch):
    runs, folder = copy()
    before = folder.json("config.json")
    untrained(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        cases.run(cases.config(RECOGNITION, changed), runs, overwrite=True)
    assert names(folder) == {".lock", "config.json"}
    now = folder.json("config.json")
    assert now["data_sha256"]["x_train"] != before["data_sha256"]["x_train"]
    assert now["data_sha256"]["x_test"] == before["data_sha256"]["x_test"]


def test_records_are_kept_and_do_not_determine_a_run(data, tmp_path, monkeypatch):
    untrained(monkeypatch)
    config = replace(cases.config(RECOGNITION, data), record={"sweep": {"varied": "steps"}})
    with pytest.raises(ZeroDivisionError):
        cases.run(config, tmp_path)
    folder = folder_of(tmp_path, RECOGNITION)
    assert folder.json("config.json")["sweep"] == {"varied": "steps"} and "sweep" not in config.to_json()
    # The same run, also for others.
    execute.check_unchanged(folder, cases.config(RECOGNITION, data))


def test_seeds_differ(data, tmp_path, monkeypatch):
    began = untrained(monkeypatch)
    for number, seed in enumerate((0, 1, 1)):
        with pytest.raises(ZeroDivisionError):
            cases.run(cases.config(RECOGNITION, data, seed=seed), tmp_path / str(number))
        assert folder_of(tmp_path / str(number), RECOGNITION, seed).json("config.json")["seed"] == seed
    (zero, _), (one, _), (again, _) = began
    assert [seed for _, seed in began] == [0, 1, 1]
    assert not np.array_equal(zero[0], one[0])
    for each, other in zip(one, again, strict=True):
        np.testing.assert_array_equal(each, other)


# Refused before anything is trained


@pytest.mark.parametrize("name, spacing", [(RECOGNITION, 7), (ROTATED, 7), (SHIFTED, 1.5), (SHIFTED, 8)])
def test_grid_on_which_the_task_cannot_be_measured(data, name, spacing):
    """45 degrees are no multiple of 7, there are no half pixels, and -6, 2 are not both in range and out of range."""
    entry = CASES[name].entry.with_budgets(grid_spacing=spacing)
    with pytest.raises(ValueError, match=r"[Gg]rid|spacing"):
        cases.config(name, data, entry=entry)


def wide(name):
    """A builder whose outputs have another shape than the task's."""

    def build(shape, size, *others):
        size = size + 2 if name == RECOGNITION else (*size[:2], 3)
        return CASES[name].model(shape, size, *others)

    return build


@pytest.mark.parametrize(
    "name, builder, expected",
    [
        (
            RECOGNITION,
            wide(RECOGNITION),
            r"the model returns \(2, 10\) for 2 images, but one score for each of 8 classes",
        ),
        (ROTATED, wide(ROTATED), r"the model draws images \(28, 28, 3\), but images \(28, 28, 1\) are needed"),
        (SHIFTED, wide(SHIFTED), r"the model draws images \(40, 40, 3\), but images \(40, 40, 1\) are needed"),
        (RECOGNITION, len, r"the builder is called with \(\(28, 28, 1\), 8, learning rate\): too many positional"),
        (SHIFTED, CASES[RECOGNITION].model, "the builder is called with .*too many positional"),
        (RECOGNITION, CapsNet(kernel=15), "need images of at least 29 x 29"),
    ],
)
def test_model_that_does_not_fit_is_not_trained(data, tmp_path, name, builder, expected):
    config = cases.config(name, data, entry=replace(CASES[name].entry, model=builder))
    with pytest.raises(ModelError, match=rf"^{name} on .*own\.npz: .*{expected}"):
        cases.run(config, tmp_path)
    # A later, right command must not be told of other settings.
    assert names(config.folder(tmp_path)) == {".lock"}


@pytest.mark.parametrize(
    "error", [MemoryError("too much"), type("ResourceExhaustedError", (Exception,), {})("OOM\nmore")]
)
def test_out_of_memory_is_one_line(data, tmp_path, monkeypatch, error):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(execute, "_execute", exhausted)
    with pytest.raises(RunError, match=rf"^{RECOGNITION} on .*: out of memory \((too much|OOM)\)$"):
        cases.run(cases.config(RECOGNITION, data), tmp_path)
