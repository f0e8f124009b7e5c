"""Adam and RMSProp against their formulas, Keras' own and TensorFlow 1's kernel; compilation; schedules; saving."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.optimizers import Adam, RMSProp, per_step
from tests.helpers import noise

SHAPES = [(5, 7), (7,), (3, 3, 2, 4), ()]
START = [noise(*shape, seed=number, dtype="float64") for number, shape in enumerate(SHAPES)]
ADAM = {"beta_1": 0.95, "beta_2": 0.999, "epsilon": 1e-8}

# Weights of size 1 to 3, known to 2.4e-7: 20 updates of at least .01, each rounded once, in two orders of operations.
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


def assert_same(found, expected, atol=ROUNDING):
    for one, other, before in zip(found, expected, START, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)
        assert np.abs(one - before).max() > 1e-2


# Formulas


def adam(rate, beta_1, beta_2, epsilon):
    """Kingma and Ba, algorithm 1, with epsilon where Keras and TensorFlow have it: added to the uncorrected root."""
    weights, first, second = ([value.copy() * factor for value in START] for factor in (1, 0, 0))
    for step, each in enumerate(gradients(), 1):
        for n, gradient in enumerate(each):
            gradient = gradient.astype("float64")
            first[n] = beta_1 * first[n] + (1 - beta_1) * gradient
            second[n] = beta_2 * second[n] + (1 - beta_2) * gradient**2
            scale = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
            weights[n] = weights[n] - scale * first[n] / (np.sqrt(second[n]) + epsilon)
    return weights


def rmsprop(rate, rho=0.9, epsilon=1e-10, initial_accumulator=1.0):
    """TensorFlow 1: v <- rho v + (1 - rho) g^2, w <- w - rate g / sqrt(v + epsilon), in float64."""
    weights, averages = [value.copy() for value in START], [np.full(shape, initial_accumulator) for shape in SHAPES]
    for each in gradients():
        for n, gradient in enumerate(each):
            gradient = gradient.astype("float64")
            averages[n] = rho * averages[n] + (1 - rho) * gradient**2
            weights[n] = weights[n] - rate * gradient / np.sqrt(averages[n] + epsilon)
    return weights


def test_adam_equals_algorithm_1():
    # .999 and .95 are known to 3e-8 in float32, which for 1 - .999 is 3e-5 of the first updates of .01.
    assert_same(trained(Adam(1e-2, **ADAM)), adam(1e-2, **ADAM), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    # An epsilon of .5 shows whether it is inside the root: sqrt(1.5) = 1.22, but 1 + .5 = 1.5.
    [{}, {"epsilon": 0.5}, {"rho": 0.5, "epsilon": 1e-3}, {"initial_accumulator": 0.25}],
    ids=str,
)
def test_rmsprop_equals_the_formula_of_tensorflow_1(settings):
    assert_same(trained(RMSProp(1e-2, **settings)), rmsprop(1e-2, **settings))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_rmsprop_equals_the_kernel_of_tensorflow_1(momentum):
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


def test_first_steps_of_rmsprop_by_hand():
    # v = .9 + .1 g^2: for g = 2, 1.3, and then 1.57. With averages from zero the first step would be 3.16 times the
    # rate, whatever the gradient.
    optimizer, weight = RMSProp(0.1), keras.Variable(np.zeros(1, "float32"))
    found = []
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([2.0]), weight)])
        found.append(float(weight.numpy()[0]))
    first = -0.1 * 2 / np.sqrt(1.3)
    np.testing.assert_allclose(found, [first, first - 0.1 * 2 / np.sqrt(1.57)], rtol=1e-6)  # float32


# Keras' own


@pytest.mark.parametrize(
    ("graph", "settings"),
    [
        (False, {}),
        (True, {}),
        (False, {"weight_decay": 0.01, "clipnorm": 0.1}),
        (True, {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}),
    ],
)
def test_adam_equals_keras_adam(graph, settings):
    found, expected = (trained(kind(1e-2, **ADAM, **settings), graph) for kind in (Adam, keras.optimizers.Adam))
    assert_same(found, expected)


def test_rmsprop_with_averages_from_zero_equals_keras_rmsprop():
    expected = trained(keras.optimizers.RMSprop(1e-2, rho=0.9, epsilon=1e-10))
    assert_same(trained(RMSProp(1e-2, initial_accumulator=0.0)), expected)
    # With averages from one it does not, or nothing is shown.
    other = trained(RMSProp(1e-2))
    assert all(np.abs(one - two).max() > 100 * ROUNDING for one, two in zip(other, expected, strict=True))


# Compilation


@pytest.mark.parametrize("build", [True, False], ids=["built before", "built in the graph"])
def test_graph_equals_eager(build):
    assert_same(trained(RMSProp(1e-2), graph=True, build=build), trained(RMSProp(1e-2)))


def test_two_sets_of_variables_do_not_mix():
    # Eagerly, the compiled update is kept for each set of variables.
    optimizer, weights = Adam(0.1, **ADAM), variables()
    optimizer.build(weights)
    before = [weight.numpy().copy() for weight in weights]
    for part in (weights[:2], weights[2:3], weights[:2]):
        optimizer.apply([tf.ones(weight.shape) for weight in part], part)
    moved = [not np.array_equal(weight.numpy(), old) for weight, old in zip(weights, before, strict=True)]
    assert moved == [True, True, True, False]


def test_eager_update_is_compiled_once(monkeypatch):
    optimizer, weights, traced = Adam(0.1, **ADAM), variables(), []
    plain = keras.optimizers.Adam.update_step
    monkeypatch.setattr(
        keras.optimizers.Adam, "update_step", lambda self, *arguments: traced.append(1) or plain(self, *arguments)
    )
    for _ in range(5):
        optimizer.apply_gradients([(tf.ones(weight.shape), weight) for weight in weights])
    assert len(traced) == len(weights)


# Learning rates

SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5, staircase=True)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("kind", [functools.partial(Adam, **ADAM), RMSProp], ids=["Adam", "RMSProp"])
def test_learning_rate_schedule(kind, graph):
    # With gradients of 1, Adam's corrected means and RMSProp's averages are 1: every update is the learning rate.
    optimizer, weight = kind(SCHEDULE), keras.Variable(np.zeros(2, "float32"))
    optimizer.build([weight])
    update = functools.partial(optimizer.apply, [tf.ones(2)], [weight])
    step, values = tf.function(update) if graph else update, [0.0]
    for _ in range(7):
        step()
        values.append(float(weight.numpy()[0]))
    # 1 - .999**t in float32 loses three digits in the first steps: 1e-7 / 1e-3, of .1.
    np.testing.assert_allclose(np.diff(values), [-0.1] * 3 + [-0.05] * 3 + [-0.025], rtol=0, atol=1e-5)


def test_learning_rate_can_be_set_between_steps():
    optimizer, weight = Adam(0.1, **ADAM), keras.Variable(np.zeros(2, "float32"))
    optimizer.apply_gradients([(tf.ones(2), weight)])
    optimizer.learning_rate = 0.001
    before = weight.numpy().copy()
    optimizer.apply_gradients([(tf.ones(2), weight)])
    np.testing.assert_allclose(weight.numpy() - before, -0.001, rtol=1e-3)  # 1 - .999**t in float32, as above


def test_learning_rate_of_several_updates_per_step():
    assert per_step(5e-3, 3) == 5e-3
    schedule = per_step(SCHEDULE, 2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule) and again.updates == 2
    for update in range(20):
        # Both updates of a step have that step's rate.
        assert float(schedule(update)) == float(again(update)) == float(SCHEDULE(update // 2))


# Saving


@pytest.mark.parametrize(
    ("optimizer", "defaults"),
    [
        (Adam(2e-3, **ADAM), {}),
        (
            RMSProp(2e-3, rho=0.8, epsilon=1e-5, initial_accumulator=0.5, momentum=0.1),
            {"rho": 0.9, "epsilon": 1e-10, "initial_accumulator": 1.0, "momentum": 0.0},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_configuration(optimizer, defaults):
    serialised = keras.optimizers.serialize(optimizer)
    assert serialised["registered_name"] == f"invariance>{type(optimizer).__name__}"
    again = keras.optimizers.deserialize(serialised)
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()
    assert float(again.learning_rate) == pytest.approx(2e-3, rel=1e-6)  # kept in float32
    assert {name: getattr(type(optimizer)(), name) for name in defaults} == defaults
    assert all(getattr(again, name) != value for name, value in defaults.items())


def test_rmsprop_keeps_its_averages_when_built_again_or_loaded():
    optimizer, weight = RMSProp(0.1), keras.Variable(np.zeros(2, "float32"))
    optimizer.apply_gradients([(tf.constant([2.0, 0.0]), weight)])
    optimizer.build([weight])
    store = {}
    optimizer.save_own_variables(store)
    other = RMSProp(0.1)
    other.build([keras.Variable(np.zeros(2, "float32"))])
    other.load_own_variables(store)
    assert int(other.iterations) == 1
    for each in (optimizer, other):
        # .9 x 1 + .1 x 4, and .9.
        np.testing.assert_allclose(each._velocities[0].numpy(), [1.3, 0.9], rtol=1e-6)  # float32
