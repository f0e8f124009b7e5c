"""RMSProp as TensorFlow 1 had it: against its formula, its kernel, and Keras' own optimiser."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.optimizers import RMSProp

SHAPES = [(5, 7), (7,), (3, 3, 2, 4), ()]
START = [np.random.default_rng(0).normal(size=shape) for shape in SHAPES]

# Weights of size 1 to 3, known to 2.4e-7: 20 updates of .01 and more, each rounded once, by two orders of operations.
ROUNDING = 5e-6


def variables():
    return [keras.Variable(value.astype("float32"), name=f"v{i}") for i, value in enumerate(START)]


def gradients(steps=20):
    """Of very different sizes, float32."""
    rng = np.random.default_rng(1)
    return [
        [(rng.normal(size=s) * 10.0 ** rng.integers(-4, 3)).astype("float32") for s in SHAPES] for _ in range(steps)
    ]


def trained(optimizer, graph=False, build=True):
    """Weights after 20 steps."""
    weights = variables()
    if build:
        optimizer.build(weights)

    def update(*each):
        optimizer.apply_gradients(zip(each, weights, strict=True))

    update = tf.function(update) if graph else update
    for each in gradients():
        update(*map(tf.constant, each))
    assert int(optimizer.iterations) == 20
    return [weight.numpy() for weight in weights]


def tensorflow_1(rate, rho=0.9, epsilon=1e-10, initial=1.0):
    """v <- rho v + (1 - rho) g^2, w <- w - rate g / sqrt(v + epsilon), in float64."""
    weights, averages = [value.copy() for value in START], [np.full(shape, initial) for shape in SHAPES]
    for each in gradients():
        for number, gradient in enumerate(each):
            gradient = gradient.astype("float64")
            averages[number] = rho * averages[number] + (1 - rho) * gradient**2
            weights[number] = weights[number] - rate * gradient / np.sqrt(averages[number] + epsilon)
    return weights


def assert_same(found, expected, atol=ROUNDING):
    for one, other, before in zip(found, expected, START, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)
        assert np.abs(one - before).max() > 1e-2


@pytest.mark.parametrize(
    "settings",
    [{}, {"epsilon": 0.5}, {"rho": 0.5, "epsilon": 1e-3}, {"initial_accumulator": 0.25}],
    ids=["default", "large epsilon", "quick averages", "another beginning"],
)
def test_equals_the_formula_of_tensorflow_1(settings):
    # An epsilon of .5 tells whether it stands inside the root: sqrt(1.5) = 1.22, but 1 + .5 = 1.5.
    named = {"initial" if name == "initial_accumulator" else name: value for name, value in settings.items()}
    assert_same(trained(RMSProp(1e-2, **settings)), tensorflow_1(1e-2, **named))


def test_first_steps_by_hand():
    # v = .9 + .1 g^2: for g = 2, 1.3, and then 1.57. From averages of nought the first step would be 3.16 times the
    # rate, whatever the gradient.
    optimizer, weight = RMSProp(0.1), keras.Variable(np.zeros(1, "float32"))
    found = []
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([2.0]), weight)])
        found.append(float(weight.numpy()[0]))
    first = -0.1 * 2 / np.sqrt(1.3)
    np.testing.assert_allclose(found, [first, first - 0.1 * 2 / np.sqrt(1.57)], rtol=1e-6)  # float32


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_equals_the_kernel_of_tensorflow_1(momentum):
    expected = []
    for number, value in enumerate(START):
        slots = {
            "var": tf.Variable(value.astype("float32")),
            "ms": tf.Variable(np.ones(value.shape, "float32")),
            "mom": tf.Variable(np.zeros(value.shape, "float32")),
        }
        for each in gradients():
            tf.raw_ops.ResourceApplyRMSProp(
                **{name: slot.handle for name, slot in slots.items()},
                lr=tf.constant(1e-2),
                rho=tf.constant(0.9),
                momentum=tf.constant(momentum),
                epsilon=tf.constant(1e-10),
                grad=tf.constant(each[number]),
            )
        expected.append(slots["var"].numpy())
    assert_same(trained(RMSProp(1e-2, momentum=momentum)), expected)


def test_averages_that_begin_at_nought_make_it_keras_own():
    expected = trained(keras.optimizers.RMSprop(1e-2, rho=0.9, epsilon=1e-10))
    assert_same(trained(RMSProp(1e-2, initial_accumulator=0.0)), expected)
    # And averages that begin at one do not: else nothing is shown.
    other = trained(RMSProp(1e-2))
    assert all(np.abs(one - two).max() > 100 * ROUNDING for one, two in zip(other, expected, strict=True))


def test_graph_equals_eager():
    assert_same(trained(RMSProp(1e-2), graph=True), trained(RMSProp(1e-2)))


def test_graph_that_builds_the_optimiser_equals_eager():
    assert_same(trained(RMSProp(1e-2), graph=True, build=False), trained(RMSProp(1e-2)))


def test_learning_rate_schedule_is_respected():
    # Averages of one and gradients of one stay at one: every update is the learning rate.
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5, staircase=True)
    optimizer, weight = RMSProp(schedule), keras.Variable(np.zeros(2, "float32"))
    optimizer.build([weight])
    step, values = tf.function(functools.partial(optimizer.apply, [tf.ones(2)], [weight])), [0.0]
    for _ in range(7):
        step()
        values.append(float(weight.numpy()[0]))
    # Float32 of numbers up to .5.
    np.testing.assert_allclose(np.diff(values), [-0.1] * 3 + [-0.05] * 3 + [-0.025], rtol=0, atol=1e-6)


def test_built_twice_it_keeps_its_averages():
    optimizer, weight = RMSProp(0.1), keras.Variable(np.zeros(1, "float32"))
    optimizer.apply_gradients([(tf.constant([2.0]), weight)])
    optimizer.build([weight])
    # .9 x 1 + .1 x 4, in float32.
    assert float(optimizer._velocities[0].numpy()[0]) == pytest.approx(1.3, rel=1e-6)


def test_from_its_configuration():
    optimizer = keras.optimizers.deserialize(
        keras.optimizers.serialize(RMSProp(2e-3, rho=0.8, epsilon=1e-5, initial_accumulator=0.5, momentum=0.1))
    )
    assert type(optimizer) is RMSProp
    assert float(optimizer.learning_rate) == pytest.approx(2e-3, rel=1e-6)  # kept in float32
    values = optimizer.rho, optimizer.epsilon, optimizer.initial_accumulator, optimizer.momentum
    assert values == (0.8, 1e-5, 0.5, 0.1)
    default = RMSProp()
    assert (default.rho, default.epsilon, default.initial_accumulator, default.momentum) == (0.9, 1e-10, 1.0, 0.0)


def test_saved_averages_are_not_overwritten_by_their_beginning():
    optimizer, weight = RMSProp(0.1), keras.Variable(np.zeros(2, "float32"))
    optimizer.apply_gradients([(tf.constant([2.0, 0.0]), weight)])
    store = {}
    optimizer.save_own_variables(store)
    other = RMSProp(0.1)
    other.build([keras.Variable(np.zeros(2, "float32"))])
    other.load_own_variables(store)
    assert int(other.iterations) == 1
    np.testing.assert_array_equal(other._velocities[0].numpy(), optimizer._velocities[0].numpy())
    np.testing.assert_allclose(other._velocities[0].numpy(), [1.3, 0.9], rtol=1e-6)  # float32
