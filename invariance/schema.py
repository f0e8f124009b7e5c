"""The types of what files of runs hold, and how values are checked against them. Imports neither Keras nor TensorFlow.

A value of another type is refused with one error that names the field, what was expected, and what came. Fields that
are not declared may hold any JSON, because later versions add some.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import GenericAlias
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from invariance.ranges import Ranges

# Pattern of a text -> what it is.
_LABEL, _NAME, _IDENTIFIER = r"\A[0-9]{1,9}\Z", r"\A(?!\.{1,2}\Z)[^/\x00]+\Z", r"\A[A-Za-z_][A-Za-z0-9_]*\Z"
_PATTERNS = {_LABEL: "a class", _NAME: "the name of a folder", _IDENTIFIER: "an identifier"}

Share = Annotated[float, Meta(ge=0, le=1)]
# An error, a ratio, a time.
Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
# A class, as the key of an object.
Label = Annotated[str, Meta(pattern=_LABEL)]
# A part of the path of a run's folder.
Name = Annotated[str, Meta(max_length=255, pattern=_NAME)]
Identifier = Annotated[str, Meta(max_length=255, pattern=_IDENTIFIER)]

# Beyond anything that float32 yields (errors of 3.4e38, ratios of 3.4e50), yet sums and squares of it are finite.
_LARGEST = 1e60
# A run's files have hundreds of values, six levels deep.
_MOST_VALUES, _DEEPEST = 100_000, 50


def record(name: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Any:
    """The type of a JSON object with some fields, and possibly others.

    Args:
        name: of the type.
        required: name of each field that must be there -> its type.
        optional: likewise, of those that may be missing.
    """
    names = {**(optional or {}), **required}
    # Names in JSON need not be identifiers.
    own = {f"field_{number}": field for number, field in enumerate(names)}
    fields: list[Any] = []
    # Those without a default come first.
    for attribute, field in sorted(own.items(), key=lambda item: item[1] not in required):
        kind = names[field]
        fields.append((attribute, kind) if field in required else (attribute, kind | UnsetType, UNSET))
    return msgspec.defstruct(name, fields, rename=own)


def listed(kind: Any) -> Any:
    """The type of a list, of values of a type made at run time."""
    return GenericAlias(list, (kind,))


def mapped(kind: Any) -> Any:
    """The type of an object whose fields have any names, of values of a type made at run time."""
    return GenericAlias(dict, (str, kind))


_INTERVALS = list[tuple[float, float]]
RANGES = record("ranges", {"default": _INTERVALS}, {"restricted": dict[Label, _INTERVALS]})


def declared(kind: type) -> dict[str, Any]:
    """Name of each field of a dataclass -> its type in JSON, without fields that hold other dataclasses."""
    hints = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if hint in (Ranges, Ranges | None):
            found[field.name] = RANGES if hint is Ranges else RANGES | None
        elif not dataclasses.is_dataclass(hint):
            found[field.name] = hint
    return found


def decode(data: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: if it is none.
    """
    try:
        return msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def bounded(value: Any, largest: float = _LARGEST, most: int = _MOST_VALUES) -> None:
    """Checks the size of a value made of objects, lists, texts and numbers.

    Args:
        value: the value.
        largest: size of its numbers.
        most: number of its values.

    Raises:
        ValueError: if a number is larger or not finite, or if the value is too large or nested too deeply.
    """
    pending, seen = [("", value, 0)], 0
    while pending:
        field, each, depth = pending.pop()
        seen += 1
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if seen > most:
            raise ValueError(f"more than {most:,} values")
        if isinstance(each, (int, float)) and not abs(each) <= largest:
            raise ValueError(f"{field or 'number'}: expected a number up to {largest:g}; received {short(each)}")
        if isinstance(each, Mapping):
            pending += [(f"{field}.{key}" if field else str(key), item, depth + 1) for key, item in each.items()]
        elif isinstance(each, (list, tuple)):
            pending += [(f"{field}[{number}]", item, depth + 1) for number, item in enumerate(each)]


def check(value: Any, kind: Any) -> None:
    """Checks a value made of objects, lists, texts and numbers against a type.

    Args:
        value: the value.
        kind: a `record`, or any type that msgspec knows.

    Raises:
        ValueError: naming the field, what was expected, and what came.
    """
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_explained(str(error), value)) from error


# As a reader of JSON says.
_WORDS = {"`float`": "a number", "`int`": "a whole number", "`str`": "a text", "`bool`": "true or false",
          "`object`": "an object", "`array`": "a list", "`null`": "null"}  # fmt: skip


def _explained(message: str, value: Any) -> str:
    """An error of msgspec, such as "Expected `float` <= 1.0 - at `$.interval[...][1]`", in this program's words."""
    text, _, place = message.partition(" - at ")
    path = place.rpartition("`$")[2].rstrip("`").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return f"{path + ': ' if path else ''}lacks {missing[1]}"
    for part in re.findall(r"[^.\[\]]+|\.\.\.", path):
        try:
            value = value[int(part) if isinstance(value, (list, tuple)) else part]
        except (KeyError, TypeError, ValueError, IndexError):
            break  # one of an object's values, msgspec does not say which
    expected = re.sub(r", got .*", "", text.removeprefix("Expected "))
    for pattern, plain in _PATTERNS.items():
        expected = expected.replace(f"`str` matching regex {pattern!r}", plain)
    for word, plain in _WORDS.items():
        expected = expected.replace(word, plain)
    expected = re.sub(r"`(\w+(?: \| \w+)*)`", lambda words: _alternatives(words[1]), expected)
    what = f"a key of {path}" if place.startswith("`key`") else path
    return f"{what + ': ' if what else ''}expected {expected}; received {short(value)}"


def _alternatives(words: str) -> str:
    return " or ".join(_WORDS.get(f"`{word}`", word) for word in words.split(" | "))


def short(value: Any) -> str:
    """A value as an error shows it."""
    try:
        text = repr(value)
    except ValueError:  # an integer with thousands of digits
        text = "a very large number"
    return text if len(text) <= 60 else f"{text[:59]}…"
