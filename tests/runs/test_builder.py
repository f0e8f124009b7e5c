"""Models of the user's own: ``--models my_file.py:build``. They train and are measured, or are refused in one line."""

import json
import shutil

import numpy as np
import pytest

from invariance.cli import main, run_experiment
from invariance.experiment import Experiment, describe_model
from invariance.runs import pipeline
from invariance.runs.builder import FileBuilder
from tests.helpers import in_this_process, python, refused
from tests.runs import cases

LAYERS = """
import keras
from keras import layers, ops

def compiled(model, loss="sparse_categorical_crossentropy"):
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model

def dense(shape, classes, inputs=None):
    inputs = inputs if inputs is not None else keras.Input(shape)
    return layers.Dense(classes, activation="softmax", name="dense")(layers.Flatten()(inputs))
"""
# The class is not registered with Keras on import of the package, and has neither weights nor a fixed input.
CONSTANT = """
import keras
from keras import ops

@keras.saving.register_keras_serializable("own")
class Constant(keras.Model):
    def __init__(self, classes, **others):
        super().__init__(**others)
        self.classes = classes

    def call(self, images):
        return ops.one_hot(ops.cast(ops.sum(images, (1, 2, 3)), "int32") % self.classes, self.classes)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}

def build(shape, classes, learning_rate):
    model = Constant(classes)
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@pytest.fixture
def command(data, tmp_path, monkeypatch):
    """Calls the command line of a small experiment with a model of one's own, in this process."""
    in_this_process(monkeypatch)
    cases.no_figures(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def of(name, case="recognition_by_rotation"):
        own = Experiment("own", cases.CASES[case].task, {case: cases.CASES[case].entry})
        argv = ["--models", name, "--profile", "smoke", "--dataset", str(data), "--runs", "runs", "--quiet"]
        return lambda: run_experiment(own, argv)

    return of


def write(tmp_path, body, name="mine.py"):
    (tmp_path / name).write_text(LAYERS + body)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("none.py:build", "no such file: none.py"),
        ("mine.py:", "expected FILE.py:FUNCTION; received 'mine.py:'"),
        ("mine.txt:build", "expected FILE.py:FUNCTION; received 'mine.txt:build'"),
        ("my-model.py:build", "expected FILE.py:FUNCTION"),
        ("mine.py:no function", "expected FILE.py:FUNCTION"),
        ("mine.py:build", "mine.py has no function 'build'"),
        ("mine.py:value", "mine.py has no function 'value'"),
        ("raises.py:build", "raises.py cannot be imported (ZeroDivisionError: division by zero, line 3)"),
        ("syntax.py:build", "syntax.py cannot be imported (SyntaxError: "),
    ],
)
def test_builder_that_cannot_be_loaded(command, capsys, tmp_path, name, expected):
    (tmp_path / "mine.py").write_text("value = 3\n")
    (tmp_path / "raises.py").write_text("def build():\n    pass\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def build(:\n")
    refused(capsys, command(name), "--models: ", expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "body, expected",
    [
        ("def build(shape): ...", "called with ((28, 28, 1), 8, learning rate): too many positional arguments"),
        ("def build(*arguments, width): ...", "missing a required argument: 'width'"),
        ("def build(*_): return 3", "must return a Keras model; it returned int"),
        ("def build(*_):\n    return missing", "NameError: name 'missing' is not defined, line 13"),
        ("def build(*_): layers.Dense(-1)", "ValueError: "),
        ("def build(shape, classes, rate):\n    inputs = keras.Input(shape)\n"
         "    return keras.Model(inputs, dense(shape, classes, inputs))", "the model is not compiled"),
        ("def build(shape, classes, rate):\n    inputs = keras.Input(shape)\n"
         "    return compiled(keras.Model(inputs, dense(shape, 5, inputs)))",
         "but one score for each of 8 classes is needed"),
        ("def build(shape, classes, rate):\n    inputs = keras.Input((7, 7, 1))\n"
         "    return compiled(keras.Model(inputs, dense(shape, classes, inputs)))",
         "the model takes (7, 7, 1), but the images are (28, 28, 1)"),
        # Swapped.
        ("def build(shape, classes, rate):\n    inputs = keras.Input(shape)\n"
         "    outputs = {'scores': inputs * 1.0, 'reconstruction': dense(shape, classes, inputs)}\n"
         "    return compiled(keras.Model(inputs, outputs), None)",
         "but one score for each of 8 classes is needed"),
        ("def build(shape, classes, rate):\n    inputs = keras.Input(shape)\n"
         "    outputs = {'scores': dense(shape, classes, inputs), 'reconstruction': layers.Flatten()(inputs)}\n"
         "    return compiled(keras.Model(inputs, outputs), None)",
         "reconstruction"),
        # Found when the training step is traced.
        ("def build(shape, classes, rate):\n    inputs = keras.Input(shape)\n"
         "    return compiled(keras.Model(inputs, dense(shape, classes, inputs)), 'categorical_crossentropy')",
         "ValueError: "),
    ],
)  # fmt: skip
def test_model_that_does_not_fit(command, capsys, tmp_path, body, expected):
    write(tmp_path, body)
    refused(capsys, command("mine.py:build"), "mine.build on ", expected)
    assert not list((tmp_path / "runs").rglob("checkpoint.npz")) and not list((tmp_path / "runs").rglob("*.keras"))


def test_autoencoder_that_does_not_fit(command, capsys, tmp_path):
    write(
        tmp_path, "def build(shape, output, numbers, rate):\n    return compiled(keras.Sequential([layers.Flatten()]))"
    )
    refused(capsys, command("mine.py:build", "generation_by_shift"), "mine.build on ", "the model")


def test_model_without_variables_trains_resumes_and_is_evaluated(command, capsys, tmp_path, monkeypatch):
    path = tmp_path / "constant.py"
    path.write_text(CONSTANT)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "batches", cases.stopping_after(6, lambda: 1 / 0))
        # An error outside the user's file; it ends the run as a kill would.
        refused(capsys, command("constant.py:build"), "constant.build on ", "ZeroDivisionError")
    assert command("constant.py:build")() == 0
    folder = next((tmp_path / "runs").rglob("metrics.json")).parent
    assert folder.relative_to(tmp_path / "runs").parts[0:1] + folder.parts[-2:] == ("own", "constant.build", "seed-0")
    config, metrics = (json.loads((folder / name).read_text()) for name in ("config.json", "metrics.json"))
    assert (
        config["model_arguments"]
        == FileBuilder(path, "build").describe()
        == describe_model(FileBuilder(path, "x")) | {"builder": "constant.build"}
    )
    assert (config["builder_file"], metrics["parameters"]) == (str(path), 0)
    # Three epochs, the first before the interruption; the same numbers in each, because nothing is learnt but drawn.
    assert len((folder / "history.csv").read_text().splitlines()) == 4
    # Evaluated again by a program that does not know the class, from another folder.
    done = python("-m", "invariance", "evaluate", folder, "--grid-spacing", "45")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("constant.build on own: 8 ") and second.startswith("P_test ")
    # Edited, it is another model, and the run is neither resumed nor taken for its own.
    path.write_text(CONSTANT + "# better\n")
    refused(capsys, command("constant.py:build"), "model_arguments.source_sha256", "--overwrite")
    # Without its file the saved model cannot be loaded.
    shutil.copytree(folder, tmp_path / "elsewhere")
    path.unlink()
    (tmp_path / "elsewhere" / "config.json").write_text(json.dumps(config | {"builder_file": str(path)}))
    import keras

    monkeypatch.delitem(keras.saving.get_custom_objects(), "own>Constant")
    refused(
        capsys, lambda: main(["evaluate", str(tmp_path / "elsewhere")]), "model.keras: cannot be loaded", "Constant"
    )


def test_modules_of_the_same_name_are_left_alone(tmp_path):
    """A file may be called like a module that is loaded already."""
    (tmp_path / "json.py").write_text("def build(*_):\n    return 7\n")
    assert FileBuilder(tmp_path / "json.py", "build")() == 7
    assert json.loads("7") == 7 and np.__name__ == "numpy"


def test_file_is_loaded_in_children_only(tmp_path):
    """What it imports, Keras above all, must not come into the process that starts the runs."""
    (tmp_path / "mine.py").write_text("import wave\ndef build(*_): ...\n")
    code = "import sys; from invariance.cli import run; run._own_builder(sys.argv[1]); print('wave' in sys.modules)"
    done = python("-c", code, f"{tmp_path / 'mine.py'}:build")
    assert (done.stdout, done.stderr) == ("False\n", "")
