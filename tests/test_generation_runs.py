"""Whole runs of generation: what they leave, resumed after SIGKILL, --set and --grid, evaluated again, their tables."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invariance.results import RunFolder, find
from PIL import Image
from test_run_folder import weights

from experiments import generation_rotation, generation_shift, published
from invariance import cli, figures, generation, pictures, report, results, running
from invariance.errors import ModelError, UserError
from invariance.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[1]
ROTATION, SHIFT = generation_rotation.EXPERIMENT, generation_shift.EXPERIMENT
# A run takes some 15 s on two idle cores; a busy machine may need far more.
PATIENCE = 300
VARYING = ("train_seconds", "evaluate_seconds", "train_images_per_second", "peak_memory_mb")

FILES = {
    ".lock", "config.json", "history.csv", "curves.csv", "baselines.csv", "metrics.json", "model.keras",
    "training.png", "training_images.png", "error_by_parameter.png", "pairs.png", "round.gif",
    "samples_prior.png", "samples_codes.png",
}  # fmt: skip


def python(*argv):
    return subprocess.run(
        [sys.executable, *map(str, argv)], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")},
    )  # fmt: skip


# Two updates of the critic instead of five, because each is traced; and so a run whose model was changed by --set.
SET = "critic_updates=2"
ADVERSARIAL = f"aae_rotation+{SET}"


def config_of(experiment, model):
    name, plus, text = model.partition("+")
    entries = {name: experiment.models[name]}
    entry = (cli._with_arguments(entries, text) if plus else entries)[model]
    return running.RunConfig(experiment.name, "smoke", model, entry, entry.protocol or experiment.protocol, "digits")


def execute(config, runs, drawn=True):
    """A run in this process; without its pictures, which take longest, where nobody looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            for name in ("training", "generation", "shift_map"):
                patch.setattr(pictures, name, lambda *_: None)
        running.execute(config, runs, quiet=True)
    return config.folder(runs)


@contextlib.contextmanager
def few_samples():
    """Two rows of the decoder's samples instead of six, because each of their small axes takes as long as a digit."""
    with pytest.MonkeyPatch.context() as patch:
        sheet = figures.samples
        patch.setattr(figures, "samples", lambda drawn, *others: sheet(drawn[:2], *others))
        yield


# Stopped by SIGKILL behind step 7 of 12: the checkpoint is that of step 4.
KILLED = """
import os, signal, sys
from test_generation_runs import ADVERSARIAL, ROTATION, config_of
from test_training import stopping_after
from invariance import pipeline, running
pipeline.batches = stopping_after(7, lambda: os.kill(os.getpid(), signal.SIGKILL))
running.execute(config_of(ROTATION, ADVERSARIAL), sys.argv[1], quiet=True)
"""


def in_this_process(patch):
    """Commands run here, not in processes of their own, which take as long to start."""
    patch.setattr(cli, "in_child", lambda action: action())
    patch.setattr(cli, "in_children", lambda actions, jobs: ((n, None, act()) for n, act in enumerate(actions)))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The adversarial model, killed and then finished by a command: (folder, what was there, what was printed)."""
    runs = tmp_path_factory.mktemp("resumed")
    killed = python("-c", KILLED, runs)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = config_of(ROTATION, ADVERSARIAL).folder(runs)
    left = {path.name for path in folder.path.iterdir()}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out, few_samples():
        in_this_process(patch)
        patch.setattr(os, "getpid", os.getppid)  # this process is not its own parent
        argv = ["--models", "aae_rotation", "--set", SET, "--profile", "smoke", "--dataset", "digits"]
        argv += ["--runs", str(runs)]
        assert cli.run_experiment(ROTATION, argv) == 0
    return folder, left, out.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run, never interrupted."""
    return execute(config_of(ROTATION, ADVERSARIAL), tmp_path_factory.mktemp("whole"), drawn=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return execute(config_of(ROTATION, "ae_rotation"), tmp_path_factory.mktemp("plain"), drawn=False)


@pytest.fixture(scope="module")
def shift(tmp_path_factory):
    with few_samples():
        return execute(config_of(SHIFT, "ae_shift"), tmp_path_factory.mktemp("shift"))


# What a run leaves


def test_files(resumed):
    folder, _, _ = resumed
    assert {path.name for path in folder.path.iterdir()} == FILES
    # The mark of completeness is written last; the checkpoint is removed behind it.
    times = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert max(times, key=times.get) == "metrics.json"
    finished, others = find(folder.path.parents[4])
    assert [found.folder for found in finished] == [folder] and not others


def test_files_of_a_shift(shift):
    assert {path.name for path in shift.path.iterdir()} == FILES | {"map.csv", "map.png"}


def test_pictures(resumed, shift):
    for folder in (resumed[0], shift):
        for path in folder.path.glob("*.png"):
            with Image.open(path) as picture:
                assert picture.format == "PNG" and min(picture.size) >= 150 and max(picture.size) >= 500, path
                # Not an empty sheet.
                assert np.asarray(picture.convert("L")).std() > 10, path
        with Image.open(folder / "round.gif") as film:
            # Every 6 degrees, or every pixel; some neighbours may be the same, and be shown for longer.
            assert 1 < film.n_frames <= 60 and film.info["loop"] == 0
            side = 28 if folder is resumed[0] else 68
            # Two images, two pixels between them, and a bar of two, four times as large.
            assert film.size == (4 * (2 * side + 2), 4 * (side + 2))


def test_metrics_and_tables_of_numbers(resumed, plain, shift):
    for folder, points, unblurred in (
        # 45 degrees from the middle of a cell to the next, and the four angles at which nothing is blurred.
        (resumed[0], sorted([*np.arange(-157.5, 180, 45), -180, -90, 0, 90]), ["-180", "-90", "0", "90"]),
        (plain, sorted([*np.arange(-157.5, 180, 45), -180, -90, 0, 90]), ["-180", "-90", "0", "90"]),
        (shift, list(range(-20, 20, 4)), []),
    ):
        metrics, curves = folder.json("metrics.json"), folder.csv("curves.csv")
        digits = [str(digit) for digit in range(10)]
        assert list(curves[0]) == ["digit", "parameter", "value", "images", "deviation"]
        assert [(row["digit"], row["parameter"]) for row in curves] == [(n, x) for n in range(10) for x in points]
        assert all(row["images"] == 8 and row["value"] > 0 and row["deviation"] > 0 for row in curves)
        assert metrics["images"] == dict.fromkeys(digits, 8)
        for name in ("mse_in", "mse_out", "ratio"):
            assert list(metrics[name]) == digits
        low, high = (45, 47) if unblurred else (5, 8)
        for digit in digits:
            own = {row["parameter"]: row["value"] for row in curves if row["digit"] == int(digit)}
            blurred = {point: value for point, value in own.items() if f"{point:g}" not in unblurred}
            inside = np.mean([value for point, value in blurred.items() if abs(point) <= low])
            outside = np.mean([value for point, value in blurred.items() if abs(point) >= high])
            # Float64 sums in another order.
            assert metrics["mse_in"][digit] == pytest.approx(inside, rel=1e-12)
            assert metrics["mse_out"][digit] == pytest.approx(outside, rel=1e-12)
            assert metrics["ratio"][digit] == pytest.approx(outside / inside, rel=1e-12)
        assert list(metrics["unblurred"]) == unblurred
        assert set(metrics["baselines"]) == {"all black", "mean image of the digit", "input copied"}
        baselines = folder.csv("baselines.csv")
        assert list(baselines[0]) == ["baseline", "digit", "parameter", "value"] and len(baselines) == 3 * len(curves)
        for name, means in metrics["baselines"].items():
            found = [row["value"] for row in baselines if (row["baseline"], row["digit"]) == (name, 4)
                     and abs(row["parameter"]) <= low and f"{row['parameter']:g}" not in unblurred]  # fmt: skip
            assert means["mse_in"]["4"] == pytest.approx(np.mean(found), rel=1e-12)
        assert all(metrics[name] > 0 for name in (*VARYING, "parameters"))
        names = [metrics[name] for name in ("experiment", "model", "dataset", "profile", "seed", "precision")]
        experiment, dataset, profile, model, _ = folder.path.parts[-5:]
        assert names == [experiment, model, dataset, profile, 0, "float32"]


def test_history(resumed, plain):
    names = ["step", "images", "seconds", "loss"]
    for folder, more in ((plain, []), (resumed[0], ["critic_loss", "encoder_loss"])):
        history = folder.csv("history.csv")
        assert [(row["step"], row["images"]) for row in history] == [(4, 64), (8, 128), (12, 192)]
        assert list(history[0]) == names + more


def test_map(shift):
    rows = shift.csv("map.csv")
    shifts = list(range(-20, 20, 4))
    assert list(rows[0]) == ["digit", "dy", "dx", "value"]
    assert [(row["digit"], row["dy"], row["dx"]) for row in rows] == [(4, dy, dx) for dy in shifts for dx in shifts]
    # The diagonal is the curve of digit 4, whose 8 images are all there are.
    diagonal = [row["value"] for row in rows if row["dy"] == row["dx"]]
    curve = [row["value"] for row in shift.csv("curves.csv") if row["digit"] == 4]
    # Float32 means of 8 numbers.
    np.testing.assert_allclose(diagonal, curve, rtol=1e-6)


def test_forecast_counts_what_is_left(monkeypatch, tmp_path):
    """At a fixed rate: training by the steps that a checkpoint leaves, evaluation, 20 s for the start of each run."""
    config, said = config_of(ROTATION, "ae_rotation"), []
    budget, sizes = config.entry.budgets["smoke"], config.protocol.arguments((28, 28, 1), range(10))
    training = config.entry.model_for("smoke").training_flops(*sizes) * 12 * budget.batch_size / cli._TRAINING_SHARE
    # A quarter of an hour for the training.
    monkeypatch.setattr("invariance.benchmark.Peak", lambda *_: lambda: training / 900)

    def seconds(runs, pending=(config,), jobs=1):
        said.clear()
        cli._forecast(pending, runs, jobs, said.append)()
        assert said[0].startswith("Departures from the original (ae_rotation): steps 12 ")
        minutes, seconds = re.fullmatch(r"Expected: about (\d+):(\d\d) min for .* GFLOP/s; .*", said[1]).groups()
        return 60 * int(minutes) + int(seconds)

    whole = seconds(tmp_path)
    assert whole > 900 + cli._START_SECONDS
    folder = config.folder(tmp_path)
    folder.path.mkdir(parents=True)
    np.savez(folder / results.CHECKPOINT, progress=json.dumps({"step": 9}))
    assert seconds(tmp_path) == pytest.approx(whole - 900 * 9 / 12, abs=1)
    # --overwrite begins anew; so does a checkpoint that cannot be read, until the run says so.
    assert seconds(None) == whole
    (folder / results.CHECKPOINT).write_bytes(b"PK")
    assert seconds(tmp_path) == whole
    # Two at a time: each measures the rate of half the cores.
    assert seconds(None, (config, config), 2) == whole


def test_config(resumed, shift):
    for folder, experiment, model in (
        (resumed[0], ROTATION, ADVERSARIAL),
        (shift, SHIFT, "ae_shift"),
    ):
        config = folder.json("config.json")
        assert config["protocol"] == json.loads(json.dumps(experiment.protocol.to_json()))
        tiny = config_of(experiment, model).entry.variants["smoke"]
        arguments = config["model_arguments"]
        assert arguments["builder"] == "Autoencoder" and arguments["feature_maps"] == tiny.feature_maps == 8
        assert arguments["regulariser"] == tiny.regulariser and arguments["critic_updates"] == tiny.critic_updates
        assert tiny.critic_updates == (2 if model == ADVERSARIAL else 5)
        assert config["budget"]["steps"] == 12


def test_what_is_printed(resumed):
    folder, _, out = resumed
    lines = out.splitlines()
    assert lines[0].startswith("Generation by rotation")
    assert any(line.startswith(f"{ADVERSARIAL} seed 0: going on from step 4 of 12") for line in lines)
    assert sum(line.startswith(f"{ADVERSARIAL} seed 0  epoch ") for line in lines) == 2
    assert any(line.startswith(f"Departures from the original ({ADVERSARIAL}): steps 12 ") for line in lines)
    (expected,) = [number for number, line in enumerate(lines) if line.startswith("Expected: about ")]
    assert " for 1 run(s) (on this CPU, " in lines[expected] and "going on from step" in lines[expected + 1]
    ratio = folder.json("metrics.json")["ratio"]
    assert any(f"4: out/in {ratio['4']:.2f}, 9: out/in {ratio['9']:.2f}; others " in line for line in lines)
    # The embedded digits, said at the beginning, at the end and in the table; nothing published beside them.
    assert "NOT MNIST" in lines[2] and "NOT MNIST" in lines[-1] and "NOT MNIST" in "\n".join(lines[4:-1])
    assert not any(line.strip().startswith("published") for line in lines) and ".0976" not in out
    assert "NOT MNIST" in (folder.path.parents[1] / "table.md").read_text()


# Resuming


def test_killed_and_resumed_equals_uninterrupted(resumed, whole):
    folder, left, _ = resumed
    assert "checkpoint.npz" in left and "metrics.json" not in left
    mine, theirs = weights(folder), weights(whole)
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    # Weights and the running averages of three optimisers; their counts of steps tell them apart.
    for optimizer, count in (("optimizer", 12), ("critic_optimizer", 24), ("encoder_optimizer", 12)):
        states = [name for name in mine if name.startswith(f"{optimizer}/")]
        assert len(states) > 6 and [int(mine[name]) for name in states if mine[name].dtype.kind in "iu"] == [count]
    histories = [[{**row, "seconds": 0} for row in which.csv("history.csv")] for which in (folder, whole)]
    assert histories[0] == histories[1]
    for name in ("curves.csv", "baselines.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    metrics = [
        {key: value for key, value in which.json("metrics.json").items() if key not in VARYING}
        for which in (folder, whole)
    ]
    assert metrics[0] == metrics[1]


# Pictures of unusual models


def test_samples_of_a_code_of_one_number(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(generation, "draw_codes", lambda model, protocol, codes, points: drawn.append(codes))
    monkeypatch.setattr(figures, "samples", lambda *_: None)
    monkeypatch.setattr(figures, "save", lambda *_, **__: None)
    codes = np.random.default_rng(0).normal(3.0, 0.1, (50, 1))
    pictures._samples(config_of(ROTATION, "ae_rotation"), None, codes, np.zeros(2), tmp_path, "")
    of_prior, of_codes = drawn
    assert of_prior.shape == of_codes.shape == (6, 1)
    # Five deviations.
    assert np.abs(of_prior).max() <= 1 and np.abs(of_codes - 3.0).max() < 0.5


# --set and --grid


def refused(capsys, action, *expected):
    """Calls a command in this process; checks its exit code and its one line on stderr."""
    assert action() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for text in expected:
        assert text in err


def experiment(*argv, which=ROTATION):
    return lambda: cli.run_experiment(which, list(argv))


def printed(capsys, *argv, which=ROTATION):
    assert cli.run_experiment(which, ["--print-config", *argv]) == 0
    return json.loads(capsys.readouterr().out)


def test_set_changes_the_model_and_its_name(capsys):
    configs = printed(capsys, "--models", "ae_rotation,aae_rotation", "--profile", "paper",
                      "--set", " feature_maps = 64,regulariser=cross_entropy")  # fmt: skip
    assert [config["model"] for config in configs] == [
        f"{name}+feature_maps=64+regulariser=cross_entropy" for name in ("ae_rotation", "aae_rotation")
    ]
    usual = printed(capsys, "--models", "ae_rotation,aae_rotation", "--profile", "paper")
    for config, before in zip(configs, usual, strict=True):
        changed = {"feature_maps": 64, "regulariser": "cross_entropy"}
        assert config["model_arguments"] == before["model_arguments"] | changed
        assert {**config, "model": 0, "model_arguments": 0} == {**before, "model": 0, "model_arguments": 0}


@pytest.mark.parametrize("profile", ["smoke", "quick", "standard"])
def test_set_holds_in_every_profile(capsys, profile):
    [config] = printed(capsys, "--models", "ae_rotation", "--profile", profile, "--set", "units=77,penalty_weight=2")
    assert config["model_arguments"]["units"] == 77 and config["model_arguments"]["penalty_weight"] == 2.0
    [usual] = printed(capsys, "--models", "ae_rotation", "--profile", profile)
    assert usual["model_arguments"]["units"] != 77


def test_set_to_none(capsys):
    [config] = printed(capsys, "--models", "aae_rotation", "--set", "regulariser=none")
    assert config["model_arguments"]["regulariser"] is None


@pytest.mark.parametrize(
    "text, expected",
    [
        ("width=3", ["'width=3'", "ae_rotation", "feature_maps=256", "code_size=10"]),
        ("feature_maps", ["'feature_maps'", "ARGUMENT=VALUE"]),
        ("feature_maps=", ["--set feature_maps", "a value like 256", "''"]),
        ("feature_maps=many", ["--set feature_maps", "a value like 256", "'many'"]),
        ("feature_maps=1.5", ["--set feature_maps", "'1.5'"]),
        ("feature_maps=0", ["`feature_maps` must be a positive integer"]),
        ("penalty_weight=ten", ["--set penalty_weight", "a value like 10.0"]),
        ("units=8,,", ["ARGUMENT=VALUE"]),
        ("filters=8", ["'filters=8'"]),
        ("regulariser=gan", ["regulariser", "'gan'", "wasserstein"]),
    ],
)
def test_set_to_what_is_not_possible(capsys, text, expected):
    refused(capsys, experiment("--print-config", "--models", "ae_rotation", "--set", text), *expected)


def test_set_for_a_model_without_arguments(capsys):
    own = replace(ROTATION, models={"mine": replace(ROTATION.models["ae_rotation"], model=len, variants={})})
    command = experiment("--print-config", "--models", "mine", "--set", "units=3", which=own)
    refused(capsys, command, "arguments of mine (none)")


def test_grid(capsys):
    def spacing(*argv, which=ROTATION):
        [config] = printed(capsys, *argv, which=which)
        return config["budget"]["grid_spacing"]

    models = "--models", "ae_rotation"
    assert spacing(*models) == 9
    assert spacing(*models, "--grid", "full") is None
    assert spacing(*models, "--grid", "4.5") == 4.5
    assert spacing(*models, "--profile", "paper") is None
    assert spacing("--grid", "1", which=SHIFT) == 1
    # Pixels need not divide a circle.
    assert spacing("--grid", "7", which=SHIFT) == 7


@pytest.mark.parametrize("text", ["0", "-9", "7", "360", "fine", "nan", "inf", "Full"])
def test_bad_grid_of_angles(capsys, text):
    refused(capsys, experiment("--print-config", "--grid", text), "--grid", "a divisor of 360", "or full", repr(text))


@pytest.mark.parametrize("text", ["0", "-9", "1.5", "fine", "nan", "inf", "Full"])
def test_bad_grid_of_shifts(capsys, text):
    action = experiment("--print-config", "--grid", text, which=SHIFT)
    refused(capsys, action, "--grid", "a whole number of pixels or full", repr(text))


@pytest.mark.parametrize("experiment, spacing", [(ROTATION, 7), (SHIFT, 1.5)])
def test_budget_with_a_grid_that_the_protocol_has_not(experiment, spacing):
    (name, entry), *_ = experiment.models.items()
    budget = replace(entry.budgets["smoke"], grid_spacing=spacing)
    with pytest.raises(ValueError, match="grid of"):
        running.RunConfig("e", "smoke", name, replace(entry, budgets={"smoke": budget}), experiment.protocol, "digits")


def test_model_that_draws_other_images_is_not_trained(tmp_path):
    config = config_of(SHIFT, "ae_shift")
    build = config.entry.model_for("smoke")
    colours = lambda shape, output, *more: build(shape, (*output[:2], 3), *more)  # noqa: E731
    config = replace(config, entry=replace(config.entry, model=colours, variants={}))
    with pytest.raises(ModelError, match=r"draws images \(68, 68, 3\); the protocol's are \(68, 68, 1\)"):
        running.execute(config, tmp_path, quiet=True)
    assert not (config.folder(tmp_path) / "history.csv").exists()


def test_full_grid_is_for_drawn_images_only(capsys):
    from experiments.recognition_rotation import EXPERIMENT

    refused(capsys, experiment("--print-config", "--grid", "full", which=EXPERIMENT), "--grid", "'full'")


def test_redraws_are_refused(capsys, plain):
    refused(capsys, experiment("--models", "ae_rotation", "--redraws", "3"), "--redraws", "recognition")
    refused(capsys, lambda: cli.main(["evaluate", str(plain.path), "--redraws", "3"]), "--redraws", "recognition")


def test_grid_that_misses_a_range_is_refused_and_leaves_nothing(tmp_path):
    # -20 and nothing else: there is no shift of 5 pixels and less.
    config = config_of(SHIFT, "ae_shift")
    budget = replace(config.entry.budgets["smoke"], grid_spacing=40)
    config = replace(config, entry=replace(config.entry, budgets={"smoke": budget}))
    with pytest.raises(UserError, match="no point of the evaluation's grid lies in the range of mse_in"):
        running.execute(config, tmp_path, quiet=True)
    # A later, right command would be told of other settings.
    assert not (config.folder(tmp_path) / "config.json").exists()


def test_published_curves_are_drawn_beside_the_published_model_only(monkeypatch):
    """And on the data they were measured on."""
    seen = []
    in_this_process(monkeypatch)
    monkeypatch.setattr(cli, "_forecast", lambda *_: None)
    monkeypatch.setattr(cli, "_tables", lambda *_: "")
    monkeypatch.setattr(running, "execute", lambda config, *_: seen.append((config.model, dict(config.published))))
    monkeypatch.setattr("invariance.datasets.resolve", lambda name, say: name)
    for argv in (
        ["--models", "ae_rotation", "--dataset", "mnist"],
        ["--models", "ae_rotation_z128", "--dataset", "mnist"],
        ["--models", "ae_rotation", "--dataset", "digits"],
        ["--models", "ae_rotation", "--dataset", "mnist", "--set", "code_size=3"],
    ):
        assert cli.run_experiment(ROTATION, [*argv, "--quiet"]) == 0
    curves = published.GENERATION_ROTATION_CURVES["ae_rotation"]
    assert seen == [
        ("ae_rotation", curves), ("ae_rotation_z128", {}), ("ae_rotation", {}), ("ae_rotation+code_size=3", {}),
    ]  # fmt: skip


# Evaluated again


def test_evaluate(plain, tmp_path):
    before, file = {path.name: path.read_bytes() for path in plain.path.iterdir()}, tmp_path / "again.json"
    done = python("-m", "invariance", "evaluate", plain.path, "--grid-spacing", "90", "--json", file)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    # Four angles and the four that are not blurred, all the test images of the embedded digits.
    assert first.startswith("ae_rotation on digits, 8 angles, ") and "test images" in first
    assert [line.split(":")[0] for line in lines] == [str(digit) for digit in range(10)]
    assert [line.endswith("(restricted)") for line in lines] == [digit in (4, 9) for digit in range(10)]
    written = json.loads(file.read_text())
    assert (written["run"]["model"], written["dataset"], written["grid_spacing"]) == ("ae_rotation", "digits", 90)
    for line in lines:
        words = line.replace("(restricted)", "").split()
        assert words[1::2] == ["in", "out", "ratio"]
        assert words[-1] == f"{written['grid']['ratio'][line[0]]:.2f}"
        inside, outside, ratio = map(float, words[2::2])
        # Four decimals of numbers from .1, and two.
        assert ratio == pytest.approx(outside / inside, abs=0.006)
    assert {path.name: path.read_bytes() for path in plain.path.iterdir()} == before


def test_evaluate_on_a_grid_that_misses_a_range(capsys, plain):
    # -90 and 90, where nothing is blurred.
    refused(capsys, lambda: cli.main(["evaluate", str(plain.path), "--grid-spacing", "180"]), "mse_in")


@pytest.mark.parametrize(
    "protocol",
    [{"kind": "drawing"}, {"kind": "generation_by_rotation"}, {"kind": "generation_by_shift", "ranges": 3}, 5],
)
def test_evaluate_what_describes_no_protocol(capsys, tmp_path, protocol):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"protocol": protocol}))
    refused(capsys, lambda: cli.main(["evaluate", str(tmp_path)]), "not a run's configuration")


@pytest.mark.parametrize("spacing", ["0", "7", "fine", "nan"])
def test_evaluate_with_a_bad_grid(capsys, tmp_path, spacing):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"protocol": ROTATION.protocol.to_json()}))
    action = lambda: cli.main(["evaluate", str(tmp_path), "--grid-spacing", spacing])  # noqa: E731
    refused(capsys, action, "--grid-spacing", "or full", repr(spacing))


def test_evaluate_shifts_on_a_grid_of_half_pixels(capsys, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"protocol": SHIFT.protocol.to_json()}))
    action = lambda: cli.main(["evaluate", str(tmp_path), "--grid-spacing", "0.5"])  # noqa: E731
    refused(capsys, action, "--grid-spacing", "a whole number of pixels", "0.5")


def test_evaluate_on_data_that_have_changed(capsys, plain, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(plain.path, copy)
    config = json.loads((copy / "config.json").read_text())
    config["data_sha256"]["x_test"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(config))
    refused(capsys, lambda: cli.main(["evaluate", str(copy)]), "not what the run had", "--dataset digits")


def test_going_on_with_another_program_is_noted(tmp_path, monkeypatch, capsys):
    folder = RunFolder(tmp_path)
    first, second = {"device": "a", "commit": "1"}, {"device": "b", "commit": "1"}
    (tmp_path / "config.json").write_text(json.dumps({"model": "x", **first}))
    for here in (first, second, second, first):
        monkeypatch.setattr(running, "provenance", lambda here=here: here)
        running._note_provenance(folder, Progress("x"))
    assert folder.json("config.json") == {"model": "x", **first, "resumed": [second, first]}
    assert capsys.readouterr().out == "x: begun with another device; config.json says which\n" * 2


# Tables. The numbers are invented; a table must show these and no others.


def store(runs, model, of_4, of_9, others=(0.9, 1.1), seed=0, dataset="mnist", which=ROTATION, **changes):
    """Writes a finished run's folder; the digits' values are (in, out), those of the other eight their ratios."""
    folder = RunFolder.of(runs, which.name, dataset, "quick", model, seed)
    folder.path.mkdir(parents=True)
    inside = {str(digit): 0.1 for digit in range(10)} | {"4": of_4[0], "9": of_9[0]}
    outside = {digit: 0.1 * (others[0] if digit == "0" else others[1]) for digit in inside}
    outside |= {"4": of_4[1], "9": of_9[1]}
    metrics = {
        "experiment": which.name, "model": model, "dataset": dataset, "profile": "quick", "seed": seed,
        "precision": "float32", "mse_in": inside, "mse_out": outside,
        "ratio": {digit: outside[digit] / inside[digit] for digit in inside},
        "images": dict.fromkeys(inside, 100), "train_seconds": 300,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"protocol": which.protocol.to_json()}))
    (folder / "metrics.json").write_text(json.dumps({**metrics, **changes}))


def tables(runs, experiments=(ROTATION, SHIFT)):
    finished, others = find(runs)
    assert not others
    return report.tables(finished, {experiment.name: experiment for experiment in experiments})


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


REMARK = (
    "Mean squared errors of drawn images, pixels in [-1, 1], 1,000 test images: in and out of the range that "
    "restricted digits were shown in, and out/in."
)


def test_text_and_markdown(tmp_path):
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    store(tmp_path, "ae_rotation+feature_maps=128", (0.03, 0.06), (0.04, 0.05), (0.95, 1.004))
    [table] = tables(tmp_path)
    changed = "ae_rotation+feature_maps=128"
    blank = " " * 30
    assert lines(table.text()) == [
        "generation_rotation · mnist · quick",
        REMARK,
        "",
        f"{blank}            4 in   4 out  4 out/in  9 in   9 out  9 out/in  others out/in  trained",
        f"{'ae_rotation':<30}ours        .0200  .0600  3.00      .0250  .0500  2.00      0.90–1.10      5:00 min",
        f"{blank}published   .0270  .0752  2.78      .0219  .0430  1.96      0.97–1.01",
        f"{changed:<30}ours        .0300  .0600  2.00      .0400  .0500  1.25      0.95–1.00      5:00 min",
    ]
    assert table.markdown().splitlines() == [
        f"**generation_rotation, mnist, quick.** {REMARK}",
        "",
        "| model | seeds | 4 in ours | published | 4 out ours | published | 4 out/in ours | published "
        "| 9 in ours | published | 9 out ours | published | 9 out/in ours | published "
        "| others out/in ours | published | trained |",
        "|---" * 17 + "|",
        "| ae_rotation | 0 | .0200 | .0270 | .0600 | .0752 | 3.00 | 2.78 "
        "| .0250 | .0219 | .0500 | .0430 | 2.00 | 1.96 | 0.90–1.10 | 0.97–1.01 | 5:00 min |",
        "| ae_rotation+feature_maps=128 | 0 | .0300 | — | .0600 | — | 2.00 | — "
        "| .0400 | — | .0500 | — | 1.25 | — | 0.95–1.00 | — | 5:00 min |",
    ]


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "mine"])
def test_other_data_have_no_published_numbers_beside_them(tmp_path, dataset):
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05), dataset=dataset)
    [table] = tables(tmp_path)
    assert not table.compared
    assert all(cell.published is None for cell in table.rows[0].cells.values())
    for text in (table.text(), table.markdown()):
        assert "published" not in text.replace("compared with published numbers", "") and ".0752" not in text
        assert ("NOT MNIST" in text) == (dataset == "digits")


def test_seeds_give_mean_and_standard_deviation(tmp_path):
    # Ratios 2, 3, 4 and 2, 2, 2; of the others the least and the largest of all.
    for seed, outside, others in ((0, 0.04, (0.8, 1.0)), (1, 0.06, (0.9, 1.3)), (2, 0.08, (0.95, 1.1))):
        store(tmp_path, "ae_shift", (0.02, outside), (0.02, 0.04), others, seed, which=SHIFT)
    [table] = tables(tmp_path)
    [row] = table.rows
    assert row.seeds == (0, 1, 2)
    # Beneath them a blank and what the seeds say of all models.
    ours, compared, spread, *_ = (line.split() for line in lines(table.text())[-5:])
    assert ours == ["ae_shift", "ours", ".0200", ".0600", "3.00", ".0200", ".0400", "2.00", "0.80–1.30", "5:00", "min"]
    assert compared == ["published", ".0068", ".0281", "4.10", ".0053", ".0158", "3.00", "1.04–1.32"]
    assert " ".join(spread) == (
        "±.0000, 3 seeds ±.0200, 3 seeds ±1.00, 3 seeds ±.0000, 3 seeds ±.0000, 3 seeds ±0.00, 3 seeds"
    )


@pytest.mark.parametrize("damage", [{"ratio": 3}, {"mse_in": 0.1}, {"ratio": {"4": "x"}}, {"images": 7}])
def test_damaged_metrics_are_named(capsys, tmp_path, damage):
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05), **damage)
    assert cli.main(["report", "--runs", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "metrics.json" in out and err.startswith("error: unreadable: ") and err.count("\n") == 1


def test_rotation_and_shift_stand_in_tables_of_their_own(tmp_path):
    store(tmp_path, "ae_shift", (0.02, 0.06), (0.025, 0.05), which=SHIFT)
    store(tmp_path, "aae_rotation", (0.02, 0.06), (0.025, 0.05))
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    made = tables(tmp_path)
    assert [(table.experiment, [row.model for row in table.rows]) for table in made] == [
        ("generation_rotation", ["ae_rotation", "aae_rotation"]), ("generation_shift", ["ae_shift"]),
    ]  # fmt: skip
    # Without the experiment the restricted digits are read from the runs.
    [table, _] = tables(tmp_path, [])
    assert [column.title for column in table.columns] == [
        "4 in", "4 out", "4 out/in", "9 in", "9 out", "9 out/in", "others out/in",
    ]  # fmt: skip
    assert not table.compared


def test_runs_with_other_restricted_digits_show_these(tmp_path):
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    ranges = replace(ROTATION.protocol.ranges, restricted={3: ((-45, 45),)})
    path = next(tmp_path.rglob("config.json"))
    path.write_text(json.dumps({"protocol": replace(ROTATION.protocol, ranges=ranges).to_json()}))
    [table] = tables(tmp_path)
    assert [column.title for column in table.columns] == ["3 in", "3 out", "3 out/in", "others out/in"]
    # Beside those of the experiment they do not decide.
    (folder := path.parent).rename(folder.with_name("seed-1"))
    metrics = folder.with_name("seed-1") / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"ae_rotation"', '"ae_rotation+restricted=3"'))
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    [table] = tables(tmp_path)
    assert [column.title for column in table.columns][:4] == ["4 in", "4 out", "4 out/in", "9 in"]


@pytest.mark.parametrize(
    ("restricted", "text"),
    [
        ((4, 9), "4: out/in 3.00, 9: out/in 2.00; others 0.90 to 1.10"),
        ((), "all digits: out/in 0.90 to 3.00"),
        ((3, 4, 5, 9), "3: out/in 0.90, 4: out/in 3.00, 5: out/in 1.10, 9: out/in 2.00"),
    ],
)
def test_what_a_run_says_of_its_ratios(restricted, text):
    assert running._said({"3": 0.9, "4": 3.0, "5": 1.1, "9": 2.0}, restricted) == text
