"""Flows that are asked how far images were moved: known fields know it, whatever their unit and sign; others do not."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.recognition_rotation import TASK
from invariance import figures
from invariance.datasets import Data
from invariance.layers.flow import Flow
from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.transfer import answers
from invariance.transfer.flow_from_pairs import LearnedFlow
from invariance.transfer.generator_from_pairs import GeneratorFromPairs
from invariance.transfer.movements import Movements
from invariance.transforms import Scaling, Shift
from tests.layers.test_flow import SIDE, flow_of, images, rotation

SHIFTED = Recognition(Shift((36, 36)), Ranges(((-4, 5),), {3: ((-1, 2),)}))
SCALED = Recognition(Scaling(), Ranges(((0.7, 1.4),), {3: ((0.9, 1.1),)}))


def data(count=24):
    """Smooth blots; every other one is of a restricted class."""
    x = np.round(images(count) * 255 / 2).clip(0, 255).astype("uint8")
    y = np.resize([2, 3], count).astype("int32")
    return Data("blots", x, y, x, y, "made")


def turning(period):
    """Rotation, with a field that takes a time of |period| for a turn; backwards if it is negative."""
    flow = rotation()
    flow.coefficients.assign(flow.coefficients * (2 * np.pi / period))
    return flow


def ask(flow, period, task, given):
    return answers.ask(LearnedFlow(flow, task, Movements(flow.fields, period, np.eye(flow.fields)), {}), given, 0)


@pytest.mark.parametrize("period", [70.0, -80.0])
def test_a_rotation_knows_all_angles(period):
    found = ask(turning(period), abs(period), TASK, data())
    metrics = found.metrics()
    assert metrics["within"] == 5.0 and "360 degrees" in metrics["unit"]
    for group in ("free", "restricted"):
        # Blots of 28 pixels, interpolated differently, are aligned to a small part of a pixel, at radii up to 8.
        assert metrics[group]["images"] == 12 and metrics[group]["median_error"] < 0.3
        assert metrics[group]["share_within"] == 1.0 and metrics[group]["share_opposite"] == 0.0
        # Half a turn of whole pixels, but for the integration's interpolation; two blots apart would be 1 to 2.
        assert metrics[group]["half_period_error"] < 0.01
    # Over the whole range, restricted classes too.
    assert np.abs(found.true[found.restricted]).max() > 135
    assert found.restricted.sum() == 12


def test_other_fields_do_not_know_them():
    random = Flow(1, 3, 0)
    random.build([(None, SIDE, SIDE, 1), (None, 1)])
    for flow, period in ((random, 70.0), (flow_of([(0, 0, 1, 1.0)]), None)):
        metrics = ask(flow, period, TASK, data(40)).metrics()
        for group in ("free", "restricted"):
            # By chance 10 of 360 degrees, and a median of 90; of 20 images at most 4 (probability .002 of more).
            assert metrics[group]["median_error"] > 30 and metrics[group]["share_within"] <= 0.2


def test_answers_of_symmetric_images_are_counted():
    """Images that look the same after half a turn: the other half's answer is as good."""
    given = data()
    symmetric = np.maximum(given.x_test, given.x_test[:, ::-1, ::-1])
    metrics = ask(turning(70.0), 70.0, TASK, replace(given, x_test=symmetric)).metrics()
    for group in ("free", "restricted"):
        within, opposite = metrics[group]["share_within"], metrics[group]["share_opposite"]
        assert within + opposite == 1.0 and 0 < opposite < 1


def test_two_fields_that_mix_the_shifts():
    flow = flow_of([(0, 0, 0, 0.8), (1, 0, 0, 0.6)], [(0, 0, 0, 0.3), (1, 0, 0, -0.9)], side=36)
    found = ask(flow, None, SHIFTED, data())
    metrics = found.metrics()
    assert metrics["within"] == 2.0 and found.true.shape == (24, 2)
    for group in ("free", "restricted"):
        # Whole pixels are found exactly, up to the iteration's end.
        assert metrics[group]["median_error"] < 0.01 and metrics[group]["share_within"] == 1.0
        assert "share_opposite" not in metrics[group]


def test_factors_are_answered_on_their_logarithmic_scale():
    flow = flow_of([(0, 1, 0, -SIDE / 2), (1, 0, 1, -SIDE / 2)])
    flow.coefficients.assign(flow.coefficients / 10)
    metrics = ask(flow, None, SCALED, data()).metrics()
    assert metrics["within"] == pytest.approx(2**0.1) and "least squares" in metrics["unit"]
    for group in ("free", "restricted"):
        # A factor of 1 is no error.
        assert 1 <= metrics[group]["median_error"] < 1.005 and metrics[group]["share_within"] == 1.0


def test_without_free_classes():
    every = replace(TASK, ranges=Ranges(((0, 360),), {2: ((-45, 45),), 3: ((-45, 45),)}))
    metrics = ask(turning(70.0), 70.0, every, data(8)).metrics()
    assert "free" not in metrics and metrics["restricted"]["images"] == 8
    assert metrics["restricted"]["median_error"] < 0.3


def test_learned_flows_are_measured_and_drawn():
    flow = flow_of([(0, 0, 0, 1.0)], [(1, 0, 0, 1.0)], side=36)
    learned = LearnedFlow(flow, SHIFTED, Movements(2, None, np.eye(2)), {})
    assert [each.name for each in learned.figures("title")] == ["field.png"]
    assert learned.measure(data(8), 0)["answers"]["restricted"]["share_within"] == 1.0
    pictures = list(learned.figures("title"))
    assert [each.name for each in pictures] == ["field.png", "answers.png", "moved.png"]
    # A panel for each parameter; for each class, a panel for each time.
    assert len(pictures[1].figure.axes) == 2 and len(pictures[2].figure.axes) == 2 * 13
    assert {each.name for each in pictures} <= set(SHIFTED.pictures())
    # Of the first field, a shift by pixels: the image in the middle stays, the others go up and down.
    times, images = learned.moved
    rows = (images.sum((3, 4)) * np.arange(36)).sum(2) / images.sum((2, 3, 4))
    assert np.all(np.abs(np.abs(np.diff(rows, axis=1)) - np.diff(times)) < 0.05)
    figures.plt.close("all")


def test_a_learnt_generator_is_asked_as_a_flow_is():
    taught = data(400)
    try:
        next(GeneratorFromPairs(components=40, batches=8, batch_size=512).learn(TASK, taught, 0))
    except StopIteration as stopped:
        learned = stopped.value
    metrics = learned.measure(data(), 0)["answers"]
    for group in ("free", "restricted"):
        # 40 components are almost all of blots (.9997 of their squares), and the movement is linear in pixels but for
        # interpolation.
        assert metrics[group]["median_error"] < 0.5 and metrics[group]["half_period_error"] < 1e-3
    assert [each.name for each in learned.figures("title")] == ["answers.png", "moved.png"]
    figures.plt.close("all")
