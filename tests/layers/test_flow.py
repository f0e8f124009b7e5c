"""Flows: known fields move images as known transformations do; times add; what is learnt can be saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates

from invariance.layers.flow import Flow
from invariance.layers.movement_times import MovementTimes
from invariance.transfer.flow_estimator import blurred
from invariance.warp import rotate, shift
from tests.helpers import noise

SIDE = 28


def flow_of(*fields, side=SIDE, **arguments):
    """A flow whose fields are given by their terms: (component, power of the row, power of the column, factor)."""
    flow = Flow(len(fields), **{"degree": 2, "cubic": False, **arguments})
    flow.build([(None, side, side, 1), (None, len(fields))])
    # In the order of the layer's terms.
    powers = [(i, j) for i in range(flow.degree + 1) for j in range(flow.degree + 1 - i)]
    values = np.zeros(flow.coefficients.shape, "float32")
    for number, field in enumerate(fields):
        for component, *power, factor in field:
            term = powers.index(tuple(power))
            values[number, component, term] = factor / flow.scales[term]
    flow.coefficients.assign(values)
    return flow


def rotation(**arguments):
    # (row, column) -> (column, -row), in pixels: the first Legendre polynomials are the coordinates over half a side.
    return flow_of([(0, 0, 1, SIDE / 2), (1, 1, 0, -SIDE / 2)], **arguments)


def images(count=3):
    """Smooth blots within a circle, which stay inside when they are rotated."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    disc = (np.hypot(rows, columns) < 8)[None, ..., None]
    return blurred(tf.constant(np.abs(noise(count, SIDE, SIDE, 1)) * disc)).numpy()


def test_rotation_by_a_time_is_rotation_by_that_angle():
    flow, x = rotation(), images(5)
    degrees = np.array([0.0, 10.0, 100.0, 180.0, -135.0], "float32")
    # By which sense: at a small time the image shows at p what it showed at p + time x (column, -row), as `warp.rotate`
    # does for positive angles.
    moved = flow([x, np.deg2rad(degrees)[:, None]]).numpy()
    # Both interpolate bilinearly; the paths differ by the integration's error, below a thousandth of a pixel.
    np.testing.assert_allclose(moved, rotate(x, degrees), atol=2e-3)
    assert np.abs(moved[3] - x[3]).max() > 0.1


def test_shifts():
    flow = flow_of([(0, 0, 0, 1.0)], [(1, 0, 0, 1.0)])
    x = images(2)
    times = np.array([[2.0, -3.0], [-1.5, 0.25]], "float32")
    np.testing.assert_allclose(flow([x, times]), shift(x, -times[:, 0], -times[:, 1]), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_times_add(seed):
    flow = Flow(1, 3, seed)
    flow.build([(None, SIDE, SIDE, 1), (None, 1)])
    flow.coefficients.assign(flow.coefficients * 10)

    def path(time):
        return flow.displacements(np.array([[time]], "float32")).numpy()[0]

    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    first = path(1.5)
    # At pixel centres near the middle the first displacement is looked up in the second, bilinearly.
    second = path(2.0)
    middle = (slice(10, 18), slice(10, 18))
    at = [(rows + first[..., 0])[middle], (columns + first[..., 1])[middle]]
    total = first[middle] + np.stack([map_coordinates(second[..., each], at, order=1) for each in (0, 1)], -1)
    # Displacements of some pixels; the look-up of a curved field is off by some hundredths of a pixel.
    assert np.abs(total).max() > 0.5
    np.testing.assert_allclose(total, path(3.5)[middle], atol=0.03)
    back = path(-1.5)
    returned = first[middle] + np.stack([map_coordinates(back[..., each], at, order=1) for each in (0, 1)], -1)
    np.testing.assert_allclose(returned, 0.0, atol=0.03)


def test_time_zero_changes_nothing():
    x = images(2)
    for cubic in (False, True):
        np.testing.assert_array_equal(Flow(2, cubic=cubic)([x, np.zeros((2, 2), "float32")]), x)


def test_cubic_interpolation_blurs_less():
    x = images(4)
    half = np.full((4, 1), np.deg2rad(15.0), "float32")

    def there_and_back(cubic):
        flow = rotation(cubic=cubic)
        return float(np.square(flow([flow([x, half]), -half]) - x).mean())

    assert there_and_back(True) < 0.3 * there_and_back(False)


def test_gradients_agree_with_finite_differences():
    flow, x = rotation(), images(2)
    target = rotate(x, np.full(2, 20.0, "float32"))
    times = np.full((2, 1), np.deg2rad(10.0), "float32")

    def loss():
        return tf.reduce_mean(tf.square(flow([x, times]) - target)) * 1e3

    # A loop's gradient must be taken where the loop is compiled.
    @tf.function(jit_compile=True)
    def steepest():
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, flow.coefficients.value)

    gradient = steepest().numpy()
    start = flow.coefficients.numpy()
    # Along the steepest descent, by a central difference; float32 leaves three digits.
    direction = gradient / np.linalg.norm(gradient)
    values = []
    for step in (1e-3, -1e-3):
        flow.coefficients.assign(start + step * direction)
        values.append(float(loss()))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(np.linalg.norm(gradient), rel=2e-2)


def test_eager_graph_and_xla_agree_and_it_is_saved(tmp_path):
    flow, x = rotation(cubic=True), images(3)
    times = np.array([[0.3], [-2.0], [3.0]], "float32")
    expected = flow([x, times]).numpy()
    for compiled in (False, True):
        moved = tf.function(lambda a, b: flow([a, b]), jit_compile=compiled)(x, times)
        # Additions in another order.
        np.testing.assert_allclose(moved, expected, atol=1e-4)
    inputs = keras.Input((SIDE, SIDE, 1)), keras.Input((1,))
    model = keras.Model(inputs, flow(list(inputs)))
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded([x, times]), model([x, times]))
    assert loaded.layers[-1].get_config() == flow.get_config()


@pytest.mark.parametrize(
    "arguments, shapes, message",
    [
        ({"fields": 0}, None, "`fields` must be a positive integer"),
        ({"degree": 1.5}, None, "`degree` must be a positive integer"),
        ({"fields": 2}, [(None, 8, 8, 1), (None, 1)], r"times \(batch, 2\). Received: shapes .*\(None, 1\)"),
        ({}, [(None, None, 8, 1), (None, 1)], "images"),
    ],
)
def test_refused(arguments, shapes, message):
    with pytest.raises(ValueError, match=message):
        Flow(**arguments).build(shapes)


def test_times_of_told_parameters(tmp_path):
    angles = np.deg2rad(np.array([-170.0, -10.0, 0.0, 90.0], "float32"))
    layer = MovementTimes(1, circular=True)
    told = np.stack([np.cos(angles), np.sin(angles)], -1)
    assert np.abs(layer(told)).max() == 0  # to begin with
    layer.kernel.assign([[3.0]])
    np.testing.assert_allclose(layer(told)[:, 0], 3 * angles, rtol=1e-5, atol=1e-6)
    linear = MovementTimes(2)
    linear(told)
    linear.kernel.assign([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(linear(told), told @ np.array([[1.0, 2.0], [3.0, 4.0]]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(batch, 2\). Received: \(None, 3\)"):
        MovementTimes(circular=True).build((None, 3))
