"""``python -m experiments.<name>``: what its options change, what it prints, what it hands to the runs."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from experiments import generation_rotation, generation_shift, recognition_rotation
from experiments.article import published
from invariance.cli import forecast as forecasts
from invariance.cli import run_experiment
from invariance.datasets import Data
from invariance.errors import ModelError
from invariance.experiment import PROFILES, Budget
from invariance.processes import cores
from invariance.runs.find import find
from invariance.runs.folder import CHECKPOINT
from invariance.tasks import task_from_json
from tests.helpers import in_this_process, store_run
from tests.runs import cases

R, G, S = recognition_rotation.EXPERIMENT, generation_rotation.EXPERIMENT, generation_shift.EXPERIMENT
UPRIGHT = [[-45, 45]]


# --print-config


@pytest.fixture
def printed(capsys):
    def of(experiment, *argv):
        assert run_experiment(experiment, ["--print-config", *argv]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return json.loads(out)

    return of


def test_all_models(printed):
    configs = printed(R, "--models", "all", "--profile", "paper", "--seed", "7")
    assert [config["model"] for config in configs] == list(R.models)
    for config in configs:
        entry = R.models[config["model"]]
        assert task_from_json(config["protocol"]) == R.task
        assert Budget(**config["budget"]) == entry.budgets["paper"]
        assert config["model_arguments"]["builder"] == type(entry.model).__name__
        assert [config[key] for key in ("experiment", "profile", "seed", "precision")] == [
            R.name,
            "paper",
            7,
            "float32",
        ]


@pytest.mark.parametrize("experiment", [R, G, S])
def test_defaults(printed, experiment):
    configs = printed(experiment)
    assert [config["model"] for config in configs] == list(experiment.defaults)
    assert {(config["profile"], config["seed"]) for config in configs} == {("quick", 0)}


def test_several_seeds(printed):
    configs = printed(R, "--models", "cnn_00,cnn_bn_00, cnn_00", "--seed", "3, 0-2,1")
    assert [(config["seed"], config["model"]) for config in configs] == [
        (seed, model) for seed in (3, 0, 1, 2) for model in ("cnn_00", "cnn_bn_00")
    ]


def flat(value, path=""):
    if isinstance(value, dict) and value:
        return {key: item for name, each in value.items() for key, item in flat(each, f"{path}.{name}").items()}
    return {path[1:]: value}


SET = ["--set", "units=77", "--set", "penalty_weight=2"]
UNITS = {"model_arguments.units": 77, "model_arguments.penalty_weight": 2.0}


@pytest.mark.parametrize(
    "experiment, models, argv, suffix, changes",
    [
        (R, "cnn_00,capsnet_em", ["--profile", "standard", "--steps", "20000"], "+steps=20000",
         {"budget.steps": 20000}),
        (R, "cnn_00,capsnet_em", ["--profile", "paper", "--learning-rate", "5e-5"], "+learning_rate=5e-05",
         {"budget.learning_rate": 5e-5}),
        # Tables average the runs of one name: those of another precision have another.
        (R, "cnn_00", ["--precision", "bfloat16"], "+bfloat16", {"precision": "bfloat16"}),
        (R, "cnn_00,cnn_bn_00", ["--corrected"], "_corrected",
         {"model_arguments.double_softmax": False, "model_arguments.activate_last": False}),
        # Arguments of the models, in every profile and whatever is narrower there.
        *((G, "ae_rotation", ["--profile", profile, *SET], "+units=77+penalty_weight=2.0", UNITS)
          for profile in PROFILES),
        (G, "ae_rotation,aae_rotation", ["--set", " feature_maps = 64,regulariser=cross_entropy"],
         "+feature_maps=64+regulariser=cross_entropy",
         {"model_arguments.feature_maps": 64, "model_arguments.regulariser": "cross_entropy"}),
        (G, "aae_rotation", ["--set", "regulariser=none"], "+regulariser=None", {"model_arguments.regulariser": None}),
        # How finely a model is measured does not change its name.
        (G, "ae_rotation", ["--grid", "full"], "", {"budget.grid_spacing": None}),
        (G, "ae_rotation", ["--grid", "4.5"], "", {"budget.grid_spacing": 4.5}),
        (S, "ae_shift", ["--grid", "1"], "", {"budget.grid_spacing": 1}),
        # Pixels need not divide a circle.
        (S, "ae_shift", ["--grid", "7"], "", {"budget.grid_spacing": 7}),
        # Classes
        (R, "cnn_00", ["--restricted", "7, 1", "--excluded", ""], "+restricted=7,1+excluded=none",
         {"protocol.ranges.restricted.1": UPRIGHT, "protocol.ranges.restricted.7": UPRIGHT, "protocol.excluded": []}),
        # They may change places.
        (R, "cnn_00", ["--restricted", "6,9", "--excluded", "3"], "+restricted=6,9+excluded=3",
         {"protocol.ranges.restricted.6": UPRIGHT, "protocol.ranges.restricted.9": UPRIGHT, "protocol.excluded": [3]}),
        (R, "cnn_00", ["--restricted", ""], "+restricted=none", {"protocol.ranges.restricted": {}}),
        # The model's own range of the restricted classes, not the experiment's.
        (G, "ae_rotation_single", ["--restricted", "3"], "+restricted=3", {"protocol.ranges.restricted.3": [[18, 18]]}),
        # Without one, what counts as in range.
        (G, "ae_rotation_halfplane", ["--restricted", "3"], "+restricted=3", {"protocol.ranges.restricted.3": UPRIGHT}),
        (S, "ae_shift_central", ["--restricted", "3"], "+restricted=3", {"protocol.ranges.restricted.3": [[-5, 5]]}),
    ],
)  # fmt: skip
def test_options_change_the_name_and_nothing_else_than_asked_for(printed, experiment, models, argv, suffix, changes):
    profile = argv[argv.index("--profile") :][:2] if "--profile" in argv else []
    for before, after in zip(
        printed(experiment, "--models", models, *profile), printed(experiment, "--models", models, *argv), strict=True
    ):
        before, after = flat(before), flat(after)
        if "protocol.ranges.restricted" in " ".join(changes):
            before = {key: value for key, value in before.items() if not key.startswith("protocol.ranges.restricted")}
        assert all(before.get(key, ...) != value or "activate_last" in key for key, value in changes.items())
        assert after == before | changes | {"model": before["model"] + suffix}


def test_corrected_omits_what_has_nothing_to_correct(printed):
    models = [config["model"] for config in printed(R, "--corrected")]
    assert models == ["cnn_00_corrected", "cnn_bn_00_corrected", "cnn_bn_01_corrected"]


# What is printed, and what is handed on


@pytest.fixture
def carried(monkeypatch):
    """Commands in this process, without runs: what was handed to `carry_out`."""
    in_this_process(monkeypatch)
    given = []

    def carry_out(configs, runs, options, jobs, data, first):
        given.append({"configs": configs, "options": options, "jobs": jobs})
        if first:
            first[1]()
        return []

    monkeypatch.setattr("invariance.cli.run.carry_out", carry_out)
    monkeypatch.setattr("invariance.cli.run.forecast", lambda *_: None)
    return given


@pytest.fixture
def own(tmp_path):
    """A file with one image of each class."""

    def of(*labels):
        images = np.zeros((len(labels), 8, 8), "uint8")
        np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        return ["--dataset", str(tmp_path / "own.npz"), "--runs", str(tmp_path / "runs")]

    return of


def test_titles_are_those_of_the_tasks_in_force(carried, own, capsys):
    data = own(*range(10))
    run_experiment(R, ["--models", "cnn_00,cnn_01", "--seed", "0-1", *data])
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == R.task.title() == "Recognition under rotation: classes 3 and 4 shown within ±45 degrees only"
    assert second == f"{data[1]} · quick · seeds 0, 1 · float32 · runs in {data[3]}"
    run_experiment(R, ["--models", "cnn_00", "--restricted", "1", *data])
    assert capsys.readouterr().out.startswith("Recognition under rotation: class 1 shown within ±45 degrees only\n")
    # Several tasks, with their models.
    run_experiment(G, ["--models", "ae_rotation,aae_rotation,ae_rotation_single", *data])
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("within ±45 degrees only (ae_rotation, aae_rotation)")
    assert second.endswith("at 18 degrees only (ae_rotation_single)")


@pytest.mark.parametrize("models", ["cnn_00", "cnn_00,cnn_01"])
def test_caveats_are_printed_once(carried, own, capsys, models):
    run_experiment(R, ["--models", models, "--seed", "0-1", *own(3, 4)])
    out = capsys.readouterr().out
    assert out.count("No free class remains: every class is restricted, so there is nothing to transfer from.\n") == 1
    run_experiment(R, ["--models", models, *own(3, 4, 5)])
    assert "No free class" not in capsys.readouterr().out


def test_embedded_digits_are_not_taken_for_mnist(carried, tmp_path, capsys):
    argv = ["--models", "cnn_00", "--dataset", "digits", "--runs", str(tmp_path)]
    run_experiment(R, argv)
    lines = capsys.readouterr().out.splitlines()
    assert "NOT MNIST" in lines[2] and "NOT MNIST" in lines[-1]
    run_experiment(R, [*argv, "--quiet"])
    assert capsys.readouterr().out == ""


def test_departures_from_the_original(carried, own, capsys, tmp_path):
    (tmp_path / "mine.py").write_text("def build(*_): ...\n")
    models = f"cnn_00,cnn_01,cnn_bn_00,{tmp_path / 'mine.py'}:build"
    run_experiment(R, ["--models", models, *own(*range(10))])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Departures from the original ")]
    # Those of models that differ alike in one line; none of the user's own model, which has no original.
    assert [re.search(r"\((.*?)\): steps", line).group(1) for line in lines] == ["cnn_00, cnn_01", "cnn_bn_00"]
    run_experiment(R, ["--models", "cnn_00", "--profile", "paper", *own(*range(10))])
    assert "Departures" not in capsys.readouterr().out


def test_finished_runs_are_counted_neither_as_work_nor_as_jobs(carried, own, capsys, tmp_path, monkeypatch):
    argv = ["--models", "cnn_00,cnn_bn_00", "--profile", "standard", *own(*range(10))]
    folder = store_run(tmp_path / "runs", "cnn_00", dataset="own")
    pending = []
    monkeypatch.setattr("invariance.cli.run.forecast", lambda configs, runs, *_: pending.append((configs, runs)))
    monkeypatch.setattr("invariance.cli.run.check_unchanged", lambda *_: None)
    run_experiment(R, [*argv, "--jobs", str(len(cores()))])
    assert [config.model for config in carried[0]["configs"]] == ["cnn_00", "cnn_bn_00"] and carried[0]["jobs"] == 1
    assert "Departures from the original (cnn_bn_00)" in capsys.readouterr().out
    run_experiment(R, [*argv, "--overwrite"])
    # Started from scratch, what is saved does not count.
    assert [([config.model for config in configs], runs) for configs, runs in pending] == [
        (["cnn_bn_00"], str(tmp_path / "runs")), (["cnn_00", "cnn_bn_00"], None),
    ]  # fmt: skip
    assert carried[1]["options"].overwrite and folder.done
    # The table of what is there: the finished run.
    assert "| cnn_00 | 0 |" in (folder.path.parents[1] / "table.md").read_text()


def test_options_of_the_runs(carried, own):
    run_experiment(R, ["--models", "cnn_00", "--redraws", "3", "--quiet", *own(*range(10))])
    options = carried[0]["options"]
    assert (options.overwrite, options.quiet, options.tensorboard, options.redraws) == (False, True, False, 3)


def test_failures_are_listed_at_the_end(own, capsys, monkeypatch):
    in_this_process(monkeypatch)
    monkeypatch.setattr("invariance.cli.run.carry_out", lambda configs, *_: [(configs[1], ModelError("too small"))])
    assert run_experiment(R, ["--models", "cnn_00,cnn_01", *own(*range(10))]) == 2
    out, err = capsys.readouterr()
    assert "Table, curves and figures: " in out and err == "error: not finished: cnn_01\n"


def test_published_curves_are_drawn_beside_the_published_model_only(carried, monkeypatch):
    """And on the data they were measured on."""
    images, labels = np.zeros((10, 8, 8, 1), "uint8"), np.arange(10)
    monkeypatch.setattr("invariance.datasets.resolve", lambda name, say=print: name)
    monkeypatch.setattr("invariance.cli.run.load_data", lambda *_: Data("x", images, labels, images, labels, "here"))
    for argv in (
        ["--models", "ae_rotation", "--dataset", "mnist"],
        ["--models", "ae_rotation_z128", "--dataset", "mnist"],
        ["--models", "ae_rotation", "--dataset", "digits"],
        ["--models", "ae_rotation", "--dataset", "mnist", "--set", "code_size=3"],
    ):
        assert run_experiment(G, [*argv, "--quiet", "--overwrite", "--runs", "/nonexistent"]) == 0
    curves = published.GENERATION_ROTATION_CURVES["ae_rotation"]
    assert [(given["configs"][0].model, dict(given["configs"][0].published)) for given in carried] == [
        ("ae_rotation", curves), ("ae_rotation_z128", {}), ("ae_rotation", {}), ("ae_rotation+code_size=3", {}),
    ]  # fmt: skip


# The forecast


def test_forecast_counts_what_is_left(monkeypatch, tmp_path):
    """At a fixed rate: training by the steps after a checkpoint, evaluation, 20 s for the start of each run."""
    config, said = cases.config("recognition_by_rotation", "own.npz"), []
    images, labels = np.zeros((60, 28, 28, 1), "uint8"), np.repeat(np.arange(10), 6)
    data = Data("own", images, labels, images, labels, "here")
    model, sizes = config.builder, ((28, 28, 1), 8)
    training = model.training_flops(*sizes) * 12 * 8 / forecasts._TRAINING_SHARE
    # Four images of each of eight classes, at eight angles.
    evaluation = model.evaluation_flops(*sizes) * 8 * 4 * 8 / forecasts._EVALUATION_SHARE
    # A quarter of an hour for the training.
    monkeypatch.setattr(forecasts, "_peak", lambda: training / 900)

    def seconds(runs, pending=(config,), jobs=1):
        said.clear()
        forecasts.forecast(pending, runs, jobs, data, said.append)
        minutes, seconds = re.fullmatch(r"Expected: about (\d+):(\d\d) min for .* GFLOP/s; .*", said[0]).groups()
        return 60 * int(minutes) + int(seconds)

    whole = seconds(tmp_path)
    assert whole == pytest.approx(900 * (1 + evaluation / training) + 20, abs=1)
    folder = config.folder(tmp_path)
    folder.path.mkdir(parents=True)
    np.savez(folder / CHECKPOINT, progress=json.dumps({"step": 9, "seconds": 0.1, "history": []}))
    assert seconds(tmp_path) == pytest.approx(whole - 900 * 9 / 12, abs=1)
    # --overwrite starts from scratch; so does a checkpoint that cannot be read, until the run reports it.
    assert seconds(None) == whole
    (folder / CHECKPOINT).write_bytes(b"PK")
    assert seconds(tmp_path) == whole
    # Two at a time: each measures the rate of half the cores.
    assert seconds(None, (config, config), 2) == whole
    # Nothing is said of models whose operations are unknown.
    said.clear()
    forecasts.forecast([config, replace(config, entry=replace(config.entry, model=len))], None, 1, data, said.append)
    assert not said


# Real data


@pytest.mark.mnist
def test_mnist(mnist_folder, tmp_path, monkeypatch, capsys):
    in_this_process(monkeypatch)
    cases.no_figures(monkeypatch)
    argv = ["--models", "cnn_00", "--profile", "smoke", "--dataset", "mnist", "--runs", str(tmp_path)]
    assert run_experiment(R, argv) == 0
    out = capsys.readouterr().out
    assert "NOT MNIST" not in out and re.search(r"^ +published +\.9887 ", out, re.MULTILINE)
    [run], others = find(tmp_path)
    assert not others and str(mnist_folder) in run.config["data_source"]
    # cnn_00 on 28 x 28 pixels: 4*4*64 + 64, 4*4*64*128 + 128, 7*7*128*1024 + 1024, 1024*8 + 8 weights.
    assert run.metrics["parameters"] == 1088 + 131_200 + 6_423_552 + 8200
    # 24 steps teach little, but more than nothing: chance is .125, and 64 images give it a deviation of .04.
    assert run.metrics["p_test"] > 0.25
