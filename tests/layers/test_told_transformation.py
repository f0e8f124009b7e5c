"""A known transformation with a learnt parameter: it begins as the identity, and becomes what it is told."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.told_transformation import ToldTransformation
from invariance.models.warp_drawing import WarpDrawing
from invariance.ranges import Ranges
from invariance.runs import pipeline, training
from invariance.tasks import Generation
from invariance.transforms import Rotation, Scaling, Shear, Shift
from tests.helpers import assert_reached, noise

PART = ((-45, 45),)
KINDS = {
    "rotation": (Rotation(), np.array([-170.0, -45.0, 0.0, 90.0, 180.0], "float32")),
    "shift": (Shift((24, 26), 4.0), np.array([[3, -2], [0, 0], [-4, 1]], "float32")),
    "scaling": (Scaling(), np.array([0.5, 1.0, 1.7], "float32")),
    "shear": (Shear(), np.array([-0.3, 0.0, 0.8], "float32")),
}
every_kind = pytest.mark.parametrize("name", KINDS)


def images(count, seed=0):
    return noise(count, 20, 20, 1, seed=seed, spread=(-1, 1))


@every_kind
def test_parameters_are_read_from_their_code(name):
    kind, parameters = KINDS[name]
    decoded = kind.decode(kind.encode(parameters))
    assert decoded.shape == parameters.shape
    # A float32 arc tangent, in degrees; angles are the same after a turn.
    difference = np.asarray(decoded) - parameters
    np.testing.assert_allclose((difference + 180) % 360 - 180, 0.0, atol=3e-5)


@every_kind
def test_it_begins_as_the_identity_and_may_be_told_everything(name):
    kind, parameters = KINDS[name]
    layer, x = ToldTransformation(kind), images(len(parameters))
    told = np.asarray(kind.encode(parameters))
    unchanged = kind.apply(x, np.full(parameters.shape, kind.identity, "float32"), -1.0)
    np.testing.assert_array_equal(layer([x, told]), unchanged)
    layer.set_weights([np.eye(kind.numbers), np.zeros(kind.numbers)])
    # 3e-5 degrees move a pixel by 1e-5; noise differs from pixel to pixel by up to 2.
    np.testing.assert_allclose(layer([x, told]), kind.apply(x, parameters, -1.0), atol=5e-5)
    assert np.abs(layer([x, told]) - unchanged).max() > 0.5


@every_kind
def test_contract(name, tmp_path):
    kind, parameters = KINDS[name]
    shape, told = (20, 20, 1), np.asarray(kind.encode(parameters))
    model = WarpDrawing(kind)(shape, kind.output_shape(shape), kind.numbers)
    layer, x = model.get_layer("told"), images(len(parameters))
    layer.set_weights([noise(kind.numbers, kind.numbers, seed=1), np.full(kind.numbers, 0.3)])
    expected = model([x, told])
    assert model.output_shape == (None, *kind.output_shape(shape)) == (None, *expected.shape[1:])

    def gradients():
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model([x, told]) ** 2)
        return tape.gradient(value, [weight.value for weight in layer.trainable_weights])

    eager = gradients()
    assert_reached(eager, layer.trainable_weights)
    for compiled in (False, True):
        found = tf.function(gradients, jit_compile=compiled)()
        for one, other in zip(found, eager, strict=True):
            # Sums over hundreds of pixels, in another order.
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("told").get_config() == layer.get_config()
    assert loaded.get_layer("told").transformation == kind
    np.testing.assert_array_equal(loaded([x, told]), expected)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"numbers \(batch, 2\)\. Received: shapes .*\(None, 3\)"):
        ToldTransformation(Rotation())([keras.Input((20, 20, 1)), keras.Input((3,))])
    with pytest.raises(ValueError, match=r"canvas must be .*\(24, 26, 1\)\. Received: \(20, 20, 1\)"):
        WarpDrawing(KINDS["shift"][0])((20, 20, 1), (20, 20, 1), 2)


@pytest.mark.parametrize(
    "task",
    [
        Generation(Rotation(), Ranges(((-180, 180),), dict.fromkeys((1, 2), PART))),
        Generation(Shift((40, 40), 10.0), Ranges(((-10, 10),), dict.fromkeys((1, 2), ((-2, 2),)))),
    ],
    ids=lambda task: task.transformation.name,
)
def test_it_learns_to_draw_without_error_at_any_parameter(task, digits):
    """Restricted classes, too, at parameters that they were never shown with."""
    kind, (x, labels) = task.transformation, digits
    x = np.round(255 * x).astype("uint8")
    model = WarpDrawing(kind)(
        *task.arguments(x.shape[1:], range(10)), keras.optimizers.schedules.CosineDecay(5e-2, 250)
    )
    model.optimizer.build(model.trainable_variables)
    step = training.compiled_step(model, task.prepare(0, tuple(range(10))), 16)
    for batch in pipeline.batches(x, labels, 0, 16, 0, 250):
        step(*batch)
    outside = np.array([170.0, -100.0, 60.0, 180.0] if kind.dimensions == 1 else [[9, -8], [-10, 3], [5, 5], [0, -9]])
    upright = task.pixels(x[np.isin(labels, (1, 2))][:4])
    drawn = model([upright, kind.encode(outside.astype("float32"))])
    error = np.square(drawn - kind.apply(upright, outside.astype("float32"), -1.0)).mean()
    # Drawing the image as it is has an error of some .3. The bar of "about zero" is a thousandth of it.
    assert error < 3e-4
