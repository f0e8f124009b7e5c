"""Names and files -> images and labels, or one clear line."""

import builtins
import io
import shutil
import struct
import zipfile

import numpy as np
import pytest

from invariance import datasets
from invariance.errors import UserError


def quiet(*_):
    pass


def one_line(error) -> str:
    """The message of a UserError, which must be a single line."""
    assert type(error.value) is UserError
    message = str(error.value)
    assert message and "\n" not in message
    return message


def arrays(**changes) -> dict:
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
def digits():
    return datasets.load("digits")


def test_digits_are_scikit_learns(digits):
    assert digits.name == "digits"
    assert digits.x_train.shape == (1437, 28, 28, 1)
    assert digits.x_test.shape == (360, 28, 28, 1)
    assert digits.image_shape == (28, 28, 1)
    assert digits.x_train.dtype == digits.x_test.dtype == np.uint8
    assert digits.y_train.dtype == digits.y_test.dtype == np.int32
    # load_digits has 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180 images of 0 to 9.
    both = np.bincount(digits.y_train) + np.bincount(digits.y_test)
    assert both.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # A stratified fifth of each.
    assert set(np.bincount(digits.y_test).tolist()) == {35, 36, 37}


def test_digits_fill_the_range_and_leave_a_border(digits):
    for images in (digits.x_train, digits.x_test):
        assert images.min() == 0
        assert images.max() == 255
        assert images[:, 4:24, 4:24].any()
        inside = np.zeros((28, 28), bool)
        inside[4:24, 4:24] = True
        assert not images[:, ~inside].any()


def test_digits_are_the_same_every_time(digits):
    again = datasets.load("digits").sha256()
    assert again == digits.sha256()
    assert set(again) == {"x_train", "y_train", "x_test", "y_test"}
    assert all(len(value) == 64 and int(value, 16) for value in again.values())
    # Labels hold no interpolation, so their checksum is the same on every machine.
    assert again["y_test"] == "0cf64f17ee4528aa5ff2ec71549aa938614b54fecd8e6e77f11c4497fa529fda"


def test_checksum_sees_values_shape_and_dtype(digits):
    data = datasets.Data("own", *(np.arange(24, dtype="uint8").reshape(2, 3, 4, 1),) * 4, source="")
    other_values, other_shape, other_dtype = (
        datasets.Data("own", *(array,) * 4, source="").sha256()["x_train"]
        for array in (data.x_train + 1, data.x_train.reshape(2, 4, 3, 1), data.x_train.view("int8"))
    )
    assert len({data.sha256()["x_train"], other_values, other_shape, other_dtype}) == 4
    # The layout in memory does not count.
    fortran = datasets.Data("own", *(np.asfortranarray(data.x_train),) * 4, source="")
    assert fortran.sha256() == data.sha256()


def test_select_keeps_the_images_of_the_labels(digits):
    chosen = digits.select([3, 4])
    assert set(chosen.y_train.tolist()) == set(chosen.y_test.tolist()) == {3, 4}
    assert len(chosen.x_train) == len(chosen.y_train) == np.isin(digits.y_train, [3, 4]).sum()
    np.testing.assert_array_equal(chosen.x_test, digits.x_test[np.isin(digits.y_test, [3, 4])])


# Good files


def test_npz_is_loaded_as_it_is(saved):
    path = saved()
    data = datasets.load(path)
    assert data.name == "own"
    assert data.source == path
    assert data.image_shape == (6, 7, 1)
    for field, array in arrays().items():
        found = getattr(data, field)
        assert found.dtype == (np.uint8 if field.startswith("x") else np.int32)
        np.testing.assert_array_equal(found[..., 0] if field.startswith("x") else found, array)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28, 1), (5, 9, 3), (1, 1)])
def test_npz_of_any_image_size_with_and_without_channels(saved, shape):
    x_train, x_test = (np.full((n, *shape), n, "uint8") for n in (20, 10))
    data = datasets.load(saved(x_train=x_train, x_test=x_test))
    assert data.image_shape == (*shape, 1)[:3]
    assert (data.x_train == 20).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npz_of_floats_is_rounded_to_bytes(saved, dtype):
    # Every byte comes back: also in float16, which knows numbers up to 1 to 2.4e-4, a sixteenth of 1 / 255.
    values = np.resize(np.arange(256), (20, 6, 7)).astype("uint8")
    data = datasets.load(saved(x_train=(values / 255).astype(dtype), x_test=np.full((10, 6, 7), 0.9985, dtype)))
    np.testing.assert_array_equal(data.x_train[..., 0], values)
    # .9985 * 255 = 254.62 is rounded, not cut; float16 knows .9985 to 2.4e-4, which is .06 of a byte.
    assert (data.x_test == 255).all()


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "int64", "uint64", ">i4"])
def test_npz_of_other_integers(saved, dtype):
    changes = {field: array.astype(dtype) for field, array in arrays().items()}
    assert datasets.load(saved(**changes)).sha256() == datasets.load(saved()).sha256()


def test_npz_with_any_classes_and_labels_as_a_column(saved):
    data = datasets.load(saved(y_train=np.arange(20)[:, None] * 1000, y_test=np.full((10, 1), 7000.0)))
    np.testing.assert_array_equal(data.y_train, np.arange(20) * 1000)
    np.testing.assert_array_equal(data.y_test, 7000)


def test_npz_compressed_and_with_further_arrays(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", **arrays(), remark=np.array("made by hand"))
    assert datasets.load(str(tmp_path / "own.npz")).image_shape == (6, 7, 1)


# Bad files

X, Y = arrays()["x_train"], arrays()["y_train"]
NOT_A_NUMBER = np.where(np.arange(840).reshape(20, 6, 7) == 100, np.nan, 0.5)

BAD = [
    ("missing field", {"y_test": None}, "lacks y_test; it has x_train, y_train, x_test"),
    ("two missing fields", {"x_train": None, "y_test": None}, "lacks x_train, y_test"),
    ("flat images", {"x_train": X.reshape(20, -1)}, r"x_train must have the shape .* it has \(20, 42\)"),
    ("rank five", {"x_test": X[:10, ..., None, None]}, r"x_test must have the shape .* it has \(10, 6, 7, 1, 1\)"),
    ("single number", {"x_train": np.uint8(3)}, "x_train must not be empty"),
    ("one-hot labels", {"y_train": np.eye(5)[Y]}, r"y_train must have the shape \(n,\); it has \(20, 5\)"),
    ("not a number", {"x_train": NOT_A_NUMBER}, "x_train must be finite; it holds 1 values that are not"),
    ("infinite", {"x_train": np.full((20, 6, 7), np.inf)}, "x_train must be finite; it holds 840 values"),
    ("not a label", {"y_train": np.where(Y == 1, np.nan, Y)}, "y_train must be finite; it holds 4 values"),
    ("floats up to 255", {"x_train": X.astype(float)}, r"x_train must lie in \[0, 1\] .* lies in \[0, 25\d\]"),
    ("floats from -1", {"x_test": X[:10] / 127.5 - 1}, r"x_test must lie in \[0, 1\] where it is of floats"),
    (
        "integers above 255",
        {"x_train": X.astype("int32") + 1000},
        r"x_train must lie in \[0, 255\]; it lies in \[100\d",
    ),
    (
        "negative integers",
        {"x_test": X[:10].astype("int8") | -128},
        r"x_test must lie in \[0, 255\]; it lies in \[-128",
    ),
    ("float labels", {"y_train": Y + 0.5}, "y_train must hold non-negative integers; it holds values from 0.5 to 4.5"),
    ("negative labels", {"y_test": np.arange(10) % 5 - 1}, "y_test must hold non-negative integers; .* from -1 to 3"),
    ("huge labels", {"y_train": Y + 2**31}, "y_train must hold non-negative integers"),
    ("lengths of train differ", {"y_train": Y[:19]}, "x_train has 20 images and y_train 19 labels"),
    ("lengths of test differ", {"x_test": X[:9]}, "x_test has 9 images and y_test 10 labels"),
    ("unknown class", {"y_test": np.arange(10)}, r"y_test has the classes \[5, 6, 7, 8, 9\], which y_train has not"),
    ("objects", {"x_train": X.astype(object)}, "x_train cannot be read .*allow_pickle=False"),
    ("booleans", {"x_train": X > 100}, "x_train must hold real numbers; it is of dtype bool"),
    ("boolean labels", {"y_train": Y > 2}, "y_train must hold real numbers; it is of dtype bool"),
    ("complex", {"x_train": X * 1j}, "x_train must hold real numbers; it is of dtype complex128"),
    ("texts", {"y_train": Y.astype(str)}, "y_train must hold real numbers; it is of dtype <U"),
    ("dates", {"y_train": Y.astype("datetime64[s]")}, "y_train must hold real numbers; it is of dtype datetime64"),
    ("no images", {"x_test": X[:0], "y_test": Y[:0]}, r"x_test must not be empty; it has shape \(0, 6, 7\)"),
    ("images without pixels", {"x_train": X[:, :0]}, r"x_train must not be empty; it has shape \(20, 0, 7\)"),
    ("other size of test images", {"x_test": X[:10, :5]}, r"x_train has .* \(6, 7, 1\) and x_test of \(5, 7, 1\)"),
    ("other channels of test images", {"x_test": np.zeros((10, 6, 7, 3))}, r"\(6, 7, 1\) and x_test of \(6, 7, 3\)"),
]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
@pytest.mark.filterwarnings("error")
def test_bad_npz_is_refused_in_one_line_that_names_file_and_field(saved, changes, expected):
    path = saved(**changes)
    with pytest.raises(UserError, match=expected) as refused:
        datasets.load(path)
    assert one_line(refused).startswith(f"{path}: ")


def test_file_that_is_not_there(tmp_path):
    path = str(tmp_path / "none.npz")
    with pytest.raises(UserError) as refused:
        datasets.load(path)
    assert one_line(refused) == f"--dataset: there is no file {path}"


def test_folder_is_no_file(tmp_path):
    (tmp_path / "own.npz").mkdir()
    with pytest.raises(UserError, match="there is no file") as refused:
        datasets.load(str(tmp_path / "own.npz"))
    one_line(refused)


def damaged(path, kind):
    """Damages a good file."""
    content = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path.write_text("x_train,y_train\n1,2\n")
    elif kind == "single array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "pickle":
        path.write_bytes(b"\x80\x04K\x01.")
    elif kind == "flipped bytes":
        middle = content.index(b"x_train") + 400
        path.write_bytes(
            content[:middle] + bytes(255 - byte for byte in content[middle : middle + 8]) + content[middle + 8 :]
        )
    elif kind == "short member":
        member = io.BytesIO()
        np.save(member, arrays()["x_train"])
        with zipfile.ZipFile(path, "w") as archive:
            for field in arrays():
                archive.writestr(f"{field}.npy", member.getvalue()[:-100])


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        *((kind, "not a readable .npz archive (") for kind in ("empty", "half", "text", "single array", "pickle")),
        ("flipped bytes", "x_train cannot be read ("),
        ("short member", "x_train cannot be read ("),
    ],
)
def test_damaged_file_is_refused_in_one_line(saved, kind, what, tmp_path):
    path = saved()
    damaged(tmp_path / "own.npz", kind)
    with pytest.raises(UserError) as refused:
        datasets.load(path)
    assert one_line(refused).startswith(f"{path}: {what}")


def test_file_named_like_a_dataset_is_refused(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays())
    with pytest.raises(UserError, match="would be taken for the built-in mnist; rename the file") as refused:
        datasets.load(str(tmp_path / "mnist.npz"))
    one_line(refused)


@pytest.mark.parametrize("name", ["cifar10", "MNIST", "", "own.npy", "FILE"])
def test_unknown_name(name):
    with pytest.raises(UserError) as refused:
        datasets.load(name)
    assert one_line(refused) == (
        f"--dataset: unknown name {name!r}; known are auto, mnist, fashion_mnist, kmnist, digits, FILE.npz"
    )


# Without data and network


@pytest.fixture
def cut_off(tmp_path, monkeypatch):
    """No data in any folder, and no host that answers."""
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
    assert "Taking the embedded digits instead (--dataset mnist would stop here)" in text
    assert len(cut_off[1]) == 1
    assert datasets.load("auto", quiet).name == "digits"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_named_dataset_without_data_says_what_was_tried_and_how_to_supply_it(cut_off, name):
    folder, asked = cut_off
    with pytest.raises(UserError) as refused:
        datasets.load(name, quiet)
    message = one_line(refused)
    assert f"{name} is not in {folder}/data/{name} and {folder}/home/tensorflow_datasets/{name}" in message
    assert f"{asked[0]} cannot be reached (ConnectionError)" in message
    assert "To supply it by hand" in message
    assert f"tfds.load('{name}', data_dir='DIR')" in message
    assert "TFDS_DATA_DIR=DIR" in message
    assert "--dataset FILE.npz" in message


def test_known_names_resolve_without_looking_for_data(cut_off):
    for name in ("mnist", "fashion_mnist", "kmnist", "digits"):
        assert datasets.resolve(name, quiet) == name
    assert not cut_off[1]


def test_folder_left_by_a_broken_download_is_not_taken(cut_off):
    left = cut_off[0] / "data" / "mnist" / "3.0.1.incompleteABC123_0"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{}")
    assert datasets.resolve("auto", quiet) == "digits"
    with pytest.raises(UserError, match="cannot be reached") as refused:
        datasets.load("mnist", quiet)
    one_line(refused)


def test_newest_prepared_version_is_taken(cut_off):
    for version in ("3.0.1", "3.0.10", "2.0.0", "4.0.0.incompleteX"):
        (cut_off[0] / "data" / "mnist" / version).mkdir(parents=True)
        (cut_off[0] / "data" / "mnist" / version / "dataset_info.json").write_text("{}")
    assert datasets._prepared("mnist").name == "3.0.10"
    assert datasets.resolve("auto", quiet) == "mnist"


def test_failed_download_is_one_line(cut_off, monkeypatch):
    monkeypatch.setattr(datasets, "_unreachable", lambda *_: None)
    real = builtins.__import__

    def broken(name, *arguments, **keywords):
        if name == "tensorflow_datasets":
            raise ImportError("no such module\nand a second line")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(UserError, match=r"failed \(ImportError: no such module\)\. To supply it by hand") as refused:
        datasets.load("mnist", quiet)
    one_line(refused)


def test_host_that_does_not_answer_is_unreachable():
    # Port 9 of this machine: refused at once. Without the network this is how a host looks.
    assert datasets._unreachable("http://127.0.0.1:9/", 5.0) in ("ConnectionError", "ProxyError")


# The real MNIST


@pytest.mark.mnist
def test_mnist(mnist_folder):
    data = datasets.load("mnist", quiet)
    assert data.name == "mnist"
    assert data.source.startswith(str(mnist_folder))
    assert data.x_train.shape == (60_000, 28, 28, 1)
    assert data.x_test.shape == (10_000, 28, 28, 1)
    assert data.x_train.dtype == np.uint8
    assert (data.x_train.min(), data.x_train.max()) == (0, 255)
    # LeCun's files hold these numbers of 0 to 9.
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean grey value that everybody divides MNIST's training images by.
    assert abs(data.x_train.mean() / 255 - 0.1307) < 5e-5


@pytest.fixture
def copied(mnist_folder, tmp_path, monkeypatch):
    """A copy of the prepared MNIST that may be damaged; returns its version folder."""
    shutil.copytree(mnist_folder / "mnist", tmp_path / "mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(datasets, "_unreachable", lambda *_: "ConnectionError")
    return datasets._prepared("mnist")


def records(content, number):
    """The first records of a TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    end = 0
    for _ in range(number):
        end += 8 + 4 + struct.unpack("<Q", content[end : end + 8])[0] + 4
    return content[:end]


@pytest.mark.mnist
@pytest.mark.parametrize(
    "kind", ["cut in a record", "cut between records", "shard removed", "flipped byte", "broken info", "no features"]
)
def test_damaged_mnist_is_refused_in_one_line(copied, kind):
    shard = next(copied.glob("mnist-train.tfrecord*"))
    content = shard.read_bytes()
    if kind == "cut in a record":
        shard.write_bytes(content[:100_000])
    elif kind == "cut between records":
        shard.write_bytes(records(content, 500))
    elif kind == "shard removed":
        shard.unlink()
    elif kind == "flipped byte":
        shard.write_bytes(content[:50_000] + bytes([255 - content[50_000]]) + content[50_001:])
    elif kind == "broken info":
        (copied / "dataset_info.json").write_text('{"name": "mnist", ')
    elif kind == "no features":
        (copied / "features.json").unlink()
    with pytest.raises(UserError) as refused:
        datasets.load("mnist", quiet)
    message = one_line(refused)
    assert message.startswith(f"{copied}: the prepared mnist is damaged or incomplete (")
    assert "Remove that folder and try again" in message
    if kind == "cut between records":
        assert "60000 elements" in message and "only 500" in message


@pytest.mark.mnist
def test_data_in_the_home_folder_is_found_too(mnist_folder, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tensorflow_datasets").symlink_to(mnist_folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert datasets.resolve("auto", quiet) == "mnist"
