"""The second-order networks: what they learn from classes shown in part, their cost, saving, refusals."""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import generation_affine, generation_rotation, rotation_compensation
from invariance.layers.place_capsules import PlaceCapsules
from invariance.layers.second_order_dense import SecondOrderDense
from invariance.models.controlled_autoencoder import ControlledAutoencoder
from invariance.models.feature_moving_autoencoder import FeatureMovingAutoencoder
from invariance.models.pixel_hypernetwork import PixelHypernetwork
from invariance.tasks.draw import Autoencoding, EncodedImages
from tests.helpers import assert_reached, noise

SHAPE = (8, 8, 1)
PIXELS, MOVED, CONTROLLED = PixelHypernetwork(3), FeatureMovingAutoencoder(3, 4), ControlledAutoencoder(5, 2, 3, 4)


@dataclass(frozen=True)
class Design:
    """A small network, of which nothing or two numbers are told."""

    declaration: Any
    told: int = 2
    shape: tuple = (10, 7, 2)

    def build(self, rate=1e-2):
        keras.utils.set_random_seed(0)
        # What is drawn without being told anything is as large as what is given.
        model = self.declaration(SHAPE, SHAPE if not self.told else self.shape, self.told, rate)
        model.jit_compile = False
        model.optimizer.build(model.trainable_variables)
        return model

    def data(self, count=5):
        images, told = noise(count, *SHAPE, spread=(-1, 1)), noise(count, 2, seed=1, spread=(-1, 1))
        if not self.told:
            return images, noise(count, *SHAPE, seed=2, spread=(-1, 1))
        return (images, told), noise(count, *self.shape, seed=2, spread=(-1, 1))


DESIGNS = {
    "pixels": Design(PIXELS),
    "moved features": Design(MOVED),
    "controlled by numbers": Design(CONTROLLED),
    "controlled by the image": Design(CONTROLLED, told=0),
}
EVERY_DESIGN = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)


# What is learnt


def test_classes_shown_at_few_angles_are_moved_like_the_others(plain_updates):
    """Images of class 1 have less contrast above, and are moved by none or one of four told moves only."""
    rng, moves = np.random.default_rng(0), [(0, 0), (2, 0), (0, 3), (4, 1)]
    keras.utils.set_random_seed(0)
    model = PixelHypernetwork(8)((6, 6, 1), (6, 6, 1), 4, 3e-2)
    step = tf.function(model.train_step, autograph=False)

    def batch(count, most):
        labels = rng.integers(0, 2, count)
        images = rng.normal(size=(count, 6, 6, 1)) * np.where(np.arange(6) < 3, 0.3, 1.0)[:, None, None] ** labels[
            :, None, None, None]  # fmt: skip
        which = np.where(labels == 1, rng.integers(0, most, count), rng.integers(0, 4, count))
        moved = [np.roll(image, moves[number], (0, 1)) for image, number in zip(images, which, strict=True)]
        told = np.eye(4)[which]
        return labels, which, tuple(np.asarray(each, "float32") for each in (images, told, moved))

    for _ in range(200):
        _, _, (images, told, moved) = batch(64, 2)
        step(((tf.constant(images), tf.constant(told)), tf.constant(moved)))
    labels, which, (images, told, moved) = batch(500, 4)
    errors = ((model([images, told]) - moved) ** 2).numpy().mean(axis=(1, 2, 3)) / (moved**2).mean(axis=(1, 2, 3))
    # Averages of all pixels, as before training, have 97 % of the images' energy as their error.
    assert errors[labels == 0].mean() < 0.02
    # A network that knew class 1 at two moves only would err by all of it at the others.
    assert errors[(labels == 1) & (which >= 2)].mean() < 0.02


@pytest.mark.parametrize("name", ["moved features", "controlled by numbers", "controlled by the image"])
def test_learns_few_images(name, plain_updates):
    design = DESIGNS[name]
    model, data = design.build(), tf.nest.map_structure(tf.constant, design.data(8))
    before = float(model.evaluate(*data, verbose=0))
    step = tf.function(model.train_step, autograph=False)
    for _ in range(150):
        step(data)
    # Eight images of noise, of which nothing but their memory could be drawn; tanh can.
    assert float(model.evaluate(*data, verbose=0)) < 0.8 * before


# What every network must do


@EVERY_DESIGN
def test_gradients_reach_every_weight(design):
    model, (inputs, targets) = design.build(), design.data()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(inputs) - targets) ** 2)
    weights = model.trainable_weights
    assert_reached([tf.convert_to_tensor(each) for each in tape.gradient(loss, [w.value for w in weights])], weights)


@EVERY_DESIGN
def test_saved_and_loaded(design, tmp_path, plain_updates):
    model, data = design.build(), design.data()
    model.train_step(data)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data[0]), model(data[0]))
    # The next step is the same, too.
    for each in (model, loaded):
        each.train_step(data)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@EVERY_DESIGN
def test_trains_in_mixed_precision(design, bfloat16, plain_updates):
    model, data = design.build(), design.data()
    before = [np.array(weight) for weight in model.weights]
    model.train_step(data)
    assert model(data[0]).dtype == tf.float32 and model(data[0]).shape == data[1].shape
    assert all(weight.dtype == "float32" and np.isfinite(weight).all() for weight in model.weights)
    assert not any(map(np.array_equal, before, model.weights))


@pytest.mark.parametrize(
    ("declaration", "task"),
    [
        (PIXELS, generation_rotation.DISCRETE),
        (MOVED, generation_rotation.DISCRETE),
        (CONTROLLED, generation_affine.EXPERIMENT.task),
        (CONTROLLED, rotation_compensation.EXPERIMENT.task),
    ],
    ids=["pixels", "moved features", "affine", "compensation"],
)
def test_draws_for_a_task(declaration, task):
    model = declaration(*task.arguments(SHAPE, range(10)))
    images = noise(3, *SHAPE, spread=(0, 256)).astype("uint8")
    encoded = EncodedImages(Autoencoding(model, task, SHAPE), images)
    [point] = task.transformation.parameters(np.array([72.0]))
    upright = task.pixels(images)
    parameters = tf.constant(encoded._repeated(point)[:3])
    drawn, expected = model(task.given(upright, parameters)), task.expected(upright, parameters)
    np.testing.assert_allclose(encoded.pairs(point[None])[1][0], drawn, rtol=0, atol=1e-4)
    np.testing.assert_allclose(encoded.errors(point), tf.reduce_mean((drawn - expected) ** 2, (1, 2, 3)), rtol=1e-3)


# The declarations

PUBLISHED = {
    # 64 units of two numbers, and 784 x 784 weights of these.
    (PixelHypernetwork(), 2): 2 * 64 + 64 + (64 + 1) * 784**2,
    (FeatureMovingAutoencoder(), 2): (25 + 1) * 16
    + (25 * 16 + 1) * 32
    + (2 + 1) * 98
    + 25 * 32 * 16
    + 16
    + 25 * 16
    + 1,
    (ControlledAutoencoder(), 6): 260 + 5020 + 981 * 200 + 6 * 64 + 64 + 65 * 200**2 + 201 * 980 + 5010 + 251,
    (ControlledAutoencoder(), 0): 260 + 5020 + 981 * 200 + 520 + 5010 + 491 * 200**2 + 201 * 980 + 5010 + 251,
}


@pytest.mark.parametrize(("given", "count"), PUBLISHED.items(), ids=str)
def test_published_sizes(given, count):
    declaration, told = given
    assert declaration((28, 28, 1), (28, 28, 1), told).count_params() == count


@EVERY_DESIGN
def test_cost(design):
    arguments = SHAPE, SHAPE if not design.told else design.shape, design.told
    model = design.build()
    parts = [model.encoder, model.decoder] if hasattr(model, "encoder") else [model]

    def products(layer):
        if isinstance(layer, PlaceCapsules):
            return layer.height * layer.width * int(np.prod(layer.input[1].shape[1:]))
        if isinstance(layer, SecondOrderDense):
            hidden = layer.hidden_kernel.shape if layer.hidden else (0, 0)
            return int(np.prod(hidden) + np.prod(layer.kernel.shape)) + layer.units * layer.input[0].shape[1]
        positions = {keras.layers.Conv2D: "output", keras.layers.Conv2DTranspose: "input"}.get(type(layer))
        cells = np.prod(getattr(layer, positions).shape[1:3]) if positions else 1
        return int(cells * np.prod(layer.kernel.shape)) if hasattr(layer, "kernel") else 0

    costs = [2.0 * sum(map(products, part.layers)) for part in parts]
    assert design.declaration.flops(*arguments) == sum(costs)
    evaluation = design.declaration.evaluation_flops(*arguments)
    if design.declaration is PIXELS:
        # Of the product alone.
        assert evaluation == 2.0 * 64 * np.prod(design.shape)
    else:
        assert evaluation == costs[-1]


@pytest.mark.parametrize("value", [0, -2, 2.0])
@pytest.mark.parametrize(
    ("declaration", "argument"),
    [
        (PIXELS, "hidden"),
        *((MOVED, each) for each in ("first", "second")),
        *((CONTROLLED, each) for each in ("code_size", "small", "large", "hidden")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_sizes_are_refused(declaration, argument, value):
    with pytest.raises(ValueError, match=f"^Argument `{argument}` must be a positive integer.*{value}$"):
        replace(declaration, **{argument: value})
