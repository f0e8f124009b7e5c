"""The run folder: written atomically, read back, gathered. Imports no TensorFlow."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from invariance.errors import RunError, UserError

# What an unfinished run goes on from.
CHECKPOINT = "checkpoint.npz"


@contextlib.contextmanager
def replacing(path: Path):
    """A temporary path beside ``path`` that takes its place, complete and on disk, when the block ends without error.

    The file's suffix is kept, because some writers choose a format by it.

    Raises:
        RunError: if the file system refuses to take it (full, read-only, over a quota); ``path`` is as it was.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"cannot write {path}: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str):
    """Writes a text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value):
    """Writes JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, rows: list[dict]):
    """Writes dictionaries with the same keys as CSV, atomically."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict]:
    """Reads a CSV file; what looks like a number becomes one."""

    def value(text):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(text)
        return text

    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]


@dataclass(frozen=True)
class RunFolder:
    """RUNS/<experiment>/<dataset>/<profile>/<model>/seed-<n>/"""

    path: Path

    @classmethod
    def of(cls, runs, experiment: str, dataset: str, profile: str, model: str, seed: int) -> "RunFolder":
        return cls(Path(runs) / experiment / dataset / profile / model / f"seed-{seed}")

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "metrics.json").is_file()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def json(self, name: str) -> dict:
        """Reads one of the folder's JSON files.

        Raises:
            UserError: if it is not there or not JSON.
        """
        try:
            value = json.loads((self / name).read_text(encoding="utf-8"))
            if not isinstance(value, dict):
                raise ValueError("not an object")
            return value
        except (OSError, ValueError) as error:
            raise UserError(f"{self / name}: unreadable ({error})") from error

    def csv(self, name: str) -> list[dict]:
        """Reads one of the folder's CSV files.

        Raises:
            UserError: if it is not there or not readable.
        """
        try:
            return read_csv(self / name)
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self / name}: unreadable ({error})") from error

    @contextlib.contextmanager
    def locked(self, patience: float = 10.0):
        """Holds the folder for this process; it is made if need be, and leftovers of a killed run are removed.

        Args:
            patience: seconds to wait for another process that is just about to stop.

        Raises:
            RunError: if another process keeps holding it, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  (held for the block)
        except OSError as error:
            raise RunError(f"cannot use the run folder {self.path}: {error.strerror}") from error
        with lock:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                        break  # a file system without locks; it is up to the user not to start a run twice
                    if error.errno not in (errno.EAGAIN, errno.EACCES):
                        raise RunError(f"cannot lock {self.path}: {error.strerror}") from error
                    if time.monotonic() > deadline:
                        lock.seek(0)
                        raise RunError(
                            f"the run folder {self.path} is in use by process {lock.read().strip() or '?'}"
                        ) from error
                    time.sleep(0.2)
            with contextlib.suppress(OSError):  # the process number is a courtesy; a full disk must not stop us here
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
            for leftover in self.path.glob(".partial-*"):
                leftover.unlink(missing_ok=True)
            yield

    def clear(self):
        """Removes everything but the lock: the completeness mark first, then what a run would go on from.

        Raises:
            RunError: if something cannot be removed.
        """
        try:
            for name in ("metrics.json", CHECKPOINT):
                (self / name).unlink(missing_ok=True)
            for path in sorted(self.path.rglob("*"), reverse=True):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                elif path.name != ".lock":
                    path.unlink()
        except OSError as error:
            raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error


# Why a folder is not shown, where nothing is wrong with it.
UNFINISHED = "not finished; repeat its command to resume it"
REPEATED = "left out: another folder holds the same model and seed"
# What a run folder does not tell of its device or commit.
UNKNOWN = "unknown"

# What tells runs apart.
_NAMES = ("experiment", "model", "dataset", "profile", "seed")


@dataclass(frozen=True)
class Run:
    """A run that was read: its folder and what its files say."""

    folder: RunFolder
    config: dict
    metrics: dict

    def provenance(self, key: str) -> str:
        """Its "device" or "commit"; "... then ..." where it was resumed with another."""
        before = [self.config, *(self.config.get("resumed") or [])]
        return " then ".join(dict.fromkeys(str(each.get(key) or UNKNOWN) for each in before))


def find(runs) -> tuple[list[Run], list[tuple[Path, str]]]:
    """Reads all runs below a folder.

    Returns:
        The finished runs, in order of their paths, and what is not one: (folder, reason).
    """
    finished, others = [], []
    for config in sorted(Path(runs).glob("*/*/*/*/seed-*/config.json")):
        folder = RunFolder(config.parent)
        if not folder.done:
            others.append((folder.path, UNFINISHED))
            continue
        try:
            run = Run(folder, folder.json("config.json"), folder.json("metrics.json"))
            missing = [key for key in _NAMES if key not in run.metrics]
            if missing:
                raise UserError(f"{folder / 'metrics.json'}: lacks {', '.join(missing)}")
            odd = [
                key
                for key in ("seed", "chance", "p_test", "p_in", "p_out", "p_inv", "train_seconds")
                if not isinstance(run.metrics.get(key, 0.0), (int, float, type(None)))
            ]
            for key in ("mse_in", "mse_out", "ratio", "images"):
                value = run.metrics.get(key) or {}
                if not isinstance(value, dict) or not all(isinstance(v, (int, float)) for v in value.values()):
                    odd.append(key)
            if odd:
                raise UserError(f"{folder / 'metrics.json'}: not a number: {', '.join(odd)}")
            finished.append(run)
        except UserError as error:
            others.append((folder.path, str(error)))
    return finished, others


def once(runs: Iterable[Run]) -> tuple[list[Run], list[tuple[Path, str]]]:
    """The first of the runs that are the same but for their folder, and the others: (folder, reason)."""
    chosen, repeated = {}, []
    for run in runs:
        key = tuple(run.metrics[name] for name in _NAMES)
        if key in chosen:
            repeated.append((run.folder.path, REPEATED))
        else:
            chosen[key] = run
    return list(chosen.values()), repeated


def aggregate(values) -> tuple[float, float | None]:
    """Mean, and standard deviation between runs (None for a single one)."""
    values = [float(value) for value in values]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def wilson(proportion: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion measured on n independent images.

    Args:
        proportion: in [0, 1].
        n: number of images.
        z: normal quantile; the default gives 95 %.

    Reference: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if n < 1 or not 0.0 <= proportion <= 1.0:
        raise ValueError(f"A proportion in [0, 1] of at least one image is needed. Received: {proportion!r}, n={n!r}")
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    # At 0 and 1 the ends are exact, but for rounding.
    return 0.0 if proportion == 0.0 else centre - half, 1.0 if proportion == 1.0 else centre + half
