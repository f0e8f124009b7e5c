"""What every network must do: build, refuse, differentiate, train, save and load, resume, and know its cost."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from invariance.errors import Interrupted
from invariance.experiment import Budget
from invariance.layers.address_capsules import AddressCapsules
from invariance.layers.capsules import PrimaryCapsules, RoutedCapsules
from invariance.layers.matrix_capsules import ClassCapsules, ConvolutionalCapsules, PrimaryMatrixCapsules
from invariance.layers.place_capsules import PlaceCapsules
from invariance.models.addressing_autoencoder import AddressingAutoencoder
from invariance.models.autoencoder import Autoencoder
from invariance.models.capsnet import CapsNet
from invariance.models.class_placing_autoencoder import ClassPlacingAutoencoder
from invariance.models.cnn import CNN, Convolution
from invariance.models.declaration import Declaration
from invariance.models.matrix_capsnet import MatrixCapsNet
from invariance.models.placing_autoencoder import PlacingAutoencoder
from invariance.models.regularisers import REGULARISERS
from invariance.runs import checkpoint, training
from invariance.runs.folder import RunFolder
from tests.helpers import assert_reached, noise

SHAPE = (20, 20, 1)
PLAIN = CNN((Convolution(16, 4, 2), Convolution(32, 4, 2)), dense=64, activate_last=True)
NORMALISED = CNN((Convolution(8, 4, 2), Convolution(12, 5, pool=2)), True, 0.5, dense=64, moving_average_decay=0.8)
CAPSNET = CapsNet(filters=32, primary_channels=4, decoder=(32, 64))
MATRIX = MatrixCapsNet(16, primary=4, capsules=(4, 4), moving_average_decay=0.8, margin_steps=2, decoder=(32, 64))
AUTOENCODER = Autoencoder(
    4, code_size=3, filters=(4, 8), units=16, critic=(16, 16), critic_updates=2, initial_accumulator=0.0
)
SMALL = {"filters": (4, 8), "units": 16, "initial_accumulator": 0.0}
PLACING = PlacingAutoencoder(4, code_size=3, capsules=9, decoder_units=16, half_maps=4, slope=0.1, **SMALL)
CLASS_PLACING = ClassPlacingAutoencoder(
    4, code_size=5, classes=2, capsules=9, dimension=3, capsule_units=8, half_maps=4, **SMALL
)
ADDRESSING = AddressingAutoencoder(4, code_size=3, capsules=9, dimension=3, **SMALL)


@dataclass(frozen=True)
class Family:
    """A small network and how well it learns 32 digits: bounds of what `evaluate` returns."""

    declaration: Declaration
    steps: int
    rate: float
    accuracy: float = 0.0
    most: dict = field(default_factory=dict)
    # The error of the images that are drawn, as a share of the error before training.
    error: tuple[str, float] = ("loss", 1.0)

    @property
    def draws(self):
        return isinstance(self.declaration, Autoencoder)

    @property
    def arguments(self):
        return (SHAPE, SHAPE, 2) if self.draws else (SHAPE, 10)

    def build(self, seed=0):
        keras.utils.set_random_seed(seed)
        model = self.declaration(*self.arguments, self.rate)
        # Keras would compile a step as a whole by XLA, for many seconds; the package's own training does not either.
        model.jit_compile = False
        model.optimizer.build(model.trainable_variables)
        return model

    def data(self, digits):
        """Inputs and targets. Those of an autoencoder are digits, dimmed as the first parameter says."""
        images, labels = digits
        if not self.draws:
            return images, labels
        parameters = noise(len(images), 2, spread=(0.2, 1))
        return (2 * images - 1, parameters), images * parameters[:, 0, None, None, None]


FAMILIES = {
    # Images that are classified wrongly with certainty give the double softmax hardly any gradient: some of 32 may stay
    # wrong. Its minimum for ten classes is log(1 + 9 / e) = 1.461; at chance it is log 10 = 2.303.
    "cnn": Family(PLAIN, 100, 3e-3, 0.7, {"loss": 1.8}),
    # Dropout of half the units may miss a few.
    "cnn with batch norm": Family(NORMALISED, 100, 3e-3, 0.9),
    "corrected cnn": Family(PLAIN.corrected(), 60, 3e-3, 1.0, {"loss": 0.05}),
    # Images whose class has a capsule longer than .9, and no other longer than .1, cost nothing.
    "capsnet": Family(CAPSNET, 100, 3e-3, 1.0, {"classification_loss": 0.05}, ("reconstruction_error", 0.7)),
    # At the last margin by now: nine classes as active as the right one would cost its square each.
    "matrix capsnet": Family(
        MATRIX, 60, 1e-2, 0.8, {"classification_loss": 0.25 * 9 * 0.9**2}, ("reconstruction_error", 0.7)
    ),
    "autoencoder": Family(AUTOENCODER, 60, 1e-2, error=("loss", 0.5)),
    "placing": Family(PLACING, 60, 1e-2, error=("loss", 0.5)),
    "class placing": Family(CLASS_PLACING, 60, 1e-2, error=("loss", 0.5)),
    "addressing": Family(ADDRESSING, 60, 1e-2, error=("loss", 0.5)),
    **{each: Family(replace(AUTOENCODER, regulariser=each), 60, 1e-2, error=("loss", 0.5)) for each in REGULARISERS},
}


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


def tensors(data):
    return tf.nest.map_structure(tf.constant, data)


def loss_of(model, inputs, targets):
    """The training loss, on the reconstruction; capsule networks are given the labels."""
    labels = {"labels": targets} if hasattr(model, "decode") else {}
    return model.compute_loss(inputs, targets, model(inputs, training=True, **labels))


def parts_of(model):
    """Encoder, decoder and critic; or the model, if it has no parts."""
    return [getattr(model, part) for part in ("encoder", "decoder", "critic") if hasattr(model, part)] or [model]


def outputs_of(model, inputs):
    outputs = model(inputs)
    return dict(outputs) if isinstance(outputs, dict) else {"outputs": outputs}


# Building

BUILDS = [
    (PLAIN, ((7, 5, 3), 2)),
    (PLAIN, ((1, 1, 1), 3)),
    (NORMALISED, ((9, 11, 2), 3)),
    (CNN((Convolution(8, 3, 2), Convolution(4, 5, 3)), dense=8), ((28, 28, 1), 8)),
    (CAPSNET, ((24, 20, 3), 5)),
    (CAPSNET, ((17, 17, 1), 2)),  # the smallest: one position
    (replace(CAPSNET, kernel=4, primary_stride=1, primary_dimension=6, dimension=7), ((11, 14, 2), 3)),
    (replace(CAPSNET, decoder=(), iterations=1), ((17, 18, 1), 3)),
    (MATRIX, ((24, 20, 3), 5)),
    (MATRIX, ((17, 17, 1), 2)),
    (replace(MATRIX, decoder=(), iterations=1, together=True), ((17, 18, 2), 3)),
    (AUTOENCODER, ((28, 28, 1), (68, 68, 1), 2)),
    (AUTOENCODER, ((28, 28, 1), (30, 27, 1), 2)),
    (AUTOENCODER, ((9, 14, 3), (13, 5, 2), 4)),
    (replace(AUTOENCODER, feature_maps=1), ((4, 4, 1), (1, 2, 1), 1)),
    (PLACING, ((28, 28, 1), (30, 27, 1), 2)),
    (replace(PLACING, capsules=1, slope=0.0, told="features"), ((9, 14, 3), (3, 2, 2), 4)),
    (CLASS_PLACING, ((28, 28, 1), (30, 27, 1), 2)),
    (replace(CLASS_PLACING, capsules=1), ((9, 14, 3), (3, 2, 2), 4)),
    (ADDRESSING, ((28, 28, 1), (30, 27, 1), 2)),
]


def size(kernel):
    return int(np.prod(kernel.shape))


def positions(tensor):
    return int(np.prod(tensor.shape[1:3]))


# Multiply-adds of a layer's matrix products for one image.
PRODUCTS = {
    layers.Dense: lambda layer: size(layer.kernel),
    layers.Conv2D: lambda layer: positions(layer.output) * size(layer.kernel),
    layers.Conv2DTranspose: lambda layer: positions(layer.input) * size(layer.kernel),
    # Each capsule has its own kernel.
    layers.EinsumDense: lambda layer: size(layer.kernel),
    layers.Dot: lambda layer: size(layer.input[0][0]),
    PlaceCapsules: lambda layer: positions(layer.output) * size(layer.input[1][0]),
    AddressCapsules: lambda layer: layer.input[1].shape[1] * (size(layer.kernel) + layer.cells),
    PrimaryCapsules: lambda layer: layer.output.shape[1] // layer.channels * size(layer.convolution.kernel),
    RoutedCapsules: lambda layer: size(layer.kernel),
    PrimaryMatrixCapsules: lambda layer: positions(layer.input) * sum(map(size, layer.weights[::2])),
    # The product of two 4 x 4 matrices takes 64.
    ConvolutionalCapsules: lambda layer: positions(layer.output[0]) * 4 * size(layer.kernel),
    ClassCapsules: lambda layer: positions(layer.input[0]) * 4 * size(layer.kernel),
}


def flops_of(part):
    """Floating-point operations of a built network's layers, in order."""
    return [2.0 * count(layer) for layer in part.layers for kind, count in PRODUCTS.items() if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("declaration", "arguments"),
    BUILDS,
    ids=lambda value: str(value) if isinstance(value, tuple) else type(value).__name__,
)
def test_builds_for_any_image_and_knows_its_cost(declaration, arguments):
    model = declaration(*arguments)
    images = noise(3, *arguments[0], spread=(0, 1))
    if isinstance(declaration, Autoencoder):
        inputs, targets = (images, noise(3, arguments[2])), noise(3, *arguments[1], spread=(-1, 1))
        expected = {"outputs": (arguments[1], -1)}  # tanh
    else:
        inputs, targets = images, np.arange(3) % arguments[1]
        expected = dict.fromkeys(("outputs", "scores"), (arguments[1:], 0)) | {"reconstruction": (arguments[0], 0)}
        assert model.input_shape == (None, *arguments[0])
    for name, output in outputs_of(model, inputs).items():
        shape, low = expected[name]
        assert output.shape == (3, *shape) and output.dtype == tf.float32
        assert low <= np.min(output) and np.max(output) <= 1
        if shape == arguments[1:] and not isinstance(declaration, CapsNet):
            # Probabilities; those of matrix capsules at each position, and so on average.
            np.testing.assert_allclose(np.sum(output, axis=-1), 1.0, rtol=0, atol=1e-6)  # five float32 numbers
    assert np.isfinite(loss_of(model, inputs, targets))
    parts = [flops_of(part) for part in parts_of(model)]
    first, *others = [flops for part in parts for flops in part]
    assert declaration.flops(*arguments) == first + sum(others)
    # The evaluation of an autoencoder encodes an image once and draws it at every parameter.
    evaluation = sum(parts[1]) if isinstance(declaration, Autoencoder) else first + sum(others)
    assert declaration.evaluation_flops(*arguments) == evaluation
    # The first layer needs no gradient with respect to the images.
    assert declaration.training_flops(*arguments) == 2 * first + 3 * sum(others)


def configuration(part):
    """The configurations of a built network's layers, but for names."""
    return [[type(layer), {k: v for k, v in layer.get_config().items() if k != "name"}] for layer in part.layers]


@pytest.mark.parametrize(
    ("declaration", "arguments"),
    [(NORMALISED, BUILDS[2][1]), (CAPSNET, BUILDS[4][1]), (MATRIX, BUILDS[8][1]), (AUTOENCODER, BUILDS[12][1])],
    ids=lambda value: "" if isinstance(value, tuple) else type(value).__name__,
)
def test_network_is_the_same_whatever_order_of_axes_keras_is_set_to(declaration, arguments, keras_settings):
    found = []
    for data_format in ("channels_last", "channels_first"):
        keras_settings(data_format=data_format)
        found.append([configuration(part) for part in parts_of(declaration(*arguments))])
        assert keras.config.image_data_format() == data_format
    assert str(found[0]) == str(found[1])
    assert "channels_last" in str(found[0])


@pytest.mark.parametrize("precision", ["float64", "float16"])
@pytest.mark.parametrize(
    ("declaration", "arguments"),
    [(NORMALISED, BUILDS[2][1]), (CAPSNET, BUILDS[4][1]), (MATRIX, BUILDS[8][1]), (AUTOENCODER, BUILDS[12][1])],
    ids=lambda value: "" if isinstance(value, tuple) else type(value).__name__,
)
def test_a_step_of_training_in_other_precisions(declaration, arguments, precision, keras_settings):
    keras_settings(precision)
    model = declaration(*arguments)
    model.run_eagerly = True  # or compiling would take longest; layers are compiled in their own test
    images = noise(3, *arguments[0], spread=(0, 1))
    given = (images, np.arange(3) % arguments[1])
    if isinstance(declaration, Autoencoder):
        given = (images, noise(3, arguments[2])), noise(3, *arguments[1], spread=(-1, 1))
    logs = model.train_on_batch(*given, return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize(
    ("declaration", "argument"),
    [
        (PLAIN, "dense"),
        *((CAPSNET, each) for each in ("filters", "kernel", "primary_channels", "primary_dimension", "primary_stride")),
        *((CAPSNET, each) for each in ("dimension", "iterations")),
        *((MATRIX, each) for each in ("filters", "primary", "iterations", "margin_steps")),
        *((AUTOENCODER, each) for each in ("feature_maps", "code_size", "units", "critic_updates")),
        *((PLACING, each) for each in ("feature_maps", "capsules", "decoder_units", "half_maps")),
        *(
            (CLASS_PLACING, each)
            for each in ("units", "classes", "capsules", "dimension", "capsule_units", "half_maps")
        ),
        *((ADDRESSING, each) for each in ("feature_maps", "capsules", "dimension")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_sizes_are_refused(declaration, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer.*{value}"):
        replace(declaration, **{argument: value})


@pytest.mark.parametrize("value", [-0.1, 1, 2.0])
@pytest.mark.parametrize(
    ("declaration", "argument"),
    [(PLAIN, "dropout"), (PLAIN, "moving_average_decay"), (MATRIX, "moving_average_decay")],
)
def test_wrong_shares_are_refused(declaration, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be at least 0 and less than 1.*{value}"):
        replace(declaration, **{argument: value})


@pytest.mark.parametrize(
    ("declaration", "shape", "least"),
    [
        (CAPSNET, (16, 28, 1), 17),
        (CAPSNET, (28, 16, 1), 17),
        (replace(CAPSNET, kernel=5), (8, 8, 1), 9),
        (MATRIX, (16, 28, 1), 17),
        (MATRIX, (28, 16, 1), 17),
        (MATRIX, (2, 2, 1), 17),
    ],
)
def test_small_images_are_refused_in_one_line(declaration, shape, least):
    with pytest.raises(ValueError) as refused:
        declaration(shape, 10)
    text = str(refused.value)
    assert "\n" not in text and text.endswith(
        f"need images of at least {least} x {least} pixels; these have {shape[0]} x {shape[1]}"
    )


# Training


def test_gradients_reach_every_weight(name, digits):
    model = FAMILIES[name].build()
    inputs, targets = tensors(FAMILIES[name].data(digits))
    weights = model.trainable_weights
    if hasattr(model, "critic"):
        # The critic is trained on losses of its own: see test_conditional_autoencoder.
        weights = [*model.encoder.trainable_weights, *model.decoder.trainable_weights]
    with tf.GradientTape() as tape:
        loss = loss_of(model, inputs, targets)
    assert_reached(tape.gradient(loss, [weight.value for weight in weights]), weights)


def test_trains_in_mixed_precision(name, digits, bfloat16):
    model = FAMILIES[name].build()
    data = tensors(FAMILIES[name].data(digits))
    before = [part.get_weights() for part in parts_of(model)]
    for _ in range(2):
        logs = model.train_step(data)
    assert np.isfinite([float(value) for value in logs.values()]).all()
    assert all(output.dtype == tf.float32 for output in outputs_of(model, data[0]).values())
    assert all(weight.dtype == "float32" and np.isfinite(weight).all() for weight in model.weights)
    for part, old in zip(parts_of(model), before, strict=True):
        assert not all(map(np.array_equal, part.get_weights(), old)), part.name
        assert any(layer.compute_dtype == "bfloat16" for layer in part.layers if layer.weights), part.name


@pytest.fixture(scope="module")
def trained(digits):
    """Family -> the trained model and what it evaluates to before and after; trained once for all tests."""
    known = {}

    def train(name):
        if name not in known:
            model, data = FAMILIES[name].build(), FAMILIES[name].data(digits)
            before = model.evaluate(*data, verbose=0, return_dict=True)
            for _ in range(FAMILIES[name].steps):
                model.train_on_batch(*data)
            known[name] = model, before, model.evaluate(*data, verbose=0, return_dict=True)
        return known[name]

    return train


def test_learns_32_images(trained, name):
    family, (_, before, after) = FAMILIES[name], trained(name)
    if family.accuracy:
        # At chance, a tenth of the digits would be right.
        assert after["accuracy"] >= family.accuracy > 0.3 > before["accuracy"]
    for metric, bound in family.most.items():
        assert after[metric] < bound
    metric, share = family.error
    assert after[metric] < share * before[metric]


# Saving and loading

LOAD = """
import json, sys
import invariance
import keras
import numpy as np
results = {}
for name, folder in json.loads(sys.argv[1]).items():
    model = keras.saving.load_model(folder + "/model.keras")
    data = np.load(folder + "/data.npz")
    inputs = [data[key] for key in sorted(data) if key.startswith("inputs")]
    inputs = tuple(inputs) if len(inputs) > 1 else inputs[0]
    outputs = model(inputs)
    outputs = outputs if isinstance(outputs, dict) else {"outputs": outputs}
    difference = max(float(np.abs(outputs[key] - data[key]).max()) for key in outputs)
    before = int(model.optimizer.iterations)
    logs = model.train_step((inputs, data["targets"]))
    results[name] = {
        "names": [type(part).__name__ for part in (model, model.loss, model.optimizer)],
        "difference": difference,
        "iterations": [before, int(model.optimizer.iterations)],
        "logs": {key: float(value) for key, value in logs.items()},
    }
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def loaded(trained, digits, tmp_path_factory):
    """What a program that only imports the package finds in the saved models of all families."""
    folders = {}
    for name, family in FAMILIES.items():
        folder = tmp_path_factory.mktemp("saved")
        folders[name] = str(folder)
        model, (inputs, targets) = trained(name)[0], family.data(digits)
        model.save(folder / "model.keras")
        several = inputs if isinstance(inputs, tuple) else (inputs,)
        given = {f"inputs_{number}": part for number, part in enumerate(several)}
        np.savez(folder / "data.npz", targets=targets, **given, **outputs_of(model, inputs))
    command = [sys.executable, "-c", LOAD, json.dumps(folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_saved_and_loaded_by_a_program_that_only_imports_the_package(loaded, trained, name, digits):
    family, found, model = FAMILIES[name], loaded[name], trained(name)[0]
    assert found["names"] == [type(part).__name__ for part in (model, model.loss, model.optimizer)]
    # The same program on the same machine; another process may divide the work among threads differently.
    assert found["difference"] < 1e-5
    assert found["iterations"] == [family.steps, family.steps + 1]
    # The optimisers' moments, the margin of the spread loss and the random numbers of the prior are restored too: the
    # next step is that of the saved model. (Keras does not save the random numbers of dropout.)
    if name != "cnn with batch norm":
        model.reset_metrics()
        for key, value in model.train_step(tensors(family.data(digits))).items():
            assert found["logs"][key] == pytest.approx(float(value), rel=1e-4, abs=1e-5), key


# Resuming

# Seven steps in epochs of three; the margin of the spread loss grows at every second.
BUDGET = Budget(steps=7, batch_size=16, steps_per_epoch=3, learning_rate=1e-3)


@pytest.mark.parametrize("name", ["cnn with batch norm", "capsnet", "matrix capsnet", "wasserstein"])
def test_interrupted_and_resumed_equals_uninterrupted(name, digits, tmp_path, monkeypatch):
    family = FAMILIES[name]

    def prepare(images, labels, draws):
        """Stands for a transformation: dims images as the draw number says."""
        light = ops.cast(1 + draws % 7, "float32") / 7
        dimmed = ops.cast(images, "float32") / 255 * ops.reshape(light, (-1, 1, 1, 1))
        return ((dimmed, ops.stack([light, light], -1)), dimmed) if family.draws else (dimmed, labels)

    def train(model, folder, **options):
        images, labels = np.round(255 * digits[0]).astype("uint8"), digits[1]
        return training.train(model, prepare, images, labels, BUDGET, 3, RunFolder(folder), **options)

    whole = family.build()
    uninterrupted = train(whole, tmp_path)
    (parts := tmp_path / "parts").mkdir()
    # The parent process ends during the fourth step, in the middle of the second epoch.
    parents = iter([1, 1, 1, 2])
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(os, "getppid", lambda: next(parents))
        train(family.build(), parts, parent=1)
    assert checkpoint.saved_step(parts / "checkpoint.npz") == 4
    # Different initial weights: everything must come from the checkpoint.
    resumed = family.build(seed=99)
    result = train(resumed, parts)
    for one, other in zip(*map(checkpoint.state_variables, (whole, resumed)), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [[{**row, "seconds": 0} for row in each["history"]] for each in (uninterrupted, result)]
    assert histories[0] == histories[1] and [row["step"] for row in histories[0]] == [3, 6, 7]
    if name == "matrix capsnet":
        assert float(whole.loss.margin()) == float(resumed.loss.margin()) == pytest.approx(0.2 + 3 * 0.035)
