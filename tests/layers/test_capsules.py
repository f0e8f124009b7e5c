"""The layers of capsule networks with dynamic routing: what each computes. (Everything else: test_contracts.)"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from invariance.layers.capsules import Length, Mask, PrimaryCapsules, RoutedCapsules
from invariance.losses import MarginLoss
from invariance.routing import dynamic
from tests.helpers import noise

# Float32 sums of ten to some hundred numbers.
ROUNDING = 5e-6


def test_primary_capsules_are_squashed_filters():
    layer, images = PrimaryCapsules(3, 4, kernel_size=5, strides=2), noise(2, 11, 9, 2)
    capsules = layer(images)
    # (11 - 5) // 2 + 1 = 4 rows, 3 columns, 3 channels.
    assert capsules.shape == (2, 4 * 3 * 3, 4)
    kernel, bias = (weight.numpy() for weight in layer.weights)
    filters = tf.nn.conv2d(images, kernel, 2, "VALID").numpy() + bias
    # Capsule 9 r + 3 c + k at row r and column c consists of filters 4 k to 4 k + 3.
    for number in range(36):
        r, c, k = number // 9, number // 3 % 3, number % 3
        expected = dynamic.squash(filters[:, r, c, 4 * k : 4 * k + 4])
        np.testing.assert_allclose(capsules[:, number], expected, rtol=0, atol=ROUNDING)


def test_primary_capsules_have_the_published_defaults():
    layer = PrimaryCapsules(32, 8)
    # 6 x 6 positions of 32 capsules, with a 9 x 9 kernel and stride 2.
    assert layer.compute_output_shape((None, 20, 20, 256)) == (None, 1152, 8)
    assert layer.convolution.activation is keras.activations.linear


def test_routed_capsules_are_routing_with_weights():
    layer, capsules = RoutedCapsules(3, 5, iterations=2), noise(4, 6, 2)
    outputs = layer(capsules)
    [kernel] = layer.trainable_weights
    assert kernel.shape == (6, 3, 5, 2)
    expected = dynamic.transform_and_route(capsules, kernel.numpy(), 2)
    np.testing.assert_array_equal(outputs, expected[0])
    couplings = layer.couplings(capsules)
    np.testing.assert_array_equal(couplings, expected[1])
    assert couplings.shape == (4, 6, 3)
    np.testing.assert_allclose(np.sum(couplings, axis=-1), 1.0, atol=1e-6)  # three float32 numbers
    assert RoutedCapsules(3, 5).iterations == 3
    np.testing.assert_array_equal(RoutedCapsules(3, 5, initializer="zeros")(capsules), 0.0)


def test_routing_is_float32_inside_in_mixed_precision(bfloat16):
    # Eagerly and in a model. Inputs or weights in bfloat16 would be off by some thousandths.
    capsules, layer, inputs = noise(4, 6, 2), RoutedCapsules(3, 5), keras.Input((6, 2))
    model = keras.Model(inputs, layer(inputs))
    expected = dynamic.transform_and_route(capsules, layer.kernel.numpy())[0]
    for outputs in (layer(capsules), model(capsules)):
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=ROUNDING)
    # Only the convolution of the primary capsules is in bfloat16.
    assert PrimaryCapsules(2, 4).convolution.compute_dtype == "bfloat16"


def test_length():
    capsules = np.array([[[3.0, 4.0], [0.0, 0.0]]], "float32")
    # sqrt(25 + 1e-7) in float32, and sqrt(1e-7).
    np.testing.assert_allclose(Length()(capsules), [[5.0, 3.1623e-4]], rtol=1e-5)


CAPSULES, SCORES = noise(3, 4, 2), np.array([[1, 5, 2, 3], [4, 0, 0, 4], [-3, -2, -9, -1]], "float32")


@pytest.mark.parametrize(
    ("labels", "kept"),
    # Without labels the largest score, of equal ones the first; with labels the scores do not matter.
    [
        (None, [1, 0, 3]),
        ([3, 1, 0], [3, 1, 0]),
        ([[3], [1], [0]], [3, 1, 0]),
        (np.eye(4)[[3, 1, 0]], [3, 1, 0]),
    ],
    ids=["largest", "labels", "column", "one-hot"],
)
def test_mask(labels, kept):
    masked = np.asarray(Mask()(CAPSULES, SCORES, labels if labels is None else np.array(labels)))
    expected = np.zeros_like(CAPSULES)
    expected[[0, 1, 2], kept] = CAPSULES[[0, 1, 2], kept]
    np.testing.assert_array_equal(masked, expected.reshape(3, 8))


def test_mask_keeps_several_capsules_and_refuses_labels_of_none():
    labels = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(Mask()(CAPSULES, SCORES, labels), (CAPSULES * labels[..., None]).reshape(3, 8))
    # A batch of one: these were four images.
    assert Mask()(CAPSULES[:1], SCORES[:1], labels[:1]).shape == (1, 8)
    with pytest.raises(ValueError, match=r"class numbers from 0 to 3\. Received: 4"):
        Mask()(CAPSULES, SCORES, np.array([0, 4, 1]))


def test_mask_passes_gradients_to_the_kept_capsule_only():
    capsules = tf.constant(CAPSULES)
    with tf.GradientTape() as tape:
        tape.watch(capsules)
        value = tf.reduce_sum(Mask()(capsules, SCORES))
    expected = np.zeros_like(CAPSULES)
    expected[[0, 1, 2], [1, 0, 3]] = 1.0
    np.testing.assert_array_equal(tape.gradient(value, capsules), expected)


def stacked(initializer):
    """Two layers of routing on 8 x 8 digits."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, activation="relu")(images)
    x = PrimaryCapsules(4, 4, kernel_size=3)(x)
    x = RoutedCapsules(8, 8, initializer=initializer)(x)
    model = keras.Model(images, Length()(RoutedCapsules(10, 8, initializer=initializer)(x)))
    model.compile(keras.optimizers.Adam(1e-2), MarginLoss(), metrics=["accuracy"])
    return model


def test_stacked_layers_learn_with_the_initialiser_of_the_docstring():
    images, labels = load_digits(return_X_y=True)
    images = images[:1600].reshape(-1, 8, 8, 1) / 16

    def mean_length(model):
        second = keras.Model(model.inputs[0], model.layers[-2].output)(images[:100])
        return np.linalg.norm(second, axis=-1).mean()

    # 3e-10 and 1e-5: a difference that is learnt from, and none.
    assert mean_length(stacked("glorot_uniform")) < 1e-8
    model = stacked(keras.initializers.RandomUniform(-1, 1, seed=0))
    assert mean_length(model) > 1e-6
    # 75 steps. Other seeds: 93 to 96 per cent after 75 steps; the default stays at 10 after 150.
    model.fit(images, labels[:1600], batch_size=64, epochs=3, verbose=0)
    assert model.evaluate(images, labels[:1600], verbose=0)[1] > 0.85
