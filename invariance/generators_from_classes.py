"""Linear movements of vectors, learnt from drawings of some classes, not knowing which show the same original.

If a class is drawn at every parameter of the movement, then a moved drawing looks like some other drawing of its class.
Of nearly all antisymmetric matrices this is not true. So the nearest neighbours of drawings are taken for what a small
movement made of them; what all their differences have in common is a first generator. Then drawings are moved by it,
farther and farther, and what is left to their nearest neighbours corrects it.

Shapes and references: as in `invariance.generators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from invariance import generators
from invariance.generators import Generator

# Moved drawings of each class and round.
_MOVED = 1500
# Rounds in which drawings are moved farther and farther, and those over a whole period.
_ROUNDS, _PERIODIC_ROUNDS = 24, 8
# Length of the path that drawings move along in the first of these rounds and in the last, in lengths of the drawings.
_FIRST_REACH, _LAST_REACH = 0.3, 8.0
# Share of the drawings, those nearest to their neighbours, with which the search begins.
_NEAREST = 1 / 3
# Share of the moved drawings that is left out in the end: those whose neighbours have become distant.
_EXCLUDED = 0.5
# Drawings compared at a time.
_CHUNK = 512


def learn_generator_from_classes(
    classes: Sequence[np.ndarray], *, parameters: int = 1, seed: int = 0, starts: int = 3
) -> tuple[Generator, dict[str, Any]]:
    """Learns A, or several that commute, and, if the movement is periodic, makes exp(tA) close after one period.

    Args:
        classes: drawings of one class each, (drawings, dimensions), no two of the same original.
        parameters: of the movement: the number of generators.
        seed: of the random starts, and of the movements.
        starts: number of random starts.

    Returns:
        The generator, and numbers about it, as from `generators.learn_generator`; but ``moved_residual`` is the median
        ratio of the squared distances that moved drawings and drawings as they are have from their nearest neighbours:
        1 if moved drawings are like drawings.

    Raises:
        ValueError: if no class has two drawings that differ.

    Warns:
        UserWarning: if the starts do not agree on one generator.
    """
    rng = np.random.default_rng(seed)
    drawings = [_Drawings(points) for points in classes if len(points) > 1]
    pairs = [each.nearest_pairs() for each in drawings]
    if not pairs:
        raise ValueError("Some class must have several drawings. Received: none")
    first, second = (np.concatenate(each) for each in zip(*pairs, strict=True))
    matrices, times, numbers = generators.best_start(first, second, rng, starts, parameters)
    generator, _ = generators.refine(generators.planes_of(matrices), times, first, second, 4, near=True)
    for progress in np.linspace(0.0, 1.0, _ROUNDS):
        reach = _FIRST_REACH + progress * (_LAST_REACH - _FIRST_REACH)
        first, second, times, _ = _moved(generator, drawings, reach / _speed(generator, first), progress, rng)
        generator, times = generators.refine(generator, times, first, second, 2)
    generator, found_base = generators.with_period(generator, times, first, second, rng)
    reach = np.pi if generator.period else _LAST_REACH / _speed(generator, first)
    for _ in range(_PERIODIC_ROUNDS if generator.period else 0):
        first, second, _, _ = _moved(generator, drawings, reach, 1.0, rng)
        generator = generators.refine_periodic(generator, first, second, 2)
    *_, ratios = _moved(generator, drawings, reach, 0.0, rng)
    return generator, {**numbers, "moved_residual": float(np.median(ratios)), **found_base}


class _Drawings:
    """Drawings of one class.

    Args:
        points: (drawings, dimensions).
    """

    def __init__(self, points: np.ndarray):
        self.points, self._pool = points, points.astype("float32")
        self._squares = np.square(self._pool).sum(1)
        # Of the drawings as they are.
        self.neighbours, self.distances = self.nearest(points, np.arange(len(points)))

    def nearest(self, points: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The drawings nearest to some points, other than those (points,) that they were made of.

        Returns:
            Indices (points,), and squared distances (points,).
        """
        found, distances = np.empty(len(points), int), np.empty(len(points), "float32")
        for start in range(0, len(points), _CHUNK):
            rows = slice(start, start + _CHUNK)
            part = points[rows].astype("float32")
            squared = np.square(part).sum(1)[:, None] + self._squares - 2.0 * part @ self._pool.T
            squared[np.arange(len(part)), own[rows]] = np.inf
            found[rows] = squared.argmin(1)
            distances[rows] = np.maximum(squared[np.arange(len(part)), found[rows]], 0.0)
        return found, distances

    def nearest_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Drawings and their neighbours, of those that are near their neighbours for their length."""
        order = np.argsort(self.distances / (self._squares + 1e-6))
        chosen = order[: max(1, round(_NEAREST * len(order)))]
        return self.points[chosen], self.points[self.neighbours[chosen]]


def _moved(
    generator: Generator, classes: Sequence[_Drawings], reach: float, progress: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Drawings, the nearest neighbours of what they are moved to, the times, and ratios of distances.

    Args:
        reach: times are uniform up to it, in both directions.
        progress: from 0 to 1; the more, the more drawings are left out that were moved to where no others are.
    """
    parts = []
    for each in classes:
        own = rng.integers(0, len(each.points), _MOVED)
        times = rng.uniform(-reach, reach, (_MOVED, len(generator.frequencies)))
        neighbours, distances = each.nearest(generator.move(each.points[own], times), own)
        ratios = distances / (each.distances[own] + 1e-6)
        kept = ratios <= np.quantile(ratios, 1.0 - _EXCLUDED * progress)
        parts.append((each.points[own[kept]], each.points[neighbours[kept]], times[kept], ratios[kept]))
    first, second, times, ratios = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first, second, times, ratios


def _speed(generator: Generator, points: np.ndarray) -> float:
    """Root mean square of the distance that points move in a unit of time, in lengths of the points."""
    planes, _ = generator.coordinates(points)
    speeds = (np.square(np.abs(planes)) @ np.square(generator.frequencies).T).sum()
    return float(np.sqrt(speeds / np.square(points).sum()))
