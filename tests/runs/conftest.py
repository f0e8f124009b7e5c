"""Runs that several test files look at."""

import numpy as np
import pytest

from invariance import datasets
from tests.runs import cases


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Some of the embedded digits, as a user's own file."""
    path = tmp_path_factory.mktemp("data") / "own.npz"
    digits = datasets.load("digits")
    np.savez(path, x_train=digits.x_train[:120], y_train=digits.y_train[:120],
             x_test=digits.x_test[:60], y_test=digits.y_test[:60])  # fmt: skip
    return path


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """Case -> the folder of its run, which was never interrupted and must not be changed. Carried out on demand."""
    runs, folders = tmp_path_factory.mktemp("whole"), {}

    def folder(name):
        if name not in folders:
            drawn, redraws = name != "generation_by_rotation", 2 * (name == "recognition_by_rotation")
            folders[name] = cases.run(cases.config(name, data), runs, figures=drawn, redraws=redraws)
        return folders[name]

    return folder
