"""EM routing: procedure 1 by loops, gradients, symmetries, what must stay finite."""

import math
from functools import lru_cache

import numpy as np
import pytest
import tensorflow as tf

from invariance.routing.em import Form, e_step, m_step, route, route_compiled

# (in_capsules, batch, pose, out_capsules); more than 24 inputs are summed in slices.
SMALL, LARGE = (9, 2, 3, 4), (53, 2, 3, 4)

# Inverse temperatures that make activations of some tenths, each iteration's its own.
TEMPERATURES = (0.05, 0.1, 0.15)


def program(iterations=2):
    return Form(iterations, TEMPERATURES[:iterations])


def paper(iterations=2):
    return Form(iterations, TEMPERATURES[:iterations], logistic=True, normalised=False)


FORMS = {f"{kind.__name__} {iterations}": kind(iterations) for kind in (program, paper) for iterations in (1, 2, 3)}
WAYS = {"route": route, "route_compiled": route_compiled}

# Float32 of relative precision 6e-8, in sums of up to 53 terms and exponentials of distances of up to some 10, twice.
ROUNDING = 2e-5


def numbers(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def arguments(shape=SMALL, dtype="float32"):
    """Votes, activations in [0.2, 1] and betas."""
    inputs, _, _, outputs = shape
    activations = np.random.default_rng(1).uniform(0.2, 1.0, shape[:2]).astype(dtype)
    votes = numbers(*shape, dtype=dtype)
    assert activations.shape[0] == inputs
    return votes, activations, numbers(outputs, seed=2, dtype=dtype), 3 * numbers(outputs, seed=3, dtype=dtype)


@lru_cache
def traced(way, form):
    """Values and gradients in a TensorFlow function, of a sum in which all poses and activations count."""

    def both(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            poses, activations = way(*inputs, form)
            weights = [tf.constant(numbers(*part.shape, seed=5), part.dtype) for part in (poses, activations)]
            value = tf.reduce_sum(poses * weights[0]) + 10 * tf.reduce_sum(activations * weights[1])
        return poses, activations, *tape.gradient(value, inputs, unconnected_gradients="zero")

    return tf.function(both, autograph=False)


def called(name, form, inputs):
    """Poses (batch, pose, out_capsules) and activations (batch, out_capsules)."""
    return [np.asarray(part) for part in traced(WAYS[name], form)(*map(tf.constant, inputs))[:2]]


def softmax(values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def procedure_1(votes, input_activations, beta_v, beta_a, form):
    """Hinton et al. (2018), procedure 1, by loops in float64; or, where they differ, the program (PROTOCOL 1.3)."""
    votes = np.asarray(votes, "float64")
    inputs, batch, pose, outputs = votes.shape
    poses, activations, variances = np.zeros(votes.shape[1:]), np.zeros((batch, outputs)), np.zeros(votes.shape[1:])
    for n in range(batch):
        assignment = np.full((inputs, outputs), 1 / outputs)
        for iteration in range(form.iterations):
            # M step
            weight = np.zeros((inputs, outputs))
            for i in range(inputs):
                for j in range(outputs):
                    weight[i, j] = assignment[i, j] * float(input_activations[i, n])
                if form.normalised:
                    total = sum(weight[i, j] for j in range(outputs))
                    for j in range(outputs):
                        weight[i, j] /= total + 1e-9
            mass, cost = [0.0] * outputs, [0.0] * outputs
            for j in range(outputs):
                mass[j] = sum(weight[i, j] for i in range(inputs))
                for h in range(pose):
                    mean = sum(weight[i, j] * votes[i, n, h, j] for i in range(inputs)) / mass[j]
                    square = sum(weight[i, j] * (votes[i, n, h, j] - mean) ** 2 for i in range(inputs)) / mass[j]
                    poses[n, h, j], variances[n, h, j] = mean, square
                    cost[j] += (float(beta_v[j]) + math.log(math.sqrt(square))) * mass[j]
            temperature = form.inverse_temperatures[iteration]
            scores = [temperature * (float(beta_a[j]) - cost[j]) for j in range(outputs)]
            if form.logistic:
                activations[n] = [1 / (1 + math.exp(-score)) for score in scores]
            else:
                activations[n] = softmax(scores if iteration == form.iterations - 1 else mass)
            # E step
            for i in range(inputs):
                share = [0.0] * outputs
                for j in range(outputs):
                    density = activations[n, j]
                    for h in range(pose):
                        away, variance = votes[i, n, h, j] - poses[n, h, j], variances[n, h, j]
                        density *= math.exp(-(away**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
                    share[j] = density
                for j in range(outputs):
                    assignment[i, j] = share[j] / sum(share)
    return poses, activations, variances.min()


# Procedure 1


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_equals_procedure_1(way, name):
    inputs, form = arguments(), FORMS[name]
    poses, activations, least = procedure_1(*inputs, form)
    # Or rounding would grow without bound, and the activations would show nothing.
    assert least > 1e-3 and np.ptp(activations) > 0.02
    found = called(way, form, inputs)
    np.testing.assert_allclose(found[0], poses, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(found[1], activations, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", FORMS)
def test_many_inputs_in_float64_equal_procedure_1(name):
    inputs = arguments(LARGE, "float64")
    poses, activations, _ = procedure_1(*inputs, FORMS[name])
    found = route(*map(tf.constant, inputs), FORMS[name])
    assert found[0].dtype == found[1].dtype == tf.float64
    # The 1e-9 beside variances and masses.
    np.testing.assert_allclose(found[0], poses, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[1], activations, rtol=0, atol=1e-7)


def test_one_iteration_by_hand():
    # Two inputs, sure, that vote 1 and 3 for the first output and 0 and 4 for the second: means of 2, variances of 1
    # and 4, masses of 2 / 2 = 1. Costs are log sigma = 0 and log 2; lambda 1 makes exp(-cost) 1 and 1/2, shares of 2/3
    # and 1/3; logistically 1/2 and 1 / (1 + 2).
    votes = np.array([[[[1.0, 0.0]]], [[[3.0, 4.0]]]])
    for logistic, expected in ((False, [2 / 3, 1 / 3]), (True, [1 / 2, 1 / 3])):
        form = Form(1, 1.0, logistic, not logistic)
        poses, activations = route(votes, np.ones((2, 1)), np.zeros(2), np.zeros(2), form)
        np.testing.assert_allclose(poses, [[[2.0, 2.0]]], rtol=0, atol=1e-8)  # the 1e-9 beside the mass
        np.testing.assert_allclose(activations, [expected], rtol=0, atol=1e-8)


def test_iterations_and_parts_of_the_form_matter():
    inputs = arguments()
    results = [np.concatenate([part.ravel() for part in called("route", form, inputs)]) for form in FORMS.values()]
    for number, one in enumerate(results):
        for other in results[:number]:
            assert np.abs(one - other).max() > 100 * ROUNDING
    for logistic in (False, True):
        # Normalisation matters as activations differ.
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", [program(), paper()], ids=["program", "paper"])
def test_moved_votes_move_the_poses(way, form):
    inputs = arguments()
    poses, activations = called(way, form, inputs)
    move = np.array([1.0, -2.0, 0.5], "float32")[:, None]
    moved = called(way, form, (inputs[0] + move, *inputs[1:]))
    np.testing.assert_allclose(moved[0], poses + move, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(moved[1], activations, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", [program(), paper()], ids=["program", "paper"])
def test_order_of_the_input_capsules_does_not_matter(way, form):
    votes, activations, *betas = arguments()
    order = np.random.default_rng(3).permutation(len(votes))
    expected = called(way, form, (votes, activations, *betas))
    permuted = called(way, form, (votes[order], activations[order], *betas))
    for one, other in zip(permuted, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)  # sums in another order


@pytest.mark.parametrize("way", WAYS)
def test_order_of_output_capsules_images_and_pose_entries_is_kept(way):
    votes, activations, beta_v, beta_a = arguments()
    poses, active = called(way, paper(), (votes, activations, beta_v, beta_a))
    turned = votes[:, ::-1, ::-1, ::-1], activations[:, ::-1], beta_v[::-1], beta_a[::-1]
    found = called(way, paper(), turned)
    np.testing.assert_allclose(found[0], poses[::-1, ::-1, ::-1], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(found[1], active[::-1, ::-1], rtol=0, atol=ROUNDING)


# The two ways


@pytest.mark.parametrize(
    ("form", "shape"),
    [(program(), SMALL), (program(), LARGE), (program(3), SMALL), (paper(), SMALL), (paper(3), LARGE)],
    ids=["program 2", "program 2 large", "program 3", "paper 2", "paper 3 large"],
)
def test_both_ways_are_the_same_and_so_are_their_gradients(form, shape):
    inputs = [tf.constant(part) for part in arguments(shape)]
    results = [traced(way, form)(*inputs) for way in (route, route_compiled)]
    names = ["poses", "activations", "votes", "input activations", "beta_v", "beta_a"]
    for name, one, other in zip(names, *results, strict=True):
        if name == "input activations" and form.normalised:
            # They all but cancel: a / (a + 1e-9) has the slope 1e-9 / a^2, which float32 does not see.
            continue
        scale = np.abs(one).max()
        assert scale > 1e-3, name
        # Gradients go through the sums, twice as many of them.
        np.testing.assert_allclose(other, one, rtol=0, atol=5 * ROUNDING * max(scale, 1.0), err_msg=name)


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("way", WAYS)
def test_compiled_equals_eager(way, xla):
    inputs = [tf.constant(part) for part in arguments()]
    expected = route(*inputs, paper())
    found = tf.function(lambda *inputs: WAYS[way](*inputs, paper()), jit_compile=xla)(*inputs)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)


def test_number_of_images_may_be_unknown():
    votes, *others = map(tf.constant, arguments())
    for way in WAYS.values():
        function = tf.function(lambda votes, activations, *betas, way=way: way(votes, activations, *betas, paper()))
        shapes = tf.TensorSpec((9, None, 3, 4)), tf.TensorSpec((9, None))
        poses, active = function.get_concrete_function(*shapes, *others[1:])(votes, *others)
        for one, other in zip((poses, active), route(votes, *others, paper()), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING)


# Gradients


@pytest.mark.parametrize("name", FORMS)
def test_gradient_equals_finite_differences(name):
    inputs, step, form = arguments((5, 1, 2, 3), "float64"), 1e-6, FORMS[name]
    weight = numbers(1, 2, 3, seed=5, dtype="float64")

    def value(*inputs):
        poses, activations = route(*inputs, form)
        return tf.reduce_sum(poses * weight) + 10 * tf.reduce_sum(activations * weight[:, 0])

    tensors = [tf.constant(part) for part in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = value(*tensors)
    gradients = tape.gradient(total, tensors)
    # Every part has a say, but for input activations that cancel.
    assert all(np.abs(found).max() > (1e-10 if number == 1 else 1e-2) for number, found in enumerate(gradients))
    for which, found in enumerate(gradients):
        for place in np.ndindex(*found.shape):
            ends = []
            for sign in (1, -1):
                moved = [part.copy() for part in inputs]
                moved[which][place] += sign * step
                ends.append(float(value(*moved)))
            # Float64: 1e-15 / 1e-6 from rounding, and the square of the step times a third derivative of up to 1e4.
            assert abs(found.numpy()[place] - (ends[0] - ends[1]) / (2 * step)) < 2e-8


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
@pytest.mark.parametrize("way", WAYS)
def test_stays_finite(way, form, case):
    votes, activations, *betas = arguments()
    votes, activations = (part.astype("float32") for part in DIFFICULT[case](votes, activations))
    results = traced(WAYS[way], form)(*map(tf.constant, (votes, activations, *betas)))
    for name, part in zip(["poses", "activations", "votes", "inputs", "beta_v", "beta_a"], results, strict=True):
        assert np.isfinite(part).all(), name
    assert np.min(results[1]) >= 0 and np.max(results[1]) <= 1


@pytest.mark.parametrize("form", [program(), paper()], ids=["program", "paper"])
def test_one_input_capsule_gives_its_votes(form):
    inputs = arguments((1, 2, 3, 4))
    poses, activations, *gradients = traced(route, form)(*map(tf.constant, inputs))
    # The 1e-9 beside the mass, and float32.
    np.testing.assert_allclose(poses, inputs[0][0], rtol=0, atol=1e-5)
    for part in (activations, *gradients):
        assert np.isfinite(part).all()


# Form


def test_default_is_the_program():
    assert Form() == Form(2, 0.01, logistic=False, normalised=True) == Form(2, (0.01, 0.01)) == Form(2, [0.01, 0.01])
    assert Form().inverse_temperatures == (0.01, 0.01)
    assert hash(Form()) == hash(Form(2, [0.01, 0.01]))
    inputs = arguments()
    for one, other in zip(route(*inputs), route(*inputs, Form()), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("iterations", [0, -1, 2.0, True, "2", None])
def test_bad_iterations(iterations):
    with pytest.raises(ValueError) as refused:
        Form(iterations)
    expected = f"Argument `iterations` must be a positive integer. Received: {iterations!r}"
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    "temperatures", [0, 0.0, -1, math.inf, math.nan, (0.1,), (0.1, 0.1, 0.1), (0.1, -1.0), (), "0.01"], ids=str
)
def test_bad_inverse_temperatures(temperatures):
    with pytest.raises(ValueError) as refused:
        Form(2, temperatures)
    assert str(refused.value) == (
        "Argument `inverse_temperatures` must be a positive number, or one for each of the 2 iterations. "
        f"Received: {temperatures!r}"
    )


@pytest.mark.parametrize("temperatures", [None, "ab", (None, 0.1)], ids=str)
def test_inverse_temperatures_that_are_no_numbers(temperatures):
    with pytest.raises(ValueError, match="Argument `inverse_temperatures`"):
        Form(2, temperatures)


def test_of_beta_v_only_the_sum_over_the_pose_matters():
    votes, activations, beta_v, beta_a = arguments()
    each = np.asarray(beta_v)[:, None] + np.linspace(-1.0, 1.0, votes.shape[2], dtype="float32")
    expected = route(votes, activations, beta_v, beta_a, paper())
    found = route(votes, activations, each, beta_a, paper())
    for one, other in zip(found, expected, strict=True):
        # Sums of as many terms of order one in another order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
