"""Linear movements of vectors, exp(tA) with an antisymmetric generator A, learnt from pairs. Imports no Keras.

Two vectors a and b of a pair are related by b = exp(tA) a with a time t that differs from pair to pair and is unknown,
as is A. An antisymmetric matrix is a sum of rotations in orthogonal planes, so A is kept as an orthonormal basis
``vectors`` and ``frequencies``: in the plane of the columns u and v, A u = f v and A v = -f u. Writing the coordinates
in a plane as a complex number, exp(tA) multiplies it by exp(i f t).

Shapes: vectors that are moved are (pairs, dimensions); the number of planes is dimensions // 2. The columns of a basis
(dimensions, dimensions) are all u, then all v, then a single one if the number is odd. Everything is in float64.

References: Rao and Ruderman, "Learning Lie groups for invariant visual perception" (1999), for learning from small
movements; Cohen and Welling, "Learning the irreducible representations of commutative Lie groups" (2014), for planes
with integer frequencies.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import linalg

# Pairs used for each random start; all are used from the best one on.
_PAIRS_PER_START = 4000
# Times beyond this many standard deviations are cut: pairs of nearly symmetric images have any time.
_LARGEST_TIME = 3.0
# Starts that found the same generator give times that correlate at least so well. Measured: .9999 and more.
_AGREEMENT = 0.9
# Largest times of the pairs that a generator is refined with, in root mean squares of the nearest pairs' times.
_REACHES = (3.0, 6.0, 12.0, 24.0)
# Pairs are used then if no more than this share of their squared difference is left.
_CARRIED = 0.3
# The highest multiple of the base frequency that is looked for.
_MULTIPLES = 24
# Chance frequencies that the measured ones are compared with, and the share of them that may be as close to multiples.
_CHANCE_DRAWS, _CHANCE_SHARE = 200, 0.01
# With a single frequency chance is no measure; planes that share one differ from it by less than some 3 %.
_SINGLE_MISFIT = 0.001


@dataclass(frozen=True)
class Generator:
    """A learnt generator.

    Args:
        vectors: (dimensions, dimensions), orthonormal columns as described above.
        frequencies: (planes,), not negative; whole numbers if the movement is periodic.
        period: 2 pi, or None if the movement is not periodic. Then the times of the near pairs that it was learnt from
            have a root mean square of about 1.
    """

    vectors: np.ndarray
    frequencies: np.ndarray
    period: float | None = None

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Complex coordinates (pairs, planes) in the planes, and the rest (pairs, dimensions - 2 planes)."""
        planes = len(self.frequencies)
        along = points @ self.vectors
        return along[:, :planes] + 1j * along[:, planes : 2 * planes], along[:, 2 * planes :]

    def move(self, points: np.ndarray, times: np.ndarray) -> np.ndarray:
        """exp(tA) applied to points (pairs, dimensions), for times (pairs,)."""
        coordinates, rest = self.coordinates(points)
        moved = coordinates * np.exp(1j * np.outer(times, self.frequencies))
        return np.concatenate([moved.real, moved.imag, rest], 1) @ self.vectors.T

    def times_between(self, first: np.ndarray, second: np.ndarray, reach: float = 10.0) -> np.ndarray:
        """The times that carry first to second by least squares, (pairs,).

        Args:
            first, second: (pairs, dimensions).
            reach: largest time that is looked for, forwards or backwards, if the movement is not periodic.
        """
        products = self.coordinates(first)[0].conj() * self.coordinates(second)[0]
        half = self.period / 2.0 if self.period else reach
        # Eight points for each oscillation of the fastest plane.
        number = 16 * int(np.ceil(half * max(self.frequencies.max(), 1.0) / np.pi)) + 1
        grid = np.linspace(-half, half, number)
        times = np.empty(len(products))
        for part in np.array_split(np.arange(len(products)), max(1, len(products) // 4096)):
            # (pairs, planes) x (planes, grid) -> (pairs, grid)
            angles = np.outer(self.frequencies, grid)
            match = products[part].real @ np.cos(angles) + products[part].imag @ np.sin(angles)
            times[part] = grid[match.argmax(1)]
        return _improved_times(products, self.frequencies, times, grid[1] - grid[0])


def principal_components(images: np.ndarray, components: int) -> tuple[np.ndarray, float]:
    """The directions along which vectors extend most from the origin.

    They are not centred: a movement is linear, while what it does to a mean is not known before.

    Args:
        images: (images, pixels).
        components: number of directions.

    Returns:
        An orthonormal basis (pixels, components), and the share of the squared length within it.
    """
    products = sum(part.T.astype("float64") @ part for part in np.array_split(images, max(1, len(images) // 4096)))
    pixels = len(products)
    values, vectors = linalg.eigh(products, subset_by_index=[pixels - components, pixels - 1])
    # The sign of an eigenvector is arbitrary.
    vectors = vectors[:, ::-1] * np.where(vectors[:, ::-1].sum(0) < 0, -1.0, 1.0)
    return vectors, float(values.sum() / max(np.trace(products), np.finfo("float64").tiny))


def learn_generator(
    first: np.ndarray,
    second: np.ndarray,
    farther: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    seed: int = 0,
    starts: int = 3,
) -> tuple[Generator, dict[str, Any]]:
    """Learns A and, if the movement is periodic, makes exp(tA) close after one period.

    Args:
        first, second: (pairs, dimensions), pairs that differ little.
        farther: two such arrays of pairs that differ by any movement. They make the generator more accurate, the more
            so the more dimensions there are.
        seed: of the random starts.
        starts: number of random starts.

    Returns:
        The generator, and numbers about it, see `layers.linear_generator.LinearGenerator.learn`.

    Raises:
        ValueError: if no pair differs.

    Warns:
        UserWarning: if the starts do not agree on one generator.
    """
    rng = np.random.default_rng(seed)
    matrix, times, numbers = best_start(first, second, rng, starts)
    generator, times = refine(planes_of(matrix), times, first, second, 4, near=True)
    weights = explained_by_plane(generator, times, first, second)
    if farther is not None:
        generator, used, times = _widen(generator, *farther)
        if len(used):
            weights = explained_by_plane(generator, times, farther[0][used], farther[1][used])
    base, misfit, chance = find_base(generator.frequencies, weights, rng)
    if base is not None:
        whole = np.round(generator.frequencies / base)
        generator = refine_periodic(Generator(generator.vectors, whole, 2.0 * np.pi), *(farther or (first, second)))
    a, b = farther or (first, second)
    left = b - generator.move(a, generator.times_between(a, b))
    numbers["moved_residual"] = float(np.square(left).sum() / np.square(b - a).sum())
    numbers.update(base_frequency=base, misfit=misfit, chance_misfit=chance, period=generator.period)
    return generator, numbers


def best_start(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, starts: int
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The antisymmetric matrix that fits best of several random starts, its times, and numbers about the starts."""
    middle, change = (first + second) / 2.0, second - first
    if not np.square(change).sum() > 0:
        raise ValueError("Pairs must differ. Received: pairs of equal images only")
    dimensions = middle.shape[1]
    chosen = rng.permutation(len(middle))[: max(_PAIRS_PER_START, 20 * dimensions)]
    attempts = []
    for _ in range(starts):
        start = rng.standard_normal((dimensions, dimensions))
        attempts.append(_alternate(middle[chosen], change[chosen], start - start.T))
    attempts.sort(key=lambda attempt: attempt[2])
    matrix, times, _ = attempts[0]
    agreement = min([abs(float(np.corrcoef(times, other[1])[0, 1])) for other in attempts[1:]], default=1.0)
    if agreement < _AGREEMENT:
        warnings.warn(
            f"The random starts found different generators: their times correlate by {agreement:.2f} only. "
            "The pairs may not be related by one movement",
            stacklevel=4,
        )
    matrix, times, residual = _alternate(middle, change, matrix)
    numbers = {
        "residual": float(residual),
        "starts_residuals": [float(attempt[2]) for attempt in attempts],
        "starts_agreement": agreement,
    }
    return matrix, times, numbers


def _alternate(
    middle: np.ndarray, change: np.ndarray, matrix: np.ndarray, iterations: int = 150
) -> tuple[np.ndarray, np.ndarray, float]:
    """Alternating least squares for b - a = t A (a + b) / 2: times for a given matrix, then the matrix.

    Returns:
        The matrix, times of root mean square 1, and the share of the changes that is left.
    """
    before = np.zeros(len(middle))
    for _ in range(iterations):
        speeds = middle @ matrix.T
        squares = np.square(speeds).sum(1)
        times = (change * speeds).sum(1) / (squares + 1e-9 * squares.mean())
        times = np.clip(times, *(_LARGEST_TIME * times.std() * np.array([-1.0, 1.0])))
        times /= np.sqrt(np.square(times).mean())
        # Of all antisymmetric matrices the best one solves A G + G A = B - B^T, with G = sum t^2 m m^T and
        # B = sum t (b - a) m^T; in the eigenvectors of G, entry by entry.
        values, vectors = np.linalg.eigh((middle * np.square(times)[:, None]).T @ middle)
        mixed = vectors.T @ ((change * times[:, None]).T @ middle) @ vectors
        solved = (mixed - mixed.T) / (values[:, None] + values + 1e-6 * values.mean())
        matrix = vectors @ solved @ vectors.T
        if np.square(times - before).mean() < 1e-8:
            break
        before = times
    left = change - times[:, None] * (middle @ matrix.T)
    return (matrix - matrix.T) / 2.0, times, np.square(left).sum() / np.square(change).sum()


def planes_of(matrix: np.ndarray) -> Generator:
    """An antisymmetric matrix as rotations in planes, the fastest first."""
    # The real Schur form of a normal matrix has its planes as blocks on the diagonal.
    blocks, basis = linalg.schur(matrix, output="real")
    below = np.append(np.diagonal(blocks, -1), 0.0)
    tolerance = 1e-12 * np.abs(below).max()
    pairs, single, position = [], [], 0
    while position < len(blocks):
        if abs(below[position]) > tolerance:
            # A u = f v for a block whose lower entry is f.
            pairs.append((abs(below[position]), basis[:, position], np.sign(below[position]) * basis[:, position + 1]))
            position += 2
        else:
            single.append(basis[:, position])
            position += 1
    while len(single) > 1:
        pairs.append((0.0, single.pop(), single.pop()))
    pairs.sort(key=lambda pair: -pair[0])
    columns = [pair[1] for pair in pairs] + [pair[2] for pair in pairs] + single
    return Generator(np.stack(columns, 1), np.array([pair[0] for pair in pairs]))


def _improved_times(
    products: np.ndarray, frequencies: np.ndarray, times: np.ndarray, largest: float, steps: int = 4
) -> np.ndarray:
    """Newton's method for the maximum over t of Re sum_planes products exp(-i f t), (pairs,).

    Args:
        products: (pairs, planes), conj(a) b in complex coordinates.
        frequencies: (planes,).
        times: (pairs,), where to begin.
        largest: no step is longer.
    """
    for _ in range(steps):
        turned = products * np.exp(-1j * np.outer(times, frequencies))
        slope, curvature = turned.imag @ frequencies, turned.real @ np.square(frequencies)
        concave = curvature > 0
        step = np.where(concave, slope / np.where(concave, curvature, 1.0), np.sign(slope) * largest)
        times = times + np.clip(step, -largest, largest)
    return times


def _closest_basis(generator: Generator, times: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One step towards the orthonormal basis whose planes, rotated by f t, carry first to second best.

    The objective, sum over pairs of <b, exp(tA) a>, is quadratic in the basis. The polar factor of its gradient is the
    basis that is best for the objective linearised, as in the orthogonal Procrustes problem.
    """
    (a, rest_a), (b, rest_b) = generator.coordinates(first), generator.coordinates(second)
    phases = np.exp(1j * np.outer(times, generator.frequencies))
    forth, back = a * phases, b * phases.conj()
    gradient = np.concatenate(
        [
            first.T @ back.real + second.T @ forth.real,
            first.T @ back.imag + second.T @ forth.imag,
            first.T @ rest_b + second.T @ rest_a,
        ],
        1,
    )
    left, _, right = np.linalg.svd(gradient)
    return left @ right


def refine(
    generator: Generator, times: np.ndarray, first: np.ndarray, second: np.ndarray, steps: int, near: bool = False
) -> tuple[Generator, np.ndarray]:
    """Improves times, frequencies and planes in turn, with exp(tA) itself instead of its linearisation.

    Args:
        generator: to begin with.
        times: (pairs,), to begin with.
        first, second: (pairs, dimensions).
        steps: number of turns.
        near: whether times are cut, and scaled to a root mean square of 1, as in `_alternate`.

    Returns:
        The generator, and times (pairs,).
    """
    for _ in range(steps):
        products = generator.coordinates(first)[0].conj() * generator.coordinates(second)[0]
        frequencies = generator.frequencies
        times = _improved_times(products, frequencies, times, 0.3, steps=2)
        if near:
            times = np.clip(times, -_LARGEST_TIME, _LARGEST_TIME)
            scale = np.sqrt(np.square(times).mean())
            times, frequencies = times / scale, frequencies * scale
        # Newton's method for the frequencies, which enter the objective as the times do.
        for _ in range(2):
            turned = products * np.exp(-1j * np.outer(times, frequencies))
            slope, curvature = times @ turned.imag, np.square(times) @ turned.real
            concave = curvature > 0
            step = np.where(concave, slope / np.where(concave, curvature, 1.0), 0.0)
            frequencies = frequencies + np.clip(step, -1.0 / np.abs(times).max(), 1.0 / np.abs(times).max())
        generator = _oriented(replace(generator, frequencies=frequencies))
        generator = replace(generator, vectors=_closest_basis(generator, times, first, second))
    return generator, times


def _widen(generator: Generator, first: np.ndarray, second: np.ndarray) -> tuple[Generator, np.ndarray, np.ndarray]:
    """Improves a generator by farther and farther pairs, whether it is periodic or not.

    Small movements do not tell planes apart whose frequencies are close; movements twice as large tell them apart twice
    as well. A pair is used as soon as the generator carries one image nearly to the other.

    Returns:
        The generator, the pairs used last (indices), and their times.
    """
    used, times = np.arange(0), np.zeros(0)
    for reach in _REACHES:
        found = generator.times_between(first, second, reach)
        left = np.square(second - generator.move(first, found)).sum(1) / (np.square(second - first).sum(1) + 1e-12)
        good = np.flatnonzero((left < _CARRIED) & (np.abs(found) < reach))
        if len(good) < 2 * first.shape[1]:
            continue
        used = good
        generator, times = refine(generator, found[used], first[used], second[used], 3)
    return generator, used, times


def refine_periodic(generator: Generator, first: np.ndarray, second: np.ndarray, steps: int = 4) -> Generator:
    """Alternates between times of pairs, over the whole period, whole frequencies of planes, and planes."""
    for _ in range(steps):
        times = generator.times_between(first, second)
        products = generator.coordinates(first)[0].conj() * generator.coordinates(second)[0]
        highest = int(generator.frequencies.max()) + 2
        candidates = np.arange(-highest, highest + 1)
        # (candidates, pairs) x (pairs, planes) -> (candidates, planes)
        match = (np.exp(-1j * np.outer(candidates, times)) @ products).real
        generator = _oriented(replace(generator, frequencies=candidates[match.argmax(0)].astype("float64")))
        generator = replace(generator, vectors=_closest_basis(generator, times, first, second))
    return generator


def _oriented(generator: Generator) -> Generator:
    """The same generator with no negative frequency: planes that rotate backwards are turned over."""
    planes = len(generator.frequencies)
    signs = np.ones(generator.vectors.shape[1])
    signs[planes : 2 * planes] = np.where(generator.frequencies < 0, -1.0, 1.0)
    return replace(generator, vectors=generator.vectors * signs, frequencies=np.abs(generator.frequencies))


def explained_by_plane(generator: Generator, times: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much of the pairs' differences each plane explains, (planes,), not negative."""
    products = generator.coordinates(first)[0].conj() * generator.coordinates(second)[0]
    turned = products * np.exp(-1j * np.outer(times, generator.frequencies))
    return np.square(generator.frequencies) * np.maximum(np.square(times) @ turned.real, 0.0)


def find_base(
    frequencies: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> tuple[float | None, float, float]:
    """The frequency of which all are multiples, if there is one.

    The misfit is the weighted mean squared distance of frequency / base from the nearest whole number. The base is the
    one of least misfit. Some base fits any frequencies well, so the least misfit must be less than nearly all found in
    the same way for chance frequencies: the measured ones with the distances between neighbouring multiples changed at
    random by up to a half, which leaves planes of nearly equal frequency together. Two different frequencies alone are
    too few to be told from chance, unless they are known very well. A single one is periodic by itself.

    Args:
        frequencies: (planes,), not negative.
        weights: (planes,), not negative.
        rng: of the chance frequencies.

    Returns:
        The base or None, the least misfit, and what it had to be less than.
    """
    if not (frequencies * weights).any():
        return None, 1.0 / 12.0, 1.0 / 12.0
    mean = float(frequencies @ weights / weights.sum())
    spread = float(np.square(frequencies / mean - 1.0) @ weights / weights.sum())
    if spread < _SINGLE_MISFIT:
        return mean, spread, _SINGLE_MISFIT
    base, misfit = _least_misfit(frequencies, weights)
    knots = np.arange(int(np.ceil(frequencies.max() / base)) + 1)
    chance = []
    for _ in range(_CHANCE_DRAWS):
        warped = np.append(0.0, np.cumsum(rng.uniform(0.5, 1.5, len(knots) - 1)))
        chance.append(_least_misfit(np.interp(frequencies / base, knots, warped), weights)[1])
    limit = float(np.quantile(chance, _CHANCE_SHARE))
    return (base if misfit < limit else None), misfit, limit


def _least_misfit(frequencies: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """The base of least misfit and that misfit."""
    order = np.argsort(-frequencies)
    # The highest frequency, but for planes that explain next to nothing.
    highest = frequencies[order][np.searchsorted(np.cumsum(weights[order]), 0.01 * weights.sum())]
    bases = np.geomspace(highest / _MULTIPLES, 1.02 * highest, 3000)

    def misfit(bases: np.ndarray) -> np.ndarray:
        multiples = frequencies / bases[:, None]
        return np.square(multiples - np.round(multiples)) @ weights / weights.sum()

    base = bases[misfit(bases).argmin()]
    # Between the points of the lattice, least squares for the multiples found.
    multiples = np.round(frequencies / base)
    better = (weights * frequencies) @ multiples / (weights @ np.square(multiples))
    # Of exact frequencies any part of the base fits as well, up to the lattice.
    divisor = np.gcd.reduce(multiples[weights > 1e-3 * weights.sum()].astype(int))
    tried = np.array([base, better, better * max(divisor, 1)])
    values = misfit(tried)
    return float(tried[values.argmin()]), float(values.min())
