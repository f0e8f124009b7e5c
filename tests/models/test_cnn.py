"""What is specific to the CNNs: the corrected form, batch norm's statistics, probabilities in mixed precision."""

from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from invariance.models.cnn import CNN, Convolution
from tests.helpers import noise

SHAPE, CLASSES = (8, 8, 1), 3
NORMALISED = CNN((Convolution(4, 4, 2), Convolution(6, 5, pool=2)), batch_norm=True, dropout=0.5, dense=16)


def images_and_labels(count):
    return noise(count, *SHAPE, spread=(0, 1)), np.arange(count) % CLASSES


def test_corrected_has_the_usual_loss_and_no_activation_before_the_softmax():
    original = CNN((Convolution(4, 4, 2), Convolution(6, 4, 2)), dense=16, activate_last=True)
    corrected = original.corrected()
    assert original.double_softmax
    assert corrected == replace(original, double_softmax=False, activate_last=False)
    assert NORMALISED.corrected() == replace(NORMALISED, double_softmax=False)
    model = corrected(SHAPE, CLASSES)
    assert [layer.name for layer in model.layers[-2:]] == ["scores", "probabilities"]
    assert original(SHAPE, CLASSES).layers[-2].name == "scores_activation"
    assert isinstance(model.loss, keras.losses.SparseCategoricalCrossentropy)
    images, labels = images_and_labels(6)
    expected = -np.log(model(images).numpy()[np.arange(6), labels]).mean()
    np.testing.assert_allclose(model.test_on_batch(images, labels)[0], expected, rtol=1e-5)  # float32


def test_batch_norm_moves_by_a_thousandth():
    model = NORMALISED(SHAPE, CLASSES)
    norm, data = model.get_layer("batch_norm_1"), images_and_labels(32)
    before = keras.Model(model.input, model.get_layer("conv_1_activation").output)(data[0]).numpy()
    model.train_step(tf.nest.map_structure(tf.constant, data))
    # From zero, a step takes over .001 of the batch's mean: float32 numbers of size 1e-4.
    np.testing.assert_allclose(norm.moving_mean.numpy(), 1e-3 * before.mean((0, 1, 2)), rtol=0, atol=1e-8)
    # From one: .999 + .001 v. 1 - .999 is a thousandth, known in float32 to 6e-8.
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.999 + 1e-3 * before.var((0, 1, 2)), rtol=0, atol=2e-7)
    other = replace(NORMALISED, moving_average_decay=0.9)(SHAPE, CLASSES)
    assert {layer.momentum for layer in other.layers if isinstance(layer, layers.BatchNormalization)} == {0.9}


def test_probabilities_are_float32_in_mixed_precision(bfloat16):
    model, (images, _) = NORMALISED(SHAPE, CLASSES), images_and_labels(8)
    assert model.get_layer("scores").output.dtype == "bfloat16"
    # In bfloat16 the error would be 4e-3.
    np.testing.assert_allclose(model(images).numpy().sum(-1), 1.0, atol=1e-6)
