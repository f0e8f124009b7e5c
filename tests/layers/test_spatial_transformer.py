"""Spatial transformers: the affine warp, the angles of its matrices, and learning to turn images upright."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import ndimage

from invariance.layers.spatial_transformer import SpatialTransformer, affine, rotation_angles
from invariance.warp import rotate
from tests.helpers import assert_reached, noise

# Coordinates up to 30 pixels are known to about 4e-6 pixels in float32; neighbouring pixels differ by up to 2.
INTERPOLATION = 3e-5


def rotation(degrees):
    """The matrix (2, 3) that rotates an image counter-clockwise, see `warp.rotate`."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, sine, 0], [-sine, cosine, 0]])


def localisation(units=4):
    return keras.Sequential([layers.Flatten(), layers.Dense(units, "tanh")], name="localisation")


def moved(transformer, by=0.1):
    """The built layer with weights at which it is not the identity."""
    for number, weight in enumerate(transformer.weights):
        weight.assign(weight + by * noise(*weight.shape, seed=number))
    return transformer


@pytest.mark.parametrize("size", [(8, 8), (7, 12)])
def test_is_the_identity_at_first(size):
    images, transformer = noise(3, *size, 2), SpatialTransformer(localisation())
    # Every coordinate is exact, every weight exactly 0 or 1.
    np.testing.assert_array_equal(transformer(images), images)
    np.testing.assert_array_equal(transformer.matrices(images), np.broadcast_to(np.eye(2, 3), (3, 2, 3)))
    moved(transformer)
    assert np.abs(transformer(images) - images).max() > 0.1
    np.testing.assert_array_equal(transformer(images), affine(images, transformer.matrices(images)))


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 12)])
def test_affine_agrees_with_scipy(size):
    images = noise(3, *size, 1, spread=(-1, 1))
    matrices = np.array([[[0.7, -0.4, 0.3], [0.3, 1.6, -0.2]], rotation(33), [[0, 2, -1], [-1, 0.5, 0.5]]])
    found = affine(images, matrices.astype("float32"))
    centre, halves = (np.array(size) - 1) / 2, np.array(size) / 2
    for image, matrix, one in zip(images[..., 0].astype("float64"), matrices, found[..., 0], strict=True):
        linear, offset = matrix[:, :2], matrix[:, 2] * halves + centre
        expected = ndimage.affine_transform(
            image, linear, offset - linear @ centre, order=1, mode="grid-constant", cval=0.0
        )
        np.testing.assert_allclose(one, expected, rtol=0, atol=INTERPOLATION)


@pytest.mark.parametrize("degrees", [0.0, 33.3, 90.0, 150.0, -120.0, -1.5])
def test_angle_is_that_by_which_the_image_is_rotated(degrees):
    images, matrices = noise(1, 9, 9, 1, spread=(-1, 1)), rotation(degrees)[None].astype("float32")
    expected = rotate(images, np.array([degrees], "float32"))
    np.testing.assert_allclose(affine(images, matrices), expected, rtol=0, atol=INTERPOLATION)
    # Sine and cosine are known to 6e-8 each: the angle, in degrees, to 1e-5, of a float32 number up to 180.
    np.testing.assert_allclose(rotation_angles(matrices), [degrees], rtol=0, atol=4e-5)
    # A shear and a zoom along any axes, a symmetric positive matrix, do not rotate; neither does a shift.
    stretched = rotation(degrees)[:, :2] @ [[1.4, 0.3], [0.3, 0.6]]
    np.testing.assert_allclose(rotation_angles(stretched[None]), [degrees], rtol=0, atol=4e-5)
    shifted = np.concatenate([stretched, [[0.4], [-0.7]]], axis=1)
    np.testing.assert_allclose(rotation_angles(shifted[None]), [degrees], rtol=0, atol=4e-5)


def test_gradients_reach_every_weight_as_soon_as_it_has_moved():
    images, weight = noise(4, 9, 9, 1), noise(4, 9, 9, 1, seed=1)
    transformer = SpatialTransformer(localisation())
    transformer.build(images.shape)

    def reached(part):
        weights = part.trainable_weights
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(transformer(images) * weight)
        assert_reached(tape.gradient(value, [each.value for each in weights]), weights)

    # At first all images have the same matrix, whatever their features.
    reached(transformer.regression)
    with pytest.raises(AssertionError, match="localisation"):
        reached(transformer.localisation)
    reached(moved(transformer))


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(xla):
    images, transformer = noise(3, 8, 8, 1, spread=(-1, 1)), SpatialTransformer(localisation())
    transformer(images)
    moved(transformer)
    compiled = tf.function(transformer, jit_compile=xla, autograph=False)
    np.testing.assert_allclose(compiled(tf.constant(images)), transformer(images), rtol=0, atol=INTERPOLATION)


def test_learns_to_turn_images_upright():
    keras.utils.set_random_seed(0)
    # Three spots, of which no affine map but the identity makes the same image.
    rows, columns = np.mgrid[:15, :15] - 7
    spots = [(-4, 0, 1.0), (2, 4, 0.7), (2, -3, 0.4)]
    upright = sum(light * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 6) for y, x, light in spots)
    upright = upright[None, :, :, None].astype("float32")
    degrees = noise(64, spread=(-60, 60))
    images = tf.constant(rotate(np.repeat(upright, 64, axis=0), degrees))
    transformer, optimizer = SpatialTransformer(localisation(16)), keras.optimizers.Adam(1e-2)
    transformer.build(images.shape)
    optimizer.build(transformer.trainable_weights)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((transformer(images) - upright) ** 2)
        weights = transformer.trainable_weights
        optimizer.apply(tape.gradient(loss, [each.value for each in weights]), weights)
        return loss

    losses = [float(step()) for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]
    # It turns back what was turned, on average to a tenth of the range.
    error = rotation_angles(transformer.matrices(images)) + degrees
    assert np.sqrt(np.mean(error**2)) < 6


def test_saved_and_loaded(tmp_path):
    images = keras.Input((9, 8, 2))
    # Two kinds of localisation network: a model, and a single layer.
    x = SpatialTransformer(localisation())(images)
    model = keras.Model(images, SpatialTransformer(layers.GlobalAveragePooling2D())(x))
    for layer in model.layers[1:]:
        moved(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = noise(3, 9, 8, 2)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    np.testing.assert_array_equal(loaded.layers[1].matrices(inputs), model.layers[1].matrices(inputs))
    assert len(model.weights) == len(loaded.weights) == 6


def test_coordinates_are_float32_in_mixed_precision(bfloat16):
    images, transformer = noise(2, 9, 9, 1), SpatialTransformer(localisation())
    assert transformer(images).dtype == "float32"
    assert transformer.localisation(images).dtype == "bfloat16"
    np.testing.assert_array_equal(transformer(images), images)


def test_wrong_inputs_are_refused():
    for shape in [(8, 8), (None, 8, 1)]:
        with pytest.raises(ValueError, match=r"must be images .* of known size\. Received: input_shape=\(None, "):
            SpatialTransformer(localisation())(keras.Input(shape))
    with pytest.raises(ValueError, match=r"`localisation` must return \(batch, features\)\. .*\(None, 8, 8, 2\)"):
        SpatialTransformer(layers.Conv2D(2, 1))(keras.Input((8, 8, 1)))
