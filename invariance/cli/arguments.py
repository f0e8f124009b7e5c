"""What all commands share: a parser whose errors are one line, checks of values, exit codes."""

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
from invariance.wording import printable


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and that accepts no abbreviations."""

    def __init__(self, **settings: Any):
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def guarded(action: Callable[[], int | None]) -> int:
    """Calls an action and returns the exit code. A user's mistake or a failed run is one line on standard error."""
    try:
        return action() or 0
    except (UserError, RunError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def choice(option: str, value: str, known: Collection[str]) -> str:
    """Returns a value that is one of the known ones.

    Raises:
        UserError: if it is not.
    """
    if value not in known:
        raise UserError(f"{option}: unknown value {value!r}; choose from {', '.join(known)}")
    return value


def integer(option: str, text: str, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``.

    Raises:
        UserError: if it is not.
    """
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UserError(f"{option}: expected an integer from {low} to {high}; received {text!r}")
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
        raise UserError(f"{option}: expected a positive number; received {text!r}")
    return value


def seeds(text: str) -> list[int]:
    """The seeds in a list such as "0,2,5-7", in its order and without repetitions.

    Raises:
        UserError: if it is not such a list.
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
            f"--seed: expected integers from 0 to {2**32 - 1} or ascending ranges of up to 1,000, such as 0,2,5-7; "
            f"received {text!r}"
        ) from None
    return list(dict.fromkeys(found))


def labels(option: str, text: str | None) -> tuple[int, ...] | None:
    """The class labels in a list such as "3,4"; None if the option is not given.

    Raises:
        UserError: if it is not such a list.
    """
    if text is None:
        return None
    try:
        return tuple(integer(option, part.strip(), 0, 10**6) for part in text.split(",") if part.strip())
    except UserError as error:
        raise UserError(f"{option}: expected class labels separated by commas; received {text!r}") from error


def interval(option: str, text: str) -> tuple[float, float]:
    """The range in a text such as "-15..15".

    Raises:
        UserError: if it is not such a text.
    """
    try:
        low, high = map(float, text.split(".."))
        if not -math.inf < low <= high < math.inf:
            raise ValueError
    except ValueError:
        raise UserError(f"{option}: expected LOW..HIGH with LOW <= HIGH; received {text!r}") from None
    return low, high


def spacing(option: str, text: str, task: Task) -> float | None:
    """The spacing of an evaluation grid; None for "full", the finest grid.

    Raises:
        UserError: if the task cannot be measured on that grid.
    """
    try:
        value = None if text == "full" else float(text)
    except ValueError:
        raise UserError(f"{option}: expected a number or full; received {text!r}") from None
    try:
        task.points(value)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    return value


def value_like(option: str, text: str, example: Any) -> Any:
    """A value of the same type as an example.

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
        raise UserError(f"{option}: expected a value like {example}; received {text!r}") from None


def output_file(option: str, value: str) -> Path:
    """The file for a result, checked before the result is computed.

    Raises:
        UserError: if there cannot be such a file.
    """
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: expected a file in an existing folder; received {value!r}")
    return path
