"""A user's Keras settings do not change what an experiment trains; another backend is refused."""

import json
import os

import pytest

from tests.helpers import assert_one_line, python

LOADED = """
from invariance.runs.provenance import import_tensorflow

import_tensorflow()
import keras

print(keras.config.backend(), keras.config.floatx(), keras.config.image_data_format(), keras.config.epsilon())
print(keras.layers.Dense(1).dtype_policy.name, keras.layers.Conv2D(1, 1).data_format)
"""


def settings(folder, content):
    """The environment of a user with this keras.json."""
    (folder / "keras.json").write_text(content)
    return {**{key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}, "KERAS_HOME": str(folder)}


def test_keras_json_is_overridden(tmp_path):
    own = {"backend": "jax", "floatx": "float64", "image_data_format": "channels_first", "epsilon": 1e-3}
    done = python("-c", LOADED, env=settings(tmp_path, json.dumps(own)))
    assert done.stdout.splitlines() == ["tensorflow float32 channels_last 1e-07", "float32 channels_last"], done.stderr


def test_malformed_keras_json_is_one_line(tmp_path):
    command = "import sys; from invariance.cli import arguments; from invariance.runs import provenance; "
    command += "sys.exit(arguments.guarded(provenance.import_tensorflow))"
    done = python("-c", command, env=settings(tmp_path, "[]"))
    assert done.returncode == 2
    assert_one_line(done.stderr, "Keras cannot be loaded, because of its keras.json perhaps: ")


@pytest.mark.parametrize("backend", ["jax", "torch", "nonsense"])
def test_other_backends_are_refused_before_anything_is_loaded(tmp_path, backend):
    command = ("--profile", "smoke", "--dataset", "digits", "--models", "cnn_00", "--quiet", "--runs", tmp_path)
    env = {**os.environ, "KERAS_BACKEND": backend}
    done = python("-m", "experiments.recognition_rotation", *command, env=env)
    assert done.returncode == 2 and not done.stdout
    assert_one_line(done.stderr, f"KERAS_BACKEND: experiments are run with tensorflow; received '{backend}'")
