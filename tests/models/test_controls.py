"""The control classifiers: what they are invariant under, before and after training, and what every network must do."""

import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.group_convolution import GroupConvolution2D
from invariance.layers.spatial_transformer import rotation_angles
from invariance.models.cnn import CNN, Convolution
from invariance.models.p4cnn import P4CNN
from invariance.models.polar_cnn import PolarCNN
from invariance.models.transformer_cnn import SpatialTransformerCNN
from invariance.warp import rotate
from tests.helpers import assert_reached, noise

SHAPE = (20, 20, 1)
# Probabilities are float32 numbers up to 1, from sums of some hundred products in a different order.
ROUNDING = 1e-5

SMALL = CNN(
    (Convolution(8, 4, 2), Convolution(12, 4, 2)), True, 0.5, dense=32, moving_average_decay=0.8, double_softmax=False
)
P4 = P4CNN((Convolution(4, 4, 2), Convolution(8, 4, 2)), dense=32, moving_average_decay=0.8)
POLAR = PolarCNN(
    24, 8, convolutions=(Convolution(8, 3, 2), Convolution(8, 3, 2)), channels=12, dense=32, moving_average_decay=0.8
)
TRANSFORMER = SpatialTransformerCNN(SMALL, (Convolution(4, 5, 2), Convolution(8, 5, 2)), units=16)
FAMILIES = {"p4cnn": P4, "polar_cnn": POLAR, "transformer_cnn": TRANSFORMER}
EVERY = pytest.mark.parametrize("name", FAMILIES)


def built(declaration, shape=SHAPE, rate=3e-3):
    keras.utils.set_random_seed(0)
    model = declaration(shape, 10, rate)
    model.jit_compile = False
    return model


def trained(model, images, labels, steps):
    """The model, trained on the same images at every step."""
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda: model.train_step((images, labels)), autograph=False)
    images, labels = tf.constant(images), tf.constant(labels)
    for _ in range(steps):
        step()
    return model


@pytest.fixture(scope="module")
def models(digits):
    """Each network, trained on 32 upright digits."""
    with pytest.MonkeyPatch.context() as patch:
        from invariance.optimizers import CompiledUpdate

        patch.setattr(CompiledUpdate, "apply", keras.optimizers.Optimizer.apply)
        return {name: trained(built(declaration), *digits, 60) for name, declaration in FAMILIES.items()}


def accuracy(model, images, labels):
    return np.mean(np.argmax(model(images), axis=-1) == labels)


# Invariance


def departure(model, images):
    """How far a network is from invariance under quarter turns: the largest change of a probability."""
    probabilities = model(images).numpy()
    turned = (model(np.rot90(images, quarters, axes=(1, 2))).numpy() for quarters in (1, 2, 3))
    return max(np.abs(each - probabilities).max() for each in turned)


@pytest.mark.parametrize(
    ("declaration", "shape"),
    [
        (P4CNN(), (28, 28, 1)),
        (PolarCNN(), (28, 28, 1)),
        (P4, (20, 20, 3)),
        (replace(P4, convolutions=(Convolution(4, 3, 2), Convolution(8, 3)), batch_norm=False), (13, 13, 1)),
        (POLAR, (13, 13, 2)),
        (replace(POLAR, batch_norm=False, logarithmic=True), (16, 16, 1)),
    ],
    ids=["p4cnn", "polar_cnn", "p4cnn colour", "p4cnn odd", "polar_cnn colour", "polar_cnn logarithmic"],
)
def test_quarter_turns_change_nothing_at_random_weights_and_after_training(declaration, shape, plain_updates):
    model, images = built(declaration, shape), noise(8, *shape, spread=(0, 1))
    assert departure(model, images) < ROUNDING
    before = model(images).numpy()
    for _ in range(3):
        model.train_step((tf.constant(images), tf.range(8)))
    after = model(images).numpy()
    # Training moved the probabilities, and they differ from image to image: both far beyond rounding.
    assert min(np.abs(after - before).max(), np.ptp(after, axis=0).max()) > 100 * ROUNDING
    assert departure(model, images) < ROUNDING


def test_turned_images_train_the_same_weights(plain_updates):
    # Dropout, and batch norm with the batch's statistics, are invariant, too.
    images, steps = noise(8, *SHAPE, spread=(0, 1)), []
    for quarters in (0, 1):
        model = built(P4)
        inputs = tf.constant(np.rot90(images, quarters, axes=(1, 2)).copy())
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, tf.range(8), model(inputs, training=True))
        steps.append([loss, *tape.gradient(loss, [weight.value for weight in model.trainable_weights])])
        steps[-1] += [weight.value for weight in model.non_trainable_weights if "moving" in weight.path]
    for one, other in zip(*steps, strict=True):
        # Gradients of float32 sums over positions and images.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1.0, np.abs(one).max()))


def test_every_step_of_the_angle_changes_nothing_behind_the_polar_layer(models):
    model = models["polar_cnn"]
    behind = keras.Model(model.get_layer("polar").output, model.output)
    polar = noise(4, POLAR.radii, POLAR.angles, 1, spread=(0, 1))
    probabilities = behind(polar).numpy()
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.05
    for steps in range(1, POLAR.angles):
        np.testing.assert_allclose(behind(np.roll(polar, steps, axis=2)), probabilities, rtol=0, atol=ROUNDING)
    # Not so the radius.
    assert np.abs(behind(np.roll(polar, 2, axis=1)) - probabilities).max() > 0.01


def test_trained_upright_all_learn_but_only_the_told_recognise_rotated_digits(models, digits):
    images, labels = digits
    found = {}
    for name, model in models.items():
        rotated = [rotate(images, np.full(32, angle, "float32")) for angle in (0, 90, 180, 40, 130)]
        found[name] = [accuracy(model, each, labels) for each in rotated]
        assert found[name][0] >= 0.9  # of 32; dropout of half the units may miss a few
    assert found["p4cnn"][:3] == [found["p4cnn"][0]] * 3
    assert found["polar_cnn"][:3] == [found["polar_cnn"][0]] * 3
    # Between the steps of the angle, and blurred.
    assert min(found["polar_cnn"]) >= 0.8
    assert max(found["transformer_cnn"][1:]) < 0.7


# The spatial transformer


def test_transformer_is_the_classifier_at_first_and_shows_its_angles(models, digits):
    images = digits[0]
    model = built(TRANSFORMER)
    classifier = model.get_layer("classifier")
    np.testing.assert_array_equal(model(images), classifier(images))
    matrices = model.get_layer("transformer").matrices(images)
    np.testing.assert_array_equal(rotation_angles(matrices), np.zeros(32))
    angles = rotation_angles(models["transformer_cnn"].get_layer("transformer").matrices(images))
    assert angles.shape == (32,) and np.std(angles) > 0.01


def test_corrected_transformer_has_the_usual_loss():
    assert SpatialTransformerCNN().corrected() is None
    original = replace(TRANSFORMER, classifier=replace(SMALL, double_softmax=True))
    assert original.corrected() == TRANSFORMER
    assert type(original(SHAPE, 10).loss) is not type(TRANSFORMER(SHAPE, 10).loss)
    assert isinstance(TRANSFORMER(SHAPE, 10).loss, keras.losses.SparseCategoricalCrossentropy)


# What every network must do


def layers_of(model):
    """The layers of a model and of the models within, in order."""
    for layer in model.layers:
        inner = [getattr(layer, part) for part in ("localisation", "regression") if hasattr(layer, part)]
        for part in inner or [layer]:
            yield from layers_of(part) if isinstance(part, keras.Model) else [part]


def products(layer):
    """Multiply-adds of a layer's matrix products for one image."""
    if isinstance(layer, GroupConvolution2D):
        # The filters have four copies.
        return 4 * int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
    if isinstance(layer, layers.Conv2D):
        return int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
    return int(np.prod(layer.kernel.shape))


@pytest.mark.parametrize(
    ("declaration", "shape"),
    [(P4, (28, 28, 1)), (P4, (4, 4, 3)), (POLAR, (28, 28, 1)), (POLAR, (9, 12, 2)), (TRANSFORMER, (9, 12, 2))],
    ids=lambda value: str(value) if isinstance(value, tuple) else type(value).__name__,
)
def test_builds_and_knows_its_cost(declaration, shape):
    model = declaration(shape, 3)
    outputs = model(noise(2, *shape, spread=(0, 1)))
    assert model.input_shape == (None, *shape) and outputs.shape == (2, 3) and outputs.dtype == tf.float32
    np.testing.assert_allclose(np.sum(outputs, axis=-1), 1.0, rtol=0, atol=1e-6)  # three float32 numbers
    expected = [2.0 * products(layer) for layer in layers_of(model) if hasattr(layer, "kernel")]
    assert list(declaration.layer_flops(shape, 3)) == expected
    assert model.optimizer.beta_1 == 0.95 and model.optimizer.beta_2 == 0.999 and model.optimizer.epsilon == 1e-8


@EVERY
def test_gradients_reach_every_weight(models, name, digits):
    model, (images, labels) = models[name], digits
    with tf.GradientTape() as tape:
        loss = model.compute_loss(images, labels, model(images, training=True))
    assert_reached(tape.gradient(loss, [weight.value for weight in model.trainable_weights]), model.trainable_weights)


@EVERY
def test_saved_and_loaded(models, name, digits, tmp_path):
    model = models[name]
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(digits[0]), model(digits[0]))
    assert type(loaded.optimizer) is type(model.optimizer) and int(loaded.optimizer.iterations) == 60
    assert type(loaded.loss) is type(model.loss)
    for one, other in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@EVERY
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(models, name, xla, digits):
    model = models[name]
    compiled = tf.function(lambda images: model(images, training=False), jit_compile=xla, autograph=False)
    np.testing.assert_allclose(compiled(tf.constant(digits[0])), model(digits[0]), rtol=0, atol=ROUNDING)


@EVERY
def test_trains_in_mixed_precision(name, digits, bfloat16, plain_updates):
    model = built(FAMILIES[name])
    logs = model.train_step(tf.nest.map_structure(tf.constant, digits))
    assert np.isfinite([float(value) for value in logs.values()]).all()
    outputs = model(digits[0])
    assert outputs.dtype == tf.float32 and all(weight.dtype == "float32" for weight in model.weights)
    assert any(layer.compute_dtype == "bfloat16" for layer in layers_of(model) if layer.weights)


@pytest.mark.parametrize(
    ("declaration", "argument", "wrong", "message"),
    [
        (P4, "dense", 0, "`dense` must be a positive integer"),
        (P4, "dropout", 1, "`dropout` must be at least 0 and less than 1"),
        (P4, "convolutions", (Convolution(4, 3, pool=2),), "`convolutions` must be one or more"),
        (P4, "convolutions", (), "`convolutions` must be one or more"),
        *(
            (POLAR, each, 0, f"`{each}` must be a positive integer")
            for each in ("angles", "radii", "channels", "dense")
        ),
        (POLAR, "moving_average_decay", 1.0, "`moving_average_decay` must be at least 0 and less than 1"),
        (POLAR, "convolutions", (Convolution(4, 25),), "kernels of at most 24, the number of angles"),
        (POLAR, "convolutions", (Convolution(4, 3, pool=2),), "must have no pooling"),
        (TRANSFORMER, "units", -1, "`units` must be a positive integer"),
        (TRANSFORMER, "localisation", (Convolution(4, 3, pool=2),), "`localisation` must be convolutions without"),
    ],
)
def test_wrong_arguments_are_refused(declaration, argument, wrong, message):
    with pytest.raises(ValueError, match=message) as refused:
        replace(declaration, **{argument: wrong})
    assert "\n" not in str(refused.value) and "Received: " in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((28, 20, 1), "needs square images; these have 28 x 20 pixels"), ((27, 27, 1), "a side of 27 pixels")],
)
def test_images_on_which_quarter_turns_are_not_exact_are_refused(shape, message):
    with pytest.raises(ValueError, match=message) as refused:
        P4(shape, 10)
    assert "\n" not in str(refused.value)
