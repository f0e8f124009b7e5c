"""What every layer must do: configuration, shapes, precision, errors, and its part in a model of one's own."""

from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.address_capsules import AddressCapsules
from invariance.layers.block_rotation import BlockRotation
from invariance.layers.capsules import Length, Mask, PrimaryCapsules, RoutedCapsules
from invariance.layers.flow import Flow
from invariance.layers.flow_tangents import FlowTangents
from invariance.layers.fourier_conv2d import FourierConv2D
from invariance.layers.fused_batch_normalization import FusedBatchNormalization
from invariance.layers.group_convolution import GroupConvolution2D, GroupPooling
from invariance.layers.large_dense import LargeDense
from invariance.layers.matrix_capsules import ClassCapsules, ConvolutionalCapsules, PrimaryMatrixCapsules
from invariance.layers.movement_times import MovementTimes
from invariance.layers.place_capsules import PlaceCapsules
from invariance.layers.polar import CircularPadding, PolarResampling
from invariance.layers.second_order_dense import SecondOrderDense
from invariance.layers.spatial_transformer import SpatialTransformer
from invariance.layers.told_transformation import ToldTransformation
from invariance.routing.em import Form
from invariance.transforms import Rotation
from tests.helpers import assert_reached, noise

PAPER = Form(2, 0.1, logistic=True, normalised=False)


@dataclass(frozen=True)
class Case:
    """A layer, shapes without the batch, and what it refuses."""

    kind: type
    arguments: dict
    inputs: list[tuple]
    outputs: list[tuple]
    # Outputs are float32 under mixed precision; otherwise, as Keras' own layers, in the compute dtype.
    float32: bool = True
    positive: tuple[str, ...] = ()
    # Shapes of the first input, and a phrase of the message.
    refused: list[tuple] = field(default_factory=list)
    message: str = ""

    @property
    def layer(self):
        return self.kind(**self.arguments, name="mine")

    def values(self, batch=4):
        return [np.abs(noise(batch, *shape)) for shape in self.inputs]


POSES = "(batch, height, width, capsules, 4, 4)"
CASES = [
    Case(
        PrimaryCapsules,
        {"channels": 3, "dimension": 4, "kernel_size": 5, "strides": 2},
        [(11, 9, 2)],
        [(4 * 3 * 3, 4)],
        positive=("channels", "dimension", "kernel_size", "strides"),
        refused=[(4, 9, 1), (9, 4, 1), (9, 9), (None, None, 1)],
        message="(batch, height, width, channels), with height and width at least the kernel's 5",
    ),
    Case(
        RoutedCapsules,
        {"capsules": 3, "dimension": 5, "iterations": 2, "initializer": keras.initializers.RandomNormal(seed=3)},
        [(6, 2)],
        [(3, 5)],
        positive=("capsules", "dimension", "iterations"),
        refused=[(6,), (None, 2), (6, None), (3, 6, 2)],
        message="(batch, in_capsules, in_dim)",
    ),
    Case(Length, {}, [(4, 3)], [(4,)]),
    Case(
        Mask,
        {},
        [(4, 2), (4,)],
        [(8,)],
        refused=[(None, 2), (4,)],
        message="capsules (batch, capsules, dimension) and scores (batch, capsules)",
    ),
    Case(
        PrimaryMatrixCapsules,
        {"capsules": 3, "bias_initializer": keras.initializers.TruncatedNormal(stddev=0.01, seed=3)},
        [(4, 5, 6)],
        [(4, 5, 3, 4, 4), (4, 5, 3)],
        positive=("capsules",),
        refused=[(4, 5), (None, None, 3), (4, 5, None)],
        message="(batch, height, width, channels), of known size",
    ),
    Case(
        ConvolutionalCapsules,
        {"capsules": 4, "strides": 2, "form": Form(3, (0.1, 0.2, 0.3))},
        [(5, 7, 3, 4, 4), (5, 7, 3)],
        [(2, 3, 4, 4, 4), (2, 3, 4)],
        positive=("capsules", "kernel_size", "strides"),
        refused=[(2, 3, 5, 4, 4), (3, 2, 5, 4, 4), (3, 3, 5, 16), (None, 3, 5, 4, 4), (3, 3, None, 4, 4)],
        message=POSES + ", with height and width at least the kernel's 3",
    ),
    Case(
        ClassCapsules,
        {"capsules": 5, "start": (0.1, 0.2), "step": (0.3, 0.4), "together": True, "form": PAPER},
        [(3, 2, 4, 4, 4), (3, 2, 4)],
        [(5, 18), (5,)],
        positive=("capsules",),
        refused=[(3, 3, 5, 16), (3, None, 5, 4, 4)],
        message=POSES + ", of known size",
    ),
    Case(
        PlaceCapsules,
        {"height": 3, "width": 5},
        [(6, 2), (6, 4)],
        [(3, 5, 4)],
        positive=("height", "width"),
        refused=[(6,), (6, 3), (5, 2), (None, 2)],
        message="positions (batch, capsules, 2) and features (batch, capsules, maps)",
    ),
    Case(
        AddressCapsules,
        {"cells": 7, "initializer": keras.initializers.RandomNormal(seed=3)},
        [(6, 2), (6,)],
        [(7,)],
        positive=("cells",),
        refused=[(6,), (5, 2), (None, 2), (6, None), (6, 2, 1)],
        message="queries (batch, capsules, dimension) and activations (batch, capsules)",
    ),
    Case(FusedBatchNormalization, {"momentum": 0.7, "epsilon": 1e-2}, [(5, 4, 3)], [(5, 4, 3)], float32=False),
    Case(LargeDense, {"units": 5, "activation": "tanh", "use_bias": False}, [(7,)], [(5,)], float32=False),
    Case(
        FourierConv2D,
        {"filters": 32, "kernel_size": 5, "strides": 2, "activation": "relu"},
        [(10, 9, 32)],
        [(3, 3, 32)],
        float32=False,
    ),
    Case(
        SecondOrderDense,
        {"units": 3, "hidden": 4, "shared": True},
        [(5,), (2,)],
        [(3,)],
        positive=("units",),
        refused=[(None,), (5, 2)],
        message="values (batch, in) and controls (batch, numbers)",
    ),
]
EVERY_LAYER = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)


def several(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


@EVERY_LAYER
def test_config_round_trip(case):
    layer = case.layer
    serialised = layers.serialize(layer)
    assert serialised["registered_name"] == f"invariance>{case.kind.__name__}"
    again = layers.deserialize(serialised)
    assert type(again) is case.kind and again.get_config() == layer.get_config() and again.name == "mine"
    for name, value in case.arguments.items():
        if isinstance(value, (int, tuple, Form)):
            assert getattr(again, name) == getattr(layer, name), name


@pytest.mark.parametrize("case", [case for case in CASES if not case.float32], ids=lambda case: case.kind.__name__)
def test_arguments_and_weights_are_those_of_keras_layer(case):
    parent = case.kind.__mro__[1](**case.arguments, name="mine")
    layer = case.layer
    assert layer.get_config() == parent.get_config()
    for each in (layer, parent):
        each.build((None, *case.inputs[0]))
    assert [weight.path for weight in layer.weights] == [weight.path for weight in parent.weights]


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "3", True, None])
@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in CASES for name in case.positive],
    ids=lambda value: getattr(getattr(value, "kind", None), "__name__", value),
)
def test_wrong_arguments_are_refused(case, name, wrong):
    with pytest.raises(ValueError, match=rf"^Argument `{name}` must be a positive integer") as refused:
        case.kind(**{**case.arguments, name: wrong})
    assert str(refused.value).endswith(repr(wrong))


@pytest.mark.parametrize(
    ("case", "shape"),
    [(case, shape) for case in CASES for shape in case.refused],
    ids=lambda value: value.kind.__name__ if isinstance(value, Case) else str(value),
)
def test_wrong_inputs_are_refused_in_one_line(case, shape):
    with pytest.raises(ValueError) as refused:
        case.layer(keras.Input(shape), *(keras.Input(other) for other in case.inputs[1:]))
    text = str(refused.value)
    assert "\n" not in text and case.message in text and text.endswith(f"_shape={(None, *shape)}")


@EVERY_LAYER
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float16", "float64"])
def test_shapes_and_precision(case, policy, keras_settings):
    keras_settings(policy)
    layer = case.layer
    # Routing takes at least float32; the layers of geometry take float32 always, and a mask what it is given.
    expected = "float32" if case.float32 and layer.compute_dtype != "float64" else layer.compute_dtype
    expected = "float32" if case.kind is Mask else expected
    outputs = several(layer(*case.values()))
    symbolic = several(case.layer(*(keras.Input(shape, dtype="float32") for shape in case.inputs)))
    compiled = several(tf.function(layer, autograph=False)(*map(tf.constant, case.values())))
    assert [part.shape for part in (*outputs, *compiled)] == [(4, *shape) for shape in case.outputs] * 2
    assert [part.shape for part in symbolic] == [(None, *shape) for shape in case.outputs]
    for part in (*outputs, *symbolic, *compiled):
        assert keras.backend.standardize_dtype(part.dtype) == expected
    shapes = [(4, *shape) for shape in case.outputs]
    computed = layer.compute_output_shape(*((4, *shape) for shape in case.inputs))
    assert computed == (shapes[0] if len(shapes) == 1 else tuple(shapes))
    routed = isinstance(layer, (RoutedCapsules, ConvolutionalCapsules, ClassCapsules))
    assert all(weight.dtype == (expected if routed else layer.variable_dtype) for weight in layer.weights)


# Layers with tests of their own: how to make one, shapes of inputs and outputs.
OTHERS = {
    "block rotation": (lambda: BlockRotation([1.0, 2.0], learnt=True), [(4,), (1,)], [(4,)]),
    "circular padding": (lambda: CircularPadding((1, 2)), [(3, 4, 2)], [(3, 7, 2)]),
    "flow": (lambda: Flow(degree=2), [(6, 6, 1), (1,)], [(6, 6, 1)]),
    "flow tangents": (lambda: FlowTangents(2, degree=2), [(6, 6, 1)], [(2, 6, 6, 1)]),
    "group convolution": (lambda: GroupConvolution2D(3, 3), [(5, 5, 2)], [(5, 5, 4, 3)]),
    "group pooling": (GroupPooling, [(5, 5, 4, 3)], [(5, 5, 3)]),
    "movement times": (lambda: MovementTimes(2), [(3,)], [(2,)]),
    "polar": (lambda: PolarResampling(8, 3), [(6, 6, 1)], [(3, 8, 1)]),
    "spatial transformer": (
        lambda: SpatialTransformer(keras.Sequential([layers.Flatten(), layers.Dense(3)])),
        [(6, 6, 1)],
        [(6, 6, 1)],
    ),
    "told transformation": (lambda: ToldTransformation(Rotation()), [(6, 6, 1), (2,)], [(6, 6, 1)]),
}


@pytest.mark.parametrize("precision", ["float16", "float64"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_in_other_precisions(name, precision, keras_settings):
    keras_settings(precision)
    make, inputs, outputs = OTHERS[name]
    values, given = [tf.constant(noise(3, *shape)) for shape in inputs], [keras.Input(shape) for shape in inputs]
    found = make()(values if len(values) > 1 else values[0])
    symbolic = make()(given if len(given) > 1 else given[0])
    assert found.shape == (3, *outputs[0]) and symbolic.shape == (None, *outputs[0])
    assert keras.backend.standardize_dtype(found.dtype) == symbolic.dtype
    assert np.isfinite(np.asarray(found)).all()


# FourierConv2D takes Keras' setting, as Keras' layer does.
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind is not FourierConv2D], ids=lambda case: case.kind.__name__
)
def test_axes_are_those_of_the_docstring_whatever_keras_is_set_to(case, keras_settings):
    keras_settings(data_format="channels_first")
    assert [part.shape for part in several(case.layer(*case.values()))] == [(4, *shape) for shape in case.outputs]


# In a model of one's own


def capsules():
    """Two layers of routing and a decoder of one dense layer; labels are an input."""
    images, labels = keras.Input((9, 9, 1)), keras.Input((), dtype="int32")
    x = PrimaryCapsules(2, 4, kernel_size=5, strides=2)(images)
    x = RoutedCapsules(6, 4, iterations=2)(x)
    x = RoutedCapsules(3, 5)(x)
    scores = Length()(x)
    mask, decode = Mask(), layers.Dense(3)
    return keras.Model([images, labels], [scores, decode(mask(x, scores)), decode(mask(x, scores, labels))])


def matrix_capsules():
    images = keras.Input((4, 3, 2))
    x = PrimaryMatrixCapsules(3)(images)
    x = ConvolutionalCapsules(4, 2, 2, form=Form(2, 0.1))(*x)
    form = Form(1, 0.1, logistic=True, normalised=False)
    poses, activations = ClassCapsules(3, (0.1, 0.3), (0.2, 0.05), together=True, form=form)(*x)
    return keras.Model(images, [layers.Dense(3)(layers.Flatten()(poses)), activations])


def faster_layers():
    images = keras.Input((8, 8, 32))
    x = FusedBatchNormalization(momentum=0.5)(FourierConv2D(32, 5, use_bias=False)(images))
    return keras.Model(images, layers.Dense(3)(LargeDense(6, "relu")(layers.Flatten()(x))))


@pytest.mark.parametrize("build", [capsules, matrix_capsules, faster_layers])
def test_own_model_trains_and_is_saved_and_loaded(tmp_path, build):
    keras.utils.set_random_seed(0)
    model = build()
    images = tf.constant(np.abs(noise(16, *model.inputs[0].shape[1:])))
    inputs = [images, tf.constant([0, 1, 2, 0] * 4)][: len(model.inputs)]
    inputs = inputs if len(inputs) > 1 else inputs[0]

    def gradients():
        with tf.GradientTape() as tape:
            value = sum(tf.reduce_sum(part**2) for part in several(model(inputs, training=True)))
        return tape.gradient(value, [weight.value for weight in model.trainable_weights])

    eager = gradients()
    assert_reached(eager, model.trainable_weights)
    # In a graph parts are compiled by XLA: float32 sums over positions and images, in a different order.
    for one, other in zip(tf.function(gradients)(), eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1.0, np.abs(other).max()))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded.layers, model.layers, strict=True):
        assert type(one) is type(other) and one.get_config() == other.get_config()
    for one, other in zip(several(loaded(inputs)), several(model(inputs)), strict=True):
        np.testing.assert_array_equal(one, other)
    # Keras' own loops, with a last batch of another size.
    loaded.compile("sgd", ["mse"] * len(model.outputs), jit_compile=False)
    targets = [np.eye(3)[[0, 1, 2, 0] * 4]] * len(model.outputs)
    history = loaded.fit(inputs, targets, batch_size=12, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    predicted = several(loaded.predict(inputs, batch_size=12, verbose=0))
    assert [part.shape for part in predicted] == [(16, 3)] * len(targets)


def test_capsules_train_compiled_by_xla_as_a_whole():
    model = capsules()
    model.compile("sgd", ["mse"] * 3, jit_compile=True)
    inputs = [np.abs(noise(5, 9, 9, 1)), np.array([0, 1, 2, 0, 1])]
    assert np.isfinite(model.train_on_batch(inputs, [np.eye(3)[inputs[1]]] * 3)).all()
