"""The networks that rotate their code: what they learn from classes shown in part, their cost, saving, refusals."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.generation_rotation import TASK as ROTATION
from experiments.generation_shift import TASK as SHIFT
from invariance.models.autoencoder import Autoencoder
from invariance.models.operator_autoencoder import OperatorAutoencoder
from invariance.tasks.draw import Autoencoding, EncodedImages
from tests.helpers import assert_reached, noise

LINEAR = OperatorAutoencoder(code_size=8)
SEPARABLE = replace(LINEAR, circular=False, spacing=0.5, separable=True)
CONVOLUTIONAL = replace(LINEAR, linear=False, feature_maps=4, filters=(4, 8), units=16)
DESIGNS = {
    "linear": LINEAR,
    "learnt": replace(LINEAR, circular=False, learnt=True),
    "separable": replace(SEPARABLE, learnt=True),
    "convolutional": replace(CONVOLUTIONAL, learnt=True),
}
EVERY_DESIGN = pytest.mark.parametrize("declaration", DESIGNS.values(), ids=DESIGNS)
SHAPE = (8, 8, 1)


def build(declaration, output_shape=SHAPE, rate=1e-2):
    keras.utils.set_random_seed(0)
    model = declaration(SHAPE, output_shape, 2, rate)
    model.jit_compile = False
    model.optimizer.build(model.trainable_variables)
    return model


def inputs(count=5):
    return noise(count, *SHAPE, spread=(-1, 1)), noise(count, 2, seed=1, spread=(-1, 1))


# What is learnt


def images_of(labels, rng):
    """Noise; of class 1, with less contrast above and more below: a class that can be told from class 0."""
    contrast = np.where(np.arange(8) < 4, 0.5, 1.3)[:, None, None]
    return rng.normal(size=(len(labels), *SHAPE)) * np.where(labels[:, None, None, None] == 1, contrast, 1.0) - 1.0


def cyclic(images, labels, rng, extent):
    """Moves images cyclically along rows by whole pixels; told is a point of the circle."""
    moves = np.where(labels == 1, rng.integers(-extent, extent + 1, len(labels)), rng.integers(-4, 4, len(labels)))
    angles = 2 * np.pi * moves / 8
    told = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return told, np.stack([np.roll(image, move, axis=1) for image, move in zip(images, moves, strict=True)]), moves


def placed(images, labels, rng, extent):
    """Places images on a canvas of 14 x 14 pixels, up to three from its middle; told is the place."""
    moves = rng.integers(-3, 4, (len(labels), 2))
    moves = np.where(labels[:, None] == 1, np.clip(moves, -extent, extent), moves)
    canvas = np.full((len(labels), 14, 14, 1), -1.0)
    for row, (image, (dy, dx)) in enumerate(zip(images, moves, strict=True)):
        canvas[row, 3 + dy : 11 + dy, 3 + dx : 11 + dx] = image
    return moves / 3, canvas, np.abs(moves).max(axis=1)


# Noise has no directions that could be left out: the codes hold every frequency as often as the images. Cyclic moves of
# 8 x 8 pixels have five frequencies, eight profiles each; the code has room for 96. A canvas of 14 rows has seven
# frequencies, and one profile each; 2 pi / 14 radians a pixel, three pixels being told as one.
@pytest.mark.parametrize(
    ("declaration", "move", "output_shape", "rate", "steps"),
    [
        (OperatorAutoencoder(code_size=192), cyclic, SHAPE, 1e-2, 250),
        (replace(SEPARABLE, code_size=16, spacing=6 * math.pi / 14), placed, (14, 14, 1), 2e-2, 500),
    ],
    ids=["linear", "separable"],
)
def test_classes_shown_in_part_are_moved_like_the_others(declaration, move, output_shape, rate, steps, plain_updates):
    model, rng = build(declaration, output_shape), np.random.default_rng(0)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps - 20, warmup_target=rate, warmup_steps=20)
    model.compile(type(model.optimizer)(schedule), "mean_squared_error", jit_compile=False)
    step = tf.function(model.train_step, autograph=False)

    def batch(count, extent):
        labels = rng.integers(0, 2, count)
        images = images_of(labels, rng)
        told, targets, moves = move(images, labels, rng, extent)
        return labels, moves, tuple(each.astype("float32") for each in (images, told, targets))

    for _ in range(steps):
        _, _, (images, told, targets) = batch(64, 1)
        step(((tf.constant(images), tf.constant(told)), tf.constant(targets)))
    labels, moves, (images, told, targets) = batch(4000, 4)
    errors = ((model([images, told]) - targets) ** 2).numpy().mean(axis=(1, 2, 3))
    shares = errors / ((targets + 1) ** 2).mean(axis=(1, 2, 3))
    near, far = np.abs(moves) <= 1, np.abs(moves) > 1
    found = {
        (label, where): shares[(labels == label) & mask].mean()
        for label in (0, 1)
        for where, mask in (("near", near), ("far", far))
    }
    # Drawing nothing costs all of the images' energy; training ends at a few per mille.
    assert found[0, "near"] < 0.02 and found[0, "far"] < 0.02 and found[1, "near"] < 0.02
    # Class 1 was never moved far, and is moved there as well as class 0, which was. What training has left over differs
    # a little between the pixels where one and the other have their ink.
    assert found[1, "far"] < 1.5 * found[0, "far"]


@pytest.mark.parametrize("declaration", [LINEAR, SEPARABLE], ids=["linear", "separable"])
def test_linear_networks_are_linear(declaration):
    model = build(declaration)
    (images, told), others = inputs(), noise(5, *SHAPE, seed=2)
    ink, other, both = (np.asarray(model([each, told])) + 1 for each in (images, others, 2 * images + others + 2))
    # Both the background and ink are measured from -1: 2 (x + 1) + (y + 1) = (2 x + y + 2) + 1.
    np.testing.assert_allclose(both, 2 * ink + other, atol=1e-5)  # float32 sums of 64 numbers of size one
    np.testing.assert_array_equal(model([np.full_like(images, -1.0), told]), np.full_like(images, -1.0))


def test_separable_networks_move_columns_by_the_first_parameter_and_rows_by_the_second():
    model = build(SEPARABLE)
    images, told = inputs()
    drawn = np.asarray(model([images, told]))[..., 0] + 1
    # y = A(t_1) (x + 1) B(t_2)', and so matrices of images that differ in one pixel give each factor.
    weights = {weight.path.split("/")[-2]: np.asarray(weight) for weight in model.weights}

    def operator(name, pixels, parameter):
        """pixels -> code, rotation, code -> pixels"""
        phases = 0.5 * np.arange(4) * parameter
        cosine, sine = np.diag(np.cos(phases)), np.diag(np.sin(phases))
        return weights[pixels].T @ np.block([[cosine, -sine], [sine, cosine]]) @ weights[name].T

    for image, (down, right), result in zip(images[..., 0] + 1, told, drawn, strict=True):
        rows, columns = operator("rows", "pixel_rows", down), operator("columns", "pixel_columns", right)
        np.testing.assert_allclose(result, rows @ image @ columns.T, atol=1e-5)


# What every network must do


@EVERY_DESIGN
def test_gradients_reach_every_weight(declaration):
    model, (images, told) = build(declaration), inputs()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model([images, told]) - 0.3) ** 2)
    weights = model.trainable_weights
    assert any("frequencies" in weight.path for weight in weights) == declaration.learnt
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    assert_reached(gradients, weights)


@EVERY_DESIGN
def test_saved_and_loaded(declaration, tmp_path, plain_updates):
    model, (images, told) = build(declaration), inputs()
    data = (images, told), noise(5, *SHAPE, seed=2)
    model.train_step(data)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([images, told]), model([images, told]))
    # The next step is the same, too.
    for each in (model, loaded):
        each.train_step(data)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@EVERY_DESIGN
def test_trains_in_mixed_precision(declaration, bfloat16, plain_updates):
    model, (images, told) = build(declaration), inputs()
    before = [np.array(weight) for weight in model.weights]
    model.train_step(((images, told), noise(5, *SHAPE, seed=2)))
    assert model([images, told]).dtype == tf.float32
    assert all(weight.dtype == "float32" and np.isfinite(weight).all() for weight in model.weights)
    assert not any(map(np.array_equal, before, model.weights))


@pytest.mark.parametrize(
    ("declaration", "task"),
    [(LINEAR, ROTATION), (replace(LINEAR, circular=False), SHIFT), (SEPARABLE, SHIFT), (CONVOLUTIONAL, ROTATION)],
    ids=["linear rotation", "linear shift", "separable shift", "convolutional rotation"],
)
def test_draws_for_a_task(declaration, task):
    model = declaration(*task.arguments((28, 28, 1), range(10)))
    images = noise(3, 28, 28, spread=(0, 256)).astype("uint8")
    encoded = EncodedImages(Autoencoding(model, task, (28, 28, 1)), images)
    point = task.transformation.parameters(np.array([4.0]))
    expected, drawn = encoded.pairs(point)
    direct = model([task.pixels(images[..., None]), task.transformation.encode(np.repeat(point, 3, axis=0))])
    np.testing.assert_allclose(drawn[0], direct, atol=1e-5)
    np.testing.assert_allclose(encoded.errors(point[0]), ((drawn - expected)[0] ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)


# The declaration


def test_frequencies():
    # k + 2 m = 0; 1; 2, 2; 3, 3; 4, 4, 4; ...: copies of low frequencies before high ones.
    expected = [0, 1, 2, 0, 3, 1, 4, 2, 0, 5]
    assert replace(LINEAR, code_size=20).frequencies(1) == tuple((each,) for each in expected)
    # Each point of a grid once, without its opposite.
    plane = replace(LINEAR, code_size=18, circular=False, spacing=0.5).frequencies(2)
    assert set(plane[:5]) == {(0, 0), (0, 0.5), (0.5, 0), (0.5, -0.5), (0.5, 0.5)}
    assert len(set(plane)) == 9 and not {(-y, -x) for y, x in plane[1:]} & set(plane)
    lengths = [math.hypot(*each) for each in plane]
    assert lengths == sorted(lengths)
    # Each frequency of an axis once.
    assert SEPARABLE.frequencies(1) == ((0,), (0.5,), (1.0,), (1.5,))


def test_cost():
    shapes = (28, 28, 1), (68, 60, 1), 2
    # Multiply-adds: (pixels, code), (code, pixels).
    encoder, decoder = 2.0 * 784 * 8, 2.0 * 8 * 4080
    assert LINEAR.flops(*shapes) == encoder + decoder and LINEAR.evaluation_flops(*shapes) == decoder
    # 28 rows of pixels times (28, 8), 8 columns of the code times (28, 8); 8 columns of the code times (8, 60), 60
    # columns of pixels times (8, 68).
    encoder, decoder = 2.0 * (28 * 28 * 8 + 8 * 28 * 8), 2.0 * (8 * 8 * 60 + 60 * 8 * 68)
    assert SEPARABLE.flops(*shapes) == encoder + decoder and SEPARABLE.evaluation_flops(*shapes) == decoder
    # The article's autoencoder, to which no number is told.
    same, shapes = Autoencoder(4, 8, (4, 8), 16), (*shapes[:2], 0)
    assert CONVOLUTIONAL.flops(*shapes[:2], 2) == same.flops(*shapes)
    assert CONVOLUTIONAL.evaluation_flops(*shapes[:2], 2) == same.evaluation_flops(*shapes)
    model = build(CONVOLUTIONAL)
    assert model.count_params() == same(SHAPE, SHAPE, 0).count_params()


@pytest.mark.parametrize("argument", ["code_size", "feature_maps", "units"])
@pytest.mark.parametrize("value", [0, -2, 2.0])
def test_wrong_sizes_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"^Argument `{argument}` must be a positive integer.*{value}$"):
        replace(LINEAR, **{argument: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code_size": 7}, "Argument `code_size` must be even.* Received: 7"),
        ({"spacing": 0.5}, "Argument `spacing` must be .* whole one for circular parameters. Received: 0.5"),
        ({"circular": False, "spacing": 0.0}, "Argument `spacing` must be a positive number.* Received: 0.0"),
        ({"separable": True, "linear": False}, "Argument `separable` needs `linear`. .*linear=False"),
    ],
)
def test_wrong_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        replace(LINEAR, **changes)


@pytest.mark.parametrize(
    ("declaration", "arguments", "message"),
    [
        (LINEAR, (SHAPE, SHAPE, 3), r"Circular parameters are pairs \(cos, sin\). Received: 3 numbers"),
        (LINEAR, (SHAPE, SHAPE, 0), r"Circular parameters are pairs \(cos, sin\). Received: 0 numbers"),
        (SEPARABLE, (SHAPE, SHAPE, 1), "A separable network has a parameter for rows and .* Received: 1 parameters"),
        (SEPARABLE, (SHAPE, (9, 9, 3), 2), "A separable network draws as many channels .* 1.*3.*"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(declaration, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        declaration(*arguments)
