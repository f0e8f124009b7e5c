"""Starts runs, kills them, repeats them until they finish, and compares what they leave."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import process
from tests.chaos.comparison import differences
from tests.helpers import PATIENCE, REPOSITORY

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
TRACEBACK = "Traceback (most recent call last)"
# A kill is one of three: most failures (power, memory, schedulers) do not ask.
SIGNALS = {KILL: 6, TERM: 1, INT: 1}
MOST_KILLS = 3


@dataclass(frozen=True)
class Whole:
    """A run that was never interrupted.

    Attributes:
        runs: the folder of all runs.
        seconds: how long it took.
        calls: the calls that changed its files, see `process`.
    """

    runs: Path
    seconds: float
    calls: list[str]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (None if it had to be stopped: it hung) and what it printed."""

    code: int | None
    out: str
    err: str


@dataclass
class Verdict:
    """What a trial of kills found: descriptions of the kills, the number of them that hit a run, and what is wrong."""

    kills: list[str] = field(default_factory=list)
    hits: int = 0
    faults: list[str] = field(default_factory=list)


def start(module, argv, record, folder, order=""):
    """Starts a program under `process`, as the leader of a session of its own."""
    environment = {**os.environ, process.RECORD: str(record), process.FOLDER: str(folder), process.ORDER: order}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.process", module, *argv],
        cwd=REPOSITORY, env=environment, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(running, patience=PATIENCE):
    """Waits until a program and all of its children have ended: the pipes are closed by then."""
    try:
        out, err = running.communicate(timeout=patience)
        return Ended(running.returncode, out, err)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, KILL)
        out, err = running.communicate()
        return Ended(None, out, err)
    except BaseException:
        os.killpg(running.pid, KILL)
        raise


def children(pid):
    """The children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []


def send(running, number, target):
    """Sends a signal to a running program: to all of its processes, the first one, or its child (if there is one)."""
    if target == "all":
        os.killpg(running.pid, number)
        return
    for pid in (children(running.pid) if target == "itself" else [])[:1] or [running.pid]:
        # It may have ended since.
        if running.poll() is None:
            os.kill(pid, number)


def run_whole(family, runs, scratch):
    """Carries out a run of a family without interrupting it.

    Raises:
        RuntimeError: if it fails.
    """
    record, began = scratch / f"{family.model}.calls", time.monotonic()
    ended = finish(start(family.module, family.argv(runs), record, runs))
    if ended.code != 0 or ended.err:
        raise RuntimeError(f"the uninterrupted run of {family.model} ended with code {ended.code}: {ended.err}")
    return Whole(runs, time.monotonic() - began, process.recorded(record))


def killed(family, whole, runs, scratch, rng):
    """Kills a run once, at a random time or at a random change of a file.

    Returns:
        What was done; how the process ended.
    """
    number = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
    target = rng.choices(process.TARGETS, (3, 1, 1))[0]
    record = scratch / "calls"
    record.unlink(missing_ok=True)
    name = f"{signal.Signals(number).name} to {target}"
    if rng.random() < 0.5:
        call, after = rng.randint(1, len(whole.calls)), rng.random() < 0.5
        # A call that does not come lets the run finish.
        running = start(family.module, family.argv(runs), record, runs, process.order(call, after, number, target))
        ended = finish(running)
        calls = process.recorded(record)
        where = calls[call - 1] if len(calls) >= call else "never"
        return f"{name} {'after' if after else 'before'} change {call} ({where})", ended
    delay = rng.uniform(0, whole.seconds)
    running = start(family.module, family.argv(runs), record, runs)
    try:
        running.wait(delay)
    except subprocess.TimeoutExpired:
        send(running, number, target)
    except BaseException:
        os.killpg(running.pid, KILL)
        raise
    ended = finish(running)
    calls = process.recorded(record)
    return f"{name} after {delay:.1f} s ({calls[-1] if calls else 'before any file'})", ended


def fault(ended):
    """What is wrong with how a program ended after a signal, or None."""
    lines = ended.err.splitlines()
    if ended.code is None:
        return "hangs"
    if TRACEBACK in ended.out + ended.err:
        # A signal while Python imports the program's first modules is answered by Python.
        early = not ended.out and lines[-1:] == ["KeyboardInterrupt"]
        return None if early else f"traceback: {lines[-1]}"
    if ended.code in (-KILL, -TERM, -INT):
        # Who is killed says nothing; its child may say that it stops.
        good = not lines
    elif ended.code == 0:
        good = not lines
    else:
        good = ended.code in (1, 130) and len(lines) == 1 and (lines[0].startswith("error: ") or lines[0] == "stopped")
    return None if good else f"code {ended.code}: {' / '.join(lines)[:300]}"


def hit(ended):
    """Whether a program ended because of a signal."""
    return ended.code != 0


def trial(family, whole, runs, scratch, rng):
    """Kills a run up to `MOST_KILLS` times, repeats it until it finishes, and compares its folder.

    Args:
        family: the run.
        whole: the same run, uninterrupted.
        runs: an empty folder for it.
        scratch: for records.
        rng: decides when, how, and how often.

    Returns:
        A `Verdict`.
    """
    verdict = Verdict()
    for _ in range(rng.randint(1, MOST_KILLS)):
        what, ended = killed(family, whole, runs, scratch, rng)
        verdict.kills.append(what)
        verdict.hits += hit(ended)
        if wrong := fault(ended):
            verdict.faults.append(f"{what}: {wrong}")
        if not hit(ended):
            break
    ended = finish(start(family.module, family.argv(runs), scratch / "last", runs))
    if ended.code != 0 or ended.err:
        verdict.faults.append(f"does not finish: code {ended.code}: {ended.err.strip()[-300:]}")
    else:
        verdict.faults += differences(family.folder(runs).path, family.folder(whole.runs).path)
    return verdict
