"""The layer that moves images by a learnt linear operator, on rings of pixels whose places were shuffled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.generators import Generator
from invariance.layers.linear_generator import LinearGenerator
from tests.helpers import noise

SHAPE = (4, 6, 1)
# A mean and five frequencies of a ring of 24 pixels, which band-limited images are made of.
COMPONENTS = 11


def ring(images, times, seed=0):
    """Band-limited images on a ring, rotated by times: exactly linear, periodic and of constant length."""
    rng = np.random.default_rng(seed)
    heights = rng.uniform(0.2, 1.0, (images, 6)) / np.arange(1, 7)
    phases, places = rng.uniform(0, 2 * np.pi, (images, 6)), 2 * np.pi * np.random.default_rng(9).permutation(24) / 24
    angles = np.arange(6) * (places[None, :, None] - np.asarray(times)[:, None, None]) + phases[:, None]
    return (heights[:, None] * np.cos(angles)).sum(-1).reshape(images, *SHAPE).astype("float32")


@pytest.fixture(scope="module")
def learnt():
    rng = np.random.default_rng(1)
    times = rng.uniform(-np.pi, np.pi, (2, 4000))
    far = ring(4000, times[0]), ring(4000, times[1])
    difference = np.square(far[1] - far[0]).sum((1, 2, 3)) / np.square(far[0]).sum((1, 2, 3))
    near = difference < np.quantile(difference, 0.1)
    layer = LinearGenerator(COMPONENTS)
    layer.learn(far[0][near], far[1][near], farther=far)
    return layer


def direction(layer):
    """The sign of the layer's times."""
    found = layer.times_between(ring(50, np.zeros(50), 2), ring(50, np.full(50, 0.4), 2))
    return np.sign(np.median(found))


def test_new_images_are_rotated_and_their_times_found(learnt):
    assert learnt.period == pytest.approx(2 * np.pi)
    frequencies = np.sort(np.ravel(learnt.frequencies))
    np.testing.assert_array_equal(frequencies, [1, 2, 3, 4, 5])
    times = np.linspace(-3, 3, 60)
    images, expected = ring(60, np.zeros(60), 3), ring(60, times, 3)
    sign = direction(learnt)
    # The data have no noise: float32, in which the images came and the layer works.
    np.testing.assert_allclose(learnt([images, sign * times]), expected, atol=1e-3)
    np.testing.assert_allclose(learnt.times_between(images, expected)[:, 0], sign * times, atol=1e-3)
    assert learnt.diagnostics["share"] == pytest.approx(1.0, abs=1e-5)
    assert learnt.diagnostics["starts_agreement"] > 0.99


def test_the_same_is_learnt_from_drawings_of_classes(learnt):
    layer = LinearGenerator(COMPONENTS)
    # A class: mixtures of three images, each at a random time.
    rng = np.random.default_rng(4)
    classes = []
    for seed in range(6):
        mixed = np.tensordot(rng.normal([1.0, 0.0, 0.0], 0.3, (1000, 3)), ring(3, np.zeros(3), seed), 1)
        classes.append(np.asarray(learnt([mixed.astype("float32"), rng.uniform(-np.pi, np.pi, 1000)])))
    numbers = layer.learn_from_classes(classes)
    assert layer.period == pytest.approx(2 * np.pi) and numbers["starts_agreement"] > 0.99
    images, expected = ring(60, np.zeros(60), 3), ring(60, np.full(60, np.pi), 3)
    # Half a period; without a movement 1 and more.
    assert np.square(layer([images, np.full(60, np.pi)]) - expected).sum() < 0.05 * np.square(expected).sum()


def test_movements_compose_and_close(learnt):
    images = noise(5, *SHAPE)
    one, two = noise(5, seed=1), noise(5, seed=2)
    projected = learnt.project(images)
    # Float32: sums over 24 pixels and 11 components, phases of up to 5 * 2 pi.
    close = {"atol": 2e-5, "rtol": 0}
    assert np.abs(projected - images).max() > 0.1
    np.testing.assert_allclose(learnt.project(projected), projected, **close)
    np.testing.assert_allclose(learnt([images, np.zeros(5)]), projected, **close)
    np.testing.assert_allclose(learnt([images, np.full(5, learnt.period)]), projected, **close)
    np.testing.assert_allclose(learnt([learnt([images, one]), two]), learnt([images, (one + two)[:, None]]), **close)


def test_call_is_the_exponential_in_graphs_and_under_xla(learnt):
    images, times = noise(5, *SHAPE), noise(5, seed=1)
    vectors = np.asarray(learnt.basis, "float64")
    within = Generator(np.eye(COMPONENTS), np.asarray(learnt.frequencies, "float64")[0])
    expected = (within.move(images.reshape(5, -1) @ vectors, times) @ vectors.T).reshape(images.shape)
    for compiled in (False, True):
        function = tf.function(lambda *inputs: learnt(list(inputs)), jit_compile=compiled)
        found = function(tf.constant(images), tf.constant(times))
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_gradients_reach_images_and_times(learnt):
    images, times = tf.constant(noise(3, *SHAPE)), tf.constant(noise(3, seed=1))
    weights = noise(3, *SHAPE, seed=2)

    def value(images, times):
        return tf.reduce_sum(learnt([images, times]) * weights)

    with tf.GradientTape() as tape:
        tape.watch([images, times])
        total = value(images, times)
    gradients = tape.gradient(total, [images, times])
    for index, gradient in enumerate(gradients):
        step = noise(*gradient.shape, seed=3) * 1e-2
        ends = [value(*(x + s * step if i == index else x for i, x in enumerate((images, times)))) for s in (1, -1)]
        # Central differences over .01 in float32; third derivatives are up to 5 ** 3 times the values.
        np.testing.assert_allclose(tf.reduce_sum(gradient * step), (ends[0] - ends[1]) / 2, rtol=2e-2, atol=1e-4)


def test_saved_model_is_loaded_with_what_was_learnt(learnt, tmp_path):
    inputs = keras.Input(SHAPE), keras.Input(())
    model = keras.Model(inputs, learnt(list(inputs)))
    assert not model.trainable_weights
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    values = [noise(4, *SHAPE), noise(4, seed=1)]
    np.testing.assert_array_equal(loaded(values), model(values))
    np.testing.assert_array_equal(loaded.predict(values, verbose=0).shape, (4, *SHAPE))
    layer = loaded.layers[-1]
    assert layer.period == learnt.period and layer.get_config() == learnt.get_config()


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_layer_that_has_not_learnt_refuses_in_one_line(wrap):
    layer = LinearGenerator(COMPONENTS)
    layer.build([(None, *SHAPE), (None, 1)])
    images = tf.constant(noise(2, *SHAPE))
    for action in (lambda: layer([images, tf.zeros(2)]), lambda: layer.project(images)):
        with pytest.raises(ValueError, match="A LinearGenerator must have learnt before it moves images"):
            wrap(action)()
    with pytest.raises(ValueError, match="must have learnt"):
        LinearGenerator(COMPONENTS).period  # noqa: B018


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, None])
def test_wrong_components_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^Argument `components` must be a positive integer"):
        LinearGenerator(wrong)


def test_wrong_shapes_are_refused():
    images = noise(20, *SHAPE)
    with pytest.raises(ValueError, match=r"^Input must be images .* Received: shapes"):
        LinearGenerator(3).build([(None, *SHAPE), (None, 2)])
    with pytest.raises(ValueError, match=r"^Images must have at least as many pixels as there are components, 25"):
        LinearGenerator(25).build([(None, *SHAPE), (None,)])
    with pytest.raises(ValueError, match=r"^Arguments `first` and `second` must both be"):
        LinearGenerator(3).learn(images, images[1:])
    with pytest.raises(ValueError, match=r"^Arguments `farther\[0\]` and `farther\[1\]` must both be"):
        LinearGenerator(3).learn(images, images + 1, farther=(images, images[1:]))
    with pytest.raises(ValueError, match=r"^There must be at least as many images as components, 11"):
        LinearGenerator(11).learn(images[:5], images[5:10])
    with pytest.raises(ValueError, match=r"^There must be at least as many images as components, 25"):
        LinearGenerator(25).learn_from_classes([noise(12, 5, 6, 1), noise(10, 5, 6, 1)])
    for classes in ([], [images, images[:, 1:]], [images[0]]):
        with pytest.raises(
            ValueError, match=r"^Argument `classes` must be arrays \(drawings, height, width, channels\)"
        ):
            LinearGenerator(3).learn_from_classes(classes)
