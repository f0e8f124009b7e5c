"""Budgets and entries: learning rates, departures from the original, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.recognition_rotation import MODELS, PAPER, PROTOCOL
from invariance.models.cnn import CNN
from invariance.protocol import Budget, Entry, Recognition, describe_model
from invariance.ranges import Ranges

BUDGET = Budget(steps=100, batch_size=8, steps_per_epoch=10, learning_rate=0.4)


def rates(budget, steps):
    schedule = budget.schedule()
    return [float(schedule(np.int64(step))) for step in steps]


def test_constant_rate():
    assert BUDGET.schedule() == 0.4


def test_staircase():
    budget = replace(BUDGET, decay_rate=0.5, decay_steps=30)
    # float32 rounding.
    np.testing.assert_allclose(rates(budget, [0, 29, 30, 60]), [0.4, 0.4, 0.2, 0.1], rtol=1e-6)


def test_warm_up_and_cosine():
    budget = replace(BUDGET, warmup_steps=20)
    # Linear to step 20, half of it at 10; a cosine over the other 80, half of it at 60; zero at the end.
    np.testing.assert_allclose(rates(budget, [0, 10, 20, 60, 100]), [0, 0.2, 0.4, 0.2, 0], atol=1e-7)


def test_the_original_budget():
    # 300 epochs of 376 batches of 128; 1e-4 times .9 every 10,000 steps.
    assert (PAPER.steps, PAPER.batch_size) == (112_800, 128)
    np.testing.assert_allclose(rates(PAPER, [0, 9_999, 10_000, 112_799]), [1e-4, 1e-4, 9e-5, 1e-4 * 0.9**11], rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 1e4},
        {"batch_size": 64.0},
        {"images_per_class": 0},
        {"images_per_class": -1},
        {"learning_rate": None},
        {"decay_rate": None},
        {"decay_rate": -3},
        {"decay_rate": 0},
        {"batch_size": -1},
        {"steps_per_epoch": 0},
        {"decay_steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"grid_spacing": 0},
        {"grid_spacing": float("inf")},
        {"warmup_steps": 100},
        {"warmup_steps": -1},
    ],
)
def test_bad_budget_is_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .*Received"):
        replace(BUDGET, **wrong)


def test_departures_name_each_setting_that_differs():
    model = MODELS["cnn_bn_00"].model
    entry = Entry(
        model,
        {"paper": PAPER, "quick": replace(PAPER, steps=1000, grid_spacing=15)},
        {"quick": replace(model, moving_average_decay=0.9)},
    )
    assert entry.departures("paper") == []
    # The grid is how it is measured, not how it is trained.
    assert entry.departures("quick") == [
        "steps 1,000 (original 112,800)",
        "moving_average_decay 0.9 (original 0.999)",
    ]
    assert Entry(model, {"quick": BUDGET}).departures("quick") == []


@pytest.mark.parametrize("name", MODELS)
def test_paper_profile_is_the_original(name):
    entry = MODELS[name]
    assert set(entry.budgets) == {"smoke", "quick", "standard", "paper"}
    if isinstance(entry.model, CNN):
        assert entry.budgets["paper"] == PAPER
    assert entry.model_for("paper") is entry.model
    assert entry.departures("paper") == []


@pytest.mark.parametrize("protocol", [PROTOCOL, replace(PROTOCOL, max_shift=2)])
def test_recognition_round_trip(protocol):
    assert Recognition.from_json(protocol.to_json()) == protocol


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2", None])
def test_bad_shift_is_refused(wrong):
    with pytest.raises(ValueError, match="`max_shift` must be a whole number of pixels, at least 0"):
        replace(PROTOCOL, max_shift=wrong)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_training_images_are_moved_by_every_shift_up_to_the_largest(most):
    protocol = Recognition(Ranges(((0, 0),)), max_shift=most)
    given = np.zeros((500, 9, 7, 1), "uint8")
    given[:, 4, 3] = 255
    labels, draws = np.arange(500) % 10, np.arange(500)
    inputs, targets = protocol.prepare(5, tuple(range(10)))(given, labels, draws)
    inputs = np.asarray(inputs)
    assert inputs.shape == given.shape and inputs.dtype == np.float32
    np.testing.assert_array_equal(targets, labels)
    # The one white pixel is where it was or has moved by whole pixels; 500 draws of 25 pairs miss none of them.
    where = np.argwhere(inputs == 1.0)
    assert len(where) == 500 and inputs.sum() == 500
    steps = range(-most, most + 1)
    assert {tuple(at) for at in where[:, 1:3] - (4, 3)} == {(dy, dx) for dy in steps for dx in steps}
    counts = np.unique(where[:, 1:3], axis=0, return_counts=True)[1]
    mean = 500 / len(counts)
    assert counts.min() > mean - 5 * mean**0.5 and counts.max() < mean + 5 * mean**0.5


def test_shifts_depend_on_seed_and_draw_alone():
    protocol = replace(PROTOCOL, max_shift=2)
    given = np.random.default_rng(0).integers(0, 255, (8, 12, 12, 1), "uint8")
    labels, draws = np.array([0, 1, 2, 3, 4, 5, 7, 8]), np.arange(100, 108)
    prepare = protocol.prepare(2, PROTOCOL.classes(range(10)))
    whole = np.asarray(prepare(given, labels, draws)[0])
    parts = [np.asarray(prepare(given[n : n + 1], labels[n : n + 1], draws[n : n + 1])[0]) for n in range(8)]
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-6)  # float32 interpolation
    for other in (
        protocol.prepare(3, PROTOCOL.classes(range(10)))(given, labels, draws),
        prepare(given, labels, draws + 8),
    ):
        assert not np.allclose(whole, np.asarray(other[0]))
    # The angles are those without shifts: the turned images are the same, moved.
    unmoved = np.asarray(PROTOCOL.prepare(2, PROTOCOL.classes(range(10)))(given, labels, draws)[0])
    rolled = [[np.roll(image, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)] for image in unmoved]
    inner = (slice(2, -2), slice(2, -2))
    for image, candidates in zip(whole, rolled, strict=True):
        assert sum(np.allclose(image[inner], one[inner], atol=1e-5) for one in candidates) == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 4, 6], r"restricted classes \[3\]"), ([3, 4, 6, 9], None), ([], "restricted classes")],
)
def test_classes(labels, message):
    if message is None:
        assert PROTOCOL.classes(labels) == (3, 4)
    else:
        with pytest.raises(ValueError, match=message):
            PROTOCOL.classes(labels)


def test_class_cannot_be_excluded_and_restricted():
    with pytest.raises(ValueError, match="both excluded and restricted"):
        Recognition(Ranges(((0, 360),), {3: ((0, 1),)}), excluded=(3,))


@pytest.mark.parametrize(
    "shown, changes, message",
    [
        (((-20, 20), (160, 200)), {}, r"`outside`.*class 3.*40 degrees in common"),
        (((-20, 20), (160, 200)), {"outside": ((20, 160),)}, r"`inverted`.*40 degrees in common"),
        (((-50, 45),), {}, r"`outside`.*5 degrees in common"),
        (((170, 170),), {}, None),
        (((315, 405),), {}, None),
        (((-20, 20), (160, 200)), {"outside": ((20, 160), (200, 340)), "inverted": ((70, 110),)}, None),
    ],
)
def test_what_was_shown_is_not_measured_as_unseen(shown, changes, message):
    ranges = Ranges(((0, 360),), {3: shown})
    if message is None:
        assert Recognition(ranges, **changes).restricted == (3,)
    else:
        with pytest.raises(ValueError, match=message):
            Recognition(ranges, **changes)


def test_too_few_classes():
    with pytest.raises(ValueError, match="at least two classes"):
        Recognition(Ranges(((0, 360),)), excluded=(1,)).classes([0, 1])


def test_model_is_described_by_its_fields():
    described = describe_model(MODELS["cnn_00"].model)
    assert described["builder"] == "CNN" and described["double_softmax"] is True and described["activate_last"] is True

    def own(shape, classes, learning_rate):
        """Nothing."""

    described = describe_model(own)
    assert described["builder"].endswith("own")

    def own(shape, classes, learning_rate):
        """Something else."""

    # An edited function is another model: its runs are not gone on with.
    changed = describe_model(own)
    assert changed["builder"] == described["builder"] and changed["source_sha256"] != described["source_sha256"]
    assert describe_model(eval("lambda *_: None"))["builder"] == "<lambda>"
