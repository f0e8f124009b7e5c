"""Convolution by Fourier transform: equal to TensorFlow's, and used exactly where it is faster."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.fourier_conv2d import FourierConv2D, fourier_correlation
from tests.helpers import noise

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

# Float32: two transforms and back, of some hundred numbers each. Measured errors are 1e-6 to 2.5e-6 of the standard
# deviation; those of TensorFlow's own float32 convolution reach 1e-5.
ROUNDING = 1e-5


def convolution(images, kernel, stride):
    """TensorFlow's convolution, in float64."""
    return tf.nn.conv2d(tf.cast(images, "float64"), tf.cast(kernel, "float64"), stride, "VALID")


def assert_close(found, expected, rounding=ROUNDING):
    assert found.shape == expected.shape
    expected = np.asarray(expected, "float64")
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding * max(expected.std(), np.abs(expected).max() / 9))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_equal_convolution(size):
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
    # A kernel with a one at (0, 1) picks the pixel to the right, up to the rounding of numbers of size 1.
    images, kernel = noise(1, 4, 5, 1), np.zeros((2, 2, 1, 1), "float32")
    kernel[0, 1] = 1.0
    np.testing.assert_allclose(fourier_correlation(images, kernel), images[:, :3, 1:], rtol=0, atol=ROUNDING)


def test_linear_in_images_and_kernel_without_rounding_at_zero():
    images, kernel = noise(2, 8, 8, 2), noise(3, 3, 2, 2)
    np.testing.assert_array_equal(fourier_correlation(images * 0, kernel), 0.0)
    np.testing.assert_array_equal(fourier_correlation(images, kernel * 0), 0.0)
    # A factor of two only changes exponents.
    np.testing.assert_array_equal(fourier_correlation(2 * images, kernel), 2 * fourier_correlation(images, kernel))


# The layer: its results are compared with those of Keras' in test_parents.

ARGUMENTS = {"filters": 32, "kernel_size": 5, "activation": "relu", "bias_initializer": "random_normal"}


def pair():
    """The layer, Keras' own with the same weights, and images."""
    layer, other, images = FourierConv2D(**ARGUMENTS), layers.Conv2D(**ARGUMENTS), noise(16, 10, 9, 32)
    other.build(images.shape)
    layer.build(images.shape)
    other.set_weights(layer.get_weights())
    return layer, other, tf.constant(images)


def in_frequency_domain(layer, shape):
    """What the layer decides inside a TensorFlow function."""
    decided = []
    tf.function(lambda: decided.append(layer._in_frequency_domain(tf.TensorSpec(shape))), autograph=False)()
    return decided[0]


# What the frequency domain needs, and the same just beyond each limit.
FASTER = [
    ({}, (16, 10, 9, 32)),
    ({}, (16, 16, 16, 32)),
    ({"strides": 2}, (16, 32, 32, 32)),
    ({"strides": 3}, (16, 48, 11, 32)),
    ({"kernel_size": (5, 7)}, (16, 10, 9, 32)),
    ({"filters": 33}, (17, 10, 9, 33)),
    ({}, (None, 10, 9, 32)),
]
SLOWER = [
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
    ("arguments", "shape", "faster"), [(*case, True) for case in FASTER] + [(*case, False) for case in SLOWER]
)
def test_uses_the_frequency_domain_where_it_is_faster(arguments, shape, faster):
    layer = FourierConv2D(**{**ARGUMENTS, **arguments})
    assert in_frequency_domain(layer, shape) is faster
    # Outside of functions each new shape would have to be compiled.
    assert not layer._in_frequency_domain(tf.TensorSpec(shape))


def test_falls_back_on_a_gpu(monkeypatch):
    layer, _, images = pair()
    assert in_frequency_domain(layer, images.shape)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert not in_frequency_domain(layer, images.shape)


def test_number_of_images_may_be_unknown():
    layer, other, images = pair()
    call = tf.function(layer, input_signature=[tf.TensorSpec((None, 10, 9, 32))])
    for number in (16, 3):  # traced once, so three images are treated the same
        # The activation halves the deviation that rounding is compared with; TensorFlow's own rounding adds to it.
        assert_close(call(images[:number]), other(images[:number]).numpy(), 4 * ROUNDING)


def test_size_of_the_images_may_be_unknown():
    layer, other, images = pair()
    call = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 32))])
    np.testing.assert_array_equal(call(images), tf.function(other)(images))
