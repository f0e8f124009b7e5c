"""The layers of capsule networks, alone and in somebody's own functional model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.capsules import Length, Mask, PrimaryCapsules, RoutedCapsules
from invariance.routing import dynamic

# Float32 sums of some ten to some hundred numbers.
ROUNDING = 5e-6


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def one_line(error, *texts):
    assert "\n" not in str(error.value)
    for text in texts:
        assert text in str(error.value)


# Primary capsules


def test_primary_capsules_are_squashed_filters():
    layer, images = PrimaryCapsules(3, 4, kernel_size=5, strides=2), noise(2, 11, 9, 2)
    capsules = layer(images)
    # (11 - 5) // 2 + 1 = 4 rows, 3 columns, 3 channels.
    assert capsules.shape == (2, 4 * 3 * 3, 4) == layer.compute_output_shape(images.shape)
    kernel, bias = (weight.numpy() for weight in layer.weights)
    filters = tf.nn.conv2d(images, kernel, 2, "VALID").numpy() + bias
    # Capsule 9 r + 3 c + k at row r and column c has the filters 4 k to 4 k + 3.
    for number in range(36):
        r, c, k = number // 9, number // 3 % 3, number % 3
        expected = dynamic.squash(filters[:, r, c, 4 * k : 4 * k + 4])
        np.testing.assert_allclose(capsules[:, number], expected, rtol=0, atol=ROUNDING)


def test_primary_capsules_have_published_defaults():
    layer = PrimaryCapsules(32, 8)
    assert (layer.kernel_size, layer.strides) == (9, 2)
    assert layer.compute_output_shape((None, 20, 20, 256)) == (None, 1152, 8)
    convolution = layer.convolution
    assert (convolution.filters, convolution.kernel_size, convolution.strides) == (256, (9, 9), (2, 2))
    assert convolution.padding == "valid" and convolution.use_bias
    assert convolution.activation is keras.activations.linear


@pytest.mark.parametrize("shape", [(None, 4, 9, 1), (None, 9, 4, 1), (None, 9, 9)], ids=str)
def test_primary_capsules_refuse_small_images(shape):
    with pytest.raises(ValueError) as refused:
        PrimaryCapsules(2, 4, kernel_size=5)(keras.Input(shape[1:]))
    one_line(refused, "(batch, height, width, channels)", "at least the kernel's 5", f"Received: input_shape={shape}")


def test_primary_capsules_refuse_images_of_unknown_size():
    with pytest.raises(ValueError) as refused:
        PrimaryCapsules(2, 4, kernel_size=5)(keras.Input((None, None, 1)))
    one_line(refused, "Received: input_shape=(None, None, None, 1)")


# Routed capsules


def test_routed_capsules_are_routing_with_weights():
    layer, capsules = RoutedCapsules(3, 5, iterations=2), noise(4, 6, 2)
    outputs = layer(capsules)
    assert outputs.shape == (4, 3, 5) == layer.compute_output_shape(capsules.shape)
    [kernel] = layer.trainable_weights
    assert kernel.shape == (6, 3, 5, 2)
    expected = dynamic.transform_and_route(capsules, kernel.numpy(), 2)
    np.testing.assert_array_equal(outputs, expected[0])
    couplings = layer.couplings(capsules)
    np.testing.assert_array_equal(couplings, expected[1])
    assert couplings.shape == (4, 6, 3)
    np.testing.assert_allclose(np.sum(couplings, axis=-1), 1.0, atol=1e-6)  # three float32 numbers
    assert RoutedCapsules(3, 5).iterations == 3


def test_initializer_of_the_weights():
    layer = RoutedCapsules(3, 5, initializer="zeros")
    np.testing.assert_array_equal(layer(noise(4, 6, 2)), 0.0)


@pytest.mark.parametrize("shape", [(6,), (None, 2), (6, None), (3, 6, 2)], ids=str)
def test_routed_capsules_refuse_other_inputs(shape):
    with pytest.raises(ValueError) as refused:
        RoutedCapsules(3, 5)(keras.Input(shape))
    one_line(refused, "(batch, in_capsules, in_dim)", f"Received: input_shape={(None, *shape)}")


# Length and mask


def test_length():
    capsules = np.array([[[3.0, 4.0], [0.0, 0.0]]], "float32")
    # sqrt(25 + 1e-7) in float32, and sqrt(1e-7).
    np.testing.assert_allclose(Length()(capsules), [[5.0, 3.1623e-4]], rtol=1e-5)
    assert Length().compute_output_shape((7, 4, 3)) == (7, 4)
    zero = tf.zeros((1, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(zero)
        value = Length()(zero)
    assert np.isfinite(tape.gradient(value, zero)).all()


CAPSULES, SCORES = noise(3, 4, 2), np.array([[1, 5, 2, 3], [4, 0, 0, 4], [-3, -2, -9, -1]], "float32")


@pytest.mark.parametrize(
    ("labels", "chosen"),
    # Without labels the largest score, of two the first; with labels the scores do not count.
    [(None, [1, 0, 3]), ([3, 1, 0], [3, 1, 0]), ([[3], [1], [0]], [3, 1, 0])],
    ids=["largest", "labels", "column"],
)
def test_mask(labels, chosen):
    masked = np.asarray(Mask()(CAPSULES, SCORES, labels if labels is None else np.array(labels)))
    assert masked.shape == (3, 8) == Mask().compute_output_shape(CAPSULES.shape)
    expected = np.zeros_like(CAPSULES)
    for row, capsule in enumerate(chosen):
        expected[row, capsule] = CAPSULES[row, capsule]
    np.testing.assert_array_equal(masked, expected.reshape(3, 8))


def test_gradient_goes_to_the_chosen_capsule_only():
    capsules = tf.constant(CAPSULES)
    with tf.GradientTape() as tape:
        tape.watch(capsules)
        value = tf.reduce_sum(Mask()(capsules, SCORES))
    expected = np.zeros_like(CAPSULES)
    expected[[0, 1, 2], [1, 0, 3]] = 1.0
    np.testing.assert_array_equal(tape.gradient(value, capsules), expected)


# Arguments

LAYERS = [
    PrimaryCapsules(3, 4, kernel_size=5, strides=1, name="one"),
    RoutedCapsules(3, 5, 2, keras.initializers.RandomNormal(stddev=0.1, seed=3), name="two"),
    Length(name="three"),
    Mask(name="four"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_config_round_trip(layer):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert again.name == layer.name
    for name in ("channels", "dimension", "kernel_size", "strides", "capsules", "iterations"):
        assert getattr(again, name, None) == getattr(layer, name, None)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "3", True, None])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(PrimaryCapsules, name) for name in ("channels", "dimension", "kernel_size", "strides")]
    + [(RoutedCapsules, name) for name in ("capsules", "dimension", "iterations")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_bad_arguments(kind, name, wrong):
    good = {"channels": 2, "dimension": 4} if kind is PrimaryCapsules else {"capsules": 2, "dimension": 4}
    with pytest.raises(ValueError) as refused:
        kind(**{**good, name: wrong})
    assert str(refused.value) == f"Argument `{name}` must be a positive integer. Received: {name}={wrong!r}"


# Mixed precision


def test_float32_in_mixed_precision(bfloat16):
    images = tf.constant(noise(2, 9, 9, 3))
    primary, routed = PrimaryCapsules(2, 4, kernel_size=5), RoutedCapsules(3, 5)
    first = primary(images)
    second = routed(first)
    assert primary.convolution.compute_dtype == "bfloat16"
    for outputs in (first, second, Length()(second), Mask()(second, Length()(second))):
        assert outputs.dtype == tf.float32
    assert all(weight.dtype == "float32" for weight in (*primary.weights, *routed.weights))
    # A symbolic call says the same.
    symbolic = primary(keras.Input((9, 9, 3)))
    assert symbolic.dtype == routed(symbolic).dtype == Length()(routed(symbolic)).dtype == "float32"


def test_symbolic_mask_is_float32_in_mixed_precision(bfloat16):
    assert Mask()(keras.Input((4, 2), dtype="float32"), keras.Input((4,), dtype="float32")).dtype == "float32"


def test_routing_in_a_model_is_float32_inside_in_mixed_precision(bfloat16):
    inputs, capsules = keras.Input((6, 2)), noise(4, 6, 2)
    layer = RoutedCapsules(3, 5)
    model = keras.Model(inputs, layer(inputs))
    # Inputs and weights of bfloat16 would be off by some thousandths.
    expected = dynamic.transform_and_route(capsules, layer.kernel.numpy())[0]
    np.testing.assert_allclose(model(capsules), expected, rtol=0, atol=ROUNDING)


def test_routing_alone_is_float32_inside_in_mixed_precision(bfloat16):
    capsules, layer = noise(4, 6, 2), RoutedCapsules(3, 5)
    outputs = layer(capsules)
    expected = dynamic.transform_and_route(capsules, layer.kernel.numpy())[0]
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=ROUNDING)


# In somebody's own model


def own_model():
    """Two layers of routing and a decoder of one dense layer; labels are an input."""
    images, labels = keras.Input((9, 9, 1)), keras.Input((), dtype="int32")
    x = layers.Rescaling(1 / 255)(images)
    x = PrimaryCapsules(2, 4, kernel_size=5, strides=2)(x)
    x = RoutedCapsules(6, 4, iterations=2)(x)
    x = RoutedCapsules(3, 5, name="classes")(x)
    scores = Length(name="scores")(x)
    mask = Mask()
    drawn = layers.Dense(81, name="drawn")
    return keras.Model([images, labels], [scores, drawn(mask(x, scores)), drawn(mask(x, scores, labels))])


def test_own_model_is_trained_saved_and_loaded(tmp_path):
    keras.utils.set_random_seed(0)
    model = own_model()
    assert [output.shape for output in model.outputs] == [(None, 3), (None, 81), (None, 81)]
    inputs = [tf.constant(255 * np.abs(noise(5, 9, 9, 1))), tf.constant([0, 1, 2, 0, 1])]
    with tf.GradientTape() as tape:
        value = sum(tf.reduce_sum(output**2) for output in model(inputs))
    for weight, gradient in zip(
        model.weights, tape.gradient(value, [weight.value for weight in model.weights]), strict=True
    ):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, weight.path
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded(inputs), model(inputs), strict=True):
        np.testing.assert_array_equal(one, other)
    # Keras' own training, compiled by XLA.
    loaded.compile("sgd", ["mse", "mse", "mse"])
    targets = [np.eye(3)[[0, 1, 2, 0, 1]], np.zeros((5, 81)), np.zeros((5, 81))]
    assert np.isfinite(loaded.train_on_batch(inputs, targets)).all()
