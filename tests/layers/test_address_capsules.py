"""Cells chosen by learnt addresses: an oracle by loops, conservation, gradients in a graph as eagerly."""

import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.address_capsules import AddressCapsules
from tests.helpers import assert_reached, noise


def sent(queries, activations, addresses):
    """Oracle: the activation of each capsule is shared out by the softmax of its query's products with addresses."""
    result = np.zeros((len(queries), addresses.shape[1]))
    for image, capsule in np.ndindex(queries.shape[:2]):
        scores = np.exp(queries[image, capsule].astype("float64") @ addresses)
        result[image] += activations[image, capsule] * scores / scores.sum()
    return result


@pytest.fixture
def layer():
    layer = AddressCapsules(11)
    layer.build((None, 5, 3), (None, 5))
    layer.kernel.assign(noise(3, 11, seed=2))
    return layer


INPUTS = noise(4, 5, 3), np.abs(noise(4, 5, seed=1))


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_oracle(layer, in_graph):
    found = (tf.function(layer, autograph=False) if in_graph else layer)(*map(tf.constant, INPUTS))
    # Float32 shares of numbers of size one.
    np.testing.assert_allclose(found, sent(*INPUTS, np.asarray(layer.kernel)), rtol=0, atol=1e-5)
    # Nothing is lost on the way.
    np.testing.assert_allclose(np.sum(found, axis=1), INPUTS[1].sum(axis=1), rtol=1e-5)


def test_capsules_find_the_cell_whose_address_matches(layer):
    layer.kernel.assign(20 * np.eye(3, 11, dtype="float32"))
    queries = np.eye(3, dtype="float32")[[[0, 1, 2, 1, 0]]]
    found = layer(queries, np.array([[1, 2, 4, 8, 16]], "float32"))
    # exp(20) to one.
    np.testing.assert_allclose(found[0], [17, 10, 4, *[0] * 8], rtol=0, atol=1e-5)


def test_gradients_are_the_same_in_a_graph(layer):
    weights = noise(4, 11, seed=3)

    def gradients(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(*inputs) * weights)
        return tape.gradient(loss, [*inputs, layer.kernel.value])

    inputs = tuple(map(tf.constant, INPUTS))
    eager = gradients(*inputs)
    assert_reached(eager, [*map(tf.Variable, inputs), layer.kernel])
    for one, other in zip(tf.function(gradients)(*inputs), eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
