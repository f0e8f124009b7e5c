"""Runs are found below a folder, with their tasks; what is unfinished or damaged is named; none counts twice."""

import json
import time
from pathlib import Path

import pytest

from invariance.runs.find import REPEATED, Run, find, once
from invariance.runs.folder import RunFolder
from invariance.tasks import Generation, Recognition, Tangents
from invariance.transforms import Rotation, Shift
from tests.helpers import REPOSITORY, store_run


@pytest.mark.parametrize("created", [True, False])
def test_no_runs(tmp_path, created):
    if created:
        (tmp_path / "runs" / "e" / "d").mkdir(parents=True)
    assert find(tmp_path / "runs") == ([], [])


def test_finished_and_unfinished(tmp_path):
    done = store_run(tmp_path, "cnn_01", config={"commit": "c"})
    begun = store_run(tmp_path, "cnn_00")
    (begun / "metrics.json").unlink()
    # Created and locked, nothing written yet.
    RunFolder.of(tmp_path, "recognition_rotation", "mnist", "standard", "cnn_02", 0).path.mkdir(parents=True)
    finished, others = find(tmp_path)
    assert [run.folder for run in finished] == [done]
    assert finished[0].metrics == done.json("metrics.json") and finished[0].config["commit"] == "c"
    assert others == [(begun.path, "not finished; repeat its command to resume it")]


@pytest.mark.parametrize("damaged", ["", "{", "[1]", "null", '{"p_test": 0.9', "\x00\x01", b"\xff\xfe"])
@pytest.mark.parametrize("file", ["config", "metrics"])
def test_damaged_files_are_named(tmp_path, file, damaged):
    good, bad = store_run(tmp_path, "cnn_00"), store_run(tmp_path, "cnn_01")
    (bad / f"{file}.json").write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    finished, others = find(tmp_path)
    assert [run.folder for run in finished] == [good]
    [(path, reason)] = others
    assert path == bad.path
    problem = "expected an object" if damaged in ("[1]", "null") else "unreadable"
    assert reason.startswith(f"{bad.path}/{file}.json: {problem}") and "\n" not in reason


@pytest.mark.parametrize("key", ["experiment", "model", "dataset", "profile", "seed", "p_test"])
def test_missing_metrics_are_named(tmp_path, key):
    folder = store_run(tmp_path)
    metrics = folder.json("metrics.json")
    del metrics[key]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert find(tmp_path) == ([], [(folder.path, f"{folder.path}/metrics.json: lacks {key}")])


@pytest.mark.parametrize(
    "protocol",
    [{}, {"kind": "drawing"}, {"kind": "generation_by_rotation"}, {"kind": "generation_by_shift", "ranges": 3}],
)
def test_what_describes_no_task_is_named(tmp_path, protocol):
    folder = store_run(tmp_path, config={"protocol": protocol})
    finished, [(path, reason)] = find(tmp_path)
    assert not finished and path == folder.path
    assert reason.startswith(f"{path}/config.json: not a run's configuration (")


def test_committed_runs_of_all_versions_are_read():
    """By their kinds, which were named when there were no other transformations."""
    finished, others = find(REPOSITORY / "experiments" / "results")
    assert not others
    kinds = {
        "recognition": (Recognition, Rotation),
        "recognition_by_shift": (Recognition, Shift),
        "generation_by_rotation": (Generation, Rotation),
        "generation_by_shift": (Generation, Shift),
        "tangents_by_rotation": (Tangents, Rotation),
    }
    for run in finished:
        written = run.config["protocol"]
        task, transformation = kinds[written["kind"]]
        assert type(run.task) is task and type(run.task.transformation) is transformation
        # Written as it was read.
        assert json.loads(json.dumps(run.task.to_json())) == written
    assert {run.config["protocol"]["kind"] for run in finished} >= {"recognition", *list(kinds)[2:]}


def test_same_run_in_two_folders_counts_once():
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


def test_quick_with_hundreds_of_runs(tmp_path):
    for seed in range(400):
        store_run(tmp_path, seed=seed)
    began = time.perf_counter()
    finished, others = find(tmp_path)
    # 0.1 s on an idle core; the bound only excludes something quadratic, also on a machine ten times as slow.
    assert time.perf_counter() - began < 5
    assert len(finished) == 400 and not others
