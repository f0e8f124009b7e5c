"""The folder of a run: locked by one process at a time, read back. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from invariance.errors import RunError, UserError
from invariance.files import read_csv

# An unfinished run resumes from this file.
CHECKPOINT = "checkpoint.npz"
# What `orbit.measure_orbit` measured, at the end of the run or later.
ORBIT = "orbit.json"


@dataclass(frozen=True)
class RunFolder:
    """RUNS/<experiment>/<dataset>/<profile>/<model>/seed-<n>/"""

    path: Path

    @classmethod
    def of(cls, runs: str | Path, experiment: str, dataset: str, profile: str, model: str, seed: int) -> RunFolder:
        """The folder of one run below the folder of all runs."""
        return cls(Path(runs) / experiment / dataset / profile / model / f"seed-{seed}")

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "metrics.json").is_file()

    def stage(self, name: str) -> RunFolder:
        """The folder of a stage that precedes the training of the network; created if necessary."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return RunFolder(path)

    def __truediv__(self, name: str) -> Path:
        """The path of one of the folder's files."""
        return self.path / name

    def json(self, name: str) -> dict:
        """Reads one of the folder's JSON files.

        Raises:
            UserError: if it is missing or does not hold a JSON object.
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
            UserError: if it is missing or unreadable.
        """
        try:
            return read_csv(self / name)
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self / name}: unreadable ({error})") from error

    @contextlib.contextmanager
    def locked(self, patience: float = 10.0) -> Iterator[None]:
        """Locks the folder for this process, creates it if necessary, and removes partial files of a killed run.

        Args:
            patience: seconds to wait for a process that is about to stop.

        Raises:
            RunError: if another process still holds the lock, or the folder cannot be created.
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
                        break  # the file system has no locks; the user must not start a run twice
                    if error.errno not in (errno.EAGAIN, errno.EACCES):
                        raise RunError(f"cannot lock {self.path}: {error.strerror}") from error
                    if time.monotonic() > deadline:
                        lock.seek(0)
                        raise RunError(
                            f"the run folder {self.path} is in use by process {lock.read().strip() or '?'}"
                        ) from error
                    time.sleep(0.2)
            with contextlib.suppress(OSError):  # the process number is for people; a full disk is reported later
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
            for partial in self.path.rglob(".partial-*"):
                partial.unlink(missing_ok=True)
            yield

    def clear(self) -> None:
        """Removes everything but the lock, metrics.json and the checkpoint first.

        Raises:
            RunError: if a file cannot be removed.
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
