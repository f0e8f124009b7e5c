"""Fixtures that several test files use."""

import os
from pathlib import Path

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
