"""Errors of drawn images: a perfect, a useless and a copying model; baselines by loops; averages, batches, refusals."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from invariance.errors import UserError
from invariance.ranges import Ranges
from invariance.tasks import Generation, batches
from invariance.tasks import draw as drawing
from invariance.tasks.batches import over_both
from invariance.tasks.draw import Autoencoding, EncodedImages, Errors, draw_all, draw_codes, mean_images, ratios
from invariance.transforms import Rotation, Shift

CLASSES, SIDE, CANVAS = (2, 4, 9), 6, 12
MEASURED = {"inside": ((-45, 45),), "outside": ((-180, -47), (47, 180))}
ROTATION = Generation(Rotation(), Ranges(((-180, 180),), {4: ((-45, 45),)}), **MEASURED)
SHIFT = Generation(
    Shift((CANVAS, CANVAS), 3.0), Ranges(((-3, 4),), {4: ((-1, 2),)}), (), ((-1, 1),), ((-3, -2), (2, 3))
)
CENTRAL = Generation(Shift((68, 68)), Ranges(((-20, 20),), {4: ((-5, 5),)}), (), ((-5, 5),), ((-20, -8), (8, 20)))
# Angles inside, outside and neither; the four that are not blurred.
ANGLES = np.array([-180, -120, -90, -46, -30, 0, 20, 45, 90, 150.5])
FEW = np.array([-120, 0, 20])
SHIFTS = np.arange(-3, 4)

# Float32 means of 36 or 144 squares of numbers up to 2, by two ways.
ROUNDING = 1e-6
# Of a deviation: the root of a difference of squares of such numbers, .5^2 known to 6e-8.
DEVIATION = 2e-4


@pytest.fixture
def eager():
    """Nothing is compiled: for what takes longer to compile than to compute."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of 2, 4, 6 or 8."""
    monkeypatch.setattr(drawing, "BATCH", 8)
    monkeypatch.setattr(batches, "_ROUND", 2)


def data(count=11, seed=0):
    """Images and labels: 4, 4 and 3 of the classes, in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 1)).astype("uint8")
    return images, np.array([CLASSES[n % 3] for n in range(count)])


def pixels(images):
    return images.astype("float64") / 127.5 - 1


class Model(keras.Model):
    """In one piece: a function of upright images and of what is told."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(*inputs)


def perfect(protocol):
    """Knows the transformation, and reads its parameters from what it is told."""
    transformation = protocol.transformation
    if protocol is SHIFT:
        return Model(lambda images, told: transformation.apply(images, ops.round(3.0 * told), -1.0))
    degrees = 180.0 / np.pi
    return Model(lambda images, told: transformation.apply(images, degrees * ops.arctan2(told[:, 1], told[:, 0]), -1.0))


def useless(protocol):
    """Draws nothing but black."""
    shape = protocol.transformation.output_shape((SIDE, SIDE, 1))
    return Model(lambda images, told: -ops.ones((ops.shape(images)[0], *shape)))


def copier(protocol):
    """Draws what it sees, in the middle of the canvas."""
    border = [(0, 0), (3, 3), (3, 3), (0, 0)] if protocol is SHIFT else [(0, 0)] * 4
    return Model(lambda images, told: ops.pad(images, border, constant_values=-1.0))


def autoencoding(model, protocol):
    return Autoencoding(model, protocol, (SIDE, SIDE, 1))


def measured(model, protocol, points=None, given=None):
    images, labels = given or data()
    points = (ANGLES if protocol is ROTATION else SHIFTS) if points is None else points
    return draw_all(
        autoencoding(model, protocol), images, labels, CLASSES, mean_images(images, labels, CLASSES), points
    )


BOTH = pytest.mark.parametrize("protocol", [ROTATION, SHIFT], ids=["rotation", "shift"])


# Models whose errors are known


@BOTH
def test_perfect_model(protocol):
    """Compiled as in a run."""
    errors = measured(perfect(protocol), protocol)
    assert errors.classes == CLASSES and errors.images.tolist() == [4, 4, 3]
    points = ANGLES if protocol is ROTATION else SHIFTS
    np.testing.assert_array_equal(errors.points, points)
    assert errors.errors.shape == errors.deviations.shape == (3, len(points))
    # An arc tangent in float32 knows an angle to 1e-5 degrees, which moves pixels by 1e-6.
    assert errors.errors.max() < 1e-9 and errors.deviations.max() < 1e-9
    # What is easy for it is not so for the others, but where the input is the target.
    for name, values in errors.baselines.items():
        away = points != 0 if name == "input copied" else slice(None)
        assert values[:, away].min() > 0.05, name
    means = ratios(errors, protocol)
    assert max(means["mse_in"].values()) < 1e-9 and max(means["mse_out"].values()) < 1e-9


@BOTH
@pytest.mark.parametrize("build, baseline", [(useless, "all black"), (copier, "input copied")])
def test_model_that_does_what_a_baseline_does(eager, protocol, build, baseline):
    errors = measured(build(protocol), protocol)
    np.testing.assert_allclose(errors.errors, errors.baselines[baseline], rtol=0, atol=ROUNDING)
    assert not np.allclose(errors.errors, errors.baselines["mean image of the digit"], atol=0.01)
    found = ratios(errors, protocol)
    for name in ("mse_in", "mse_out"):
        for digit, value in found["baselines"][baseline][name].items():
            assert value == pytest.approx(found[name][digit], abs=ROUNDING)
    if baseline == "input copied":
        row = errors.points.tolist().index(0)
        np.testing.assert_array_equal(errors.errors[:, row], 0.0)


def on_canvas(image, shift):
    canvas = np.full((CANVAS, CANVAS, 1), -1.0)
    corner = (CANVAS - SIDE) // 2 + shift
    canvas[corner : corner + SIDE, corner : corner + SIDE] = image
    return canvas


def test_baselines_of_shifts_by_loops(eager):
    images, labels = data()
    # Mean images of other images, as of the training.
    others = data(30, seed=1)
    means = mean_images(*others, CLASSES)
    errors = draw_all(Autoencoding(useless(SHIFT), SHIFT, (SIDE, SIDE, 1)), images, labels, CLASSES, means, SHIFTS)
    for row, label in enumerate(CLASSES):
        own = pixels(images[labels == label])
        mean = pixels(others[0][others[1] == label]).mean(axis=0)
        np.testing.assert_allclose(means[row], mean, rtol=0, atol=ROUNDING)
        for column, shift in enumerate(SHIFTS):
            squares = {name: [] for name in drawing.BASELINES}
            for image in own:
                target = on_canvas(image, shift)
                for name, drawn in (
                    ("all black", np.full_like(target, -1.0)),
                    ("mean image of the digit", on_canvas(mean, shift)),
                    ("input copied", on_canvas(image, 0)),
                ):
                    squares[name].append(((target - drawn) ** 2).mean())
            for name, each in squares.items():
                assert errors.baselines[name][row, column] == pytest.approx(np.mean(each), abs=ROUNDING), name
            assert errors.errors[row, column] == pytest.approx(np.mean(squares["all black"]), abs=ROUNDING)
            assert errors.deviations[row, column] == pytest.approx(np.std(squares["all black"]), abs=DEVIATION)


def test_mean_image_is_rotated_as_the_images_are(eager):
    # By quarter turns, which numpy knows.
    images, labels = data()
    errors = measured(useless(ROTATION), ROTATION, np.array([-90.0, 0.0, 90.0]))
    for row, label in enumerate(CLASSES):
        own = pixels(images[labels == label])
        for column, turns in enumerate((-1, 0, 1)):
            expected = np.mean([(np.rot90(image, turns) - np.rot90(own.mean(axis=0), turns)) ** 2 for image in own])
            found = errors.baselines["mean image of the digit"][row, column]
            assert found == pytest.approx(expected, abs=ROUNDING)


# Averages


def made_up(points, values, classes=(4,)):
    values = np.asarray(values, float).reshape(len(classes), -1)
    points = np.asarray(points, float)
    baselines = {name: values * (2 + number) for number, name in enumerate(drawing.BASELINES)}
    return Errors(classes, points, values, np.zeros_like(values), np.full(len(classes), 7), baselines)


def test_averages_leave_out_what_is_not_blurred():
    points = [-180, -100, -90, -46, -45, -10, 0, 10, 45, 46, 47, 90, 100]
    values = [100, 6, 100, 200, 1, 2, 100, 3, 2, 200, 8, 100, 10]
    found = ratios(made_up(points, values), ROTATION)
    # Inside -45, -10, 10, 45: (1 + 2 + 3 + 2) / 4. Outside -100, 47, 100: (6 + 8 + 10) / 3. 46 belongs to neither.
    assert found["mse_in"] == {"4": 2.0} and found["mse_out"] == {"4": 8.0} and found["ratio"] == {"4": 4.0}
    assert found["unblurred"] == {name: {"4": 100.0} for name in ("-180", "-90", "0", "90")}
    assert found["images"] == {"4": 7}
    assert list(found["baselines"]) == list(drawing.BASELINES)
    assert found["baselines"]["mean image of the digit"] == {"mse_in": {"4": 6.0}, "mse_out": {"4": 24.0}}


def test_averages_of_shifts_leave_out_nothing():
    protocol = CENTRAL
    found = ratios(made_up([-20, -6, -4, 0, 4, 6, 8], [5, 100, 1, 2, 3, 100, 7]), protocol)
    assert (found["mse_in"], found["mse_out"], found["ratio"]) == ({"4": 2.0}, {"4": 6.0}, {"4": 3.0})
    assert found["unblurred"] == {}


def test_averages_of_each_digit():
    values = [[1, 2], [3, 12]]
    found = ratios(made_up([10, 100], values, (4, 9)), ROTATION)
    assert found["mse_in"] == {"4": 1.0, "9": 3.0} and found["ratio"] == {"4": 2.0, "9": 4.0}


@pytest.mark.parametrize("points, name", [([10, 20, 46], "mse_out"), ([60, 100, 46], "mse_in"), ([0, 90], "mse_in")])
def test_grid_that_misses_a_range_is_refused(points, name):
    with pytest.raises(ValueError, match=f"no point .*lies in the range of {name}"):
        ratios(made_up(points, np.ones(len(points))), ROTATION)


def test_error_of_nought_gives_a_finite_ratio():
    found = ratios(made_up([10, 100], [0, 0]), ROTATION)
    assert np.isfinite(found["ratio"]["4"])


@pytest.mark.parametrize(
    "point, inside, outside",
    [
        (45.0, True, False),
        (-45.0, True, False),
        (45.001, False, False),
        (46.8, False, False),
        (47.0, False, True),
        (-47.0, False, True),
        (-179.9, False, True),
        (179.9, False, True),
        (315.0, True, False),  # -45
        (-313.0, False, True),  # 47
        (0.0, False, False),  # not blurred
        (90.0, False, False),
        (-180.0, False, False),
    ],
)
def test_ends_of_the_ranges_of_angles(point, inside, outside):
    found = ROTATION.averaged(np.array([point, 60.5, 30.5]))
    assert [mask.tolist() for mask in found.values()] == [[inside, False, True], [outside, True, False]]


def test_ends_of_the_ranges_of_shifts():
    protocol, points = CENTRAL, np.arange(-22, 23)
    # In range is what is drawn from a half-open interval of whole values; out of range includes both ends.
    found = {name: points[mask].tolist() for name, mask in protocol.averaged(points).items()}
    assert found == {"mse_in": [*range(-5, 5)], "mse_out": [*range(-20, -7), *range(8, 21)]}
    # A shift is not taken modulo anything.
    with pytest.raises(ValueError, match="mse_in"):
        protocol.averaged(np.array([360.0, 355.0, -360.0, 10.0]))


def test_published_grids_average_what_was_published():
    # Of 200 angles 51 lie within 45 degrees, one of them 0; 148 beyond 47, three of them quarter turns.
    points = ROTATION.points(None)
    assert [mask.sum() for mask in ROTATION.averaged(points).values()] == [50, 144]
    protocol = CENTRAL
    points = protocol.points(None)
    inside, outside = protocol.averaged(points).values()
    assert points[inside].tolist() == [-4, -2, 0, 2, 4] and outside.sum() == 7 + 6


# Batches


class Counted:
    """Encoder and decoder that count the images they get; the code is the image's mean, drawn everywhere."""

    def __init__(self):
        self.encoded, self.drawn = [], []
        self.encoder, self.decoder = self.encode, self.decode

    def encode(self, images, training):
        assert training is False
        self.encoded.append(images.shape[0])
        return ops.mean(images, axis=(1, 2))

    def decode(self, inputs, training):
        assert training is False
        codes, told = inputs
        assert codes.shape[0] == told.shape[0] and told.shape[1] == 2
        self.drawn.append(codes.shape[0])
        return ops.zeros((1, SIDE, SIDE, 1)) + codes[:, None, None, :]


def without_the_check(counts):
    """The model is tried first on two blank images."""
    return counts[1:] if counts[0] == 2 else counts


def test_images_are_encoded_once(eager, small_batches):
    model = Counted()
    measured(model, ROTATION, FEW)
    # 11 images in two batches, whatever the number of angles; drawn at each of them.
    assert without_the_check(model.encoded) == [6, 6]
    assert without_the_check(model.drawn) == [6, 6] * len(FEW)


@pytest.mark.parametrize("count, batches", [(3, [4]), (4, [4]), (8, [8]), (9, [6, 6]), (17, [6, 6, 6])])
def test_batches_are_padded(eager, small_batches, count, batches):
    model, (images, labels) = Counted(), data(count)
    errors = measured(model, ROTATION, FEW, (images, labels))
    assert without_the_check(model.encoded) == batches
    assert errors.images.sum() == count
    # What is padded does not count: at angle 0 the error is the variance of the pixels.
    row = FEW.tolist().index(0)
    for number, label in enumerate(CLASSES):
        own = pixels(images[labels == label])
        expected = own.var(axis=(1, 2, 3))
        assert errors.errors[number, row] == pytest.approx(expected.mean(), abs=ROUNDING)
        assert errors.deviations[number, row] == pytest.approx(expected.std(), abs=DEVIATION)


def test_batches_do_not_matter(eager, small_batches, monkeypatch):
    first = measured(copier(ROTATION), ROTATION, FEW)
    monkeypatch.setattr(drawing, "BATCH", 11)
    second = measured(copier(ROTATION), ROTATION, FEW)
    np.testing.assert_allclose(first.errors, second.errors, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(first.deviations, second.deviations, rtol=0, atol=DEVIATION)
    for name, values in first.baselines.items():
        np.testing.assert_allclose(values, second.baselines[name], rtol=0, atol=ROUNDING)


def test_codes_and_pairs(eager, small_batches):
    images, _ = data(5)
    drawings = EncodedImages(Autoencoding(Counted(), ROTATION, (SIDE, SIDE, 1)), images)
    np.testing.assert_allclose(drawings.codes, pixels(images).mean(axis=(1, 2)), rtol=0, atol=ROUNDING)
    expected, drawn = drawings.pairs(ROTATION.transformation.parameters(np.array([0.0, 90.0])))
    assert expected.shape == drawn.shape == (2, 5, SIDE, SIDE, 1)
    np.testing.assert_allclose(expected[0], pixels(images), rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(expected[1], np.rot90(pixels(images), axes=(1, 2)), rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(drawn[1, :, 2, 3], drawings.codes, rtol=0, atol=ROUNDING)


# The decoder alone, and the map


@BOTH
def test_codes_are_drawn_at_each_parameter(protocol):
    """Image (code, parameter) is what the decoder makes of just these two."""
    shape = protocol.transformation.output_shape((SIDE, SIDE, 1))

    def decoder(inputs, training):
        codes, told = inputs
        return (
            ops.zeros((1, *shape))
            + (ops.sum(codes, axis=-1) + 10.0 * told[:, 0] + 100.0 * told[:, 1])[:, None, None, None]
        )

    codes = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], "float32")
    points = protocol.transformation.parameters(np.array([-2.0, 1.0]))
    model = SimpleNamespace(encoder=lambda images, training: ops.mean(images, axis=(1, 2)), decoder=decoder)
    drawn = draw_codes(autoencoding(model, protocol), codes, points)
    assert drawn.shape == (3, 2, *shape) and drawn.dtype == np.float32
    for row, code in enumerate(codes):
        for column, point in enumerate((-2.0, 1.0)):
            told = (
                (point / 3, point / 3) if protocol is SHIFT else (np.cos(np.radians(point)), np.sin(np.radians(point)))
            )
            expected = code.sum() + 10 * told[0] + 100 * told[1]
            # Float32 numbers up to 100.
            np.testing.assert_allclose(drawn[row, column], expected, rtol=0, atol=2e-5)


def test_map_of_shifts_agrees_with_the_errors(eager, small_batches):
    images, _ = data(7)
    artist = Autoencoding(copier(SHIFT), SHIFT, (SIDE, SIDE, 1))
    shifts = [-3, 0, 2]
    found = over_both(np.array(shifts), lambda pair: EncodedImages(artist, images).errors(pair).mean())
    assert found.shape == (3, 3)
    drawings = EncodedImages(artist, images)
    for row, dy in enumerate(shifts):
        assert found[row, row] == pytest.approx(drawings.errors((dy, dy)).mean(), abs=ROUNDING)
        for column, dx in enumerate(shifts):
            # Rows are dy: by loops over the images.
            expected = []
            for image in pixels(images):
                target = np.full((CANVAS, CANVAS, 1), -1.0)
                target[3 + dy : 9 + dy, 3 + dx : 9 + dx] = image
                expected.append(((target - on_canvas(image, 0)) ** 2).mean())
            assert found[row, column] == pytest.approx(np.mean(expected), abs=ROUNDING)


# Tables


def test_long_tables():
    errors = replace(made_up([-10, 100], [[1, 2], [3, 4]], (4, 9)), deviations=np.array([[0.1, 0.2], [0.3, 0.4]]))
    curves = errors.curves()
    assert [tuple(row.values()) for row in curves] == [
        (4, -10.0, 1.0, 7, 0.1), (4, 100.0, 2.0, 7, 0.2), (9, -10.0, 3.0, 7, 0.3), (9, 100.0, 4.0, 7, 0.4),
    ]  # fmt: skip
    assert list(curves[0]) == ["digit", "parameter", "value", "images", "deviation"]
    baselines = errors.baseline_curves()
    assert len(baselines) == 3 * 4 and list(baselines[0]) == ["baseline", "digit", "parameter", "value"]
    assert tuple(baselines[6].values()) == (drawing.BASELINES[1], 9, -10.0, 9.0)


# Refusals


def test_class_without_images_is_refused(eager):
    images, labels = data()
    some = labels != 9
    with pytest.raises(UserError, match=r"images of each class are needed.*\[2, 4, 9\]"):
        draw_all(
            autoencoding(useless(ROTATION), ROTATION), images[some], labels[some], CLASSES, np.zeros((3, 6, 6, 1)), FEW
        )


def test_images_of_another_class_are_refused(eager):
    images, labels = data()
    means = mean_images(images, labels, CLASSES)
    for other in (1, 5, 11):
        with pytest.raises(UserError, match="images of each class are needed"):
            strange = np.append(labels[:-1], other)
            draw_all(autoencoding(useless(ROTATION), ROTATION), images, strange, CLASSES, means, ANGLES)


def test_as_many_labels_as_images(eager):
    images, labels = data()
    with pytest.raises(UserError, match="there are 10 images and 11 labels"):
        draw_all(autoencoding(useless(ROTATION), ROTATION), images[:10], labels, CLASSES, np.zeros((3, 6, 6, 1)), FEW)


def test_no_images_are_refused(eager):
    with pytest.raises(UserError, match="must not be empty"):
        EncodedImages(autoencoding(useless(ROTATION), ROTATION), data()[0][:0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_drawings_that_are_not_finite_are_refused(eager, value):
    # Two of the images have a first pixel of 200 and more.
    images, labels = data()
    images[:, 0, 0] = np.where(np.arange(11) % 6 == 1, 255, 0)[:, None]

    def draw(images, told):
        return ops.where(images[:, :1, :1] > 0.5, value, images)

    with pytest.raises(UserError, match="drawings of 2 images are not finite"):
        measured(Model(draw), ROTATION, FEW, (images, labels))


@pytest.mark.parametrize("shape", [(SIDE + 1, SIDE, 1), (SIDE, SIDE, 3), (CANVAS, CANVAS, 1)])
def test_drawings_of_another_size_are_refused(shape):
    model = Model(lambda images, told: ops.zeros((ops.shape(images)[0], *shape)))
    with pytest.raises(UserError) as refused:
        measured(model, ROTATION)
    assert str(refused.value) == f"the model draws images {shape}, but images {(SIDE, SIDE, 1)} are needed"


def test_images_the_encoder_does_not_take_are_refused():
    inputs = keras.Input((SIDE + 2, SIDE, 1))
    encoder = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(UserError, match=r"the model does not take images \(6, 6, 1\)"):
        EncodedImages(autoencoding(SimpleNamespace(encoder=encoder, decoder=encoder), ROTATION), data()[0])
