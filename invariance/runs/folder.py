"""The folder of a run: locked by one process at a time, read back. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invariance import schema
from invariance.errors import RunError, UserError, one_line
from invariance.files import opened, read_bytes, read_csv
from invariance.runs.schema import OBJECTS, ROWS

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
        """Whether the run is complete: its last file is there, though it may turn out to be damaged."""
        return self.has("metrics.json")

    def has(self, name: str) -> bool:
        """Whether there is something of that name, be it a file or not."""
        return os.path.lexists(self / name)

    def lacks(self, *names: str) -> list[str]:
        """Those of some files that are not there, or are no regular files."""

        def readable(name: str) -> bool:
            try:
                opened(self / name).close()
            except OSError:
                return False
            return True

        return [name for name in names if not readable(name)]

    def stage(self, name: str) -> RunFolder:
        """The folder of a stage that precedes the training of the network; created if necessary.

        Raises:
            RunError: if it cannot be created.
        """
        path = self.path / name
        try:
            if path.is_symlink():
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create {path}: {error.strerror}") from error
        return RunFolder(path)

    def __truediv__(self, name: str) -> Path:
        """The path of one of the folder's files."""
        return self.path / name

    def json(self, name: str) -> dict[str, Any]:
        """Reads one of the folder's JSON files: an object, of the type that `runs.schema` declares.

        Raises:
            UserError: if it is missing, or something else.
        """
        data = read_bytes(self / name)
        try:
            value = schema.decode(data)
        except ValueError as error:
            raise UserError(f"{self / name}: unreadable ({one_line(error)})") from error
        self.check(name, value, OBJECTS.get(Path(name).name, dict[str, Any]))
        return value

    def csv(self, name: str) -> list[dict[str, Any]]:
        """Reads one of the folder's CSV files: rows of the type that `runs.schema` declares.

        Raises:
            UserError: if it is missing, or something else.
        """
        rows, kind = read_csv(self / name), ROWS.get(Path(name).name, dict[str, Any])
        for row in rows:
            self.check(name, row, kind)
        return rows

    def check(self, name: str, value: Any, kind: Any) -> None:
        """Checks what one of the folder's files holds.

        Raises:
            UserError: if it is not of a type, see `schema.check`; or too large, see `schema.bounded`.
        """
        try:
            schema.bounded(value)
            schema.check(value, kind)
        except ValueError as error:
            raise UserError(f"{self / name}: {one_line(error)}") from error

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
            # A link is not followed: what it leads to would be emptied.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.fdopen(os.open(self / ".lock", flags, 0o666), "r+", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot use the run folder {self.path}: {error.strerror or error}") from error
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
                with contextlib.suppress(OSError):  # not one of ours, then
                    partial.unlink(missing_ok=True)
            yield

    def clear(self) -> None:
        """Removes everything but the lock, metrics.json and the checkpoint first.

        Raises:
            RunError: if a file cannot be removed.
        """
        try:
            for name in ("metrics.json", CHECKPOINT):
                if (self / name).is_dir() and not (self / name).is_symlink():
                    shutil.rmtree(self / name)
                (self / name).unlink(missing_ok=True)
            for path in sorted(self.path.rglob("*"), reverse=True):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                elif path.name != ".lock":
                    path.unlink()
        except OSError as error:
            raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error
