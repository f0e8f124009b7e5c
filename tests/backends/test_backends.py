"""Layers, routing, losses, optimisers and models with JAX and torch, run by `make test-backends`."""

import os
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

from invariance.losses import DoubleSoftmaxCrossentropy, MarginLoss, SpreadLoss, TangentLoss, gradient_penalty
from invariance.models.autoencoder import Autoencoder
from invariance.models.capsnet import CapsNet
from invariance.models.matrix_capsnet import MatrixCapsNet
from invariance.models.regularisers import WASSERSTEIN
from invariance.optimizers import Adam, RMSProp
from invariance.routing import dynamic, em
from tests.helpers import noise
from tests.layers import test_contracts as contracts
from tests.routing import test_dynamic, test_em

pytestmark = pytest.mark.backends

BACKEND = keras.config.backend()


def arrays(outputs):
    return [ops.convert_to_numpy(part) for part in contracts.several(outputs)]


def test_the_backend_is_the_one_that_was_asked_for():
    assert os.environ["KERAS_BACKEND"] == BACKEND in ("jax", "torch")


# Routing


@pytest.mark.parametrize("shape", test_dynamic.SHAPES, ids=str)
def test_dynamic_routing_equals_procedure_1(shape):
    capsules, weights = test_dynamic.capsules_and_weights(shape)
    votes = np.einsum("bik,ijdk->bijd", capsules, weights)
    expected = test_dynamic.procedure_1(votes, 3)
    for found in (dynamic.route(votes), dynamic.transform_and_route(capsules, weights)):
        for one, other in zip(arrays(found), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=test_dynamic.ROUNDING)


@pytest.mark.parametrize("name", test_em.FORMS)
def test_em_routing_equals_procedure_1(name):
    inputs = [part.astype("float32") for part in test_em.arguments()]
    *expected, _ = test_em.procedure_1(*inputs, test_em.FORMS[name])
    found = em.route(*map(ops.convert_to_tensor, inputs), test_em.FORMS[name])
    for one, other in zip(arrays(found), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=test_em.ROUNDING)


# Layers


@contracts.EVERY_LAYER
def test_every_layer_computes_and_trains(case, tmp_path):
    check(case.layer, case.inputs, case.outputs, tmp_path, spread=(0.1, 1.0))


@pytest.mark.parametrize("name", contracts.OTHERS)
def test_every_other_layer_computes_and_trains(name, tmp_path):
    make, inputs, outputs = contracts.OTHERS[name]
    check(make(), inputs, outputs, tmp_path, together=len(inputs) > 1)


def check(layer, inputs, outputs, folder, spread=None, together=False):
    """A model of the layer behind a dense one is fitted, predicts, and does so again after it was saved and loaded."""
    given = [keras.Input(shape) for shape in inputs]
    scaled = [layers.Rescaling(1.0)(each) for each in given]
    called = contracts.several(layer(scaled) if together else layer(*scaled))
    assert [part.shape[1:] for part in called] == [tuple(shape) for shape in outputs]
    model = keras.Model(given, [layers.Dense(1)(layers.Flatten()(part)) for part in called])
    model.compile(Adam(1e-3), ["mse"] * len(called))
    values = [noise(5, *shape, seed=seed, spread=spread) for seed, shape in enumerate(inputs)]
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    history = model.fit(values, [np.ones((5, 1), "float32")] * len(called), batch_size=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for weight, was in zip(model.trainable_weights, before, strict=True):
        assert np.abs(weight.numpy() - was).max() > 0, weight.path
    saved_and_loaded(model, values, folder)


def saved_and_loaded(model, values, folder):
    expected = arrays(list(keras.tree.flatten(model.predict(values, verbose=0))))
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    found = arrays(list(keras.tree.flatten(loaded.predict(values, verbose=0))))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # compiled anew, float32
    return loaded


# Losses and optimisers


@pytest.mark.parametrize("loss", [DoubleSoftmaxCrossentropy, MarginLoss, SpreadLoss])
def test_losses(loss):
    lengths, labels = noise(4, 3, spread=(0, 1)), np.array([2, 0, 1, 1])
    each = arrays(loss(reduction=None)(labels, lengths))[0]
    expected = {
        DoubleSoftmaxCrossentropy: np.log(np.exp(lengths).sum(-1)) - lengths[np.arange(4), labels],
        MarginLoss: [
            np.maximum(0, 0.9 - row[y]) ** 2 + 0.5 * (np.maximum(0, np.delete(row, y) - 0.1) ** 2).sum()
            for row, y in zip(lengths, labels, strict=True)
        ],
        SpreadLoss: [
            (np.maximum(0, 0.9 - (row[y] - np.delete(row, y))) ** 2).sum()
            for row, y in zip(lengths, labels, strict=True)
        ],
    }[loss]
    np.testing.assert_allclose(each, expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(arrays(loss(reduction=None)(np.eye(3)[labels], lengths))[0], each, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^Labels must be class numbers from 0 to 2\. Received: 3"):
        loss()(np.array([0, 3, 1, 1]), lengths)


def test_malformed_labels_make_a_compiled_loss_nan():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, "sigmoid")])
    model.compile("sgd", MarginLoss())
    if BACKEND == "torch":
        # Nothing is compiled.
        with pytest.raises(ValueError, match="Labels must be class numbers"):
            model.train_on_batch(noise(2, 3), np.array([0, 3]))
    else:
        assert np.isnan(model.train_on_batch(noise(2, 3), np.array([0, 3])))


def test_tangent_loss():
    differences, tangents = noise(3, 8), noise(3, 2, 8, seed=1)
    expected = [
        1 - np.square(two.T @ np.linalg.lstsq(two.T, one, rcond=None)[0]).sum() / np.square(one).sum()
        for one, two in zip(differences, tangents, strict=True)
    ]
    np.testing.assert_allclose(arrays(TangentLoss(reduction=None)(differences, tangents))[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "parent"),
    [(Adam(0.1), keras.optimizers.Adam(0.1)), (RMSProp(0.1, 0.9, 1e-7, 0.0), keras.optimizers.RMSprop(0.1))],
    ids=["Adam", "RMSProp"],
)
def test_optimisers_are_keras_own(ours, parent, tmp_path):
    found = []
    for optimizer in (ours, parent):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
        model.compile(optimizer, "mse")
        model.fit(noise(8, 3), noise(8, 1, seed=1), batch_size=4, epochs=3, verbose=0)
        found.append(model.get_weights())
        assert int(saved_and_loaded(model, noise(8, 3), tmp_path).optimizer.iterations) == 6
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # float32


# Models

IMAGES, LABELS = noise(12, 20, 20, 1, spread=(0, 1)), np.arange(12) % 3
CAPSNET = CapsNet(8, primary_channels=2, decoder=(16,))
MATRIX = MatrixCapsNet(4, primary=2, capsules=(3, 3), decoder=(16,), margin_steps=1)


@pytest.mark.parametrize("network", [CAPSNET, MATRIX], ids=lambda network: type(network).__name__)
def test_capsule_network(network, tmp_path):
    keras.utils.set_random_seed(0)
    model = network((20, 20, 1), 3, learning_rate=3e-3)
    first = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    logs = model.fit(IMAGES, LABELS, batch_size=5, epochs=4, verbose=0).history
    last = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert all(np.isfinite(values).all() for values in logs.values())
    assert last["reconstruction_error"] < first["reconstruction_error"]
    assert set(model.predict(IMAGES, verbose=0)) == {"scores", "reconstruction"}
    saved_and_loaded(model, IMAGES, tmp_path)


def test_the_capsule_of_the_true_class_is_reconstructed_in_training():
    # At a learning rate of zero the loss of a step is that of the reconstruction from labels.
    keras.utils.set_random_seed(0)
    model = CAPSNET((20, 20, 1), 3, learning_rate=0.0)
    capsules, scores = model.encoder(IMAGES)
    wrong = (np.argmax(arrays(scores)[0], axis=-1) + 1) % 3
    drawn = arrays(model.decode(capsules, scores, wrong))[0]
    assert np.abs(drawn - arrays(model.decode(capsules, scores))[0]).max() > 1e-6
    logs = model.train_on_batch(IMAGES, wrong, return_dict=True)
    np.testing.assert_allclose(logs["reconstruction_error"], np.mean((drawn - IMAGES) ** 2), rtol=1e-5)


def test_margin_follows_the_steps():
    # At a learning rate of zero, only the margin grows: .2, .235, .27, and the loss with it.
    keras.utils.set_random_seed(0)
    model = replace(MATRIX, reconstruction_weight=0.0)((20, 20, 1), 3, learning_rate=0.0)
    model.encoder.layers[1].trainable = False
    found = []
    for step in range(3):
        model.reset_metrics()
        found.append(float(model.train_on_batch(IMAGES, LABELS, return_dict=True)["classification_loss"]))
        scores = arrays(model.encoder(IMAGES, training=True)[1])[0]
        target = scores[np.arange(12), LABELS][:, None]
        others = 1 - np.eye(3)[LABELS]
        expected = (others * np.maximum(0, 0.2 + 0.035 * step - (target - scores)) ** 2).sum(-1).mean()
        assert found[-1] == pytest.approx(expected, rel=1e-3)
    # The same in the next eager call, where nothing is left of what was traced.
    assert float(model.loss.margin()) == pytest.approx(0.305)


SHAPES = (20, 20, 1), (20, 20, 1), 2


def test_autoencoder(tmp_path):
    keras.utils.set_random_seed(0)
    model = Autoencoder(4, code_size=3, filters=(4, 8), units=16)(*SHAPES)
    given = [IMAGES, noise(12, 2)]
    history = model.fit(given, IMAGES, batch_size=5, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    saved_and_loaded(model, given, tmp_path)


def test_adversarial_autoencoder_draws_and_refuses_to_train():
    model = Autoencoder(4, code_size=3, filters=(4, 8), units=16, critic=(8,), regulariser=WASSERSTEIN)(*SHAPES)
    given = [IMAGES, noise(12, 2)]
    assert model.predict(given, verbose=0).shape == (12, 20, 20, 1)
    with pytest.raises(ValueError) as refused:
        model.fit(given, IMAGES, verbose=0)
    assert str(refused.value).splitlines()[0] == (
        "The training of an AdversarialAutoencoder needs the TensorFlow backend; set KERAS_BACKEND=tensorflow. "
        f"Received: {BACKEND}"
    )
    with pytest.raises(ValueError, match="The gradient penalty needs the TensorFlow backend"):
        gradient_penalty(lambda points: points, IMAGES, IMAGES, LABELS)
