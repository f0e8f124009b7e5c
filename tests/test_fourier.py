"""Convolution by Fourier transform: what TensorFlow's convolution computes, and taken where it should be."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers import fourier
from invariance.layers.fourier import FourierConv2D, fourier_correlation

# Height, width, kernel height, kernel width, stride: oblong, odd, not divisible by the stride, a kernel smaller than
# the stride, a kernel as large as the image.
SIZES = [
    (12, 12, 5, 5, 1),
    (11, 8, 3, 4, 1),
    (20, 20, 9, 9, 2),
    (15, 21, 9, 4, 2),
    (13, 10, 4, 5, 3),
    (9, 9, 2, 2, 3),
    (7, 7, 7, 7, 1),
    (7, 8, 7, 7, 2),
]

# Float32: two transforms and back of some hundred numbers each. Of the docstring's 2e-6 of the largest result, measured
# from 1e-6 to 2.5e-6 of the standard deviation; TensorFlow's own float32 convolution has up to 1e-5.
ROUNDING = 1e-5
# Both of these together, behind an activation that takes half of the deviation away.
BOTH = 4e-5


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def convolution(images, kernel, stride):
    """TensorFlow's, in float64."""
    return tf.nn.conv2d(tf.cast(images, "float64"), tf.cast(kernel, "float64"), stride, "VALID")


def assert_close(found, expected, rounding=ROUNDING):
    assert found.shape == expected.shape
    expected = np.asarray(expected, "float64")
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding * max(expected.std(), np.abs(expected).max() / 9))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_convolution_and_so_do_its_gradients(size):
    height, width, *kernel, stride = size
    inputs = [tf.constant(noise(3, height, width, 4)), tf.constant(noise(*kernel, 4, 5, seed=1))]
    weight, results = None, []
    for function in (fourier_correlation, convolution):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs, stride)
            weight = noise(*outputs.shape, seed=2) if weight is None else weight
            value = tf.reduce_sum(outputs * tf.cast(weight, outputs.dtype))
        results.append([outputs, *tape.gradient(value, inputs)])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_equals_convolution_at_all_small_sizes(stride):
    for height in range(4, 9):
        for kernel in range(1, 5):
            images, weights = noise(1, height, 6, 1), noise(kernel, 3, 1, 2, seed=1)
            assert_close(fourier_correlation(images, weights, stride), convolution(images, weights, stride))


def test_is_correlation_not_convolution():
    # A kernel with a one at (0, 1) takes the pixel to the right: exact but for rounding of numbers of size 1.
    images, kernel = noise(1, 4, 5, 1), np.zeros((2, 2, 1, 1), "float32")
    kernel[0, 1] = 1.0
    np.testing.assert_allclose(fourier_correlation(images, kernel), images[:, :3, 1:], rtol=0, atol=ROUNDING)


def test_linear_in_images_and_kernel_without_rounding_at_zero():
    images, kernel = noise(2, 8, 8, 2), noise(3, 3, 2, 2)
    np.testing.assert_array_equal(fourier_correlation(images * 0, kernel), 0.0)
    np.testing.assert_array_equal(fourier_correlation(images, kernel * 0), 0.0)
    # A factor of two changes the exponents only.
    np.testing.assert_array_equal(fourier_correlation(2 * images, kernel), 2 * fourier_correlation(images, kernel))


# The layer

ARGUMENTS = {"filters": 32, "kernel_size": 5, "activation": "relu", "bias_initializer": "random_normal"}


def pair(shape=(16, 10, 9, 32), **arguments):
    """The layer, Keras' own with the same weights, and images."""
    arguments = {**ARGUMENTS, **arguments}
    layer, other = FourierConv2D(**arguments), layers.Conv2D(**arguments)
    layer.build(shape)
    other.build(shape)
    other.set_weights(layer.get_weights())
    return layer, other, tf.constant(noise(*shape))


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the images that went the way over frequencies."""
    shapes = []

    def spy():
        def function(images, kernel, stride):
            shapes.append(tuple(images.shape))
            return fourier_correlation(images, kernel, stride)

        return function

    monkeypatch.setattr(fourier, "_compiled", spy)
    return shapes


def compiled(layer, mode="graph"):
    return layer if mode == "eager" else tf.function(layer, jit_compile=mode == "xla")


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_layer_equals_keras_layer(mode):
    layer, other, images = pair(strides=2)
    assert_close(compiled(layer, mode)(images), other(images).numpy(), BOTH)
    assert np.asarray(other(images)).min() == 0.0  # the activation is there to be seen


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradients_of_the_layer_equal_those_of_keras_layer(mode):
    layer, other, images = pair(strides=2, activation="tanh")

    def gradients(layer, images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(value, [images, *(weight.value for weight in layer.trainable_variables)])

    own = gradients if mode == "eager" else tf.function(gradients, jit_compile=mode == "xla")
    for found, expected in zip(own(layer, images), gradients(other, images), strict=True):
        assert_close(found, expected.numpy(), BOTH)


@pytest.mark.parametrize("arguments", [{}, {"use_bias": False}, {"activation": None}], ids=str)
def test_bias_and_activation(calls, arguments):
    layer, other, images = pair(**arguments)
    assert_close(compiled(layer)(images), other(images).numpy(), BOTH)
    assert calls == [(16, 10, 9, 32)]


def by_frequency(layer, shape):
    """What the layer decides inside a TensorFlow function."""
    decided = []
    tf.function(lambda: decided.append(layer._by_frequency(tf.TensorSpec(shape))), autograph=False)()
    return decided[0]


# What is needed for the way over frequencies, and the same a little beyond each limit.
TAKEN = [
    ({}, (16, 10, 9, 32)),
    ({}, (16, 16, 16, 32)),
    ({"strides": 2}, (16, 32, 32, 32)),
    ({"strides": 3}, (16, 48, 11, 32)),
    ({"kernel_size": (5, 7)}, (16, 10, 9, 32)),
    ({"filters": 33}, (17, 10, 9, 33)),
    ({}, (None, 10, 9, 32)),
]
FALLEN_BACK = [
    ({"padding": "same"}, (16, 10, 9, 32)),
    ({"kernel_size": 4}, (16, 10, 9, 32)),
    ({"kernel_size": (4, 9)}, (16, 10, 9, 32)),
    ({}, (15, 10, 9, 32)),
    ({}, (16, 17, 9, 32)),
    ({}, (16, 9, 17, 32)),
    ({"strides": 2}, (16, 33, 9, 32)),
    ({}, (16, 10, 9, 31)),
    ({"filters": 31}, (16, 10, 9, 32)),
    ({"strides": (1, 2)}, (16, 10, 9, 32)),
    ({"dilation_rate": 2}, (16, 10, 9, 32)),
    ({"groups": 2}, (16, 10, 9, 32)),
    ({"data_format": "channels_first"}, (16, 32, 9, 10)),
    ({"dtype": "mixed_bfloat16"}, (16, 10, 9, 32)),
    ({"dtype": "float64"}, (16, 10, 9, 32)),
]


@pytest.mark.parametrize(
    ("arguments", "shape", "taken"), [(*case, True) for case in TAKEN] + [(*case, False) for case in FALLEN_BACK]
)
def test_which_way_is_taken(arguments, shape, taken):
    layer = FourierConv2D(**{**ARGUMENTS, **arguments})
    assert by_frequency(layer, shape) is taken
    # Outside of functions each new shape would have to be compiled.
    assert not layer._by_frequency(tf.TensorSpec(shape))


def test_on_a_gpu_it_is_keras_layer(monkeypatch):
    layer, _, images = pair()
    assert by_frequency(layer, images.shape)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not by_frequency(layer, images.shape)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [({"padding": "same"}, (16, 7, 6, 32)), ({"kernel_size": 3}, (16, 5, 6, 32)), ({}, (2, 7, 6, 32))],
    ids=["same", "small kernel", "few images"],
)
def test_elsewhere_it_is_keras_layer_to_the_bit(calls, arguments, shape):
    layer, other, images = pair(shape, **arguments)
    np.testing.assert_array_equal(compiled(layer)(images), compiled(other)(images))
    assert not calls


def test_outside_of_functions_it_is_keras_layer_to_the_bit(calls):
    layer, other, images = pair()
    np.testing.assert_array_equal(layer(images), other(images))
    assert not calls


def test_in_bfloat16_it_is_keras_layer_to_the_bit(bfloat16, calls):
    layer, other, images = pair((16, 7, 6, 32))
    outputs = compiled(layer)(images)
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_array_equal(outputs, compiled(other)(images))
    assert not calls


def test_number_of_images_may_be_unknown(calls):
    layer, other, images = pair()
    call = tf.function(layer, input_signature=[tf.TensorSpec((None, 10, 9, 32))])
    for number in (16, 3):  # traced once, so three images go the same way
        assert_close(call(images[:number]), other(images[:number]).numpy(), BOTH)
    assert calls == [(None, 10, 9, 32)]


def test_size_of_the_images_may_be_unknown():
    layer, other, images = pair()
    call = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 32))])
    np.testing.assert_array_equal(call(images), compiled(other)(images))


def test_saved_and_loaded(tmp_path, calls):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 9, 32))
    model = keras.Model(inputs, FourierConv2D(**ARGUMENTS, name="mine")(inputs))
    images = noise(16, 10, 9, 32)
    expected = compiled(model)(images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    layer = loaded.get_layer("mine")
    assert type(layer) is FourierConv2D
    assert layer.get_config() == model.get_layer("mine").get_config()
    np.testing.assert_array_equal(compiled(loaded)(images), expected)
    assert len(calls) == 2


def test_arguments_shapes_and_weights_are_those_of_keras_layer():
    layer, other, images = pair(strides=2)
    ours, keras_own = layer.get_config(), other.get_config()
    assert {**ours, "name": ""} == {**keras_own, "name": ""}
    assert layer.compute_output_shape(images.shape) == other.compute_output_shape(images.shape) == layer(images).shape
    assert [weight.name for weight in layer.weights] == [weight.name for weight in other.weights]
