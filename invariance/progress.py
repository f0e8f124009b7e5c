"""Progress and the time left, on a terminal or in a log. Imports no TensorFlow."""

import shutil
import sys
import time
from typing import TextIO

from invariance.output import Output

# How often the line on a terminal is rewritten, and how long a log stays silent.
LIVE_SECONDS, SILENT_SECONDS = 0.2, 120.0


def duration(seconds: float) -> str:
    """A duration as text: 48 s, 3:20 min, 2:05 h."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 6000:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"


class Progress:
    """Progress of one piece of work.

    On a terminal, a line that is rewritten. Elsewhere whole lines, at least one every two minutes.

    Args:
        name: the piece of work.
        quiet: print nothing.
        stream: where to print; standard output by default.
        live: whether a line may be rewritten. It may not if other processes print to the same terminal.
    """

    def __init__(self, name: str, quiet: bool = False, stream: TextIO | None = None, live: bool = True):
        self.name, self.quiet, self.stream = name, quiet, Output.of(stream or sys.stdout)
        self.live = live and not quiet and self.stream.isatty()
        self._shown = ""
        self._next = 0.0 if self.live else time.monotonic() + SILENT_SECONDS

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        if not self.quiet:
            self.close()
            # In a single write, because other runs may print at the same time.
            self._write(text + "\n")
            if not self.live:
                self._next = time.monotonic() + SILENT_SECONDS

    def due(self) -> bool:
        """Whether it is time to call `show`."""
        return not self.quiet and time.monotonic() >= self._next

    def show(self, done: float, text: str) -> None:
        """Rewrites the live line; without one, prints a line that stays.

        Args:
            done: share of the work done, 0 to 1.
            text: what follows the bar.
        """
        if self.live:
            filled = round(20 * done)
            self.close()
            # A line wider than the terminal would wrap, and could not be erased.
            room = shutil.get_terminal_size().columns - 1
            shown = f"{self.name}  [{'#' * filled}{'.' * (20 - filled)}] {text}"
            if len(shown) > room:
                shown = f"{self.name}  {text}"
            if len(shown) > room:
                shown = f"{shown[: room // 2]}…{shown[room // 2 + 1 - room :]}"
            self._shown = shown
            self._write(self._shown)
            self._next = time.monotonic() + LIVE_SECONDS
        else:
            self.line(f"{self.name}  {done:.0%}  {text}")

    def close(self) -> None:
        """Erases the live line."""
        if self._shown:
            self._write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class Watch:
    """Estimates the time left from the pace so far.

    Args:
        total: amount of work.
    """

    def __init__(self, total: float):
        self.total, self.began = total, time.monotonic()

    def left(self, done: float) -> str:
        """The time left, as text, once this much of the total is done."""
        return duration((time.monotonic() - self.began) / done * (self.total - done))
