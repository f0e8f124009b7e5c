"""The double softmax, the margin loss, and Adam with a compiled update."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.losses import DoubleSoftmaxCrossentropy, MarginLoss
from invariance.models.cnn import CNN, Convolution
from invariance.optimizers import Adam

# Loss


def probabilities(batch, classes, seed=0):
    scores = np.random.default_rng(seed).normal(0, 3, (batch, classes))
    return (np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)).astype("float32")


def double_softmax(labels, p):
    """-log softmax(p)[y] in float64."""
    p = p.astype("float64")
    return np.log(np.exp(p).sum(-1)) - p[np.arange(len(p)), labels]


@pytest.mark.parametrize("classes", [2, 8, 10])
def test_double_softmax_equals_numpy(classes):
    p, labels = probabilities(50, classes), np.random.default_rng(1).integers(0, classes, 50)
    each = DoubleSoftmaxCrossentropy(reduction=None)(labels, p)
    assert each.shape == (50,)
    # Float32: numbers up to 4, in a sum of `classes` exponentials.
    np.testing.assert_allclose(each, double_softmax(labels, p), rtol=0, atol=2e-6)
    np.testing.assert_allclose(DoubleSoftmaxCrossentropy()(labels, p), double_softmax(labels, p).mean(), atol=2e-6)
    np.testing.assert_allclose(
        DoubleSoftmaxCrossentropy()(labels[:, None], p), double_softmax(labels, p).mean(), atol=2e-6
    )


def test_double_softmax_bounds_for_eight_classes():
    loss = DoubleSoftmaxCrossentropy()
    # All probability on the true class: log(e + 7) - 1 = log(1 + 7 / e) = 1.2740.
    assert abs(float(loss([2], np.eye(8, dtype="float32")[[2]])) - 1.2740) < 5e-5  # printed digits
    # All of it on another one: log(e + 7) = 2.2740, the largest: log-sum-exp is convex, so greatest in a corner.
    assert abs(float(loss([2], np.eye(8, dtype="float32")[[5]])) - 2.2740) < 5e-5
    # Spread evenly: softmax of equal numbers, log 8.
    assert abs(float(loss([2], np.full((1, 8), 1 / 8, "float32"))) - np.log(8)) < 1e-6  # float32
    each = DoubleSoftmaxCrossentropy(reduction=None)(np.zeros(200, int), probabilities(200, 8)).numpy()
    assert 1.2740 < each.min() < each.max() < 2.2741


def test_double_softmax_behind_a_softmax_layer_does_not_go_back_to_the_scores():
    # Keras' own loss with from_logits=True would look through the softmax. In a graph, as in training.
    scores = tf.constant(np.random.default_rng(0).normal(size=(5, 8)).astype("float32"))
    labels = np.arange(5)

    @tf.function
    def loss(scores):
        return DoubleSoftmaxCrossentropy()(labels, keras.layers.Softmax()(scores))

    expected = double_softmax(labels, tf.nn.softmax(scores).numpy()).mean()
    assert abs(float(loss(scores)) - expected) < 2e-6  # float32
    assert abs(expected - float(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores).numpy().mean())) > 0.05


def test_gradient_of_the_double_softmax():
    # d/dp of logsumexp(p) - p_y is softmax(p) - onehot(y), divided by the batch.
    p, labels = tf.constant(probabilities(6, 8)), np.arange(6)
    with tf.GradientTape() as tape:
        tape.watch(p)
        loss = DoubleSoftmaxCrossentropy()(labels, p)
    expected = (tf.nn.softmax(p).numpy() - np.eye(8)[labels]) / 6
    np.testing.assert_allclose(tape.gradient(loss, p), expected, rtol=0, atol=1e-6)  # float32


def test_loss_from_its_configuration():
    loss = keras.losses.deserialize(keras.losses.serialize(DoubleSoftmaxCrossentropy(reduction="sum", name="own")))
    assert type(loss) is DoubleSoftmaxCrossentropy
    assert (loss.reduction, loss.name) == ("sum", "own")


# Margin loss


def test_margin_loss_by_hand():
    lengths = np.array([[0.95, 0.5, 0.05], [0.95, 0.5, 0.05], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "float32")
    expected = [
        0.5 * 0.4**2,  # label 0 is long enough, 2 short enough; 1 is .4 too long
        0.4**2 + 0.5 * 0.85**2,  # label 1 is .4 too short; 0 is .85 too long
        0.9**2,  # the label's is missing
        0.5 * 2 * 0.9**2,  # two are spurious
    ]
    labels = np.array([0, 1, 1, 2])
    each = MarginLoss(reduction=None)(labels, lengths)
    assert each.shape == (4,)
    np.testing.assert_allclose(each, expected, rtol=0, atol=1e-6)  # float32
    for shape in (labels, labels[:, None], labels.astype("float32")):
        assert float(MarginLoss()(shape, lengths)) == pytest.approx(np.mean(expected), abs=1e-6)


def test_margin_loss_equals_equation_4():
    lengths, labels = probabilities(50, 10), np.random.default_rng(1).integers(0, 10, 50)
    expected = np.zeros(50)
    for n in range(50):
        for k in range(10):
            v, here = float(lengths[n, k]), k == labels[n]
            expected[n] += here * max(0, 0.8 - v) ** 2 + 0.3 * (1 - here) * max(0, v - 0.2) ** 2
    found = MarginLoss(0.8, 0.2, 0.3, reduction=None)(labels, lengths)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # sums of ten float32 numbers


def test_margin_loss_is_flat_inside_the_margins():
    lengths = tf.constant([[0.9, 0.1, 0.0], [0.03, 0.07, 0.97]])
    with tf.GradientTape() as tape:
        tape.watch(lengths)
        loss = MarginLoss()([0, 2], lengths)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, lengths), 0.0)


def test_margin_loss_from_its_configuration():
    loss = keras.losses.deserialize(keras.losses.serialize(MarginLoss(0.8, 0.2, 0.3, reduction="sum", name="own")))
    assert type(loss) is MarginLoss
    assert (loss.present, loss.absent, loss.weight, loss.reduction, loss.name) == (0.8, 0.2, 0.3, "sum", "own")
    default = MarginLoss()
    assert (default.present, default.absent, default.weight) == (0.9, 0.1, 0.5)


# Saving

LOAD = """
import sys
import invariance, keras
model = keras.saving.load_model(sys.argv[1])
import numpy as np
images, labels = (np.load(path) for path in sys.argv[2:4])
loss, optimizer = type(model.loss), type(model.optimizer)
print(loss.__module__, loss.__name__, optimizer.__module__, int(model.optimizer.iterations))
print(*model.evaluate(images, labels, verbose=0))
model.train_on_batch(images, labels)
print(int(model.optimizer.iterations))
"""


def test_saved_model_is_loaded_by_a_program_that_only_imports_the_package(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images, labels = rng.random((16, 8, 8, 1), "float32"), rng.integers(0, 3, 16)
    model = CNN((Convolution(4, 3, 2),), batch_norm=True, dropout=0.5, dense=8)((8, 8, 1), 3)
    for _ in range(2):
        model.train_on_batch(images, labels)
    expected = model.evaluate(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    paths = [str(tmp_path / name) for name in ("model.keras", "images.npy", "labels.npy")]
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    names, values, iterations = done.stdout.strip().splitlines()[-3:]
    assert names == "invariance.losses DoubleSoftmaxCrossentropy invariance.optimizers 2"
    # The same program on the same machine; another process may divide the work among threads differently.
    np.testing.assert_allclose([float(value) for value in values.split()], expected, rtol=1e-5)
    assert iterations == "3"


# Optimiser

SETTINGS = {"beta_1": 0.95, "beta_2": 0.999, "epsilon": 1e-8}
SHAPES = [(5, 7), (7,), (3, 3, 2, 4), ()]


def variables(seed=0):
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=shape).astype("float32"), name=f"v{i}") for i, shape in enumerate(SHAPES)]


def trained(optimizer, steps=20, graph=False):
    """Weights after some steps with gradients of very different sizes."""
    weights = variables()
    optimizer.build(weights)

    def update(*gradients):
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    if graph:
        update = tf.function(update)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        update(*(tf.constant(rng.normal(size=s) * 10.0 ** rng.integers(-4, 3), tf.float32) for s in SHAPES))
    assert int(optimizer.iterations) == steps
    return [weight.numpy() for weight in weights]


@pytest.mark.parametrize(
    ("graph", "settings"),
    [
        pytest.param(False, {}, id="eager"),
        pytest.param(True, {}, id="graph"),
        pytest.param(False, {"weight_decay": 0.01, "clipnorm": 0.1}, id="eager with decay and clipping"),
        pytest.param(
            True, {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}, id="graph with averages"
        ),
    ],
)
def test_compiled_adam_equals_keras_adam(graph, settings):
    settings = {**SETTINGS, **settings}
    found, expected = (trained(kind(1e-2, **settings), graph=graph) for kind in (Adam, keras.optimizers.Adam))
    start = [weight.numpy() for weight in variables()]
    for one, other, before in zip(found, expected, start, strict=True):
        # One kernel joins products and sums with one rounding: each of 20 steps may differ by the last bit of weights
        # of size 1 to 3 (2.4e-7), and updates of size .01 by some of their last bits.
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-6)
        assert np.abs(one - before).max() > 1e-2


def test_adam_equals_algorithm_1():
    # Kingma and Ba, with epsilon where Keras and TensorFlow have it: beside the uncorrected square root.
    rng, weight = np.random.default_rng(0), np.array([1.0, -2.0, 0.5])
    gradients = rng.normal(size=(20, 3))
    variable = keras.Variable(weight.astype("float32"))
    optimizer = Adam(1e-2, **SETTINGS)
    m = v = np.zeros(3)
    for step, gradient in enumerate(gradients, 1):
        m, v = 0.95 * m + 0.05 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight - 1e-2 * np.sqrt(1 - 0.999**step) / (1 - 0.95**step) * m / (np.sqrt(v) + 1e-8)
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    # Float32 for 20 steps, and .999 and .95 known to 3e-8, which 1 - .999 makes 3e-5 of the first updates of .01.
    np.testing.assert_allclose(variable.numpy(), weight, rtol=0, atol=1e-5)


def test_learning_rate_schedule_is_respected():
    # A constant gradient of 1 makes corrected means of 1 and 1: every update is the learning rate.
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5, staircase=True)
    for graph in (False, True):
        optimizer, weight = Adam(schedule, **SETTINGS), keras.Variable(np.zeros(2, "float32"))
        optimizer.build([weight])

        update = functools.partial(optimizer.apply, [tf.ones(2)], [weight])
        step, values = tf.function(update) if graph else update, [0.0]
        for _ in range(7):
            step()
            values.append(float(weight.numpy()[0]))
        expected = [-0.1, -0.1, -0.1, -0.05, -0.05, -0.05, -0.025]
        # 1 - .999**t in float32 loses three digits at the first steps: 1e-7 / 1e-3, of .1.
        np.testing.assert_allclose(np.diff(values), expected, rtol=0, atol=1e-5)


def test_learning_rate_can_be_set_between_steps():
    optimizer, weight = Adam(0.1, **SETTINGS), keras.Variable(np.zeros(2, "float32"))
    optimizer.apply_gradients([(tf.ones(2), weight)])
    optimizer.learning_rate = 0.001
    before = weight.numpy().copy()
    optimizer.apply_gradients([(tf.ones(2), weight)])
    np.testing.assert_allclose(weight.numpy() - before, -0.001, rtol=1e-3)  # 1 - .999**t in float32, as above


def test_two_sets_of_variables_keep_to_themselves():
    # Eagerly the compiled update is kept for each set of variables.
    optimizer, weights = Adam(0.1, **SETTINGS), variables()
    optimizer.build(weights)
    before = [weight.numpy().copy() for weight in weights]
    for part in (weights[:2], weights[2:3], weights[:2]):
        optimizer.apply([tf.ones(weight.shape) for weight in part], part)
    moved = [not np.array_equal(weight.numpy(), old) for weight, old in zip(weights, before, strict=True)]
    assert moved == [True, True, True, False]


def test_eager_update_is_compiled_once(monkeypatch):
    optimizer, weights = Adam(0.1, **SETTINGS), variables()
    traced = []
    plain = keras.optimizers.Adam.update_step
    monkeypatch.setattr(
        keras.optimizers.Adam, "update_step", lambda self, *arguments: traced.append(1) or plain(self, *arguments)
    )
    for _ in range(5):
        optimizer.apply_gradients([(tf.ones(weight.shape), weight) for weight in weights])
    assert len(traced) == len(weights)


def test_optimiser_from_its_configuration():
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(Adam(1e-3, **SETTINGS)))
    assert type(optimizer) is Adam
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.95, 0.999, 1e-8)
