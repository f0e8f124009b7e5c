"""Decoders of capsules: what is told, the class that a code chooses, each capsule's own network, refusals."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from invariance.models.class_placing_autoencoder import ClassPlacingAutoencoder
from invariance.models.placing_autoencoder import PlacingAutoencoder
from tests.helpers import noise

SHAPE = (8, 8, 1)
PLACING = PlacingAutoencoder(4, code_size=3, filters=(4, 8), units=16, capsules=6, decoder_units=16, half_maps=4)
CLASSES = ClassPlacingAutoencoder(
    4, code_size=5, filters=(4, 8), units=16, classes=3, capsules=6, dimension=7, capsule_units=9, half_maps=4
)


def build(declaration, **changes):
    keras.utils.set_random_seed(0)
    model = replace(declaration, **changes)(SHAPE, SHAPE, 2, 1e-2)
    model.jit_compile = False
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize(
    ("told", "hearing"), [("both", {"positions", "features"}), ("positions", {"positions"}), ("features", {"features"})]
)
def test_what_is_told_of_the_transformation_changes_with_it(told, hearing):
    decoder = build(PLACING, told=told).decoder
    outputs = {name: keras.Model(decoder.inputs, decoder.get_layer(name).output) for name in ("positions", "features")}
    codes, numbers, other = noise(8, 3), noise(8, 2), noise(8, 2, seed=1)
    changed = {name: not np.allclose(model([codes, numbers]), model([codes, other])) for name, model in outputs.items()}
    assert {name for name, moved in changed.items() if moved} == hearing
    assert all(not np.allclose(model([codes, numbers]), model([codes[::-1], numbers])) for model in outputs.values())


def test_a_class_is_drawn_by_its_own_vectors():
    model = build(CLASSES)
    codes = noise(3, 5)
    # The softmax of these is 1 for one class each, to the last bit of float32.
    codes[:, :3] = 200 * np.eye(3)
    inputs, poses = [codes, noise(3, 2, seed=1)], model.decoder.get_layer("poses")
    before, (kernel, bias) = np.asarray(model.decoder(inputs)), poses.get_weights()
    # (pose, capsules * dimension, classes): only those of class 1 change.
    kernel.reshape(4, 6 * 7, 3)[..., 1] *= -1
    poses.set_weights([kernel, bias])
    changed = np.abs(model.decoder(inputs) - before).max(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed > 1e-4, [False, True, False])
    assert changed[[0, 2]].max() < 1e-6


def test_each_capsule_has_a_network_of_its_own():
    model = build(CLASSES)
    features = model.decoder.get_layer("features")
    vectors = keras.Model(model.decoder.inputs, model.decoder.get_layer("features_dense").input)
    inputs = [noise(4, 5), noise(4, 2, seed=1)]
    first, second = (model.decoder.get_layer(name).get_weights() for name in ("features_dense", "features"))
    found = keras.Model(model.decoder.inputs, features.output)(inputs)
    for capsule, vector in enumerate(np.moveaxis(np.asarray(vectors(inputs)), 1, 0)):
        hidden = np.maximum(0, vector @ first[0][capsule] + first[1][capsule])
        expected = 1 / (1 + np.exp(-(hidden @ second[0][capsule] + second[1][capsule])))
        np.testing.assert_allclose(found[:, capsule], expected, rtol=0, atol=1e-5)  # float32
    # Glorot's limits are those of one capsule: sqrt(6 / (7 + 9)) and sqrt(6 / (9 + 4)).
    for (kernel, bias), limit in ((first, (6 / 16) ** 0.5), (second, (6 / 13) ** 0.5)):
        assert 0.95 * limit < np.abs(kernel).max() <= limit and not bias.any()


def test_wrong_arguments_are_refused():
    for slope in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"`slope` must be at least 0 and less than 1\..*{slope}"):
            replace(PLACING, slope=slope)
    with pytest.raises(ValueError, match=r"`code_size` must be larger than .* classes\. .*code_size=3, classes=3"):
        replace(CLASSES, code_size=3)
    with pytest.raises(ValueError, match=r"`regulariser` must be"):
        replace(PLACING, regulariser="gan")
