"""Ranges of a transformation's parameter, per class: the only interval arithmetic there is.

A *range* is a tuple of half-open intervals ``((low, high), ...)`` in the parameter's unit (degrees or pixels). An
interval with ``low == high`` is a single value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

Intervals = tuple[tuple[float, float], ...]


def intervals(value: Any, name: str = "range") -> Intervals:
    """Checks ``value`` and returns it as a tuple of disjoint, ascending intervals of floats.

    Raises:
        ValueError: if it is empty, holds something that is not a pair of finite numbers, or if its intervals
            overlap or descend.
    """
    try:
        pairs = tuple((float(low), float(high)) for low, high in value)
    except (TypeError, ValueError):
        pairs = ()
    expected = f"Argument `{name}` must be a non-empty sequence of pairs (low, high) of finite numbers, low <= high"
    if not pairs or any(not (math.isfinite(low) and math.isfinite(high) and low <= high) for low, high in pairs):
        raise ValueError(f"{expected}. Received: {value!r}")
    if any(previous[1] > following[0] for previous, following in pairwise(pairs)):
        raise ValueError(f"{expected}, in ascending order without overlap. Received: {value!r}")
    return pairs


def at(values: Iterable[float]) -> Intervals:
    """The range that consists of single values, given in ascending order."""
    return intervals((value, value) for value in values)


def length(pairs: Intervals) -> float:
    """The total length of the intervals."""
    return sum(high - low for low, high in pairs)


def extent(*ranges: Intervals) -> tuple[float, float]:
    """The lowest and the highest end of some ranges."""
    return min(pairs[0][0] for pairs in ranges if pairs), max(pairs[-1][1] for pairs in ranges if pairs)


def overlap(first: Intervals, second: Intervals, period: float | None = None) -> float:
    """The total length that two ranges share, taken modulo ``period`` (360 for degrees) if there is one."""
    return sum(
        max(0.0, min(high, above + shift) - max(low, below + shift))
        for low, high in first
        for below, above in second
        for shift in _shifts(low - above, high - below, period)
    )


def _shifts(low: float, high: float, period: float | None) -> tuple[float, ...]:
    """The multiples of ``period`` from ``low`` to ``high``, rounded outwards; only 0.0 without a period."""
    if period is None:
        return (0.0,)
    return tuple(period * turn for turn in range(math.floor(low / period), math.ceil(high / period) + 1))


def contains(pairs: Intervals, points: ArrayLike, period: float | None = None, closed: bool = False) -> np.ndarray:
    """Which points lie in a range.

    Args:
        pairs: half-open intervals [low, high); an interval with ``low == high`` contains that value.
        points: (points,) parameters.
        period: if given (360 for degrees), points and range are taken modulo it.
        closed: include the upper ends.

    Returns:
        (points,) booleans.
    """
    import numpy as np

    points = np.asarray(points, float)
    inside = np.zeros(points.shape, bool)
    if not points.size:
        return inside
    for low, high in pairs:
        for shift in _shifts(low - points.max(), high - points.min(), period):
            upper = points + shift <= high if closed or low == high else points + shift < high
            inside |= (low <= points + shift) & upper
    return inside


def centred(pairs: Intervals, period: float | None) -> Intervals:
    """The range mapped into [-period / 2, period / 2] and split where it wraps around; unchanged without a period."""
    if period is None:
        return pairs
    half, pieces = period / 2, []
    for low, high in pairs:
        if high - low >= period:
            return ((-half, half),)
        start = (low + half) % period - half
        stop = start + high - low
        pieces += [(start, stop)] if stop <= half else [(start, half), (-half, stop - period)]
    return tuple(sorted(pieces))


def complement(whole: Intervals, part: Intervals, period: float | None = None) -> Intervals:
    """What remains of ``whole`` without ``part``, taken modulo ``period`` if there is one; may be empty."""
    values = [pair for pair in whole if pair[0] == pair[1] and not contains(part, pair[:1], period)[0]]
    remaining = [pair for pair in whole if pair[0] < pair[1]]
    for below, above in part:
        cut = []
        for low, high in remaining:
            for shift in _shifts(low - above, high - below, period):
                start, stop = below + shift, above + shift
                if start < high and stop > low:
                    if low < start:
                        cut.append((low, start))
                    low = max(low, stop)
            if low < high:
                cut.append((low, high))
        remaining = cut
    return tuple(sorted(remaining + values))


def middles(pairs: Intervals, count: int) -> list[float]:
    """The midpoints of ``count`` equal parts of a range. A range of single values is cycled through."""
    total = length(pairs)
    if not total:
        return [pairs[number % len(pairs)][0] for number in range(count)]
    values = []
    for number in range(count):
        rest = (number + 0.5) / count * total
        for low, high in pairs:
            if rest <= high - low:
                values.append(low + rest)
                break
            rest -= high - low
    return values


@dataclass(frozen=True)
class Ranges:
    """The range from which each class's parameters are drawn.

    Args:
        default: range of all classes that are not restricted.
        restricted: label of a restricted class -> its range.

    Raises:
        ValueError: if a range or a label is malformed.
    """

    default: Intervals
    restricted: Mapping[int, Intervals] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", intervals(self.default, "default"))
        restricted = {}
        for label, value in dict(self.restricted).items():
            if int(label) != float(label) or int(label) < 0:
                raise ValueError(f"Restricted classes must be non-negative integers. Received: {label!r}")
            restricted[int(label)] = intervals(value, f"restricted[{label}]")
        object.__setattr__(self, "restricted", dict(sorted(restricted.items())))

    def of(self, label: int) -> Intervals:
        """The range of class ``label``."""
        return self.restricted.get(int(label), self.default)

    def to_json(self) -> dict:
        return {
            "default": [list(pair) for pair in self.default],
            "restricted": {str(label): [list(pair) for pair in value] for label, value in self.restricted.items()},
        }

    def mapped(self, function: Callable[[float], float]) -> Ranges:
        """The ranges with an increasing function applied to all their ends."""

        def each(pairs: Intervals) -> Intervals:
            return tuple((function(low), function(high)) for low, high in pairs)

        return Ranges(each(self.default), {label: each(pairs) for label, pairs in self.restricted.items()})

    @property
    def all(self) -> list[Intervals]:
        """The default range and the ranges of the restricted classes."""
        return [self.default, *self.restricted.values()]

    @classmethod
    def from_json(cls, value: Mapping) -> Ranges:
        return cls(**{**value, "restricted": {int(k): v for k, v in value.get("restricted", {}).items()}})


def cell_weights(
    grid: Iterable[float], pairs: Intervals, period: float | None = None, start: float = -0.5
) -> list[float]:
    """The weight of each point of an even grid in an average over a range.

    Each point stands for a cell as wide as the spacing. Its weight is the share of the range that lies in its cell, so
    weighted sums are midpoint sums even if the range ends within a cell.

    Args:
        grid: ascending, evenly spaced parameters.
        pairs: the range. If its total length is zero, the grid point nearest to each of its values is weighted.
        period: if given (360 for degrees), the range is taken modulo it.
        start: where a point's cell begins, relative to the point and in units of the spacing: -0.5 puts the point in
            the middle of its cell; 0.0 puts it at the beginning, for parameters that take whole values only.

    Returns:
        A list of weights that sums to one.

    Raises:
        ValueError: if the grid covers no part of the range.
    """
    grid = [float(value) for value in grid]
    if not pairs:
        raise ValueError("An empty range has no average")
    spacing = grid[1] - grid[0] if len(grid) > 1 else (period or 1.0)
    turns: tuple[float, ...] = (0.0,)
    if period:
        # Whole periods bring an interval to the grid; one more on either side covers cells that it wraps around into.
        back = [period * math.floor((low - grid[0]) / period) for low, _ in pairs]
        pairs = tuple((low - turn, high - turn) for (low, high), turn in zip(pairs, back, strict=True))
        turns = tuple(
            period * turn for turn in range(-1, 2 + math.ceil(max(high - low for low, high in pairs) / period))
        )
    if length(pairs) == 0.0:
        weights = [0.0] * len(grid)
        for low, _ in pairs:
            distances = [min(abs(value + turn - low) for turn in turns) for value in grid]
            weights[distances.index(min(distances))] += 1.0
    else:
        weights = [
            sum(
                max(0.0, min(high, value + turn + spacing * (start + 1)) - max(low, value + turn + spacing * start))
                for low, high in pairs
                for turn in turns
            )
            for value in grid
        ]
    total = sum(weights)
    if total == 0.0:
        raise ValueError(f"The grid from {grid[0]} to {grid[-1]} covers no part of the range {pairs}")
    return [weight / total for weight in weights]
