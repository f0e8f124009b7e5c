"""Orbit pooling: scores of moved copies by hand, what it gains, and what is measured of it."""

from dataclasses import replace

import numpy as np
import pytest

from invariance.datasets import Data
from invariance.errors import UserError
from invariance.ranges import Ranges
from invariance.tasks import Generation, Recognition, classify
from invariance.tasks.metrics import METRICS, wilson
from invariance.tasks.orbit_classifier import OrbitClassifier
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Scaling, Shift
from tests.helpers import noise, transformed
from tests.tasks.test_classify import CLASSES, DATA, IMAGES, LABELS, SIDE, TASK, UPRIGHT, reads_the_centre


@pytest.mark.parametrize(
    ("kind", "shown", "copies", "given"),
    [
        (Rotation(), ((0, 360),), [0, 90, 180, 270], [33, -120, 0]),
        (Shift((11, 12)), ((-4, 4),), [(-2, -2), (-2, 2), (2, -2), (2, 2)], [(1, -3), (0, 0), (-2, 2)]),
    ],
    ids=["rotation", "shift"],
)
@pytest.mark.parametrize("pixels", [(0.0, 1.0), (-1.0, 1.0)])
def test_scores_are_pooled_over_copies_of_the_transformed_image(kind, shown, copies, given, pixels):
    """A random classifier, on noise; the copies are transformations of transformations, both by scipy."""
    images, (low, high) = noise(3, 9, 10, 1, spread=(0, 256)).astype("uint8"), pixels
    weights = noise(np.prod(kind.output_shape((9, 10, 1))), 4)
    pooled = OrbitClassifier(
        lambda seen: np.exp(seen.reshape(len(seen), -1) @ weights / 4),
        Recognition(kind, Ranges(shown)),
        (9, 10, 1),
        4,
        len(copies),
        pixels,
    )
    assert pooled.orbit.tolist() == [list(each) if isinstance(each, tuple) else each for each in copies]
    answers, errors = pooled.answers(pooled.batches(images), np.array(given, "float32"))
    assert errors is None
    for image, parameter, found in zip(images[..., 0] / 255, given, answers, strict=True):
        once = transformed(kind, image, parameter)
        twice = np.stack([transformed(kind, once, each) for each in copies]) * (high - low) + low
        scores = np.exp(twice.reshape(len(copies), -1) @ weights / 4)
        for own, expected in zip(found, (scores.max(axis=0), scores.mean(axis=0)), strict=True):
            # Pixels are interpolated to 3e-5 twice; in a sum over some hundred that is at most .4 %.
            best = np.sort(expected)[-2:]
            assert best[1] > 1.004 * best[0]
            assert own == expected.argmax()


def upright_only(images):
    """Right where the mark stands within 20 degrees of upright; elsewhere less sure of the next class."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    pixels = images[..., 0].copy()
    labels = np.rint(pixels[:, SIDE // 2, SIDE // 2] * 5).astype(int) - 1
    angles = np.degrees(np.arctan2((-pixels * columns).sum((1, 2)), (-pixels * rows).sum((1, 2))))
    right = np.abs(angles) < 20
    return np.eye(4)[np.where(right, labels, (labels + 1) % 4)] * np.where(right, 1.5, 1.0)[:, None]


def test_the_surest_copy_counts_and_the_mean_does_not():
    """Of 16 copies one or two are upright; they win by their score, and lose against the many in the mean."""
    found = TASK.measure_orbit(upright_only, DATA, CLASSES, Evaluation(15, orbit=16, seed=3))
    assert (found["copies"], found["told"], found["seed"]) == (16, "K3: the transformation, at test time", 3)
    # All images; those of 3 and 4; those of 1 and 8.
    assert found["images"] == {"p_test": 100, "p_in": 50, "p_out": 50, "p_inv": 50, "false_alarms": 50}
    for name, accuracy in (("max", 1.0), ("mean", 0.0)):
        pooled = found["pooled"][name]
        assert [pooled[key] for key in ("p_test", "p_in", "p_out", "p_inv")] == [accuracy] * 4
        assert pooled["interval"] == {key: list(wilson(pooled[key], found["images"][key])) for key in METRICS}
    # The mean takes every 1 for a 3 and no 8 for a 4.
    assert found["pooled"]["max"]["false_alarms"] == 0
    assert found["pooled"]["mean"]["false_alarms"] == np.mean(LABELS[np.isin(LABELS, (1, 8))] == 1)
    alone = TASK.measure(upright_only, DATA, CLASSES, Evaluation(15)).metrics
    assert alone["p_inv"] == 0 and alone["p_in"] < 0.5


@pytest.mark.parametrize("task", [TASK, replace(TASK, inverted=())], ids=["all", "no P_inv"])
def test_parameters_are_those_of_one_redraw(task):
    """With a single copy, which is not moved, both poolings are the plain classifier."""
    evaluation = Evaluation(15, redraws=1, orbit=1, seed=5)
    found = task.measure_orbit(upright_only, DATA, CLASSES, evaluation)
    given = classify.Classifier(upright_only, task, (SIDE, SIDE, 1), 4)
    drawn = classify.redraws(given, IMAGES, LABELS, CLASSES, evaluation)
    for pooled in found["pooled"].values():
        for key in METRICS:
            assert pooled[key] == (drawn[key] and drawn[key]["mean"])
    assert 0 < drawn["p_test"]["mean"] < 1


def test_keras_models_and_some_images_of_each_class():
    """Compiled, and perfect whatever the angle."""
    found = TASK.measure_orbit(reads_the_centre(), DATA, CLASSES, Evaluation(15, images_per_class=3, orbit=4))
    assert found["images"]["p_test"] == 12 and found["pooled"]["mean"]["p_test"] == 1.0


def test_scores_that_are_not_finite_are_refused():
    """In one copy of one image. With 3 in the first class's place, where it stands upright."""

    def model(images):
        return np.where(images[:, :1, SIDE // 2, 0] > 0.5, np.nan, np.eye(4)[[0] * len(images)])

    images = np.zeros((5, SIDE, SIDE, 1), "uint8")
    images[2, SIDE // 2, 0] = 255
    pooled = OrbitClassifier(model, TASK, (SIDE, SIDE, 1), 4, 4)
    with pytest.raises(UserError, match="scores for 1 images are not finite"):
        pooled.answers(pooled.batches(images), np.zeros(5, "float32"))


def test_where_there_is_nothing_to_pool():
    assert UPRIGHT.orbit(16) is None
    assert Generation(Rotation(), Ranges(((0, 360),), {4: ((-45, 45),)})).orbit(16) is None
    with pytest.raises(UserError, match="needs a range of parameters"):
        UPRIGHT.measure_orbit(upright_only, Data("none", IMAGES, LABELS, IMAGES, LABELS, ""), CLASSES, Evaluation(15))


@pytest.mark.parametrize(
    ("kind", "pairs", "count", "expected"),
    [
        (Rotation(), ((0, 360),), 5, [0, 72, 144, 216, 288]),
        (Rotation(), ((-45, 45),), 3, [-30, 0, 30]),
        (Rotation(), ((0, 30), (180, 210)), 2, [15, 195]),
        (Scaling(), ((0.25, 4),), 2, [0.5, 2]),
        # Halves are rounded down; a square of whole numbers, of 9 or 10 copies.
        (Shift(), ((-6, 6),), 10, [(dy, dx) for dy in (-4, 0, 4) for dx in (-4, 0, 4)]),
        (Shift(), ((-6, 6),), 16, [(dy, dx) for dy in (-5, -2, 1, 4) for dx in (-5, -2, 1, 4)]),
    ],
)
def test_orbits(kind, pairs, count, expected):
    np.testing.assert_allclose(kind.orbit(count, pairs), expected, rtol=1e-12)
