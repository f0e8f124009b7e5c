"""Name or path -> images and labels, checked and checksummed.

MNIST and its kin come through tensorflow-datasets; ``digits`` are scikit-learn's 1,797 real handwritten digits, which
need neither files nor network; any other name is the path of an .npz file.
"""

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invariance.errors import UserError

TFDS_NAMES = ("mnist", "fashion_mnist", "kmnist")
NAMES = ("auto", *TFDS_NAMES, "digits", "FILE.npz")
DIGITS_SEED = 0
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_BY_HAND = (
    'To supply it by hand, prepare it on a machine with a network (python -c "import tensorflow_datasets as tfds; '
    "tfds.load('{name}', data_dir='DIR')\"), copy DIR here and set TFDS_DATA_DIR=DIR; or pass --dataset FILE.npz with "
    "the arrays x_train, y_train, x_test, y_test"
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

    def select(self, labels) -> "Data":
        """The images of the given labels only."""
        train, test = np.isin(self.y_train, labels), np.isin(self.y_test, labels)
        return Data(
            self.name, self.x_train[train], self.y_train[train], self.x_test[test], self.y_test[test], self.source
        )


def resolve(name: str, say=print) -> str:
    """Turns ``auto`` into ``mnist`` or, where there is no MNIST and none can be had, ``digits``; checks the others.

    Args:
        name: what the user asked for.
        say: called with a line of text where the user should know what was decided.

    Raises:
        UserError: for a name that is neither known nor an .npz file.
    """
    if name == "auto":
        if _prepared("mnist"):
            return "mnist"
        try:
            _download("mnist", say)
        except UserError as error:
            say(f"No MNIST: {error}.\nTaking the embedded digits instead (--dataset mnist would stop here).")
            return "digits"
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


def load(name: str, say=print) -> Data:
    """Loads a dataset.

    Args:
        name: one of `NAMES`, or the path of an .npz file.
        say: called with a line of text before something slow.

    Raises:
        UserError: if it cannot be had or is not of the right form; the message names file and field.
    """
    name = resolve(name, say)
    if name == "digits":
        return _digits()
    if name in TFDS_NAMES:
        return _tfds(name, say)
    return _npz(Path(name))


def checked(arrays: dict, where: str) -> dict[str, np.ndarray]:
    """Checks the four arrays of a dataset and brings them to uint8 images and int32 labels.

    Images may be uint8, other integers in [0, 255], or floats in [0, 1] (stored as round(255 x)); they are
    (n, height, width) or (n, height, width, channels). Labels are non-negative integers (n,).

    Raises:
        UserError: naming ``where`` and the field.
    """
    result = {}
    for field in _ARRAYS:
        array = np.asarray(arrays[field])

        def refuse(expected, came, field=field):
            raise UserError(f"{where}: {field} must {expected}; it {came}")

        if array.dtype == bool or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
            refuse("hold real numbers", f"is of dtype {array.dtype}")
        if not len(array.shape) or not array.size:
            refuse("not be empty", f"has shape {array.shape}")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            refuse("be finite", f"holds {int((~np.isfinite(array)).sum())} values that are not")
        low, high = array.min(), array.max()
        if field.startswith("x"):
            if array.ndim == 3:
                array = array[..., None]
            if array.ndim != 4:
                refuse("have the shape (n, height, width) or (n, height, width, channels)", f"has {array.shape}")
            if np.issubdtype(array.dtype, np.floating):
                if low < 0 or high > 1:
                    refuse("lie in [0, 1] where it is of floats", f"lies in [{low:g}, {high:g}]")
                array = np.round(array * 255.0)
            elif low < 0 or high > 255:
                refuse("lie in [0, 255]", f"lies in [{low}, {high}]")
            result[field] = np.ascontiguousarray(array.astype(np.uint8))
        else:
            if array.ndim == 2 and array.shape[1] == 1:
                array = array[:, 0]
            if array.ndim != 1:
                refuse("have the shape (n,)", f"has {array.shape}")
            if low < 0 or high >= 2**31 or (array != np.floor(array)).any():
                refuse("hold non-negative integers", f"holds values from {low:g} to {high:g}, not all of that kind")
            result[field] = array.astype(np.int32)
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
        raise UserError(f"{where}: y_test has the classes {unknown[:10]}, which y_train has not")
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
    # Like MNIST's, the digits fill 20 x 20 pixels of 28 x 28, so that a turned one is not cut off.
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
    """Where TFDS data may lie, in order."""
    named = os.environ.get("TFDS_DATA_DIR")
    return ([Path(named).expanduser()] if named else []) + [Path.home() / "tensorflow_datasets"]


def _prepared(name: str) -> Path | None:
    """The newest prepared version of a TFDS dataset, or None. Imports nothing."""
    for folder in _folders():
        versions = [
            path.parent for path in (folder / name).glob("*/dataset_info.json") if "incomplete" not in path.parent.name
        ]
        if versions:
            return max(versions, key=lambda path: [int(n) if n.isdigit() else -1 for n in path.name.split(".")])
    return None


def _tfds(name: str, say) -> Data:
    folder = _prepared(name) or _download(name, say)
    by_hand = _BY_HAND.format(name=name)
    try:
        import logging

        logging.getLogger("absl").setLevel(logging.ERROR)
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        arrays = {}
        for part in ("train", "test"):
            images, labels = builder.as_dataset(split=part, batch_size=-1, as_supervised=True)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = images.numpy(), labels.numpy()
            expected = builder.info.splits[part].num_examples
            if len(images) != expected:
                raise ValueError(f"the {part} split has {len(images)} of {expected} images")
    except Exception as error:  # TFDS and TensorFlow raise errors of many kinds for damaged files
        raise UserError(
            f"{folder}: the prepared {name} is damaged or incomplete ({_first_line(error)}). Remove that folder and "
            f"try again. {by_hand}"
        ) from error
    return Data(name, **checked(arrays, str(folder)), source=str(folder))


def _download(name: str, say) -> Path:
    """Has TFDS download and prepare a dataset; returns its folder. Raises UserError where that cannot be done."""
    target = _folders()[0]
    tried = " and ".join(str(folder / name) for folder in _folders())
    by_hand = _BY_HAND.format(name=name)
    try:
        import tensorflow_datasets as tfds

        # TFDS tries an unreachable host for minutes; ask first.
        url = tfds.builder_cls(name).URL
        reason = _unreachable(url)
        if reason:
            raise UserError(f"{name} is not in {tried}, and {url} cannot be reached ({reason}). {by_hand}")
        say(f"Downloading {name} to {target} ...")
        builder = tfds.builder(name, data_dir=target)
        builder.download_and_prepare()
        return Path(builder.data_dir)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} is not in {tried}, and downloading it to {target} failed ({_first_line(error)}). {by_hand}"
        ) from error


def _unreachable(url: str, seconds: float = 10.0) -> str | None:
    """Why a URL's host does not answer within some seconds, or None where it does. Proxies are respected."""
    import requests

    answer = [f"no answer in {seconds:g} s"]

    def ask():
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
