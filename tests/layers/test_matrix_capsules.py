"""The layers of matrix capsules, against loops over positions and by symmetry. (Everything else: test_contracts.)"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.matrix_capsules import ClassCapsules, ConvolutionalCapsules, PrimaryMatrixCapsules
from invariance.routing import em
from tests.helpers import noise
from tests.routing.test_votes import slow_votes

# Float32 sums of some hundred numbers, and routing, which amplifies their rounding.
ROUNDING = 2e-5

# Activations that differ by tenths; with the published 0.01 they are nearly equal.
PROGRAM = em.Form(2, 0.1)
PAPER = em.Form(2, 0.1, logistic=True, normalised=False)


def capsules(*shape):
    """Poses (batch, height, width, capsules, 4, 4) and activations in [0.2, 1]."""
    return noise(*shape, 4, 4), noise(*shape, spread=(0.2, 1))


def with_betas(layer, *inputs):
    """The built layer, with betas that are not zero."""
    layer(*inputs)
    for seed, beta in enumerate((layer.beta_v, layer.beta_a)):
        beta.assign(noise(*beta.shape, seed=10 + seed))
    return layer


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)


def assert_computes(layer, inputs, expected):
    """Eagerly, and inside a function, where parts are compiled by XLA."""
    assert_close(layer(*inputs), expected)
    assert_close(tf.function(layer, autograph=False)(*map(tf.constant, inputs)), expected)


# Primary capsules


def test_primary_capsules_are_two_convolutions():
    layer, features = PrimaryMatrixCapsules(3, bias_initializer="ones"), noise(2, 4, 5, 6)
    poses, activations = layer(features)
    [kernel, bias], [active_kernel, active_bias] = (part.get_weights() for part in (layer.poses, layer.activations))
    np.testing.assert_array_equal(np.concatenate([bias, active_bias]), 1.0)
    # A 1 x 1 convolution is a product at each position.
    expected = (features @ kernel[0, 0] + bias).reshape(2, 4, 5, 3, 4, 4)
    np.testing.assert_allclose(poses, expected, rtol=0, atol=ROUNDING)
    logits = features @ active_kernel[0, 0] + active_bias
    np.testing.assert_allclose(activations, 1 / (1 + np.exp(-logits)), rtol=0, atol=ROUNDING)


# Convolutional capsules


def routed_alone(layer, votes, activations):
    """Poses (capsules, 16 or 18) and activations from votes (in, 16 or 18, out) and activations (in,)."""
    betas = layer.beta_v.numpy(), layer.beta_a.numpy()
    found, active = em.route(votes[:, None], activations[:, None], *betas, layer.form)
    return np.asarray(found)[0].T, np.asarray(active)[0]


def slow_convolution(layer, poses, activations):
    k, s = layer.kernel_size, layer.strides
    rows, columns = ((side - k) // s + 1 for side in poses.shape[1:3])
    out_poses = np.zeros((len(poses), rows, columns, layer.capsules, 4, 4), "float32")
    out_activations = np.zeros(out_poses.shape[:4], "float32")
    for n, r, c in np.ndindex(*out_poses.shape[:3]):
        here = n, slice(s * r, s * r + k), slice(s * c, s * c + k)
        votes = slow_votes(poses[here].reshape(-1, 4, 4), layer.kernel.numpy())
        found, out_activations[n, r, c] = routed_alone(layer, votes, activations[here].reshape(-1))
        out_poses[n, r, c] = found.reshape(-1, 4, 4)
    return out_poses, out_activations


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"kernel_size": 3, "strides": 2, "form": PROGRAM}, (5, 7)),
        ({"kernel_size": 2, "form": PAPER}, (3, 2)),
        ({"kernel_size": 1, "form": PROGRAM}, (1, 2)),
    ],
    ids=["3 strides 2", "2 paper", "1"],
)
def test_convolutional_capsules_route_at_each_position(arguments, size):
    inputs = capsules(2, *size, 3)
    layer = with_betas(ConvolutionalCapsules(4, **arguments), *inputs)
    expected = slow_convolution(layer, *inputs)
    assert np.ptp(expected[1]) > 0.05
    assert_computes(layer, inputs, expected)


def test_layers_share_what_is_compiled_whatever_batch_each_was_traced_for():
    # The functions compiled for the first layer's unknown batch also answer for the second, as far as they fit: the
    # activations, but not the poses, which meet another number of output capsules. 16 x 9 positions are an even number.
    signature = [tf.TensorSpec((None, 3, 3, 3, 4, 4)), tf.TensorSpec((None, 3, 3, 3))]
    for outputs, batch in ((4, None), (5, 16)):
        layer, inputs = ConvolutionalCapsules(outputs, 1, form=PROGRAM), capsules(batch or 2, 3, 3, 3)
        expected = with_betas(layer, *inputs)(*inputs)
        traced = tf.function(layer, input_signature=None if batch else signature, autograph=False)
        assert_close(traced(*map(tf.constant, inputs)), expected)


def test_an_even_number_of_positions_is_padded(monkeypatch):
    rows, route = [], em.route
    monkeypatch.setattr(em, "route", lambda votes, *others: rows.append(votes.shape[1]) or route(votes, *others))
    for batch in (1, 2):
        ConvolutionalCapsules(4, 1)(*capsules(batch, 1, 3, 3))
    assert rows == [3, 7]


def test_defaults_of_convolutional_capsules():
    layer = ConvolutionalCapsules(4)
    assert (layer.kernel_size, layer.strides, layer.form) == (3, 1, em.Form())
    layer.build((None, 3, 3, 5, 4, 4))
    assert [weight.shape for weight in layer.weights] == [(45, 4, 4, 4), (4, 16), (4,)]
    # 2880 samples of a normal distribution truncated at two standard deviations: 1 before the truncation, .88 after.
    kernel = layer.kernel.numpy()
    assert np.abs(kernel).max() <= 2 and 0.85 < kernel.std() < 0.91
    np.testing.assert_array_equal(layer.beta_v, 0.0)
    np.testing.assert_array_equal(layer.beta_a, 0.0)


# Class capsules

PLACE = {"start": (0.1, 0.3), "step": (0.2, 0.05)}


def slow_classes(layer, poses, activations):
    batch, height, width, inputs = activations.shape
    results = []
    for n in range(batch):
        votes, active = [], []
        for r, c in np.ndindex(height, width):
            coordinates = np.array([0.1 + 0.2 * r, 0.3 + 0.05 * c], "float32")[:, None]
            coordinates = np.broadcast_to(coordinates, (inputs, 2, layer.capsules))
            votes.append(np.concatenate([slow_votes(poses[n, r, c], layer.kernel.numpy()), coordinates], axis=1))
            active.append(activations[n, r, c])
        if layer.together:
            results.append(routed_alone(layer, np.concatenate(votes), np.concatenate(active)))
        else:
            each = [routed_alone(layer, *position) for position in zip(votes, active, strict=True)]
            results.append([np.mean(part, axis=0) for part in zip(*each, strict=True)])
    return [np.stack(part) for part in zip(*results, strict=True)]


@pytest.mark.parametrize(("together", "form"), [(False, PROGRAM), (True, PAPER)], ids=["separately", "together"])
def test_class_capsules(together, form):
    inputs = capsules(2, 3, 2, 4)
    layer = with_betas(ClassCapsules(5, **PLACE, together=together, form=form), *inputs)
    assert [weight.shape for weight in layer.weights] == [(4, 5, 4, 4), (5, 18), (5,)]
    expected = slow_classes(layer, *inputs)
    assert np.ptp(expected[1]) > 0.02
    assert_computes(layer, inputs, expected)


@pytest.mark.parametrize("form", [PROGRAM, PAPER], ids=["program", "paper"])
def test_coordinates_are_the_mean_of_the_positions(form):
    # Published: positions 8, 12, 16 of 28 pixels in each direction. 1e-9 is added to a mass as small as about 1e-4.
    inputs = capsules(2, 3, 3, 4)
    found, _ = ClassCapsules(5, (8 / 28, 8 / 28), (4 / 28, 4 / 28), form=form)(*inputs)
    np.testing.assert_allclose(found[..., 16:], 12 / 28, rtol=0, atol=1e-5)
    # Rows and columns differ: .1, .3, .5 and .3, .35.
    found, _ = ClassCapsules(5, **PLACE, form=form)(*(part[:, :, :2] for part in inputs))
    np.testing.assert_allclose(found[..., 16], 0.3, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[..., 17], 0.325, rtol=0, atol=1e-5)


def test_coordinates_routed_together_are_those_of_the_active_inputs():
    # In the paper's form with one iteration a pose is the activation-weighted mean: only the last position is active.
    poses, activations = capsules(2, 3, 2, 4)
    activations[:, :2] = activations[:, :, :1] = 0
    form = em.Form(1, 0.1, logistic=True, normalised=False)
    found, _ = ClassCapsules(5, **PLACE, together=True, form=form)(poses, activations)
    np.testing.assert_allclose(found[..., 16:], [[[0.5, 0.35]] * 5] * 2, rtol=0, atol=1e-6)  # float32


def test_network_is_applied_to_each_frame_of_a_sequence():
    images = keras.Input((3, 2, 4))
    network = keras.Model(images, ClassCapsules(5, form=PROGRAM)(*PrimaryMatrixCapsules(3)(images))[1])
    each, frames = keras.layers.TimeDistributed(network), noise(2, 3, 3, 2, 4)
    assert each(keras.Input((None, 3, 2, 4))).shape == (None, None, 5)
    found = each(frames)
    assert found.shape == (2, 3, 5)
    np.testing.assert_allclose(found[:, 1], network(frames[:, 1]), rtol=0, atol=ROUNDING)


# Symmetry


@pytest.mark.parametrize("kind", [ConvolutionalCapsules, ClassCapsules])
def test_permuting_the_rows_of_all_poses_permutes_the_rows(kind):
    # (P M) W = P (M W), and routing treats all entries of a pose alike.
    poses, activations = capsules(2, 3, 4, 3)
    layer, order = with_betas(kind(5, form=PAPER), poses, activations), [2, 0, 3, 1]

    def matrices(poses):
        found, active = (np.asarray(part) for part in layer(poses, activations))
        return (found[..., :16].reshape(2, 5, 4, 4) if kind is ClassCapsules else found), active

    expected, active = matrices(poses)
    found, unchanged = matrices(poses[..., order, :])
    np.testing.assert_allclose(unchanged, active, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(found, expected[..., order, :], rtol=0, atol=ROUNDING)
    assert np.abs(found - expected).max() > 0.1
    # The weights mix columns.
    assert np.abs(matrices(poses[..., order])[0] - expected[..., order]).max() > 0.1


def test_routing_is_float32_inside_in_mixed_precision(bfloat16):
    primary, convolutional = PrimaryMatrixCapsules(3), ConvolutionalCapsules(4)
    assert primary.poses.compute_dtype == primary.activations.compute_dtype == "bfloat16"
    inputs = [part.numpy() for part in primary(tf.constant(noise(2, 5, 4, 6)))]
    # Weights or votes in bfloat16 would be off by some thousandths.
    outputs = convolutional(*inputs)
    assert_close(outputs, slow_convolution(convolutional, *inputs))
