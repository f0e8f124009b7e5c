"""The campaign notices what it looks for: kills, differences, and answers that are none."""

import json
import random
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from invariance.runs.folder import RunFolder
from tests.chaos import kills, process
from tests.chaos.comparison import differences
from tests.helpers import REPOSITORY, python

# Writes two files as a run does, the second from the first; {} stands for what a repeated command does wrong.
PROGRAM = """
import sys
from pathlib import Path
from invariance.files import write_text
folder = Path(sys.argv[1]) / "run"
folder.mkdir(parents=True, exist_ok=True)
if (folder / "first.csv").exists():
    print("resuming")
    {}
else:
    write_text(folder / "first.csv", "1")
write_text(folder / "curves.csv", (folder / "first.csv").read_text() * 3)
for path in folder.glob(".partial-*"):
    path.unlink()
"""


def run_below(runs):
    return RunFolder(Path(runs) / "run")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that writes a program, and returns what stands for its family."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPOSITORY}")

    def family(mistake="pass"):
        (tmp_path / "program.py").write_text(PROGRAM.format(mistake))
        return SimpleNamespace(module="program", model="m", argv=lambda runs: [str(runs)], folder=run_below)

    return family


@pytest.mark.parametrize("after, left", [(False, {"first.csv", ".partial"}), (True, {"first.csv", "curves.csv"})])
def test_killed_between_temporary_file_and_rename(program, tmp_path, after, left):
    family, runs, record = program(), tmp_path / "runs", tmp_path / "calls"
    calls = kills.run_whole(family, tmp_path / "whole", tmp_path).calls
    number = calls.index("replace curves.csv") + 1
    order = process.order(number, after, signal.SIGKILL, "all")
    ended = kills.finish(kills.start(family.module, family.argv(runs), record, runs, order))
    assert ended.code == -signal.SIGKILL and kills.hit(ended) and kills.fault(ended) is None
    assert len(process.recorded(record)) == number
    assert {path.name if path.name[0] != "." else ".partial" for path in (runs / "run").iterdir()} == left
    ended = kills.finish(kills.start(family.module, family.argv(runs), tmp_path / "again", runs))
    assert (ended.code, ended.out) == (0, "resuming\n")
    assert differences(runs / "run", tmp_path / "whole" / "run") == []


@pytest.mark.parametrize(
    "mistake, fault",
    [
        ("pass", None),
        ("(folder / 'first.csv').write_text('2')", "curves.csv: other bytes"),
        ("raise ValueError", "does not finish: code 1"),
    ],
)
def test_trial(program, tmp_path, monkeypatch, mistake, fault):
    # Killed when both files are there.
    monkeypatch.setattr(kills, "killed", lambda family, whole, runs, scratch, rng: ("killed", killed_at_the_end(runs)))
    family = program(mistake)
    whole = kills.run_whole(family, tmp_path / "whole", tmp_path)

    def killed_at_the_end(runs):
        order = process.order(len(whole.calls), True, signal.SIGKILL, "all")
        return kills.finish(kills.start(family.module, family.argv(runs), tmp_path / "calls", runs, order))

    verdict = kills.trial(family, whole, tmp_path / "runs", tmp_path, random.Random(2))
    assert verdict.hits >= 1
    assert verdict.faults == [] if fault is None else any(fault in each for each in verdict.faults)


@pytest.fixture
def folders(tmp_path):
    """The folders of two equal runs."""
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        metrics = {"p_test": 0.5, "train_seconds": number, "learned": {"seconds": number, "cosines": [1]}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "history.csv").write_text(f"step,seconds,loss\n1,{number}.5,2\n2,{number}.75,1\n")
        (folder / "curves.csv").write_text("digit,value\n3,1\n")
        (folder / ".lock").write_text(str(number))
        with h5py.File(tmp_path / "weights", "w") as file:
            file["layer/kernel"] = [1.0, 2.0]
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            archive.writestr("config.json", json.dumps({"layer": {"shared_object_id": number, "units": 2}}))
            archive.write(tmp_path / "weights", "model.weights.h5")
    return tmp_path / "0", tmp_path / "1"


@pytest.mark.parametrize(
    "name, old, new, found",
    [
        ("curves.csv", b"3,1", b"3,0", "other bytes"),
        ("metrics.json", b"0.5", b"0.4", "other values of p_test"),
        ("metrics.json", b"[1]", b"[2]", "other values of learned"),
        ("history.csv", b"75,1", b"75,0", "other values"),
        ("history.csv", b"1.75", b"0.75", "time runs backwards"),
    ],
)
def test_every_difference_is_noticed(folders, name, old, new, found):
    other, mine = folders
    assert differences(mine, other) == []
    content = (mine / name).read_bytes()
    assert content.count(old) == 1
    (mine / name).write_bytes(content.replace(old, new))
    assert differences(mine, other) == [f"{name}: {found}"]


def test_one_bit_of_a_weight_and_files_more_or_less_are_noticed(folders, tmp_path):
    other, mine = folders
    with h5py.File(tmp_path / "weights", "a") as file:
        file["layer/kernel"][1] = 2.0 + 2**-51  # the last bit of the float64
    with zipfile.ZipFile(mine / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"layer": {"units": 2}}))
        archive.write(tmp_path / "weights", "model.weights.h5")
    (mine / "curves.csv").rename(mine / ".partial-1-curves.csv")
    assert differences(mine, other) == [
        ".partial-1-curves.csv: unexpected", "curves.csv: missing", "model.keras: other values of layer/kernel",
    ]  # fmt: skip


# In a process of its own, because a process with TensorFlow must not fork.
JUDGED = """
import sys, time
from pathlib import Path
import tests.chaos.bench  # all that the campaign loads
from tests.chaos.answers import answered, forked, plausible
folder = Path(sys.argv[1])
def line():
    print("good run")
    print("error: x: expected a number; received y", file=sys.stderr)
    return 2
actions = {
    "one line": line, "hang": lambda: time.sleep(60), "traceback": lambda: 1 / 0, "wrongly accepted": lambda: 0,
    None: lambda: print("good run"),
}
for outcome, action in actions.items():
    assert answered(forked(action, folder, 0.7), "good run") == outcome, outcome
for suffix, old, new, good in [
    ("json", '{"a": 0.5}', '{"a": 0.25}', True), ("json", '{"a": 0.5}', '{"a": 1.5}', False),
    ("json", '{"a": 0.5}', '{"a": NaN}', False), ("json", '{"a": 0.5}', '{"b": 0.5}', True),
    ("json", '{"p_test": 0.5}', '{"b": 0.5}', False), ("json", '{"a": {"3": 1}}', '{"a": {"4": 1}}', False),
    ("json", '{"a": "b"}', '{"a": 1}', False), ("json", '{"a": [1]}', '{"a": [1, 2]}', False),
    ("json", "{}", "{", False), ("json", "{}", "[]", False),
    ("csv", "a\\n0.5\\n", "a\\n0.25\\n", True), ("csv", "a\\n0.5\\n", "b\\n0.5\\n", False),
    ("csv", "parameter\\n0.5\\n", "parameter\\n-3\\n", True), ("csv", "a\\n0.5\\n", "a\\n-3\\n", False),
    ("csv", "a\\n1\\n2\\n", "a\\n1\\n", False), ("csv", "a\\n0.5\\n", "a\\nx\\n", False),
]:
    path = folder / f"x.{suffix}"
    path.write_text(new)
    assert plausible(path, old.encode()) == good, new
assert not {"tensorflow", "keras"} & set(sys.modules)
"""


def test_answers_are_judged(tmp_path):
    done = python("-c", JUDGED, tmp_path)
    assert done.returncode == 0, done.stderr
