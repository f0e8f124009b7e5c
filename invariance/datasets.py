"""Loads datasets by name or path, checks and checksums them.

MNIST and its relatives are loaded with tensorflow-datasets. ``digits`` are the 1,797 real handwritten digits of
scikit-learn, which need neither files nor network. Any other name is the path of an .npz file.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance.errors import UserError, one_line
from invariance.files import unfit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from invariance.tasks import Task


@dataclass(frozen=True)
class TfdsDataset:
    """A dataset of tensorflow-datasets.

    Args:
        builder: its name there, "name" or "name/config".
        transposed: whether its images are stored with rows and columns swapped.
    """

    builder: str
    transposed: bool = False


# A new dataset is a line here.
TFDS = {
    "mnist": TfdsDataset("mnist"),
    "fashion_mnist": TfdsDataset("fashion_mnist"),
    "kmnist": TfdsDataset("kmnist"),
    "emnist_letters": TfdsDataset("emnist/letters", transposed=True),
}
EMBEDDED = "digits"
NAMES = ("auto", *TFDS, EMBEDDED, "FILE.npz")
DIGITS_SEED = 0
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_BY_HAND = (
    'To supply it by hand, prepare it on a machine with network access (python -c "import tensorflow_datasets as tfds; '
    "tfds.load('{builder}', data_dir='DIR')\"), copy DIR here and set TFDS_DATA_DIR=DIR; or pass --dataset FILE.npz "
    "with the arrays x_train, y_train, x_test, y_test"
)


@dataclass(frozen=True, eq=False)
class Data:
    """A dataset in memory, checked.

    Args:
        name: names folders of runs ("mnist", "digits", or the stem of a file).
        x_train, x_test: images, see `checked_images`; stored as (n, height, width, channels) uint8.
        y_train, y_test: labels, see `checked_labels`; stored as (n,) int32.
        source: where the data came from.

    Raises:
        UserError: if an array is malformed, or the arrays do not fit one another; the message names source and array.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    def __post_init__(self) -> None:
        for field in _ARRAYS:
            check = checked_images if field.startswith("x") else checked_labels
            object.__setattr__(self, field, check(getattr(self, field), f"{self.source}: {field}"))
        for part in ("train", "test"):
            images, labels = len(getattr(self, f"x_{part}")), len(getattr(self, f"y_{part}"))
            if images != labels:
                raise UserError(f"{self.source}: x_{part} has {images} images, but y_{part} has {labels} labels")
        if self.x_test.shape[1:] != self.image_shape:
            shapes = f"x_train has images {self.image_shape}, but x_test has images {self.x_test.shape[1:]}"
            raise UserError(f"{self.source}: {shapes}")
        if unknown := sorted(set(self.y_test.tolist()) - set(self.y_train.tolist())):
            raise UserError(f"{self.source}: y_test has the classes {unknown[:10]}, which y_train lacks")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)"""
        return self.x_train.shape[1:]

    def sha256(self) -> dict[str, str]:
        """The SHA-256 of each array's shape, dtype and bytes."""
        digests = {}
        for field in _ARRAYS:
            array = np.ascontiguousarray(getattr(self, field))
            digest = hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode())
            digest.update(array.data)
            digests[field] = digest.hexdigest()
        return digests

    def select(self, labels: Iterable[int]) -> Data:
        """The images with the given labels only."""
        train, test = (np.isin(y, list(labels)) for y in (self.y_train, self.y_test))
        return replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
        )

    def of_task(self, task: Task) -> tuple[Data, tuple[int, ...]]:
        """The data of a task's classes, and these classes, ascending.

        Raises:
            UserError: if the task does not fit the data.
        """
        try:
            classes = task.classes(self.y_train)
        except ValueError as error:
            raise UserError(f"{self.source}: {error}") from error
        if absent := sorted(set(classes) - set(self.y_test.tolist())):
            raise UserError(f"{self.source}: y_test has no images of the classes {absent}")
        return self.select(classes), classes


def stored_as(dataset: str) -> str:
    """The name of a dataset, given by name or path, in folders of runs."""
    return Path(dataset).stem


def caveat(stored: str, short: bool = False) -> str | None:
    """A warning that belongs beside all numbers on a dataset, or None.

    Args:
        stored: the dataset, see `stored_as`.
        short: as a phrase instead of a sentence.
    """
    if stored != EMBEDDED:
        return None
    if short:
        return "embedded digits, not MNIST"
    return "Data: scikit-learn's embedded digits, NOT MNIST: not comparable with published numbers."


def needs_tensorflow(dataset: str) -> bool:
    """Whether loading a dataset imports TensorFlow."""
    return dataset in TFDS


def resolve(name: str, say: Callable[[str], Any] = print) -> str:
    """Checks a dataset's name; resolves ``auto`` to ``mnist`` or, if that cannot be obtained, to ``digits``.

    Args:
        name: see `load`.
        say: called with messages to the user.

    Raises:
        UserError: if the name is neither known nor that of an .npz file.
    """
    if name == "auto":
        if _prepared("mnist"):
            return "mnist"
        try:
            _download("mnist", say)
        except UserError as error:
            say(f"No MNIST: {error}.\nUsing the embedded digits instead (--dataset mnist would stop here).")
            return EMBEDDED
        return "mnist"
    if name in NAMES[:-1]:
        return name
    if name.endswith(".npz"):
        if not os.path.isfile(name):
            raise UserError(f"--dataset: there is no file {name}")
        if Path(name).stem in NAMES:
            raise UserError(f"--dataset: {name} would be taken for the built-in {Path(name).stem}; rename the file")
        if reason := unfit(stored_as(name)):
            raise UserError(f"--dataset: runs cannot be stored as {stored_as(name)!r}, which {reason}; rename {name}")
        return name
    raise UserError(f"--dataset: unknown name {name!r}; known are {', '.join(NAMES)}")


def load(name: str, say: Callable[[str], Any] = print) -> Data:
    """Loads a dataset.

    Args:
        name: one of `NAMES`, or the path of an .npz file.
        say: called with messages to the user, for example before a download.

    Raises:
        UserError: if the dataset is not available or malformed; the message names file and array.
    """
    name = resolve(name, say)
    if name == EMBEDDED:
        return _digits()
    if name in TFDS:
        return _tfds(name, say)
    return _npz(Path(name))


def _number_array(array: ArrayLike, where: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise UserError(f"{where} must hold real numbers; it is of dtype {array.dtype}")
    if not len(array.shape) or not array.size:
        raise UserError(f"{where} must not be empty; it has shape {array.shape}")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise UserError(f"{where} must be finite; it holds {int((~np.isfinite(array)).sum())} values that are not")
    return array


def checked_images(array: ArrayLike, where: str) -> np.ndarray:
    """Images as (n, height, width, channels) uint8.

    Args:
        array: (n, height, width) or (n, height, width, channels); integers in [0, 255], or floats in [0, 1], which are
            rounded to multiples of 1/255.
        where: what messages call the array.

    Raises:
        UserError: if the array is anything else, or empty; also if its shape looks like (n, channels, height, width).
    """
    array = _number_array(array, where)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        shapes = "(n, height, width) or (n, height, width, channels)"
        raise UserError(f"{where} must have the shape {shapes}; it has {array.shape}")
    if _channels_first(*array.shape[1:]):
        raise UserError(
            f"{where} must have the shape (n, height, width, channels); it has {array.shape}, which looks like (n, "
            "channels, height, width): numpy.moveaxis(images, 1, -1) puts the channels last"
        )
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        if low < 0 or high > 1:
            raise UserError(f"{where} must lie in [0, 1] if it holds floats; it lies in [{low:g}, {high:g}]")
        array = np.round(array * 255.0)
    elif low < 0 or high > 255:
        raise UserError(f"{where} must lie in [0, 255]; it lies in [{low}, {high}]")
    return np.ascontiguousarray(array, np.uint8)


def _channels_first(first: int, second: int, last: int) -> bool:
    """Whether an image of this shape has its channels in front.

    Up to four in front and more at the end, where the other two are sides of an ordinary rectangle. Taken as they
    stand, they would be an image of up to four rows with many channels; such a strip is longer than four times the
    number of its channels, or has no more than four.
    """
    return first <= 4 < last and max(second, last) <= 4 * min(second, last)


def checked_labels(array: ArrayLike, where: str) -> np.ndarray:
    """Labels as (n,) int32.

    Args:
        array: (n,) or (n, 1), non-negative integers.
        where: what messages call the array.

    Raises:
        UserError: if the array is anything else, or empty.
    """
    array = _number_array(array, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{where} must have the shape (n,); it has {array.shape}")
    low, high = array.min(), array.max()
    if low < 0 or high >= 2**31 or (array != np.floor(array)).any():
        raise UserError(
            f"{where} must hold non-negative integers below 2**31; it holds others between {low:g} and {high:g}"
        )
    return array.astype(np.int32, copy=False)


def _npz(path: Path) -> Data:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [field for field in _ARRAYS if field not in archive]
            if missing:
                raise UserError(f"{path}: lacks {', '.join(missing)}; it has {', '.join(archive.files) or 'nothing'}")
            arrays = {}
            for field in _ARRAYS:
                try:
                    arrays[field] = archive[field]
                except Exception as error:
                    raise UserError(f"{path}: {field} cannot be read ({_reason(error)})") from error
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises whatever its first bad byte provokes
        raise UserError(f"{path}: not a readable .npz archive ({_reason(error)})") from error
    return Data(path.stem, **arrays, source=str(path.resolve()))


def _digits() -> Data:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    # As in MNIST, digits fill 20 x 20 of 28 x 28 pixels, so that rotation does not cut them off.
    images = zoom(images.reshape(-1, 8, 8) / 16.0, (1, 2.5, 2.5), order=1, mode="grid-constant", grid_mode=True)
    images = np.pad(np.clip(images, 0.0, 1.0), ((0, 0), (4, 4), (4, 4)))
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=DIGITS_SEED
    )
    source = f"scikit-learn's 1,797 real 8 x 8 digits, enlarged; 360 for testing, split by seed {DIGITS_SEED}"
    return Data(EMBEDDED, x_train, y_train, x_test, y_test, source)


def _folders() -> list[Path]:
    """Folders that may hold TFDS data, in the order in which they are searched."""
    named = os.environ.get("TFDS_DATA_DIR")
    return ([Path(named).expanduser()] if named else []) + [Path.home() / "tensorflow_datasets"]


def _prepared(name: str) -> Path | None:
    """The newest prepared version of a TFDS dataset, or None. Imports nothing."""
    for folder in _folders():
        versions = [
            path.parent
            for path in (folder / TFDS[name].builder).glob("*/dataset_info.json")
            if "incomplete" not in path.parent.name
        ]
        if versions:
            return max(versions, key=lambda path: [int(n) if n.isdigit() else -1 for n in path.name.split(".")])
    return None


def _tfds(name: str, say: Callable[[str], Any]) -> Data:
    folder = _prepared(name) or _download(name, say)
    by_hand = _BY_HAND.format(builder=TFDS[name].builder)
    try:
        import logging

        logging.getLogger("absl").setLevel(logging.ERROR)
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        arrays = {}
        for part in ("train", "test"):
            images, labels = builder.as_dataset(split=part, batch_size=-1, as_supervised=True)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = images.numpy(), labels.numpy()
            if TFDS[name].transposed:
                arrays[f"x_{part}"] = arrays[f"x_{part}"].swapaxes(1, 2)
            expected = builder.info.splits[part].num_examples
            if len(images) != expected:
                raise ValueError(f"the {part} split has {len(images)} of {expected} images")
    except Exception as error:  # TFDS and TensorFlow raise many kinds of errors if files are damaged
        raise UserError(
            f"{folder}: the prepared {name} is damaged or incomplete ({_reason(error)}). Remove that folder and "
            f"try again. {by_hand}"
        ) from error
    return Data(name, **arrays, source=str(folder))


def _download(name: str, say: Callable[[str], Any]) -> Path:
    """Downloads and prepares a dataset with TFDS and returns its folder; raises UserError if that fails."""
    target = _folders()[0]
    tried = " and ".join(str(folder / TFDS[name].builder) for folder in _folders())
    by_hand = _BY_HAND.format(builder=TFDS[name].builder)
    try:
        import tensorflow_datasets as tfds

        # TFDS retries an unreachable host for minutes, so it is probed first.
        url = tfds.builder_cls(TFDS[name].builder.partition("/")[0]).URL
        reason = _unreachable(url)
        if reason:
            raise UserError(f"{name} is not in {tried}, and {url} cannot be reached ({reason}). {by_hand}")
        say(f"Downloading {name} to {target} ...")
        builder = tfds.builder(TFDS[name].builder, data_dir=target)
        builder.download_and_prepare()
        return Path(builder.data_dir)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} is not in {tried}, and downloading it to {target} failed ({_reason(error)}). {by_hand}"
        ) from error


def _unreachable(url: str, seconds: float = 10.0) -> str | None:
    """Why a URL's host cannot be reached within some seconds, or None if it can. Proxies are respected."""
    import requests

    answer: list[str | None] = [f"no answer in {seconds:g} s"]

    def ask() -> None:
        try:
            requests.head(url, timeout=seconds)
            answer[0] = None
        except requests.exceptions.RequestException as error:
            answer[0] = type(error).__name__

    # In a thread, because looking up a host name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0]


def _reason(error: Exception) -> str:
    # TensorFlow's messages begin with the name of an internal function in double braces.
    return re.sub(r"\{\{.*?\}\}\s*", "", f"{type(error).__name__}: {one_line(error)}")
