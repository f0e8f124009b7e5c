"""The command line: mistakes cost one line and no import of TensorFlow; what is printed can be read back."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.article import published
from experiments.recognition_rotation import EXPERIMENT, MODELS
from experiments.recognition_rotation import TASK as PROTOCOL
from invariance import cli, datasets, processes
from invariance.experiment import PROFILES, Budget, Entry, installed_experiments
from invariance.ranges import Ranges
from invariance.runs.execute import PRECISIONS
from invariance.tasks import task_from_json

REPOSITORY = Path(__file__).resolve().parents[2]
# No command here takes long; a busy machine needs some 20 s where TensorFlow is imported.
PATIENCE = 120
two_cores = pytest.mark.skipif(len(processes.cores()) < 2, reason="runs at the same time need a core each")


def refused(capsys, action, *expected):
    """Calls a command in this process; checks its exit code and its one line on stderr."""
    code = action()
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    one_line(err, *expected)


def one_line(err, *expected):
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    for text in expected:
        assert text in err


def experiment(*argv):
    return lambda: cli.run_experiment(EXPERIMENT, list(argv))


def python(*argv, **options):
    return subprocess.run(
        [sys.executable, *map(str, argv)], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, **options
    )


def run(*argv):
    return python("-m", "experiments.recognition_rotation", *argv)


# Mistakes


def test_unknown_model(capsys):
    refused(capsys, experiment("--models", "cnn_00,cnn_99"), "'cnn_99'", *MODELS)


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_no_model(capsys, names):
    refused(capsys, experiment("--models", names), "no model named", *MODELS)


def test_unknown_profile(capsys):
    refused(capsys, experiment("--profile", "fast"), "'fast'", *PROFILES)


def test_unknown_precision(capsys):
    refused(capsys, experiment("--precision", "float16"), "'float16'", *PRECISIONS)


def test_unknown_option(capsys):
    refused(capsys, experiment("--epochs", "3"), "--epochs", "--help")


def test_option_without_its_value(capsys):
    refused(capsys, experiment("--seed"), "--seed")


@pytest.mark.parametrize(
    "seed", ["-1", "one", "", "1.5", "nan", str(2**32), "1,", "3-1", "0-1000", "1-2-3", "-", "0;1"]
)
def test_bad_seed(capsys, seed):
    refused(capsys, experiment("--seed", seed), "--seed", repr(seed), f"0 to {2**32 - 1}")


@pytest.mark.parametrize("jobs", ["0", "two", str(len(processes.cores()) + 1)])
def test_bad_jobs(capsys, jobs):
    refused(
        capsys,
        experiment("--jobs", jobs),
        f"--jobs: expected an integer from 1 to {len(processes.cores())}",
        repr(jobs),
    )


@pytest.mark.parametrize("redraws", ["-1", "many", "", "0.5"])
def test_bad_redraws(capsys, redraws):
    refused(capsys, experiment("--redraws", redraws), "--redraws", repr(redraws))


def test_profile_that_a_model_has_not(capsys):
    entry = EXPERIMENT.models["cnn_00"]
    models = {"mine": replace(entry, budgets={"quick": entry.budgets["quick"]})}
    only = replace(EXPERIMENT, models=models, defaults=("mine",))
    argv = ["--profile", "standard", "--print-config"]
    refused(capsys, lambda: cli.run_experiment(only, argv), "--profile of mine", "'standard'", "choose from quick")


@pytest.mark.parametrize("model, value", [("capsnet_dr", "primary_stride=0"), ("capsnet_em", "margin_steps=0")])
def test_arguments_that_must_be_positive(capsys, model, value):
    refused(capsys, experiment("--models", model, "--set", value), "--set", value.split("=")[0], "positive", "0")


@pytest.mark.parametrize("value", ["slope=nan", "slope=inf", "dropout=1", "dropout=-0.1", "moving_average_decay=2"])
def test_arguments_that_make_no_sense(capsys, value):
    refused(capsys, experiment("--models", "cnn_bn_00", "--set", value), "--set", *value.split("="))


@pytest.mark.parametrize("labels", ["three", "3,four", "-1", "3;4", "3.5"])
@pytest.mark.parametrize("option", ["--restricted", "--excluded"])
def test_bad_labels(capsys, option, labels):
    refused(capsys, experiment(option, labels), option, repr(labels))


def test_class_both_restricted_and_excluded(capsys):
    refused(capsys, experiment("--restricted", "6"), "[6]", "excluded")


def test_unknown_dataset():
    result = run("--dataset", "cifar")
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result.stderr, "'cifar'", *datasets.NAMES)


def test_print_config_refuses_what_a_run_would(capsys):
    refused(capsys, experiment("--dataset", "nonsense", "--print-config"), "--dataset", "'nonsense'")


def test_missing_file(tmp_path):
    result = run("--dataset", tmp_path / "mine.npz")
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result.stderr, f"there is no file {tmp_path / 'mine.npz'}")


def test_file_named_like_a_dataset(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"")
    result = run("--dataset", tmp_path / "mnist.npz")
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result.stderr, "rename the file")


def test_restricted_class_that_is_not_in_the_data(tmp_path):
    images = np.zeros((8, 8, 8), np.uint8)
    labels = np.arange(8) % 4
    np.savez(tmp_path / "four.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    result = run("--dataset", tmp_path / "four.npz", "--runs", tmp_path / "runs", "--models", "cnn_00", "--quiet",
                 "--restricted", "3,5,8", "--profile", "smoke")  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result.stderr, "[5, 8]", "[0, 1, 2, 3]")
    # Nothing is left that a later, right command could stumble over.
    assert not list((tmp_path / "runs").rglob("config.json"))


def test_tensorboard_without_the_package(tmp_path):
    code = """
import sys
sys.modules["tensorboard"] = None  # as if it were not installed
from experiments.recognition_rotation import EXPERIMENT
from invariance import cli
sys.exit(cli.run_experiment(EXPERIMENT, sys.argv[1:]))
"""
    result = python("-c", code, "--tensorboard", "--dataset", "digits", "--profile", "smoke", "--models", "cnn_00",
                    "--runs", tmp_path, "--quiet")  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result.stderr, "'.[tensorboard]'")


# python -m invariance


def main(*argv):
    return lambda: cli.main(list(argv))


def test_no_command(capsys):
    refused(capsys, main(), "COMMAND", "--help")


def test_unknown_command(capsys):
    refused(capsys, main("train"), "'train'", "report", "list", "evaluate")


@pytest.mark.parametrize("command", ["report", "list"])
def test_missing_runs(capsys, tmp_path, command):
    # (`list` prints the experiments before it looks for runs.)
    assert cli.main([command, "--runs", str(tmp_path / "no")]) == 2
    one_line(capsys.readouterr().err, f"no such folder: {tmp_path / 'no'}")


@pytest.mark.parametrize("made", [True, False])
def test_evaluate_what_is_no_run(capsys, tmp_path, made):
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    refused(capsys, main("evaluate", str(folder)), f"{folder} is not the folder of a finished run")


@pytest.mark.parametrize("spacing", ["0", "-5", "7", "360", "five", "nan", "inf"])
def test_evaluate_with_a_bad_grid(capsys, tmp_path, spacing):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"protocol": EXPERIMENT.task.to_json()}))
    refused(
        capsys,
        main("evaluate", str(tmp_path), "--grid-spacing", spacing),
        "--grid-spacing",
        repr(spacing) if spacing == "five" else f"Received: {float(spacing)}",
    )


@pytest.mark.parametrize("redraws", ["-1", "many"])
def test_evaluate_with_bad_redraws(capsys, tmp_path, redraws):
    (tmp_path / "metrics.json").write_text("{}")
    refused(capsys, main("evaluate", str(tmp_path), "--redraws", redraws), "--redraws", repr(redraws))


def test_evaluate_with_bad_upright_images(capsys, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    refused(capsys, main("evaluate", str(tmp_path), "--redraws", "2", "--upright-last", "-1"), "--upright-last", "'-1'")
    refused(capsys, main("evaluate", str(tmp_path), "--upright-last", "72"), "--upright-last", "add --redraws N")


@pytest.mark.parametrize("file", ["", "missing/file.json"])
def test_a_result_that_could_not_be_written_is_not_measured(capsys, tmp_path, file):
    run, file = tmp_path / "run", str(tmp_path / file)
    run.mkdir()
    for name in ("metrics.json", "config.json"):
        (run / name).write_text(json.dumps({"protocol": PROTOCOL.to_json()}))
    refused(capsys, main("evaluate", str(run), "--json", file), "--json", "a file in an existing folder", repr(file))
    refused(capsys, main("bench", "--json", file), "--json", "a file in an existing folder", repr(file))


def test_evaluate_does_not_write_over_a_run(capsys, tmp_path):
    text = json.dumps({"protocol": PROTOCOL.to_json()})
    for name in ("metrics.json", "config.json"):
        (tmp_path / name).write_text(text)
    file = str(tmp_path / "metrics.json")
    refused(capsys, main("evaluate", str(tmp_path), "--json", file), "--json", "a new file", repr(file))
    assert (tmp_path / "metrics.json").read_text() == text


@pytest.mark.parametrize("argv", [("--seconds", "ten"), ("--seconds", "0"), ("--precision", "float16")])
def test_bench_with_bad_arguments(capsys, argv, monkeypatch):
    from invariance import benchmark

    monkeypatch.setattr(benchmark, "import_tensorflow", lambda: pytest.fail("measured with bad arguments"))
    refused(capsys, main("bench", *argv), argv[0], argv[1])


def test_report_and_list(capsys, tmp_path):
    folder = tmp_path / "recognition_rotation" / "mine" / "smoke" / "cnn_00"
    for seed in (0, 1):
        (folder / f"seed-{seed}").mkdir(parents=True)
        config = {"commit": "abc", "protocol": PROTOCOL.to_json()}
        (folder / f"seed-{seed}" / "config.json").write_text(json.dumps(config))
    metrics = {"experiment": "recognition_rotation", "dataset": "mine", "profile": "smoke", "model": "cnn_00",
               "seed": 0, "p_test": 0.5, "p_in": 0.4, "p_out": 0.3, "p_inv": 0.2}  # fmt: skip
    (folder / "seed-0" / "metrics.json").write_text(json.dumps(metrics))
    markdown = tmp_path / "table.md"
    assert cli.main(["report", "--runs", str(tmp_path), "--markdown", str(markdown)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "cnn_00  .5000" in out
    assert f"{folder / 'seed-1'}: not finished; repeat its command to resume it" in out
    assert "| cnn_00 | 0 | .5000 | .4000 | .3000 | .2000 |" in markdown.read_text()
    assert cli.main(["list", "--runs", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert f"{folder / 'seed-0'}: finished, commit abc" in out
    assert EXPERIMENT.task.title() in out and all(name in out for name in MODELS)


def test_report_without_runs(capsys, tmp_path):
    assert cli.main(["report", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "No finished runs.\n"


def test_report_that_cannot_be_written(capsys, tmp_path):
    assert cli.main(["report", "--runs", str(tmp_path), "--markdown", str(tmp_path / "no" / "table.md")]) == 1
    one_line(capsys.readouterr().err, "cannot write", "No such file or directory")


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


# What costs nothing

HEAVY = """
import runpy, sys
module, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    print(end.code, sorted({"tensorflow", "keras", "scipy", "sklearn", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize("module", ["experiments.recognition_rotation", "invariance"])
def test_help_imports_nothing_heavy(module):
    result = python("-c", HEAVY, module, "--help")
    assert result.stderr == ""
    *text, last = result.stdout.splitlines()
    assert last == "0 []"
    assert text[0].startswith("usage: python -m ")
    if module != "invariance":
        assert all(option in result.stdout for option in ("--models", "--profile", "--dataset", "--seed", "--runs"))
        assert all(name in result.stdout for name in MODELS)


def test_a_mistake_imports_no_tensorflow():
    result = python("-c", HEAVY, "experiments.recognition_rotation", "--models", "cnn_99")
    assert result.stdout in ("2 []\n", "2 ['numpy']\n")


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_prints_its_targets():
    # Not as a part of the make that runs these tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(["make"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stderr) == (0, "")
    printed = re.findall(r"[\w-]+", result.stdout)
    targets = {name.replace("_", "-") for name in installed_experiments()}
    fixed = {"report", "notebooks", "bench", "test", "test-slow", "lint", "format", "clean"}
    assert {"recognition-rotation", "generation-scaling"} <= targets and targets | fixed <= set(printed)
    for target in targets | fixed - {"test", "notebooks"}:
        dry = subprocess.run(["make", "-n", target], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr
    assert {"PROFILE", "MODELS", "DATASET", "SEED", "RUNS", "PRECISION", "PYTHON"} <= set(printed)


# --print-config


def printed(capsys, *argv):
    assert cli.run_experiment(EXPERIMENT, ["--print-config", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_print_config_of_all_models(capsys):
    configs = printed(capsys, "--models", "all", "--profile", "paper", "--seed", "7", "--precision", "bfloat16")
    # Runs of another precision bear another name: reports average the runs of one name.
    assert [config["model"] for config in configs] == [f"{name}+bfloat16" for name in MODELS]
    for config in configs:
        name = config["model"].removesuffix("+bfloat16")
        assert task_from_json(config["protocol"]) == PROTOCOL
        assert Budget(**config["budget"]) == MODELS[name].budgets["paper"]
        assert (config["experiment"], config["profile"]) == ("recognition_rotation", "paper")
        assert (config["seed"], config["precision"]) == (7, "bfloat16")
        assert config["model_arguments"]["builder"] == type(MODELS[name].model).__name__


def test_print_config_of_several_seeds(capsys):
    configs = printed(capsys, "--models", "cnn_00,cnn_bn_00", "--seed", "3, 0-2,1")
    assert [(config["seed"], config["model"]) for config in configs] == [
        (seed, model) for seed in (3, 0, 1, 2) for model in ("cnn_00", "cnn_bn_00")
    ]


def test_print_config_by_default(capsys):
    configs = printed(capsys)
    assert [config["model"] for config in configs] == list(EXPERIMENT.defaults)
    assert {config["profile"] for config in configs} == {"quick"}


def test_print_config_with_other_classes(capsys):
    [config] = printed(capsys, "--models", "cnn_00", "--restricted", "7, 1", "--excluded", "")
    upright = ((-45, 45),)
    expected = replace(PROTOCOL, ranges=Ranges(((0, 360),), {1: upright, 7: upright}), excluded=())
    assert task_from_json(config["protocol"]) == expected
    assert config["model"] == "cnn_00+restricted=7,1+excluded=none"


def test_restricted_and_excluded_classes_may_change_places(capsys):
    [config] = printed(capsys, "--models", "cnn_00", "--restricted", "1,2", "--excluded", "3")
    assert task_from_json(config["protocol"]) == replace(
        PROTOCOL, ranges=Ranges(((0, 360),), dict.fromkeys((1, 2), ((-45, 45),))), excluded=(3,)
    )


def test_print_config_without_restricted_classes(capsys):
    [config] = printed(capsys, "--models", "cnn_00", "--restricted", "")
    assert task_from_json(config["protocol"]).restricted == ()
    assert config["model"] == "cnn_00+restricted=none"


def test_other_steps_make_runs_of_their_own(capsys):
    plain = printed(capsys, "--models", "cnn_00,capsnet_em", "--profile", "standard")
    longer = printed(capsys, "--models", "cnn_00,capsnet_em", "--profile", "standard", "--steps", "20000")
    for before, after in zip(plain, longer, strict=True):
        assert before["budget"]["steps"] != 20000
        before["budget"]["steps"] = 20000
        before["model"] += "+steps=20000"
        assert before == after


@pytest.mark.parametrize("steps", ["0", "-5", "1e3", "", "188"])
def test_bad_steps(capsys, steps):
    # cnn_00's learning rate rises for 188 steps; then it must fall.
    action = experiment("--models", "cnn_00", "--profile", "standard", "--steps", steps, "--print-config")
    refused(capsys, action, "--steps", steps)


def test_another_learning_rate_makes_runs_of_its_own(capsys):
    plain = printed(capsys, "--models", "cnn_00,capsnet_em", "--profile", "paper")
    lower = printed(capsys, "--models", "cnn_00,capsnet_em", "--profile", "paper", "--learning-rate", "5e-5")
    for before, after in zip(plain, lower, strict=True):
        assert before["budget"]["learning_rate"] != 5e-5
        before["budget"]["learning_rate"] = 5e-5
        before["model"] += "+learning_rate=5e-05"
        assert before == after


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "", "fast"])
def test_bad_learning_rate(capsys, rate):
    action = experiment("--models", "cnn_00", f"--learning-rate={rate}", "--print-config")
    refused(capsys, action, "--learning-rate", repr(rate))


def test_corrected_models_have_names_of_their_own(capsys):
    plain = printed(capsys, "--models", "cnn_00,cnn_bn_00")
    corrected = printed(capsys, "--models", "cnn_00,cnn_bn_00", "--corrected")
    assert [config["model"] for config in corrected] == ["cnn_00_corrected", "cnn_bn_00_corrected"]
    for before, after in zip(plain, corrected, strict=True):
        assert before["model_arguments"]["double_softmax"] and not after["model_arguments"]["double_softmax"]
        assert not after["model_arguments"]["activate_last"]
        switches = ("double_softmax", "activate_last")
        kept = [{k: v for k, v in config["model_arguments"].items() if k not in switches} for config in (before, after)]
        assert kept[0] == kept[1]


def test_model_with_nothing_to_correct(capsys):
    from dataclasses import replace

    own = replace(EXPERIMENT, models={"mine": Entry(lambda *_: None, MODELS["cnn_00"].budgets)}, defaults=("mine",))
    refused(capsys, lambda: cli.run_experiment(own, ["--corrected", "--print-config"]), "nothing to correct in mine")


def test_corrected_leaves_out_what_has_nothing_to_correct(capsys):
    models = [config["model"] for config in printed(capsys, "--corrected")]
    assert models == ["cnn_00_corrected", "cnn_bn_00_corrected", "cnn_bn_01_corrected"]


# Names that must agree


def test_names_are_consistent():
    assert set(EXPERIMENT.defaults) <= set(MODELS) <= set(published.RECOGNITION_ROTATION)
    for name, entry in MODELS.items():
        assert re.fullmatch(r"[a-z0-9_]+", name) and not name.endswith("_corrected")
        assert set(entry.budgets) == set(PROFILES)
    for four in published.RECOGNITION_ROTATION.values():
        assert tuple(four) == ("p_test", "p_in", "p_out", "p_inv")
        # Of an article that reports no invariance, every column is smaller than the one before, but P_in and P_test.
        assert 1 > four["p_in"] > four["p_test"] > four["p_out"] > four["p_inv"] >= 0


def test_installed_experiments_are_found():
    found = installed_experiments()
    assert found["recognition_rotation"] is EXPERIMENT
    assert all(name == experiment.name for name, experiment in found.items())


# Several models: what a run that fails does to the others. `execute` is replaced, so no TensorFlow is needed.

SEVERAL = """
import os, signal, sys, time
from experiments.recognition_rotation import EXPERIMENT
from invariance import cli
from invariance.runs import engine
from invariance.errors import Interrupted, ModelError, RunError, UserError
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without it
def execute(config, *_):
    sys.stdout.write("began " + config.model + "\\n")  # in one piece: others write, too
    sys.stdout.flush()
    if config.model == "cnn_00":
        {first}
    else:
        {other}
cli._forecast = lambda *_: None
engine.execute = execute
argv = ["--models", "cnn_00,cnn_01", "--dataset", "digits", "--profile", "smoke", "--runs", *sys.argv[1:]]
sys.exit(cli.run_experiment(EXPERIMENT, argv))
"""


def several(first, runs, *options, other="pass"):
    result = python("-c", SEVERAL.format(first=first, other=other), runs, *options)
    return result.returncode, re.findall(r"^began (.*)$", result.stdout, re.MULTILINE), result.stderr


def test_failed_run_lets_the_others_run(tmp_path):
    code, began, err = several("raise RunError('the loss is not finite')", tmp_path)
    assert (code, began) == (1, ["cnn_00", "cnn_01"])
    assert err == "error: the loss is not finite\nerror: not finished: cnn_00\n"


def test_seeds_one_after_the_other_each_with_all_models(tmp_path):
    code, began, err = several("raise RunError(f'seed {config.seed} fails')", tmp_path, "--seed", "5,2")
    assert (code, began) == (1, ["cnn_00", "cnn_01"] * 2)
    assert err.splitlines() == [
        "error: seed 5 fails",
        "error: seed 2 fails",
        "error: not finished: cnn_00 seed 5, cnn_00 seed 2",
    ]


def test_killed_run_lets_the_others_run(tmp_path):
    code, began, err = several("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert (code, began) == (1, ["cnn_00", "cnn_01"])
    assert "killed by signal 9 (out of memory?)" in err.splitlines()[0]
    assert err.splitlines()[1] == "error: not finished: cnn_00"


def test_model_that_does_not_fit_lets_the_others_run(tmp_path):
    code, began, err = several("raise ModelError('images are too small')", tmp_path)
    assert (code, began) == (2, ["cnn_00", "cnn_01"])
    assert err == "error: images are too small\nerror: not finished: cnn_00\n"
    # With a run among them that may be repeated, repeating makes sense.
    fails = "raise RunError('killed')"
    assert several("raise ModelError('images are too small')", tmp_path, other=fails)[0] == 1


BROKEN = """
import multiprocessing.connection
from invariance import processes
receive = multiprocessing.connection.Connection.recv
def broken(connection):
    if receive(connection) == (None, 1):
        raise OSError("got end of file during message")
    return None, 2
multiprocessing.connection.Connection.recv = broken
for number, error, value in processes.in_children([lambda: 1, lambda: 2], 1):
    print(number, type(error).__name__, error, value)
"""


def test_run_killed_while_it_reports_lets_the_others_run():
    """Then its message ends in the middle, and the connection says so in its own way."""
    first, second = python("-c", BROKEN).stdout.splitlines()
    assert first.startswith("0 RunError the run's process exited with code 0") and first.endswith(" None")
    assert second == "1 NoneType None 2"


def test_what_has_nothing_to_correct_is_named(tmp_path):
    code = SEVERAL.format(first="pass", other="pass")
    result = python("-c", code, tmp_path, "--models", "cnn_01,capsnet_dr", "--corrected")
    assert "--corrected: nothing to correct in capsnet_dr; omitted\n" in result.stdout
    assert "began cnn_01_corrected\n" in result.stdout and "began capsnet_dr" not in result.stdout


def test_users_mistake_stops_all(tmp_path):
    code, began, err = several("raise UserError('no such class')", tmp_path)
    assert (code, began, err) == (2, ["cnn_00"], "error: no such class\n")


def test_repeating_a_command_with_overwrite_is_not_advised(tmp_path):
    """It would throw away what was saved."""
    stop = "raise Interrupted('saved; repeat the command to resume')"
    assert several(stop, tmp_path)[2] == "error: saved; repeat the command to resume\n"
    assert (
        several(stop, tmp_path, "--overwrite")[2] == "error: saved; repeat the command without --overwrite to resume\n"
    )


def test_reader_that_has_gone_does_not_stop_a_run(tmp_path):
    say = "from invariance.progress import Progress; time.sleep(1); Progress('x').line('y')"
    program = SEVERAL.format(first=f"{say}; open(sys.argv[1] + '/finished', 'w')", other="pass")
    program = program.replace('sys.stdout.write("began "', 'str("began "')
    command = f"'{sys.executable}' -c \"$PROGRAM\" '{tmp_path}' --models cnn_00 | head -1"
    result = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "PROGRAM": program},
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    assert (tmp_path / "finished").exists()


def test_interrupted_run_stops_all(tmp_path):
    code, began, err = several("raise Interrupted('saved')", tmp_path)
    assert (code, began, err) == (130, ["cnn_00"], "error: saved\n")


@two_cores
def test_several_at_a_time_each_on_its_share_of_the_cores(tmp_path):
    # Each ends only when both have begun; the third begins when one of them has ended.
    code = """
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        with open(sys.argv[1] + f"/{config.model} {config.seed}", "w") as file:
            file.write(os.environ["TF_NUM_INTRAOP_THREADS"] + " " + " ".join(map(str, mine)))
        while len(os.listdir(sys.argv[1])) < 2:
            time.sleep(0.01)
    """.strip()
    result = several(code, tmp_path, "--seed", "0-1", "--jobs", "2", other=code)
    assert (result[0], len(result[1]), result[2]) == (0, 4, "")
    shares = {path.name: [int(word) for word in path.read_text().split()] for path in tmp_path.iterdir()}
    assert shares.keys() == {"cnn_00 0", "cnn_01 0", "cnn_00 1", "cnn_01 1"}
    threads = sorted(share[0] for share in shares.values())
    total = len(processes.cores())
    assert set(threads) <= {total // 2, total - total // 2}
    if hasattr(os, "sched_getaffinity"):
        first, second = set(shares["cnn_00 0"][1:]), set(shares["cnn_01 0"][1:])
        assert not first & second and sorted(first | second) == processes.cores()
        assert all(share[0] == len(share) - 1 for share in shares.values())


@two_cores
def test_users_mistake_ends_those_that_run_beside_it(tmp_path):
    began = time.monotonic()
    code, names, err = several(
        "time.sleep(1); raise UserError('no such class')", tmp_path, "--jobs", "2", other="time.sleep(60)"
    )
    assert (code, sorted(names), err) == (2, ["cnn_00", "cnn_01"], "error: no such class\n")
    assert time.monotonic() - began < 50


@two_cores
def test_failed_run_lets_those_beside_it_run(tmp_path):
    code, names, err = several(
        "raise RunError('fails')", tmp_path, "--jobs", "2", other="time.sleep(1); print('began on')"
    )
    assert (code, sorted(names), err) == (1, ["cnn_00", "cnn_01", "on"], "error: fails\nerror: not finished: cnn_00\n")


def test_programming_error_shows_where_it_is(tmp_path):
    code, began, err = several("raise KeyError('a mistake of ours')", tmp_path)
    assert (code, began) == (1, ["cnn_00", "cnn_01"])
    assert "KeyError: 'a mistake of ours'" in err
    # Repeating the command would not help.
    assert "exited with code 1; see its output above" in err and "Repeat" not in err


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=two_cores)])
@pytest.mark.parametrize(
    "number, send", [(signal.SIGINT, os.killpg), (signal.SIGINT, os.kill), (signal.SIGTERM, os.kill)]
)
def test_signal_outside_training_stops_all(tmp_path, number, send, jobs):
    """While data are loaded, TensorFlow is imported or a model is evaluated, the training's handlers are not there."""
    program = SEVERAL.format(first="time.sleep(60)", other="time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "--seed", "0,1", "--jobs", str(jobs)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        began = 0
        while began < jobs and (line := process.stdout.readline()):
            began += line.startswith("began ")
        # A terminal sends Ctrl-C to the whole group, a scheduler or `kill` their signal to the first process.
        time.sleep(0.2)
        sent = time.monotonic()
        send(process.pid, number)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert time.monotonic() - sent < 50
    assert "began" not in out
    assert process.returncode == 130
    one_line(err)
