"""CapsNet: the published size, its two losses, training, saving, resuming."""

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

# Trainings that stop at a given step, as of the other networks.
from test_training import Crash, crash, dimmed, stop_after

from invariance import training
from invariance.layers.capsules import Length, PrimaryCapsules, RoutedCapsules
from invariance.losses import MarginLoss
from invariance.models.capsnet import CapsNet
from invariance.models.capsule_network import CapsuleNetwork, dense_decoder
from invariance.optimizers import Adam
from invariance.protocol import Budget
from invariance.results import RunFolder

# 20 x 20 pixels: the first convolution leaves 12 x 12, the second 2 x 2 positions of 4 capsules.
SMALL, SHAPE, CLASSES = CapsNet(filters=32, primary_channels=4, decoder=(32, 64)), (20, 20, 1), 10

# Float32 means of thousands of numbers of size one, by two ways.
ROUNDING = 1e-5


def small(seed=0, learning_rate=3e-3, **changes):
    keras.utils.set_random_seed(seed)
    return replace(SMALL, **changes)(SHAPE, CLASSES, learning_rate)


def awake(model):
    """The same model with capsules .1 long. New ones are as long as nothing, so that all outputs are alike."""
    for name in ("primary_capsules", "class_capsules"):
        kernel = max(model.encoder.get_layer(name).trainable_weights, key=lambda weight: weight.shape.rank)
        kernel.assign(10.0 * kernel)
    return model


def squared_error(images, drawn):
    return float(np.mean((images - np.asarray(drawn)) ** 2, dtype="float64"))


# Size

# Kernel x kernel x inputs x filters + filters; 6 x 6 x 32 = 1152 primary capsules of 8 numbers, each with a matrix of
# 16 x 8 for each of ten classes, without bias; dense layers inputs x units + units.
ENCODER = (9 * 9 * 1 * 256 + 256) + (9 * 9 * 256 * 256 + 256) + (1152 * 10 * 16 * 8)
DECODER = (160 * 512 + 512) + (512 * 1024 + 1024) + (1024 * 784 + 784)


@pytest.fixture(scope="module")
def published():
    return CapsNet()((28, 28, 1), 10)


def test_number_of_weights(published):
    assert published.count_params() == ENCODER + DECODER == 8_215_568
    assert published.encoder.count_params() == ENCODER == 6_804_224


def test_published_layers(published):
    *_, conv, primary, routed, lengths = published.encoder.layers
    assert (conv.filters, conv.kernel_size, conv.strides, conv.padding) == (256, (9, 9), (1, 1), "valid")
    assert conv.activation is keras.activations.relu
    assert isinstance(primary, PrimaryCapsules) and primary.output.shape == (None, 1152, 8)
    assert isinstance(routed, RoutedCapsules) and routed.output.shape == (None, 10, 16) and routed.iterations == 3
    assert isinstance(lengths, Length)
    dense = [layer for layer in published.decoder.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [512, 1024, 784]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "relu", "linear"]
    assert published.decoder.get_layer("sigmoid").activation is keras.activations.sigmoid
    assert published.input_shape == (None, 28, 28, 1)


def test_compiled_as_published(published):
    assert type(published) is CapsuleNetwork and type(published.loss) is MarginLoss
    assert type(published.optimizer) is Adam and float(published.optimizer.learning_rate) == pytest.approx(1e-3)
    # Section 4.1: .0005 of the summed squared error is .0005 x 784 of the mean.
    assert published.reconstruction_weight == pytest.approx(0.0005 * 784, rel=1e-12)
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.5, staircase=True)
    assert small(learning_rate=schedule).optimizer._learning_rate is schedule


def test_floating_point_operations():
    # Two for each product: 20 x 20 and 6 x 6 positions, 1152 x 8 by 10 x 16 numbers of routing, the dense layers.
    first = 2 * 20 * 20 * 9 * 9 * 1 * 256
    others = 2 * 6 * 6 * 9 * 9 * 256 * 256 + 2 * 1152 * 8 * 10 * 16 + 2 * (160 * 512 + 512 * 1024 + 1024 * 784)
    assert CapsNet().flops((28, 28, 1), 10) == first + others
    # The first layer needs no gradient to its input.
    assert CapsNet().training_flops((28, 28, 1), 10) == 2 * first + 3 * others
    # Oblong, three colours, five classes: 24 x 20 -> 16 x 12 -> 4 x 2 positions.
    expected = 16 * 12 * 81 * 3 * 32 + 4 * 2 * 81 * 32 * 32 + 4 * 2 * 32 * 5 * 16 + 80 * 32 + 32 * 64 + 64 * 1440
    assert SMALL.flops((24, 20, 3), 5) == 2 * expected


@pytest.mark.parametrize(
    ("shape", "classes", "changes", "capsules"),
    [
        ((24, 20, 3), 5, {}, 4 * 2 * 4),
        ((17, 17, 1), 2, {}, 4),  # the smallest: one position
        ((11, 14, 2), 3, {"kernel": 4, "primary_stride": 1, "primary_dimension": 6, "dimension": 7}, 5 * 8 * 4),
        ((17, 18, 1), 3, {"decoder": (), "iterations": 1}, 4),
    ],
    ids=["oblong", "smallest", "other kernels", "decoder of one layer"],
)
def test_other_images_and_classes(shape, classes, changes, capsules):
    model = replace(SMALL, **changes)(shape, classes)
    images, labels = np.random.default_rng(0).random((3, *shape), "float32"), np.arange(3) % classes
    outputs = model(images)
    assert list(outputs) == ["scores", "reconstruction"]
    assert outputs["scores"].shape == (3, classes)
    assert outputs["reconstruction"].shape == (3, *shape)
    assert np.min(outputs["reconstruction"]) > 0 and np.max(outputs["reconstruction"]) < 1
    assert model.encoder.get_layer("primary_capsules").output.shape[1] == capsules
    assert np.isfinite(model.compute_loss(images, labels, model(images, labels, training=True)))


@pytest.mark.parametrize(("shape", "kernel", "least"), [((16, 28, 1), 9, 17), ((28, 16, 1), 9, 17), ((8, 8, 1), 5, 9)])
def test_small_images_are_refused(shape, kernel, least):
    with pytest.raises(ValueError) as refused:
        replace(SMALL, kernel=kernel)(shape, 10)
    assert str(refused.value) == (
        f"images of at least {least} x {least} pixels are needed for two convolutions of {kernel} x {kernel}; "
        f"they are {shape[0]} x {shape[1]}"
    )


# The two losses


def losses(model, images, labels):
    """Margin loss, squared error and the sum of both for one call of the model in training, and their gradients."""
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(images, labels=labels, training=True)
        margin = model.loss(labels, outputs["scores"])
        error = tf.reduce_mean((images - outputs["reconstruction"]) ** 2)
        values = [margin, error, margin + error]
    variables = [weight.value for weight in model.trainable_weights]
    return values, [tape.gradient(value, variables) for value in values]


def test_gradients_reach_every_weight(digits):
    for model in (small(), awake(small())):
        assert len(model.trainable_weights) == 2 + 2 + 1 + 6
        _, (margin, error, both) = losses(model, *digits)
        for weight, of_margin, of_error, of_both in zip(model.trainable_weights, margin, error, both, strict=True):
            assert np.isfinite(of_both).all() and np.abs(of_both).max() > 0, weight.path
            # That of the reconstruction alone goes through the decoder and the routing to the first convolution.
            assert np.abs(of_error).max() > 0, weight.path
            decoding = weight.path.split("/")[0] in ("dense_1", "dense_2", "pixels")
            assert (of_margin is None) == decoding, weight.path


def test_decoder_sees_the_labelled_capsule_in_training_and_the_longest_otherwise(digits):
    images, model = digits[0], awake(small())
    for weight in model.decoder.trainable_weights:
        weight.assign(5.0 * weight)  # or one would draw what another draws
    capsules, scores = model.encoder(images)
    chosen = np.argmax(scores, axis=-1)
    wrong = (chosen + 1) % CLASSES

    def drawn(outputs):
        masked = np.zeros((32, CLASSES, 16), "float32")
        masked[np.arange(32), outputs] = np.asarray(capsules)[np.arange(32), outputs]
        return model.decoder(masked.reshape(32, -1))

    for outputs, expected in ((model(images), chosen), (model(images, labels=wrong), wrong)):
        np.testing.assert_allclose(outputs["reconstruction"], drawn(expected), rtol=0, atol=ROUNDING)
    # The two differ, or nothing is shown.
    right, other = squared_error(images, drawn(chosen)), squared_error(images, drawn(wrong))
    assert abs(right - other) > 10 * ROUNDING * right
    # Evaluation takes the longest, though it is told the labels; a training step the labelled.
    found = model.evaluate(images, wrong, verbose=0, return_dict=True)
    assert found["reconstruction_error"] == pytest.approx(right, rel=ROUNDING)
    model.reset_metrics()
    found = model.train_step((images, wrong))
    assert float(found["reconstruction_error"]) == pytest.approx(other, rel=ROUNDING)


@pytest.mark.parametrize("weight", [0.392, 0.0, 5.0])
def test_loss_is_the_margin_loss_and_the_weighted_error(digits, weight):
    model = awake(small(reconstruction_weight=weight))
    margin, error, _ = (float(value) for value in losses(model, *digits)[0])
    logs = {key: float(value) for key, value in model.train_step(digits).items()}
    assert set(logs) == {"loss", "classification_loss", "reconstruction_error", "accuracy"}
    assert logs["classification_loss"] == pytest.approx(margin, rel=ROUNDING)
    assert logs["reconstruction_error"] == pytest.approx(error, rel=ROUNDING)
    assert logs["loss"] == pytest.approx(margin + weight * error, rel=ROUNDING)


def test_logged_parts_add_up_over_unequal_batches(digits):
    images, labels = (part[:7] for part in digits)
    logs = awake(small()).evaluate(images, labels, batch_size=4, verbose=0, return_dict=True)
    expected = logs["classification_loss"] + 0.392 * logs["reconstruction_error"]
    assert logs["loss"] == pytest.approx(expected, rel=ROUNDING)


def test_black_images_have_finite_gradients(digits):
    model, black = small(), np.zeros((32, *SHAPE), "float32")
    (margin, _, _), (_, _, gradients) = losses(model, black, digits[1])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    # All capsules are zero: of length sqrt(1e-7), and the margin loss is (.9 - .0003)^2.
    assert float(margin) == pytest.approx(0.9**2, abs=1e-3)


def test_trains_in_mixed_precision(digits, bfloat16):
    model = awake(small())
    before = model.train_on_batch(*digits, return_dict=True)
    for _ in range(5):
        after = model.train_on_batch(*digits, return_dict=True)
    assert np.isfinite(list(after.values())).all()
    assert after["loss"] < before["loss"]
    assert model.encoder.get_layer("conv_1").compute_dtype == "bfloat16"
    outputs = model(digits[0])
    assert outputs["scores"].dtype == outputs["reconstruction"].dtype == tf.float32
    assert all(weight.dtype == "float32" for weight in model.weights)


# Learning


def test_overfits_32_images(digits):
    model = small()
    before = model.evaluate(*digits, verbose=0, return_dict=True)
    for _ in range(100):
        model.train_on_batch(*digits)
    after = model.evaluate(*digits, verbose=0, return_dict=True)
    assert after["accuracy"] == 1.0
    # 32 images in which each class has its capsule longer than .9 and no other longer than .1 cost nothing.
    assert after["classification_loss"] < 0.05
    # Grey everywhere costs .25 x the share of white; the mean of all digits, the variance of the pixels.
    variance = float(digits[0].var(axis=0).mean())
    assert after["reconstruction_error"] < variance < before["reconstruction_error"]


# Saving

LOAD = """
import sys
import invariance
import keras
import numpy as np
model = keras.saving.load_model(sys.argv[1])
with np.load(sys.argv[2]) as file:
    images, labels = file["images"], file["labels"]
print(type(model).__module__, type(model).__name__, type(model.loss).__name__, int(model.optimizer.iterations))
outputs = model(images)
print(np.abs(outputs["scores"] - np.load(sys.argv[2])["scores"]).max())
print(np.abs(outputs["reconstruction"] - np.load(sys.argv[2])["reconstruction"]).max())
print(*model.evaluate(images, labels, verbose=0))
print(model.train_on_batch(images, labels)[0], int(model.optimizer.iterations))
"""


def test_saved_and_loaded_by_a_program_that_only_imports_the_package(tmp_path, digits):
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.5, staircase=True)
    model = awake(small(learning_rate=schedule, reconstruction_weight=0.5))
    for _ in range(2):
        model.train_on_batch(*digits)
    outputs, expected = model(digits[0]), model.evaluate(*digits, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", images=digits[0], labels=digits[1], **outputs)
    command = [sys.executable, "-c", LOAD, tmp_path / "model.keras", tmp_path / "data.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    names, scores, drawn, values, step = done.stdout.strip().splitlines()[-5:]
    assert names == "invariance.models.capsule_network CapsuleNetwork MarginLoss 2"
    # The same program on the same machine; another process may divide the work among threads differently.
    assert float(scores) < ROUNDING and float(drawn) < ROUNDING
    np.testing.assert_allclose([float(value) for value in values.split()], expected, rtol=ROUNDING)
    # The moments of the optimiser are there, too: the next step is the one of the model that was saved.
    loss, iterations = step.split()
    assert iterations == "3"
    assert float(loss) == pytest.approx(model.train_on_batch(*digits)[0], rel=ROUNDING)


def test_own_encoder_and_decoder(tmp_path, digits):
    # The class knows nothing of CapsNet: any encoder of capsules and scores will do.
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    capsules = keras.layers.Reshape((CLASSES, 3))(keras.layers.Dense(3 * CLASSES)(keras.layers.Flatten()(inputs)))
    encoder = keras.Model(inputs, [capsules, Length()(capsules)])
    model = CapsuleNetwork(encoder, dense_decoder(3 * CLASSES, (8,), SHAPE), 0.1, name="mine")
    model.compile("adam", MarginLoss(), metrics=["accuracy"])
    # Keras' own loop, with a batch that is not full.
    history = model.fit(*digits, batch_size=12, epochs=2, verbose=0).history
    assert set(history) == {"loss", "classification_loss", "reconstruction_error", "accuracy"}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.name, loaded.reconstruction_weight) == ("mine", 0.1)
    for name, expected in model(digits[0]).items():
        np.testing.assert_array_equal(loaded(digits[0])[name], expected)
    assert loaded.predict(digits[0], verbose=0)["scores"].shape == (32, CLASSES)


# Resuming

# Seven steps in epochs of three; images of 16 a step, so that the large convolution is the one by Fourier transform.
BUDGET = Budget(steps=7, batch_size=16, steps_per_epoch=3, learning_rate=1e-3)


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, digits, monkeypatch):
    data = np.round(255 * digits[0]).astype("uint8"), digits[1]
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    results, models = [], []
    for name in ("whole", "parts"):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        if name == "parts":
            with pytest.raises(Crash):
                stop_after(monkeypatch, 4, crash, awake(small()), data, folder, BUDGET, 3, dimmed)
            assert training.saved_step(folder / training.CHECKPOINT) == 4
        # Other weights for the second part: all must come from the checkpoint.
        models.append(awake(small()) if name == "whole" else small(seed=99))
        results.append(training.train(models[-1], dimmed, *data, BUDGET, 3, folder))
    for one, other in zip(*map(training.state_variables, models), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [[{**row, "seconds": 0} for row in result["history"]] for result in results]
    assert histories[0] == histories[1]
    names = ["step", "images", "seconds", "classification_loss", "reconstruction_error", "loss", "accuracy"]
    assert sorted(histories[0][0]) == sorted(names)
    for row in histories[0]:
        expected = row["classification_loss"] + 0.392 * row["reconstruction_error"]
        assert row["loss"] == pytest.approx(expected, rel=ROUNDING)
