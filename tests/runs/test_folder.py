"""The run folder: held by one process at a time, cleaned up, cleared, read."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from invariance.errors import RunError, UserError
from invariance.files import write_json, write_text
from invariance.runs import folder as folders
from invariance.runs.folder import RunFolder
from tests.helpers import PATIENCE, REPOSITORY


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def test_path_of_a_run():
    folder = RunFolder.of("runs", "recognition_rotation", "mnist", "quick", "cnn_00", 3)
    assert folder.path == Path("runs/recognition_rotation/mnist/quick/cnn_00/seed-3")


# The lock

HOLD = """
import sys, time
from pathlib import Path
from invariance.files import replacing
from invariance.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
with folder.locked(), replacing(folder / "metrics.json") as partial:
    partial.write_text('{"p_test": 0.9')
    print("held", flush=True)
    sys.stdin.readline() if sys.argv[2] == "wait" else time.sleep(float(sys.argv[2]))
    print(partial.read_text())
"""


@pytest.fixture
def hold(folder):
    """Starts a process that holds the folder and is about to write metrics.json."""
    started = []

    def start(how):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder.path), how],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_second_process_is_refused_and_the_first_is_undisturbed(folder, hold):
    first = hold("wait")
    began = time.monotonic()
    with pytest.raises(RunError) as caught, folder.locked(patience=0.5):
        pytest.fail("two processes held one run folder")
    assert time.monotonic() - began >= 0.5
    assert str(caught.value) == f"the run folder {folder.path} is in use by process {first.pid}"
    out, err = first.communicate("go\n", timeout=PATIENCE)
    assert (out, err, first.returncode) == ('{"p_test": 0.9\n', "", 0)


def test_waits_for_a_lock_that_is_released_soon(folder, hold):
    first = hold("1")
    with folder.locked(patience=PATIENCE):
        assert (folder / ".lock").read_text() == f"{os.getpid()}\n"
        assert first.wait(timeout=PATIENCE) == 0


def test_kill_while_writing_leaves_nothing_that_looks_complete(folder, hold):
    first = hold("wait")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE)
    assert not folder.done
    assert any(name.startswith(".partial-") for name in names(folder))
    # The lock is free at once.
    with folder.locked(patience=0):
        assert names(folder) == [".lock"]


def test_lock_is_released_after_an_error(folder):
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with folder.locked(patience=0):
        pass


def test_file_system_without_locks(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with folder.locked(patience=0):
        assert (folder / ".lock").exists()


def test_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(RunError) as caught, RunFolder(tmp_path / "runs" / "run").locked():
        pytest.fail("locked a folder that cannot exist")
    assert str(caught.value) == f"cannot use the run folder {tmp_path / 'runs' / 'run'}: Not a directory"


# Cleared


def test_clear_keeps_the_lock_only(folder, tmp_path):
    with folder.locked():
        write_json(folder / "metrics.json", {})
        write_json(folder / "config.json", {})
        (folder / "tensorboard").mkdir()
        write_text(folder / "tensorboard" / "events", "")
        (tmp_path / "kept").mkdir()
        (folder / "elsewhere").symlink_to(tmp_path / "kept")
        folder.clear()
        assert names(folder) == [".lock"]
        assert (tmp_path / "kept").is_dir()


def test_clear_of_what_cannot_be_removed(folder, monkeypatch):
    folder.path.mkdir()
    write_json(folder / "config.json", {})

    def refuse(path, missing_ok=False):
        if path.exists():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match=r"cannot remove .*config\.json: Permission denied"):
        folder.clear()


# Read


@pytest.mark.parametrize("content", [None, "{", "[1]", "null", b"\xff\xfe"])
def test_unreadable_json_is_a_user_error(folder, content):
    folder.path.mkdir()
    if content is not None:
        (folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"config\.json: (unreadable|expected an object)"):
        folder.json("config.json")


@pytest.mark.parametrize("content", [None, b"step,loss\n1,\xff\n"])
def test_unreadable_csv_is_a_user_error(folder, content):
    folder.path.mkdir()
    if content is not None:
        (folder / "history.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"history\.csv: unreadable"):
        folder.csv("history.csv")
