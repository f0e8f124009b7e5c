"""The columns of tables, and the formats of their numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

# A number in a table; a pair is the lowest and highest of several. Text stands for a published number that is too rough
# to calculate with, such as "1.56*"; it is shown as it is.
Number = float | tuple[float, float] | str | None
ROUGH = "*"

IN, OUT, FARTHEST = "in range", "out of range", "farthest out"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        key: identifies the column, for example in the declaration of an experiment.
        title: its heading.
        read: reads the number from a run's metrics, or from published ones.
        form: formats the number.
        scale: transforms numbers (log-odds or logarithm) so that their variance over seeds hardly varies with size.
        place: where the restricted classes are measured, for the overview of all models: `IN`, `OUT` or `FARTHEST`.
    """

    key: str
    title: str
    read: Callable[[Mapping], Any]
    form: Callable[[Any], str]
    scale: Callable[[float], float] = log
    place: str = ""

    def signed(self, difference: float) -> str:
        """Formats the difference of two numbers with its sign."""
        return ("−" if difference < 0 else "+") + self.form(abs(difference))


@dataclass(frozen=True)
class Response:
    """A number that answers to how much was shown, and the level it has where nothing transfers.

    Args:
        key: identifies it.
        title: of its axis.
        where: the range in which it is measured, in words.
        read: reads it from a run's metrics; None if it was not measured.
        level: reads the level it is compared with, likewise.
        level_title: what that is.
        logarithmic: whether its axis is.
    """

    key: str
    title: str
    where: str
    read: Callable[[Mapping], float | None]
    level: Callable[[Mapping], float | None]
    level_title: str
    logarithmic: bool = False


def share(value: Number) -> str:
    """A proportion or an error with four decimals and no leading zero, or a pair of them; a dash for None."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return "–".join(map(share, value))
    return "—" if value is None else f"{value:.4f}".removeprefix("0")


def percent(value: float) -> str:
    """A proportion in per cent, with one decimal."""
    return f"{100 * value:.1f} %"


def error(value: Number) -> str:
    """As `share`, but what would be rounded to zero is not called so."""
    return "<.0001" if isinstance(value, float) and 0 < value < 5e-5 else share(value)


def ratio(value: Number) -> str:
    """A ratio, or a pair of them, with two decimals; a dash for None."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return "–".join(map(ratio, value))
    return "—" if value is None else f"{value:.2f}"


def log_odds(value: float) -> float:
    """log P / (1 - P).

    Raises:
        ValueError, ZeroDivisionError: if the value is 0 or 1.
    """
    return log(value / (1 - value))
