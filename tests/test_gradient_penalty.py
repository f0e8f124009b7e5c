"""The gradient penalty: critics whose slope is known, and a small network against slow differences in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.fast import LargeDense
from invariance.losses import gradient_penalty

BATCH, DIMENSION = 6, 3

# Float32 norms of size 1 to 30, squared and averaged.
ROUNDING = 2e-5


def batches(seed=0):
    """real, fake: (batch, dimension); mixing: (batch,); float32."""
    rng = np.random.default_rng(seed)
    real, fake = rng.uniform(-1, 1, (BATCH, DIMENSION)), rng.normal(size=(BATCH, DIMENSION))
    return tuple(part.astype("float32") for part in (real, fake, rng.uniform(size=BATCH)))


def penalty(critic, real, fake, mixing, per_sample=True):
    return gradient_penalty(critic, *map(tf.constant, (real, fake, mixing)), per_sample)


def mixtures(real, fake, mixing, per_sample):
    """The points, one after the other: each pair with its own coefficient, or every coefficient with every pair."""
    real, fake, mixing = (part.astype("float64") for part in (real, fake, mixing))
    points = []
    for i in range(BATCH):
        for j in range(BATCH):
            if not per_sample or i == j:
                points.append(mixing[i] * real[j] + (1 - mixing[i]) * fake[j])
    return points


# Known slopes


@pytest.mark.parametrize("seed", [0, 1])
def test_linear_critic(seed):
    # Its slope is w everywhere: a norm |w| for each sample; over batch x batch points together sqrt(batch^2) |w|.
    w = np.array([[1.0], [-2.0], [2.0]], "float32")

    def critic(points):
        return points @ w + 7.0

    assert float(penalty(critic, *batches(seed))) == pytest.approx((3.0 - 1) ** 2, rel=ROUNDING)
    assert float(penalty(critic, *batches(seed), per_sample=False)) == pytest.approx(
        (BATCH * 3.0 - 1) ** 2, rel=ROUNDING
    )


def test_linear_critic_of_slope_one_costs_nothing():
    w = np.array([[0.6], [0.0], [-0.8]], "float32")
    # The square of a norm's rounding.
    assert float(penalty(lambda points: points @ w, *batches())) < 1e-12


def half_square(points):
    """|x|^2 / 2, whose slope at x is x itself."""
    return tf.reduce_sum(points**2, axis=-1, keepdims=True) / 2


@pytest.mark.parametrize("end, of", [(0.0, 1), (1.0, 0)])
def test_mixing_goes_from_the_fake_to_the_real(end, of):
    given = batches()
    norms = np.linalg.norm(given[of].astype("float64"), axis=-1)
    found = penalty(half_square, *given[:2], np.full(BATCH, end, "float32"))
    assert float(found) == pytest.approx(((norms - 1) ** 2).mean(), rel=ROUNDING)


def test_norm_for_each_sample():
    given = batches()
    norms = np.linalg.norm(mixtures(*given, per_sample=True), axis=-1)
    assert len(norms) == BATCH
    assert float(penalty(half_square, *given)) == pytest.approx(((norms - 1) ** 2).mean(), rel=ROUNDING)


def test_batchwide_penalty_takes_one_norm_over_all_mixtures():
    given = batches()
    points = mixtures(*given, per_sample=False)
    assert len(points) == BATCH**2
    norm = np.sqrt(sum((point**2).sum() for point in points))
    seen = []

    def critic(points):
        seen.append(points.shape)
        return half_square(points)

    assert float(penalty(critic, *given, per_sample=False)) == pytest.approx((norm - 1) ** 2, rel=ROUNDING)
    assert seen == [(BATCH**2, DIMENSION)]


# A small network

UNITS = 4


def network(seed=2):
    """Weights of v tanh(W x + b), float64."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(DIMENSION, UNITS)), rng.normal(size=UNITS), rng.normal(size=(UNITS, 1))


def slow(weights, given, per_sample):
    """The penalty in float64, gradients by central differences."""
    kernel, bias, last = weights
    points = mixtures(*given, per_sample)

    def score(point):
        return (np.tanh(point @ kernel + bias) @ last)[0]

    # Differences over 2e-5: exact to some (1e-5)^2 and to 1e-16 / 1e-5.
    shifts = 1e-5 * np.eye(DIMENSION)
    slopes = [[(score(point + shift) - score(point - shift)) / 2e-5 for shift in shifts] for point in points]
    squares = np.square(slopes).sum(axis=-1)
    norms = np.sqrt(squares if per_sample else squares.sum())
    return np.mean((norms - 1) ** 2)


@pytest.mark.parametrize("per_sample", [True, False])
def test_penalty_of_a_network_and_its_gradient(per_sample):
    weights, given = network(), batches()
    variables = [tf.Variable(weight.astype("float32")) for weight in weights]

    def critic(points):
        return tf.tanh(points @ variables[0] + variables[1]) @ variables[2]

    with tf.GradientTape() as tape:
        found = penalty(critic, *given, per_sample)
    gradients = tape.gradient(found, variables)
    assert float(found) == pytest.approx(slow(weights, given, per_sample), rel=ROUNDING)
    # Each weight moved by 1e-4: exact to some 1e-8 of the size, and the inner differences' 1e-10 / 1e-4. Float32
    # through two derivatives: ten times what the penalty needs.
    for which, gradient in enumerate(gradients):
        expected = np.zeros(weights[which].shape)
        for place in np.ndindex(*expected.shape):
            ends = []
            for step in (1e-4, -1e-4):
                moved = [weight.copy() for weight in weights]
                moved[which][place] += step
                ends.append(slow(moved, given, per_sample))
            expected[place] = (ends[0] - ends[1]) / 2e-4
        size = np.abs(expected).max()
        assert size > 0.1
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=10 * ROUNDING * size)


def test_critic_whose_products_are_compiled(monkeypatch):
    """The published critic's `LargeDense` writes its own gradient: its second one must be right, too."""
    monkeypatch.setattr(LargeDense, "_FEWEST_WEIGHTS", 1)
    results = []
    for kind in (LargeDense, keras.layers.Dense):
        layers = [kind(8, "tanh"), kind(8, "softplus"), keras.layers.Dense(1)]
        rng = np.random.default_rng(0)
        for layer, size in zip(layers, (DIMENSION, 8, 8), strict=True):
            layer.build((None, size))
            layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])

        def critic(points, layers=layers):
            for layer in layers:
                points = layer(points, training=True) if isinstance(layer, LargeDense) else layer(points)
            return points

        with tf.GradientTape() as tape:
            found = penalty(critic, *batches())
        kernels = [layer.kernel.value for layer in layers]
        results.append([found, *tape.gradient(found, kernels)])
    for one, other in zip(*results, strict=True):
        assert np.abs(other).max() > 1e-2
        np.testing.assert_allclose(one, other, rtol=0, atol=10 * ROUNDING * np.abs(other).max())


def test_graph_equals_eager():
    given, kernel = batches(), tf.Variable(network()[0].astype("float32"))

    def critic(points):
        return tf.reduce_sum(tf.tanh(points @ kernel), axis=-1, keepdims=True)

    def both(real, fake, mixing):
        with tf.GradientTape() as tape:
            found = gradient_penalty(critic, real, fake, mixing)
        return found, tape.gradient(found, kernel)

    # A batch whose size is not known when it is traced.
    traced = tf.function(
        both,
        input_signature=[tf.TensorSpec((None, DIMENSION)), tf.TensorSpec((None, DIMENSION)), tf.TensorSpec((None,))],
    )
    for one, other in zip(traced(*given), both(*map(tf.constant, given)), strict=True):
        np.testing.assert_allclose(one, other, rtol=ROUNDING, atol=1e-6)


@pytest.mark.parametrize("per_sample", [True, False])
def test_flat_critic_has_a_finite_gradient(per_sample):
    # sqrt(0) has none; with 1e-12 under the root the norm is 1e-6, and the penalty (1 - 1e-6)^2.
    w = tf.Variable(np.zeros((DIMENSION, 1), "float32"))
    with tf.GradientTape() as tape:
        found = penalty(lambda points: points @ w, *batches(), per_sample)
    assert float(found) == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(tape.gradient(found, w)).all()
