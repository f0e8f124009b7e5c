"""Writes files atomically, and reads regular ones back."""

import contextlib
import csv
import errno
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from invariance.errors import RunError, UserError, one_line

# The largest file of a run has a few megabytes.
_MOST_BYTES = 2**28

# Of 255 bytes on usual file systems, less those of a prefix while a file is written.
NAME_BYTES = 200


def unfit(name: str) -> str | None:
    """Why a text cannot be the name of a file or folder, or would lead out of its folder; None if it can."""
    if (size := len(os.fsencode(name))) > NAME_BYTES:
        return f"has {size:,} bytes, more than {NAME_BYTES}"
    if not name.isprintable():
        return "has characters that cannot be printed"
    if os.sep in name or not name.strip(". "):
        return "is no name"
    return None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces ``path`` atomically, once on disk, if the block raises nothing.

    It has the same suffix, because some writers choose a format by it.

    Raises:
        RunError: if the file cannot be written (disk full, read-only, over quota); ``path`` is left as it was.
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


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows that share their keys as CSV, atomically; without rows the file is empty."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, text.getvalue())


def opened(path: Path) -> BinaryIO:
    """Opens a regular file. Links, which may lead anywhere, pipes, which may block, and the like are refused.

    Raises:
        OSError: if there is none that can be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise OSError(error.errno, _IRREGULAR, str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _IRREGULAR, str(path))
    return os.fdopen(descriptor, "rb")


_IRREGULAR = "not a regular file"


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: if there is none that can be read, or it is too large to be one of a run's.
    """
    try:
        with opened(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: unreadable ({error.strerror or error})") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: unreadable (more than {_MOST_BYTES:,} bytes)")
    return data


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Reads a CSV file; whatever parses as a number becomes one.

    Raises:
        UserError: if it cannot be read, or its rows do not have the fields that its first line names.
    """

    def value(text: str) -> Any:
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(text)
        return text

    try:
        text = read_bytes(path).decode("utf-8")
        if text and not text.endswith("\n"):
            raise ValueError("the last line is cut off")
        heads, *lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line] or [[]]
        if len(set(heads)) < len(heads):
            raise ValueError(f"a field is named twice in {', '.join(heads)}")
        for number, line in enumerate(lines, 1):
            if len(line) != len(heads):
                raise ValueError(f"row {number}: expected {len(heads)} fields; received {len(line)}")
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: unreadable ({one_line(error)})") from error
    return [dict(zip(heads, map(value, line), strict=True)) for line in lines]
