"""The layers of matrix capsules against loops over positions, their symmetries, and in somebody's own model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.matrix_capsules import (
    ClassCapsules,
    ConvolutionalCapsules,
    PrimaryMatrixCapsules,
    patches,
    votes,
)
from invariance.routing import em

# Float32 sums of some hundred numbers, and routing, which enlarges their rounding.
ROUNDING = 2e-5

# Activations that differ by tenths, where the published .01 makes them all but equal.
FORM = em.Form(2, 0.1)
PAPER = em.Form(2, 0.1, logistic=True, normalised=False)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def capsules(*shape, seed=0):
    """Poses (batch, height, width, capsules, 4, 4) and activations in [.2, 1]."""
    return noise(*shape, 4, 4, seed=seed), np.random.default_rng(seed).uniform(0.2, 1, shape).astype("float32")


def awake(layer, *inputs):
    """The built layer with betas other than zero."""
    layer(*inputs)
    for seed, beta in enumerate((layer.beta_v, layer.beta_a)):
        beta.assign(noise(*beta.shape, seed=10 + seed))
    return layer


def in_function(layer, *inputs):
    """The layer's outputs where its parts are compiled by XLA."""
    return tf.function(layer, autograph=False)(*map(tf.constant, inputs))


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)


# Patches and votes


@pytest.mark.parametrize(("kernel", "strides"), [(1, 1), (2, 1), (3, 1), (3, 2), (2, 3), (5, 2)])
@pytest.mark.parametrize("size", [(7, 5), (5, 8)], ids=str)
def test_patches(size, kernel, strides):
    values = noise(2, *size, 3, 2)
    found = np.asarray(patches(values, kernel, strides))
    rows, columns = ((side - kernel) // strides + 1 for side in size)
    assert found.shape == (kernel**2, 2, rows, columns, 3, 2)
    for r in range(rows):
        for c in range(columns):
            for k in range(kernel**2):
                expected = values[:, strides * r + k // kernel, strides * c + k % kernel]
                np.testing.assert_array_equal(found[k, :, r, c], expected)


def slow_votes(poses, weights):
    """(in, 4, 4) and (in, out, 4, 4): M_i W_ij, row by row, (in, 16, out)."""
    result = np.zeros((len(poses), 16, weights.shape[1]))
    for i, j in np.ndindex(*weights.shape[:2]):
        for row, column in np.ndindex(4, 4):
            result[i, 4 * row + column, j] = sum(poses[i, row, k] * weights[i, j, k, column] for k in range(4))
    return result.astype("float32")


def test_votes():
    poses, weights = noise(3, 2, 4, 4), noise(3, 5, 4, 4, seed=1)
    found = np.asarray(votes(poses, weights))
    assert found.shape == (3, 2, 16, 5)
    for n in range(2):
        np.testing.assert_allclose(found[:, n], slow_votes(poses[:, n], weights), rtol=0, atol=5e-6)  # four products


# Primary capsules


def test_primary_capsules_are_two_convolutions():
    layer, features = PrimaryMatrixCapsules(3, bias_initializer="ones"), noise(2, 4, 5, 6)
    poses, activations = layer(features)
    assert poses.shape == (2, 4, 5, 3, 4, 4) and activations.shape == (2, 4, 5, 3)
    [kernel, bias], [active_kernel, active_bias] = (part.get_weights() for part in (layer.poses, layer.activations))
    np.testing.assert_array_equal(np.concatenate([bias, active_bias]), 1.0)
    # A 1 x 1 convolution is a product at each position.
    expected = (features @ kernel[0, 0] + bias).reshape(2, 4, 5, 3, 4, 4)
    np.testing.assert_allclose(poses, expected, rtol=0, atol=ROUNDING)
    logits = features @ active_kernel[0, 0] + active_bias
    np.testing.assert_allclose(activations, 1 / (1 + np.exp(-logits)), rtol=0, atol=ROUNDING)


# Convolutional capsules


def one_position(layer, poses, activations, extra=None):
    """Poses (capsules, 16 or 18) and activations of inputs (in, 4, 4) and (in,), by slow votes and routing alone."""
    kernel = layer.kernel.numpy()
    cast = slow_votes(poses, kernel)
    if extra is not None:
        cast = np.concatenate([cast, extra], axis=1)
    arguments = cast[:, None], activations[:, None], layer.beta_v.numpy(), layer.beta_a.numpy()
    found, active = em.route(*arguments, layer.form)
    return np.asarray(found)[0].T, np.asarray(active)[0]


def slow_convolution(layer, poses, activations):
    k, s = layer.kernel_size, layer.strides
    rows, columns = ((side - k) // s + 1 for side in poses.shape[1:3])
    out_poses = np.zeros((len(poses), rows, columns, layer.capsules, 4, 4), "float32")
    out_activations = np.zeros(out_poses.shape[:4], "float32")
    for n, r, c in np.ndindex(*out_poses.shape[:3]):
        here = n, slice(s * r, s * r + k), slice(s * c, s * c + k)
        found, out_activations[n, r, c] = one_position(
            layer, poses[here].reshape(-1, 4, 4), activations[here].reshape(-1)
        )
        out_poses[n, r, c] = found.reshape(-1, 4, 4)
    return out_poses, out_activations


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"kernel_size": 3, "strides": 2, "form": FORM}, (5, 7)),
        ({"kernel_size": 2, "form": PAPER}, (3, 2)),
        ({"kernel_size": 1, "form": FORM}, (1, 2)),
    ],
    ids=["3 strides 2", "2 paper", "1"],
)
def test_convolutional_capsules_route_at_each_position(arguments, size):
    inputs = capsules(2, *size, 3)
    layer = awake(ConvolutionalCapsules(4, **arguments), *inputs)
    expected = slow_convolution(layer, *inputs)
    assert np.ptp(expected[1]) > 0.05
    assert_close(layer(*inputs), expected)
    assert_close(in_function(layer, *inputs), expected)


def test_defaults_of_convolutional_capsules():
    layer = ConvolutionalCapsules(4)
    assert (layer.kernel_size, layer.strides, layer.form) == (3, 1, em.Form())
    layer.build((None, 3, 3, 5, 4, 4))
    assert [weight.shape for weight in layer.weights] == [(45, 4, 4, 4), (4, 16), (4,)]
    # 2880 numbers of a normal cut at two standard deviations; Keras makes it one wide before the cut, .88 after.
    kernel = layer.kernel.numpy()
    assert np.abs(kernel).max() <= 2 and 0.85 < kernel.std() < 0.91
    np.testing.assert_array_equal(layer.beta_v, 0.0)
    np.testing.assert_array_equal(layer.beta_a, 0.0)


# Class capsules

PLACE = {"start": (0.1, 0.3), "step": (0.2, 0.05)}


def places(height, width):
    return [(0.1 + 0.2 * row, 0.3 + 0.05 * column) for row in range(height) for column in range(width)]


def slow_classes(layer, poses, activations):
    batch, height, width, inputs = activations.shape
    results = []
    for n in range(batch):
        cast = []
        for place, (r, c) in zip(places(height, width), np.ndindex(height, width), strict=True):
            extra = np.broadcast_to(np.array(place, "float32")[:, None], (inputs, 2, layer.capsules))
            cast.append((poses[n, r, c], activations[n, r, c], extra))
        if layer.together:
            votes_cast = [np.concatenate([slow_votes(part, layer.kernel.numpy()), extra], 1) for part, _, extra in cast]
            arguments = np.concatenate(votes_cast)[:, None], np.concatenate([part for _, part, _ in cast])[:, None]
            found, active = em.route(*arguments, layer.beta_v.numpy(), layer.beta_a.numpy(), layer.form)
            results.append((np.asarray(found)[0].T, np.asarray(active)[0]))
        else:
            found, active = zip(*(one_position(layer, *part) for part in cast), strict=True)
            results.append((np.mean(found, axis=0), np.mean(active, axis=0)))
    return [np.stack(part) for part in zip(*results, strict=True)]


@pytest.mark.parametrize(
    ("together", "form"), [(False, FORM), (True, PAPER)], ids=["each position for itself", "together"]
)
def test_class_capsules(together, form):
    inputs = capsules(2, 3, 2, 4)
    layer = awake(ClassCapsules(5, **PLACE, together=together, form=form), *inputs)
    assert [weight.shape for weight in layer.weights] == [(4, 5, 4, 4), (5, 18), (5,)]
    expected = slow_classes(layer, *inputs)
    assert expected[0].shape == (2, 5, 18) and np.ptp(expected[1]) > 0.02
    assert_close(layer(*inputs), expected)
    assert_close(in_function(layer, *inputs), expected)


@pytest.mark.parametrize("form", [FORM, PAPER], ids=["program", "paper"])
def test_coordinates_are_the_mean_of_the_positions(form):
    # Published: positions 8, 12, 16 of 28 pixels in each direction. The 1e-9 beside a mass that may be some 1e-4.
    inputs = capsules(2, 3, 3, 4)
    found, _ = ClassCapsules(5, (8 / 28, 8 / 28), (4 / 28, 4 / 28), form=form)(*inputs)
    np.testing.assert_allclose(found[..., 16:], 12 / 28, rtol=0, atol=1e-5)
    # Rows and columns are not the same thing: .1, .3, .5 and .3, .35.
    found, _ = ClassCapsules(5, **PLACE, form=form)(*(part[:, :, :2] for part in inputs))
    np.testing.assert_allclose(found[..., 16], 0.3, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[..., 17], 0.325, rtol=0, atol=1e-5)


def test_together_the_coordinates_are_those_of_the_active_inputs():
    # In the paper's form with one iteration a pose is the activation-weighted mean: only the last position is active.
    poses, activations = capsules(2, 3, 2, 4)
    activations[:, :2] = activations[:, :, :1] = 0
    form = em.Form(1, 0.1, logistic=True, normalised=False)
    found, _ = ClassCapsules(5, **PLACE, together=True, form=form)(poses, activations)
    np.testing.assert_allclose(found[..., 16:], [[[0.5, 0.35]] * 5] * 2, rtol=0, atol=1e-6)  # float32


# Symmetry


@pytest.mark.parametrize("kind", [ConvolutionalCapsules, ClassCapsules])
def test_permuted_rows_of_all_poses_permute_the_rows(kind):
    # (P M) W = P (M W), and routing does the same to every entry of a pose.
    poses, activations = capsules(2, 3, 4, 3)
    layer, order = awake(kind(5, form=PAPER), poses, activations), [2, 0, 3, 1]
    expected, active = (np.asarray(part) for part in layer(poses, activations))
    found, still = (np.asarray(part) for part in layer(poses[..., order, :], activations))
    np.testing.assert_allclose(still, active, rtol=0, atol=ROUNDING)
    if kind is ClassCapsules:
        found, expected = (part[..., :16].reshape(2, 5, 4, 4) for part in (found, expected))
    np.testing.assert_allclose(found, expected[..., order, :], rtol=0, atol=ROUNDING)
    assert np.abs(found - expected).max() > 0.1
    # Columns are mixed by the weights.
    found, _ = layer(poses[..., order], activations)
    if kind is ClassCapsules:
        found = np.asarray(found)[..., :16].reshape(2, 5, 4, 4)
    assert np.abs(found - expected[..., order]).max() > 0.1


# Arguments

LAYERS = [
    PrimaryMatrixCapsules(3, keras.initializers.TruncatedNormal(stddev=0.01, seed=3), name="primary"),
    ConvolutionalCapsules(3, 2, 2, PAPER, keras.initializers.RandomNormal(seed=3), name="convolutional"),
    ConvolutionalCapsules(3, form=em.Form(3, (0.1, 0.2, 0.3)), name="temperatures"),
    ClassCapsules(3, (0.1, 0.2), (0.3, 0.4), True, PAPER, name="classes"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_config_round_trip(layer):
    again = layers.deserialize(layers.serialize(layer))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    for name in ("name", "capsules", "kernel_size", "strides", "form", "start", "step", "together"):
        assert getattr(again, name, None) == getattr(layer, name, None), name


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "3", True, None])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, "capsules") for kind in (PrimaryMatrixCapsules, ConvolutionalCapsules, ClassCapsules)]
    + [(ConvolutionalCapsules, name) for name in ("kernel_size", "strides")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_bad_arguments(kind, name, wrong):
    with pytest.raises(ValueError) as refused:
        kind(**{"capsules": 2, name: wrong})
    assert str(refused.value) == f"Argument `{name}` must be a positive integer. Received: {name}={wrong!r}"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (ConvolutionalCapsules(2), (2, 3, 5, 4, 4)),
        (ConvolutionalCapsules(2), (3, 2, 5, 4, 4)),
        (ConvolutionalCapsules(2), (3, 3, 5, 16)),
        (ClassCapsules(2), (3, 3, 5, 16)),
    ],
    ids=["low", "narrow", "flat", "classes flat"],
)
def test_other_poses_are_refused(layer, shape):
    with pytest.raises(ValueError) as refused:
        layer.build((None, *shape), (None, *shape[:3]))
    assert "\n" not in str(refused.value)
    assert "(batch, height, width, capsules, 4, 4)" in str(refused.value)
    assert f"Received: poses_shape={(None, *shape)}" in str(refused.value)


# Mixed precision


def test_float32_in_mixed_precision(bfloat16):
    features = tf.constant(noise(2, 5, 4, 6))
    primary, convolutional, classes = PrimaryMatrixCapsules(3), ConvolutionalCapsules(4), ClassCapsules(5, form=FORM)
    first = primary(features)
    second = convolutional(*first)
    third = classes(*second)
    assert primary.poses.compute_dtype == primary.activations.compute_dtype == "bfloat16"
    assert all(part.dtype == tf.float32 for part in (*first, *second, *third))
    weights = [weight for layer in (primary, convolutional, classes) for weight in layer.weights]
    assert all(weight.dtype == "float32" for weight in weights)
    # Weights or votes of bfloat16 would be off by some thousandths.
    assert_close(second, slow_convolution(convolutional, *(part.numpy() for part in first)))
    symbolic = primary(keras.Input((5, 4, 6)))
    for layer in (convolutional, classes):
        symbolic = layer(*symbolic)
        assert [part.dtype for part in symbolic] == ["float32"] * 2


# In somebody's own model


def test_own_model_is_trained_saved_and_loaded(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5, 2))
    x = PrimaryMatrixCapsules(3)(inputs)
    x = ConvolutionalCapsules(4, 3, 2, form=FORM)(*x)
    poses, activations = ClassCapsules(2, **PLACE, together=True, form=PAPER)(*x)
    model = keras.Model(inputs, [layers.Dense(1)(layers.Flatten()(poses)), activations])
    assert poses.shape == (None, 2, 18) and activations.shape == (None, 2)
    images = tf.constant(noise(4, 6, 5, 2))

    def gradients():
        with tf.GradientTape() as tape:
            value = sum(tf.reduce_sum(part**2) for part in model(images))
        return tape.gradient(value, [weight.value for weight in model.weights])

    for eager, found, weight in zip(gradients(), tf.function(gradients)(), model.weights, strict=True):
        assert np.isfinite(found).all(), weight.path
        # Sums over positions and images, of either size.
        np.testing.assert_allclose(found, eager, rtol=0, atol=ROUNDING * max(1.0, np.abs(eager).max()))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded(images), model(images), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.layers[2].form == FORM and loaded.layers[3].form == PAPER
    # Keras' own training, with a last batch of another size, and prediction.
    loaded.compile("sgd", ["mse", "mse"], jit_compile=False)
    history = loaded.fit(images, [np.zeros((4, 1)), np.eye(2)[[0, 1, 0, 1]]], batch_size=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert [part.shape for part in loaded.predict(images, verbose=0)] == [(4, 1), (4, 2)]
