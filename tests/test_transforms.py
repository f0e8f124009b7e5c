"""Rotation and shift: geometry, borders, gradients, and the drawing of their parameters."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from PIL import Image
from scipy import ndimage

from invariance import random
from invariance.ranges import Ranges
from invariance.transforms import Rotation, Shift, cosine_sine, rotate, shift, warp

SIZES = [(8, 8), (9, 9)]
ALL = ((0, 360),)

# Float32 coordinates up to 30 pixels are known to some 4e-6 pixels; neighbouring pixels differ by up to 2 (images in
# [-1, 1]), and both coordinates count. So values from the same formula agree to about 2e-5.
INTERPOLATION = 3e-5


def noise(batch, height, width, channels=1, seed=0, low=-1.0, high=1.0):
    """Images of independent pixels: asymmetric, and the hardest for interpolation."""
    return np.random.default_rng(seed).uniform(low, high, (batch, height, width, channels)).astype("float32")


def rotated(image, angle, fill=0.0):
    """One image (height, width) turned by one angle."""
    return np.asarray(rotate(image[None, :, :, None], np.array([angle], "float32"), fill))[0, :, :, 0]


def scipy_rotated(image, angle, fill=0.0):
    """The same by scipy in float64. Its matrix maps an output's (row, column) from the centre to the input's."""
    radians = np.deg2rad(float(angle))
    matrix = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ centre
    return ndimage.affine_transform(image.astype("float64"), matrix, offset, order=1, mode="grid-constant", cval=fill)


def drawn(transformation, labels, seed=0, first=0):
    positions = ops.convert_to_tensor(np.arange(first, first + len(labels)), dtype="int64")
    return np.asarray(transformation.draw(seed, positions, np.asarray(labels, "int32")))


# Geometry


def test_positive_angle_turns_counter_clockwise():
    # A mark to the right of the centre goes to the top: row 0, on the screen the upper row.
    image = np.zeros((5, 5), "float32")
    image[2, 4] = 1.0
    turned = rotated(image, 90.0)
    assert turned[0, 2] == 1.0
    assert turned.sum() == 1.0


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("quarters", [-5, -1, 0, 1, 2, 3, 4, 7])
def test_quarter_turns_move_pixels_without_rounding(shape, quarters):
    images = noise(3, *shape, channels=2)
    turned = np.asarray(rotate(images, np.full(3, 90.0 * quarters, "float32"), fill=-1.0))
    # np.rot90 turns counter-clockwise. Every weight is exactly 0 or 1, so the pixels are equal bit by bit.
    np.testing.assert_array_equal(turned, np.rot90(images, quarters, axes=(1, 2)))


@pytest.mark.parametrize("shape", SIZES)
def test_four_quarter_turns_are_the_identity(shape):
    images = noise(2, *shape)
    turned = images
    for _ in range(4):
        turned = rotate(turned, np.full(2, 90.0, "float32"), fill=-1.0)
    np.testing.assert_array_equal(np.asarray(turned), images)


def test_half_turn_of_an_oblong_image():
    images = noise(2, 6, 9)
    turned = np.asarray(rotate(images, np.full(2, 180.0, "float32")))
    np.testing.assert_array_equal(turned, images[:, ::-1, ::-1])


@pytest.mark.parametrize("angle", [12.0, 45.0, 200.0])
def test_centre_stays_where_it_is(angle):
    odd = noise(1, 9, 9)[0, :, :, 0]
    assert rotated(odd, angle)[4, 4] == odd[4, 4]
    # Of an even size, the centre lies between four pixels; a disc around it stays around it.
    rows, columns = np.mgrid[:8, :8] - 3.5
    disc = np.exp(-(rows**2 + columns**2) / 4).astype("float32")
    turned = rotated(disc, angle)
    assert abs((turned * rows).sum()) < 1e-5  # a sum of 64 float32 numbers up to 3.5
    assert abs((turned * columns).sum()) < 1e-5


@pytest.mark.parametrize("angle", [0.0, 33.3, 90.0, 135.0, 261.7, -10.0, 359.0, 1000.0])
@pytest.mark.parametrize("shape", [(28, 28), (11, 11), (7, 12)])
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_rotation_agrees_with_scipy_everywhere(angle, shape, fill):
    image = noise(1, *shape)[0, :, :, 0]
    np.testing.assert_allclose(
        rotated(image, angle, fill), scipy_rotated(image, angle, fill), rtol=0, atol=INTERPOLATION
    )


@pytest.mark.parametrize("angle", [7.0, -33.3, 120.0, 271.0])
@pytest.mark.parametrize("size", [28, 29])
def test_rotation_agrees_with_pillow_inside(angle, size):
    image = noise(1, size, size)[0, :, :, 0]
    expected = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=-1.0))
    # At the border Pillow cuts where we blend with the fill value: compare what comes from a disc inside the image.
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(rows, columns) < size / 2 - 1.5
    assert inside.sum() > 400
    np.testing.assert_allclose(rotated(image, angle, -1.0)[inside], expected[inside], rtol=0, atol=INTERPOLATION)


def test_each_image_has_its_own_angle_and_channels_turn_together():
    images, angles = noise(4, 9, 9, channels=3), np.array([0.0, 20.0, -70.0, 300.0], "float32")
    turned = np.asarray(rotate(images, angles, -1.0))
    assert turned.shape == images.shape
    for i, angle in enumerate(angles):
        for channel in range(3):
            np.testing.assert_allclose(
                turned[i, :, :, channel], rotated(images[i, :, :, channel], angle, -1.0), rtol=0, atol=INTERPOLATION
            )


def test_fill_is_what_lies_outside():
    # Turned by 45 degrees, the corners of a square come from outside, a pixel and more away.
    turned = rotated(np.full((20, 20), 0.5, "float32"), 45.0, fill=-1.0)
    for corner in (turned[:2, :2], turned[:2, -2:], turned[-2:, :2], turned[-2:, -2:]):
        np.testing.assert_array_equal(corner, -1.0)
    # An image that is all fill stays so: weights sum to one, up to the rounding of two blends.
    np.testing.assert_allclose(rotated(np.full((20, 20), -1.0, "float32"), 33.0, fill=-1.0), -1.0, atol=3e-7)


def test_fill_blends_with_the_border():
    # Half a pixel outside an image of ones, and one pixel outside.
    image = np.ones((1, 3, 3, 1), "float32")
    rows = np.array([[[-0.5, -1.0, -7.0, 1.0, 2.25, 3.0, 99.0]]], "float32")
    values = np.asarray(warp(image, rows, np.ones_like(rows), fill=-1.0))[0, 0, :, 0]
    np.testing.assert_array_equal(values, [0.0, -1.0, -1.0, 1.0, 0.5, -1.0, -1.0])


def test_bytes_are_computed_in_float32():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype="uint8")
    turned = rotate(images, np.array([90.0, 30.0], "float32"))
    assert turned.dtype == tf.float32
    np.testing.assert_array_equal(np.asarray(turned[0]), np.rot90(images[0]).astype("float32"))


@pytest.mark.parametrize(("dy", "dx"), [(0.0, 0.0), (2.0, -3.0), (0.5, 0.25), (-3.7, 1.2), (-11.0, 40.0)])
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_shift_agrees_with_scipy(dy, dx, fill):
    image = noise(1, 9, 12)[0, :, :, 0]
    moved = np.asarray(shift(image[None, :, :, None], np.array([dy]), np.array([dx]), fill=fill))[0, :, :, 0]
    expected = ndimage.shift(image.astype("float64"), (dy, dx), order=1, mode="grid-constant", cval=fill)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=INTERPOLATION)


def test_shift_goes_down_and_to_the_right():
    image = np.zeros((1, 5, 5, 1), "float32")
    image[0, 1, 1] = 1.0
    moved = np.asarray(shift(image, np.array([2.0]), np.array([1.0])))[0, :, :, 0]
    assert moved[3, 2] == 1.0
    assert moved.sum() == 1.0


def test_shift_onto_a_canvas_is_slicing():
    images = noise(5, 28, 28, channels=2)
    shifts = np.array([[0, 0], [-20, 19], [3, -7], [-1, 20], [20, 20]])
    moved = np.asarray(shift(images, shifts[:, 0], shifts[:, 1], canvas=(68, 68), fill=-1.0))
    expected = np.full((5, 68, 68, 2), -1.0, "float32")
    for i, (dy, dx) in enumerate(shifts):
        expected[i, 20 + dy : 48 + dy, 20 + dx : 48 + dx] = images[i]
    # Whole pixels: every weight is exactly 0 or 1.
    np.testing.assert_array_equal(moved, expected)


def test_cosine_and_sine():
    angles = np.arange(-1080.0, 1081.0, 7.5)
    found = np.stack([np.asarray(value) for value in cosine_sine(angles.astype("float32"))])
    expected = np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))])
    # Two roundings in float32: the rest in radians and its function.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
    quarters = np.arange(-1080.0, 1081.0, 90.0)
    found = np.stack([np.asarray(value) for value in cosine_sine(quarters.astype("float32"))])
    np.testing.assert_array_equal(found, np.round([np.cos(np.deg2rad(quarters)), np.sin(np.deg2rad(quarters))]))


# Eager, graph and XLA


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_rotation_and_shift_equal_the_eager_ones(xla):
    images, angles = noise(4, 12, 12), np.array([0.0, 90.0, 33.0, -127.0], "float32")
    shifts = np.array([0.0, 1.0, -2.5, 3.25], "float32")
    for function, arguments in ((rotate, (images, angles)), (shift, (images, shifts, shifts))):
        compiled = tf.function(lambda *arguments, function=function: function(*arguments, fill=-1.0), jit_compile=xla)
        found = np.asarray(compiled(*map(tf.constant, arguments)))
        # XLA may join a product and a sum with one rounding: coordinates move by their last bit.
        np.testing.assert_allclose(found, np.asarray(function(*arguments, fill=-1.0)), rtol=0, atol=INTERPOLATION)
        if function is rotate:
            np.testing.assert_array_equal(found[:2], [images[0], np.rot90(images[1])])


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_drawing_equals_the_eager_one(xla):
    rotation = Rotation(Ranges(ALL, {3: ((-10, -5), (20, 40))}))
    labels = np.arange(64, dtype="int32") % 5
    compiled = tf.function(lambda positions, labels: rotation.draw(1, positions, labels), jit_compile=xla)
    # Angles up to 360 with float32's relative rounding of 6e-8, in two operations.
    np.testing.assert_allclose(
        np.asarray(compiled(tf.range(64, dtype=tf.int64), labels)), drawn(rotation, labels, 1), rtol=0, atol=6e-5
    )


# Gradients


@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_gradient_to_the_image_is_the_adjoint(fill):
    # Rotation is linear in the image but for the fill: <y, R(a) - R(b)> = <R'y, a - b> for any a, b and y.
    one, other, weight = (noise(3, 9, 9, seed=seed) for seed in range(3))
    angles = np.array([10.0, -75.0, 260.0], "float32")
    image = tf.constant(one)
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = tf.reduce_sum(rotate(image, angles, fill) * weight)
    gradient = tape.gradient(value, image).numpy()
    difference = np.sum((np.asarray(rotate(one, angles, fill)) - np.asarray(rotate(other, angles, fill))) * weight)
    # Sums of 243 products of size 1, each known to 1e-7.
    np.testing.assert_allclose(np.sum(gradient * (one - other)), difference, rtol=0, atol=2e-5)
    assert abs(difference) > 0.1


def angle_gradient(images, angles, weight):
    angles = tf.constant(angles)
    with tf.GradientTape() as tape:
        tape.watch(angles)
        value = tf.reduce_sum(rotate(images, angles, -1.0) * weight)
    return tape.gradient(value, angles).numpy()


def smooth(batch, size):
    """Smooth asymmetric images, so that the slope hardly changes from one pixel to the next."""
    images = ndimage.gaussian_filter(noise(batch, size, size), (0, 2.5, 2.5, 0), mode="constant", cval=-1.0)
    return images.astype("float32")


def test_gradient_to_the_angle_equals_finite_differences():
    angles = np.array([5.0, 45.0, -110.0, 301.0], "float32")
    images, weight = smooth(4, 16), smooth(4, 16)
    found, step = angle_gradient(images, angles, weight), 0.25

    def value(angles):
        return np.sum(np.asarray(rotate(images, angles, -1.0), "float64") * weight, axis=(1, 2, 3))

    expected = (value(angles + step) - value(angles - step)) / (2 * step)
    # In float32 the step cannot be small. A quarter of a degree moves the outer pixels by .05 pixels, and there some
    # pass from one pair of pixels to the next, where the slope of a bilinear image jumps: a few per cent of the whole.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * np.abs(expected).max())


def test_gradient_to_the_angle_equals_scipys_slope():
    angles = np.array([5.3, 44.0, -110.7, 301.0], "float32")
    images, weight = noise(4, 12, 12), noise(4, 12, 12, seed=1)
    step = 1e-6
    expected = [
        np.sum((scipy_rotated(x, a + step, -1.0) - scipy_rotated(x, a - step, -1.0)) * w) / (2 * step)
        for x, a, w in zip(images[..., 0], angles.astype("float64"), weight[..., 0], strict=True)
    ]
    # In float64 the step is so small that no pixel passes a kink; what is left is float32's rounding of 144 terms.
    np.testing.assert_allclose(angle_gradient(images, angles, weight), expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_gradient_to_the_angle_at_a_quarter_turn_is_the_slope_to_one_side():
    # There pixel centres meet, so the slope jumps; the one to the side of larger coordinates is taken, never NaN.
    gradient = angle_gradient(noise(3, 8, 8), np.array([0.0, 90.0, 180.0], "float32"), noise(3, 8, 8, seed=1))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).min() > 0


def test_gradient_to_the_shift():
    # A ramp that grows by 2 a pixel downwards and 3 to the right: moved by d, its inside falls by 2 dy + 3 dx.
    rows, columns = np.mgrid[:9, :9]
    image = (2.0 * rows + 3.0 * columns).astype("float32")[None, :, :, None]
    dy, dx = tf.constant([0.3]), tf.constant([-0.6])
    with tf.GradientTape() as tape:
        tape.watch([dy, dx])
        value = tf.reduce_mean(shift(image, dy, dx)[:, 2:-2, 2:-2])
    # Differences of numbers up to 40 in float32.
    np.testing.assert_allclose([part.numpy()[0] for part in tape.gradient(value, [dy, dx])], [-2.0, -3.0], atol=1e-4)


# Drawing

INTERVALS = [ALL, ((45, 315),), ((-45, 45),), ((-10, -5), (20, 40)), ((-3, 0), (0, 1), (5, 5.5), (100, 145.5))]


@pytest.mark.parametrize("pairs", INTERVALS, ids=str)
def test_angles_keep_to_the_range_and_fill_it_evenly(pairs):
    angles = drawn(Rotation(Ranges(pairs)), np.zeros(10_000))
    total = sum(high - low for low, high in pairs)
    hits = 0
    for low, high in pairs:
        inside = angles[(angles >= low) & (angles < high)]
        hits += len(inside)
        # Binomial: five standard deviations around the interval's share of the whole length.
        share = (high - low) / total
        assert abs(len(inside) - 10_000 * share) <= 5 * np.sqrt(10_000 * share * (1 - share))
        # Mean of a uniform distribution: five of its standard errors.
        assert abs(inside.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * len(inside))
        # Both ends are reached: none of n numbers in the outer 20 / n has probability e**-20.
        margin = 20 * (high - low) / len(inside)
        assert inside.min() < low + margin
        assert inside.max() > high - margin
    assert hits == 10_000


def test_each_class_is_drawn_from_its_own_range():
    own = {3: ((-45, 45),), 4: ((-10, -5), (20, 40)), 7: ((90, 90),)}
    labels = np.random.default_rng(0).integers(0, 10, 10_000)
    angles = drawn(Rotation(Ranges(((100, 200),), own)), labels)
    for label in range(10):
        mine = angles[labels == label]
        assert len(mine) > 800
        inside = [(mine >= low) & ((mine < high) | (low == high)) for low, high in own.get(label, ((100, 200),))]
        assert np.any(inside, axis=0).all()
        assert len(np.unique(mine)) == 1 if label == 7 else len(np.unique(mine)) > 700


def test_range_of_single_values():
    assert set(drawn(Rotation(Ranges(((7.5, 7.5),))), np.zeros(100)).tolist()) == {7.5}
    two = drawn(Rotation(Ranges(((-90, -90), (90, 90)))), np.zeros(1000))
    assert set(two.tolist()) == {-90.0, 90.0}
    assert abs((two == 90.0).sum() - 500) < 5 * np.sqrt(250)  # binomial, five standard deviations


def test_half_open_interval_never_reaches_its_end():
    # The largest uniform number below one, where rounding would carry 1e6 + .5 * .99999994 up to the end.
    from invariance.transforms import _Table

    for pairs in (((1e6, 1e6 + 0.5),), ((-45, 45),), ((0, 1), (2, 3)), ((1 / 3, 2 / 3),)):
        table = _Table(Ranges(pairs))
        top = float(table.draw(np.zeros(1, "int32"), ops.convert_to_tensor([1 - 2.0**-24], "float32"))[0])
        assert pairs[-1][0] <= top < pairs[-1][1]
        assert float(table.draw(np.zeros(1, "int32"), ops.zeros(1))[0]) == np.float32(pairs[0][0])


@pytest.mark.parametrize(
    "transformation", [Rotation(Ranges(ALL)), Shift(Ranges(((-5, 5),)))], ids=["rotation", "shift"]
)
def test_draws_are_a_function_of_seed_and_position_alone(transformation):
    labels = np.zeros(100)
    whole = drawn(transformation, labels, seed=2)
    np.testing.assert_array_equal(
        np.concatenate([drawn(transformation, labels[:20], 2, k) for k in range(0, 100, 20)]), whole
    )
    backwards = transformation.draw(2, ops.arange(99, -1, -1, dtype="int64"), labels)
    np.testing.assert_array_equal(np.asarray(backwards)[::-1], whole)
    # A neighbour's label does not matter: the last is drawn alike among others.
    np.testing.assert_array_equal(drawn(transformation, labels[:1], 2, 99)[0], whole[99])
    assert (drawn(transformation, labels, seed=3) != whole).any()
    other = transformation.draw(2, ops.arange(100, dtype="int64"), labels, random.EVALUATION)
    assert (np.asarray(other) != whole).any()


def test_shifts_are_all_whole_numbers_of_the_range_equally_often():
    shifts = drawn(Shift(Ranges(((-5, 5),), {1: ((2, 2),)})), np.zeros(10_000))
    assert shifts.shape == (10_000, 2)
    # Both directions and all 100 pairs: each 100 times, binomial with standard deviation 9.95.
    pairs, counts = np.unique(shifts, axis=0, return_counts=True)
    assert {tuple(pair) for pair in pairs.tolist()} == {(dy, dx) for dy in range(-5, 5) for dx in range(-5, 5)}
    assert np.abs(counts - 100).max() < 5 * 9.95
    np.testing.assert_array_equal(drawn(Shift(Ranges(((-5, 5),), {1: ((2, 2),)})), np.ones(10)), 2.0)


# The transformations as objects


def test_apply_rotates_and_shifts():
    images = noise(3, 8, 8)
    angles = np.array([90.0, 15.0, -60.0], "float32")
    np.testing.assert_array_equal(Rotation(Ranges(ALL), -1.0).apply(images, angles), rotate(images, angles, -1.0))
    moves = np.array([[1.0, -2.0], [0.0, 3.0], [2.0, 2.0]], "float32")
    moved = np.asarray(Shift(Ranges(((-5, 5),)), canvas=(16, 18), fill=-1.0).apply(images, moves))
    assert moved.shape == (3, 16, 18, 1)
    # The middle of the canvas begins at (4, 5).
    np.testing.assert_array_equal(moved[0, 5:13, 3:11], images[0])


def test_angles_are_encoded_with_period_360():
    rotation = Rotation(Ranges(ALL))
    angles = np.array([0.0, 37.0, 90.0, 200.0, 359.0], "float32")
    code = np.asarray(rotation.encode(angles))
    assert code.shape == (5, 2)
    radians = np.deg2rad(angles.astype("float64"))
    expected = np.stack([np.cos(radians), np.sin(radians)], axis=-1)
    np.testing.assert_allclose(code, expected, rtol=0, atol=2e-7)  # two roundings in float32
    np.testing.assert_allclose(rotation.encode(angles + 360), code, rtol=0, atol=2e-7)
    np.testing.assert_allclose(rotation.encode(angles + 180), -code, rtol=0, atol=2e-7)


def test_shifts_are_encoded_in_units_of_their_scale():
    code = Shift(Ranges(((-20, 20),)), scale=20.0).encode(np.array([[20.0, -10.0], [0.0, 5.0]]))
    np.testing.assert_array_equal(code, [[1.0, -0.5], [0.0, 0.25]])
