"""`CapsuleNetwork`: which capsule is decoded, its two losses, the schedule of the spread loss, other encoders."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.capsules import Length
from invariance.losses import MarginLoss, SpreadLoss
from invariance.models.capsnet import CapsNet
from invariance.models.capsule_network import CapsuleNetwork, dense_decoder
from invariance.models.matrix_capsnet import MatrixCapsNet
from invariance.routing.em import Form
from tests.helpers import assert_reached

# 20 x 20 pixels: the first convolution leaves 12 x 12 positions, the second 2 x 2 with 4 capsules each.
SMALL, SHAPE, CLASSES = CapsNet(filters=32, primary_channels=4, decoder=(32, 64)), (20, 20, 1), 10
MATRIX = MatrixCapsNet(16, primary=4, capsules=(4, 4), margin_steps=2, decoder=(32, 64))

# Float32 means of thousands of numbers of size one, computed in two ways.
ROUNDING = 1e-5


def small(**changes):
    """A CapsNet with capsules .1 long. New ones have nearly no length, so that all outputs are alike."""
    keras.utils.set_random_seed(0)
    model = replace(SMALL, **changes)(SHAPE, CLASSES)
    for name in ("primary_capsules", "class_capsules"):
        kernel = max(model.encoder.get_layer(name).trainable_weights, key=lambda weight: weight.shape.rank)
        kernel.assign(10.0 * kernel)
    return model


def tensors(digits):
    return tuple(map(tf.constant, digits))


def logs_of(step, data):
    return {key: float(value) for key, value in step(data).items()}


def test_gradients_of_both_losses(digits):
    model, (images, labels) = small(), tensors(digits)
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(images, labels=labels, training=True)
        margin = model.loss(labels, outputs["scores"])
        error = tf.reduce_mean((images - outputs["reconstruction"]) ** 2)
    weights = model.trainable_weights
    variables = [weight.value for weight in weights]
    # That of the reconstruction passes through decoder and routing to the first convolution.
    assert_reached(tape.gradient(error, variables), weights)
    # That of the margin loss does not depend on the decoder.
    decoding = {id(weight) for weight in model.decoder.trainable_weights}
    for weight, gradient in zip(weights, tape.gradient(margin, variables), strict=True):
        assert (gradient is None) == (id(weight) in decoding), weight.path


@pytest.mark.parametrize("weight", [0.392, 0.0, 5.0])
def test_loss_is_the_classification_loss_plus_the_weighted_error(digits, weight):
    model, (images, labels) = small(reconstruction_weight=weight), tensors(digits)
    outputs = model(images, labels=labels, training=True)
    margin = float(model.loss(labels, outputs["scores"]))
    error = float(tf.reduce_mean((images - outputs["reconstruction"]) ** 2))
    logs = logs_of(model.train_step, (images, labels))
    assert set(logs) == {"loss", "classification_loss", "reconstruction_error", "accuracy"}
    assert logs["classification_loss"] == pytest.approx(margin, rel=ROUNDING)
    assert logs["reconstruction_error"] == pytest.approx(error, rel=ROUNDING)
    assert logs["loss"] == pytest.approx(margin + weight * error, rel=ROUNDING)


def test_decoder_sees_the_labelled_capsule_in_training_and_the_longest_otherwise(digits):
    images, model = digits[0], small()
    for weight in model.decoder.trainable_weights:
        weight.assign(5.0 * weight)  # or all classes would give nearly the same image
    capsules, scores = model.encoder(images)
    longest = np.argmax(scores, axis=-1)
    wrong = (longest + 1) % CLASSES

    def decoded(outputs):
        masked = np.zeros((32, CLASSES, 16), "float32")
        masked[np.arange(32), outputs] = np.asarray(capsules)[np.arange(32), outputs]
        return model.decoder(masked.reshape(32, -1))

    for outputs, expected in ((model(images), longest), (model(images, labels=wrong), wrong)):
        np.testing.assert_allclose(outputs["reconstruction"], decoded(expected), rtol=0, atol=ROUNDING)
    # The two differ, or nothing is shown.
    right, other = (float(np.mean((images - decoded(outputs)) ** 2)) for outputs in (longest, wrong))
    assert abs(right - other) > 10 * ROUNDING * right
    # Evaluation decodes the longest, although it is given the labels; a training step the labelled.
    for step, expected in ((model.test_step, right), (model.train_step, other)):
        model.reset_metrics()
        assert logs_of(step, tensors((images, wrong)))["reconstruction_error"] == pytest.approx(expected, rel=ROUNDING)


def test_logged_losses_add_up_over_unequal_batches(digits):
    images, labels = (part[:7] for part in digits)
    model = small()
    for start in (0, 4):
        logs = logs_of(model.test_step, tensors((images[start : start + 4], labels[start : start + 4])))
    expected = logs["classification_loss"] + 0.392 * logs["reconstruction_error"]
    assert logs["loss"] == pytest.approx(expected, rel=ROUNDING)
    model.reset_metrics()
    whole = logs_of(model.test_step, tensors((images, labels)))
    assert logs == pytest.approx(whole, rel=ROUNDING)


def test_black_images_have_finite_gradients(digits):
    keras.utils.set_random_seed(0)
    model, black, labels = SMALL(SHAPE, CLASSES), tf.zeros((32, *SHAPE)), digits[1]
    with tf.GradientTape() as tape:
        outputs = model(black, labels=labels, training=True)
        loss = model.compute_loss(black, labels, outputs)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    # All capsules are zero: of length sqrt(1e-7), so the margin loss is (.9 - .0003)^2.
    assert float(model.loss(labels, outputs["scores"])) == pytest.approx(0.9**2, abs=1e-3)


def test_own_encoder_and_decoder(tmp_path, digits):
    """Any encoder to capsules and scores will do, with Keras' own loop and a batch that is not full."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    capsules = keras.layers.Reshape((CLASSES, 3))(keras.layers.Dense(3 * CLASSES)(keras.layers.Flatten()(inputs)))
    encoder = keras.Model(inputs, [capsules, Length()(capsules)])
    model = CapsuleNetwork(encoder, dense_decoder(3 * CLASSES, (8,), SHAPE), 0.1, name="mine")
    model.compile("adam", MarginLoss(), metrics=["accuracy"], jit_compile=False)
    history = model.fit(*digits, batch_size=12, verbose=0).history
    assert set(history) == {"loss", "classification_loss", "reconstruction_error", "accuracy"}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.name, loaded.reconstruction_weight) == ("mine", 0.1)
    for name, expected in model(digits[0]).items():
        np.testing.assert_array_equal(loaded(digits[0])[name], expected)
    assert loaded.predict(digits[0], verbose=0)["scores"].shape == (32, CLASSES)


# Matrix capsules


def test_model_passes_its_step_to_the_spread_loss(digits, plain_updates):
    keras.utils.set_random_seed(0)
    # With a learning rate of zero the scores stay; the margin grows at every second step.
    model, data = MATRIX(SHAPE, CLASSES, 0.0), tensors(digits)
    scores = model(data[0], training=True)["scores"]
    for step in range(5):
        assert int(model.optimizer.iterations) == step
        found = logs_of(model.train_step, data)["classification_loss"]
        # Routing amplifies the rounding of poses and batch norm; the margins differ by a sixth.
        expected = SpreadLoss(stop=0.2 + 0.035 * (step // 2))(data[1], scores)
        assert found == pytest.approx(float(expected), rel=1e-3)
        model.reset_metrics()


def test_form_of_the_paper_reaches_the_layers():
    form = {"iterations": 3, "logistic": True, "normalised": False}
    model = replace(MATRIX, inverse_temperature=0.5, together=True, **form)(SHAPE, CLASSES)
    routed = [model.encoder.get_layer(name) for name in ("capsules_1", "capsules_2", "class_capsules")]
    assert {layer.form for layer in routed} == {Form(inverse_temperatures=0.5, **form)}
    assert routed[-1].together


def test_coordinates_are_the_centres_of_the_receptive_fields():
    # A position sees the pixels from first to last; its centre is their mean. Rows and columns have their own sides.
    classes = MATRIX((28, 36, 1), 2).encoder.get_layer("class_capsules")

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
