"""The quick layers against their Keras parents: outputs, gradients, statistics; and where they fall back."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers import fast
from invariance.layers.fast import FusedBatchNormalization, LargeDense

# Float32 means of some hundred numbers, by two ways.
ROUNDING = 2e-5


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.fixture
def fused(monkeypatch):
    """Counts the calls of the fused kernel."""
    calls, kernel = [], tf.compat.v1.nn.fused_batch_norm
    monkeypatch.setattr(tf.compat.v1.nn, "fused_batch_norm", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    return calls


@pytest.fixture
def products(monkeypatch):
    """Counts the products compiled by XLA, here of all sizes."""
    calls, product = [], fast._product
    monkeypatch.setattr(LargeDense, "_FEWEST_WEIGHTS", 1)
    monkeypatch.setattr(fast, "_product", lambda: calls.append(1) or product())
    return calls


def pair(kind, shape, **arguments):
    """The layer and its parent with the same weights, none of them as they start."""
    both = [which(**arguments) for which in (kind, kind.__mro__[1])]
    for layer in both:
        layer.build(shape)
    values = [np.abs(noise(*weight.shape, seed=number)) + 0.5 for number, weight in enumerate(both[0].weights)]
    for layer in both:
        layer.set_weights(values)
    return both


def step(layer, inputs, training=True, graph=False, **arguments):
    """Output, gradients to inputs and weights, and all weights after the call."""
    inputs = tf.constant(inputs)

    def call(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training, **arguments)
            weight = np.random.default_rng(9).normal(size=outputs.shape)
            value = tf.reduce_sum(tf.cast(outputs, "float32") * tf.constant(weight, "float32"))
        return outputs, *tape.gradient(value, [inputs, *(weight.value for weight in layer.trainable_weights)])

    results = (tf.function(call, autograph=False) if graph else call)(inputs)
    return [np.asarray(tf.cast(part, "float32")) for part in (*results, *layer.weights)]


def assert_same(one, other):
    assert len(one) == len(other)
    for found, expected in zip(one, other, strict=True):
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * scale)


# Batch norm

MAPS = 3 * noise(6, 5, 4, 3) + 2


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_batch_norm_equals_keras(fused, training, graph):
    ours, parent = pair(FusedBatchNormalization, (None, 5, 4, 3), momentum=0.9, epsilon=1e-3)
    before = ours.moving_variance.numpy()
    for number in range(2):
        inputs = MAPS + number
        assert_same(step(ours, inputs, training, graph), step(parent, inputs, training, graph))
    assert len(fused) == 2 * training
    assert (np.abs(ours.moving_variance.numpy() - before).max() > 0.1) == training


def test_batch_norm_by_hand():
    # Four numbers 1, 2, 3, 6 in one channel: mean 3, variance of the batch (4 + 1 + 0 + 9) / 4 = 3.5 (not 14 / 3).
    layer = FusedBatchNormalization(momentum=0.9, epsilon=0.5)
    found = layer(np.array([1.0, 2, 3, 6], "float32").reshape(1, 2, 2, 1), training=True)
    np.testing.assert_allclose(np.ravel(found), [-1.0, -0.5, 0.0, 1.5], rtol=0, atol=1e-6)  # sqrt(3.5 + .5) = 2
    # .9 of 0 and 1, and .1 of these.
    np.testing.assert_allclose(layer.moving_mean, [0.3], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [1.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((6, 3), {}),
        ((6, 5, 3), {}),
        ((6, 5, 4, 3), {"axis": 1}),
        ((6, 5, 4, 3), {"scale": False}),
        ((6, 5, 4, 3), {"center": False}),
        ((6, 5, 4, 3), {"trainable": False}),
    ],
    ids=["rank 2", "rank 3", "other axis", "no scale", "no offset", "frozen"],
)
def test_batch_norm_falls_back(fused, shape, arguments):
    ours, parent = pair(FusedBatchNormalization, (None, *shape[1:]), **arguments)
    inputs = 3 * noise(*shape) + 2
    assert_same(step(ours, inputs), step(parent, inputs))
    assert fused == []


def test_batch_norm_with_a_mask_falls_back(fused):
    ours, parent = pair(FusedBatchNormalization, (None, 5, 4, 3))
    mask = tf.constant(noise(6, 5, 4) > 0)
    assert_same(step(ours, MAPS, mask=mask), step(parent, MAPS, mask=mask))
    assert fused == []


def test_batch_norm_falls_back_in_mixed_precision(fused, bfloat16):
    ours, parent = pair(FusedBatchNormalization, (None, 5, 4, 3))
    assert_same(step(ours, MAPS), step(parent, MAPS))
    assert fused == []


def test_batch_norm_of_one_number_a_channel():
    # Its variance is zero; that of a sample of one is not defined.
    ours, parent = pair(FusedBatchNormalization, (None, 1, 1, 3))
    assert_same(step(ours, MAPS[:1, :1, :1]), step(parent, MAPS[:1, :1, :1]))


@pytest.mark.parametrize("arguments", [{"renorm": True}, {"epsilon": 1e-7}, {"axis": 3}], ids=str)
def test_batch_norm_with_other_arguments_of_keras(arguments):
    ours, parent = pair(FusedBatchNormalization, (None, 5, 4, 3), **arguments)
    # Small numbers, or epsilon would show nothing.
    assert_same(step(ours, 1e-3 * MAPS), step(parent, 1e-3 * MAPS))


# Dense


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("arguments", [{}, {"use_bias": False}, {"activation": "tanh"}], ids=str)
def test_dense_equals_keras(products, training, arguments):
    ours, parent = pair(LargeDense, (None, 7), units=5, **arguments)
    for graph in (False, True):
        assert_same(step(ours, noise(6, 7), training, graph), step(parent, noise(6, 7), training, graph))
    assert len(products) == 2 * training


def test_dense_of_the_size_it_is_for(monkeypatch):
    calls, product = [], fast._product
    monkeypatch.setattr(fast, "_product", lambda: calls.append(1) or product())
    # 1024 x 1024 = 2^20 weights; one unit less and there is nothing to gain.
    for units, expected in ((1023, 0), (1024, 1)):
        ours, parent = pair(LargeDense, (None, 1024), units=units)
        inputs = noise(4, 1024)
        found, wanted = ours(inputs, training=True), parent(inputs)
        # Sums of 1024 products of size one, in another order.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)
        assert len(calls) == expected


def test_dense_falls_back_for_other_ranks(products):
    ours, parent = pair(LargeDense, (None, 3, 7), units=5)
    assert_same(step(ours, noise(6, 3, 7)), step(parent, noise(6, 3, 7)))
    assert products == []


def test_dense_falls_back_in_mixed_precision(products, bfloat16):
    ours, parent = pair(LargeDense, (None, 7), units=5)
    assert_same(step(ours, noise(6, 7)), step(parent, noise(6, 7)))
    assert products == []


def test_dense_falls_back_with_low_rank_weights(products):
    layer = LargeDense(5)
    layer.build((None, 7))
    layer.enable_lora(2)
    layer(noise(6, 7), training=True)
    assert products == []


# In a model


@pytest.mark.parametrize(
    "layer",
    [
        FusedBatchNormalization(momentum=0.7, epsilon=1e-2, name="one"),
        LargeDense(5, "tanh", use_bias=False, kernel_initializer="he_normal", name="two"),
    ],
    ids=lambda layer: layer.name,
)
def test_config_round_trip(layer):
    again = layers.deserialize(layers.serialize(layer))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    assert layers.serialize(layer)["registered_name"] == f"invariance>{type(layer).__name__}"


def network(normalisation, dense):
    """With both layers and a seed."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4, 3))
    x = layers.Flatten()(normalisation(momentum=0.5)(layers.Conv2D(4, 2)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(dense(6, "relu")(x)))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def test_model_trains_as_with_keras_layers_and_is_saved(tmp_path, products, fused):
    ours, parent = network(FusedBatchNormalization, LargeDense), network(layers.BatchNormalization, layers.Dense)
    losses = [[model.train_on_batch(MAPS, noise(6, 2)) for _ in range(4)] for model in (ours, parent)]
    assert products and fused
    # Rounding in each of four steps.
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for one, other in zip(ours.weights, parent.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    ours.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in ours.layers]
    np.testing.assert_array_equal(loaded(MAPS), ours(MAPS))
