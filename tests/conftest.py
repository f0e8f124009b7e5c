"""Fixtures that several test files use."""

import os
from pathlib import Path

import numpy as np
import pytest

import invariance  # noqa: F401  (before TensorFlow, whose kernels it chooses, whichever test file is first)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder TFDS_DATA_DIR if it holds MNIST. Without it a test is skipped, or fails where it is required."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder and any((Path(folder) / "mnist").glob("*/dataset_info.json")):
        return Path(folder)
    reason = f"TFDS_DATA_DIR={folder or ''} holds no prepared MNIST"
    if os.environ.get("INVARIANCE_REQUIRE_MNIST"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def bfloat16():
    """The precision policy mixed_bfloat16, for one test."""
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def keras_settings():
    """A function that sets what a user's keras.json may set, or a mixed precision policy, for one test."""
    import keras

    before = keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy()

    def change(precision="float32", data_format="channels_last"):
        keras.config.set_floatx("float32" if precision.startswith("mixed") else precision)
        keras.config.set_dtype_policy(precision)
        keras.config.set_image_data_format(data_format)

    yield change
    change(*before[:2])
    keras.config.set_dtype_policy(before[2])


@pytest.fixture(scope="session")
def digits():
    """32 real digits, doubled in size and with a border: images (32, 20, 20, 1) in [0, 1], and labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.kron(images[:32].reshape(-1, 8, 8) / 16, np.ones((2, 2)))
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None].astype("float32"), labels[:32]
