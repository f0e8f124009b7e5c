"""Protocols of generation: what is asked of the network, what is drawn, the evaluation's grids, JSON, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import generation_rotation, generation_shift, recognition_rotation
from invariance import generation
from invariance.protocol import (
    GenerationByRotation,
    GenerationByShift,
    Recognition,
    protocol_from_json,
)
from invariance.ranges import Ranges
from invariance.transforms import rotate

ROTATION, SHIFT = generation_rotation.PROTOCOL, generation_shift.PROTOCOL
BOTH = pytest.mark.parametrize("protocol", [ROTATION, SHIFT], ids=["rotation", "shift"])

# The first restricted, the second free.
RESTRICTED, FREE = 4, 7


def images(count=3, height=9, width=9, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels)).astype("uint8")


def drawn(protocol, label, count=4000, seed=5):
    """Parameters of many draws for one class."""
    positions = np.arange(count, dtype="int64") + 2**33  # beyond 32 bits, as in long runs
    return np.asarray(protocol.transformation().draw(seed, positions, np.full(count, label)))


# JSON


@pytest.mark.parametrize(
    "protocol",
    [
        ROTATION,
        SHIFT,
        recognition_rotation.PROTOCOL,
        *(entry.protocol for entry in generation_rotation.MODELS.values() if entry.protocol),
        *(entry.protocol for entry in generation_shift.MODELS.values() if entry.protocol),
        GenerationByRotation(Ranges(((-10, 0), (5, 7)), {2: ((1, 1),)}), (0, 3), ((-5, 5),), ((100, 110),)),
        GenerationByShift(Ranges(((-3, 4),)), (1,), ((-1, 1),), ((2, 3),), canvas=(40, 36), scale=3.5),
    ],
)
def test_round_trip(protocol):
    text = json.dumps(protocol.to_json(), allow_nan=False)
    again = protocol_from_json(json.loads(text))
    assert type(again) is type(protocol) and again == protocol
    assert json.dumps(again.to_json()) == text


def test_kinds():
    kinds = [protocol.to_json()["kind"] for protocol in (recognition_rotation.PROTOCOL, ROTATION, SHIFT)]
    assert kinds == ["recognition", "generation_by_rotation", "generation_by_shift"]
    types = [type(protocol_from_json({"kind": kind, "ranges": {"default": [[0, 1]]}})) for kind in kinds]
    assert types == [Recognition, GenerationByRotation, GenerationByShift]


@pytest.mark.parametrize("protocol", [ROTATION, SHIFT, recognition_rotation.PROTOCOL])
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "drawing"},
        {"kind": None},
        {"rotation": 3},
        {"ranges": {"default": [[0, 1]], "other": []}},
        {"ranges": {"default": []}},
        {"inside": [[3, 2]]},
        {"excluded": [4, 3]},  # one of them is restricted
    ],
    ids=lambda change: json.dumps(change),
)
def test_what_describes_no_protocol_is_refused(protocol, change):
    with pytest.raises((KeyError, TypeError, ValueError)):
        protocol_from_json(protocol.to_json() | change)


@pytest.mark.parametrize("field", ["kind", "ranges"])
def test_what_lacks_a_field_is_refused(field):
    value = SHIFT.to_json()
    del value[field]
    with pytest.raises((KeyError, TypeError, ValueError)):
        protocol_from_json(value)


def test_fields_of_the_other_kind_are_refused():
    with pytest.raises(TypeError, match="canvas"):
        protocol_from_json(ROTATION.to_json() | {"canvas": [68, 68]})


# Arguments


@pytest.mark.parametrize(
    "wrong",
    [
        {"canvas": (68,)},
        {"canvas": (68, 68, 1)},
        {"canvas": (0, 68)},
        {"canvas": (68, -1)},
        {"scale": 0.0},
        {"scale": -20.0},
        {"scale": float("nan")},
    ],
)
def test_bad_canvas_or_scale_is_refused(wrong):
    with pytest.raises(
        ValueError, match=r"`canvas` and `scale` must be two positive sides and a positive number\. Received"
    ):
        replace(SHIFT, **wrong)


@BOTH
@pytest.mark.parametrize("name", ["inside", "outside"])
@pytest.mark.parametrize("value", [(), ((1, 0),), ((0, 2), (1, 3)), ((0, float("nan")),), 5])
def test_bad_intervals_are_refused(protocol, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be.*Received"):
        replace(protocol, **{name: value})


def test_shifts_by_parts_of_pixels_are_refused():
    with pytest.raises(ValueError, match="whole pixels"):
        GenerationByShift(Ranges(((-2.5, 3),))).transformation()


@BOTH
def test_classes(protocol):
    assert protocol.restricted == (4, 9)
    assert protocol.classes([9, 4, 4, 0]) == (0, 4, 9)
    assert replace(protocol, excluded=(6, 6, 1)).excluded == (1, 6)
    assert replace(protocol, excluded=(6, 1)).classes(range(10)) == (0, 2, 3, 4, 5, 7, 8, 9)
    with pytest.raises(ValueError, match=r"restricted classes \[9\]"):
        protocol.classes(range(9))
    with pytest.raises(ValueError, match="at least two classes"):
        type(protocol)(Ranges(((-5, 5),)), excluded=(1,)).classes([0, 1])
    with pytest.raises(ValueError, match=r"both excluded and restricted.*\[4\]"):
        replace(protocol, excluded=(3, 4))


def test_arguments_of_the_model():
    assert ROTATION.arguments((28, 28, 1), range(10)) == ((28, 28, 1), (28, 28, 1), 2)
    assert ROTATION.arguments([12, 20, 3], range(10)) == ((12, 20, 3), (12, 20, 3), 2)
    assert SHIFT.arguments((28, 28, 1), range(10)) == ((28, 28, 1), (68, 68, 1), 2)
    assert SHIFT.arguments((28, 28, 3), range(10)) == ((28, 28, 3), (68, 68, 3), 2)


# What is asked of the network


@BOTH
def test_pixels_of_inputs_and_targets(protocol):
    given = images(40, 28, 28)
    given[0], given[1] = 0, 255
    labels, draws = np.arange(40) % 10, np.arange(40, dtype="int64")
    (upright, told), target = protocol.prepare(1, tuple(range(10)))(given, labels, draws)
    np.testing.assert_array_equal(upright[0], -1.0)
    np.testing.assert_array_equal(upright[1], 1.0)
    # Float32 of numbers up to one.
    np.testing.assert_allclose(upright, given / 255.0 * 2 - 1, rtol=0, atol=1e-6)
    side = 28 if protocol is ROTATION else 68
    assert target.shape == (40, side, side, 1) and told.shape == (40, 2)
    # Bilinear weights sum to one but for rounding.
    assert np.min(target) >= -1 - 1e-6 and np.max(target) <= 1 + 1e-6
    # Outside the white image there is black.
    np.testing.assert_array_equal(target[0], -1.0)
    if protocol is SHIFT:
        assert np.sum(target[1] == 1.0) == 28 * 28 and np.sum(target[1] == -1.0) == 68 * 68 - 28 * 28


@pytest.mark.parametrize("shape", [(9, 9), (10, 10), (28, 28), (7, 12)])
@pytest.mark.parametrize("channels", [1, 3])
def test_target_at_angle_nought_is_the_input(shape, channels):
    protocol = GenerationByRotation(Ranges(((0, 0),)))
    (upright, told), target = protocol.prepare(0, (0, 1))(images(2, *shape, channels), [0, 1], np.arange(2))
    np.testing.assert_array_equal(target, upright)
    np.testing.assert_array_equal(told, [[1.0, 0.0]] * 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_target_at_shift_nought_is_the_input_in_the_middle(channels):
    protocol = GenerationByShift(Ranges(((0, 0),)), canvas=(19, 15))
    (upright, told), target = protocol.prepare(0, (0, 1))(images(2, 9, 11, channels), [0, 1], np.arange(2))
    expected = np.full((2, 19, 15, channels), -1.0)
    expected[:, 5:14, 2:13] = upright
    np.testing.assert_array_equal(target, expected)
    np.testing.assert_array_equal(told, np.zeros((2, 2)))


def test_target_is_turned_by_the_angle_that_is_told():
    # 90 degrees counter-clockwise: numpy's rot90. Cosine 0, sine 1.
    protocol = GenerationByRotation(Ranges(((90, 90),)))
    (upright, told), target = protocol.prepare(0, (0, 1))(images(2), [0, 1], np.arange(2))
    np.testing.assert_array_equal(target, np.rot90(upright, axes=(1, 2)))
    np.testing.assert_array_equal(told, [[0.0, 1.0]] * 2)
    # Any angles: those told are those of the target.
    given, labels, draws = images(20), np.arange(20) % 10, np.arange(20, dtype="int64")
    (upright, told), target = ROTATION.prepare(3, tuple(range(10)))(given, labels, draws)
    degrees = np.degrees(np.arctan2(told[:, 1], told[:, 0])).astype("float32")
    # An angle known to 1e-5 degrees moves a pixel 6 from the centre by 1e-6, of differences up to 2.
    np.testing.assert_allclose(target, rotate(upright, degrees, -1.0), rtol=0, atol=1e-4)
    assert len(np.unique(np.round(degrees, 3))) == 20


def test_target_is_shifted_by_what_is_told():
    given, labels, draws = images(20, 28, 28), np.arange(20) % 10, np.arange(20, dtype="int64")
    (upright, told), target = SHIFT.prepare(3, tuple(range(10)))(given, labels, draws)
    for image, (dy, dx), moved in zip(upright, np.rint(20 * np.asarray(told)).astype(int), target, strict=True):
        expected = np.full((68, 68, 1), -1.0)
        expected[20 + dy : 48 + dy, 20 + dx : 48 + dx] = image
        np.testing.assert_array_equal(moved, expected)


@BOTH
def test_what_is_prepared_depends_on_seed_and_position_alone(protocol):
    given, labels, draws = images(8), np.arange(8), np.arange(8, dtype="int64")
    prepare = protocol.prepare(2, tuple(range(10)))
    whole = np.asarray(prepare(given, labels, draws)[0][1])
    parts = [np.asarray(prepare(given[n : n + 1], labels[n : n + 1], draws[n : n + 1])[0][1]) for n in range(8)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for other in (protocol.prepare(3, ())(given, labels, draws), prepare(given, labels, draws + 8)):
        assert not np.isclose(other[0][1], whole).all(axis=-1).any()


# Draws


def test_angles_of_free_and_restricted_classes():
    for label, end in ((FREE, 180), (RESTRICTED, 45), (9, 45)):
        angles = drawn(ROTATION, label)
        assert angles.shape == (4000,)
        assert (angles >= -end).all() and (angles < end).all()
        # Even: in each twentieth of the range 200 of 4000, with a deviation of sqrt(4000 x .05 x .95) = 14; five of
        # these for the largest of 20.
        counts = np.histogram(angles, 20, (-end, end))[0]
        assert np.abs(counts - 200).max() < 70


def test_shifts_of_free_and_restricted_classes():
    for label, low, high in ((FREE, -20, 20), (RESTRICTED, -5, 5), (9, -5, 5)):
        shifts = drawn(SHIFT, label)
        assert shifts.shape == (4000, 2)
        for direction in shifts.T:
            values, counts = np.unique(direction, return_counts=True)
            np.testing.assert_array_equal(values, np.arange(low, high))
            # Binomial: five deviations.
            share = 1 / (high - low)
            assert np.abs(counts - 4000 * share).max() < 5 * np.sqrt(4000 * share * (1 - share))
        # Independent: a correlation of 4000 pairs has a deviation of 1 / sqrt(4000) = .016.
        assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.08


@pytest.mark.parametrize(
    "module, name, label, values",
    [
        (generation_rotation, "ae_rotation_halfplane", RESTRICTED, (-90, 90)),
        (generation_rotation, "ae_rotation_halfplane", FREE, (-90, 90)),
        (generation_rotation, "ae_rotation_single", RESTRICTED, (18, 18)),
        (generation_rotation, "ae_rotation_single", FREE, (-180, 180)),
        (generation_rotation, "ae_rotation_without_6", RESTRICTED, (-45, 45)),
        (generation_shift, "ae_shift_central", RESTRICTED, (-10, 10)),
        (generation_shift, "ae_shift_central", FREE, (-10, 10)),
    ],
)
def test_ranges_of_the_other_models(module, name, label, values):
    protocol = module.MODELS[name].protocol
    low, high = values
    found = drawn(protocol, label, 1000)
    assert low <= found.min() and (found.max() < high or low == high == found.max())
    # 1000 draws come near both ends: missing the last hundredth has a chance of .99^1000 = 4e-5.
    assert found.min() <= low + (high - low) / 100 + 1 and found.max() >= high - (high - low) / 100 - 1
    if name.endswith("single"):
        assert protocol.restricted == (4, 9)
    if name.endswith("without_6"):
        assert protocol.excluded == (6,) and 6 not in protocol.classes(range(10))


def test_encoded_angle_has_a_period_of_360():
    transformation, angles = ROTATION.transformation(), np.linspace(-180, 180, 57, dtype="float32")
    encoded = np.asarray(transformation.encode(angles))
    radians = np.radians(angles.astype("float64"))
    np.testing.assert_allclose(encoded, np.stack([np.cos(radians), np.sin(radians)], -1), rtol=0, atol=1e-6)  # float32
    for turns in (-2, -1, 1, 3):
        # An angle up to 1260 degrees is known to 6e-5 degrees in float32: 1e-6 radians.
        np.testing.assert_allclose(transformation.encode(angles + 360 * turns), encoded, rtol=0, atol=2e-6)
    # Exact at quarter turns, and the same at both ends.
    quarters = np.array([-180, -90, 0, 90, 180], "float32")
    np.testing.assert_array_equal(transformation.encode(quarters), [[-1, 0], [0, -1], [1, 0], [0, 1], [-1, 0]])


def test_encoded_shift():
    shifts = np.array([[20, -20], [5, 0], [-4, 19]], "float32")
    np.testing.assert_allclose(SHIFT.transformation().encode(shifts), shifts / 20, rtol=1e-6)  # float32
    np.testing.assert_allclose(replace(SHIFT, scale=4.0).transformation().encode(shifts), shifts / 4, rtol=1e-6)


# The evaluation's grids


@pytest.mark.parametrize("module", [generation_rotation, generation_shift])
@pytest.mark.parametrize("profile", ["smoke", "quick", "standard"])
def test_grids_of_the_profiles(module, profile):
    protocol = module.PROTOCOL
    for entry in module.MODELS.values():
        grid = (entry.protocol or protocol).grid(entry.budgets[profile].grid_spacing)
        assert not np.isin(grid, protocol.unblurred).any()
        for pairs in (protocol.inside, protocol.outside):
            assert generation.within(grid, pairs, protocol).any()


def test_grid_of_angles_without_quarter_turns():
    # Middles of 40 cells of 9 degrees.
    np.testing.assert_allclose(ROTATION.grid(9), np.arange(-175.5, 180, 9), rtol=0, atol=1e-9)
    for spacing in (1.8, 5, 6, 18, 30, 45, 90):
        grid = ROTATION.grid(spacing)
        assert len(grid) == 360 / spacing
        assert not np.isin(grid, [-180, -90, 0, 90, 180]).any()
        np.testing.assert_allclose(np.diff(grid), spacing, rtol=0, atol=1e-9)
        np.testing.assert_allclose(grid, -grid[::-1], rtol=0, atol=1e-9)  # alike to both sides


def test_quarter_turns_that_a_grid_meets_are_exact():
    # A number of cells that is odd or twice an odd number has some in the middle of a cell; they must be known as such.
    met = set()
    for count in range(2, 721):
        if 360_000 % count:
            continue  # a spacing that nobody types: more than three decimals
        grid = ROTATION.grid(float(f"{360 / count:.3f}"))
        assert len(grid) == count
        near = np.abs(grid[:, None] - ROTATION.unblurred).min(axis=1) < 1e-6
        met |= set(grid[near].tolist())
        np.testing.assert_array_equal(near, np.isin(grid, ROTATION.unblurred), err_msg=str(count))
    assert met == {-90.0, 0.0, 90.0}


def test_full_grid_of_angles_is_the_published_one():
    grid = ROTATION.grid(None)
    assert len(grid) == 200 and grid[0] == -180.0 and grid[1] == -178.2 and grid[-1] == 178.2
    # Decimal tenths, so that 45 is 45: it belongs to the inner range.
    assert grid.tolist() == [tenths / 10 for tenths in range(-1800, 1800, 18)]
    assert {-45.0, 45.0, -90.0, 0.0, 90.0} <= set(grid.tolist())
    np.testing.assert_allclose(np.diff(grid), 1.8, rtol=0, atol=1e-9)


@pytest.mark.parametrize("spacing", [None, 2])
@pytest.mark.parametrize("name", generation_shift.MODELS)
def test_grid_of_shifts_is_the_published_one(spacing, name):
    protocol = generation_shift.MODELS[name].protocol or SHIFT
    np.testing.assert_array_equal(protocol.grid(spacing), np.arange(-20, 19, 2))


def test_other_grids_of_shifts():
    np.testing.assert_array_equal(SHIFT.grid(4), np.arange(-20, 20, 4))
    np.testing.assert_array_equal(SHIFT.grid(1), np.arange(-20, 20))
    # The widest of the ranges.
    near = GenerationByShift(Ranges(((-3, 4),)), inside=((-2, 2),), outside=((-8, -5), (5, 6)))
    np.testing.assert_array_equal(near.grid(1), np.arange(-8, 6))


def test_parameters_of_the_grids_points():
    np.testing.assert_array_equal(ROTATION.parameters(np.array([1.0, 2.0])), [1.0, 2.0])
    np.testing.assert_array_equal(SHIFT.parameters(np.array([-2, 3])), [[-2, -2], [3, 3]])


def test_points_of_the_evaluation():
    # The grid and the four angles at which nothing is blurred, ascending, none twice.
    np.testing.assert_array_equal(generation.evaluation_points(ROTATION, 90), [-180, -135, -90, -45, 0, 45, 90, 135])
    np.testing.assert_array_equal(generation.evaluation_points(ROTATION, None), ROTATION.grid(None))
    np.testing.assert_array_equal(generation.evaluation_points(SHIFT, 2), SHIFT.grid(2))
