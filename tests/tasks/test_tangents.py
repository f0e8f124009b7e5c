"""Tangents: what they are learnt from, models whose tangents are known, and where following them leads."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from experiments.tangents_rotation import EXPERIMENT
from invariance.datasets import Data
from invariance.errors import UserError
from invariance.layers.flow_tangents import FlowTangents
from invariance.models import flow_tangents
from invariance.models.tangent_network import TangentNetwork
from invariance.ranges import Ranges, contains
from invariance.runs import pipeline, training
from invariance.tasks import Tangents, task_from_json
from invariance.tasks.follow import measure
from invariance.tasks.task import Evaluation
from invariance.transfer.flow_from_pairs import LearnedFlow
from invariance.transfer.movements import Movements
from invariance.transforms import Rotation, Shift
from invariance.warp import rotate, shift
from tests.helpers import assert_reached, noise
from tests.layers.test_flow import SIDE, images, rotation

PART = ((-45, 45),)
TASK = Tangents(Rotation(), Ranges(((-180, 180),), {4: PART}))
SHIFTED = Tangents(Shift((SIDE, SIDE)), Ranges(((-4, 5),), {4: ((-1, 2),)}), step=1.0, walks=(2.0,))
CLASSES = (2, 4, 9)


@pytest.fixture
def eager():
    """Nothing is compiled: for what takes longer to compile than to compute."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def data():
    x, y = np.round(255 * images(12) / images(12).max()).astype("uint8"), np.resize(CLASSES, 12)
    return Data("blots", x, y, x, y, "made")


def model(function):
    """A model that predicts what a function says."""

    class Model(keras.Model):
        def call(self, inputs):
            return function(inputs)

    return Model()


def angles(x, degrees):
    return ops.full((ops.shape(x)[0],), degrees)


def true_rotation(x, step=5.0):
    return (rotate(x, angles(x, step)) - rotate(x, angles(x, -step)))[:, None]


def true_shifts(x):
    one, none = angles(x, 1.0), angles(x, 0.0)
    rows = shift(x, one, none) - shift(x, -one, none)
    return ops.stack([rows, shift(x, none, one) - shift(x, none, -one)], 1)


def measured(function, data, task=TASK, spacing=30.0):
    return measure(task, model(function), data, CLASSES, Evaluation(spacing))


# Declaration


def test_json_and_refusals():
    changed = replace(TASK, partners=3, step=2.5, walks=(5, 10), outside=((90, 180),))
    for task in (TASK, SHIFTED, changed, EXPERIMENT.task):
        assert task_from_json(task.to_json()) == task
    assert TASK.to_json()["kind"] == "tangents_by_rotation" and TASK.steps == (2, 9, 18)
    for wrong in ((), (7,), (-10,), (0,)):
        with pytest.raises(ValueError, match=r"`walks` must be .* in steps of 5\. Received: \("):
            replace(TASK, walks=wrong)
    for name, wrong in (("step", 0), ("partners", 0)):
        with pytest.raises(ValueError, match=f"`{name}` must be .*positive.*Received: 0"):
            replace(TASK, **{name: wrong})
    for evaluation, message in ((Evaluation(7), "must divide 360"), (Evaluation(30, redraws=2), "--redraws")):
        with pytest.raises(UserError, match=message):
            TASK.check(evaluation)


def test_averages():
    points = np.array([-170.0, -50.0, -45.0, 0.0, 45.0, 50.0])
    chosen = {name: points[mask].tolist() for name, mask in TASK.averaged(points).items()}
    assert chosen == {"in": [-45.0, 0.0, 45.0], "out": [-170.0, -50.0, 50.0]}
    with pytest.raises(ValueError, match=r"no point .* lies out of range"):
        TASK.averaged(np.zeros(1))


def test_columns_and_metrics():
    group = dict(zip(TASK.keys, (0.1, 0.5, 0.2, 0.3, 0.4), strict=True))
    metrics = {"restricted": group, "free": {**group, "out": 0.125}, "images": {"4": 7, "9": 8}}
    TASK.require_metrics(metrics)
    columns = TASK.columns([4])
    assert [each.form(each.read(metrics)) for each in columns][:2] == [".1000", ".5000"]
    assert [each.title for each in columns][2:7] == [
        *(f"restricted walk to {angle}" for angle in (10, 45, 90)),
        "free in",
        "free out",
    ]
    assert "15 test images. Walks to 10, 45 and 90 degrees" in TASK.remarks(metrics)[0]
    for wrong in ({}, {"free": {**group, "out": "0.5"}}, {"free": {"in": 0.1}}, {"free": 3}, {**metrics, "images": 3}):
        with pytest.raises(
            ValueError, match=r"^(restricted: )?(lacks restricted|lacks in|free.*: expected|images: expected)"
        ):
            TASK.require_metrics(wrong)


# Training


def test_trained_on_the_difference_to_the_nearest_of_some_drawings(data):
    task, labels, draws = replace(TASK, partners=4), np.resize(CLASSES, 60), np.arange(60, dtype="int64") + 2**33
    x = data.x_train[np.arange(60) % 12]
    first, differences = map(np.asarray, task.prepare(5, CLASSES)(x, labels, draws))
    np.testing.assert_array_equal(first, task.drawings(5, x, labels, draws))
    from invariance import random

    for row in range(0, 60, 7):
        numbers = draws[row] * 4 + np.arange(4)
        given = np.repeat(x[row : row + 1], 4, 0), np.repeat(labels[row], 4), numbers
        others = np.asarray(task.drawings(5, *given, random.PARTNERS))
        distances = np.square(others - first[row]).sum((1, 2, 3))
        # An angle known to 2e-5 degrees moves pixels by 3e-6.
        np.testing.assert_allclose(differences[row], others[distances.argmin()] - first[row], atol=1e-5)
        drawn = np.asarray(task.transformation.draw(task.drawn, 5, numbers, given[1], random.PARTNERS))
        assert labels[row] != 4 or contains(PART, drawn).all()
    shown, caption = task.shown(first, differences)
    assert shown is first and "the nearest of 4 other drawings" in caption


def test_pairs_are_those_of_recognition(data):
    from experiments.recognition_rotation import TASK as RECOGNITION

    given = data.x_train, np.full(12, 7), np.arange(12, dtype="int64")
    same = replace(TASK, ranges=RECOGNITION.ranges, outside=RECOGNITION.outside)
    for one, other in zip(same.pairs(3, *given), RECOGNITION.pairs(3, *given), strict=True):
        np.testing.assert_array_equal(one, other)


# Models whose tangents are known


def test_perfect_model(data, tmp_path):
    found = measured(true_rotation, data)
    # Computed twice, in float32; lengths and signs do not matter.
    assert found.errors.errors.max() < 1e-4
    other = measured(lambda x: -3.0 * true_rotation(x), data)
    np.testing.assert_allclose(other.errors.errors, found.errors.errors, atol=1e-4)
    np.testing.assert_allclose(other.left, found.left, atol=1e-4)
    assert set(found.metrics) == {"restricted", "free", "digits", "images"}
    TASK.require_metrics(found.metrics)
    assert found.metrics["images"] == {"2": 4, "4": 4, "9": 4}
    # A step's difference has some per cent that no tangent explains, and interpolates anew. Doing nothing is 1.
    assert found.metrics["free"]["walk_10"] < 0.05 and found.metrics["restricted"]["walk_90"] < 0.15
    found.save(tmp_path, "title")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"curves.csv", "walks.csv", *TASK.pictures()}
    assert (tmp_path / "curves.csv").read_text().count("\n") == 1 + 3 * 12
    assert "4: in" in "\n".join(found.lines()) and "restricted in 0.000 out 0.000" in found.summary()


def test_useless_and_degenerate_models(data, eager):
    direction = noise(1, 1, SIDE, SIDE, 1)
    useless = measured(lambda x: ops.zeros_like(x)[:, None] + direction, data)
    # A random direction among some 200 pixels that move.
    assert useless.errors.errors.min() > 0.8 and useless.errors.errors.mean() > 0.95
    assert useless.metrics["free"]["walk_90"] > 0.8
    nothing = measured(lambda x: ops.zeros_like(x)[:, None], data)
    np.testing.assert_array_equal(nothing.errors.errors, 1.0)
    np.testing.assert_array_equal(nothing.left, 1.0)


def test_groups_and_ranges_are_told_apart(data, eager):
    """A model that knows the tangents of dim images only: one restricted class, dimmed where it is out of range."""
    dim = replace(data, x_test=np.where((data.y_test == 4)[:, None, None, None], data.x_test // 2, data.x_test))
    mean = float((dim.x_test[data.y_test != 4] / 255).sum((1, 2, 3)).min())

    def function(x):
        bright = ops.sum(x, (1, 2, 3), keepdims=True) > 0.9 * mean
        return ops.where(bright, true_rotation(x)[:, 0], 0.0)[:, None]

    found = measured(function, dim).metrics
    assert found["free"]["in"] < 1e-4 and found["restricted"]["in"] > 0.9 and found["digits"]["4"]["out"] > 0.9
    assert found["digits"]["9"]["out"] < 1e-4


def test_planes(data, eager):
    both = measured(true_shifts, data, SHIFTED, 2)
    assert both.errors.errors.max() < 1e-4 and both.metrics["free"]["walk_2"] < 0.1
    mixed = measured(
        lambda x: ops.stack([true_shifts(x)[:, 0] + 2 * true_shifts(x)[:, 1], true_shifts(x)[:, 1]], 1),
        data,
        SHIFTED,
        2,
    )
    assert mixed.errors.errors.max() < 1e-4
    # One tangent twice: the other, nearly at right angles to it, is missed.
    one = measured(lambda x: ops.repeat(true_shifts(x)[:, :1], 2, 1), data, SHIFTED, 2)
    assert 0.3 < one.errors.errors.mean() < 0.55


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: true_rotation(x)[:, 0], r"predicts \(28, 28, 1\), but tangents \(1, 28, 28, 1\) are needed"),
        (lambda x: x @ ops.ones((3, 1)), r"does not take images \(28, 28, 1\)"),
        (lambda x: true_rotation(x) * np.nan, "tangents of 12 images are not finite"),
    ],
)
def test_unfit_models_are_refused_in_one_line(function, message, data, eager):
    with pytest.raises(UserError, match=message) as refused:
        measured(function, data)
    assert "\n" not in str(refused.value)


# The networks


def test_free_network(digits, tmp_path):
    declared = TangentNetwork(8, 6, (4, 8), 16)
    net = declared((20, 20, 1), 2)
    x = digits[0]
    assert net(x).shape == (32, 2, 20, 20, 1)
    targets = tf.constant(noise(32, 20, 20, 1))
    with tf.GradientTape() as tape:
        loss = net.compute_loss(x, targets, net(x))
    assert_reached(tape.gradient(loss, [each.value for each in net.trainable_weights]), net.trainable_weights)
    net.optimizer.build(net.trainable_variables)
    net.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), net(x))
    assert type(loaded.loss) is type(net.loss)
    with pytest.raises(ValueError, match="`code_size` must be a positive integer"):
        replace(declared, code_size=0)


def test_free_network_learns_what_it_is_shown(data):
    """Three blots within a small range: it knows their tangents there, and not elsewhere."""
    task = replace(TASK, ranges=Ranges(((-180, 180),), dict.fromkeys(CLASSES, ((-30, 30),))), inside=(), outside=())
    keras.utils.set_random_seed(0)
    net = TangentNetwork(16, 16, (8, 16), 64)((SIDE, SIDE, 1), 1, keras.optimizers.schedules.CosineDecay(2e-3, 200))
    net.optimizer.build(net.trainable_variables)
    step = training.compiled_step(net, task.prepare(0, CLASSES), 16)
    for batch in pipeline.batches(data.x_train[:3], data.y_train[:3], 0, 16, 0, 200):
        step(*batch)
    few = replace(data, x_test=data.x_train[:3], y_test=data.y_train[:3])
    found = measure(task, net, few, CLASSES, Evaluation(20.0)).metrics["restricted"]
    # Chance is nearly 1. It was .31 in range, and .97 beyond.
    assert found["in"] < 0.5 < 0.8 < found["out"]


def test_tangents_of_a_flow(data, tmp_path):
    turning = rotation()
    # Five degrees in a unit of time.
    turning.coefficients.assign(turning.coefficients * np.deg2rad(5.0))
    declared = flow_tangents.FlowTangents(degree=2)
    net = LearnedFlow(turning, TASK, Movements(1, None, np.eye(1)), {}).attach(declared((SIDE, SIDE, 1), 1))
    np.testing.assert_array_equal(net.get_layer("flow").coefficients, turning.coefficients)
    x = data.x_test / np.float32(255)
    # As for the flow itself.
    np.testing.assert_allclose(net(x), true_rotation(x), atol=4e-3)
    found = measure(TASK, net, data, CLASSES, Evaluation(30.0)).metrics
    assert max(found[group][key] for group in ("restricted", "free") for key in ("in", "out")) < 0.01
    net.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), net(x))
    two = FlowTangents(2, 1)
    assert two(x).shape == (12, 2, SIDE, SIDE, 1) == two.compute_output_shape(x.shape)
    assert two(keras.Input((SIDE, SIDE, 1))).shape == (None, 2, SIDE, SIDE, 1)


def test_costs_are_those_of_the_autoencoder():
    declared = TangentNetwork()
    first, *_, last = declared.layer_flops((28, 28, 1), 1)
    # 4 x 4 kernels: 64 filters at 14 x 14 positions, and back from 32 channels to one.
    assert first == 2 * 14 * 14 * 16 * 64 == 2 * last
    assert list(declared.layer_flops((28, 28, 1), 2))[-1] == 2 * last
