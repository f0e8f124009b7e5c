"""Files are written atomically, and read back as they were."""

import os

import pytest

from invariance import files
from invariance.errors import RunError
from invariance.files import read_csv, replacing, write_csv, write_json, write_text
from tests.helpers import python


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (write_text, "new\n", "new\n"),
        (write_json, {"a": 0.1}, '{\n "a": 0.1\n}\n'),
        (write_csv, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}], "step,loss\n1,0.5\n2,0.25\n"),
        (write_csv, [], ""),
    ],
)
def test_write_replaces_the_old_file(tmp_path, write, value, text):
    (tmp_path / "file").write_text("old and longer than the new one")
    write(tmp_path / "file", value)
    assert (tmp_path / "file").read_bytes().decode() == text
    assert names(tmp_path) == ["file"]


def test_error_inside_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.npz"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half of the new")
        assert partial.suffix == ".npz" and partial.parent == tmp_path
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.npz"]


def test_the_file_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(files.os, "fsync", lambda number: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_text(tmp_path / "file", "text")
    assert calls == ["fsync", "replace"]


@pytest.mark.parametrize("write, value", [(write_text, "new"), (write_json, {"new": 1}), (write_csv, [{"new": 1}])])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, write, value):
    path = tmp_path / "file"
    path.write_text("old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError) as caught:
        write(path, value)
    assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_limit_on_the_size_of_files_leaves_the_old_file(tmp_path):
    """It stops the write half-way, as a full disk or a quota does."""
    path = tmp_path / "metrics.json"
    path.write_text("old")
    code = """
import resource, signal, sys
from invariance.errors import RunError
from invariance.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_text(sys.argv[1], "x" * 100_000)
except RunError as error:
    print(error)
"""
    done = python("-c", code, path)
    assert (done.stdout, done.stderr) == (f"cannot write {path}: File too large\n", "")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


def test_missing_folder_is_one_line(tmp_path):
    with pytest.raises(RunError, match="No such file or directory") as caught:
        write_text(tmp_path / "no" / "file", "text")
    assert "\n" not in str(caught.value)


def test_values_missing_from_json_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "metrics.json", {"p_test": float("nan")})
    assert names(tmp_path) == []


def test_csv_round_trip(tmp_path):
    # 0.1 + 0.2 needs all 17 digits; 1e-320 is denormal.
    rows = [
        {"step": 1, "loss": 0.1 + 0.2, "note": "a, b"},
        {"step": 2, "loss": 1e-320, "note": 'say "x"'},
        {"step": 3, "loss": float("inf"), "note": "line\nbreak"},
    ]
    write_csv(tmp_path / "rows.csv", rows)
    back = read_csv(tmp_path / "rows.csv")
    assert back == rows
    assert [type(value) for value in back[0].values()] == [int, float, str]
    write_csv(tmp_path / "none.csv", [])
    assert read_csv(tmp_path / "none.csv") == []
