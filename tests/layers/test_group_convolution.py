"""Group convolutions: the definition, position by position, and equivariance under quarter turns."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.group_convolution import GroupConvolution2D, GroupPooling
from tests.helpers import assert_reached, noise

# Float32 sums of some hundred products of size 1, taken in different orders.
ROUNDING = 2e-5

# (height, width), kernel, strides, padding, and the output's (height, width).
CASES = [
    ((6, 6), 3, 1, "same", (6, 6)),
    ((7, 7), 3, 1, "valid", (5, 5)),
    ((6, 6), 4, 1, "valid", (3, 3)),
    ((8, 8), 4, 2, "same", (4, 4)),
    ((9, 9), 3, 2, "same", (5, 5)),
    ((10, 10), 4, 3, "valid", (3, 3)),
    ((7, 7), 1, 2, "same", (4, 4)),
    ((5, 5), 5, 1, "valid", (1, 1)),  # filters as large as the image
    ((4, 4), 4, 2, "valid", (1, 1)),
    ((7, 5), 3, 2, "same", (4, 3)),
]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: "{} k{} s{} {}".format(*case))
EVERY_INPUT = pytest.mark.parametrize("orientations", [(), (4,)], ids=["images", "feature maps"])


def turned(features, quarters):
    """Images (batch, height, width, channels) or feature maps (batch, height, width, 4, channels), rotated."""
    rotated = np.rot90(features, quarters, axes=(1, 2))
    return np.roll(rotated, quarters, axis=3) if rotated.ndim == 5 else rotated


def layer_and_inputs(case, orientations, batch=2, channels=3, **options):
    size, kernel, strides, padding, _ = case
    layer = GroupConvolution2D(2, kernel, strides, padding, **options)
    inputs = noise(batch, *size, *orientations, channels)
    layer.build(inputs.shape)
    layer.set_weights([noise(*weight.shape, seed=5 + number) for number, weight in enumerate(layer.weights)])
    return layer, inputs


def slow(layer, inputs, size):
    """Oracle: the equation of the class's docstring, in float64 loops over positions and orientations."""
    x = inputs if inputs.ndim == 5 else inputs[..., None, :]
    kernel, bias = (weight.astype("float64") for weight in layer.get_weights())
    side, stride, turns = layer.kernel_size, layer.strides, x.shape[3]
    outputs = np.zeros((len(x), *size, 4, layer.filters)) + bias
    # The first filter begins as far before the image as the last one ends behind it.
    first = [((count - 1) * stride + side - pixels) // 2 for count, pixels in zip(size, x.shape[1:3], strict=True)]
    middle = (side - 1) / 2
    for i, j, s, r in np.ndindex(*size, 4, turns):
        for u, v in np.ndindex(side, side):
            row, column = stride * i - first[0] + u, stride * j - first[1] + v
            if not (0 <= row < x.shape[1] and 0 <= column < x.shape[2]):
                continue
            # R^-s q: s quarter turns clockwise about the filter's middle. A counter-clockwise turn takes the offset
            # (down, right) to (-right, down), as (0, 1), right, to (-1, 0), up; a clockwise one to (right, -down).
            down, right = u - middle, v - middle
            for _ in range(s):
                down, right = right, -down
            weight = kernel[int(down + middle), int(right + middle), (r - s) % turns]
            outputs[:, i, j, s] += x[:, row, column, r] @ weight
    return outputs


@EVERY_INPUT
@EVERY_CASE
def test_is_the_sum_over_the_group(case, orientations):
    layer, inputs = layer_and_inputs(case, orientations)
    found = layer(inputs)
    assert found.shape == layer.compute_output_shape(inputs.shape) == (2, *case[4], 4, 2)
    np.testing.assert_allclose(found, slow(layer, inputs, case[4]), rtol=0, atol=ROUNDING)


@EVERY_INPUT
@EVERY_CASE
def test_equivariance(case, orientations):
    layer, inputs = layer_and_inputs(case, orientations)
    outputs = layer(inputs).numpy()
    for quarters in range(4):
        if quarters % 2 and len(set(case[0])) > 1:
            # A layer is built for one size, but has the same weights for the turned one.
            assert layer(turned(inputs, quarters)).shape[1:3] == case[4][::-1]
        np.testing.assert_allclose(layer(turned(inputs, quarters)), turned(outputs, quarters), rtol=0, atol=ROUNDING)
    # Without the shift of the orientations the two differ: the test can see it. (A turned pixel is the same pixel.)
    if case[1] > 1 or orientations:
        assert np.abs(layer(turned(inputs, 1)).numpy() - np.rot90(outputs, axes=(1, 2))).max() > 0.1


def test_equivariance_after_training_steps():
    # Both ways of computing it, one behind the other.
    keras.utils.set_random_seed(0)
    images, targets = noise(16, 9, 9, 2), noise(16, 3, seed=1)
    model = keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            GroupConvolution2D(4, 3, 2),
            layers.ReLU(),
            GroupConvolution2D(4, 3),
            layers.ReLU(),
            GroupConvolution2D(3, 5, padding="valid"),
        ]
    )
    features, optimizer = keras.Model(model.inputs[0], model.layers[2].output), keras.optimizers.Adam(1e-2)
    weights = [weight.value for weight in model.trainable_weights]
    losses = []
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.reduce_max(model(images), axis=3)[:, 0, 0] - targets) ** 2)
        gradients = tape.gradient(loss, weights)
        assert_reached(gradients, model.trainable_weights)
        optimizer.apply(gradients, model.trainable_weights)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    for part in (features, model):
        outputs = part(images).numpy()
        for quarters in (1, 2, 3):
            found = part(turned(images, quarters))
            np.testing.assert_allclose(found, turned(outputs, quarters), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("case", [CASES[3], CASES[7]], ids=["convolution", "product"])
def test_compiled_equals_eager(case, xla):
    layer, inputs = layer_and_inputs(case, (4,))
    compiled = tf.function(layer, jit_compile=xla, autograph=False)
    np.testing.assert_allclose(compiled(tf.constant(inputs)), layer(inputs), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("size", [(8, 8), (4, 4)], ids=["convolution", "product"])
def test_mixed_precision(size, bfloat16):
    outputs = GroupConvolution2D(3, 4, padding="valid")(noise(2, *size, 1))
    assert outputs.dtype == "bfloat16" and GroupPooling()(outputs).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding", "side"),
    [
        ((8, 8), 4, 1, "same", 8),  # one more column on one side than on the other
        ((8, 8), 3, 2, "same", 8),
        ((9, 9), 4, 2, "same", 9),
        ((8, 8), 1, 2, "same", 8),  # the last column is never seen
        ((9, 6), 3, 2, "same", 6),
        ((6, 6), 3, 2, "valid", 6),
        ((4, 4), 5, 1, "valid", 4),
    ],
)
def test_sizes_that_break_the_symmetry_are_refused(size, kernel, strides, padding, side):
    with pytest.raises(ValueError, match=rf"not placed symmetrically on a side of {side} pixels") as refused:
        GroupConvolution2D(2, kernel, strides, padding)(keras.Input((*size, 3)))
    assert "\n" not in str(refused.value) and str(refused.value).endswith(f"input_shape={(None, *size, 3)}")


@pytest.mark.parametrize("shape", [(8, 8), (None, 8, 1), (8, 8, 3, 2), (8, 8, 4, None)])
def test_wrong_inputs_are_refused(shape):
    for layer in (GroupConvolution2D(2, 3), GroupPooling()):
        if (isinstance(layer, GroupConvolution2D) or len(shape) != 4) or shape[2] != 4:
            with pytest.raises(ValueError, match=r"^Input must be .* Received: input_shape=") as refused:
                layer.build((None, *shape))
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["filters", "kernel_size", "strides"])
def test_wrong_arguments_are_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` must be a positive integer.*: 0$"):
        GroupConvolution2D(**{"filters": 2, "kernel_size": 3, name: 0})
    with pytest.raises(ValueError, match=r"`padding` must be 'same' or 'valid'.*: 'full'$"):
        GroupConvolution2D(2, 3, padding="full")


def test_pooling_takes_the_largest_value_whatever_the_orientation():
    features = noise(2, 3, 3, 4, 5)
    found = GroupPooling()(features)
    np.testing.assert_array_equal(found, features.max(axis=3))
    assert found.shape == GroupPooling().compute_output_shape(features.shape)
    np.testing.assert_array_equal(GroupPooling()(turned(features, 1)), np.rot90(found, axes=(1, 2)))


def test_saved_and_loaded(tmp_path):
    images = keras.Input((8, 8, 2))
    x = GroupConvolution2D(3, 4, 2, use_bias=False, kernel_initializer=keras.initializers.HeNormal(seed=1))(images)
    model = keras.Model(images, GroupPooling()(GroupConvolution2D(2, 4, padding="valid")(x)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded.layers, model.layers, strict=True):
        assert type(one) is type(other) and one.get_config() == other.get_config()
    assert [weight.path.split("/")[-1] for weight in model.weights] == ["kernel", "kernel", "bias"]
    inputs = noise(3, 8, 8, 2)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
