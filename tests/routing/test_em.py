"""EM routing: procedure 1 in NumPy, by hand, its hand-written gradient, what must stay finite. (See test_contracts.)"""

import math

import numpy as np
import pytest
import tensorflow as tf

from invariance.routing.em import Form, e_step, m_step, route, route_compiled
from tests.helpers import noise

# (in_capsules, batch, pose, out_capsules); more than 24 inputs are summed in slices.
SMALL, LARGE = (9, 2, 3, 4), (53, 2, 3, 4)

# Inverse temperatures for activations of some tenths, one for each iteration.
TEMPERATURES = (0.05, 0.1, 0.15)


def program(iterations=2):
    return Form(iterations, TEMPERATURES[:iterations])


def paper(iterations=2):
    return Form(iterations, TEMPERATURES[:iterations], logistic=True, normalised=False)


def mixed(iterations=2):
    return Form(iterations, TEMPERATURES[:iterations], logistic=True, normalised=True)


FORMS = {
    f"{kind.__name__} {iterations}": kind(iterations) for kind in (program, paper, mixed) for iterations in (1, 2, 3)
}
IMPLEMENTATIONS = pytest.mark.parametrize("routing", [route, route_compiled])
TWO_FORMS = pytest.mark.parametrize("form", [program(), paper()], ids=["program", "paper"])

# Float32 has a relative precision of 6e-8; sums have up to 53 terms, and there are exponentials of distances of up to
# about 10, twice.
ROUNDING = 2e-5


def arguments(shape=SMALL, dtype="float32"):
    """Votes, activations in [0.2, 1] and betas."""
    inputs, batch, _, outputs = shape
    activations = noise(inputs, batch, seed=1, spread=(0.2, 1.0), dtype=dtype)
    return noise(*shape, dtype=dtype), activations, noise(outputs, seed=2, dtype=dtype), noise(outputs, seed=3) * 3


def values_and_gradients(routing, form, inputs):
    """Poses, activations and the gradients of a sum in which all of them count."""
    inputs = [tf.constant(part) for part in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        poses, activations = routing(*inputs, form)
        weights = [tf.constant(noise(*part.shape, seed=5), part.dtype) for part in (poses, activations)]
        value = tf.reduce_sum(poses * weights[0]) + 10 * tf.reduce_sum(activations * weights[1])
    return poses, activations, *tape.gradient(value, inputs, unconnected_gradients="zero")


NAMES = ("poses", "activations", "votes", "input activations", "beta_v", "beta_a")


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def procedure_1(votes, input_activations, beta_v, beta_a, form):
    """Hinton et al. (2018), procedure 1, in float64; or the reproduced program, where they differ.

    Returns poses, activations and the smallest variance.
    """
    poses, activations, least = [], [], np.inf
    for n in range(votes.shape[1]):
        vote, assignment = votes[:, n].astype("float64"), 1 / votes.shape[-1]  # (in, pose, out)
        for iteration in range(form.iterations):
            # M step: R_ij <- R_ij a_i; mu_j and sigma_j^2 for each entry h of the pose
            weight = assignment * np.ones_like(vote[:, 0]) * input_activations[:, n, None]
            if form.normalised:
                weight = weight / (weight.sum(axis=1, keepdims=True) + 1e-9)
            mass = weight.sum(axis=0)
            mean = (weight[:, None] * vote).sum(axis=0) / mass
            variance = (weight[:, None] * (vote - mean) ** 2).sum(axis=0) / mass
            cost = ((beta_v + np.log(np.sqrt(variance))) * mass).sum(axis=0)
            score = form.inverse_temperatures[iteration] * (beta_a - cost)
            if form.logistic:
                active = 1 / (1 + np.exp(-score))
            else:
                active = softmax(score if iteration == form.iterations - 1 else mass)
            # E step: p_j is the density of a vote, R_ij <- a_j p_j / sum_j a_j p_j
            density = np.exp(-((vote - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
            assignment = active * density.prod(axis=1)
            assignment = assignment / assignment.sum(axis=1, keepdims=True)
        poses.append(mean)
        activations.append(active)
        least = min(least, variance.min())
    return np.stack(poses), np.stack(activations), least


# Procedure 1


@pytest.mark.parametrize("name", FORMS)
@IMPLEMENTATIONS
def test_equals_procedure_1(routing, name):
    inputs, form = arguments(), FORMS[name]
    poses, activations, least = procedure_1(*inputs, form)
    # Or rounding errors would grow without bound, and the activations would show nothing.
    assert least > 1e-3 and np.ptp(activations) > 0.02
    found = routing(*map(tf.constant, inputs), form)
    np.testing.assert_allclose(found[0], poses, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(found[1], activations, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", FORMS)
def test_many_inputs_in_float64_equal_procedure_1(name):
    inputs = [part.astype("float64") for part in arguments(LARGE, "float64")]
    poses, activations, _ = procedure_1(*inputs, FORMS[name])
    found = route(*map(tf.constant, inputs), FORMS[name])
    assert found[0].dtype == found[1].dtype == tf.float64
    # The 1e-9 added to variances and masses.
    np.testing.assert_allclose(found[0], poses, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[1], activations, rtol=0, atol=1e-7)


def test_one_iteration_by_hand():
    # Two inputs with activation 1 vote 1 and 3 for the first output, 0 and 4 for the second: means of 2, variances of 1
    # and 4, masses of 2 / 2 = 1. Costs are log sigma = 0 and log 2. With lambda 1, exp(-cost) is 1 and 1/2: shares of
    # 2/3 and 1/3; with the logistic function, 1/2 and 1 / (1 + 2).
    votes = np.array([[[[1.0, 0.0]]], [[[3.0, 4.0]]]])
    for logistic, expected in ((False, [2 / 3, 1 / 3]), (True, [1 / 2, 1 / 3])):
        form = Form(1, 1.0, logistic, not logistic)
        poses, activations = route(votes, np.ones((2, 1)), np.zeros(2), np.zeros(2), form)
        np.testing.assert_allclose(poses, [[[2.0, 2.0]]], rtol=0, atol=1e-8)  # the 1e-9 added to the mass
        np.testing.assert_allclose(activations, [expected], rtol=0, atol=1e-8)


def test_iterations_and_every_part_of_the_form_matter():
    inputs = arguments()
    results = [np.concatenate([np.ravel(part) for part in route(*inputs, form)]) for form in FORMS.values()]
    for number, one in enumerate(results):
        for other in results[:number]:
            assert np.abs(one - other).max() > 100 * ROUNDING
    for logistic in (False, True):
        # Normalisation matters when activations differ.
        one, other = (route(*inputs, Form(2, 0.1, logistic, normalised))[0] for normalised in (False, True))
        assert np.abs(one - other).max() > 100 * ROUNDING


# Properties


def test_assignments_sum_to_one_over_the_output_capsules():
    votes, activations, _, _ = arguments()
    mean, variance, mass = m_step(votes, activations[..., None] / np.ones(4, "float32"))
    assert mass.shape == (2, 1, 4)
    found = np.asarray(e_step(votes, mean, variance, np.log(np.full((2, 1, 4), 0.25, "float32"))))
    assert found.shape == (9, 2, 4) and found.min() >= 0
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=0, atol=1e-6)  # four float32 numbers
    # Over the input capsules they do not.
    assert np.abs(found.sum(0) - 1).max() > 0.1


@IMPLEMENTATIONS
@TWO_FORMS
def test_translated_votes_translate_the_poses(routing, form):
    votes, *others = map(tf.constant, arguments())
    poses, activations = routing(votes, *others, form)
    translation = np.array([1.0, -2.0, 0.5], "float32")[:, None]
    found = routing(votes + translation, *others, form)
    np.testing.assert_allclose(found[0], poses + translation, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(found[1], activations, rtol=0, atol=ROUNDING)


@TWO_FORMS
def test_one_input_capsule_passes_its_votes_on(form):
    inputs = arguments((1, 2, 3, 4))
    poses, activations, *gradients = values_and_gradients(route, form, inputs)
    # The 1e-9 added to the mass, and float32.
    np.testing.assert_allclose(poses, inputs[0][0], rtol=0, atol=1e-5)
    for part in (activations, *gradients):
        assert np.isfinite(part).all()


def test_only_the_sum_of_beta_v_over_the_pose_matters():
    votes, activations, beta_v, beta_a = arguments()
    each = np.asarray(beta_v)[:, None] + np.linspace(-1.0, 1.0, votes.shape[2], dtype="float32")
    expected = route(votes, activations, beta_v, beta_a, paper())
    found = route(votes, activations, each, beta_a, paper())
    for one, other in zip(found, expected, strict=True):
        # Sums of as many terms of order one in a different order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# The hand-written gradient


@pytest.mark.parametrize(
    ("form", "shape"),
    [(program(), SMALL), (program(), LARGE), (program(3), SMALL), (paper(), SMALL), (paper(3), LARGE)],
    ids=["program 2", "program 2 large", "program 3", "paper 2", "paper 3 large"],
)
def test_hand_written_gradient(form, shape):
    results = [values_and_gradients(routing, form, arguments(shape)) for routing in (route, route_compiled)]
    for name, one, other in zip(NAMES, *results, strict=True):
        if name == "input activations" and form.normalised:
            # They all but cancel: a / (a + 1e-9) has a slope of 1e-9 / a^2, below the resolution of float32.
            continue
        scale = np.abs(one).max()
        assert scale > 1e-3, name
        # Gradients go through the sums twice as often.
        np.testing.assert_allclose(other, one, rtol=0, atol=5 * ROUNDING * max(scale, 1.0), err_msg=name)


# What must stay finite

DIFFICULT = {
    "zero activations": lambda votes, activations: (votes, 0 * activations),
    "one active": lambda votes, activations: (votes, activations * (np.arange(len(votes)) == 0)[:, None]),
    "identical votes": lambda votes, activations: (0 * votes + votes[:1], activations),
    "zero votes": lambda votes, activations: (0 * votes, activations),
    "huge votes": lambda votes, activations: (1e4 * votes, activations),
}


@pytest.mark.parametrize("case", DIFFICULT)
@pytest.mark.parametrize("form", [program(), paper(), paper(3)], ids=["program 2", "paper 2", "paper 3"])
@IMPLEMENTATIONS
def test_stays_finite(routing, form, case):
    votes, activations, *betas = arguments()
    votes, activations = (part.astype("float32") for part in DIFFICULT[case](votes, activations))
    results = values_and_gradients(routing, form, (votes, activations, *betas))
    for name, part in zip(NAMES, results, strict=True):
        assert np.isfinite(part).all(), name
    assert np.min(results[1]) >= 0 and np.max(results[1]) <= 1


# Form


def test_default_is_the_program():
    assert Form() == Form(2, 0.01, logistic=False, normalised=True) == Form(2, (0.01, 0.01)) == Form(2, [0.01, 0.01])
    assert Form().inverse_temperatures == (0.01, 0.01)
    assert hash(Form()) == hash(Form(2, [0.01, 0.01]))
    inputs = arguments()
    for one, other in zip(route(*inputs), route(*inputs, Form()), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("iterations", [0, -1, 2.0, True, "2", None])
def test_wrong_iterations(iterations):
    with pytest.raises(ValueError, match=r"^Argument `iterations` must be a positive integer") as refused:
        Form(iterations)
    assert str(refused.value).endswith(repr(iterations))


@pytest.mark.parametrize(
    "temperatures",
    [0, 0.0, -1, math.inf, math.nan, (0.1,), (0.1, 0.1, 0.1), (0.1, -1.0), (), "0.01", None, "ab", (None, 0.1)],
    ids=str,
)
def test_wrong_inverse_temperatures(temperatures):
    with pytest.raises(ValueError) as refused:
        Form(2, temperatures)
    assert str(refused.value) == (
        "Argument `inverse_temperatures` must be a positive number, or one for each of the 2 iterations. "
        f"Received: {temperatures!r}"
    )
