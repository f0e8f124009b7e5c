"""Generators of linear movements: learnt from pairs of a known movement, and not learnt where there is none."""

import numpy as np
import pytest
from scipy import linalg

from invariance import generators
from invariance.generators import Generator, find_base, learn_generator, principal_components

PERIODIC = (1, 1, 2, 2, 3, 4, 5)
NOISE = 0.003


class Movement:
    """A known movement of random vectors: each plane has a frequency, and its amplitude falls with it."""

    def __init__(self, frequencies, unmoved=2, seed=0):
        self.rng = np.random.default_rng(seed)
        self.frequencies = np.array(frequencies, "float64")
        self.unmoved, self.dimensions = unmoved, 2 * len(frequencies) + unmoved
        # In random directions, so that no coordinate belongs to a plane.
        vectors, _ = np.linalg.qr(self.rng.standard_normal((self.dimensions,) * 2))
        self.true = Generator(vectors, np.append(self.frequencies, [0.0] * (unmoved // 2)))

    def points(self, number):
        amplitudes = np.append(1.0 / (1.0 + self.frequencies), [1.0] * (self.unmoved // 2))
        scales = np.concatenate([amplitudes, amplitudes, [1.0] * (self.unmoved % 2)])
        return self.rng.standard_normal((number, self.dimensions)) * scales @ self.true.vectors.T

    def pairs(self, number, reach=np.pi):
        """Two drawings of each vector, with some noise, and the time between them, uniform within +/- reach."""
        points, times = self.points(number), self.rng.uniform(-reach, reach, number)
        start = self.rng.uniform(-np.pi, np.pi, number)
        drawings = [self.true.move(points, start), self.true.move(points, start + times)]
        noisy = [drawn + NOISE * self.rng.standard_normal(drawn.shape) for drawn in drawings]
        return (*noisy, times)


def error(learnt, movement, slope, times):
    """Relative squared error of vectors moved by told times."""
    points = movement.points(500)
    expected = movement.true.move(points, np.full(500, times))
    found = learnt.move(points, np.full(500, slope * times))
    return np.square(found - expected).sum() / np.square(expected).sum()


@pytest.mark.parametrize(("components", "dimensions"), [(3, 8), (8, 8)])
def test_principal_components_are_those_of_the_singular_values(components, dimensions):
    images = np.random.default_rng(0).standard_normal((5000, dimensions)) * np.arange(1, dimensions + 1) + 1.0
    basis, share = principal_components(images.astype("float32"), components)
    _, values, rows = np.linalg.svd(images, full_matrices=False)
    # The same subspace; images are rounded to float32, and neighbouring singular values differ by some per cent.
    np.testing.assert_allclose(basis @ basis.T, rows[:components].T @ rows[:components], atol=1e-5)
    np.testing.assert_allclose(share, np.square(values[:components]).sum() / np.square(values).sum(), rtol=1e-5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(components), atol=1e-12)


@pytest.mark.parametrize("dimensions", [6, 7])
@pytest.mark.parametrize("rank", [2, 6])
def test_planes_move_as_the_exponential_of_the_matrix(dimensions, rank):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((dimensions, rank)))[0]
    within = rng.standard_normal((rank, rank))
    matrix = basis @ (within - within.T) @ basis.T
    planes = generators.planes_of(matrix[None])
    points, times = rng.standard_normal((4, dimensions)), np.array([0.0, 0.3, -2.0, 11.0])
    expected = [linalg.expm(time * matrix) @ point for time, point in zip(times, points, strict=True)]
    # Float64, after a decomposition and phases of up to some 50 radians.
    np.testing.assert_allclose(planes.move(points, times), expected, atol=1e-11)
    assert (planes.frequencies > 1e-9).sum() == rank // 2


@pytest.mark.parametrize("unmoved", [2, 3])
@pytest.mark.parametrize("farther", [True, False])
@pytest.mark.parametrize("frequencies", [PERIODIC, (2, 3, 4, 4, 6), (3,)], ids=str)
def test_periodic_movement_is_learnt(frequencies, farther, unmoved):
    movement = Movement(frequencies, unmoved)
    first, second, times = movement.pairs(3000, reach=0.2)
    far = movement.pairs(1500)
    learnt, numbers = learn_generator(first, second, far[:2] if farther else None)
    assert learnt.period == 2 * np.pi == numbers["period"]
    # One frequency is the base itself.
    base = 1 if len(frequencies) > 1 else 3
    assert sorted(learnt.frequencies[learnt.frequencies > 0]) == sorted(each / base for each in frequencies)
    found = learnt.times_between(first, second)[:, 0]
    # Without slow planes some vectors look nearly the same after a part of the period.
    small = np.abs(found) < 1.0
    assert small.mean() > 0.9
    correlation = np.corrcoef(found[small], times[small])[0, 1]
    # Noise of .003 a coordinate on vectors that move by some .1: the times' variance has less than a per cent of it.
    assert abs(correlation) > 0.99
    slope = np.sign(correlation) * base
    # The near pairs alone leave some of each plane in others: that is what the farther ones are for.
    for angle in (0.5, np.pi / 2, np.pi):
        assert error(learnt, movement, slope, angle) < (1e-4 if farther else 5e-3)
    # Whatever the times are.
    wrapped = np.exp(1j * base * (far[2] - learnt.times_between(*far[:2])[:, 0] / slope))
    assert np.median(np.abs(np.angle(wrapped))) < 0.02 * base
    assert numbers["starts_agreement"] > 0.99


ROOTS = np.sqrt([1, 2, 3, 5, 7])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frequencies", [ROOTS[:2], ROOTS[:3], ROOTS, np.repeat(ROOTS[:2], 3)], ids=len)
def test_movement_that_does_not_return_is_not_rounded(frequencies, seed):
    movement = Movement(frequencies, seed=seed)
    first, second, _ = movement.pairs(3000, reach=0.2)
    far = movement.pairs(1500, reach=4.0)
    learnt, numbers = learn_generator(first, second, far[:2])
    assert learnt.period is None and numbers["base_frequency"] is None
    # It is learnt all the same. With two planes only, wrong times carry some far pairs well enough: 6 % were measured.
    found = learnt.times_between(first, second)
    slope = learnt.frequencies.max() / frequencies.max()
    np.testing.assert_allclose(
        np.sort(learnt.frequencies[0])[-len(frequencies) :] / slope, np.sort(frequencies), rtol=0.1
    )
    # As said of times where there is no period.
    np.testing.assert_allclose(np.sqrt(np.square(found).mean()), 1.0, rtol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_periodic_is_found_in_noise(seed):
    movement = Movement(PERIODIC, seed=seed)
    points = movement.points(3000)
    first, second = (points + 0.1 * movement.rng.standard_normal(points.shape) for _ in range(2))
    with pytest.warns(UserWarning, match="^The random starts found different generators"):
        learnt, numbers = learn_generator(first, second)
    assert learnt.period is None and numbers["misfit"] >= numbers["chance_misfit"]
    # 16 coordinates, of which one can be explained by a time that is fitted.
    assert numbers["residual"] > 0.85


def test_scaling_is_not_periodic():
    """Bumps that are made wider and narrower: neither linear in a rotation nor periodic."""
    rng = np.random.default_rng(0)
    positions = np.linspace(-3, 3, 40)

    def drawn(scale, centres, heights):
        return (heights[:, None] * np.exp(-np.square(positions / scale[:, None, None] - centres[:, None]) * 4)).sum(1)

    centres, heights = rng.uniform(-2, 2, (4000, 5)), rng.uniform(0.2, 1, (4000, 5))
    drawings = [
        np.einsum("ij,ijk->ik", heights, np.exp(-4 * np.square(positions / scale[:, None, None] - centres[..., None])))
        for scale in np.exp(rng.uniform(-0.4, 0.4, (2, 4000)))
    ]
    basis, _ = principal_components(drawings[0], 20)
    first, second = (drawing @ basis for drawing in drawings)
    difference = np.square(second - first).sum(1) / np.square(first).sum(1)
    near = difference < np.quantile(difference, 0.2)
    learnt, _ = learn_generator(first[near], second[near], (first, second))
    assert learnt.period is None


WAVES = np.array([[2, 1, 0, 1, 2, 0.5], [0, 1, 2, -1, -1.5, 1]])


@pytest.mark.parametrize("unmoved", [0, 3])
def test_two_commuting_generators_share_their_planes(unmoved):
    """Shifts of waves, say: each plane has a frequency for each parameter, and no parameter is singled out."""
    rng = np.random.default_rng(0)
    dimensions = 2 * WAVES.shape[1] + unmoved
    true = Generator(
        np.linalg.qr(rng.standard_normal((dimensions,) * 2))[0], np.pad(WAVES, ((0, 0), (0, unmoved // 2)))
    )
    points = rng.standard_normal((6000, dimensions))
    # Unequal, so that the two are told apart by nothing but their action.
    times = rng.uniform(-1, 1, (6000, 2)) @ np.array([[1.0, 0.4], [0.2, 0.7]])
    times[:3000] *= 0.3
    moved = true.move(points, times) + NOISE * rng.standard_normal(points.shape)
    learnt, numbers = learn_generator(points[:3000], moved[:3000], (points[3000:], moved[3000:]), parameters=2)
    assert learnt.period is None and numbers["base_frequency"] is None and numbers["starts_agreement"] > 0.99
    found = learnt.times_between(points[3000:], moved[3000:])
    # The learnt parameters are some mixture of the true ones.
    mixture, *_ = np.linalg.lstsq(found, times[3000:], rcond=None)
    # Noise of .003 a coordinate on vectors that move by about 1 for a time of 1.
    np.testing.assert_allclose(found @ mixture, times[3000:], atol=0.02)
    new, by = rng.standard_normal((200, dimensions)), np.array([1.5, -1.0])
    expected = true.move(new, np.tile(by, (200, 1)))
    error = learnt.move(new, np.tile(by @ np.linalg.inv(mixture), (200, 1))) - expected
    assert np.square(error).sum() < 1e-3 * np.square(expected).sum()


def test_hermitian_matrices_are_diagonalised_together():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((7, 7)) + 1j * rng.standard_normal((7, 7)))
    # Of the first alone, two eigenvalues are equal.
    values = np.array([[3.0, 1, 1, 0, -2, 5, 6], [1.0, 4, 2, 2, 2, 2, 7]])
    found, diagonals = generators._jointly_diagonal(basis @ (values[..., None] * basis.conj().T))
    np.testing.assert_allclose(found.conj().T @ found, np.eye(7), atol=1e-12)
    assert sorted(map(tuple, diagonals.T.round(6) + 0.0)) == sorted(map(tuple, values.T))


def test_equal_seeds_give_equal_generators():
    first, second, _ = Movement(PERIODIC).pairs(1000, reach=0.2)
    one, again = (learn_generator(first, second, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(one.vectors, again.vectors)


def test_equal_images_are_refused():
    points = Movement(PERIODIC).points(100)
    with pytest.raises(ValueError, match=r"^Pairs must differ\. Received: pairs of equal images only$"):
        learn_generator(points, points)


@pytest.mark.parametrize("base", [0.13, 1.0, 7.0])
def test_base_of_multiples(base):
    rng = np.random.default_rng(0)
    multiples = np.array([1, 1, 2, 3, 3, 4, 6, 0, 0])
    found, misfit, chance = find_base(base * np.abs(multiples + 0.02 * rng.standard_normal(9)), np.ones(9), rng)
    # Deviations of .02, weighed by multiples up to 6.
    np.testing.assert_allclose(found, base, rtol=0.01)
    assert misfit < 4 * 0.02**2 < chance


def test_nothing_that_moves_has_no_base():
    assert find_base(np.zeros(3), np.ones(3), np.random.default_rng(0))[0] is None
