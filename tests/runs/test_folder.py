"""The run folder: atomic writing, the lock, reading what is damaged, gathering. Nothing here needs TensorFlow."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from invariance import files
from invariance.errors import RunError, UserError
from invariance.files import read_csv, replacing, write_csv, write_json, write_text
from invariance.report.statistics import aggregate
from invariance.runs import folder as folders
from invariance.runs.find import REPEATED, Run, find, once
from invariance.runs.folder import RunFolder
from tests.runs.cases import CASES

CONFIG = {"commit": "c", "protocol": CASES["recognition_by_rotation"].task.to_json()}

REPOSITORY = Path(__file__).resolve().parents[2]
# Starting Python and importing the module takes a fraction of a second; a busy machine may need much more.
PATIENCE = 60


def python(code, *arguments, **options):
    """Starts Python on a piece of code, with pipes for what it prints."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def output(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out.strip()


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# Writing


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
def test_full_disk_at_fsync_leaves_the_old_file(tmp_path, monkeypatch, write, value):
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


def test_real_size_limit_leaves_the_old_file(tmp_path):
    """A limit on the size of files stops the write half-way, as a full disk or a quota does."""
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
    assert output(python(code, path)) == f"cannot write {path}: File too large"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["metrics.json"]


def test_folder_that_is_not_there_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="No such file or directory") as caught:
        write_text(tmp_path / "no" / "file", "text")
    assert "\n" not in str(caught.value)


def test_values_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "metrics.json", {"p_test": float("nan")})
    assert names(tmp_path) == []


def test_kill_while_writing_leaves_nothing_that_looks_complete(tmp_path):
    folder = RunFolder(tmp_path / "run")
    code = """
import sys, time
from invariance.files import replacing
from invariance.runs.folder import RunFolder
folder = RunFolder(__import__("pathlib").Path(sys.argv[1]))
with folder.locked(), replacing(folder / "metrics.json") as partial:
    partial.write_text('{"p_test": 0.9')
    print("writing", flush=True)
    time.sleep(600)
"""
    process = python(code, folder.path)
    try:
        assert process.stdout.readline() == "writing\n"
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert not folder.done
    assert any(name.startswith(".partial-") for name in names(folder.path))
    with folder.locked():
        assert names(folder.path) == [".lock"]


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


def test_csv_of_nothing_reads_as_nothing(tmp_path):
    write_csv(tmp_path / "rows.csv", [])
    assert read_csv(tmp_path / "rows.csv") == []


# The lock

HOLD = """
import sys, time
from pathlib import Path
from invariance.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
with folder.locked():
    (folder / ".partial-1-metrics.json").write_text("mine")
    print("held", flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.readline()
    else:
        time.sleep(float(sys.argv[2]))
    print((folder / ".partial-1-metrics.json").read_text())
"""


def test_second_process_is_refused_and_first_is_undisturbed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = python(HOLD, folder.path, "wait", stdin=subprocess.PIPE)
    try:
        assert first.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(RunError) as caught, folder.locked(patience=0.5):
            pytest.fail("two processes held one run folder")
        assert time.monotonic() - began >= 0.5
        assert str(caught.value) == f"the run folder {folder.path} is in use by process {first.pid}"
        out, err = first.communicate("go\n", timeout=PATIENCE)
        assert (out, err, first.returncode) == ("mine\n", "", 0)
    finally:
        first.kill()


def test_waits_for_a_lock_that_is_released_soon(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = python(HOLD, folder.path, "1")
    try:
        assert first.stdout.readline() == "held\n"
        with folder.locked(patience=PATIENCE):
            assert (folder / ".lock").read_text() == f"{os.getpid()}\n"
            assert first.wait(timeout=PATIENCE) == 0
    finally:
        first.kill()
        first.communicate()


def test_lock_of_a_killed_process_is_free_at_once(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = python(HOLD, folder.path, "wait", stdin=subprocess.PIPE)
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=PATIENCE)
    with folder.locked(patience=0):
        pass


def test_lock_is_released_after_an_error(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with folder.locked(patience=0):
        pass


def test_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with RunFolder(tmp_path / "run").locked(patience=0):
        assert (tmp_path / "run" / ".lock").exists()


def test_folder_that_cannot_be_made_is_a_run_error(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(RunError) as caught, RunFolder(tmp_path / "runs" / "run").locked():
        pytest.fail("locked a folder that cannot exist")
    assert str(caught.value) == f"cannot use the run folder {tmp_path / 'runs' / 'run'}: Not a directory"


def test_clear_keeps_the_lock_only(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        write_json(folder / "metrics.json", {})
        write_json(folder / "config.json", {})
        (folder / "tensorboard").mkdir()
        write_text(folder / "tensorboard" / "events", "")
        (tmp_path / "kept").mkdir()
        (folder / "elsewhere").symlink_to(tmp_path / "kept")
        folder.clear()
        assert names(folder.path) == [".lock"]
        assert (tmp_path / "kept").is_dir()


def test_clear_of_what_cannot_be_removed(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(folder / "config.json", {})

    def refuse(path, missing_ok=False):
        if path.exists():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError, match=r"cannot remove .*config\.json: Permission denied"):
        folder.clear()


# Reading

METRICS = {"experiment": "e", "model": "m", "dataset": "d", "profile": "p", "seed": 0, "p_test": 0.5}


def store(runs, model="m", seed=0, config=CONFIG, metrics=None):
    folder = RunFolder.of(runs, "e", "d", "p", model, seed)
    folder.path.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if metrics is not None:
        (folder / "metrics.json").write_text(metrics)
    return folder


def test_path_of_a_run():
    folder = RunFolder.of("runs", "recognition_rotation", "mnist", "quick", "cnn_00", 3)
    assert folder.path == Path("runs/recognition_rotation/mnist/quick/cnn_00/seed-3")


@pytest.mark.parametrize("made", [True, False])
def test_find_without_runs(tmp_path, made):
    runs = tmp_path / "runs"
    if made:
        (runs / "e" / "d").mkdir(parents=True)
    assert find(runs) == ([], [])


def test_find_finished_and_unfinished(tmp_path):
    done = store(tmp_path, "b", metrics=json.dumps(METRICS))
    begun = store(tmp_path, "a")
    store(tmp_path, "c", config=None)  # made and locked, nothing written yet
    finished, others = find(tmp_path)
    assert [run.folder for run in finished] == [done]
    assert finished[0].metrics == METRICS and finished[0].config == CONFIG
    assert others == [(begun.path, "not finished; repeat its command to resume it")]


@pytest.mark.parametrize("damaged", ["", "{", "[1]", "null", '{"p_test": 0.9', "\x00\x01", b"\xff\xfe"])
@pytest.mark.parametrize("file", ["config", "metrics"])
def test_find_names_what_is_damaged(tmp_path, file, damaged):
    good = store(tmp_path, "good", metrics=json.dumps(METRICS))
    bad = store(tmp_path, "bad", metrics=json.dumps(METRICS))
    (bad / f"{file}.json").write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    finished, others = find(tmp_path)
    assert [run.folder for run in finished] == [good]
    [(path, reason)] = others
    assert path == bad.path
    assert reason.startswith(f"{bad.path}/{file}.json: unreadable") and "\n" not in reason


@pytest.mark.parametrize("key", ["experiment", "model", "dataset", "profile", "seed"])
def test_find_names_missing_keys(tmp_path, key):
    folder = store(tmp_path, metrics=json.dumps({name: value for name, value in METRICS.items() if name != key}))
    assert find(tmp_path) == ([], [(folder.path, f"{folder.path}/metrics.json: lacks {key}")])


def test_the_same_run_in_two_folders_counts_once(tmp_path):
    here, there = Path("here"), Path("there")
    keys = ("experiment", "model", "dataset", "profile")
    names = [{**dict.fromkeys(keys, "x"), "seed": seed} for seed in (0, 1)]
    runs = [
        Run(RunFolder(folder), {}, {**metrics, **changes}, None)
        for folder, metrics, changes in (
            (here, names[0], {}),
            (here, names[1], {}),
            (there, names[0], {}),
            *((there, names[0], {key: "y"}) for key in keys),
        )
    ]
    kept, others = once(runs)
    assert kept == [*runs[:2], *runs[3:]]
    assert others == [(there, REPEATED)]


def test_provenance_of_a_resumed_run():
    first, second = {"device": "a", "commit": "1"}, {"device": "b", "commit": "1"}
    run = Run(RunFolder(Path("x")), {**first, "resumed": [second, first]}, {}, None)
    assert (run.provenance("device"), run.provenance("commit")) == ("a then b", "1")
    assert Run(RunFolder(Path("x")), {}, {}, None).provenance("device") == "unknown"


def test_find_is_quick_with_hundreds_of_runs(tmp_path):
    for seed in range(400):
        store(tmp_path, seed=seed, metrics=json.dumps({**METRICS, "seed": seed}))
    began = time.perf_counter()
    finished, others = find(tmp_path)
    # 0.03 s on an idle core; the bound only excludes something quadratic, also on a machine ten times as slow.
    assert time.perf_counter() - began < 3
    assert len(finished) == 400 and not others


def test_unreadable_files_are_user_errors(tmp_path):
    folder = store(tmp_path, config="{")
    with pytest.raises(UserError, match=r"config\.json: unreadable"):
        folder.json("config.json")
    with pytest.raises(UserError, match=r"history\.csv: unreadable"):
        folder.csv("history.csv")
    (folder / "history.csv").write_bytes(b"step,loss\n1,\xff\n")
    with pytest.raises(UserError, match=r"history\.csv: unreadable"):
        folder.csv("history.csv")


def test_aggregate():
    assert aggregate([0.25]) == (0.25, None)
    # Mean 4, squared deviations 4 + 0 + 4 = 8, divided by n - 1 = 2: variance 4. All exact in binary.
    assert aggregate([2, 4, 6]) == (4.0, 2.0)
    assert aggregate([0.5, 0.5]) == (0.5, 0.0)
