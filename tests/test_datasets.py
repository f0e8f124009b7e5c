"""Names and files -> images and labels, or one clear line."""

import io
import struct
import sys
import zipfile

import numpy as np
import pytest

from invariance import datasets
from invariance.datasets import Data
from invariance.errors import UserError
from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.transforms import Rotation

FIELDS = ("x_train", "y_train", "x_test", "y_test")
TFDS_NAMES = ("mnist", "fashion_mnist", "kmnist", "emnist_letters")


def quiet(*_):
    pass


def refused(action, *arguments):
    """Calls an action that raises a UserError of one line, and returns this line."""
    with pytest.raises(UserError) as error:
        action(*arguments)
    message = str(error.value)
    assert type(error.value) is UserError and message and "\n" not in message
    return message


def arrays(**changes):
    """A good dataset of five classes, with some arrays replaced or, for None, left out."""
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (20, 6, 7), dtype="uint8"),
        "y_train": np.arange(20) % 5,
        "x_test": rng.integers(0, 256, (10, 6, 7), dtype="uint8"),
        "y_test": np.arange(10) % 5,
    }
    return {field: array for field, array in {**good, **changes}.items() if array is not None}


@pytest.fixture
def saved(tmp_path):
    """A function that writes arrays as own.npz and returns its path."""

    def save(**changes):
        np.savez(tmp_path / "own.npz", **arrays(**changes))
        return str(tmp_path / "own.npz")

    return save


# The embedded digits


@pytest.fixture(scope="module")
def embedded():
    return datasets.load("digits")


def test_digits_are_scikit_learns(embedded):
    assert embedded.name == "digits"
    assert embedded.x_train.shape == (1437, 28, 28, 1) and embedded.x_test.shape == (360, 28, 28, 1)
    assert embedded.image_shape == (28, 28, 1)
    assert embedded.x_train.dtype == embedded.x_test.dtype == np.uint8
    assert embedded.y_train.dtype == embedded.y_test.dtype == np.int32
    # load_digits has 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180 images of 0 to 9.
    both = np.bincount(embedded.y_train) + np.bincount(embedded.y_test)
    assert both.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # A stratified fifth of each.
    assert set(np.bincount(embedded.y_test).tolist()) == {35, 36, 37}
    border = np.ones((28, 28), bool)
    border[4:24, 4:24] = False
    for images in (embedded.x_train, embedded.x_test):
        assert (images.min(), images.max()) == (0, 255)
        assert not images[:, border].any()


def test_digits_are_the_same_every_time(embedded):
    again = datasets.load("digits").sha256()
    assert again == embedded.sha256() and set(again) == set(FIELDS)
    # Labels involve no interpolation, so their checksum is the same on every machine.
    assert again["y_test"] == "0cf64f17ee4528aa5ff2ec71549aa938614b54fecd8e6e77f11c4497fa529fda"


# Data in memory


def test_checksum_depends_on_values_and_shape_but_not_on_the_layout_in_memory():
    images, labels = np.arange(24, dtype="uint8").reshape(2, 3, 4, 1), np.arange(2)

    def checksum(images):
        return Data("own", images, labels, images, labels, "").sha256()["x_train"]

    assert len({checksum(images), checksum(images + 1), checksum(images.reshape(2, 4, 3, 1))}) == 3
    assert checksum(np.asfortranarray(images)) == checksum(images)


def test_data_of_a_task(embedded):
    task = Recognition(Rotation(), Ranges(((0, 360),), {3: ((-45, 45),)}), excluded=(6, 9))
    data, classes = embedded.of_task(task)
    assert classes == (0, 1, 2, 3, 4, 5, 7, 8) == tuple(np.unique(data.y_train)) == tuple(np.unique(data.y_test))
    for part in ("train", "test"):
        kept = ~np.isin(getattr(embedded, f"y_{part}"), (6, 9))
        for field in (f"x_{part}", f"y_{part}"):
            np.testing.assert_array_equal(getattr(data, field), getattr(embedded, field)[kept])


def test_task_that_does_not_fit_the_data_is_refused():
    task = Recognition(Rotation(), Ranges(((0, 360),), {7: ((-45, 45),)}))
    message = refused(Data("own", **arrays(), source="own.npz").of_task, task)
    assert message == "own.npz: restricted classes [7] are not in the data, whose classes are [0, 1, 2, 3, 4]"
    data = Data("own", **arrays(y_test=np.arange(10) % 3), source="own.npz")
    message = refused(data.of_task, Recognition(Rotation(), Ranges(((0, 360),))))
    assert message == "own.npz: y_test has no images of the classes [3, 4]"


def test_names():
    assert datasets.stored_as("some/folder/own.npz") == "own"
    assert datasets.stored_as("emnist_letters") == "emnist_letters"
    assert "NOT MNIST" in datasets.caveat("digits") and datasets.caveat("digits", short=True).endswith("not MNIST")
    assert datasets.caveat("mnist") is datasets.caveat("own", short=True) is None
    assert all(map(datasets.needs_tensorflow, TFDS_NAMES))
    assert not any(map(datasets.needs_tensorflow, ("digits", "own.npz")))


# Good files


def test_npz_is_loaded_unchanged(saved):
    path = saved()
    data = datasets.load(path)
    assert (data.name, data.source, data.image_shape) == ("own", path, (6, 7, 1))
    for field, array in arrays().items():
        found = getattr(data, field)
        assert found.dtype == (np.uint8 if field.startswith("x") else np.int32)
        np.testing.assert_array_equal(found[..., 0] if field.startswith("x") else found, array)


# Narrow images; strips of one row with many channels; many channels.
NARROW = [(1, 28, 1), (3, 40, 3), (4, 4, 4), (1, 100, 12), (3, 500, 100), (1, 3, 16), (5, 5, 64), (28, 1, 28)]


@pytest.mark.parametrize("shape", [(28, 28, 1), (5, 9, 3), (1, 1), *NARROW])
def test_npz_of_any_image_size_with_and_without_channels(saved, shape):
    x_train, x_test = (np.full((n, *shape), n, "uint8") for n in (20, 10))
    data = datasets.load(saved(x_train=x_train, x_test=x_test))
    assert data.image_shape == (*shape, 1)[:3]
    assert (data.x_train == 20).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npz_of_floats_is_rounded_to_bytes(saved, dtype):
    # Every byte comes back, also from float16, which resolves numbers up to 1 to 2.4e-4, a sixteenth of 1 / 255.
    values = np.resize(np.arange(256), (20, 6, 7)).astype("uint8")
    data = datasets.load(saved(x_train=(values / 255).astype(dtype), x_test=np.full((10, 6, 7), 0.9985, dtype)))
    np.testing.assert_array_equal(data.x_train[..., 0], values)
    # .9985 * 255 = 254.62 is rounded, not truncated; float16 has .9985 to 2.4e-4, which is .06 of a byte.
    assert (data.x_test == 255).all()


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "int64", "uint64", ">i4"])
def test_npz_of_other_integers(saved, dtype):
    changes = {field: array.astype(dtype) for field, array in arrays().items()}
    assert datasets.load(saved(**changes)).sha256() == datasets.load(saved()).sha256()


def test_npz_compressed_with_further_arrays_any_classes_and_labels_in_a_column(tmp_path):
    changes = {"y_train": np.arange(20)[:, None] * 1000, "y_test": np.full((10, 1), 7000.0)}
    np.savez_compressed(tmp_path / "own.npz", **arrays(**changes), remark=np.array("made by hand"))
    data = datasets.load(str(tmp_path / "own.npz"))
    np.testing.assert_array_equal(data.y_train, np.arange(20) * 1000)
    np.testing.assert_array_equal(data.y_test, 7000)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 96, 64), (2, 6, 7), (1, 68, 30), (3, 5, 20)])
@pytest.mark.parametrize("where", ["x_train", "x_test"])
def test_channels_in_front_are_refused_with_a_hint(saved, shape, where):
    n = {"x_train": 20, "x_test": 10}[where]
    path = saved(**{where: np.zeros((n, *shape), "uint8")})
    message = refused(datasets.load, path)
    assert message.startswith(f"{path}: {where} must have the shape (n, height, width, channels); it has {(n, *shape)}")
    assert message.endswith("numpy.moveaxis(images, 1, -1) puts the channels last")
    moved = {
        f"x_{part}": np.moveaxis(np.zeros((n, *shape), "uint8"), 1, -1) for part, n in (("train", 20), ("test", 10))
    }
    assert datasets.load(saved(**moved)).image_shape == (*shape[1:], shape[0])


# Bad files

X, Y = arrays()["x_train"], arrays()["y_train"]
NOT_A_NUMBER = np.where(np.arange(840).reshape(20, 6, 7) == 100, np.nan, 0.5)

BAD = {
    "missing field": ({"y_test": None}, "lacks y_test; it has x_train, y_train, x_test"),
    "two missing fields": ({"x_train": None, "y_test": None}, "lacks x_train, y_test"),
    "flat images": ({"x_train": X.reshape(20, -1)}, "x_train must have the shape (n, height, width) or "),
    "rank five": ({"x_test": X[:10, ..., None, None]}, "x_test must have the shape", "it has (10, 6, 7, 1, 1)"),
    "single number": ({"x_train": np.uint8(3)}, "x_train must not be empty"),
    "one-hot labels": ({"y_train": np.eye(5)[Y]}, "y_train must have the shape (n,); it has (20, 5)"),
    "not a number": ({"x_train": NOT_A_NUMBER}, "x_train must be finite; it holds 1 values that are not"),
    "infinite": ({"x_train": np.full((20, 6, 7), np.inf)}, "x_train must be finite; it holds 840 values"),
    "no label": ({"y_train": np.where(Y == 1, np.nan, Y)}, "y_train must be finite; it holds 4 values"),
    "floats up to 255": ({"x_train": X.astype(float)}, "x_train must lie in [0, 1] if it holds floats", "[0, 25"),
    "floats from -1": ({"x_test": X[:10] / 127.5 - 1}, "x_test must lie in [0, 1] if it holds floats"),
    "above 255": ({"x_train": X.astype("int32") + 1000}, "x_train must lie in [0, 255]; it lies in [100"),
    "below 0": ({"x_test": X[:10].astype("int8") | -128}, "x_test must lie in [0, 255]; it lies in [-128"),
    "float labels": ({"y_train": Y + 0.5}, "y_train must hold non-negative integers below 2**31", "0.5 and 4.5"),
    "negative labels": ({"y_test": np.arange(10) % 5 - 1}, "y_test must hold non-negative integers", "-1 and 3"),
    "huge labels": ({"y_train": Y + 2**31}, "y_train must hold non-negative integers"),
    "lengths of train": ({"y_train": Y[:19]}, "x_train has 20 images, but y_train has 19 labels"),
    "lengths of test": ({"x_test": X[:9]}, "x_test has 9 images, but y_test has 10 labels"),
    "unknown class": ({"y_test": np.arange(10)}, "y_test has the classes [5, 6, 7, 8, 9], which y_train lacks"),
    "objects": ({"x_train": X.astype(object)}, "x_train cannot be read ", "allow_pickle=False"),
    "booleans": ({"x_train": X > 100}, "x_train must hold real numbers; it is of dtype bool"),
    "complex": ({"x_train": X * 1j}, "x_train must hold real numbers; it is of dtype complex128"),
    "strings": ({"y_train": Y.astype(str)}, "y_train must hold real numbers; it is of dtype <U"),
    "dates": ({"y_train": Y.astype("datetime64[s]")}, "y_train must hold real numbers; it is of dtype datetime64"),
    "no images": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test must not be empty; it has shape (0, 6, 7)"),
    "no pixels": ({"x_train": X[:, :0]}, "x_train must not be empty; it has shape (20, 0, 7)"),
    "other size": ({"x_test": X[:10, :5]}, "x_train has images (6, 7, 1), but x_test has images (5, 7, 1)"),
    "other channels": (
        {"x_test": np.zeros((10, 6, 7, 3))},
        "x_train has images (6, 7, 1), but x_test has images (6, 7, 3)",
    ),
}


@pytest.mark.parametrize("changes, begin, rest", [(*each, "")[:3] for each in BAD.values()], ids=BAD)
@pytest.mark.filterwarnings("error")
def test_bad_npz_is_refused_in_one_line_that_names_file_and_array(saved, changes, begin, rest):
    path = saved(**changes)
    message = refused(datasets.load, path)
    assert message.startswith(f"{path}: {begin}") and rest in message


def damage(path, kind):
    content = path.read_bytes()
    if kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "single array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "flipped bytes":
        middle = content.index(b"x_train") + 400
        flipped = bytes(255 - byte for byte in content[middle : middle + 8])
        path.write_bytes(content[:middle] + flipped + content[middle + 8 :])
    elif kind == "short member":
        member = io.BytesIO()
        np.save(member, arrays()["x_train"])
        with zipfile.ZipFile(path, "w") as archive:
            for field in FIELDS:
                archive.writestr(f"{field}.npy", member.getvalue()[:-100])
    else:
        path.write_bytes({"empty": b"", "text": b"x_train,y_train\n1,2\n", "pickle": b"\x80\x04K\x01."}[kind])


@pytest.mark.parametrize("kind", ["empty", "half", "text", "single array", "pickle", "flipped bytes", "short member"])
def test_damaged_npz_is_refused_in_one_line(saved, kind, tmp_path):
    path = saved()
    damage(tmp_path / "own.npz", kind)
    inside = kind in ("flipped bytes", "short member")
    expected = "x_train cannot be read (" if inside else "not a readable .npz archive ("
    assert refused(datasets.load, path).startswith(f"{path}: {expected}")


def test_path_that_is_no_file_or_a_builtin_name_is_refused(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "none.npz", tmp_path / "folder.npz"):
        assert refused(datasets.load, str(path)) == f"--dataset: there is no file {path}"
    np.savez(tmp_path / "mnist.npz", **arrays())
    message = refused(datasets.load, str(tmp_path / "mnist.npz"))
    assert message.endswith("mnist.npz would be taken for the built-in mnist; rename the file")


@pytest.mark.parametrize("name", ["cifar10", "MNIST", "", "own.npy", "FILE", "FILE.npz"])
def test_unknown_name(name):
    message = refused(datasets.load, name)
    known = "auto, mnist, fashion_mnist, kmnist, emnist_letters, digits, FILE.npz"
    expected = f"unknown name {name!r}; known are {known}" if name != "FILE.npz" else f"there is no file {name}"
    assert message == f"--dataset: {expected}"


# Without data and network


@pytest.fixture
def cut_off(tmp_path, monkeypatch):
    """No data in any folder, and no host that answers: the folder of all folders, and the addresses tried."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    asked = []
    monkeypatch.setattr(datasets, "_unreachable", lambda url, *_: asked.append(url) or "ConnectionError")
    return tmp_path, asked


def test_auto_falls_back_to_the_digits_and_says_so(cut_off):
    said = []
    assert datasets.resolve("auto", said.append) == "digits"
    (text,) = said
    assert text.startswith("No MNIST: ")
    assert "Using the embedded digits instead (--dataset mnist would stop here)" in text
    assert len(cut_off[1]) == 1
    assert datasets.load("auto", quiet).name == "digits"


@pytest.mark.parametrize("name", TFDS_NAMES)
def test_missing_dataset_says_what_was_tried_and_how_to_supply_it(cut_off, name):
    folder, asked = cut_off
    message, builder = refused(datasets.load, name, quiet), name.replace("emnist_letters", "emnist/letters")
    assert f"{name} is not in {folder}/data/{builder} and {folder}/home/tensorflow_datasets/{builder}" in message
    assert f"{asked[0]} cannot be reached (ConnectionError)" in message
    for text in ("To supply it by hand", f"tfds.load('{builder}', data_dir='DIR')", "TFDS_DATA_DIR=DIR", "FILE.npz"):
        assert text in message


def test_known_names_resolve_without_looking_for_data(cut_off):
    for name in (*TFDS_NAMES, "digits"):
        assert datasets.resolve(name, quiet) == name
    assert not cut_off[1]


def test_newest_complete_version_is_used(cut_off):
    def prepare(version):
        folder = cut_off[0] / "data" / "mnist" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")

    # What an interrupted download leaves behind does not count.
    prepare("4.0.0.incompleteABC123_0")
    assert datasets.resolve("auto", quiet) == "digits"
    assert "cannot be reached" in refused(datasets.load, "mnist", quiet)
    for version in ("3.0.9", "3.0.10", "2.0.0"):
        prepare(version)
    assert datasets._prepared("mnist").name == "3.0.10"
    assert datasets.resolve("auto", quiet) == "mnist"


def test_failed_download_is_one_line(cut_off, monkeypatch):
    monkeypatch.setattr(datasets, "_unreachable", lambda *_: None)
    # Importing a module that is None in sys.modules raises an ImportError.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = refused(datasets.load, "mnist", quiet)
    assert f"downloading it to {cut_off[0]}/data failed (ModuleNotFoundError: " in message
    assert "To supply it by hand" in message


def test_host_that_does_not_answer_is_unreachable():
    # Port 9 of this machine refuses at once, as a host does without a network.
    assert datasets._unreachable("http://127.0.0.1:9/", 5.0) in ("ConnectionError", "ProxyError")


# EMNIST, prepared in miniature


@pytest.fixture
def letters(cut_off):
    """26 training and 26 test images as EMNIST stores them, rows and columns swapped: its folder, the upright images.

    Each upright image is an L, marked by its label.
    """
    import tensorflow_datasets as tfds

    folder = cut_off[0] / "data" / "emnist" / "letters" / "3.1.0"
    folder.mkdir(parents=True)
    upright = np.zeros((26, 28, 28, 1), "uint8")
    upright[:, 4:24, 6:9] = upright[:, 21:24, 6:20] = 255
    upright[:, 0, 0, 0] = np.arange(1, 27)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="emnist", version=tfds.core.Version("3.1.0"), data_dir=str(folder), module_name="", config_name="letters"
    )
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=37)}
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=100)
    writer.initialize_splits(["train", "test"])
    stored = [{"image": image.swapaxes(0, 1), "label": label} for label, image in enumerate(upright, 1)]
    writer.add_examples({"train": stored, "test": stored})
    writer.close_all()
    return folder, upright


def test_letters_are_upright_and_have_the_labels_1_to_26(letters):
    data = datasets.load("emnist_letters", quiet)
    assert (data.name, data.source) == ("emnist_letters", str(letters[0]))
    for images, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert sorted(labels.tolist()) == list(range(1, 27))
        np.testing.assert_array_equal(images, letters[1][labels - 1])


def records(content, number):
    """The first records of a TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    end = 0
    for _ in range(number):
        end += 8 + 4 + struct.unpack("<Q", content[end : end + 8])[0] + 4
    return content[:end]


@pytest.mark.parametrize(
    "kind", ["cut in a record", "cut between records", "shard removed", "flipped byte", "broken info", "no features"]
)
def test_damaged_data_are_refused_in_one_line_that_names_their_folder(letters, kind):
    folder, _ = letters
    (shard,) = folder.glob("emnist-train.tfrecord*")
    content = shard.read_bytes()
    if kind == "cut in a record":
        shard.write_bytes(content[: len(content) // 2])
    elif kind == "cut between records":
        shard.write_bytes(records(content, 10))
    elif kind == "shard removed":
        shard.unlink()
    elif kind == "flipped byte":
        shard.write_bytes(content[:500] + bytes([255 - content[500]]) + content[501:])
    elif kind == "broken info":
        (folder / "dataset_info.json").write_text('{"name": "emnist", ')
    elif kind == "no features":
        (folder / "features.json").unlink()
    message = refused(datasets.load, "emnist_letters", quiet)
    assert message.startswith(f"{folder}: the prepared emnist_letters is damaged or incomplete (")
    assert "Remove that folder and try again. To supply it by hand" in message
    if kind == "cut between records":
        assert "26 elements" in message and "only 10" in message


# The real MNIST


@pytest.mark.mnist
def test_mnist(mnist_folder):
    data = datasets.load("mnist", quiet)
    assert data.name == "mnist" and data.source.startswith(str(mnist_folder))
    assert data.x_train.shape == (60_000, 28, 28, 1) and data.x_test.shape == (10_000, 28, 28, 1)
    assert data.x_train.dtype == np.uint8
    assert (data.x_train.min(), data.x_train.max()) == (0, 255)
    # LeCun's files hold these numbers of 0 to 9.
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The well-known mean grey value of MNIST's training images.
    assert abs(data.x_train.mean() / 255 - 0.1307) < 5e-5


@pytest.mark.mnist
def test_data_in_the_home_folder_are_found_too(mnist_folder, cut_off, monkeypatch):
    (cut_off[0] / "home").mkdir()
    (cut_off[0] / "home" / "tensorflow_datasets").symlink_to(mnist_folder)
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert datasets.resolve("auto", quiet) == "mnist"
    assert not cut_off[1]
