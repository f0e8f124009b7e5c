"""What is printed, and what becomes of it: output that cannot be written is lost, and the work goes on.

A full disk, a reader that has gone away, a closed stream or a character that the terminal's encoding lacks never end a
run. A command whose result is what it prints asks at its end, see `require_written`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any, TextIO, cast

from invariance.errors import RunError
from invariance.wording import printable


class Output:
    """A text stream whose ``write`` and ``flush`` raise nothing.

    After the first failure nothing more is written. Characters that the stream's encoding lacks become question marks,
    one each, so that the columns of tables stay.

    Args:
        stream: the stream; None for one that was closed when the program started.

    Attributes:
        lost: the error of the first write that failed; None if all was written.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        self.lost: Exception | None = None

    @classmethod
    def of(cls, stream: TextIO | None) -> TextIO:
        """The stream as an `Output`; itself if it is one."""
        return cast(TextIO, stream if isinstance(stream, cls) else cls(stream))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, unless that is impossible."""
        if self.lost is None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError as error:
                    self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))
            except (OSError, ValueError) as error:  # the latter of a closed stream
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hands on what is buffered, unless that is impossible."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def isatty(self) -> bool:
        """Whether the stream is a terminal that can be written to."""
        try:
            return self.lost is None and self._stream.isatty()
        except ValueError:
            return False

    def _lose(self, error: Exception) -> None:
        self.lost = error
        # What is buffered must not fail once more when the program ends. Some streams have no descriptor.
        with (
            contextlib.suppress(OSError, ValueError, AttributeError),
            open(os.devnull, "w", encoding="utf-8") as nowhere,
        ):
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def unfailing() -> Iterator[None]:
    """Makes standard output and standard error an `Output` each.

    Standard descriptors that are closed are opened first: the next file to be opened would take their number, and
    receive what C++ code prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Output.of, before)
    try:
        yield
    finally:
        flush()
        sys.stdout, sys.stderr = before


def flush() -> None:
    """Flushes standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        Output.of(stream).flush()


def require_written() -> None:
    """For commands whose result is what they print: checks that it has arrived.

    Raises:
        RunError: if standard output cannot be written. It may be closed, and its reader may go away, as `head` does.
    """
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if isinstance(lost, OSError) and not isinstance(lost, BrokenPipeError):
        raise RunError(f"cannot write to standard output: {lost.strerror}")


def complain(error: BaseException) -> None:
    """Prints an error on standard error, in one line."""
    print(f"error: {printable(error)}", file=Output.of(sys.stderr), flush=True)


def provide_temporary_folder(folder: str) -> None:
    """Creates and names a folder for temporary files, if none of the usual ones can be written.

    TensorFlow and Keras cannot be imported without one.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
        if os.access(folder, os.W_OK):
            tempfile.tempdir = os.environ["TMPDIR"] = os.path.abspath(folder)


def temporary_file() -> IO[bytes]:
    """A temporary file; in memory, or nowhere, if no folder for such files can be written."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        if hasattr(os, "memfd_create"):
            return open(os.memfd_create("temporary"), "w+b")
        return open(os.devnull, "w+b")
