"""The task turned round: what a model is given and must draw, and what it is measured by."""

import json

import keras
import numpy as np
import pytest

from invariance.ranges import Ranges
from invariance.tasks import Compensation, Generation, task_from_json
from invariance.tasks.draw import Autoencoding, EncodedImages, draw_all, mean_images
from invariance.transforms import Rotation, Shear, Shift
from tests.helpers import noise, transformed

TASK = Compensation(Rotation(), Ranges(((-180, 180),), {4: ((-45, 45),)}))
SHEARED = Compensation(Shear(), Ranges(((-1, 1),), {4: ((-0.25, 0.25),)}))
SIDE, CLASSES = 6, (2, 4)
IMAGES, LABELS = noise(6, SIDE, SIDE, 1, spread=(0, 256)).astype("uint8"), np.array([2, 4] * 3)
PIXELS = IMAGES / 127.5 - 1
# Of pixels interpolated to 3e-5 (see test_warp), whose differences are up to 2.
INTERPOLATED = 2e-5


@pytest.mark.parametrize("task", [TASK, SHEARED], ids=["rotation", "shear"])
def test_models_are_given_transformed_images_and_draw_the_untransformed_ones(task):
    draws = np.arange(6) + 2**33
    inputs, targets = task.prepare(3, CLASSES)(IMAGES, LABELS, draws)
    np.testing.assert_allclose(targets, PIXELS, rtol=0, atol=1e-6)  # float32 of numbers up to one
    parameters = np.asarray(task.transformation.draw(task.ranges, 3, draws, LABELS))
    for given, image, own in zip(inputs, PIXELS, parameters, strict=True):
        expected = transformed(task.transformation, image[..., 0], float(own), -1.0)
        np.testing.assert_allclose(given[..., 0], expected, rtol=0, atol=3e-5)
    # Nothing is told.
    assert task.arguments((SIDE, SIDE, 1), CLASSES) == ((SIDE, SIDE, 1), (SIDE, SIDE, 1), 0)
    shown, _ = task.shown(inputs, targets)
    np.testing.assert_allclose(shown, np.asarray(inputs) / 2 + 0.5, rtol=0, atol=1e-6)


class Copier(keras.Model):
    """Draws what it is given. Its parts must not be used: a code of the untransformed image would be the answer."""

    encoder = decoder = staticmethod(lambda *_, **__: pytest.fail("the model is used in one piece"))

    def call(self, images):
        return images


def test_a_model_that_changes_nothing_errs_by_what_is_given():
    """Compiled as in a run."""
    points = np.array([-120.0, 0.0, 20.0])
    autoencoding, means = Autoencoding(Copier(), TASK, (SIDE, SIDE, 1)), mean_images(IMAGES, LABELS, CLASSES)
    errors = draw_all(autoencoding, IMAGES, LABELS, CLASSES, means, points)
    for row, label in enumerate(CLASSES):
        own = PIXELS[label == LABELS][..., 0]
        for column, point in enumerate(points):
            squares = [((transformed(TASK.transformation, image, point, -1.0) - image) ** 2).mean() for image in own]
            assert errors.errors[row, column] == pytest.approx(np.mean(squares), abs=INTERPOLATED)
        # Whatever is given, black and the mean image are as far from what is expected.
        black, mean = (errors.baselines[name][row] for name in ("all black", "mean image of the digit"))
        np.testing.assert_allclose(black, ((own + 1) ** 2).mean(), rtol=1e-5)
        np.testing.assert_allclose(mean, ((own - own.mean(axis=0)) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(errors.errors, errors.baselines["input copied"], rtol=0, atol=1e-6)
    # Figures show what is given, not what is expected.
    above, drawn = EncodedImages(autoencoding, IMAGES).pairs(points)
    np.testing.assert_allclose(above, drawn, rtol=0, atol=1e-6)
    expected = transformed(TASK.transformation, PIXELS[5, ..., 0], -120.0, -1.0)
    np.testing.assert_allclose(above[0, 5, ..., 0], expected, rtol=0, atol=3e-5)
    assert (TASK.above, TASK.pictures()["pairs.png"]) == ("given", "Given and drawn images")


def test_kind():
    value = json.loads(json.dumps(TASK.to_json()))
    assert value["kind"] == "compensation_by_rotation"
    again = task_from_json(value)
    assert type(again) is Compensation and again == TASK
    assert TASK.title() == "Compensation under rotation: class 4 shown within ±45 degrees only"
    # The same fields make another task.
    assert task_from_json({**value, "kind": "generation_by_rotation"}) == Generation(Rotation(), TASK.ranges)


def test_images_keep_their_size():
    ranges = Ranges(((-3, 4),), {4: ((-1, 2),)})
    assert Compensation(Shift(), ranges).restricted == (4,)
    with pytest.raises(ValueError, match=r"^Argument `transformation` must keep the size.*Shift\(canvas=\(68, 68\)"):
        Compensation(Shift((68, 68)), ranges)
