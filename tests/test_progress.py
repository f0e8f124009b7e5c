"""Progress on a terminal and in a log. (That of a training is in runs/test_training.)"""

import os

import pytest

from invariance.progress import Progress, Watch
from tests.helpers import Screen


@pytest.mark.parametrize(
    "columns, expected",
    [(44, "mine  [##########..........] epoch 1/2 left"), (43, "mine  epoch 1/2 left"), (12, "mine … left")],
)
def test_live_line_is_no_wider_than_the_terminal(monkeypatch, columns, expected):
    screen = Screen(True)
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = Progress("mine", stream=screen)
    progress.show(0.5, "epoch 1/2 left")
    assert screen.text == expected and len(expected) < columns
    progress.close()
    assert screen.text == expected + "\r" + " " * len(expected) + "\r"


def test_lines_are_not_rewritten_beside_other_runs():
    screen = Screen(True)
    Progress("mine", stream=screen, live=False).show(0.5, "half")
    assert screen.text == "mine  50%  half\n"


def test_long_silence_in_a_log_is_broken(monkeypatch):
    screen, now = Screen(False), 0.0
    monkeypatch.setattr("invariance.progress.time.monotonic", lambda: now)
    progress = Progress("mine", stream=screen)
    for now in (119.0, 121.0, 200.0, 242.0, 243.0):
        if progress.due():
            progress.show(now / 1000, f"at {now}")
        if now == 200:
            progress.line("a line")
    assert screen.text == "mine  12%  at 121.0\na line\n"


def test_work_goes_on_when_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        progress = Progress("mine", stream=stream)
        progress.line("nobody reads this")
        progress.line("nor that")
    assert isinstance(progress.stream.lost, BrokenPipeError)


def test_time_left(monkeypatch):
    now = 100.0
    monkeypatch.setattr("invariance.progress.time.monotonic", lambda: now)
    watch = Watch(40)
    now = 130.0
    # Ten of forty in half a minute.
    assert watch.left(10) == "90 s"
