"""The columns of tables: what they show, and how numbers are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

# A number of a table; pairs are the lowest and the highest of several.
Number = float | tuple[float, float] | None


@dataclass(frozen=True)
class Column:
    """A number that tables show: its title, where it is read from metrics or published numbers, and its form.

    On ``scale``, log-odds or a logarithm, runs that differ only in their seed vary alike, whether numbers are small or
    large.
    """

    key: str
    title: str
    read: Callable[[Mapping], Any]
    form: Callable[[Any], str]
    scale: Callable[[float], float] = log

    def signed(self, difference: float) -> str:
        """A difference of two numbers of this column, with its sign."""
        return ("−" if difference < 0 else "+") + self.form(abs(difference))


def share(value: float | None) -> str:
    """A proportion or an error with four decimals and no leading zero; a dash for none."""
    return "—" if value is None else f"{value:.4f}".removeprefix("0")


def ratio(value: Number) -> str:
    """A ratio with two decimals, or a pair of them; a dash for none."""
    if isinstance(value, tuple):
        return "–".join(map(ratio, value))
    return "—" if value is None else f"{value:.2f}"


def log_odds(value: float) -> float:
    """log P / (1 - P).

    Raises:
        ValueError, ZeroDivisionError: for 0 and 1.
    """
    return log(value / (1 - value))
