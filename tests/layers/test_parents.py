"""Layers derived from Keras': the same results, computed in the faster way exactly where it is meant."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers import fourier_conv2d, large_dense
from invariance.layers.fourier_conv2d import FourierConv2D
from invariance.layers.fused_batch_normalization import FusedBatchNormalization
from invariance.layers.large_dense import LargeDense
from tests.helpers import noise

# Float32 means and sums of some hundred numbers, computed in two ways.
ROUNDING = 2e-5

# What each calls for its faster way.
FASTER = {
    FusedBatchNormalization: (tf.compat.v1.nn, "fused_batch_norm"),
    LargeDense: (large_dense, "_product"),
    FourierConv2D: (fourier_conv2d, "_compiled"),
}
MAPS, IMAGES = (6, 5, 4, 3), (16, 10, 9, 32)
CONVOLUTION = {"filters": 32, "kernel_size": 5}


@pytest.fixture
def faster(monkeypatch):
    """A function of a layer's class that returns a list, which grows with each use of its faster way."""

    def watch(kind):
        (owner, name), calls = FASTER[kind], []
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(1) or original(*a, **k))
        # Here for few weights, too.
        monkeypatch.setattr(LargeDense, "_FEWEST_WEIGHTS", 1)
        return calls

    return watch


def pair(kind, shape, **arguments):
    """The layer and its parent with the same weights, none of which has its initial value."""
    both = [which(**arguments) for which in (kind, kind.__mro__[1])]
    for layer in both:
        layer.build((None, *shape[1:]))
    values = [noise(*weight.shape, seed=number, spread=(0.5, 1.5)) for number, weight in enumerate(both[0].weights)]
    if kind is FourierConv2D:
        # Sums of 800 products stay small enough for the activation.
        values = [(value - 1) / 5 for value in values]
    for layer in both:
        layer.set_weights(values)
    return both


def step(layer, inputs, mode="eager", training=True, **arguments):
    """Output, gradients of inputs and weights, and all weights after the call."""
    if not isinstance(layer, layers.Conv2D):
        arguments["training"] = training

    def call(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **arguments)
            value = tf.reduce_sum(tf.cast(outputs, "float32") * noise(*outputs.shape, seed=9))
        return outputs, *tape.gradient(value, [inputs, *(weight.value for weight in layer.trainable_weights)])

    function = call if mode == "eager" else tf.function(call, jit_compile=mode == "xla", autograph=False)
    return [np.asarray(tf.cast(part, "float32")) for part in (*function(tf.constant(inputs)), *layer.weights)]


def assert_same(one, other, rounding=ROUNDING):
    for found, expected in zip(one, other, strict=True):
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding * scale)


@pytest.mark.parametrize(
    ("kind", "shape", "arguments"),
    [
        (FusedBatchNormalization, MAPS, {"momentum": 0.9}),
        (FusedBatchNormalization, MAPS, {"epsilon": 1e-7, "axis": 3}),
        (LargeDense, (6, 7), {"units": 5}),
        (LargeDense, (6, 7), {"units": 5, "use_bias": False}),
        (LargeDense, (6, 7), {"units": 5, "activation": "tanh"}),
        (FourierConv2D, IMAGES, CONVOLUTION),
        (FourierConv2D, IMAGES, {**CONVOLUTION, "use_bias": False}),
        (FourierConv2D, IMAGES, {**CONVOLUTION, "strides": 2, "activation": "tanh"}),
    ],
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_equals_keras_layer(faster, kind, shape, arguments, training, mode):
    calls = faster(kind)
    ours, parent = pair(kind, shape, **arguments)
    # With small numbers an epsilon shows.
    for scale in (1.0, 1e-3):
        inputs = scale * (3 * noise(*shape) + 2)
        assert_same(step(ours, inputs, mode, training), step(parent, inputs, "eager", training))
    # The convolution is faster in graphs, the others are in training.
    assert len(calls) == 2 * (mode != "eager" if kind is FourierConv2D else training)


@pytest.mark.parametrize(
    ("kind", "shape", "arguments"),
    [
        (FusedBatchNormalization, (6, 3), {}),
        (FusedBatchNormalization, (6, 5, 3), {}),
        (FusedBatchNormalization, MAPS, {"axis": 1}),
        (FusedBatchNormalization, MAPS, {"scale": False}),
        (FusedBatchNormalization, MAPS, {"center": False}),
        (FusedBatchNormalization, MAPS, {"renorm": True}),
        (FusedBatchNormalization, MAPS, {"trainable": False}),
        (FusedBatchNormalization, MAPS, {"dtype": "mixed_bfloat16"}),
        (LargeDense, (6, 3, 7), {"units": 5}),
        (LargeDense, (6, 7), {"units": 5, "dtype": "mixed_bfloat16"}),
        (FourierConv2D, (16, 7, 6, 32), {**CONVOLUTION, "padding": "same"}),
        (FourierConv2D, (16, 5, 6, 32), {**CONVOLUTION, "kernel_size": 3}),
        (FourierConv2D, (2, 7, 6, 32), CONVOLUTION),
        (FourierConv2D, (16, 7, 6, 32), {**CONVOLUTION, "dtype": "mixed_bfloat16"}),
    ],
)
def test_falls_back_to_keras_layer(faster, kind, shape, arguments):
    calls = faster(kind)
    ours, parent = pair(kind, shape, **arguments)
    inputs = noise(*shape) + 2
    assert_same(step(ours, inputs, mode="graph"), step(parent, inputs, mode="graph"), rounding=0)
    assert not calls


def test_batch_norm_falls_back_with_a_mask(faster):
    calls = faster(FusedBatchNormalization)
    ours, parent = pair(FusedBatchNormalization, MAPS)
    mask = tf.constant(noise(*MAPS[:3]) > 0)
    assert_same(step(ours, noise(*MAPS), mask=mask), step(parent, noise(*MAPS), mask=mask), rounding=0)
    assert not calls


def test_batch_norm_of_one_number_per_channel():
    # Its variance is zero; that of a sample of one is not defined.
    ours, parent = pair(FusedBatchNormalization, (None, 1, 1, 3))
    assert_same(step(ours, noise(1, 1, 1, 3)), step(parent, noise(1, 1, 1, 3)))


def test_batch_norm_by_hand():
    # Four numbers 1, 2, 3, 6 in one channel: mean 3, variance of the batch (4 + 1 + 0 + 9) / 4 = 3.5 (not 14 / 3).
    layer = FusedBatchNormalization(momentum=0.9, epsilon=0.5)
    found = layer(np.array([1.0, 2, 3, 6], "float32").reshape(1, 2, 2, 1), training=True)
    np.testing.assert_allclose(np.ravel(found), [-1.0, -0.5, 0.0, 1.5], rtol=0, atol=1e-6)  # sqrt(3.5 + .5) = 2
    # .9 of 0 and 1, plus .1 of these.
    np.testing.assert_allclose(layer.moving_mean, [0.3], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [1.25], rtol=1e-6)


def test_dense_is_faster_from_a_million_weights_on(monkeypatch):
    calls, product = [], large_dense._product
    monkeypatch.setattr(large_dense, "_product", lambda: calls.append(1) or product())
    # 1024 x 1024 = 2^20 weights; one unit less and there is nothing to gain.
    for units, expected in ((1023, 0), (1024, 1)):
        ours, parent = pair(LargeDense, (None, 1024), units=units)
        inputs = noise(4, 1024)
        # Sums of 1024 products of size one, in a different order.
        np.testing.assert_allclose(ours(inputs, training=True), parent(inputs), rtol=0, atol=1e-3)
        assert len(calls) == expected


def test_dense_falls_back_with_low_rank_weights(faster):
    calls = faster(LargeDense)
    layer = LargeDense(5)
    layer.build((None, 7))
    layer.enable_lora(2)
    layer(noise(6, 7), training=True)
    assert not calls
