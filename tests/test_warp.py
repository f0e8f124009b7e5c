"""The bilinear warp and the linear maps and shifts based on it: geometry, borders, gradients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from invariance.warp import cosine_sine, linear, rotate, shift, warp
from tests.helpers import noise

# Coordinates up to 30 pixels are known to about 4e-6 pixels in float32; neighbouring pixels differ by up to 2 (images
# in [-1, 1]), and both coordinates count. So values from the same formula agree to about 2e-5.
INTERPOLATION = 3e-5
SHAPES = [(9, 9), (8, 8), (7, 12)]


def images_of(batch, height, width, channels=1, seed=0):
    """Images of independent pixels in [-1, 1]: asymmetric, and the hardest to interpolate."""
    return noise(batch, height, width, channels, seed=seed, spread=(-1, 1))


def one(function, image, *arguments, **options):
    """Applies a function of batches to one image (height, width)."""
    return np.asarray(function(image[None, :, :, None], *arguments, **options))[0, :, :, 0]


def scipy_linear(image, matrix, canvas=None, fill=0.0):
    """Oracle in float64: scipy's matrix, too, maps (row, column) of the result to those of the image."""
    shape, matrix = canvas or image.shape, np.reshape(matrix, (2, 2))
    offset = (np.array(image.shape) - 1) / 2 - matrix @ ((np.array(shape) - 1) / 2)
    options = {"order": 1, "mode": "grid-constant", "cval": fill}
    return ndimage.affine_transform(image.astype("float64"), matrix, offset, output_shape=shape, **options)


def scipy_rotated(image, angle, fill=0.0):
    radians = np.deg2rad(float(angle))
    return scipy_linear(image, [np.cos(radians), np.sin(radians), -np.sin(radians), np.cos(radians)], fill=fill)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_warp_agrees_with_scipy_inside_at_the_border_and_outside(fill, dtype):
    images = images_of(2, 7, 12, channels=3)
    rows, columns = (np.random.default_rng(n).uniform(-3, side + 2, (2, 5, 9)) for n, side in enumerate((7, 12)))
    found = warp(images, rows.astype(dtype), columns.astype(dtype), fill)
    assert found.shape == (2, 5, 9, 3) and found.dtype == tf.float32
    for number in range(2):
        for channel in range(3):
            expected = ndimage.map_coordinates(
                images[number, :, :, channel].astype("float64"),
                [rows[number], columns[number]], order=1, mode="grid-constant", cval=fill,
            )  # fmt: skip
            np.testing.assert_allclose(found[number, :, :, channel], expected, rtol=0, atol=INTERPOLATION)


def test_fill_blends_with_the_border():
    # An image of ones, sampled half a pixel, one pixel and farther outside, and a quarter outside the lower border.
    rows = np.array([[[-0.5, -1.0, -7.0, 1.0, 2.25, 3.0, 99.0]]], "float32")
    found = np.asarray(warp(np.ones((1, 3, 3, 1), "float32"), rows, np.ones_like(rows), fill=-1.0))[0, 0, :, 0]
    np.testing.assert_array_equal(found, [0.0, -1.0, -1.0, 1.0, 0.5, -1.0, -1.0])
    # An image that is all fill stays so: weights sum to one, up to the rounding of two blends.
    np.testing.assert_allclose(one(rotate, np.full((20, 20), -1.0), [33.0], fill=-1.0), -1.0, atol=3e-7)


@pytest.mark.parametrize("canvas", [None, (11, 14), (6, 7)])
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_agrees_with_scipy(shape, canvas):
    image, matrices = images_of(1, *shape)[0, :, :, 0], [(1, 0, 0, 1), (0.7, -0.4, 0.3, 1.6), (0, 2, -1, 0.5)]
    for matrix in matrices:
        found = one(linear, image, matrix, canvas, fill=-1.0)
        np.testing.assert_allclose(found, scipy_linear(image, matrix, canvas, -1.0), rtol=0, atol=INTERPOLATION)


@pytest.mark.parametrize("fill", [0.0, -1.0])
@pytest.mark.parametrize("shape", [(28, 28), *SHAPES])
def test_rotation_agrees_with_scipy(shape, fill):
    image = images_of(1, *shape)[0, :, :, 0]
    for angle in (0.0, 33.3, 90.0, 135.0, 261.7, -10.0, 359.0, 1000.0):
        found = one(rotate, image, np.array([angle], "float32"), fill)
        np.testing.assert_allclose(found, scipy_rotated(image, angle, fill), rtol=0, atol=INTERPOLATION)


@pytest.mark.parametrize("shape", [(8, 8), (9, 9)])
@pytest.mark.parametrize("quarters", [-5, -1, 0, 1, 2, 3, 4, 7])
def test_quarter_turns_are_exact(shape, quarters):
    images = images_of(3, *shape, channels=2)
    rotated = np.asarray(rotate(images, np.full(3, 90.0 * quarters, "float32"), fill=-1.0))
    # np.rot90 rotates counter-clockwise. Every weight is exactly 0 or 1, so pixels are equal bit by bit.
    np.testing.assert_array_equal(rotated, np.rot90(images, quarters, axes=(1, 2)))


def test_bytes_are_rotated_in_float32():
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), dtype="uint8")
    rotated = rotate(images, np.array([90.0], "float32"))
    assert rotated.dtype == tf.float32
    np.testing.assert_array_equal(rotated, np.rot90(images, axes=(1, 2)).astype("float32"))


@pytest.mark.parametrize("fill", [0.0, -1.0])
@pytest.mark.parametrize("moved", [(0.0, 0.0), (2.0, -3.0), (0.5, 0.25), (-3.7, 1.2), (-11.0, 40.0)])
def test_shift_agrees_with_scipy(moved, fill):
    image = images_of(1, 9, 12)[0, :, :, 0]
    expected = ndimage.shift(image.astype("float64"), moved, order=1, mode="grid-constant", cval=fill)
    found = one(shift, image, *np.array(moved)[:, None], fill=fill)
    np.testing.assert_allclose(found, expected, rtol=0, atol=INTERPOLATION)


def test_shift_on_a_canvas_is_slicing():
    images, shifts = images_of(5, 28, 28, channels=2), np.array([[0, 0], [-20, 19], [3, -7], [-1, 20], [20, 20]])
    found = np.asarray(shift(images, shifts[:, 0], shifts[:, 1], canvas=(68, 70), fill=-1.0))
    expected = np.full((5, 68, 70, 2), -1.0, "float32")
    for number, (dy, dx) in enumerate(shifts):
        expected[number, 20 + dy : 48 + dy, 21 + dx : 49 + dx] = images[number]
    # Whole pixels: every weight is exactly 0 or 1.
    np.testing.assert_array_equal(found, expected)


def test_canvas_larger_by_an_odd_number_averages_neighbours():
    # The centred image falls half a pixel lower; the border is the mean of a pixel and the fill value, 0.
    image = np.arange(1.0, 4.0)[:, None] * np.ones((1, 3))
    np.testing.assert_array_equal(one(shift, image, [0], [0], canvas=(4, 3))[:, 1], [0.5, 1.5, 2.5, 1.5])


def test_cosine_and_sine():
    angles = np.arange(-1080.0, 1081.0, 7.5)
    found = np.stack([np.asarray(value) for value in cosine_sine(angles.astype("float32"))])
    expected = np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))])
    # Two roundings in float32: of the rest in radians and of its function.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
    quarters = angles % 90 == 0
    np.testing.assert_array_equal(found[:, quarters], np.round(expected[:, quarters]))


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_functions_equal_the_eager_ones(xla):
    images, angles = images_of(4, 12, 12), np.array([0.0, 90.0, 33.0, -127.0], "float32")
    numbers = np.array([0.0, 1.0, -2.5, 3.25], "float32")
    for function, arguments in (
        (rotate, (images, angles)),
        (shift, (images, numbers, numbers)),
        (lambda images, a, fill: linear(images, (a, 0.5, 0.0, 1.0), fill=fill), (images, numbers)),
    ):
        compiled = tf.function(lambda *given, function=function: function(*given, fill=-1.0), jit_compile=xla)
        found = np.asarray(compiled(*map(tf.constant, arguments)))
        # XLA may round a product and a sum once: coordinates change in their last bit.
        np.testing.assert_allclose(found, np.asarray(function(*arguments, fill=-1.0)), rtol=0, atol=INTERPOLATION)
        if function is rotate:
            np.testing.assert_array_equal(found[:2], [images[0], np.rot90(images[1])])


# Gradients


def gradients(function, *arguments):
    """Gradients of the sum of a function to each of its arguments."""
    arguments = [tf.constant(each, "float32") for each in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = tf.reduce_sum(function(*arguments))
    return [gradient.numpy() for gradient in tape.gradient(value, arguments)]


@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_gradient_to_the_images_is_the_adjoint(fill):
    # Rotation is affine in the image: <w, R(a) - R(b)> = <R'w, a - b> for any images a, b and weights w.
    first, second, weight = (images_of(3, 9, 9, seed=seed) for seed in range(3))
    angles = np.array([10.0, -75.0, 260.0], "float32")
    (gradient,) = gradients(lambda images: rotate(images, angles, fill) * weight, first)
    difference = np.sum((np.asarray(rotate(first, angles, fill)) - np.asarray(rotate(second, angles, fill))) * weight)
    # Sums of 243 products of size 1, each known to 1e-7.
    np.testing.assert_allclose(np.sum(gradient * (first - second)), difference, rtol=0, atol=2e-5)
    assert abs(difference) > 0.1


def test_gradient_to_the_coordinates_is_the_slope_of_the_bilinear_surface():
    image = images_of(1, 7, 9)
    # Fractions between .1 and .9 keep the finite difference clear of the kinks at pixel centres.
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(-3, side + 2, (1, 6, 6)) + rng.uniform(0.1, 0.9, (1, 6, 6)) for side in (7, 9))

    def value(rows, columns):
        inputs, points = image[0, :, :, 0].astype("float64"), [rows[0], columns[0]]
        return ndimage.map_coordinates(inputs, points, order=1, mode="grid-constant", cval=-1.0)

    step = 1e-6
    expected = (
        (value(rows + step, columns) - value(rows - step, columns)) / (2 * step),
        (value(rows, columns + step) - value(rows, columns - step)) / (2 * step),
    )
    found = gradients(lambda rows, columns: warp(image, rows, columns, -1.0), rows, columns)
    # Differences of pixels, weighted by float32 fractions known to 1e-6.
    np.testing.assert_allclose([each[0] for each in found], expected, rtol=0, atol=1e-5)
    assert (np.abs(expected).max(axis=(1, 2)) > 0.1).all()


def test_gradient_to_the_angle_equals_scipys_slope():
    angles, step = np.array([5.3, 44.0, -110.7, 301.0], "float32"), 1e-6
    images, weight = images_of(4, 12, 12), images_of(4, 12, 12, seed=1)
    expected = [
        np.sum((scipy_rotated(x, a + step, -1.0) - scipy_rotated(x, a - step, -1.0)) * w) / (2 * step)
        for x, a, w in zip(images[..., 0], angles.astype("float64"), weight[..., 0], strict=True)
    ]
    (found,) = gradients(lambda angles: rotate(images, angles, -1.0) * weight, angles)
    # In float64 the step is too small for any pixel to pass a kink; what is left is float32's rounding of 144 terms.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_gradient_to_the_angle_at_a_quarter_turn_is_one_sided():
    # There pixel centres meet and the slope jumps; the side of larger coordinates is taken, never NaN.
    images, weight = images_of(3, 8, 8), images_of(3, 8, 8, seed=1)
    (found,) = gradients(lambda angles: rotate(images, angles, -1.0) * weight, [0.0, 90.0, 180.0])
    assert np.isfinite(found).all()
    assert np.abs(found).min() > 0


def test_gradient_to_the_shift():
    # A ramp that rises by 2 per pixel downwards and by 3 to the right: shifted, its inside falls by 2 dy + 3 dx.
    rows, columns = np.mgrid[:9, :9]
    ramp = (2.0 * rows + 3.0 * columns).astype("float32")[None, :, :, None]
    found = gradients(lambda dy, dx: tf.reduce_mean(shift(ramp, dy, dx)[:, 2:-2, 2:-2]), [0.3], [-0.6])
    # Differences of numbers up to 40 in float32.
    np.testing.assert_allclose(np.ravel(found), [-2.0, -3.0], rtol=0, atol=1e-4)


def test_cubic_interpolation_agrees_with_the_kernel():
    """An oracle by loops over all pixels, from Keys' kernel with a = -1/2."""
    images, rows, columns = noise(2, 5, 4, 2), noise(2, 3, 3) * 2 + 2, noise(2, 3, 3) * 2 + 2

    def kernel(t):
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    expected = np.zeros((2, 3, 3, 2))
    for place in np.ndindex(2, 3, 3):
        # Outside, from the first pixel on, there is the fill value only.
        row, column = np.clip(rows[place], -1, 5), np.clip(columns[place], -1, 4)
        for i, j in np.ndindex(13, 12):
            weight = kernel(row - (i - 4)) * kernel(column - (j - 4))
            inside = 0 <= i - 4 < 5 and 0 <= j - 4 < 4
            expected[place] += weight * (images[place[0], i - 4, j - 4] if inside else 0.5)
    np.testing.assert_allclose(warp(images, rows, columns, 0.5, cubic=True), expected, atol=2e-6)
