"""MatrixCapsNet: the published size, the spread loss, training, saving, resuming, the original's budget."""

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

# Trainings that stop at a given step, as of the other networks.
from test_training import Crash, crash, dimmed, stop_after

from experiments.recognition_rotation import MODELS
from invariance import cli, training
from invariance.layers.matrix_capsules import ClassCapsules, ConvolutionalCapsules
from invariance.losses import SpreadLoss
from invariance.models.capsule_network import CapsuleNetwork
from invariance.models.matrix_capsnet import MatrixCapsNet
from invariance.optimizers import Adam
from invariance.protocol import Budget
from invariance.results import RunFolder
from invariance.routing.em import Form

# 20 x 20 pixels: 8 x 8 positions behind the convolution, 3 x 3 and 1 x 1 behind the capsules.
SMALL = MatrixCapsNet(
    filters=16, primary=4, capsules=(4, 4), moving_average_decay=0.8, margin_steps=2, decoder=(32, 64)
)
SHAPE, CLASSES = (20, 20, 1), 10

# Float32 means of thousands of numbers of size one, by two ways.
ROUNDING = 1e-5


def small(seed=0, learning_rate=3e-3, **changes):
    """Keras would compile each step as a whole by XLA, for many seconds; the package's training does not either."""
    keras.utils.set_random_seed(seed)
    model = replace(SMALL, **changes)(SHAPE, CLASSES, learning_rate)
    model.jit_compile = False
    return model


# Size

# Mean and variance of one channel; kernel x kernel x inputs x filters + filters; 1 x 1 convolutions to 8 poses of 16
# and 8 activations; 9 neighbours x capsules inputs, each with a 4 x 4 matrix to 16 outputs, with a beta_v for each
# pose entry and a beta_a; 16 inputs to 8 classes with poses of 18.
ENCODER = {
    "images": 0,
    "batch_norm": 2,
    "conv_1": 5 * 5 * 1 * 32 + 32,
    "primary_capsules": (32 * 128 + 128) + (32 * 8 + 8),
    "capsules_1": 9 * 8 * 16 * 16 + 16 * (16 + 1),
    "capsules_2": 9 * 16 * 16 * 16 + 16 * (16 + 1),
    "class_capsules": 16 * 8 * 16 + 8 * (18 + 1),
}
# 8 classes of 18 numbers; inputs x units + units.
DECODER = (144 * 512 + 512) + (512 * 1024 + 1024) + (1024 * 784 + 784)


@pytest.fixture(scope="module")
def published():
    return MatrixCapsNet()((28, 28, 1), 8)


def test_number_of_weights(published):
    assert {layer.name: layer.count_params() for layer in published.encoder.layers} == ENCODER
    assert published.encoder.count_params() == sum(ENCODER.values()) == 63_362
    assert published.decoder.count_params() == DECODER == 1_403_152
    assert published.count_params() == 1_466_514
    # All but batch norm's statistics are trained: 2 + 4 + 3 + 3 + 3 tensors, and the decoder's 6.
    assert len(published.trainable_weights) == 21 and len(published.non_trainable_weights) == 2


def test_published_layers(published):
    _, norm, conv, primary, first, second, classes = published.encoder.layers
    assert (norm.momentum, norm.epsilon, norm.center, norm.scale) == (0.999, 1e-3, False, False)
    assert (conv.filters, conv.kernel_size, conv.strides, conv.padding) == (32, (5, 5), (2, 2), "valid")
    assert conv.activation is keras.activations.relu
    assert [part.shape for part in primary.output] == [(None, 12, 12, 8, 4, 4), (None, 12, 12, 8)]
    assert [layer.output[1].shape for layer in (first, second)] == [(None, 5, 5, 16), (None, 3, 3, 16)]
    assert isinstance(first, ConvolutionalCapsules) and isinstance(second, ConvolutionalCapsules)
    assert [(layer.kernel_size, layer.strides) for layer in (first, second)] == [(3, 2), (3, 1)]
    assert isinstance(classes, ClassCapsules) and not classes.together
    assert [part.shape for part in classes.output] == [(None, 8, 18), (None, 8)]
    # Positions 8, 12, 16 of 28.
    assert classes.start == (8 / 28, 8 / 28) and classes.step == (4 / 28, 4 / 28)
    assert {layer.form for layer in (first, second, classes)} == {Form(2, 0.01)}
    # Biases of convolutions start within two standard deviations of .01, and not at zero.
    biases = np.concatenate([conv.bias, primary.poses.bias, primary.activations.bias])
    assert np.abs(biases).max() <= 0.02 and biases.std() > 0.005
    dense = [layer for layer in published.decoder.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [512, 1024, 784]
    assert published.decoder.get_layer("sigmoid").activation is keras.activations.sigmoid


def test_compiled_as_published(published):
    assert type(published) is CapsuleNetwork and type(published.optimizer) is Adam
    assert float(published.optimizer.learning_rate) == pytest.approx(1e-3)
    assert (published.optimizer.beta_1, published.optimizer.beta_2, published.optimizer.epsilon) == (0.9, 0.999, 1e-8)
    loss = published.loss
    assert type(loss) is SpreadLoss and (loss.start, loss.stop, loss.increase, loss.steps) == (0.2, 0.9, 0.035, 1200)
    # .05 of the summed squared error is .05 x 784 of the mean.
    assert published.reconstruction_weight == pytest.approx(0.05 * 784, rel=1e-12)


def test_the_papers_form_is_handed_on():
    model = small(iterations=3, inverse_temperature=0.5, logistic=True, normalised=False, together=True)
    layers = [model.encoder.get_layer(name) for name in ("capsules_1", "capsules_2", "class_capsules")]
    assert {layer.form for layer in layers} == {Form(3, 0.5, logistic=True, normalised=False)}
    assert layers[-1].together


def test_coordinates_are_centres_of_receptive_fields():
    # A position sees pixels first to last; its centre is their mean. Oblong: rows and columns have their own sides.
    classes = SMALL((28, 36, 1), 2).encoder.get_layer("class_capsules")

    def centre(position):
        """Of an output: 3 positions from `position`, 3 from twice that, 5 pixels from twice that."""
        first, last = position, position + 2
        first, last = 2 * first, 2 * last + 2
        return (2 * first + 2 * last + 4) / 2

    assert [centre(position) for position in range(3)] == [8, 12, 16]
    for axis, side in enumerate((28, 36)):
        for position in range(3):
            found = classes.start[axis] + position * classes.step[axis]
            assert found * side == pytest.approx(centre(position), rel=1e-12)


def test_floating_point_operations():
    # Two for each product: 12 x 12, 5 x 5 and 3 x 3 positions; a vote is a product of 4 x 4 matrices, 64 products.
    first = 2 * 12 * 12 * 25 * 32
    others = 2 * 12 * 12 * 32 * (128 + 8) + 2 * 25 * 9 * 8 * 16 * 64 + 2 * 9 * 9 * 16 * 16 * 64 + 2 * 9 * 16 * 8 * 64
    others += 2 * (144 * 512 + 512 * 1024 + 1024 * 784)
    assert MatrixCapsNet().flops((28, 28, 1), 8) == first + others
    # The first layer needs no gradient to its input.
    assert MatrixCapsNet().training_flops((28, 28, 1), 8) == 2 * first + 3 * others
    # Oblong, three colours, five classes: 24 x 20 -> 10 x 8 -> 4 x 3 -> 2 x 1 positions.
    expected = 80 * 25 * 3 * 16 + 80 * 16 * 4 * 17 + 12 * 9 * 4 * 4 * 64 + 2 * 9 * 4 * 4 * 64 + 2 * 4 * 5 * 64
    expected += 90 * 32 + 32 * 64 + 64 * 1440
    assert SMALL.flops((24, 20, 3), 5) == 2 * expected


@pytest.mark.parametrize(
    ("shape", "classes", "changes"),
    [((24, 20, 3), 5, {}), ((17, 17, 1), 2, {}), ((17, 18, 2), 3, {"decoder": (), "iterations": 1, "together": True})],
    ids=["oblong", "smallest", "together"],
)
def test_other_images_and_classes(shape, classes, changes):
    model = replace(SMALL, **changes)(shape, classes)
    images, labels = np.random.default_rng(0).random((3, *shape), "float32"), np.arange(3) % classes
    outputs = model(images)
    assert outputs["scores"].shape == (3, classes) and outputs["reconstruction"].shape == (3, *shape)
    # A softmax over the classes, at each position and so in the mean.
    np.testing.assert_allclose(np.sum(outputs["scores"], axis=-1), 1.0, rtol=0, atol=1e-6)
    assert np.isfinite(model.compute_loss(images, labels, model(images, labels, training=True)))


@pytest.mark.parametrize("shape", [(16, 28, 1), (28, 16, 1), (2, 2, 1)], ids=str)
def test_small_images_are_refused(shape):
    with pytest.raises(ValueError) as refused:
        SMALL(shape, 10)
    assert str(refused.value) == f"images of at least 17 x 17 pixels are needed; they are {shape[0]} x {shape[1]}"


# Spread loss


def test_spread_loss_by_hand():
    # Margin .5: the other classes may come up to .2 below... .7 - .5 = .2 costs nothing; .3 costs .1^2, .6 costs .4^2.
    # Label 2 of the second: .1 - .9 = -.8 costs (.5 + .8)^2, .1 - .1 = 0 costs .5^2, .1 - 0 costs .4^2.
    labels, scores = [0, 2], [[0.7, 0.3, 0.6, 0.2], [0.9, 0.1, 0.1, 0.0]]
    expected = [0.01 + 0.16, 1.69 + 0.25 + 0.16]
    for given in (labels, np.array(labels)[:, None]):
        found = SpreadLoss(stop=0.5, reduction="none")(np.array(given), np.array(scores, "float32"))
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32
    np.testing.assert_allclose(SpreadLoss(stop=0.5)(np.array(labels), np.array(scores)), np.mean(expected), rtol=1e-6)


def test_margin_grows_with_the_counter():
    loss, counter = SpreadLoss(steps=10), keras.Variable(0, dtype="int64")
    assert loss.margin() == 0.9  # without a counter the last
    loss.follow(counter)
    # Twenty times .035 make .9.
    margins = {0: 0.2, 9: 0.2, 10: 0.235, 19: 0.235, 20: 0.27, 199: 0.865, 200: 0.9, 210: 0.9, 10**6: 0.9}
    graph = tf.function(lambda: loss.margin() + 0.0)
    for step, expected in margins.items():
        counter.assign(step)
        assert float(loss.margin()) == pytest.approx(expected, rel=1e-6)
        assert float(graph()) == pytest.approx(expected, rel=1e-6)  # read anew at each call
    counter.assign(20)
    # Of two classes alike: the margin's square.
    assert float(loss(np.array([1]), np.array([[0.5, 0.5]], "float32"))) == pytest.approx(0.27**2, rel=1e-5)


def test_spread_loss_config_round_trip():
    loss = SpreadLoss(0.1, 0.8, 0.07, 30, name="mine")
    loss.follow(keras.Variable(0, dtype="int64"))
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is SpreadLoss and again.get_config() == loss.get_config()
    assert (again.start, again.stop, again.increase, again.steps, again.name) == (0.1, 0.8, 0.07, 30, "mine")
    assert again.margin() == 0.8  # the counter is not part of it


def test_model_tells_the_loss_its_step(digits):
    # The scores stay; the margin grows at every second step.
    model = small(learning_rate=0.0)
    scores = model(digits[0], training=True)["scores"]
    for step in range(5):
        assert int(model.optimizer.iterations) == step
        found = model.train_on_batch(*digits, return_dict=True)["classification_loss"]
        expected = SpreadLoss(stop=0.2 + 0.035 * (step // 2))(digits[1], scores)
        # Routing enlarges the rounding of poses and batch norm; the margins differ by a sixth.
        assert found == pytest.approx(float(expected), rel=1e-3)
        model.reset_metrics()


# Training


def test_gradients_reach_every_weight(digits):
    model = small()

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            outputs = model(digits[0], labels=digits[1], training=True)
            loss = model.compute_loss(*digits, outputs)
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    assert len(model.trainable_weights) == 2 + 4 + 3 + 3 + 3 + 6
    for weight, found in zip(model.trainable_weights, gradients(), strict=True):
        assert np.isfinite(found).all(), weight.path
        assert np.abs(found).max() > 0, weight.path


def test_overfits_32_images(digits):
    model = small(learning_rate=1e-2, margin_steps=2)
    before = model.evaluate(*digits, verbose=0, return_dict=True)
    for _ in range(60):
        model.train_on_batch(*digits)
    after = model.evaluate(*digits, verbose=0, return_dict=True)
    # At chance a tenth of the digits would be right.
    assert after["accuracy"] > 0.8 > 0.3 > before["accuracy"]
    # At the last margin by now: nine classes as active as the right one would cost its square each.
    assert after["classification_loss"] < 0.25 * 9 * 0.9**2
    assert after["reconstruction_error"] < 0.7 * before["reconstruction_error"]


def test_trains_in_mixed_precision(digits, bfloat16):
    model = small()
    for _ in range(3):
        logs = model.train_on_batch(*digits, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert model.encoder.get_layer("conv_1").compute_dtype == "bfloat16"
    outputs = model(digits[0])
    assert outputs["scores"].dtype == outputs["reconstruction"].dtype == tf.float32
    assert all(weight.dtype == "float32" and np.isfinite(weight).all() for weight in model.weights)


# Saving

LOAD = """
import sys
import invariance
import keras
import numpy as np
model = keras.saving.load_model(sys.argv[1])
model.jit_compile = False
data = np.load(sys.argv[2])
outputs = model(data["images"])
print(type(model.loss).__name__, model.loss.steps, int(model.optimizer.iterations))
print(max(np.abs(outputs[name] - data[name]).max() for name in outputs))
print(model.train_on_batch(data["images"], data["labels"])[0], int(model.optimizer.iterations))
"""


def test_saved_and_loaded_by_a_program_that_only_imports_the_package(tmp_path, digits):
    model = small(together=True)
    for _ in range(2):
        model.train_on_batch(*digits)
    outputs = model(digits[0])
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", images=digits[0], labels=digits[1], **outputs)
    command = [sys.executable, "-c", LOAD, tmp_path / "model.keras", tmp_path / "data.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    names, difference, step = done.stdout.strip().splitlines()[-3:]
    assert names == "SpreadLoss 2 2"
    # The same program on the same machine; another process may divide the work among threads differently.
    assert float(difference) < ROUNDING
    # Moments and margin are there, too: the next step is the one of the model that was saved.
    loss, iterations = step.split()
    assert iterations == "3"
    model.reset_metrics()
    assert float(loss) == pytest.approx(model.train_on_batch(*digits)[0], rel=ROUNDING)


# Resuming

# Seven steps in epochs of three; the margin grows at every second.
BUDGET = Budget(steps=7, batch_size=32, steps_per_epoch=3, learning_rate=1e-3)


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, digits, monkeypatch):
    data = np.round(255 * digits[0]).astype("uint8"), digits[1]
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    results, models = [], []
    for name in ("whole", "parts"):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        if name == "parts":
            with pytest.raises(Crash):
                stop_after(monkeypatch, 4, crash, small(), data, folder, BUDGET, 3, dimmed)
            assert training.saved_step(folder / training.CHECKPOINT) == 4
        # Other weights for the second part: all must come from the checkpoint.
        models.append(small(seed=0 if name == "whole" else 99))
        results.append(training.train(models[-1], dimmed, *data, BUDGET, 3, folder))
    for one, other in zip(*map(training.state_variables, models), strict=True):
        np.testing.assert_array_equal(one, other)
    moving = models[0].encoder.get_layer("batch_norm")
    assert float(moving.moving_mean[0]) > 0.01  # it started at 0
    assert float(models[0].loss.margin()) == float(models[1].loss.margin()) == pytest.approx(0.2 + 3 * 0.035)
    histories = [[{**row, "seconds": 0} for row in result["history"]] for result in results]
    assert histories[0] == histories[1]


# The experiment


def test_the_original_budget():
    # 120,000 steps of 50, learning rate 1e-3 throughout, the margin growing every 1,200.
    entry = MODELS["capsnet_em"]
    budget = entry.budgets["paper"]
    assert (budget.steps, budget.batch_size) == (120_000, 50) and budget.images_per_class is None
    assert budget.schedule() == 1e-3  # a constant
    assert entry.model_for("paper") == entry.model == MatrixCapsNet()
    assert entry.departures("paper") == []


def test_shorter_profiles():
    entry = MODELS["capsnet_em"]
    assert set(entry.budgets) == set(cli.PROFILES)
    steps = [entry.budgets[profile].steps for profile in cli.PROFILES]
    assert steps == sorted(set(steps))
    for profile in ("smoke", "quick", "standard"):
        # 20 increases of the margin within the first 80 %, as is said there; all of the others are said before a run.
        model = entry.model_for(profile)
        assert 20 * model.margin_steps <= 0.85 * entry.budgets[profile].steps
        # Batch norm's statistics forget the beginning: less than a hundredth of them is left.
        assert model.moving_average_decay ** entry.budgets[profile].steps < 0.01
        assert "margin_steps" in "; ".join(entry.departures(profile))
    # The published sizes but in the short profiles.
    standard = entry.model_for("standard")
    assert replace(standard, margin_steps=1200, moving_average_decay=0.999) == MatrixCapsNet()
