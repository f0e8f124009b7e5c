"""Polar resampling and cyclic padding: geometry, and what a rotation becomes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.polar import CircularPadding, PolarResampling
from invariance.warp import rotate
from tests.helpers import noise

# Coordinates up to 20 pixels, known to 2e-6 pixels in float32, of images whose neighbouring pixels differ by up to 4.
INTERPOLATION = 3e-5


def smooth(height, width, scale=1.0):
    """An asymmetric image that varies over several pixels, centred and scaled: (1, height, width, 1)."""
    rows, columns = np.mgrid[:height, :width]
    y, x = (rows - (height - 1) / 2) / scale, (columns - (width - 1) / 2) / scale
    value = np.exp(-((x - 4) ** 2 + y**2) / 18) + 0.5 * np.exp(-(x**2 + (y + 5) ** 2) / 18)
    return value[None, :, :, None].astype("float32")


@pytest.mark.parametrize("size", [(28, 28), (15, 20)])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_radii_and_angles(size, logarithmic):
    # Of a ramp, interpolation returns the coordinate itself: here both coordinates, as two channels.
    ramps = np.stack(np.mgrid[: size[0], : size[1]], -1)[None].astype("float32")
    found = PolarResampling(8, 5, logarithmic, inner=2.0, outer=6.0)(ramps).numpy()[0]
    down, right = found[..., 0] - (size[0] - 1) / 2, found[..., 1] - (size[1] - 1) / 2
    # The middles of five rings between 0 and 6, or of five rings of equal ratio between 2 and 6.
    radii = [2 * 3 ** (n / 10) for n in (1, 3, 5, 7, 9)] if logarithmic else [0.6, 1.8, 3.0, 4.2, 5.4]
    np.testing.assert_allclose(np.hypot(down, right), np.outer(radii, np.ones(8)), rtol=0, atol=INTERPOLATION)
    # Counter-clockwise from the right, on the screen: the third column of eight looks upwards.
    degrees = np.rad2deg(np.arctan2(-down, right)) % 360
    np.testing.assert_allclose(degrees[:, 1:], np.outer(np.ones(5), np.arange(45, 360, 45)), rtol=0, atol=1e-3)
    assert (right[:, 0] > 0).all() and np.abs(down[:, 0]).max() < INTERPOLATION


def test_outer_border_is_half_the_shorter_side_and_zeros_lie_outside():
    ones = np.ones((1, 10, 14, 1), "float32")
    # Half a pixel outside the outermost pixels' centres, where ones and zeros meet; to the right there is more.
    found = PolarResampling(4, 1, outer=10.0)(ones).numpy()[0, 0, :, 0]
    np.testing.assert_allclose(found, [1.0, 0.5, 1.0, 0.5], rtol=0, atol=INTERPOLATION)
    assert not PolarResampling(4, 1, outer=30.0)(ones).numpy().any()
    by_default, given = (PolarResampling(6, 5, outer=outer)(noise(1, 10, 14, 1)) for outer in (None, 5.0))
    np.testing.assert_array_equal(by_default, given)


@pytest.mark.parametrize("size", [(12, 12), (11, 11)])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_quarter_turns_are_shifts_of_the_columns(size, logarithmic):
    images, layer = noise(2, *size, 3, spread=(-2, 2)), PolarResampling(12, 7, logarithmic)
    polar = layer(images).numpy()
    for quarters in (1, 2, 3):
        found = layer(np.rot90(images, quarters, axes=(1, 2)))
        np.testing.assert_allclose(found, np.roll(polar, 3 * quarters, axis=2), rtol=0, atol=INTERPOLATION)


def test_other_rotations_are_shifts_up_to_interpolation():
    images, layer = smooth(28, 28), PolarResampling(48, 13)
    polar = layer(images).numpy()
    for steps in (3, 17, -7):
        found = layer(rotate(images, np.array([7.5 * steps], "float32")))
        # Linear interpolation errs, to one side, by at most 1/8 of the second derivative in each direction, 1/9 here:
        # by .03 for both directions. It is done twice on one side and once on the other.
        # (A shift by one column too many makes .11.)
        assert np.abs(found - np.roll(polar, steps, axis=2)).max() < 0.06 < 0.2 * np.abs(found - polar).max()


def test_scaling_is_a_shift_of_the_rows_for_logarithmic_radii():
    # Twelve radii between 2 and 12.7 pixels: from one to the next times the sixth root of 2^(16/6).
    layer = PolarResampling(16, 12, logarithmic=True, inner=2.0, outer=2 * 2 ** (16 / 6))
    small, large = (layer(smooth(28, 28, scale)).numpy() for scale in (1.0, 2 ** (2 / 9)))
    # 16/6 octaves are 12 rows, 2/9 octaves are one. Interpolation of both as above.
    assert np.abs(large[:, 1:] - small[:, :-1]).max() < 0.06 < 0.5 * np.abs(large - small).max()


def test_padding_is_cyclic_along_the_angle_and_zero_along_the_radius():
    inputs = noise(2, 3, 5, 2)
    for columns, rows in [((2, 1), (0, 1)), ((0, 0), (2, 0)), ((0, 5), (0, 0))]:
        layer = CircularPadding(columns, rows)
        expected = np.pad(inputs, ((0, 0), (0, 0), columns, (0, 0)), mode="wrap")
        expected = np.pad(expected, ((0, 0), rows, (0, 0), (0, 0)))
        np.testing.assert_array_equal(layer(inputs), expected)
        assert layer.compute_output_shape((None, *inputs.shape[1:])) == (None, *expected.shape[1:])


def test_convolution_of_the_padded_columns_is_equivariant():
    inputs, padding, convolution = noise(2, 6, 8, 3), CircularPadding((1, 2), (1, 1)), layers.Conv2D(4, (3, 4), (2, 1))
    outputs = convolution(padding(inputs)).numpy()
    assert outputs.shape == (2, 3, 8, 4)
    for steps in range(1, 8):
        found = convolution(padding(np.roll(inputs, steps, axis=2)))
        # Float32 sums of 36 products of size 1.
        np.testing.assert_allclose(found, np.roll(outputs, steps, axis=2), rtol=0, atol=1e-5)


def stack(size=(9, 10)):
    images = keras.Input((*size, 2))
    x = PolarResampling(6, 4, logarithmic=True, inner=0.5, outer=4.0)(images)
    return keras.Model(images, CircularPadding((2, 0), (1, 0))(x))


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(xla):
    model, images = stack(), tf.constant(noise(2, 9, 10, 2))
    compiled = tf.function(model, jit_compile=xla, autograph=False)
    np.testing.assert_allclose(compiled(images), model(images), rtol=0, atol=INTERPOLATION)


def test_saved_and_loaded(tmp_path):
    model, images = stack(), noise(2, 9, 10, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded.layers, model.layers, strict=True):
        assert type(one) is type(other) and one.get_config() == other.get_config()
    np.testing.assert_array_equal(loaded(images), model(images))


def test_coordinates_are_float32_in_mixed_precision(bfloat16):
    images = noise(1, 12, 12, 1, spread=(-2, 2))
    layer = PolarResampling(4, 3)
    found = layer(images)
    assert found.dtype == "float32" and CircularPadding((1, 1))(found).dtype == "bfloat16"
    np.testing.assert_allclose(
        layer(np.rot90(images, axes=(1, 2))), np.roll(found, 1, axis=2), rtol=0, atol=INTERPOLATION
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"angles": 0}, "`angles` must be a positive integer"),
        ({"radii": 2.5}, "`radii` must be a positive integer"),
        ({"inner": 0.0}, "`inner` and `outer` must be radii"),
        ({"outer": 0.0}, "`inner` and `outer` must be radii"),
        ({"outer": 1.0, "logarithmic": True}, "`inner` and `outer` must be radii"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as refused:
        PolarResampling(**{"angles": 8, "radii": 4, **arguments})
    assert "\n" not in str(refused.value) and "Received: " in str(refused.value)


def test_wrong_inputs_and_widths_are_refused():
    for shape in [(8, 8), (None, 8, 1)]:
        with pytest.raises(ValueError, match=r"must be images .* of known size\. Received: input_shape=\(None, "):
            PolarResampling(8, 4)(keras.Input(shape))
    with pytest.raises(ValueError, match=r"at least 5 angles\. Received: input_shape=\(None, 3, 4, 1\)"):
        CircularPadding((0, 5))(keras.Input((3, 4, 1)))
    with pytest.raises(ValueError, match=r"`left` must be a non-negative integer\. Received: -1"):
        CircularPadding((-1, 0))
