"""One contract for all transformations, and the sign and the scale of each."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy import stats

from invariance import random
from invariance.ranges import Ranges, contains
from invariance.tasks import Recognition, task_from_json
from invariance.transforms import (
    Rotation,
    Scaling,
    Shear,
    Shift,
    Transformation,
    transformation_from_json,
)
from tests.helpers import noise, python

CASES = {
    "rotation": (Rotation(), ((-45, 45), (100, 200))),
    "shift": (Shift(), ((-5, 5),)),
    "shift on a canvas": (Shift(canvas=(16, 19), scale=4.0), ((-5, 5),)),
    "scaling": (Scaling(), ((0.5, 2),)),
    "shear": (Shear(), ((-0.5, 0.25),)),
}
every_transformation = pytest.mark.parametrize(("kind", "pairs"), CASES.values(), ids=CASES)
IMAGES = noise(64, 12, 13, 2, spread=(-1, 1))


def drawn(kind, ranges, labels, seed=0, first=0, **options):
    positions = ops.arange(first, first + len(labels), dtype="int64")
    return np.asarray(kind.draw(ranges, seed, positions, np.asarray(labels, "int32"), **options))


def scale_of(kind):
    """The scale on which parameters are uniform and grids are even."""
    return np.log2 if isinstance(kind, Scaling) else np.asarray


# Images


@every_transformation
def test_identity_changes_nothing(kind, pairs):
    identity = kind.parameters(np.full(len(IMAGES), kind.identity, "float32"))
    found = np.asarray(kind.apply(IMAGES, identity, fill=-1.0))
    assert found.dtype == np.float32 and found.shape == (len(IMAGES), *kind.output_shape(IMAGES.shape[1:]))
    rows, columns = ((large - small) // 2 for large, small in zip(found.shape[1:3], (12, 13), strict=True))
    np.testing.assert_array_equal(found[:, rows : rows + 12, columns : columns + 13], IMAGES)
    # All around, there is fill.
    np.testing.assert_allclose(found.sum() - IMAGES.sum(), IMAGES.size - found.size, atol=0.1)


# Derived by hand, from a mark two pixels above and one to the right of a 13 x 13 image's centre (6, 6).
@pytest.mark.parametrize(
    ("kind", "parameter", "expected"),
    [
        (Rotation(), 90.0, (5, 4)),  # two to the left and one above
        (Shift(), (3.0, -1.0), (7, 6)),  # 3 down, 1 to the left
        (Scaling(), 2.0, (2, 8)),  # twice as far from the centre
        (Shear(), 1.0, (4, 9)),  # the row two above the centre moves by 2 to the right
        (Shear(), -0.5, (4, 6)),
    ],
)
def test_signs(kind, parameter, expected):
    image = np.zeros((1, 13, 13, 1), "float32")
    image[0, 4, 7] = 1.0
    found = np.asarray(kind.apply(image, np.array([parameter], "float32")))[0, :, :, 0]
    assert found[expected] == 1.0
    # Nothing appears elsewhere; a mark twice as large covers four times the area.
    assert found.sum() == (4.0 if kind == Scaling() else 1.0)


@every_transformation
def test_gradients_reach_images_and_parameters(kind, pairs):
    images, parameters = tf.constant(IMAGES), tf.constant(drawn(kind, Ranges(pairs), np.zeros(64)))
    with tf.GradientTape() as tape:
        tape.watch([images, parameters])
        value = tf.reduce_sum(kind.apply(images, parameters, -1.0) ** 2)
        value += tf.reduce_sum(kind.encode(parameters) ** 3)
    for gradient in tape.gradient(value, [images, parameters]):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max(axis=tuple(range(1, gradient.ndim))).min() > 0


@every_transformation
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(kind, pairs, xla):
    ranges, labels = Ranges(pairs, {3: pairs[:1]}), np.arange(64, dtype="int32") % 5

    def step(images, labels, positions):
        parameters = kind.draw(ranges, 1, positions, labels)
        return parameters, kind.encode(parameters), kind.apply(images, parameters, -1.0)

    given = (tf.constant(IMAGES), tf.constant(labels), tf.range(64, dtype=tf.int64))
    found = tf.function(step, jit_compile=xla)(*given)
    # Angles up to 200 degrees with float32's relative rounding of 6e-8, in two operations. They move the corners, 9
    # pixels from the centre, by 4e-6 pixels, which changes images in [-1, 1] by 2e-5 at most; coordinates as much.
    for one, other, tolerance in zip(found, step(*given), (6e-5, 2e-6, 5e-5), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


# Draws


@every_transformation
def test_draws_are_a_pure_function_of_seed_position_and_label(kind, pairs):
    ranges, labels = Ranges(pairs), np.zeros(100)
    whole = drawn(kind, ranges, labels, seed=2)
    # A vectorised power of two, for Scaling, rounds the last few numbers of a batch differently: by one unit at most.
    units = int(kind == Scaling())
    parts = [drawn(kind, ranges, labels[:20], 2, first) for first in range(0, 100, 20)]
    np.testing.assert_array_max_ulp(np.concatenate(parts), whole, units)
    backwards = kind.draw(ranges, 2, ops.arange(99, -1, -1, dtype="int64"), labels)
    np.testing.assert_array_max_ulp(np.asarray(backwards)[::-1], whole, units)
    # Labels of neighbours do not matter.
    mixed = drawn(kind, Ranges(pairs, {1: pairs[:1]}), np.arange(100) % 2, seed=2)
    np.testing.assert_array_max_ulp(mixed[::2], whole[::2], units)
    assert (drawn(kind, ranges, labels, seed=3) != whole).any()
    assert (drawn(kind, ranges, labels, seed=2, stream=random.EVALUATION) != whole).any()
    np.testing.assert_array_equal(drawn(kind, ranges, labels, seed=2, stream=random.PARAMETERS), whole)


@every_transformation
def test_each_class_is_drawn_from_its_own_range(kind, pairs):
    own = {3: ((1, 2),), 4: pairs[:1], 7: ((1, 1),)}
    labels = np.random.default_rng(0).integers(0, 10, 2_000)
    values = drawn(kind, Ranges(pairs, own), labels)
    assert values.shape == ((2_000,) if kind.dimensions == 1 else (2_000, kind.dimensions))
    for label in range(10):
        chosen = np.ravel(values[labels == label])
        assert contains(own.get(label, pairs), chosen).all()
        # Some 200 draws: all ten shifts of (-5, 5), the only one of (1, 2), nearly as many other values as draws.
        least = 1 if label == 7 else {3: 1}.get(label, 10) if kind.whole else 100
        assert len(np.unique(chosen)) >= least


@pytest.mark.parametrize("name", [name for name, (kind, _) in CASES.items() if not kind.whole])
def test_draws_are_uniform_on_their_scale(name):
    kind, pairs = CASES[name]
    values = drawn(kind, Ranges(pairs), np.zeros(10_000))
    # The share of the range below each value must be uniform in [0, 1).
    to_scale = scale_of(kind)
    shares = sum(np.clip(to_scale(values), to_scale(low), to_scale(high)) - to_scale(low) for low, high in pairs) / sum(
        to_scale(high) - to_scale(low) for low, high in pairs
    )
    assert stats.kstest(shares, "uniform").pvalue > 1e-4
    # Both ends are reached: that none of n numbers lies in the outer 20 / n has the probability e**-20.
    assert shares.min() < 20 / 10_000 and shares.max() > 1 - 20 / 10_000


def test_shifts_are_whole_half_open_and_all_pairs_equally_likely():
    values = drawn(Shift(), Ranges(((-5, 5),)), np.zeros(10_000))
    pairs, counts = np.unique(values, axis=0, return_counts=True)
    assert {tuple(pair) for pair in pairs.tolist()} == {(dy, dx) for dy in range(-5, 5) for dx in range(-5, 5)}
    assert stats.chisquare(counts).pvalue > 1e-4


def test_ranges_the_parameter_cannot_take_are_refused():
    with pytest.raises(ValueError, match=r"^A range of shifts must end at whole pixels\. Received: .*2\.5"):
        Shift().check(((-5, 2.5),))
    for low in (0.0, -1.0):
        with pytest.raises(ValueError, match=r"^Scaling factors must be positive\. Received: "):
            Scaling().check(((1, 2), (low, 0.5)))
    for kind, pairs in CASES.values():
        kind.check(pairs)


# Grids


@every_transformation
def test_grid_is_even_and_its_points_are_the_middles_of_cells(kind, pairs):
    extent, spacing = ((0.5, 2) if kind == Scaling() else (-20, 20)), 0.5 if kind == Scaling() else 2.0
    low, high = (-180, 180) if kind.period else scale_of(kind)(extent)
    points = scale_of(kind)(kind.grid(spacing, extent))
    assert len(points) == (high - low) / spacing
    # Grids are rounded to nine digits.
    np.testing.assert_allclose(np.diff(points), spacing, rtol=0, atol=1e-8)
    # Whole values stand for themselves: they begin at the half-open range's lower end.
    assert points[0] - low == pytest.approx(0 if kind.whole else spacing / 2, abs=1e-8)
    np.testing.assert_array_equal(kind.grid(None, extent), kind.even(kind.full, extent))
    assert kind.parameters(points).shape == (len(points), *[2] * (kind.dimensions == 2))
    assert (np.reshape(kind.parameters(points), (len(points), -1)) == points[:, None]).all()


def test_grids_by_hand():
    np.testing.assert_array_equal(Rotation().grid(90, (0, 10)), [-135, -45, 45, 135])
    np.testing.assert_array_equal(Rotation().even(4, (0, 10)), [-180, -90, 0, 90])
    np.testing.assert_array_equal(Shift().grid(3, (-5, 5)), [-5, -2, 1, 4])
    # At most so many values, a whole number of pixels apart.
    np.testing.assert_array_equal(Shift().even(4, (-5, 5)), [-5, -2, 1, 4])
    np.testing.assert_array_equal(Shift().even(40, (-2, 2)), [-2, -1, 0, 1])
    # A cell that does not fit the extent is changed, not the extent.
    np.testing.assert_allclose(Shear().grid(0.45, (0, 1)), [0.25, 0.75], rtol=0, atol=1e-9)
    np.testing.assert_allclose(Shear().even(3, (-1, 1)), [-1, 0, 1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(Scaling().grid(1, (0.5, 2)), [0.5**0.5, 2**0.5], rtol=0, atol=1e-9)
    np.testing.assert_allclose(Scaling().even(3, (0.5, 2)), [0.5, 1, 2], rtol=0, atol=1e-9)


def test_finest_grid_of_angles_contains_the_unblurred_ones():
    # Exactly, because they are compared by `==`.
    assert set(Rotation().unblurred) <= set(Rotation().grid(None, (0, 10)).tolist())


@every_transformation
@pytest.mark.parametrize("spacing", [0, -1, math.nan, math.inf, 200, 1e-9])
def test_spacing_without_a_grid_is_refused(kind, pairs, spacing):
    with pytest.raises(
        ValueError, match=r"^(The spacing must be above 0|A grid may have 10,000 points at most)"
    ) as error:
        kind.grid(spacing, pairs[0])
    assert "\n" not in str(error.value) and str(error.value).endswith(f"{spacing!r}")


def test_grids_have_at_most_10000_points():
    assert len(Shear().grid(2.0**-13, (0, 1))) == 8192
    assert len(Shift().grid(1, (0, 10_000))) == 10_000
    with pytest.raises(ValueError, match="10,000 points at most"):
        Shift().grid(1, (0, 10_001))
    with pytest.raises(ValueError, match=r"^The spacing must divide 360 degrees\. Received: 7$"):
        Rotation().grid(7, (0, 360))
    with pytest.raises(ValueError, match=r"^The spacing must be a whole number of pixels\. Received: 1\.5$"):
        Shift().grid(1.5, (-5, 5))


# Codes and words


@every_transformation
def test_code_has_its_numbers_and_tells_parameters_apart(kind, pairs):
    code = np.asarray(kind.encode(drawn(kind, Ranges(pairs), np.zeros(64))))
    parameters = np.unique(drawn(kind, Ranges(pairs), np.zeros(64)), axis=0)
    assert code.shape == (64, kind.numbers) and code.dtype == np.float32
    assert len(np.unique(code, axis=0)) == len(parameters) > 30
    # In a decoder's usual range.
    assert np.abs(code).max() <= 1.25


def test_codes_by_hand():
    angles = np.array([0.0, 37.0, 90.0, 200.0, 359.0], "float32")
    radians = np.deg2rad(angles.astype("float64"))
    expected = np.stack([np.cos(radians), np.sin(radians)], axis=-1)
    for turns in (-1, 0, 1, 2):
        # Two roundings in float32.
        np.testing.assert_allclose(Rotation().encode(angles + 360 * turns), expected, rtol=0, atol=2e-7)
    quarters = np.array([-180.0, -90.0, 0.0, 90.0, 180.0], "float32")
    np.testing.assert_array_equal(Rotation().encode(quarters), [[-1, 0], [0, -1], [1, 0], [0, 1], [-1, 0]])
    np.testing.assert_array_equal(Shift().encode(np.array([[20.0, -10.0], [0.0, 5.0]])), [[1, -0.5], [0, 0.25]])
    np.testing.assert_array_equal(Shift(scale=4.0).encode(np.array([[20.0, -10.0]])), [[5, -2.5]])
    np.testing.assert_array_equal(Scaling().encode(np.array([0.5, 1.0, 4.0])), [[-1], [0], [2]])
    np.testing.assert_array_equal(Shear().encode(np.array([-0.25, 0.5])), [[-0.25], [0.5]])


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        *((Rotation(), *each) for each in ((-0.0, "0°"), (-0.4, "0°"), (44.6, "45°"), (-179.7, "-180°"))),
        *((Shift(), *each) for each in (([-0.0, 3.0], "+0, +3"), ([-5.0, 0.0], "-5, +0"))),
        (Scaling(), 1.256, "×1.26"),
        (Shear(), 0.25, "+0.25"),
        (Shear(), -1.0, "-1.00"),
    ],
)
def test_captions(kind, value, text):
    assert kind.text(np.float32(value)) == text


@pytest.mark.parametrize(
    ("kind", "pairs", "text"),
    [
        (Rotation(), ((-45, 45),), "within ±45 degrees"),
        (Rotation(), ((18, 18),), "at 18 degrees"),
        (Rotation(), ((0, 360),), "at every angle"),
        (Rotation(), ((-180, 0), (0, 180)), "at every angle"),
        (Rotation(), ((-90, -45), (45, 90)), "from -90 to -45 and from 45 to 90 degrees"),
        (Shift(), ((-5, 5),), "within -5..4 pixels"),
        (Scaling(), ((0.5, 2),), "from 0.5 to 2 times"),
        (Shear(), ((-0.5, 0.5),), "within ±0.5 pixels per row"),
    ],
)
def test_ranges_in_words(kind, pairs, text):
    assert kind.describe(pairs) == text


# Declarations


@every_transformation
def test_json_round_trip_leaves_other_items_over(kind, pairs):
    value = {"other": 1, **kind.to_json()}
    assert transformation_from_json(kind.name, value) == (kind, {"other": 1})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("zoom", {}, "unknown transformation 'zoom'; known are rotation, shift, scaling, shear"),
        *(
            ("shift", {"canvas": canvas}, r"Argument `canvas` must be a pair of positive integers\. Received: ")
            for canvas in ((20,), (20, 0), (20, 20.5), (1, 2, 3), 20, "20")
        ),
        *(
            ("shift", {"scale": scale}, r"Argument `scale` must be a positive number\. Received: ")
            for scale in (0, -1.0, math.nan, math.inf)
        ),
    ],
)
def test_malformed_declarations_are_refused(name, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        transformation_from_json(name, value)


def test_declaring_a_transformation_does_not_import_keras():
    code = """
import sys
from invariance.transforms import Rotation, Scaling, Shear, Shift, transformation_from_json
for kind in (Rotation(), Shift(canvas=(68, 68)), Scaling(), Shear()):
    kind.check(((1, 2),)), kind.describe(((1, 2),)), kind.even(5, (1, 2)), kind.grid(kind.spacing, (1, 10))
    transformation_from_json(kind.name, kind.to_json())
print(sorted({"keras", "tensorflow"} & set(sys.modules)))
"""
    result = python("-c", code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


@dataclass(frozen=True)
class Brightness(Transformation):
    """Defined outside the package, from its parameter and `apply` alone."""

    least: float = 0.1

    name = "brightness"
    parameter, unit, axis = "factor", "times", "factor"
    identity, spacing = 1.0, 0.25

    def apply(self, images, parameters, fill=0.0):
        return images * parameters[:, None, None, None]


def test_transformation_defined_outside_the_package():
    kind, ranges = Brightness(least=0.2), Ranges(((0, 1),), {3: ((0.5, 0.75),)})
    task = Recognition(kind, ranges, inverted=((0, 0.25),))
    assert task_from_json({**task.to_json()}) == task
    values = drawn(kind, ranges, np.array([0, 3] * 32))
    assert contains(((0.5, 0.75),), values[1::2]).all()
    inputs, targets = task.prepare(0, (0, 3))(
        np.full((64, 2, 2, 1), 255, "uint8"), np.array([0, 3] * 32), ops.arange(64, dtype="int64")
    )
    np.testing.assert_allclose(np.asarray(inputs)[:, 0, 0, 0], values, rtol=1e-6)  # float32
    np.testing.assert_array_equal(targets, [0, 1] * 32)
    np.testing.assert_array_equal(task.points(0.25), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_array_equal(kind.encode(values), values[:, None])
    assert (kind.text(0.5), kind.describe(((0.5, 0.75),))) == ("0.5", "from 0.5 to 0.75 times")
