"""The networks of the experiments against the published ones: layer by layer, sizes, losses and optimisers, budgets."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from experiments.generation_rotation import EXPERIMENT as ROTATION
from experiments.generation_rotation import MODELS as DRAWING
from experiments.generation_shift import EXPERIMENT as SHIFT
from experiments.recognition_rotation import MODELS
from invariance.experiment import PROFILES
from invariance.layers.address_capsules import AddressCapsules
from invariance.layers.capsules import Length, PrimaryCapsules, RoutedCapsules
from invariance.layers.matrix_capsules import ClassCapsules, ConvolutionalCapsules, PrimaryMatrixCapsules
from invariance.layers.place_capsules import PlaceCapsules
from invariance.losses import DoubleSoftmaxCrossentropy, MarginLoss, SpreadLoss
from invariance.models.autoencoder import Autoencoder
from invariance.models.capsnet import CapsNet
from invariance.models.cnn import CNN
from invariance.models.matrix_capsnet import MatrixCapsNet
from invariance.optimizers import Adam, RMSProp
from invariance.routing.em import Form

MNIST, SMALL = (28, 28, 1), (8, 8, 1)

# What a description says of a layer. A layer of ours that derives from one of Keras' is described as Keras'.
DESCRIBED = {
    layers.Conv2D: ("filters", "kernel_size", "strides", "padding", "activation", "use_bias"),
    layers.Conv2DTranspose: ("filters", "kernel_size", "strides", "padding", "activation", "use_bias"),
    layers.Dense: ("units", "activation", "use_bias"),
    layers.LeakyReLU: ("negative_slope",),
    layers.BatchNormalization: ("momentum", "epsilon", "center", "scale"),
    layers.MaxPooling2D: ("pool_size", "strides", "padding"),
    layers.Dropout: ("rate",),
    layers.Activation: ("activation",),
    layers.Flatten: (),
    layers.Softmax: (),
    layers.Concatenate: (),
    layers.Reshape: ("target_shape",),
    layers.EinsumDense: ("equation", "partial_output_shape", "activation", "bias_axes"),
    layers.Dot: ("axes",),
    PlaceCapsules: ("height", "width"),
    AddressCapsules: ("cells",),
    PrimaryCapsules: ("channels", "dimension", "kernel_size", "strides"),
    RoutedCapsules: ("capsules", "dimension", "iterations"),
    Length: (),
    PrimaryMatrixCapsules: ("capsules",),
    ConvolutionalCapsules: ("capsules", "kernel_size", "strides"),
    ClassCapsules: ("capsules", "together"),
}


def text(value):
    if isinstance(value, tuple):
        return "x".join(map(text, value))
    return getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else str(value))


def described(model):
    """A line for each layer but the inputs."""
    lines = []
    for layer in model.layers:
        if not isinstance(layer, layers.InputLayer):
            kind = next(kind for kind in DESCRIBED if isinstance(layer, kind))
            lines.append(" ".join([kind.__name__, *(text(getattr(layer, name)) for name in DESCRIBED[kind])]))
    return lines


def dense(units, activation="linear"):
    return f"Dense {units} {activation} True"


def size(*shape, each=1):
    """Weights of a layer: kernel x kernel x inputs x filters, or inputs x units; and `each` for each of the last."""
    return int(np.prod(shape)) + each * shape[-1]


# CNNs. From the original: filters, kernel and stride of each convolution, and what follows it.
LEAKY, NORM, POOL = "LeakyReLU 0.1", "BatchNormalization 0.999 0.001 True True", "MaxPooling2D 2x2 1x1 same"
PLAIN, NORMALISED, POOLED = [LEAKY], [LEAKY, NORM], [LEAKY, NORM, POOL]
CNNS = {
    "cnn_00": [(64, 4, 2, PLAIN), (128, 4, 2, PLAIN)],
    "cnn_01": [(64, 4, 2, PLAIN), (128, 4, 2, PLAIN), (256, 4, 2, PLAIN)],
    "cnn_02": [(32, 4, 2, PLAIN), (64, 4, 2, PLAIN), (128, 4, 2, PLAIN), (256, 4, 2, PLAIN)],
    "cnn_dropout_00": [(32, 4, 2, PLAIN), (64, 4, 2, PLAIN), (128, 4, 2, PLAIN)],
    "cnn_dropout_01": [(64, 4, 2, PLAIN), (128, 4, 2, PLAIN), (256, 4, 2, PLAIN)],
    "cnn_bn_00": [(64, 4, 2, NORMALISED), (128, 4, 2, NORMALISED)],
    "cnn_bn_01": [(32, 4, 2, NORMALISED), (64, 4, 2, NORMALISED), (128, 4, 2, NORMALISED)],
    "cnn_bn_02": [(64, 4, 2, NORMALISED), (128, 4, 2, NORMALISED), (256, 4, 2, NORMALISED)],
    "cnn_pool_00": [(64, 5, 1, POOLED), (128, 5, 1, POOLED)],
    "cnn_pool_01": [(32, 5, 1, POOLED), (64, 5, 1, POOLED), (128, 3, 1, NORMALISED)],
    "cnn_pool_02": [(64, 5, 1, POOLED), (128, 5, 1, POOLED), (256, 4, 2, NORMALISED)],
}


def test_all_eleven_cnns_are_there():
    assert {name for name, entry in MODELS.items() if isinstance(entry.model, CNN)} == set(CNNS)


@pytest.mark.parametrize("name", CNNS)
def test_layers_and_size_of_the_cnns(name):
    # With 28 x 28 pixels the pooled networks have 100 million weights.
    side = 8 if "pool" in name else 28
    model = MODELS[name].model((side, side, 1), 8)
    expected, weights, channels = [], 0, 1
    for filters, kernel, stride, following in CNNS[name]:
        expected += [f"Conv2D {filters} {kernel}x{kernel} {stride}x{stride} same linear True", *following]
        # Batch norm has a scale, an offset, a mean and a variance.
        weights += size(kernel, kernel, channels, filters, each=5 if NORM in following else 1)
        side, channels = -(-side // stride), filters
    dropout = [] if CNNS[name][0][3] is PLAIN and "dropout" not in name else ["Dropout 0.5"]
    # The plain networks have a leaky ReLU between the last layer and the softmax.
    last = [] if dropout else [LEAKY]
    expected += ["Flatten", dense(1024), LEAKY, *dropout, dense(8), *last, "Softmax"]
    assert described(model) == expected
    assert model.count_params() == weights + size(side * side * channels, 1024) + size(1024, 8)


SCHEDULE = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.5, staircase=True)


def test_cnn_is_compiled_like_the_original():
    model = MODELS["cnn_00"].model(SMALL, 8, 3e-4)
    assert type(model.loss) is DoubleSoftmaxCrossentropy and type(model.optimizer) is Adam
    found = model.optimizer.get_config()
    assert (found["beta_1"], found["beta_2"], found["epsilon"]) == (0.95, 0.999, 1e-8)
    assert not found["amsgrad"] and not found["weight_decay"] and not found["use_ema"]
    assert found["clipnorm"] is found["clipvalue"] is found["global_clipnorm"] is None
    assert found["learning_rate"] == pytest.approx(3e-4, rel=1e-6)  # float32
    assert MODELS["cnn_00"].model(SMALL, 8, SCHEDULE).optimizer._learning_rate is SCHEDULE


def decoder(*units):
    return [*(dense(each, "relu") for each in units), dense(784), "Activation sigmoid", "Reshape 28x28x1"]


# Sabour, Frosst and Hinton (2017), with ten classes


def test_capsnet():
    assert MODELS["capsnet_dr"].model == CapsNet()
    model = CapsNet()(MNIST, 10)
    expected = ["Conv2D 256 9x9 1x1 valid relu True", "PrimaryCapsules 32 8 9 2", "RoutedCapsules 10 16 3", "Length"]
    assert described(model.encoder) == expected
    assert described(model.decoder) == decoder(512, 1024)
    # 6 x 6 x 32 = 1152 primary capsules of dimension 8, each with a 16 x 8 matrix for each class, without bias.
    encoder = size(9, 9, 1, 256) + size(9, 9, 256, 256) + 1152 * 10 * 16 * 8
    assert model.encoder.count_params() == encoder == 6_804_224
    assert model.count_params() == encoder + size(160, 512) + size(512, 1024) + size(1024, 784) == 8_215_568
    assert type(model.loss) is MarginLoss
    assert type(model.optimizer) is Adam and float(model.optimizer.learning_rate) == pytest.approx(1e-3)
    # Section 4.1: .0005 of the summed squared error is .0005 x 784 of the mean.
    assert model.reconstruction_weight == pytest.approx(0.0005 * 784, rel=1e-12)
    small = CapsNet(filters=2, primary_channels=1, decoder=(2,))
    assert small((17, 17, 1), 2, SCHEDULE).optimizer._learning_rate is SCHEDULE


# The original's matrix capsules, with eight classes


def test_matrix_capsnet():
    assert MODELS["capsnet_em"].model == MatrixCapsNet()
    model = MatrixCapsNet()(MNIST, 8)
    assert described(model.encoder) == [
        "BatchNormalization 0.999 0.001 False False",
        "Conv2D 32 5x5 2x2 valid relu True",
        "PrimaryMatrixCapsules 8",
        "ConvolutionalCapsules 16 3 2",
        "ConvolutionalCapsules 16 3 1",
        "ClassCapsules 8 False",
    ]
    assert described(model.decoder) == decoder(512, 1024)
    weights = {
        "images": 0,
        "batch_norm": 2,  # mean and variance of one channel
        "conv_1": size(5, 5, 1, 32),
        "primary_capsules": size(32, 128) + size(32, 8),  # 1 x 1 convolutions to 8 poses of 16, and to 8 activations
        # 9 neighbours x capsules inputs, each with a 4 x 4 matrix to 16 outputs; a beta_v per pose entry and a beta_a
        "capsules_1": 9 * 8 * 16 * 16 + 16 * (16 + 1),
        "capsules_2": 9 * 16 * 16 * 16 + 16 * (16 + 1),
        "class_capsules": 16 * 8 * 16 + 8 * (18 + 1),  # poses of 18
    }
    assert {layer.name: layer.count_params() for layer in model.encoder.layers} == weights
    assert model.encoder.count_params() == 63_362
    assert model.decoder.count_params() == size(144, 512) + size(512, 1024) + size(1024, 784) == 1_403_152
    # All but batch norm's statistics are trained: 2 + 4 + 3 + 3 + 3 tensors, and the decoder's 6.
    assert len(model.trainable_weights) == 21 and len(model.non_trainable_weights) == 2
    _, _, conv, primary, first, second, classes = model.encoder.layers
    # 12 x 12, 5 x 5 and 3 x 3 positions, the last at pixels 8, 12, 16 of 28.
    assert [layer.output[1].shape[1] for layer in (primary, first, second)] == [12, 5, 3]
    assert classes.start == (8 / 28, 8 / 28) and classes.step == (4 / 28, 4 / 28)
    assert {layer.form for layer in (first, second, classes)} == {Form(2, 0.01)}
    # The biases of convolutions start within two standard deviations of .01, and not at zero.
    biases = np.concatenate([conv.bias, primary.poses.bias, primary.activations.bias])
    assert np.abs(biases).max() <= 0.02 and biases.std() > 0.005
    optimizer, loss = model.optimizer, model.loss
    assert type(optimizer) is Adam and float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert type(loss) is SpreadLoss and (loss.start, loss.stop, loss.increase, loss.steps) == (0.2, 0.9, 0.035, 1200)
    # .05 of the summed squared error is .05 x 784 of the mean.
    assert model.reconstruction_weight == pytest.approx(0.05 * 784, rel=1e-12)


def test_budgets_of_the_matrix_capsnet():
    # The original: 120,000 steps of 50 images, learning rate 1e-3 throughout, the margin growing every 1,200.
    entry = MODELS["capsnet_em"]
    paper = entry.budgets["paper"]
    assert (paper.steps, paper.batch_size) == (120_000, 50) and paper.images_per_class is None
    assert paper.schedule() == 1e-3  # a constant
    assert entry.model_for("paper") == entry.model
    assert entry.departures("paper") == []
    steps = [entry.budgets[profile].steps for profile in PROFILES]
    assert steps == sorted(set(steps))
    for profile in PROFILES[:-1]:
        # The margin grows 20 times within the first 80 %, as documented; users are told of this before a run.
        model = entry.model_for(profile)
        assert 20 * model.margin_steps <= 0.85 * entry.budgets[profile].steps
        # Batch norm's statistics forget the beginning: less than a hundredth of it is left.
        assert model.moving_average_decay ** entry.budgets[profile].steps < 0.01
        assert "margin_steps" in "; ".join(entry.departures(profile))
    # The published sizes, but in the short profiles.
    standard = entry.model_for("standard")
    assert replace(standard, margin_steps=1200, moving_average_decay=0.999) == MatrixCapsNet()


# The article's autoencoder


def test_autoencoder():
    assert DRAWING["ae_rotation"].model == Autoencoder()
    model = Autoencoder(regulariser="wasserstein")(MNIST, MNIST, 2)
    convolutions = [line for n in (64, 128) for line in (f"Conv2D {n} 4x4 2x2 same linear True", LEAKY)]
    assert described(model.encoder) == [*convolutions, "Flatten", dense(1024), LEAKY, dense(10)]
    assert described(model.decoder) == [
        "Concatenate",
        dense(1024, "relu"),
        dense(7 * 7 * 256, "relu"),
        "Reshape 7x7x256",
        "Conv2DTranspose 128 4x4 2x2 same relu True",
        "Conv2DTranspose 1 4x4 2x2 same linear True",
        "Activation tanh",
    ]
    assert described(model.critic) == [dense(1024), LEAKY, dense(1024), LEAKY, dense(1)]
    # 28 -> 14 -> 7 pixels; code and two parameters; transposed convolutions have their outputs before their inputs.
    encoder = size(4, 4, 1, 64) + size(4, 4, 64, 128) + size(7 * 7 * 128, 1024) + size(1024, 10)
    decoder = size(12, 1024) + size(1024, 7 * 7 * 256) + size(4, 4, 256, 128) + size(4, 4, 128, 1)
    critic = size(10, 1024) + size(1024, 1024) + size(1024, 1)
    assert model.encoder.count_params() == encoder == 6_566_090
    assert model.decoder.count_params() == decoder == 13_397_377
    assert model.critic.count_params() == critic == 1_061_889
    assert model.count_params() == encoder + decoder + critic
    assert isinstance(model.loss, keras.losses.MeanSquaredError)
    assert (model.regulariser, model.critic_updates, model.penalty_weight) == ("wasserstein", 5, 10.0)
    optimisers = model.optimizer, model.critic_optimizer, model.encoder_optimizer
    assert len(set(map(id, optimisers))) == 3
    for optimizer in optimisers:
        assert type(optimizer) is RMSProp and float(optimizer.learning_rate) == pytest.approx(1e-3)
        assert (optimizer.rho, optimizer.epsilon, optimizer.initial_accumulator) == (0.9, 1e-10, 1.0)


# The repository's generative capsules

# Name -> canvas, code size, dense layer and maps of those that place; the first transposed convolution's filters, its
# activation, what follows.
GENCAPS = {
    "gencaps_shift": (68, 10, {"units": 1024, "maps": 32}, 16, "linear", [LEAKY]),
    "gencaps_rotation_halfplane": (28, 10, {"units": 128, "maps": 32}, 32, "relu", []),
    "gencaps_rotation_single": (28, 20, {"units": 1024, "maps": 128}, 64, "relu", []),
    "gencaps_digits_shift": (68, 20, None, 32, "relu", []),
    "gencaps_digits_rotation": (28, 20, None, 32, "relu", []),
    "gencaps_digits_rotation_single": (28, 20, None, 32, "relu", []),
    "gencaps_address_rotation": (28, 10, None, 64, "relu", []),
}


def test_all_seven_capsule_decoders_are_there():
    found = {name for each in (ROTATION, SHIFT) for name in each.models if name.startswith("gencaps")}
    assert (
        found
        == set(GENCAPS)
        == {name for each in (ROTATION, SHIFT) for name in each.published if name.startswith("gencaps")}
    )


@pytest.mark.parametrize("name", GENCAPS)
def test_capsule_decoders(name):
    side, code, placing, half, activation, after = GENCAPS[name]
    experiment = SHIFT if side == 68 else ROTATION
    model = experiment.models[name].model(MNIST, (side, side, 1), 2)
    plain = Autoencoder(code_size=code)(MNIST, MNIST, 2)
    # The encoder, the loss and the optimiser are the autoencoder's.
    assert described(model.encoder) == described(plain.encoder) and type(model) is type(plain)
    ours, theirs = ({**each.optimizer.get_config(), "name": ""} for each in (model, plain))
    assert ours == theirs and type(model.loss) is type(plain.loss)
    cells, told = side // 4, code + 2
    if placing:
        units, maps = placing["units"], placing["maps"]
        first = [
            *("Concatenate", dense(units, "relu"), dense(128 * 2), dense(128 * maps, "sigmoid")),
            *("Reshape 128x2", f"Reshape 128x{maps}", f"PlaceCapsules {cells} {cells}"),
        ]
        weights = size(told, units) + size(units, 128 * 2) + size(units, 128 * maps)
    elif "digits" in name:
        # The first 10 numbers of the code are the class; the others and the parameters, linearly, 20 x 10 for each.
        maps, own = 32, "EinsumDense bci,cio->bco 20x{} {} co"
        first = [
            *("Concatenate", dense(20 * 10 * 10), "Reshape 200x10", "Softmax", "Dot 2x1", "Reshape 20x10"),
            *(own.format(*each) for each in ((128, "relu"), (128, "relu"), (2, "linear"), (32, "sigmoid"))),
            f"PlaceCapsules {cells} {cells}",
        ]
        weights = size(12, 2000) + 20 * (2 * size(10, 128) + size(128, 2) + size(128, 32))
    else:
        maps = 128
        first = [
            *("Concatenate", dense(1024, "relu"), dense(128 * 4, "relu"), "Reshape 128x4", dense(128, "relu")),
            *("AddressCapsules 6272", "Reshape 7x7x128"),
        ]
        weights = size(12, 1024) + size(1024, 512) + size(1024, 128) + 4 * 6272
    drawing = [
        *(f"Conv2DTranspose {half} 4x4 2x2 same {activation} True", *after),
        *("Conv2DTranspose 1 4x4 2x2 same linear True", "Activation tanh"),
    ]
    found = [line for line in described(model.decoder) if not line.startswith("GetItem")]
    # Keras orders layers by depth: those of two branches in either order.
    assert found[-len(drawing) :] == drawing and sorted(found[: -len(drawing)]) == sorted(first)
    assert model.decoder.count_params() == weights + size(4, 4, maps, half) + size(4, 4, half, 1)


@pytest.mark.parametrize("name", GENCAPS)
def test_budgets_of_the_capsule_decoders(name):
    # The original: 100,000 iterations of 128 images, as for its autoencoders.
    entry = (SHIFT if GENCAPS[name][0] == 68 else ROTATION).models[name]
    paper = entry.budgets["paper"]
    assert (paper.steps, paper.batch_size, paper.schedule()) == (100_000, 128, 1e-3)
    assert entry.model_for("standard") == entry.model_for("paper") == entry.model and entry.departures("paper") == []
    # Users are told that quick runs are shorter.
    assert "steps" in "; ".join(entry.departures("quick"))
