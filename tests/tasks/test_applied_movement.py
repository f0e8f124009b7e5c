"""How a network itself moves images: slope and circular correlation, and the parts of models that are asked."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from invariance import figures
from invariance.tasks.applied_movement import circular_correlation, slope
from invariance.tasks.task import Evaluation
from tests.helpers import noise
from tests.tasks.test_classify import CLASSES, DATA, SCALED, SIDE, TASK, centre, reads_the_centre

POINTS = np.deg2rad(np.arange(-177.5, 180, 5))


class Turning(layers.Layer):
    """Says that it turns images back by a share of the angle at which the mark stands."""

    def __init__(self, share, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def applied_movement(self, images):
        rows, columns = (values.reshape(-1).astype("float32") for values in np.mgrid[:SIDE, :SIDE] - SIDE // 2)
        pixels = ops.reshape(images[..., 0], (-1, SIDE * SIDE))
        angles = ops.arctan2(ops.sum(-pixels * columns, axis=-1), ops.sum(-pixels * rows, axis=-1)) * (180 / np.pi)
        # Each class from an angle of its own, found in the centre.
        own = 100 * pixels[:, SIDE * SIDE // 2]
        return {"angle": own - self.share * angles, "brightness": pixels[:, SIDE * SIDE // 2]}

    def call(self, images):
        return images


@pytest.mark.parametrize("turned", [-1.0, -0.5, 0.0, 0.35, 1.0])
def test_slope(turned):
    """With an intercept for each image, noise of 20 degrees, and whole turns added."""
    rng = np.random.default_rng(0)
    angles = turned * POINTS[:, None] + rng.uniform(-np.pi, np.pi, 40) + 0.35 * noise(72, 40)
    turns = 2 * np.pi * rng.integers(-1, 2, angles.shape)
    # 2,880 angles over a range of 2 pi: a standard error of .35 / (1.8 sqrt(2880)), .004, on a grid of .005.
    assert slope(POINTS, angles + turns) == pytest.approx(turned, abs=0.015)


def test_circular_correlation():
    """By its definition, over all pairs; 1 and -1 for rotations and reflections of the circle."""
    angles = noise(72, 3) + 0.7 * POINTS[:, None]
    found = circular_correlation(POINTS, angles)
    first = np.sin(POINTS[:, None] - POINTS)
    for own, one in zip(angles.T, found, strict=True):
        second = np.sin(own[:, None] - own)
        expected = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
        assert one == pytest.approx(expected, abs=1e-9)  # float64 sums of 5,184 products
        assert abs(one) > 0.05
    for sign in (1, -1):
        np.testing.assert_allclose(circular_correlation(POINTS, sign * POINTS[:, None] + 2), sign, atol=1e-12)
    np.testing.assert_array_equal(circular_correlation(POINTS, np.full((72, 2), 0.3)), 0.0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_layers_are_asked_what_they_do(share, mirrored):
    """To what they see: mirrored images are turned the other way."""
    first = [layers.Lambda(lambda images: images[:, :, ::-1])] * mirrored
    model, share = reads_the_centre(*first, Turning(share)), -share if mirrored else share
    measured = TASK.measure(model, DATA, CLASSES, Evaluation(15))
    found = measured.metrics["applied_movement"]
    assert {group: values["images"] for group, values in found.items()} == {"free": 50, "restricted": 50}
    for values in found.values():
        # Angles of the mark are read to half a degree.
        assert values["undone"] == pytest.approx(share, abs=0.01)
        if abs(share) in (0.0, 1.0):
            assert values["correlation"] == pytest.approx(-share, abs=0.01)
    assert [line for line in measured.lines() if line.startswith(("free", "restricted"))] == [
        f"{group} classes: the network itself undoes {values['undone']:.2f} of the movement "
        f"(correlation {values['correlation']:.2f}, 50 images)"
        for group, values in found.items()
    ]
    # 3 and 4 are at 40 and 60 degrees when upright, in equal parts at 20 of each and 30: 30 of 50 at 60.
    rows = measured.tables["learnt_angles.csv"]
    assert [(row["classes"], row["parameter"]) for row in rows] == [
        (group, point) for group in ("free", "restricted") for point in TASK.points(15)
    ]
    for row in rows:
        if row["classes"] == "restricted":
            mean = np.exp(1j * np.deg2rad([40] * 20 + [60] * 30)).mean()
            expected = np.degrees(np.angle(mean)) - share * row["parameter"]
            assert (row["angle"] - expected + 180) % 360 - 180 == pytest.approx(0, abs=0.6)
            assert row["concentration"] == pytest.approx(abs(mean), abs=0.001)
            assert row["brightness"] == pytest.approx((20 * 0.4 + 30 * 0.6) / 50, abs=1e-5)
    if share == 0.4:
        names = {picture.name: picture for picture in measured.figures("title")}
        assert "learnt_angles.png" in set(names) & set(TASK.pictures())
        # A panel for each number.
        assert len(names["learnt_angles.png"].figure.axes) == 2
        for picture in names.values():
            figures.plt.close(picture.figure)


def test_models_themselves_are_asked_and_most_are_not():
    class Whole(keras.Sequential):
        def applied_movement(self, images):
            return {"angle": 0.0 * images[:, 0, 0, 0] + 30.0}

    model = Whole([keras.Input((SIDE, SIDE, 1)), *centre()])
    found = TASK.measure(model, DATA, CLASSES, Evaluation(45)).metrics["applied_movement"]
    assert found["restricted"] == {"images": 50, "undone": 0.0, "correlation": 0.0}
    measured = TASK.measure(reads_the_centre(), DATA, CLASSES, Evaluation(45))
    assert "applied_movement" not in measured.metrics and "learnt_angles.csv" not in measured.tables


def test_an_angle_is_not_compared_with_a_factor():
    measured = SCALED.measure(reads_the_centre(Turning(0.0)), DATA, CLASSES, Evaluation(0.5))
    assert measured.metrics["applied_movement"] == {}
    assert set(measured.tables["learnt_factors.csv"][0]) == {"classes", "parameter", "angle", "brightness"}
    figure = figures.applied_movement(measured.applied, "title")
    assert len(figure.axes) == 2
    figures.plt.close(figure)
