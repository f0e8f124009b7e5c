"""What several test files share."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
# How long a command may take, in seconds: a busy machine needs minutes for what an idle one does in seconds.
PATIENCE = 300


def python(*argv, **options):
    """Runs Python in the repository's folder and returns the completed process, with its output as text."""
    defaults = {"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run([sys.executable, *map(str, argv)], **{**defaults, **options})


def assert_one_line(err, *expected):
    """Standard error holds one line that begins with "error: " and contains these texts."""
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    for text in expected:
        assert text in err


def refused(capsys, action, *expected):
    """Calls a command in this process: it exits with code 2, prints nothing, and its one error contains these texts."""
    assert action() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, *expected)


def in_this_process(patch):
    """Makes commands do the work of their child processes directly: a process with TensorFlow must not fork."""
    from invariance.cli import run
    from invariance.errors import RunError, UserError
    from invariance.runs import engine

    def in_children(actions, jobs):
        for index, action in enumerate(actions):
            try:
                action()
                yield index, None, None
            except (UserError, RunError) as error:
                yield index, error, None

    patch.setattr(run, "in_child", lambda action: action())
    patch.setattr(engine, "in_children", in_children)
    # This process is not its own parent.
    patch.setattr(engine, "os", SimpleNamespace(getpid=os.getppid))


class Screen:
    """A stream that is a terminal, or not, and keeps what is written to it."""

    def __init__(self, terminal):
        self.terminal, self.text = terminal, ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def noise(*shape, seed=0, dtype="float32", spread=None):
    """Samples of a standard normal distribution, or of a uniform one between two numbers."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) if spread is None else rng.uniform(*spread, shape)).astype(dtype)


def assert_reached(gradients, variables):
    """Every variable has a gradient that is finite and somewhere not zero."""
    for gradient, variable in zip(gradients, variables, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, variable.path


def store_run(
    runs,
    model="cnn_00",
    shares=(0.98, 0.99, 0.2, 0.01),
    seed=0,
    dataset="mnist",
    profile="standard",
    config=(),
    **metrics,
):
    """Writes the folder of a finished run of recognition_rotation with these P_test, P_in, P_out and P_inv."""
    from experiments.recognition_rotation import EXPERIMENT, TASK
    from invariance.runs.folder import RunFolder

    folder = RunFolder.of(runs, EXPERIMENT.name, dataset, profile, model, seed)
    folder.path.mkdir(parents=True)
    shares = dict(zip(("p_test", "p_in", "p_out", "p_inv"), shares, strict=True))
    images = {key: 0 if value is None else 8033 if key == "p_test" else 1992 for key, value in shares.items()}
    interval = {
        key: None if value is None else [max(0.0, value - 0.0125), min(1.0, value + 0.0125)]
        for key, value in shares.items()
    }
    names = {"experiment": EXPERIMENT.name, "model": model, "dataset": dataset, "profile": profile, "seed": seed}
    numbers = {"chance": 0.125, "images": images, **shares, "interval": interval, "train_seconds": 83.4}
    (folder / "config.json").write_text(json.dumps({"protocol": TASK.to_json(), **dict(config)}))
    (folder / "metrics.json").write_text(json.dumps({**names, **numbers, **metrics}))
    return folder


def stored_arrays(path):
    """The arrays in a .keras file, weights and optimisers: name -> array, without importing Keras."""
    import io
    import zipfile

    import h5py

    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def transformed(transformation, image, value, fill=0.0):
    """Oracle: scipy's transformation of an image (height, width), in float64. A shift is (dy, dx), or a number."""
    from scipy import ndimage

    image, options = np.asarray(image, "float64"), {"order": 1, "mode": "grid-constant", "cval": fill}
    if transformation.name == "rotation":
        return ndimage.rotate(image, value, reshape=False, **options)
    if transformation.name == "shift":
        canvas = transformation.output_shape((*image.shape, 1))
        border = [(large - small) // 2 for large, small in zip(canvas, image.shape, strict=False)]
        return ndimage.shift(np.pad(image, [(each,) * 2 for each in border], constant_values=fill), value, **options)
    # From (row, column) of the result to those of the image, measured from the centre.
    matrix = np.eye(2) / value if transformation.name == "scaling" else np.array([[1, 0], [value, 1]])
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, matrix, centre - matrix @ centre, **options)
