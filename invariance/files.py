"""Writes files atomically, and reads them back."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from invariance.errors import RunError

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


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Reads a CSV file; whatever parses as a number becomes one."""

    def value(text: str) -> Any:
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(text)
        return text

    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]
