"""Dynamic routing: squash and routing by hand, procedure 1 in NumPy, zeros, precision. (See also test_contracts.)"""

import math

import numpy as np
import pytest
import tensorflow as tf

from invariance.routing.dynamic import length, route, squash, transform_and_route
from tests.helpers import noise

# (batch, in_capsules, in_dim, out_capsules, out_dim)
SHAPES = [(1, 1, 1, 2, 1), (2, 7, 4, 3, 5), (3, 4, 2, 2, 6), (5, 30, 8, 10, 16)]

# Float32 has a relative precision of 6e-8; sums have up to 30 x 8 terms, and there is an exponential of an agreement of
# size 1.
ROUNDING = 5e-6


def capsules_and_weights(shape, dtype="float32"):
    """Sums over the input capsules have a length of about one, where squash is steepest and couplings differ."""
    batch, inputs, in_dim, outs, out_dim = shape
    return (
        noise(batch, inputs, in_dim, dtype=dtype),
        noise(inputs, outs, out_dim, in_dim, seed=1, dtype=dtype) * outs / math.sqrt(inputs * in_dim * out_dim),
    )


def votes_of(capsules, weights):
    """Eq. 2, u_hat_j|i = W_ij u_i: (batch, in_capsules, out_capsules, out_dim)."""
    return tf.einsum("bik,ijdk->bijd", capsules, weights)


def procedure_1(votes, iterations):
    """Sabour et al. (2017), procedure 1 with eqs. 1 to 3, in float64; with the couplings used last."""
    outputs, couplings = [], []
    for vote in np.asarray(votes, "float64"):  # (in, out, dim)
        b = np.zeros(vote.shape[:2])
        for _ in range(iterations):
            c = np.exp(b) / np.exp(b).sum(axis=1, keepdims=True)
            s = (c[..., None] * vote).sum(axis=0)
            square = (s**2).sum(axis=1, keepdims=True)
            v = square / (1 + square) * s / np.sqrt(square)
            b = b + (vote * v).sum(axis=2)
        outputs.append(v)
        couplings.append(c)
    return np.stack(outputs), np.stack(couplings)


# Both implementations, as functions of capsules and weights.
IMPLEMENTATIONS = {
    "route": lambda capsules, weights, *iterations: route(votes_of(capsules, weights), *iterations),
    "transform_and_route": transform_and_route,
}


@pytest.fixture(params=IMPLEMENTATIONS)
def routing(request):
    return IMPLEMENTATIONS[request.param]


# Squash and length


def test_squash_by_hand():
    # |(3, 4)| = 5: 25 / 26 of the unit vector (3, 4) / 5, that is (15, 20) / 26. |(0, -1)| = 1: half of it.
    found = np.asarray(squash(np.array([[3.0, 4.0], [0.0, -1.0]])))
    # The 1e-7 under the root changes a length of one by 5e-8.
    np.testing.assert_allclose(found, [[15 / 26, 20 / 26], [0.0, -0.5]], rtol=0, atol=1e-7)


def test_length_by_hand():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]])
    # sqrt(25 + 1e-7) = 5 + 1e-8, and sqrt(1e-7).
    np.testing.assert_allclose(length(vectors), [5.0, 1e-3 / math.sqrt(10)], rtol=1e-8)
    assert length(vectors, keepdims=True).shape == (2, 1)


def test_squash_keeps_directions_and_shortens():
    vectors = noise(50, 6, dtype="float64") * np.logspace(-2, 3, 50)[:, None]
    found, norm = np.asarray(squash(vectors)), np.linalg.norm(vectors, axis=-1)
    after = np.linalg.norm(found, axis=-1)
    assert (after < 1).all()
    assert (np.diff(after[np.argsort(norm)]) > 0).all()
    # The 1e-7 under the root is at most a thousandth of a vector's square, which is at least 1e-4.
    np.testing.assert_allclose(after, norm**2 / (1 + norm**2), rtol=1e-3)
    np.testing.assert_allclose(found / after[:, None], vectors / norm[:, None], atol=1e-12)  # float64


def test_squash_and_length_are_finite_at_zero():
    zero = tf.zeros((2, 4))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(zero)
        squashed, measured = squash(zero), length(zero)
    np.testing.assert_array_equal(squashed, 0.0)
    np.testing.assert_allclose(measured, math.sqrt(1e-7), rtol=1e-6)  # float32
    np.testing.assert_array_equal(tape.gradient(measured, zero), 0.0)
    # Near zero squash is v n / (1 + n^2) with n = sqrt(1e-7) = 3.1623e-4.
    np.testing.assert_allclose(tape.gradient(squashed, zero), 3.1623e-4, rtol=1e-5)  # printed digits


# Routing


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_procedure_1(routing, shape, iterations):
    capsules, weights = capsules_and_weights(shape)
    expected = procedure_1(votes_of(capsules, weights), iterations)
    batch, inputs, _, outs, out_dim = shape
    outputs, couplings = routing(capsules, weights, iterations)
    assert outputs.shape == (batch, outs, out_dim)
    assert couplings.shape == (batch, inputs, outs)
    np.testing.assert_allclose(outputs, expected[0], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(couplings, expected[1], rtol=0, atol=ROUNDING)
    if iterations == 1:
        np.testing.assert_allclose(couplings, 1 / outs, rtol=1e-7)  # one rounding
    elif batch > 1:
        # Or the iterations would show nothing.
        assert np.ptp(expected[1]) > 0.05


def test_float64_equals_procedure_1(routing):
    capsules, weights = capsules_and_weights(SHAPES[1], "float64")
    expected = procedure_1(votes_of(capsules, weights), 3)
    for part, wanted in zip(routing(capsules, weights, 3), expected, strict=True):
        assert part.dtype == tf.float64
        # The 1e-7 under the root, of squares of about 0.1.
        np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-6)


def test_two_iterations_by_hand():
    # One input capsule votes (6, 8) for the first output and zero for the second. Couplings of 1/2 give s = (3, 4) and
    # v = (15, 20) / 26, which agrees with the vote by (6 * 15 + 8 * 20) / 26 = 125 / 13. The next couplings are
    # c = 1 / (1 + exp(-125 / 13)) = .9999334 and 1 - c; s = c (6, 8) has length 10 c.
    outputs, couplings = route(np.array([[[[6.0, 8.0], [0.0, 0.0]]]]), 2)
    c = 1 / (1 + math.exp(-125 / 13))
    np.testing.assert_allclose(couplings, [[[c, 1 - c]]], rtol=0, atol=1e-7)  # the 1e-7 under the root
    squashed = 100 * c**2 / (1 + 100 * c**2)
    np.testing.assert_allclose(outputs, [[[0.6 * squashed, 0.8 * squashed], [0.0, 0.0]]], rtol=0, atol=1e-7)


@pytest.mark.parametrize("iterations", [1, 3])
def test_both_implementations_have_the_same_gradients(iterations):
    inputs = [tf.constant(x) for x in capsules_and_weights(SHAPES[-1])]
    weight = noise(5, 10, 16, seed=2)
    results = []
    for routing in IMPLEMENTATIONS.values():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, couplings = routing(*inputs, iterations)
            # The couplings too, although those of one iteration do not depend on the inputs.
            value = tf.reduce_sum(outputs * weight) + tf.reduce_sum(couplings[..., 0])
        results.append([outputs, couplings, *tape.gradient(value, inputs)])
    for one, other in zip(*results, strict=True):
        scale = np.abs(one).max()
        assert scale > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * scale)


def test_couplings_sum_to_one_over_the_output_capsules(routing):
    couplings = np.asarray(routing(*capsules_and_weights(SHAPES[-1]))[1])
    assert couplings.min() > 0
    np.testing.assert_allclose(couplings.sum(-1), 1.0, rtol=0, atol=1e-6)  # ten float32 numbers
    # Over the input capsules they do not.
    assert np.abs(couplings.sum(1) - 1).max() > 0.1


@pytest.mark.parametrize("zero", ["capsules", "weights", "both"])
def test_routing_is_finite_at_zero(routing, zero):
    capsules, weights = capsules_and_weights(SHAPES[1])
    inputs = [tf.constant(capsules * (zero == "weights")), tf.constant(weights * (zero == "capsules"))]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, couplings = routing(*inputs)
        value = tf.reduce_sum(outputs) + tf.reduce_sum(length(outputs))
    np.testing.assert_array_equal(outputs, 0.0)
    np.testing.assert_allclose(couplings, 1 / 3, rtol=1e-6)  # a softmax of zeros in float32
    gradients = tape.gradient(value, inputs)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if zero != "both":
        # Not so flat that training could never leave it.
        assert np.abs(gradients[0 if zero == "capsules" else 1]).max() > 0


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_bfloat16_is_routed_in_float32(name):
    inputs = [tf.cast(x, "bfloat16") for x in capsules_and_weights(SHAPES[1])]
    if name == "route":
        inputs = [tf.cast(votes_of(*(tf.cast(x, "float32") for x in inputs)), "bfloat16")]
    function = route if name == "route" else transform_and_route
    for one, other in zip(function(*inputs), function(*(tf.cast(x, "float32") for x in inputs)), strict=True):
        assert one.dtype == tf.float32
        np.testing.assert_array_equal(one, other)


def test_gradient_flows_through_all_iterations():
    # With constant couplings the gradient would be a different one: that of the last iteration alone.
    votes, weight = tf.constant(noise(2, 5, 3, 4)), noise(2, 3, 4, seed=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(votes)
        outputs, couplings = route(votes)
        value = tf.reduce_sum(outputs * weight)
        constant = tf.einsum("bij,bijd->bjd", tf.stop_gradient(couplings), votes)
        last = tf.reduce_sum(squash(constant) * weight)
        coupled = tf.reduce_sum(couplings[:, :, 0])
    assert abs(float(value - last)) < 1e-5  # sums of 24 float32 numbers
    found, of_last = tape.gradient(value, votes).numpy(), tape.gradient(last, votes).numpy()
    assert np.abs(found - of_last).max() > 0.1 * np.abs(found).max()
    assert np.abs(tape.gradient(coupled, votes)).max() > 0.01


@pytest.mark.parametrize("iterations", [0, -1, 1.0, True, "3", None])
def test_wrong_number_of_iterations(routing, iterations):
    with pytest.raises(ValueError) as refused:
        routing(*capsules_and_weights(SHAPES[1]), iterations)
    expected = f"Argument `iterations` must be a positive integer. Received: iterations={iterations!r}"
    assert str(refused.value) == expected


def test_default_is_three_iterations(routing):
    inputs = capsules_and_weights(SHAPES[1])
    np.testing.assert_array_equal(routing(*inputs)[0], routing(*inputs, 3)[0])
