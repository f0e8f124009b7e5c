"""What the person at the terminal sees while something long runs. Imports no TensorFlow."""

import os
import shutil
import sys
import time


def duration(seconds: float) -> str:
    """Seconds as people say them: 48 s, 3:20 min, 2:05 h."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 6000:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"


# How often the line on a terminal is rewritten; elsewhere, how long nothing may be said before a line is.
LIVE_SECONDS, SILENT_SECONDS = 0.2, 120.0


class Progress:
    """A line that is rewritten on a terminal; elsewhere whole lines, and one after two minutes of silence.

    Nothing at all when quiet.

    Args:
        name: what is being worked on.
        quiet: say nothing.
        stream: where to; standard output.
        live: False for whole lines only, on a terminal, too.
    """

    def __init__(self, name: str, quiet: bool = False, stream=None, live: bool = True):
        self.name, self.quiet, self.stream = name, quiet, stream or sys.stdout
        self.live = live and not quiet and self.stream.isatty()
        self._shown = ""
        self._next = 0.0 if self.live else time.monotonic() + SILENT_SECONDS

    def line(self, text: str):
        """A line that stays."""
        if not self.quiet:
            self.close()
            # In one piece, also where standard output is unbuffered: other runs may write beside this one.
            self._write(text + "\n")
            if not self.live:
                self._next = time.monotonic() + SILENT_SECONDS

    def due(self) -> bool:
        """Whether it is time to `show` something."""
        return not self.quiet and time.monotonic() >= self._next

    def show(self, done: float, text: str):
        """Rewrites the live line; where there is none, writes a line that stays.

        Args:
            done: share of the work done, 0 to 1.
            text: what stands behind the bar.
        """
        if self.live:
            filled = round(20 * done)
            self.close()
            # What is wider than the terminal would go on in its next line, where it cannot be taken back.
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

    def close(self):
        """Takes the live line back."""
        if self._shown:
            self._write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""

    def _write(self, text):
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            # Whoever read our output has gone; the work goes on.
            self.quiet, self.live = True, False
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


class Watch:
    """Time left, from the pace so far."""

    def __init__(self, total):
        self.total, self.began = total, time.monotonic()

    def left(self, done):
        """As people say it, when so much of the total is done."""
        return duration((time.monotonic() - self.began) / done * (self.total - done))
