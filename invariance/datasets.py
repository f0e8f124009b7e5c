"""Name or path -> images and labels, checked and checksummed.

MNIST and its kin come through tensorflow-datasets; ``digits`` are scikit-learn's 1,797 real handwritten digits, which
need neither files nor network; any other name is the path of an .npz file.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance.errors import UserError

if TYPE_CHECKING:
    from invariance.tasks import Task


@dataclass(frozen=True)
class TfdsDataset:
    """A dataset of tensorflow-datasets.

    Args:
        builder: its name there, "name" or "name/config".
        transposed: whether its images lie on their side, rows and columns swapped.
    """

    builder: str
    transposed: bool = False


# A new one is one line here.
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
    'To supply it by hand, prepare it on a machine with a network (python -c "import tensorflow_datasets as tfds; '
    "tfds.load('{builder}', data_dir='DIR')\"), copy DIR here and set TFDS_DATA_DIR=DIR; or pass --dataset FILE.npz "
    "with the arrays x_train, y_train, x_test, y_test"
)


@dataclass(frozen=True, eq=False)
class Data:
    """A dataset in memory.

    Attributes:
        name: the run folders' level ("mnist", "digits", the file's stem).
        x_train, x_test: (n, height, width, channels) uint8.
        y_train, y_test: (n,) int32.
        source: where it came from, for people.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.x_train.shape[1:]

    def sha256(self) -> dict[str, str]:
        """A SHA-256 of each array: shape, dtype and bytes."""
        digests = {}
        for field in _ARRAYS:
            array = np.ascontiguousarray(getattr(self, field))
            digest = hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode())
            digest.update(array)
            digests[field] = digest.hexdigest()
        return digests

    def select(self, labels: Iterable[int]) -> Data:
        """The images of the given labels only."""
        train, test = (np.isin(y, list(labels)) for y in (self.y_train, self.y_test))
        return replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
        )

    def of_task(self, task: Task) -> tuple[Data, tuple[int, ...]]:
        """The data of the classes that a task leaves, and these classes, ascending.

        Raises:
            UserError: if the task does not fit the data.
        """
        try:
            classes = task.classes(self.y_train)
        except ValueError as error:
            raise UserError(f"{self.source}: {error}") from error
        data = self.select(classes)
        if absent := sorted(set(classes) - set(data.y_test.tolist())):
            raise UserError(f"{self.source}: y_test has no images of the classes {absent}")
        return data, classes


def stored_as(dataset: str) -> str:
    """The name of a dataset, or of an .npz file's path, in run folders."""
    return Path(dataset).stem


def caveat(stored: str, short: bool = False) -> str | None:
    """What must be said beside numbers on a dataset, if anything."""
    if stored != EMBEDDED:
        return None
    if short:
        return "embedded digits, not MNIST"
    return "Data: scikit-learn's embedded digits, NOT MNIST: not comparable with published numbers."


def needs_tensorflow(dataset: str) -> bool:
    """Whether loading a dataset loads TensorFlow."""
    return dataset in TFDS


def resolve(name: str, say: Callable[[str], Any] = print) -> str:
    """Turns ``auto`` into ``mnist`` or, if MNIST is neither there nor available, ``digits``; checks other names.

    Args:
        name: what the user asked for.
        say: called with a line of text if the user should know what was decided.

    Raises:
        UserError: for a name that is neither known nor an .npz file.
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
        if not Path(name).is_file():
            raise UserError(f"--dataset: there is no file {name}")
        if Path(name).stem in NAMES:
            raise UserError(f"--dataset: {name} would be taken for the built-in {Path(name).stem}; rename the file")
        return name
    raise UserError(f"--dataset: unknown name {name!r}; known are {', '.join(NAMES)}")


def load(name: str, say: Callable[[str], Any] = print) -> Data:
    """Loads a dataset.

    Args:
        name: one of `NAMES`, or the path of an .npz file.
        say: called with a line of text before something slow.

    Raises:
        UserError: if it is not available or malformed; the message names file and field.
    """
    name = resolve(name, say)
    if name == EMBEDDED:
        return _digits()
    if name in TFDS:
        return _tfds(name, say)
    return _npz(Path(name))


def _number_array(array: Any, where: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise UserError(f"{where} must hold real numbers; it is of dtype {array.dtype}")
    if not len(array.shape) or not array.size:
        raise UserError(f"{where} must not be empty; it has shape {array.shape}")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise UserError(f"{where} must be finite; it holds {int((~np.isfinite(array)).sum())} values that are not")
    return array


def checked_images(array: Any, where: str) -> np.ndarray:
    """Images as (n, height, width, channels) uint8.

    Args:
        array: (n, height, width) or (n, height, width, channels); uint8, other integers in [0, 255], or floats in
            [0, 1], which are rounded to 1/255.
        where: what it is, for messages.

    Raises:
        UserError: if it is anything else.
    """
    array = _number_array(array, where)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        shapes = "(n, height, width) or (n, height, width, channels)"
        raise UserError(f"{where} must have the shape {shapes}; it has {array.shape}")
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        if low < 0 or high > 1:
            raise UserError(f"{where} must lie in [0, 1] if it is of floats; it lies in [{low:g}, {high:g}]")
        array = np.round(array * 255.0)
    elif low < 0 or high > 255:
        raise UserError(f"{where} must lie in [0, 255]; it lies in [{low}, {high}]")
    return np.ascontiguousarray(array.astype(np.uint8))


def checked_labels(array: Any, where: str) -> np.ndarray:
    """Labels as (n,) int32.

    Args:
        array: (n,) or (n, 1), non-negative integers.
        where: what it is, for messages.

    Raises:
        UserError: if it is anything else.
    """
    array = _number_array(array, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{where} must have the shape (n,); it has {array.shape}")
    low, high = array.min(), array.max()
    if low < 0 or high >= 2**31 or (array != np.floor(array)).any():
        raise UserError(
            f"{where} must hold non-negative integers; it holds values from {low:g} to {high:g}, not all of that kind"
        )
    return array.astype(np.int32)


def checked(arrays: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """Checks the four arrays of a dataset and converts them to uint8 images and int32 labels.

    Raises:
        UserError: naming ``where`` and the field; see `checked_images` and `checked_labels`.
    """
    result = {
        field: (checked_images if field.startswith("x") else checked_labels)(arrays[field], f"{where}: {field}")
        for field in _ARRAYS
    }
    for part in ("train", "test"):
        images, labels = result[f"x_{part}"], result[f"y_{part}"]
        if len(images) != len(labels):
            raise UserError(f"{where}: x_{part} has {len(images)} images and y_{part} {len(labels)} labels")
    if result["x_train"].shape[1:] != result["x_test"].shape[1:]:
        raise UserError(
            f"{where}: x_train has images of shape {result['x_train'].shape[1:]} and x_test of "
            f"{result['x_test'].shape[1:]}"
        )
    unknown = sorted(set(np.unique(result["y_test"]).tolist()) - set(np.unique(result["y_train"]).tolist()))
    if unknown:
        raise UserError(f"{where}: y_test has the classes {unknown[:10]}, which y_train lacks")
    return result


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
                    raise UserError(f"{path}: {field} cannot be read ({_first_line(error)})") from error
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises whatever its first bad byte provokes
        raise UserError(f"{path}: not a readable .npz archive ({_first_line(error)})") from error
    return Data(path.stem, **checked(arrays, str(path)), source=str(path.resolve()))


def _digits() -> Data:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    # Like MNIST's, the digits fill 20 x 20 pixels of 28 x 28, so that rotation does not cut them off.
    images = zoom(images.reshape(-1, 8, 8) / 16.0, (1, 2.5, 2.5), order=1, mode="grid-constant", grid_mode=True)
    images = np.pad(np.clip(images, 0.0, 1.0), ((0, 0), (4, 4), (4, 4)))
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=DIGITS_SEED
    )
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return Data(
        "digits",
        **checked(arrays, "digits"),
        source=f"scikit-learn's 1,797 real 8 x 8 digits, enlarged; 360 for testing, split by seed {DIGITS_SEED}",
    )


def _folders() -> list[Path]:
    """Where TFDS data may be, in order."""
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
    except Exception as error:  # TFDS and TensorFlow raise errors of many kinds for damaged files
        raise UserError(
            f"{folder}: the prepared {name} is damaged or incomplete ({_first_line(error)}). Remove that folder and "
            f"try again. {by_hand}"
        ) from error
    return Data(name, **checked(arrays, str(folder)), source=str(folder))


def _download(name: str, say: Callable[[str], Any]) -> Path:
    """Has TFDS download and prepare a dataset; returns its folder. Raises UserError if that fails."""
    target = _folders()[0]
    tried = " and ".join(str(folder / TFDS[name].builder) for folder in _folders())
    by_hand = _BY_HAND.format(builder=TFDS[name].builder)
    try:
        import tensorflow_datasets as tfds

        # TFDS tries an unreachable host for minutes; ask first.
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
            f"{name} is not in {tried}, and downloading it to {target} failed ({_first_line(error)}). {by_hand}"
        ) from error


def _unreachable(url: str, seconds: float = 10.0) -> str | None:
    """Why a URL's host does not answer within some seconds, or None if it does. Proxies are respected."""
    import requests

    answer = [f"no answer in {seconds:g} s"]

    def ask() -> None:
        try:
            requests.head(url, timeout=seconds)
            answer[0] = None
        except requests.exceptions.RequestException as error:
            answer[0] = type(error).__name__

    # In a thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0]


def _first_line(error: Exception) -> str:
    # TensorFlow puts the name of its own function before what went wrong.
    text = re.sub(r"\{\{.*?\}\}\s*", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
