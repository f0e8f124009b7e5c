"""Rotation of pairs of code numbers: an oracle, the group's laws, learnt frequencies, what is refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from invariance.layers.block_rotation import BlockRotation
from tests.helpers import assert_reached, noise

PLANE = ((0.0, 0.0), (1.0, 0.0), (0.5, -2.0))
LINE = (0.0, 1.0, 2.5)
# Float32 products of numbers of size one with phases of up to ten radians.
ROUNDING = 1e-5


def rotated(codes, phases):
    """Oracle: each pair (z_b, z_(b + blocks)) of each code, a complex number, times exp(i phase)."""
    result = np.empty(codes.shape)
    blocks = codes.shape[-1] // 2
    for place in np.ndindex(codes.shape[:-1]):
        for block in range(blocks):
            pair = complex(codes[*place, block], codes[*place, block + blocks])
            pair *= np.exp(1j * phases[place[0], block])
            result[*place, block], result[*place, block + blocks] = pair.real, pair.imag
    return result


@pytest.mark.parametrize("shape", [(5, 6), (5, 2, 4, 6)])
def test_oracle(shape):
    codes, numbers = noise(*shape), noise(5, 2, seed=1)
    phases = [[w[0] * t[0] + w[1] * t[1] for w in PLANE] for t in numbers.astype("float64")]
    np.testing.assert_allclose(BlockRotation(PLANE)([codes, numbers]), rotated(codes, np.array(phases)), atol=ROUNDING)


def test_a_quarter_turn_leads_from_the_first_axis_to_the_second():
    # (u, v) = (1, 0) -> (cos 90, sin 90) = (0, 1): positive angles turn counter-clockwise.
    turned = BlockRotation([1.0])([np.array([[1.0, 0.0]]), np.array([[np.pi / 2]])])
    np.testing.assert_allclose(turned, [[0.0, 1.0]], atol=1e-6)


def test_angles_are_read_from_cosine_and_sine():
    angles = noise(5, 2, spread=(-np.pi, np.pi))
    points = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(5, 4)
    codes, whole = noise(5, 6), ((0, 0), (1, 0), (2, -3))
    np.testing.assert_allclose(
        BlockRotation(whole, circular=True)([codes, points]), BlockRotation(whole)([codes, angles]), atol=ROUNDING
    )


def test_rotations_form_a_group():
    layer, codes = BlockRotation(PLANE), noise(4, 6)
    first, second = noise(4, 2, seed=1), noise(4, 2, seed=2)
    once = layer([codes, first])
    np.testing.assert_allclose(layer([once, second]), layer([codes, first + second]), atol=ROUNDING)
    np.testing.assert_allclose(layer([once, -first]), codes, atol=ROUNDING)
    np.testing.assert_array_equal(layer([codes, np.zeros((4, 2), "float32")]), codes)
    np.testing.assert_allclose(np.linalg.norm(once, axis=-1), np.linalg.norm(codes, axis=-1), rtol=ROUNDING)
    # The pair of frequency zero is invariant, and no other.
    moved = np.abs(once - codes).max(axis=0)
    np.testing.assert_array_equal(moved == 0, [True, False, False] * 2)


def test_learnt_frequencies_are_found():
    codes, numbers = noise(64, 6), noise(64, 1, spread=(-1, 1))
    targets = BlockRotation(LINE)([codes, numbers])
    layer = BlockRotation([0.3, 0.8, 2.0], learnt=True)
    optimizer = keras.optimizers.Adam(0.05)
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((layer([codes, numbers]) - targets) ** 2)
        gradients = tape.gradient(loss, layer.trainable_weights)
        assert_reached(gradients, layer.trainable_weights)
        optimizer.apply_gradients(zip(gradients, layer.trainable_weights, strict=True))
    # Adam's last steps are some hundredths.
    np.testing.assert_allclose(layer.trainable_weights[0], [LINE], atol=0.05)


def test_fixed_frequencies_are_no_weights():
    layer = BlockRotation(LINE)
    layer.build([(None, 6), (None, 1)])
    assert layer.weights == []


@pytest.mark.parametrize("learnt", [False, True])
def test_config_round_trip(learnt):
    layer = BlockRotation(PLANE, learnt=learnt, name="mine")
    serialised = json.loads(json.dumps(layers.serialize(layer)))
    assert serialised["registered_name"] == "invariance>BlockRotation"
    again = layers.deserialize(serialised)
    assert again.get_config() == layer.get_config() and again.name == "mine"
    inputs = [noise(3, 6), noise(3, 2)]
    np.testing.assert_array_equal(again(inputs), layer(inputs))
    assert again.compute_output_shape([(None, 6), (None, 2)]) == (None, 6)


def test_computes_in_float32_in_mixed_precision(bfloat16):
    codes, numbers = noise(4, 6), 30 * noise(4, 1)
    outputs = BlockRotation(LINE)([codes, numbers])
    assert outputs.dtype == tf.float32
    # Phases of some 75 radians, of which bfloat16 would keep no decimal; float32 keeps five.
    np.testing.assert_allclose(outputs, rotated(codes, numbers.astype("float64") * LINE), atol=1e-4)


@pytest.mark.parametrize("wrong", [(), ((),), (float("nan"),), ("fast",), ((1, 2), (3,)), (((1.0,),),)])
def test_wrong_frequencies_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^Argument `frequencies` must be finite numbers.*Received: [^\n]*$"):
        BlockRotation(wrong)


@pytest.mark.parametrize(
    ("codes", "numbers"), [((None, 5), (None, 2)), ((None, 6), (None, 1)), ((6,), (None, 2)), ((None, 6), (2,))]
)
def test_wrong_shapes_are_refused_in_one_line(codes, numbers):
    message = r"^Input must be codes \(batch, ..., 6\) and parameters \(batch, 2\)\. Received: shapes [^\n]*$"
    with pytest.raises(ValueError, match=message):
        BlockRotation(PLANE).build([codes, numbers])
