"""What every command shares: a parser that makes one line of a mistake, checks of values, exit codes."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

from invariance.errors import RunError, UserError
from invariance.tasks import Task


class Parser(argparse.ArgumentParser):
    """One line for a mistake; no guessing at abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def guarded(action: Callable[[], int | None]) -> int:
    """Calls an action and returns the exit code; a mistake or a failed run is one line on standard error."""
    try:
        return action() or 0
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def choice(option: str, value: str, known: Collection[str]) -> str:
    """One of some words.

    Raises:
        UserError: if it is none of them.
    """
    if value not in known:
        raise UserError(f"{option}: unknown value {value!r}; known are {', '.join(known)}")
    return value


def integer(option: str, text: str, low: int, high: int) -> int:
    """An integer within bounds.

    Raises:
        UserError: if it is not.
    """
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UserError(f"{option}: an integer from {low} to {high} is needed; it is {text!r}")
    return value


def positive(option: str, text: str) -> float:
    """A positive number.

    Raises:
        UserError: if it is not.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise UserError(f"{option}: a positive number is needed; it is {text!r}")
    return value


def seeds(text: str) -> list[int]:
    """The seeds of a text such as "0,2,5-7", each once, in its order.

    Raises:
        UserError: if it is no such text.
    """
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            low = integer("--seed", first, 0, 2**32 - 1)
            high = integer("--seed", last, low, low + 999) if dash else low
            found += range(low, high + 1)
    except UserError:
        raise UserError(
            f"--seed: integers from 0 to {2**32 - 1}, or ascending ranges of up to 1,000 of them, are needed, such as "
            f"0 or 0,2,5-7; it is {text!r}"
        ) from None
    return list(dict.fromkeys(found))


def labels(option: str, text: str | None) -> tuple[int, ...] | None:
    """Class labels of a text such as "3,4"; None for None.

    Raises:
        UserError: if it is no such text.
    """
    if text is None:
        return None
    try:
        return tuple(integer(option, part.strip(), 0, 10**6) for part in text.split(",") if part.strip())
    except UserError as error:
        raise UserError(f"{option}: class labels separated by commas are needed; it is {text!r}") from error


def spacing(option: str, text: str, task: Task) -> float | None:
    """The distance between points of a task's grid; None for the finest grid, "full".

    Raises:
        UserError: if the task cannot be measured on it.
    """
    try:
        value = None if text == "full" else float(text)
    except ValueError:
        raise UserError(f"{option}: a number or full is needed; it is {text!r}") from None
    try:
        task.points(value)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    return value


def value_like(option: str, text: str, example: Any) -> Any:
    """A value of the same type as the present one.

    Raises:
        UserError: if it is not.
    """
    kind = type(example)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if example is None or kind is str:
            return None if text.lower() == "none" else text
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise UserError(f"{option}: a value like {example} is needed; it is {text!r}") from None


def output_file(option: str, value: str) -> Path:
    """Where a result goes, checked before the minutes it takes to measure it.

    Raises:
        UserError: if it cannot be a file there.
    """
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: a file in an existing folder is needed; it is {value!r}")
    return path
