"""Properties of every routing function: equivariance, independent images, compilation, unknown batches, gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from invariance.routing import dynamic, em
from tests.helpers import noise


@dataclass(frozen=True)
class Routing:
    """A routing function and inputs for it.

    ``axes`` names the axes of inputs and outputs as einsum does: b images, i input capsules, j output capsules, all
    others entries of a capsule.
    """

    function: Callable
    inputs: list[np.ndarray]
    axes: str
    rounding: float

    @property
    def sides(self):
        """Names of the axes of each input, and of each output."""
        return [side.split(",") for side in self.axes.split("->")]


def route_votes_of(capsules, weights, iterations=3):
    return dynamic.route(tf.einsum("bik,ijdk->bijd", capsules, weights), iterations)


# Sums over the input capsules have a length of about one, where squash is steepest and couplings differ.
CAPSULES = [noise(2, 7, 4), (noise(7, 3, 5, 4, seed=1) * 3 / np.sqrt(7 * 4 * 5)).astype("float32")]
VOTES = [noise(9, 2, 3, 4), noise(9, 2, spread=(0.2, 1.0)), noise(4, seed=2), 3 * noise(4, seed=3)]


def by_agreement(function):
    # Float32 sums of up to 30 terms, and an exponential of an agreement of size 1.
    return Routing(function, CAPSULES, "bik,ijdk->bjd,bij", 5e-6)


def by_em(function, *form, iterations=2):
    # Float32 exponentials of distances of up to about 10, twice.
    form = em.Form(iterations, (0.05, 0.1, 0.15)[:iterations], *form)
    return Routing(lambda *inputs: function(*inputs, form), VOTES, "ibhj,ib,j,j->bhj,bj", 2e-5)


PAPER = True, False
ROUTINGS = {
    "agreement": by_agreement(route_votes_of),
    "agreement without votes": by_agreement(dynamic.transform_and_route),
    "EM of the program": by_em(em.route),
    "EM of the paper": by_em(em.route, *PAPER),
    "compiled EM of the program": by_em(em.route_compiled),
    "compiled EM of the paper": by_em(em.route_compiled, *PAPER),
}


@pytest.fixture(params=ROUTINGS)
def routing(request):
    return ROUTINGS[request.param]


def assert_close(found, expected, rounding):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rounding)


def take(arrays, axes, axis, rows):
    """The arrays with these rows of the axis of that name; those without it as they are."""
    return [
        np.take(array, rows, names.index(axis)) if axis in names else np.asarray(array)
        for array, names in zip(arrays, axes, strict=True)
    ]


def test_permuted_inputs_permute_the_outputs(routing):
    # Along every axis; the order of input capsules does not appear in the outputs, except in the couplings.
    given, returned = routing.sides
    inputs = routing.inputs
    expected = routing.function(*inputs)
    for axis in sorted({name for names in given for name in names}):
        size = next(array.shape[names.index(axis)] for array, names in zip(inputs, given, strict=True) if axis in names)
        order = np.roll(np.random.default_rng(3).permutation(size), 1)
        found = routing.function(*take(inputs, given, axis, order))
        assert_close(found, take(expected, returned, axis, order), routing.rounding)


def test_images_are_routed_separately(routing):
    given, returned = routing.sides
    inputs = routing.inputs
    alone = routing.function(*take(inputs, given, "b", [1]))
    assert_close(alone, take(routing.function(*inputs), returned, "b", [1]), routing.rounding)


def test_number_of_images_may_be_unknown(routing):
    inputs = routing.inputs
    signature = [
        tf.TensorSpec([None if name == "b" else size for name, size in zip(names, array.shape, strict=True)])
        for array, names in zip(inputs, routing.sides[0], strict=True)
    ]
    compiled = tf.function(routing.function, input_signature=signature, autograph=False)
    assert_close(compiled(*inputs), routing.function(*inputs), routing.rounding)


def outputs_and_gradients(routing, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = routing.function(*inputs)
        value = sum(tf.reduce_sum(part * noise(*part.shape, seed=5)) for part in outputs)
    return *outputs, *tape.gradient(value, inputs)


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(routing, xla):
    inputs = [tf.constant(part) for part in routing.inputs]
    compiled = tf.function(lambda *inputs: outputs_and_gradients(routing, inputs), jit_compile=xla, autograph=False)
    for one, other in zip(compiled(*inputs), outputs_and_gradients(routing, inputs), strict=True):
        # Gradients go through the sums twice as often.
        np.testing.assert_allclose(one, other, rtol=0, atol=2 * routing.rounding * max(1.0, np.abs(other).max()))


# Compiled EM routing computes in float32; test_em compares its gradient with that of the other.
ITERATIONS = (1, 2, 3)
DIFFERENTIATED = {
    **{f"agreement {n}": by_agreement(partial(route_votes_of, iterations=n)) for n in ITERATIONS},
    **{f"without votes {n}": by_agreement(partial(dynamic.transform_and_route, iterations=n)) for n in ITERATIONS},
    **{f"program {n}": by_em(em.route, iterations=n) for n in ITERATIONS},
    **{f"paper {n}": by_em(em.route, *PAPER, iterations=n) for n in ITERATIONS},
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradient_equals_finite_differences(name):
    routing, step = DIFFERENTIATED[name], 1e-5
    # One image, three input capsules, two of everything else.
    inputs = [part.astype("float64") for part in routing.inputs]
    for axis in "bijdhk":
        inputs = take(inputs, routing.sides[0], axis, range({"b": 1, "i": 3}.get(axis, 2)))

    def value(*inputs):
        outputs = routing.function(*inputs)
        return sum(tf.reduce_sum(part * noise(*part.shape, seed=5, dtype="float64")) for part in outputs)

    tensors = [tf.constant(part) for part in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = value(*tensors)
    for which, found in enumerate(tape.gradient(total, tensors)):
        # Every input matters; but the program's normalisation all but cancels activations, a / (a + 1e-9).
        assert np.abs(found).max() > (1e-11 if name.startswith("program") and which == 1 else 1e-3)
        for place in np.ndindex(*found.shape):
            ends = []
            for sign in (1, -1):
                moved = [part.copy() for part in inputs]
                moved[which][place] += sign * step
                ends.append(float(value(*moved)))
            # Float64: 1e-15 / 1e-5 from rounding, and the square of the step times a third derivative of up to 1e3.
            assert abs(found.numpy()[place] - (ends[0] - ends[1]) / (2 * step)) < 1e-7
