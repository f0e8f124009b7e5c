"""The layer whose weights a control makes: against a slow version, by hand, and shared among equal controls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.second_order_dense import SecondOrderDense
from tests.helpers import assert_reached, noise

VALUES, UNITS = 5, 3
# Images of three controls, in no order.
GROUPS = [0, 1, 0, 2, 1, 0, 0]
CONTROLS = noise(3, 2, seed=1)[GROUPS]


def build(hidden=4, shared=True):
    keras.utils.set_random_seed(0)
    layer = SecondOrderDense(UNITS, hidden, shared)
    layer.build((None, VALUES), (None, 2))
    for number, weight in enumerate(layer.weights):
        weight.assign(noise(*weight.shape, seed=number + 5))
    return layer


def oracle(layer, values, controls):
    """One image, output and input at a time, in float64."""
    weights = {weight.name: np.array(weight, "float64") for weight in layer.weights}
    drawn = np.zeros((len(values), UNITS))
    for row, (value, control) in enumerate(zip(values, controls, strict=True)):
        if layer.hidden:
            control = np.maximum(control @ weights["hidden_kernel"] + weights["hidden_bias"], 0)
        logits = (control @ weights["kernel"] + weights["bias"]).reshape(UNITS, VALUES)
        for unit in range(UNITS):
            shares = np.exp(logits[unit]) / np.exp(logits[unit]).sum()
            drawn[row, unit] = sum(share * each for share, each in zip(shares, value, strict=True))
    return drawn


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_agrees_with_the_slow_version(hidden, shared, graph):
    layer, values = build(hidden, shared), noise(len(GROUPS), VALUES)

    def call(values, controls):
        return layer(values, controls)

    # In a graph, of batches of any size.
    specs = [tf.TensorSpec((None, VALUES)), tf.TensorSpec((None, 2))]
    call = tf.function(call, input_signature=specs) if graph else call
    for count in (len(GROUPS), 1):
        found = call(tf.constant(values[:count]), tf.constant(CONTROLS[:count]))
        # Float32 averages of five numbers of size one.
        np.testing.assert_allclose(found, oracle(layer, values, CONTROLS)[:count], rtol=0, atol=1e-6)


def test_a_control_says_which_input_each_output_is():
    layer = build(hidden=0)
    kernel = np.zeros((2, UNITS, VALUES), "float32")
    # The first control reads inputs 4, 0 and 2, the second inputs 1, 3 and 1: all else has e**-100 of the weight.
    kernel[0, range(UNITS), [4, 0, 2]] = kernel[1, range(UNITS), [1, 3, 1]] = 100.0
    layer.kernel.assign(kernel.reshape(2, -1))
    layer.bias.assign(np.zeros(UNITS * VALUES))
    found = layer(np.array([[0.0, 1, 2, 3, 4]] * 2, "float32"), np.eye(2, dtype="float32"))
    np.testing.assert_array_equal(found, [[4, 0, 2], [1, 3, 1]])


def test_outputs_are_averages():
    layer, values = build(), noise(len(GROUPS), VALUES)
    found = np.asarray(layer(values, CONTROLS))
    # Rounding of weights that sum to one.
    assert (found <= values.max(axis=1, keepdims=True) + 1e-6).all()
    assert (found >= values.min(axis=1, keepdims=True) - 1e-6).all()
    np.testing.assert_allclose(layer(np.full_like(values, 0.3), CONTROLS), 0.3, rtol=0, atol=1e-6)


def test_weights_are_made_once_for_equal_controls(monkeypatch):
    layer, made = build(), []
    weights_of = layer.weights_of
    monkeypatch.setattr(layer, "weights_of", lambda controls: made.append(len(controls)) or weights_of(controls))
    layer(noise(len(GROUPS), VALUES), CONTROLS)
    assert made == [3]


def test_gradients_do_not_depend_on_sharing():
    values = tf.constant(noise(len(GROUPS), VALUES))
    found = {}
    for shared in (False, True):
        layer, controls = build(shared=shared), tf.constant(CONTROLS)
        with tf.GradientTape() as tape:
            tape.watch([values, controls])
            loss = tf.reduce_sum(layer(values, controls) ** 3)
        weights = [weight.value for weight in layer.weights]
        *gradients, last = tape.gradient(loss, [values, *weights, controls])
        found[shared] = [*map(tf.convert_to_tensor, gradients), last]
        assert_reached(found[shared][1:-1], layer.weights)
    for one, other in zip(found[False][:-1], found[True][:-1], strict=True):
        # Sums over seven images, in another order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    # Told numbers need none; a control that a network makes does.
    assert found[True][-1] is None and np.abs(found[False][-1]).min() > 0


@pytest.mark.parametrize("hidden", [-1, 2.0, None])
def test_wrong_hidden_units_are_refused(hidden):
    with pytest.raises(ValueError, match=r"^Argument `hidden` must be a non-negative integer\. Received: "):
        SecondOrderDense(3, hidden)
