"""What all commands share: a parser whose errors are one line, a check for each kind of value, exit codes."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from invariance import output
from invariance.errors import RunError, UserError
from invariance.files import NAME_BYTES, unfit
from invariance.tasks import Task

# What Python reads as numbers is more: 1_000, digits of other scripts, nan.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# The largest whole number for a model's argument: as many units would not fit into any memory.
_LARGEST = 10**6
# How far from zero a range may reach: many turns, or more pixels than images have.
_REACH = 10**4
# In a folder's path, of usually 4,096: there must be room for the folders of a run below it.
_PATH_BYTES = 2500


class Once(argparse.Action):
    """An option that is a list, and may be given once: of two lists, one would be lost."""

    given = False

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if self.given:
            raise UserError(f"{option}: given twice; expected one list, separated by commas")
        self.given = True
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and that accepts no abbreviations.

    Of an option that is given twice the last value counts; a list is refused (`Once`), or accumulates ("append").
    """

    def __init__(self, **settings: Any):
        super().__init__(**{**settings, "allow_abbrev": False})

    def add(self, name: str, kind: Callable[[str, str], Any], **settings: Any) -> None:
        """Adds an argument with a value.

        Args:
            name: of the option, or of the positional argument.
            kind: one of the checks below: a function of the name that messages use, and the text.
            settings: see `argparse.ArgumentParser.add_argument`.
        """
        shown = name if name.startswith("-") else settings.get("metavar", name)
        self.add_argument(name, type=partial(kind, shown), **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else list(args)
        for word in args:
            # To argparse that is an option with an empty list of values, which no check is shown.
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # The help has been printed.
        output.require_written()
        super().exit(status, message)


def guarded(action: Callable[[], int | None]) -> int:
    """Calls an action and returns the exit code. A user's mistake or a failed run is one line on standard error."""
    output.provide_temporary_folder("/dev/shm")
    with output.unfailing():
        try:
            return action() or 0
        except (UserError, RunError) as error:
            output.complain(error)
            return error.exit_code
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130


# Kinds of values. Each raises UserError if the text is no such value.


def text(option: str, text: str) -> str:
    """Any text that is not empty and can be printed in a line."""
    if not text.strip() or not _in_one_line(text):
        raise UserError(f"{option}: expected a text in one line, not empty; received {_short(text)!r}")
    return text


def choice(option: str, value: str, known: Collection[str]) -> str:
    """One of the known values."""
    if value not in known:
        raise UserError(f"{option}: unknown value {_short(value)!r}; choose from {', '.join(known)}")
    return value


def choices(option: str, text: str, known: Collection[str]) -> list[str]:
    """Known values, separated by commas, each once."""
    return list(dict.fromkeys(choice(option, part.strip(), known) for part in text.split(",")))


def integer(option: str, text: str, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``."""
    # Numbers with more digits than a bound need not be read.
    value = int(text) if _INTEGER.fullmatch(text.strip()) and len(text) < 20 else low - 1
    if not low <= value <= high:
        raise UserError(f"{option}: expected an integer from {low} to {high}; received {_short(text)!r}")
    return value


def number(option: str, text: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from ``low`` to ``high``."""
    value = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(value) or not low <= value <= high:
        raise UserError(f"{option}: expected a number from {low:,g} to {high:,g}; received {_short(text)!r}")
    return value


def positive(option: str, text: str, high: float = math.inf) -> float:
    """A positive number up to ``high``."""
    value = float(text) if _NUMBER.fullmatch(text.strip()) else 0.0
    if not 0 < value <= high or value == math.inf:
        most = "" if high == math.inf else f" up to {high:,g}"
        raise UserError(f"{option}: expected a positive number{most}; received {_short(text)!r}")
    return value


def steps(option: str, text: str) -> int | float:
    """A number of steps (an integer), or a share of a profile's steps in percent (a float), such as "30%"."""
    if text.endswith("%"):
        return positive(option, text.removesuffix("%"), 10**5)
    return integer(option, text, 1, 10**9)


def seeds(option: str, text: str) -> list[int]:
    """The seeds in a list such as "0,2,5-7", in its order and without repetitions."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            low = integer(option, first, 0, 2**32 - 1)
            high = integer(option, last, low, min(low + 999, 2**32 - 1)) if dash else low
            found += range(low, high + 1)
    except UserError:
        raise UserError(
            f"{option}: expected integers from 0 to {2**32 - 1} or ascending ranges of up to 1,000, such as 0,2,5-7; "
            f"received {_short(text)!r}"
        ) from None
    return list(dict.fromkeys(found))


def labels(option: str, text: str) -> tuple[int, ...]:
    """The class labels in a list such as "3,4", each once."""
    try:
        return tuple(dict.fromkeys(integer(option, part.strip(), 0, 10**6) for part in text.split(",")))
    except UserError:
        raise UserError(f"{option}: expected class labels separated by commas; received {_short(text)!r}") from None


def labels_or_none(option: str, text: str) -> tuple[int, ...]:
    """As `labels`; none if the text is empty."""
    return labels(option, text) if text.strip() else ()


def interval(option: str, text: str) -> tuple[float, float]:
    """The range in a text such as "-15..15"."""
    try:
        low, high = (number(option, part, -_REACH, _REACH) for part in text.split(".."))
        if low > high:
            raise ValueError
    except (UserError, ValueError):
        raise UserError(
            f"{option}: expected LOW..HIGH with -{_REACH:,} <= LOW <= HIGH <= {_REACH:,}; received {_short(text)!r}"
        ) from None
    return low, high


def spacing(option: str, text: str, task: Task) -> float | None:
    """The spacing of an evaluation grid that the task can be measured on; None for "full", the finest grid."""
    try:
        value = None if text == "full" else number(option, text)
    except UserError:
        raise UserError(f"{option}: expected a spacing, a number, or full; received {_short(text)!r}") from None
    try:
        task.points(value)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    return value


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """The pairs in lists such as "A=1,B=2", without the blanks around them. No name may repeat itself."""
    found: dict[str, str] = {}
    for part in ",".join(texts).split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise UserError(f"{option}: expected ARGUMENT=VALUE,...; received {_short(part)!r}")
        if name in found:
            raise UserError(f"{option}: {name} is given twice, {found[name]!r} and {value!r}")
        found[name] = value
    return found


def value_like(option: str, text: str, example: Any) -> Any:
    """A value of the same type as an example."""
    kind = type(example)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if example is None or kind is str:
            if not text or not text.isprintable():
                raise ValueError
            return None if text.lower() == "none" else text
        if kind is float:
            return number(option, text)
        if not _INTEGER.fullmatch(text):
            raise ValueError
    except (KeyError, ValueError, UserError):
        raise UserError(f"{option}: expected a value like {example}; received {_short(text)!r}") from None
    return integer(option, text, -_LARGEST, _LARGEST)


# Paths


def folder_name(option: str, name: str) -> str:
    """A text that can name a folder among the runs."""
    if reason := unfit(name):
        raise UserError(f"{option}: runs cannot be stored as {_short(name)!r}, which {reason}")
    return name


def _in_one_line(text: str) -> bool:
    """Whether a text has no line breaks, escape sequences and the like. It may have bytes of another encoding."""
    return all(each.isprintable() or "\udc80" <= each <= "\udcff" for each in text)


def _short(text: str) -> str:
    return text if len(text) < 100 else f"{text[:80]}..."


def _path(option: str, text: str, expected: str) -> str:
    """A text as a path, with its ~ expanded."""
    path = os.path.expanduser(text)
    if not text.strip() or not _in_one_line(text) or len(os.fsencode(os.path.abspath(path))) > _PATH_BYTES:
        raise UserError(f"{option}: expected {expected}; received {_short(text)!r}")
    return path


def _require_short(option: str, name: str, expected: str) -> None:
    if len(os.fsencode(name)) > NAME_BYTES:
        raise UserError(f"{option}: expected {expected}; {_short(name)!r} has more than {NAME_BYTES} bytes")


def folder_to_write(option: str, text: str) -> str:
    """The path of a folder that exists, or can be created."""
    expected = "a folder, or the path of a new one"
    path = _path(option, text, expected)
    above = os.path.abspath(path)
    while not os.path.lexists(above):
        _require_short(option, os.path.basename(above), expected)
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise UserError(f"{option}: expected {expected}; {above} is not a folder")
    return path


def folder_to_read(option: str, text: str) -> str:
    """The path of a folder that exists."""
    return _to_read(option, text, "folder", os.path.isdir, os.R_OK | os.X_OK)


def file_to_read(option: str, text: str) -> str:
    """The path of a regular file that exists."""
    return _to_read(option, text, "file", os.path.isfile, os.R_OK)


def _to_read(option: str, text: str, what: str, exists: Callable[[str], bool], access: int) -> str:
    path = _path(option, text, f"a {what}")
    if not exists(path):
        raise UserError(f"{option}: no such {what}: {text}")
    if not os.access(path, access):
        raise UserError(f"{option}: the {what} {text} may not be read")
    return path


def file_to_write(option: str, text: str) -> Path:
    """The file for a result, checked before the result is computed: a new one, or one that will be replaced."""
    expected = "a file in an existing folder"
    path = Path(_path(option, text, expected))
    if text.endswith("/") or os.path.isdir(path) or not os.path.isdir(path.parent):
        raise UserError(f"{option}: expected {expected}; received {_short(text)!r}")
    _require_short(option, path.name, expected)
    if os.path.lexists(path):
        if not os.path.isfile(path):
            raise UserError(f"{option}: expected a new file or a regular one; received {_short(text)!r}")
        if os.path.lexists(path.parent / "config.json"):
            raise UserError(f"{option}: expected a file outside the folders of runs; received {_short(text)!r}")
    return path


def file_to_replace(option: str, text: str) -> Path:
    """A file that exists and will be written anew."""
    file_to_read(option, text)
    return file_to_write(option, text)


def new_file(option: str, text: str) -> Path:
    """The file for a result that must not replace another."""
    if os.path.isfile(_path(option, text, "a file in an existing folder")):
        raise UserError(f"{option}: expected a new file; {text!r} exists")
    return file_to_write(option, text)


def require_distinct(paths: Mapping[str, str | os.PathLike[str]]) -> None:
    """Raises UserError if two outputs are the same file.

    Args:
        paths: what an output is called in messages -> where it is written.
    """
    found: dict[str, str] = {}
    for name, path in paths.items():
        real = os.path.realpath(path)
        if real in found:
            raise UserError(f"{name}: expected another file than that of {found[real]}; both are {path}")
        found[real] = name
