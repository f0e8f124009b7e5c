"""The original's convolutional classifiers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from experiments.recognition_rotation import MODELS
from invariance.losses import DoubleSoftmaxCrossentropy
from invariance.models.cnn import CNN, Convolution
from invariance.optimizers import Adam

SMALL = (8, 8, 1)

# What follows the flattening. The plain networks have a leaky ReLU between the last layer and the softmax.
PLAIN = "flatten dense leaky dense leaky softmax"
DROPOUT = "flatten dense leaky dropout dense softmax"

# Filters, kernels and strides of the convolutions, what follows each, and what follows them all: from the original.
EXPECTED = {
    "cnn_00": ([(64, 4, 2), (128, 4, 2)], ["leaky"] * 2, PLAIN),
    "cnn_01": ([(64, 4, 2), (128, 4, 2), (256, 4, 2)], ["leaky"] * 3, PLAIN),
    "cnn_02": ([(32, 4, 2), (64, 4, 2), (128, 4, 2), (256, 4, 2)], ["leaky"] * 4, PLAIN),
    "cnn_dropout_00": ([(32, 4, 2), (64, 4, 2), (128, 4, 2)], ["leaky"] * 3, DROPOUT),
    "cnn_dropout_01": ([(64, 4, 2), (128, 4, 2), (256, 4, 2)], ["leaky"] * 3, DROPOUT),
    "cnn_bn_00": ([(64, 4, 2), (128, 4, 2)], ["leaky norm"] * 2, DROPOUT),
    "cnn_bn_01": ([(32, 4, 2), (64, 4, 2), (128, 4, 2)], ["leaky norm"] * 3, DROPOUT),
    "cnn_bn_02": ([(64, 4, 2), (128, 4, 2), (256, 4, 2)], ["leaky norm"] * 3, DROPOUT),
    "cnn_pool_00": ([(64, 5, 1), (128, 5, 1)], ["leaky norm pool"] * 2, DROPOUT),
    "cnn_pool_01": (
        [(32, 5, 1), (64, 5, 1), (128, 3, 1)],
        ["leaky norm pool", "leaky norm pool", "leaky norm"],
        DROPOUT,
    ),
    "cnn_pool_02": (
        [(64, 5, 1), (128, 5, 1), (256, 4, 2)],
        ["leaky norm pool", "leaky norm pool", "leaky norm"],
        DROPOUT,
    ),
}

KINDS = {
    layers.Conv2D: "conv",
    layers.LeakyReLU: "leaky",
    layers.BatchNormalization: "norm",
    layers.MaxPooling2D: "pool",
    layers.Flatten: "flatten",
    layers.Dense: "dense",
    layers.Dropout: "dropout",
    layers.Softmax: "softmax",
}


def sequence(model):
    # A layer of ours that is one of Keras' with a quicker way counts as Keras'.
    return [next(name for kind, name in KINDS.items() if isinstance(layer, kind)) for layer in model.layers[1:]]


def of_kind(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_all_eleven_networks_are_there():
    assert {name for name, entry in MODELS.items() if isinstance(entry.model, CNN)} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_layers(name):
    convolutions, behind, rest = EXPECTED[name]
    # 8 x 8 pixels: at 28 x 28 the pooled networks have 100 million weights.
    model = MODELS[name].model(SMALL, 8)
    expected = [part for text in behind for part in ["conv", *text.split()]] + rest.split()
    assert sequence(model) == expected
    found = of_kind(model, layers.Conv2D)
    assert [(layer.filters, layer.kernel_size[0], layer.strides[0]) for layer in found] == convolutions
    for layer in found:
        assert layer.kernel_size[0] == layer.kernel_size[1]
        assert layer.strides[0] == layer.strides[1]
        assert layer.padding == "same"
        assert layer.use_bias
        assert layer.activation is keras.activations.linear
    for layer in of_kind(model, layers.LeakyReLU):
        assert layer.negative_slope == pytest.approx(0.1, abs=1e-7)  # a float32 of it
    for layer in of_kind(model, layers.BatchNormalization):
        assert (layer.momentum, layer.epsilon) == (0.999, 1e-3)
    for layer in of_kind(model, layers.MaxPooling2D):
        assert (layer.pool_size, layer.strides, layer.padding) == ((2, 2), (1, 1), "same")
    for layer in of_kind(model, layers.Dropout):
        assert layer.rate == 0.5
    assert [layer.units for layer in of_kind(model, layers.Dense)] == [1024, 8]
    assert model.input_shape == (None, 8, 8, 1)
    assert model.output_shape == (None, 8)


# Kernel x kernel x inputs x filters + filters for a convolution; inputs x units + units for a dense layer; scale,
# offset, mean and variance for batch norm. Sides: 28 -> 14 -> 7 -> 4 -> 2.
PARAMETERS = {
    "cnn_00": (4 * 4 * 1 * 64 + 64) + (4 * 4 * 64 * 128 + 128) + (7 * 7 * 128 * 1024 + 1024) + (1024 * 8 + 8),
    "cnn_02": (
        (4 * 4 * 1 * 32 + 32)
        + (4 * 4 * 32 * 64 + 64)
        + (4 * 4 * 64 * 128 + 128)
        + (4 * 4 * 128 * 256 + 256)
        + (2 * 2 * 256 * 1024 + 1024)
        + (1024 * 8 + 8)
    ),
    "cnn_bn_01": (
        (4 * 4 * 1 * 32 + 32 + 4 * 32)
        + (4 * 4 * 32 * 64 + 64 + 4 * 64)
        + (4 * 4 * 64 * 128 + 128 + 4 * 128)
        + (4 * 4 * 128 * 1024 + 1024)
        + (1024 * 8 + 8)
    ),
    "cnn_dropout_01": (
        (4 * 4 * 1 * 64 + 64)
        + (4 * 4 * 64 * 128 + 128)
        + (4 * 4 * 128 * 256 + 256)
        + (4 * 4 * 256 * 1024 + 1024)
        + (1024 * 8 + 8)
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_weights(name):
    assert MODELS[name].model((28, 28, 1), 8).count_params() == PARAMETERS[name]


def test_number_of_weights_of_a_pooled_network():
    # At 8 x 8 pixels: convolutions and pools of stride 1 keep the size, the last convolution halves it.
    expected = (
        (5 * 5 * 1 * 64 + 64 + 4 * 64)
        + (5 * 5 * 64 * 128 + 128 + 4 * 128)
        + (4 * 4 * 128 * 256 + 256 + 4 * 256)
        + (4 * 4 * 256 * 1024 + 1024)
        + (1024 * 8 + 8)
    )
    assert MODELS["cnn_pool_02"].model(SMALL, 8).count_params() == expected


def test_compiled_as_the_original():
    model = MODELS["cnn_00"].model(SMALL, 8, 3e-4)
    assert type(model.loss) is DoubleSoftmaxCrossentropy
    assert type(model.optimizer) is Adam
    found = model.optimizer.get_config()
    assert (found["beta_1"], found["beta_2"], found["epsilon"]) == (0.95, 0.999, 1e-8)
    assert not found["amsgrad"] and not found["weight_decay"] and not found["use_ema"]
    assert found["clipnorm"] is found["clipvalue"] is found["global_clipnorm"] is None
    assert found["learning_rate"] == pytest.approx(3e-4, rel=1e-6)  # float32
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.5, staircase=True)
    assert MODELS["cnn_00"].model(SMALL, 8, schedule).optimizer._learning_rate is schedule


def test_output_is_probabilities():
    model = CNN((Convolution(4, 3, 2),), dense=8)(SMALL, 5)
    p = model(np.random.default_rng(0).random((6, *SMALL), "float32")).numpy()
    assert p.shape == (6, 5)
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-6)  # five float32 numbers


def test_corrected_has_the_usual_loss_and_no_activation_before_the_softmax():
    original = MODELS["cnn_00"].model
    corrected = original.corrected()
    assert corrected == CNN(original.convolutions, double_softmax=False)
    model = corrected(SMALL, 8)
    assert isinstance(model.loss, keras.losses.SparseCategoricalCrossentropy)
    assert sequence(model) == ["conv", "leaky"] * 2 + ["flatten", "dense", "leaky", "dense", "softmax"]
    # Nothing else changes, and the original is as it was.
    assert corrected.convolutions == original.convolutions
    assert original.double_softmax and original.activate_last
    assert MODELS["cnn_bn_00"].model.corrected().batch_norm
    assert MODELS["cnn_bn_00"].model.corrected().dropout == 0.5
    images, labels = np.random.default_rng(0).random((6, *SMALL), "float32"), np.arange(6)
    expected = -np.log(model(images).numpy()[np.arange(6), labels]).mean()
    np.testing.assert_allclose(model.evaluate(images, labels, verbose=0)[0], expected, rtol=1e-5)  # float32


def test_floating_point_operations():
    # Two for each product of a weight with an input. cnn_00: sides 14 and 7, then the dense layers.
    first = 2 * 14 * 14 * (4 * 4 * 1) * 64
    second = 2 * 7 * 7 * (4 * 4 * 64) * 128
    dense = 2 * 7 * 7 * 128 * 1024
    scores = 2 * 1024 * 8
    model = MODELS["cnn_00"].model
    assert model.flops((28, 28, 1), 8) == first + second + dense + scores
    # The first layer needs no gradient to its input.
    assert model.training_flops((28, 28, 1), 8) == 2 * first + 3 * (second + dense + scores)
    # Odd sides are rounded up: 28, 14, 7, 4, 2; and pooling of stride 1 changes none.
    assert CNN((Convolution(8, 3, 2),)).flops((7, 5, 3), 2) == 2 * (4 * 3 * 9 * 3 * 8 + 4 * 3 * 8 * 1024 + 1024 * 2)
    assert CNN((Convolution(8, 3, 1, pool=2),)).flops((7, 5, 3), 2) == 2 * (35 * 9 * 3 * 8 + 35 * 8 * 1024 + 1024 * 2)


def test_sides_in_the_operations_are_those_of_the_layers():
    for name in ("cnn_02", "cnn_bn_02", "cnn_pool_02"):
        model = MODELS[name].model
        built = model((9, 11, 2), 3)
        weighty = [layer for layer in built.layers if isinstance(layer, (layers.Conv2D, layers.Dense))]
        expected = sum(2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1]) for layer in weighty)
        assert model.flops((9, 11, 2), 3) == expected


NORMALISED = CNN((Convolution(4, 4, 2), Convolution(6, 5, 1, pool=2)), batch_norm=True, dropout=0.5, dense=16)
ORIGINAL = CNN((Convolution(4, 4, 2), Convolution(6, 4, 2)), dense=16, activate_last=True)


def picture(batch, seed=0):
    """Random images and labels of three classes."""
    rng = np.random.default_rng(seed)
    return rng.random((batch, *SMALL), "float32"), rng.integers(0, 3, batch).astype("int32")


@pytest.mark.parametrize(
    "description", [ORIGINAL, NORMALISED, ORIGINAL.corrected()], ids=["plain", "norm", "corrected"]
)
def test_gradients_reach_every_weight(description):
    keras.utils.set_random_seed(0)
    model = description(SMALL, 3)
    images, labels = picture(16)
    with tf.GradientTape() as tape:
        loss = model.loss(labels, model(images, training=True))
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, [v.value for v in model.trainable_variables]), strict=True
    ):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


TWO = (Convolution(16, 4, 2), Convolution(32, 4, 2))


@pytest.mark.parametrize(
    ("description", "share", "least"),
    [
        # Images that are taken for a wrong class with certainty give the double softmax hardly any gradient: some of 32
        # may stay wrong. Its least value for ten classes is log(1 + 9 / e) = 1.461; at chance it is log 10 = 2.303.
        pytest.param(CNN(TWO, dense=64, activate_last=True), 0.7, 1.8, id="plain"),
        pytest.param(CNN(TWO, dense=64).corrected(), 1.0, 0.05, id="corrected"),
        # Dropout of half the units may miss a few.
        pytest.param(CNN(TWO, dense=64, batch_norm=True, dropout=0.5), 0.9, None, id="norm"),
    ],
)
def test_overfits_32_images(description, share, least):
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images, labels = (images[:32] / 16).reshape(-1, *SMALL).astype("float32"), labels[:32]
    model = description(SMALL, 10, 3e-3)
    for _ in range(150):
        model.train_on_batch(images, labels)
    # In training mode: batch norm's moving averages, of decay .999, are not there after 150 steps.
    assert np.mean(model(images, training=True).numpy().argmax(-1) == labels) >= share
    if least is not None:
        assert model.evaluate(images, labels, verbose=0)[0] < least


def test_batch_norm_moves_by_a_thousandth():
    model = NORMALISED(SMALL, 3)
    norm = model.get_layer("batch_norm_1")
    images, labels = picture(32)
    before = keras.Model(model.input, model.get_layer("conv_1_activation").output)(images).numpy()
    model.train_on_batch(images, labels)
    # From mean zero, a step takes over .001 of the batch's mean: float32 numbers of size 1e-4.
    np.testing.assert_allclose(norm.moving_mean.numpy(), 1e-3 * before.mean((0, 1, 2)), rtol=0, atol=1e-8)
    # From variance one: .999 + .001 v. 1 - .999 is a thousandth, known in float32 to 6e-8.
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.999 + 1e-3 * before.var((0, 1, 2)), rtol=0, atol=2e-7)


def test_moving_average_decay_can_be_chosen():
    model = CNN((Convolution(4, 4, 2),), batch_norm=True, dense=8, moving_average_decay=0.9)(SMALL, 3)
    assert [layer.momentum for layer in of_kind(model, layers.BatchNormalization)] == [0.9]


def test_probabilities_are_float32_in_mixed_precision(bfloat16):
    model = NORMALISED(SMALL, 3)
    images, labels = picture(8)
    scores = keras.Model(model.input, model.get_layer("scores").output)(images)
    assert scores.dtype == tf.bfloat16
    p = model(images)
    assert p.dtype == tf.float32
    np.testing.assert_allclose(p.numpy().sum(-1), 1.0, atol=1e-6)  # in bfloat16 it would be 4e-3
    assert all(weight.dtype == "float32" for weight in model.weights)
    assert np.isfinite(model.train_on_batch(images, labels)).all()
