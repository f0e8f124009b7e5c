"""Dynamic routing: squash by hand, procedure 1 by loops, gradients, symmetries, precision."""

import math

import numpy as np
import pytest
import tensorflow as tf

from invariance.routing.dynamic import length, route, squash, transform_and_route

# (batch, in_capsules, in_dim, out_capsules, out_dim)
SHAPES = [(1, 1, 1, 2, 1), (2, 7, 4, 3, 5), (3, 4, 2, 2, 6), (5, 30, 8, 10, 16)]

# Float32 of relative precision 6e-8, in sums of up to 30 x 8 terms and an exponential of an agreement of size 1.
ROUNDING = 5e-6


def numbers(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def capsules_and_weights(shape, dtype="float32"):
    """Sums over the input capsules of length about one, where squash is steepest and couplings differ."""
    batch, inputs, in_dim, outs, out_dim = shape
    return (
        numbers(batch, inputs, in_dim, dtype=dtype),
        numbers(inputs, outs, out_dim, in_dim, seed=1, dtype=dtype) * outs / math.sqrt(inputs * in_dim * out_dim),
    )


def votes_of(capsules, weights):
    """Eq. 2, u_hat_j|i = W_ij u_i: (batch, in_capsules, out_capsules, out_dim)."""
    return tf.einsum("bik,ijdk->bijd", capsules, weights)


def procedure_1(votes, iterations):
    """Sabour et al. (2017), procedure 1 with eqs. 1 to 3, by loops in float64; the couplings are the last used ones."""
    votes = np.asarray(votes, "float64")
    batch, inputs, outs, dim = votes.shape
    outputs, couplings = np.zeros((batch, outs, dim)), np.zeros((batch, inputs, outs))
    for n in range(batch):
        b = np.zeros((inputs, outs))
        for _ in range(iterations):
            for i in range(inputs):
                total = sum(math.exp(b[i, j]) for j in range(outs))
                for j in range(outs):
                    couplings[n, i, j] = math.exp(b[i, j]) / total
            for j in range(outs):
                s = sum(couplings[n, i, j] * votes[n, i, j] for i in range(inputs))
                square = sum(x * x for x in s)
                outputs[n, j] = square / (1 + square) * s / math.sqrt(square)
            for i in range(inputs):
                for j in range(outs):
                    b[i, j] += sum(votes[n, i, j, d] * outputs[n, j, d] for d in range(dim))
    return outputs, couplings


# Both ways to route, as functions of capsules and weights.
WAYS = {
    "route": lambda capsules, weights, iterations=3: route(votes_of(capsules, weights), iterations),
    "transform_and_route": transform_and_route,
}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


# Squash and length


def test_squash_by_hand():
    # |(3, 4)| = 5: 25 / 26 of the unit vector (3, 4) / 5, that is (15, 20) / 26. |(0, -1)| = 1: half of it.
    found = np.asarray(squash(np.array([[3.0, 4.0], [0.0, -1.0]])))
    # The 1e-7 under the root: relative 5e-8 of a length of one.
    np.testing.assert_allclose(found, [[15 / 26, 20 / 26], [0.0, -0.5]], rtol=0, atol=1e-7)


def test_length_by_hand():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]])
    # sqrt(25 + 1e-7) = 5 + 1e-8, and sqrt(1e-7).
    np.testing.assert_allclose(length(vectors), [5.0, 1e-3 / math.sqrt(10)], rtol=1e-8)
    assert length(vectors, keepdims=True).shape == (2, 1)
    np.testing.assert_allclose(length(vectors.T, axis=0), length(vectors), rtol=1e-15)  # float64 sums


def test_squash_keeps_directions_and_shortens():
    vectors = numbers(50, 6, dtype="float64") * np.logspace(-2, 3, 50)[:, None]
    found, norm = np.asarray(squash(vectors)), np.linalg.norm(vectors, axis=-1)
    after = np.linalg.norm(found, axis=-1)
    assert (after < 1).all()
    assert (np.diff(after[np.argsort(norm)]) > 0).all()
    # The 1e-7 under the root is a thousandth of the shortest vector's square, which is 1e-4 and more.
    np.testing.assert_allclose(after, norm**2 / (1 + norm**2), rtol=1e-3)
    np.testing.assert_allclose(found / after[:, None], vectors / norm[:, None], atol=1e-12)  # float64
    np.testing.assert_allclose(squash(vectors.T, axis=0), found.T, rtol=1e-14)  # float64 sums


def test_at_zero_squash_and_length_are_finite():
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
def test_equals_procedure_1(way, shape, iterations):
    capsules, weights = capsules_and_weights(shape)
    expected = procedure_1(votes_of(capsules, weights), iterations)
    batch, inputs, _, outs, out_dim = shape
    outputs, couplings = way(capsules, weights, iterations)
    assert outputs.shape == (batch, outs, out_dim)
    assert couplings.shape == (batch, inputs, outs)
    np.testing.assert_allclose(outputs, expected[0], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(couplings, expected[1], rtol=0, atol=ROUNDING)
    if iterations > 1 and batch > 1:
        # Or the iterations would show nothing.
        assert np.ptp(expected[1]) > 0.05


def test_route_in_float64_equals_procedure_1():
    capsules, weights = capsules_and_weights(SHAPES[1], "float64")
    votes = votes_of(capsules, weights)
    for found, expected in zip(route(votes, 3), procedure_1(votes, 3), strict=True):
        # The 1e-7 under the root, of squares of some tenths.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_two_iterations_by_hand():
    # One input capsule that votes (6, 8) for the first output and nothing for the second. Couplings of 1/2 make s =
    # (3, 4), v = (15, 20) / 26; it agrees with the vote by (6 * 15 + 8 * 20) / 26 = 125 / 13. Then the couplings are
    # 1 / (1 + exp(-125 / 13)) = .9999334 = c and 1 - c; s = c (6, 8) is 10 c long.
    outputs, couplings = route(np.array([[[[6.0, 8.0], [0.0, 0.0]]]]), 2)
    c = 1 / (1 + math.exp(-125 / 13))
    np.testing.assert_allclose(couplings, [[[c, 1 - c]]], rtol=0, atol=1e-7)  # the 1e-7 under the root
    long = 100 * c**2 / (1 + 100 * c**2)
    np.testing.assert_allclose(outputs, [[[0.6 * long, 0.8 * long], [0.0, 0.0]]], rtol=0, atol=1e-7)


def test_one_iteration_shares_evenly(way):
    capsules, weights = capsules_and_weights(SHAPES[1])
    np.testing.assert_allclose(way(capsules, weights, 1)[1], 1 / 3, rtol=1e-7)  # one rounding


@pytest.mark.parametrize("iterations", [1, 3])
def test_both_ways_are_the_same_and_so_are_their_gradients(iterations):
    inputs = [tf.constant(x) for x in capsules_and_weights(SHAPES[-1])]
    weight = numbers(5, 10, 16, seed=2)
    results = []
    for way in WAYS.values():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, couplings = way(*inputs, iterations)
            # The couplings too, which of one iteration know nothing of the inputs.
            value = tf.reduce_sum(outputs * weight) + tf.reduce_sum(couplings[..., 0])
        results.append([outputs, couplings, *tape.gradient(value, inputs)])
    for one, other in zip(*results, strict=True):
        scale = np.abs(one).max()
        assert scale > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * scale)


def test_couplings_sum_to_one_over_the_output_capsules(way):
    couplings = np.asarray(way(*capsules_and_weights(SHAPES[-1]))[1])
    assert couplings.min() > 0
    np.testing.assert_allclose(couplings.sum(-1), 1.0, rtol=0, atol=1e-6)  # ten float32 numbers
    # Over the input capsules they do not.
    assert np.abs(couplings.sum(1) - 1).max() > 0.1


def test_order_of_the_input_capsules_does_not_matter(way):
    capsules, weights = capsules_and_weights(SHAPES[1])
    order = np.random.default_rng(3).permutation(len(weights))
    outputs, couplings = way(capsules, weights)
    permuted = way(capsules[:, order], weights[order])
    # The sums are taken in another order.
    np.testing.assert_allclose(permuted[0], outputs, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(permuted[1], np.asarray(couplings)[:, order], rtol=0, atol=ROUNDING)


def test_order_of_the_output_capsules_and_of_the_images_is_kept(way):
    capsules, weights = capsules_and_weights(SHAPES[1])
    outputs, couplings = (np.asarray(part) for part in way(capsules, weights))
    turned = way(capsules, weights[:, ::-1])
    np.testing.assert_allclose(turned[0], outputs[:, ::-1], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(turned[1], couplings[:, :, ::-1], rtol=0, atol=ROUNDING)
    alone = way(capsules[1:], weights)
    np.testing.assert_allclose(alone[0], outputs[1:], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("zero", ["capsules", "weights", "both"])
def test_at_zero_routing_is_finite(way, zero):
    capsules, weights = capsules_and_weights(SHAPES[1])
    inputs = [tf.constant(capsules * (zero == "weights")), tf.constant(weights * (zero == "capsules"))]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, couplings = way(*inputs)
        value = tf.reduce_sum(outputs) + tf.reduce_sum(length(outputs))
    np.testing.assert_array_equal(outputs, 0.0)
    np.testing.assert_allclose(couplings, 1 / 3, rtol=1e-6)  # a softmax of zeros in float32
    gradients = tape.gradient(value, inputs)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if zero != "both":
        # Not so flat that training could never leave it.
        assert np.abs(gradients[0 if zero == "capsules" else 1]).max() > 0


# Precision


def test_bfloat16_is_computed_in_float32(way):
    inputs = [tf.cast(x, "bfloat16") for x in capsules_and_weights(SHAPES[1])]
    raised = [tf.cast(x, "float32") for x in inputs]
    if way is WAYS["route"]:
        votes = tf.cast(votes_of(*raised), "bfloat16")
        found, expected = route(votes), route(tf.cast(votes, "float32"))
    else:
        found, expected = transform_and_route(*inputs), transform_and_route(*raised)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == tf.float32
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["route", "transform_and_route"])
def test_float64_stays(name):
    for part in WAYS[name](*capsules_and_weights(SHAPES[1], "float64")):
        assert part.dtype == tf.float64


# Eager, graph and XLA


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(way, xla):
    inputs = [tf.constant(x) for x in capsules_and_weights(SHAPES[1])]

    def both(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, couplings = way(*inputs)
            value = tf.reduce_sum(outputs[..., 0])
        return [outputs, couplings, *tape.gradient(value, inputs)]

    for one, other in zip(tf.function(both, jit_compile=xla)(*inputs), both(*inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", WAYS)
def test_number_of_images_may_be_unknown(name):
    capsules, weights = capsules_and_weights(SHAPES[1])
    compiled = tf.function(WAYS[name]).get_concrete_function(tf.TensorSpec((None, 7, 4)), tf.constant(weights))
    np.testing.assert_allclose(
        compiled(tf.constant(capsules), tf.constant(weights))[0], WAYS[name](capsules, weights)[0], atol=ROUNDING
    )


# Gradients


@pytest.mark.parametrize("name", ["route", "transform_and_route"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_gradient_equals_finite_differences(name, iterations):
    inputs = list(capsules_and_weights((1, 3, 2, 2, 2), "float64"))
    weight, step = numbers(1, 2, 2, seed=2, dtype="float64"), 1e-5

    def value(*inputs):
        return tf.reduce_sum(WAYS[name](*inputs, iterations)[0] * weight)

    tensors = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = value(*tensors)
    for which, found in enumerate(tape.gradient(total, tensors)):
        for place in np.ndindex(*found.shape):
            ends = []
            for sign in (1, -1):
                moved = [x.copy() for x in inputs]
                moved[which][place] += sign * step
                ends.append(float(value(*moved)))
            # Float64: 1e-16 / 1e-5 from rounding, and the square of the step times a third derivative of size 10.
            assert abs(found.numpy()[place] - (ends[0] - ends[1]) / (2 * step)) < 1e-8


def test_gradient_flows_through_all_iterations():
    # With couplings that are held fast, the gradient would be another: the one of the last iteration alone.
    votes = tf.constant(numbers(2, 5, 3, 4))
    weight = numbers(2, 3, 4, seed=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(votes)
        outputs, couplings = route(votes)
        value = tf.reduce_sum(outputs * weight)
        held = tf.einsum("bij,bijd->bjd", tf.stop_gradient(couplings), votes)
        value_held = tf.reduce_sum(squash(held) * weight)
        coupled = tf.reduce_sum(couplings[:, :, 0])
    assert abs(float(value - value_held)) < 1e-5  # sums of 24 float32 numbers
    found, last = tape.gradient(value, votes).numpy(), tape.gradient(value_held, votes).numpy()
    assert np.abs(found - last).max() > 0.1 * np.abs(found).max()
    assert np.abs(tape.gradient(coupled, votes)).max() > 0.01


# Mistakes


@pytest.mark.parametrize("iterations", [0, -1, 1.0, True, "3", None])
def test_bad_number_of_iterations(way, iterations):
    with pytest.raises(ValueError) as refused:
        way(*capsules_and_weights(SHAPES[1]), iterations)
    expected = f"Argument `iterations` must be a positive integer. Received: iterations={iterations!r}"
    assert str(refused.value) == expected


def test_three_iterations_are_the_default():
    capsules, weights = capsules_and_weights(SHAPES[1])
    np.testing.assert_array_equal(
        transform_and_route(capsules, weights)[0], transform_and_route(capsules, weights, 3)[0]
    )
    votes = votes_of(capsules, weights)
    np.testing.assert_array_equal(route(votes)[0], route(votes, 3)[0])
