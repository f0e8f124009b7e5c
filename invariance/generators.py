"""Linear movements of vectors, exp(tA) with an antisymmetric generator A, learnt from pairs. Imports no Keras.

Two vectors a and b of a pair are related by b = exp(tA) a with a time t that differs from pair to pair and is unknown,
as is A. An antisymmetric matrix is a sum of rotations in orthogonal planes, so A is kept as an orthonormal basis
``vectors`` and ``frequencies``: in the plane of the columns u and v, A u = f v and A v = -f u. Writing the coordinates
in a plane as a complex number, exp(tA) multiplies it by exp(i f t).

A movement with several parameters has a generator for each, b = exp(t_1 A_1 + t_2 A_2) a. If they commute, they share
the planes, in which each has frequencies of its own.

Shapes: vectors that are moved are (pairs, dimensions); times are (pairs, generators); the number of planes is
dimensions // 2. The columns of a basis (dimensions, dimensions) are all u, then all v, then a single one if the number
is odd. Everything is in float64.

References: Rao and Ruderman, "Learning Lie groups for invariant visual perception" (1999), for learning from small
movements; Cohen and Welling, "Learning the irreducible representations of commutative Lie groups" (2014), for planes
with integer frequencies; Cardoso and Souloumiac, "Jacobi angles for simultaneous diagonalization" (1996), for planes
that several generators share.
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
# Matches of pairs and times that are computed at once.
_MATCHES = 2**23
# Joint planes are found when no pair of them is turned by more than this; turns in all, and combinations tried.
_TURN, _SWEEPS, _COMBINATIONS = 1e-5, 60, 4
# Chance frequencies that the measured ones are compared with, and the share of them that may be as close to multiples.
_CHANCE_DRAWS, _CHANCE_SHARE = 200, 0.01
# With a single frequency chance is no measure; planes that share one differ from it by less than some 3 %.
_SINGLE_MISFIT = 0.001


@dataclass(frozen=True)
class Generator:
    """A learnt generator.

    Args:
        vectors: (dimensions, dimensions), orthonormal columns as described above.
        frequencies: (generators, planes), or (planes,) for a single one; those of the first are not negative. Whole
            numbers if the movement is periodic.
        period: 2 pi, or None if the movement is not periodic, as always with several parameters. Then the times of the
            near pairs that it was learnt from have a root mean square of about 1 and are not correlated.
    """

    vectors: np.ndarray
    frequencies: np.ndarray
    period: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frequencies", np.atleast_2d(self.frequencies))

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Complex coordinates (pairs, planes) in the planes, and the rest (pairs, dimensions - 2 planes)."""
        planes = self.frequencies.shape[1]
        along = points @ self.vectors
        return along[:, :planes] + 1j * along[:, planes : 2 * planes], along[:, 2 * planes :]

    def move(self, points: np.ndarray, times: np.ndarray) -> np.ndarray:
        """exp(tA) applied to points (pairs, dimensions), for times (pairs, generators), or (pairs,) for one."""
        coordinates, rest = self.coordinates(points)
        moved = coordinates * np.exp(1j * (np.reshape(times, (len(points), -1)) @ self.frequencies))
        return np.concatenate([moved.real, moved.imag, rest], 1) @ self.vectors.T

    def times_between(self, first: np.ndarray, second: np.ndarray, reach: float = 10.0) -> np.ndarray:
        """The times that carry first to second by least squares, (pairs, generators).

        Args:
            first, second: (pairs, dimensions).
            reach: largest time that is looked for, forwards or backwards, if the movement is not periodic.
        """
        products = self.coordinates(first)[0].conj() * self.coordinates(second)[0]
        half, count = self.period / 2.0 if self.period else reach, len(self.frequencies)
        # Eight points for each oscillation of the fastest plane; four along each of several parameters.
        points = 16 if count == 1 else 8
        number = points * int(np.ceil(half * max(np.abs(self.frequencies).max(), 1.0) / np.pi)) + 1
        line = np.linspace(-half, half, number)
        grid = np.stack(np.meshgrid(*[line] * count, indexing="ij"), -1).reshape(-1, count)
        angles = self.frequencies.T @ grid.T
        cosine, sine = np.cos(angles), np.sin(angles)
        times = np.empty((len(products), count))
        for part in np.array_split(np.arange(len(products)), max(1, len(products) * len(grid) // _MATCHES)):
            # (pairs, planes) x (planes, grid) -> (pairs, grid)
            times[part] = grid[(products[part].real @ cosine + products[part].imag @ sine).argmax(1)]
        return _improved_times(products, self.frequencies, times, line[1] - line[0])


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
    parameters: int = 1,
    seed: int = 0,
    starts: int = 3,
) -> tuple[Generator, dict[str, Any]]:
    """Learns A, or several that commute, and, if the movement is periodic, makes exp(tA) close after one period.

    Args:
        first, second: (pairs, dimensions), pairs that differ little.
        farther: two such arrays of pairs that differ by any movement. They make the generator more accurate, the more
            so the more dimensions there are.
        parameters: of the movement: the number of generators.
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
    matrices, times, numbers = best_start(first, second, rng, starts, parameters)
    generator, times = refine(planes_of(matrices), times, first, second, 4, near=True)
    used = first, second
    if farther is not None:
        generator, chosen, found = _widen(generator, *farther)
        if len(chosen):
            used, times = (farther[0][chosen], farther[1][chosen]), found
    generator, found_base = with_period(generator, times, *used, rng)
    a, b = farther or (first, second)
    if generator.period:
        generator = refine_periodic(generator, a, b)
    left = b - generator.move(a, generator.times_between(a, b))
    numbers["moved_residual"] = float(np.square(left).sum() / np.square(b - a).sum())
    return generator, {**numbers, **found_base}


def with_period(
    generator: Generator, times: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[Generator, dict[str, Any]]:
    """The generator with whole frequencies, if they are multiples of one base; otherwise, or of several, as it is.

    Args:
        generator: the generator.
        times: (pairs, generators), of the pairs.
        first, second: (pairs, dimensions).
        rng: see `find_base`.

    Returns:
        The generator, and "base_frequency", "misfit", "chance_misfit", and "period".
    """
    base = misfit = chance = None
    if len(generator.frequencies) == 1:
        weights = explained_by_plane(generator, times, first, second)
        base, misfit, chance = find_base(generator.frequencies[0], weights, rng)
        if base is not None:
            generator = replace(generator, frequencies=np.round(generator.frequencies / base), period=2.0 * np.pi)
    return generator, {
        "base_frequency": base,
        "misfit": misfit,
        "chance_misfit": chance,
        "period": generator.period,
    }


def best_start(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, starts: int, parameters: int = 1
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The antisymmetric matrices that fit best of several random starts, their times, and numbers about the starts."""
    middle, change = (first + second) / 2.0, second - first
    if not np.square(change).sum() > 0:
        raise ValueError("Pairs must differ. Received: pairs of equal images only")
    dimensions = middle.shape[1]
    chosen = rng.permutation(len(middle))[: max(_PAIRS_PER_START, 20 * dimensions)]
    attempts = []
    for _ in range(starts):
        start = rng.standard_normal((parameters, dimensions, dimensions))
        attempts.append(_alternate(middle[chosen], change[chosen], start - start.transpose(0, 2, 1)))
    attempts.sort(key=lambda attempt: attempt[2])
    matrices, times, _ = attempts[0]
    agreement = min([_agreement(times, other[1]) for other in attempts[1:]], default=1.0)
    if agreement < _AGREEMENT:
        warnings.warn(
            f"The random starts found different generators: their times correlate by {agreement:.2f} only. "
            "The pairs may not be related by one movement",
            stacklevel=4,
        )
    matrices, times, residual = _alternate(middle, change, matrices)
    numbers = {
        "residual": float(residual),
        "starts_residuals": [float(attempt[2]) for attempt in attempts],
        "starts_agreement": agreement,
    }
    return matrices, times, numbers


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    """The least canonical correlation of two arrays of times (pairs, generators): which generator is which is free."""
    bases = [np.linalg.qr(times - times.mean(0))[0] for times in (one, other)]
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).min())


def _alternate(
    middle: np.ndarray, change: np.ndarray, matrices: np.ndarray, iterations: int = 150
) -> tuple[np.ndarray, np.ndarray, float]:
    """Alternating least squares for b - a = sum_k t_k A_k (a + b) / 2: times for given matrices, then each matrix.

    Returns:
        The matrices (generators, dimensions, dimensions), times of root mean square 1 without correlation, and the
        share of the changes that is left.
    """
    matrices, before = matrices.copy(), np.zeros((len(middle), len(matrices)))
    for _ in range(iterations):
        speeds = np.einsum("nd,ked->nke", middle, matrices)
        squares = speeds @ speeds.transpose(0, 2, 1)
        ridge = 1e-9 * np.trace(squares, axis1=1, axis2=2).mean() * np.eye(len(matrices))
        times = np.linalg.solve(squares + ridge, (speeds @ change[..., None]))[..., 0]
        limit = _LARGEST_TIME * times.std(0)
        times = _white(np.clip(times, -limit, limit))[0]
        for number in range(len(matrices)):
            others = [each for each in range(len(matrices)) if each != number]
            left = change - sum(times[:, [each]] * (middle @ matrices[each].T) for each in others)
            # Of all antisymmetric matrices the best one solves A G + G A = B - B^T, with G = sum t^2 m m^T and
            # B = sum t (b - a) m^T; in the eigenvectors of G, entry by entry.
            time = times[:, [number]]
            values, vectors = np.linalg.eigh((middle * np.square(time)).T @ middle)
            mixed = vectors.T @ ((left * time).T @ middle) @ vectors
            solved = (mixed - mixed.T) / (values[:, None] + values + 1e-6 * values.mean())
            matrices[number] = vectors @ solved @ vectors.T
        if np.square(times - before).mean() < 1e-8:
            break
        before = times
    left = change - sum(time[:, None] * (middle @ matrix.T) for time, matrix in zip(times.T, matrices, strict=True))
    matrices = (matrices - matrices.transpose(0, 2, 1)) / 2.0
    return matrices, times, np.square(left).sum() / np.square(change).sum()


def _white(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times (pairs, generators) of root mean square 1 without correlation, and what frequencies are multiplied by."""
    factor = np.linalg.cholesky(times.T @ times / len(times))
    return np.linalg.solve(factor, times.T).T, factor.T


def planes_of(matrices: np.ndarray) -> Generator:
    """Antisymmetric matrices (generators, dimensions, dimensions) as rotations in planes, the fastest first.

    Several are joined in the planes that hold most of them, if they do not quite commute.
    """
    if len(matrices) == 1:
        return _planes_of_one(matrices[0])
    angles = np.pi * (np.arange(_COMBINATIONS) + 0.5) / _COMBINATIONS
    # With more than two, the others weigh less and less.
    weights = np.stack([np.cos(angles), np.sin(angles), *(0.3**k * np.cos(k * angles) for k in range(1, 9))])
    found = [_joint_planes(matrices, weight) for weight in weights[: len(matrices)].T]
    return max(found, key=lambda generator: np.square(generator.frequencies).sum())


def _joint_planes(matrices: np.ndarray, weights: np.ndarray) -> Generator:
    """Planes in which all matrices nearly rotate, of those in which their weighted sum rotates forwards.

    A plane is a complex eigenvector of all matrices -i A. Those with positive eigenvalues of the sum span half of the
    space; within it, the matrices are diagonalised together.
    """
    dimensions = matrices.shape[1]
    _, vectors = np.linalg.eigh(-1j * np.tensordot(weights, matrices, 1))
    # Eigenvalues come in pairs of opposite sign, in increasing order; a single one in the middle is zero.
    half = vectors[:, dimensions - dimensions // 2 :]
    turned, diagonals = _jointly_diagonal(half.conj().T @ (-1j * matrices) @ half)
    planes = half @ turned
    order = np.argsort(-np.square(diagonals).sum(0))
    planes, frequencies = np.sqrt(2.0) * planes[:, order], diagonals[:, order]
    # A (u + i v) = i f (u + i v) means A u = -f v: v with the other sign.
    columns = np.concatenate([planes.real, -planes.imag], 1)
    # Orthonormal but for rounding, and completed where the number of dimensions is odd.
    left, _, right = np.linalg.svd(columns)
    columns = np.concatenate([left[:, : len(right)] @ right, left[:, len(right) :]], 1)
    return _oriented(Generator(columns, frequencies))


def _jointly_diagonal(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unitary basis (n, n) in which Hermitian matrices (generators, n, n) are nearly diagonal, by Jacobi turns.

    Returns:
        The basis, and the diagonals (generators, n) in it.
    """
    matrices, count = matrices.copy(), matrices.shape[1]
    basis = np.eye(count, dtype=complex)
    # A round-robin tournament: all pairs in turn, of which each round's are disjoint and turned at once.
    players = [*range(count), *([None] if count % 2 else [])]
    for _ in range(_SWEEPS):
        largest = 0.0
        for _ in range(len(players) - 1):
            met = zip(players[: len(players) // 2], players[: len(players) // 2 - 1 : -1], strict=True)
            pairs = [pair for pair in met if None not in pair]
            players = [players[0], players[-1], *players[1:-1]]
            if not pairs:
                continue
            p, q = map(list, zip(*pairs, strict=True))
            difference = matrices[:, p, p] - matrices[:, q, q]
            sums, differences = matrices[:, p, q] + matrices[:, q, p], matrices[:, q, p] - matrices[:, p, q]
            rows = np.stack([difference, sums, 1j * differences], -1).transpose(1, 0, 2)
            _, axes = np.linalg.eigh((rows.conj().transpose(0, 2, 1) @ rows).real)
            x, y, z = (axes[:, :, -1] * np.where(axes[:, 0, -1] < 0, -1.0, 1.0)[:, None]).T
            cosine, sine = np.sqrt((x + 1.0) / 2.0), (y - 1j * z) / np.sqrt(2.0 * (x + 1.0))
            largest = max(largest, float(np.abs(sine).max()))
            for each in (basis, *matrices):
                one, two = each[:, p].copy(), each[:, q].copy()
                each[:, p], each[:, q] = one * cosine + two * sine, two * cosine - one * sine.conj()
            for each in matrices:
                one, two = each[p].copy(), each[q].copy()
                each[p] = one * cosine[:, None] + two * sine.conj()[:, None]
                each[q] = two * cosine[:, None] - one * sine[:, None]
        if largest < _TURN:
            break
    return basis, np.diagonal(matrices, axis1=1, axis2=2).real


def _planes_of_one(matrix: np.ndarray) -> Generator:
    """An antisymmetric matrix (dimensions, dimensions) as rotations in planes, the fastest first."""
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
    """Newton's method for the maximum over t of Re sum_planes products exp(-i f t), (pairs, generators).

    Args:
        products: (pairs, planes), conj(a) b in complex coordinates.
        frequencies: (generators, planes).
        times: (pairs, generators), where to begin.
        largest: no step is longer.
    """
    for _ in range(steps):
        turned = products * np.exp(-1j * (times @ frequencies))
        curvature = np.einsum("np,kp,lp->nkl", turned.real, frequencies, frequencies, optimize=True)
        times = times + _newton_step(turned.imag @ frequencies.T, curvature, largest, saddle=largest)
    return times


def _newton_step(slope: np.ndarray, curvature: np.ndarray, largest: float, saddle: float) -> np.ndarray:
    """Steps (n, generators) towards maxima, given slopes (n, generators) and negative Hessians (n, generators, ...).

    Args:
        slope, curvature: as said.
        largest: no step along a principal axis is longer.
        saddle: length of the step along an axis that has no maximum.
    """
    values, axes = np.linalg.eigh(curvature)
    along = (slope[:, None] @ axes)[:, 0]
    concave = values > 0
    step = np.where(concave, along / np.where(concave, values, 1.0), np.sign(along) * saddle)
    return (axes @ np.clip(step, -largest, largest)[..., None])[..., 0]


def _closest_basis(generator: Generator, times: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One step towards the orthonormal basis whose planes, rotated by f t, carry first to second best.

    The objective, sum over pairs of <b, exp(tA) a>, is quadratic in the basis. The polar factor of its gradient is the
    basis that is best for the objective linearised, as in the orthogonal Procrustes problem.
    """
    (a, rest_a), (b, rest_b) = generator.coordinates(first), generator.coordinates(second)
    phases = np.exp(1j * (times @ generator.frequencies))
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
        times: (pairs, generators), to begin with.
        first, second: (pairs, dimensions).
        steps: number of turns.
        near: whether times are cut, and scaled to a root mean square of 1, as in `_alternate`.

    Returns:
        The generator, and times (pairs, generators).
    """
    for _ in range(steps):
        products = generator.coordinates(first)[0].conj() * generator.coordinates(second)[0]
        frequencies = generator.frequencies
        times = _improved_times(products, frequencies, times, 0.3, steps=2)
        if near:
            times, factor = _white(np.clip(times, -_LARGEST_TIME, _LARGEST_TIME))
            frequencies = factor @ frequencies
        # Newton's method for the frequencies, which enter the objective as the times do.
        for _ in range(2):
            turned = products * np.exp(-1j * (times @ frequencies))
            curvature = np.einsum("np,nk,nl->pkl", turned.real, times, times, optimize=True)
            step = _newton_step((times.T @ turned.imag).T, curvature, 1.0 / np.abs(times).max(), saddle=0.0)
            frequencies = frequencies + step.T
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
    used, times = np.arange(0), np.zeros((0, len(generator.frequencies)))
    for reach in _REACHES:
        found = generator.times_between(first, second, reach)
        left = np.square(second - generator.move(first, found)).sum(1) / (np.square(second - first).sum(1) + 1e-12)
        good = np.flatnonzero((left < _CARRIED) & (np.abs(found) < reach).all(1))
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
    """The same generator with no negative frequency of the first: planes that rotate backwards are turned over."""
    planes = generator.frequencies.shape[1]
    turned = np.where(generator.frequencies[0] < 0, -1.0, 1.0)
    signs = np.ones(generator.vectors.shape[1])
    signs[planes : 2 * planes] = turned
    return replace(generator, vectors=generator.vectors * signs, frequencies=generator.frequencies * turned)


def explained_by_plane(generator: Generator, times: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much of the pairs' differences each plane of a single generator explains, (planes,), not negative."""
    products = generator.coordinates(first)[0].conj() * generator.coordinates(second)[0]
    turned = products * np.exp(-1j * (times @ generator.frequencies))
    return np.square(generator.frequencies[0]) * np.maximum(np.square(times[:, 0]) @ turned.real, 0.0)


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
