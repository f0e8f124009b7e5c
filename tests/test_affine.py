"""Affine maps: images and coefficients against scipy, and a range of its own for each parameter."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from experiments.generation_affine import EXPERIMENT
from invariance.ranges import Ranges
from invariance.tasks import task_from_json
from invariance.tasks.draw import Autoencoding, EncodedImages
from invariance.transforms import Affine, Rotation, Scaling, Shear, Shift, transformation_from_json
from tests.helpers import noise

AFFINE = Affine()
RANGES = Ranges(((-180, 180),), {4: ((-45, 45),), 9: ((10, 10),)})
IMAGE = noise(1, 12, 13, 1, spread=(-1, 1))
# Lowest and highest of each parameter; factors are given less one.
WHOLE = [(-180, 180), (-5, 5), (-5, 5), (0.1, 0.5), (0.1, 0.5), (-0.1, 0.4), (-0.1, 0.4)]
QUARTER = [(-45, 45), (-1.25, 1.25), (-1.25, 1.25), (0.25, 0.35), (0.25, 0.35), (0.0875, 0.2125), (0.0875, 0.2125)]


def drawn(labels, seed=0, first=0):
    positions = np.arange(first, first + len(labels))
    return np.asarray(AFFINE.draw(RANGES, seed, positions, np.asarray(labels, "int32")))


def from_coefficients(image, coefficients):
    """Oracle: scipy's image of six told coefficients."""
    matrix = np.reshape(coefficients[:4], (2, 2)).astype("float64")
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ centre + 10.0 * np.asarray(coefficients[4:], "float64")
    return ndimage.affine_transform(image.astype("float64"), matrix, offset, order=1, mode="grid-constant", cval=-1.0)


def test_images_and_coefficients_agree_with_scipy():
    parameters = drawn(np.zeros(20))
    found = np.asarray(AFFINE.apply(np.repeat(IMAGE, 20, 0), parameters, -1.0))[..., 0]
    told = np.asarray(AFFINE.encode(parameters))
    assert told.shape == (20, AFFINE.numbers) and told.dtype == np.float32
    for image, coefficients, own in zip(found, told, parameters.astype("float64"), strict=True):
        # Pixels some 9 from the centre, read at coordinates known to 1e-5 or so.
        np.testing.assert_allclose(image, from_coefficients(IMAGE[0, ..., 0], coefficients), rtol=0, atol=1e-4)
        # R H S of the class's docstring, in float64.
        angle, dy, dx, rows, columns, tall, wide = own
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        matrix = np.array([[cosine, sine], [-sine, cosine]]) @ [[1, rows], [columns, 1]] @ np.diag([1 + tall, 1 + wide])
        np.testing.assert_allclose(coefficients[:4], matrix.ravel(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(coefficients[4:], -matrix @ [dy, dx] / 10, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("number", "value", "kind", "parameter"),
    [
        (0, 33.0, Rotation(), 33.0),
        (1, 3.0, Shift(), (3.0, 0.0)),
        (2, -2.0, Shift(), (0.0, -2.0)),
        (4, 0.5, Shear(), 0.5),
    ],
)
def test_one_parameter_alone_is_another_transformation(number, value, kind, parameter):
    parameters = np.zeros((1, 7), "float32")
    np.testing.assert_array_equal(AFFINE.apply(IMAGE, parameters, -1.0), IMAGE)
    parameters[0, number] = value
    other = kind.apply(IMAGE, np.array([parameter], "float32"), -1.0)
    np.testing.assert_allclose(AFFINE.apply(IMAGE, parameters, -1.0), other, rtol=0, atol=1e-6)


def test_both_factors_alone_are_a_scaling():
    parameters = np.array([[0, 0, 0, 0, 0, 1.0, 1.0]], "float32")
    halved = Scaling().apply(IMAGE, np.array([0.5], "float32"), -1.0)
    np.testing.assert_allclose(AFFINE.apply(IMAGE, parameters, -1.0), halved, rtol=0, atol=1e-6)


def test_shift_comes_last():
    """x -> R (x - shift) reads a rotated image shift pixels farther up: it is rotated first and shifted then."""
    square, parameters = IMAGE[:, :, :12], np.array([[90, 2, -1, 0, 0, 0, 0]], "float32")
    rotated = Rotation().apply(square, np.array([90.0], "float32"), -1.0)
    expected = Shift().apply(rotated, np.array([[2.0, -1.0]]), -1.0)
    np.testing.assert_allclose(AFFINE.apply(square, parameters, -1.0), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("label", "expected"), [(0, WHOLE), (4, QUARTER)])
def test_each_parameter_is_uniform_in_its_own_range(label, expected):
    values = drawn(np.full(3000, label))
    for column, (low, high) in zip(values.T.astype("float64"), expected, strict=True):
        assert low - 1e-6 <= column.min() and column.max() <= high + 1e-6  # float32
        assert stats.kstest((column - low) / (high - low), "uniform").pvalue > 1e-4
    # Independent: correlations of 3,000 pairs have a standard error of .018.
    correlations = np.corrcoef(values.T) - np.eye(7)
    assert np.abs(correlations).max() < 5 / np.sqrt(3000)


def test_draws():
    values = drawn([0, 4, 9] * 10)
    # The angles are those of a rotation; a class shown at one angle is shown one of everything.
    angles = Rotation().draw(RANGES, 0, np.arange(30), np.array([0, 4, 9] * 10, "int32"))
    np.testing.assert_array_equal(values[:, 0], angles)
    np.testing.assert_allclose(values[2::3], [[10, 0, 0, 0.3, 0.3, 0.15, 0.15]] * 10, rtol=1e-6)
    # A pure function of seed, position and label.
    np.testing.assert_array_equal(drawn([9, 0, 4], first=2), [values[2], values[3], values[4]])
    assert (drawn([0, 4, 0], seed=1)[:, 1:] != values[:3, 1:]).all()


def test_evaluation_runs_over_the_angle_and_draws_the_rest_in_range():
    found = AFFINE.around(AFFINE.parameters(np.array([150.0]))[0], Ranges(((-45, 45),)), 64)
    assert found.shape == (64, 7) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], 150.0)
    for column, (low, high) in zip(found.T[1:], QUARTER[1:], strict=True):
        assert low <= column.min() and column.max() <= high and len(np.unique(column)) > 60
    # The same for every angle and number of images: curves over the angle do not jump.
    np.testing.assert_array_equal(AFFINE.around(-20.0, Ranges(((-45, 45),)), 8)[:, 1:], found[:8, 1:])
    np.testing.assert_array_equal(AFFINE.parameters(np.array([5.0, 6.0]))[:, 0], [5, 6])
    # In pictures each image keeps its own.
    task, images = EXPERIMENT.task, noise(2, 12, 12, spread=(0, 256)).astype("uint8")

    def copy(inputs, training):
        return inputs[0]

    encoded = EncodedImages(Autoencoding(copy, task, (12, 12, 1)), images)
    points = AFFINE.parameters(np.array([0.0, 90.0]))
    expected, _ = encoded.pairs(points)
    own = AFFINE.around(0.0, Ranges(task.inside), 2)
    upright = AFFINE.apply(task.pixels(images[..., None]), own, -1.0)
    # Interpolated by XLA and without: float32 coordinates.
    np.testing.assert_allclose(expected[0], upright, rtol=0, atol=5e-5)
    np.testing.assert_allclose(encoded.errors(points[0]), ((task.pixels(images[..., None]) - upright) ** 2).numpy()
                               .mean(axis=(1, 2, 3)), rtol=1e-3)  # fmt: skip


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_equals_eager(xla):
    images, labels = tf.constant(np.repeat(IMAGE, 16, 0)), tf.constant(np.arange(16, dtype="int32") % 5)

    def step(images, labels, positions):
        parameters = AFFINE.draw(RANGES, 1, positions, labels)
        return parameters, AFFINE.encode(parameters), AFFINE.apply(images, parameters, -1.0)

    given = (images, labels, tf.range(16, dtype=tf.int64))
    found = tf.function(step, jit_compile=xla, autograph=False)(*given)
    # As for rotations, see test_transforms; shears and factors enlarge coordinates by up to 2.1.
    for one, other, tolerance in zip(found, step(*given), (6e-5, 4e-6, 1e-4), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def test_json_and_words():
    task = EXPERIMENT.task
    value = json.loads(json.dumps(task.to_json()))
    assert value["kind"] == "generation_by_affine_map" and task_from_json(value) == task
    assert (value["shift"], value["shear"], value["factor"]) == ([-5, 5], [0.1, 0.5], [0.9, 1.4])
    own = replace(AFFINE, shift=(0, 1))
    assert transformation_from_json("affine_map", {"other": 1, **own.to_json()}) == (own, {"other": 1})
    assert task.title() == (
        "Generation under affine map: classes 4 and 9 shown within ±45 degrees and 25% of the other ranges only"
    )
    assert AFFINE.describe(((-180, 180),)) == "at every angle"
    assert AFFINE.text(np.array([44.6, 1, 2, 3, 4, 5, 6])) == "45°"
    for name in ("shift", "shear", "factor"):
        with pytest.raises(ValueError, match=f"^Argument `{name}` must be .* Received: "):
            Affine(**{name: (2, 1)})
