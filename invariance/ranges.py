"""Ranges of a transformation's parameter, per class.

A *range* is a tuple of half-open intervals ``((low, high), ...)`` in the parameter's unit (degrees or pixels). An
interval with ``low == high`` is a single value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

Intervals = tuple[tuple[float, float], ...]


def intervals(value, name: str = "range") -> Intervals:
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


def length(pairs: Intervals) -> float:
    """The summed length of the intervals."""
    return sum(high - low for low, high in pairs)


def overlap(first: Intervals, second: Intervals, period: float) -> float:
    """The summed length that two ranges have in common, both taken modulo ``period`` (360 for degrees)."""
    return sum(
        max(0.0, min(high, above + turn * period) - max(low, below + turn * period))
        for low, high in first
        for below, above in second
        for turn in range(math.floor((low - above) / period), math.ceil((high - below) / period) + 1)
    )


def angle_grid(spacing: float):
    """Angles -180 + spacing / 2, ..., 180 - spacing / 2 in degrees: the middles of equal cells of the circle.

    Ranges whose ends are multiples of the spacing are tiled exactly by the cells. If 90 is a multiple of the spacing,
    no angle is a quarter turn, where nothing is blurred by interpolation.

    Raises:
        ValueError: if angles so many degrees apart do not meet again after one turn, or there is only one.
    """
    import numpy as np

    if spacing is None or not (0 < spacing <= 180 and abs(360 / spacing - round(360 / spacing)) < 1e-9):
        raise ValueError(f"A grid of angles is spaced by a divisor of 360 degrees, 180 at most. Received: {spacing!r}")
    count = round(360 / spacing)
    # Rounded, so that a quarter turn, if there is one, is recognised as such.
    return np.round(-180.0 + 360.0 / count * (np.arange(count) + 0.5), 9)


@dataclass(frozen=True)
class Ranges:
    """The range each class is drawn from: ``default`` for all but the ``restricted`` ones.

    Args:
        default: intervals of the free classes.
        restricted: class label -> its own intervals.

    Raises:
        ValueError: if a range or a label is malformed.
    """

    default: Intervals
    restricted: Mapping[int, Intervals] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "default", intervals(self.default, "default"))
        restricted = {}
        for label, value in dict(self.restricted).items():
            if int(label) != float(label) or int(label) < 0:
                raise ValueError(f"Restricted classes must be non-negative integers. Received: {label!r}")
            restricted[int(label)] = intervals(value, f"restricted[{label}]")
        object.__setattr__(self, "restricted", dict(sorted(restricted.items())))

    def of(self, label: int) -> Intervals:
        """The intervals that class ``label`` is drawn from."""
        return self.restricted.get(int(label), self.default)

    def to_json(self) -> dict:
        return {
            "default": [list(pair) for pair in self.default],
            "restricted": {str(label): [list(pair) for pair in value] for label, value in self.restricted.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping) -> "Ranges":
        return cls(**{**value, "restricted": {int(k): v for k, v in value.get("restricted", {}).items()}})


def cell_weights(grid, pairs: Intervals, period: float | None = None):
    """How much of a range each point of an even grid stands for.

    Point i of the grid stands for the cell of one spacing's width around it. Its weight is the part of the range that
    lies in its cell, so averages over the range are midpoint sums whatever the range's ends.

    Args:
        grid: ascending, evenly spaced parameters.
        pairs: the range; of total length zero, the nearest grid point gets all the weight.
        period: 360 for degrees: the range is taken modulo it.

    Returns:
        A list of weights that sums to one.

    Raises:
        ValueError: if the grid covers no part of the range.
    """
    grid = [float(value) for value in grid]
    spacing = grid[1] - grid[0] if len(grid) > 1 else (period or 1.0)
    turns = (0.0,)
    if period:
        # Whole turns bring an interval to the grid; one more to either side covers the cells that it wraps around into.
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
                max(0.0, min(high, value + turn + spacing / 2) - max(low, value + turn - spacing / 2))
                for low, high in pairs
                for turn in turns
            )
            for value in grid
        ]
    total = sum(weights)
    if total == 0.0:
        raise ValueError(f"The grid from {grid[0]} to {grid[-1]} covers no part of the range {pairs}")
    return [weight / total for weight in weights]
