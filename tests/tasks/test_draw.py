"""Drawn images: models whose errors are known, averages, batches, refusals, and what is kept of a measured model."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from invariance import figures
from invariance.datasets import Data
from invariance.errors import UserError
from invariance.ranges import Ranges
from invariance.tasks import Generation, batches
from invariance.tasks import draw as drawing
from invariance.tasks.draw import Autoencoding, Errors, draw_all, mean_images, ratios
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Scaling, Shear, Shift
from tests.helpers import noise, transformed

CLASSES, SIDE, CANVAS = (2, 4, 9), 6, 12
PART = ((-45, 45),)
TASKS = {
    "rotation": Generation(Rotation(), Ranges(((-180, 180),), {4: PART}), outside=((-180, -47), (47, 180))),
    "shift": Generation(Shift((CANVAS, CANVAS), 3.0), Ranges(((-3, 4),), {4: ((-1, 2),)})),
    "scaling": Generation(Scaling(), Ranges(((0.5, 2),), {4: ((0.8, 1.25),)})),
    "shear": Generation(Shear(), Ranges(((-1, 1),), {4: ((-0.25, 0.25),)})),
}
ROTATION, SHIFT = TASKS["rotation"], TASKS["shift"]
CENTRAL = Generation(Shift((68, 68)), Ranges(((-20, 20),), {4: ((-5, 5),)}), outside=((-20, -8), (8, 20)))
# Parameters inside, outside and neither; the ones that are not blurred.
POINTS = {
    "rotation": np.array([-180, -120, -90, -46, -30, 0, 20, 45, 90, 150.5]),
    "shift": np.arange(-3, 4),
    "scaling": np.array([0.6, 0.8, 1, 1.2, 1.9]),
    "shear": np.array([-0.9, 0, 0.1, 0.7]),
}
FEW = np.array([-120, 0, 20])

# Float32 means of 36 or 144 squares of numbers up to 2, by two ways.
ROUNDING = 1e-6
# Of pixels interpolated to 3e-5 (see test_warp), whose differences are up to 2.
INTERPOLATED = 2e-5
# Of a deviation: the root of a difference of squares of such numbers, .5^2 known to 6e-8.
DEVIATION = 2e-4

every_transformation = pytest.mark.parametrize("name", TASKS)


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
    return noise(count, SIDE, SIDE, 1, seed=seed, spread=(0, 256)).astype("uint8"), np.resize(CLASSES, count)


def pixels(images):
    return images.astype("float64") / 127.5 - 1


class Model(keras.Model):
    """In one piece: a function of upright images and of what is told."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(*inputs)


DECODE = {
    "rotation": lambda told: ops.arctan2(told[:, 1], told[:, 0]) * (180.0 / np.pi),
    "shift": lambda told: ops.round(3.0 * told),
    "scaling": lambda told: 2.0 ** told[:, 0],
    "shear": lambda told: told[:, 0],
}


def perfect(task):
    """Knows the transformation, and reads its parameters from what it is told."""
    kind = task.transformation
    return Model(lambda images, told: kind.apply(images, DECODE[kind.name](told), -1.0))


def useless(task):
    """Draws nothing but black."""
    shape = task.transformation.output_shape((SIDE, SIDE, 1))
    return Model(lambda images, told: -ops.ones((ops.shape(images)[0], *shape)))


def copier(task):
    """Draws what it sees, in the middle of the canvas."""
    border = [(0, 0), (3, 3), (3, 3), (0, 0)] if task is SHIFT else [(0, 0)] * 4
    return Model(lambda images, told: ops.pad(images, border, constant_values=-1.0))


def autoencoding(model, task):
    return Autoencoding(model, task, (SIDE, SIDE, 1))


def measured(model, task, points=None, given=None):
    images, labels = given or data()
    points = POINTS[task.transformation.name] if points is None else points
    return draw_all(autoencoding(model, task), images, labels, CLASSES, mean_images(images, labels, CLASSES), points)


# Models whose errors are known


@every_transformation
def test_perfect_model(name):
    """Compiled as in a run."""
    task, points = TASKS[name], POINTS[name]
    errors = measured(perfect(task), task)
    assert errors.classes == CLASSES and errors.images.tolist() == [4, 4, 3]
    np.testing.assert_array_equal(errors.points, points)
    assert errors.errors.shape == errors.deviations.shape == (3, len(points))
    # An arc tangent in float32 knows an angle to 1e-5 degrees, which moves pixels by 1e-6; so does a power of two.
    assert errors.errors.max() < 1e-9 and errors.deviations.max() < 1e-9
    # What is easy for it is not so for the others, but where the input is the target.
    for baseline, values in errors.baselines.items():
        away = points != task.transformation.identity if baseline == "input copied" else slice(None)
        assert values[:, away].min() > 0.02, baseline
    means = ratios(errors, task)
    assert max(*means["mse_in"].values(), *means["mse_out"].values()) < 1e-9


@every_transformation
@pytest.mark.parametrize(("build", "own"), [(useless, "all black"), (copier, "input copied")])
def test_other_models_and_baselines_agree_with_scipy(eager, small_batches, name, build, own):
    task, (images, labels) = TASKS[name], data()
    kind, points = task.transformation, POINTS[name]
    # Mean images of other images, as of the training.
    others = data(30, seed=1)
    means = mean_images(*others, CLASSES)
    errors = draw_all(autoencoding(build(task), task), images, labels, CLASSES, means, points)

    def at(image, point):
        return transformed(kind, image[..., 0], point, fill=-1.0)

    for row, label in enumerate(CLASSES):
        mean = pixels(others[0][others[1] == label]).mean(axis=0)
        np.testing.assert_allclose(means[row], mean, rtol=0, atol=ROUNDING)
        for column, point in enumerate(points):
            squares = {
                baseline: [((at(image, point) - drawn(image)) ** 2).mean() for image in pixels(images[labels == label])]
                for baseline, drawn in (
                    ("all black", lambda image: -1.0),
                    ("mean image of the digit", lambda image, mean=mean, point=point: at(mean, point)),
                    ("input copied", lambda image: at(image, kind.identity)),
                )
            }
            for baseline, each in squares.items():
                found = errors.baselines[baseline][row, column]
                assert found == pytest.approx(np.mean(each), abs=INTERPOLATED), (baseline, point)
            assert errors.errors[row, column] == pytest.approx(np.mean(squares[own]), abs=INTERPOLATED)
            assert errors.deviations[row, column] == pytest.approx(np.std(squares[own]), abs=DEVIATION)
    found = ratios(errors, task)
    for key in ("mse_in", "mse_out"):
        assert found["baselines"][own][key] == pytest.approx(found[key], abs=ROUNDING)


# Averages


def made_up(points, values, classes=(4,)):
    values = np.asarray(values, float).reshape(len(classes), -1)
    points = np.asarray(points, float)
    baselines = {name: values * (2 + number) for number, name in enumerate(drawing.BASELINES)}
    return Errors(classes, points, values, np.zeros_like(values), np.full(len(classes), 7), baselines)


def test_averages_omit_what_is_not_blurred():
    points = [-180, -100, -90, -46, -45, -10, 0, 10, 45, 46, 47, 90, 100]
    values = [100, 6, 100, 200, 1, 2, 100, 3, 2, 200, 8, 100, 10]
    found = ratios(made_up(points, values), ROTATION)
    # Inside -45, -10, 10, 45: (1 + 2 + 3 + 2) / 4. Outside -100, 47, 100: (6 + 8 + 10) / 3. 46 belongs to neither.
    assert found["mse_in"] == {"4": 2.0} and found["mse_out"] == {"4": 8.0} and found["ratio"] == {"4": 4.0}
    assert found["unblurred"] == {name: {"4": 100.0} for name in ("-180", "-90", "0", "90")}
    assert found["images"] == {"4": 7} and list(found["baselines"]) == list(drawing.BASELINES)
    assert found["baselines"]["mean image of the digit"] == {"mse_in": {"4": 6.0}, "mse_out": {"4": 24.0}}
    # Shifts are never blurred.
    found = ratios(made_up([-20, -6, -4, 0, 4, 6, 8], [5, 100, 1, 2, 3, 100, 7]), CENTRAL)
    assert (found["mse_in"], found["mse_out"], found["unblurred"]) == ({"4": 2.0}, {"4": 6.0}, {})


def test_averages_of_each_digit():
    found = ratios(made_up([10, 100], [[1, 2], [3, 12]], (4, 9)), ROTATION)
    assert found["mse_in"] == {"4": 1.0, "9": 3.0} and found["ratio"] == {"4": 2.0, "9": 4.0}
    # An error of zero gives a finite ratio.
    assert ratios(made_up([10, 100], [0, 0]), ROTATION)["ratio"] == {"4": 0.0}


def test_tables_of_errors():
    errors = replace(made_up([-10, 100], [[1, 2], [3, 4]], (4, 9)), deviations=np.array([[0.1, 0.2], [0.3, 0.4]]))
    curves, baselines = errors.curves(), errors.baseline_curves()
    assert [tuple(row.values()) for row in curves] == [
        (4, -10.0, 1.0, 7, 0.1), (4, 100.0, 2.0, 7, 0.2), (9, -10.0, 3.0, 7, 0.3), (9, 100.0, 4.0, 7, 0.4),
    ]  # fmt: skip
    assert list(curves[0]) == ["digit", "parameter", "value", "images", "deviation"]
    assert len(baselines) == 3 * 4 and list(baselines[0]) == ["baseline", "digit", "parameter", "value"]
    assert tuple(baselines[6].values()) == (drawing.BASELINES[1], 9, -10.0, 9.0)


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


@pytest.mark.parametrize(("count", "sizes"), [(3, [4]), (8, [8]), (9, [6, 6]), (17, [6, 6, 6])])
def test_images_are_encoded_once_in_padded_batches(eager, small_batches, count, sizes):
    model, (images, labels) = Counted(), data(count)
    errors = measured(model, ROTATION, FEW, (images, labels))
    # Whatever the number of angles; drawn at each of them.
    assert without_the_check(model.encoded) == sizes and without_the_check(model.drawn) == sizes * len(FEW)
    assert errors.images.sum() == count
    # What is padded does not count: at angle 0 the error is the variance of the pixels.
    for row, label in enumerate(CLASSES):
        expected = pixels(images[labels == label]).var(axis=(1, 2, 3))
        assert errors.errors[row, 1] == pytest.approx(expected.mean(), abs=ROUNDING)
        assert errors.deviations[row, 1] == pytest.approx(expected.std(), abs=DEVIATION)


# Refusals


def bright(value):
    """Draws what is not finite where the first pixel is bright."""
    return Model(lambda images, told: ops.where(images[:, :1, :1] > 0.5, value, images))


def of_shape(*shape):
    return Model(lambda images, told: ops.zeros((ops.shape(images)[0], *shape)))


def of_other_images():
    return SimpleNamespace(
        encoder=keras.Sequential([keras.Input((8, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]),
        decoder=lambda inputs, training: ops.zeros((inputs[0].shape[0], SIDE, SIDE, 1)),
    )


X, Y = data()
# Two of the images have a bright first pixel.
X[:, 0, 0] = np.where(np.arange(11) % 6 == 1, 255, 0)[:, None]
NEEDED = r"images of each class are needed, one label per image; there are "


@pytest.mark.parametrize(
    ("model", "images", "labels", "message"),
    [
        (useless(ROTATION), X[Y != 9], Y[Y != 9], NEEDED + r"8 images .* the classes \[2, 4\] for .* \[2, 4, 9\]"),
        *((useless(ROTATION), X, np.append(Y[:-1], other), NEEDED) for other in (1, 5, 11)),
        (useless(ROTATION), X[:10], Y, NEEDED + "10 images and 11 labels"),
        (useless(ROTATION), X[:0], Y[:0], "must not be empty"),
        *((bright(value), X, Y, r"^the model's drawings of 2 images are not finite$") for value in (np.nan, np.inf)),
        (of_shape(7, 6, 1), X, Y, r"^the model draws images \(7, 6, 1\), but images \(6, 6, 1\) are needed$"),
        (of_shape(6, 6, 3), X, Y, r"^the model draws images \(6, 6, 3\), but images \(6, 6, 1\) are needed$"),
        (of_other_images(), X, Y, r"^the model does not take images \(6, 6, 1\)"),
        (SimpleNamespace(encoder=len), X, Y, r"^the model does not take images \(6, 6, 1\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(eager, model, images, labels, message):
    with pytest.raises(UserError, match=message) as refused:
        draw_all(autoencoding(model, ROTATION), images, labels, CLASSES, np.zeros((3, 6, 6, 1), "float32"), FEW)
    assert "\n" not in str(refused.value)


# What is kept


class Codes(keras.Model):
    """Codes are the first pixels of an image; drawn as the first pixels, and what is told as the last ones."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def encoder(self, images, training):
        return ops.reshape(images, (-1, SIDE * SIDE))[:, : self.size]

    def decoder(self, inputs, training):
        codes, told = inputs
        middle = ops.zeros((codes.shape[0], SIDE * SIDE - self.size - 2))
        return ops.reshape(ops.concatenate([codes, middle, told], axis=-1), (-1, SIDE, SIDE, 1))


@pytest.fixture
def sheets(monkeypatch):
    """A function: the figures of what was measured, as name -> arguments. Nothing is drawn."""
    for name in ("error_by_parameter", "pairs", "samples", "parameter_map"):
        monkeypatch.setattr(figures, name, lambda *arguments, **_: arguments)
    return lambda measured: {each.name: getattr(each, "figure", each) for each in measured.figures("title")}


def dataset(classes=CLASSES):
    """Test images are others than training images."""
    x_train, y_train = noise(60, SIDE, SIDE, 1, spread=(0, 256)).astype("uint8"), np.resize(classes, 60)
    x_test, y_test = noise(24, SIDE, SIDE, 1, seed=1, spread=(0, 256)).astype("uint8"), np.resize(classes, 24)
    # Their first pixel is dark, and the second one its inverse.
    x_train[:, 0, 0] //= 8
    x_train[:, 0, 1] = 255 - x_train[:, 0, 0]
    return Data("own", x_train, y_train, x_test, y_test, "test")


SPACING = {"rotation": 90, "shift": 1, "scaling": 0.25, "shear": 0.2}
ALWAYS = {"error_by_parameter.png", "pairs.png", "round.gif"}
SAMPLES = {"samples_prior.png", "samples_codes.png"}


@every_transformation
def test_measured(eager, name):
    """Compared with what was computed above; and what is timed is what is measured."""
    task, given = TASKS[name], dataset()
    found = task.measure(copier(task), given, CLASSES, Evaluation(SPACING[name], images_per_class=5))
    metrics, errors = found.metrics, found.errors
    points = task.points(SPACING[name])
    keep = np.sort(np.concatenate([np.flatnonzero(given.y_test == label)[:5] for label in CLASSES]))
    images, labels = given.x_test[keep], given.y_test[keep]
    means = mean_images(given.x_train, given.y_train, CLASSES)
    expected = draw_all(autoencoding(copier(task), task), images, labels, CLASSES, means, points)
    np.testing.assert_array_equal(errors.points, points)
    np.testing.assert_array_equal(errors.errors, expected.errors)
    np.testing.assert_array_equal(errors.baselines[drawing.BASELINES[1]], expected.baselines[drawing.BASELINES[1]])
    assert metrics == ratios(expected, task) and metrics["images"] == {"2": 5, "4": 5, "9": 5}
    at = task.evaluator(copier(task), images, CLASSES)
    for column in (0, len(points) // 3, -1):
        own = [at(points[column])[labels == label].mean() for label in CLASSES]
        assert own == pytest.approx(errors.errors[:, column], abs=ROUNDING)
    assert set(found.tables) == {"curves.csv", "baselines.csv", *["map.csv"] * (name == "shift")}
    assert (found.tables["curves.csv"], found.tables["baselines.csv"]) == (errors.curves(), errors.baseline_curves())
    # Words and columns.
    title, unit, *lines = str(found).splitlines()
    assert (title, unit) == (task.title(), "mean squared errors of pixels in [-1, 1]")
    for digit, line in zip(("2", "4", "9"), lines, strict=True):
        inside, outside, ratio = (metrics[key][digit] for key in ("mse_in", "mse_out", "ratio"))
        mark = " (restricted)" if digit == "4" else ""
        assert line == f"{digit}: in {inside:.4f}  out {outside:.4f}  ratio {ratio:.2f}{mark}"
    others = sorted([metrics["ratio"]["2"], metrics["ratio"]["9"]])
    assert found.summary() == f"4: out/in {metrics['ratio']['4']:.2f}; others {others[0]:.2f} to {others[1]:.2f}"
    read = [column.read(metrics) for column in task.columns((4,))]
    assert read == [metrics[key]["4"] for key in ("mse_in", "mse_out", "ratio")] + [tuple(others), None]


@pytest.mark.parametrize("size", [3, 1])
def test_samples_of_codes(eager, sheets, size):
    """Codes from the prior, and normal ones with the mean and covariance of the training images' codes."""
    given, drawn = dataset(), {}
    for seed in (0, 1):
        pictures = sheets(ROTATION.measure(Codes(size), given, CLASSES, Evaluation(90, seed=seed)))
        assert set(pictures) == {*ALWAYS, *SAMPLES}
        for name in SAMPLES:
            images, points, task, title = pictures[name]
            # Six codes, each at 20 angles.
            assert images.shape == (6, 20, SIDE, SIDE, 1) and task is ROTATION
            assert title.startswith("title\nthe decoder alone: codes ")
            flat = images.reshape(6, 20, -1)
            assert (flat[..., :-2] == flat[:, :1, :-2]).all()
            told = np.stack([np.cos(np.radians(points)), np.sin(np.radians(points))], axis=-1)
            np.testing.assert_allclose(flat[..., -2:], [told] * 6, rtol=0, atol=1e-6)  # float32
            drawn[name, seed] = flat[:, 0, :size]
    prior, normal = (
        np.concatenate([drawn[f"samples_{name}.png", seed] for seed in (0, 1)]) for name in ("prior", "codes")
    )
    assert len(np.unique(prior)) == prior.size and len(np.unique(normal[:, 0])) == 12
    assert np.abs(prior).max() <= 1 and prior.min() < -0.5 and prior.max() > 0.5
    # Five standard errors of a mean of twelve; their deviation is known to a factor of three.
    own = pixels(given.x_train).reshape(60, -1)[:, :size]
    assert np.abs((normal.mean(axis=0) - own.mean(axis=0)) / own.std(axis=0)).max() < 5 / np.sqrt(12)
    assert np.abs(np.log2(normal.std(axis=0) / own.std(axis=0))).max() < 1.6
    if size > 1:
        # As in training images, the second pixel is the inverse of the first; float32.
        np.testing.assert_allclose(normal[:, 1], -normal[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "classes", "restricted", "shown", "example"),
    [
        # The digits of the article's figures, where they include the restricted ones.
        (useless, (2, 3, 4, 5, 9), (9,), [3, 5, 4, 9], 9),
        (useless, (0, 2, 3, 4, 5), (2,), [3, 5, 2], 2),
        (useless, (0, 1), (), [0, 1], 0),
        (perfect, (0, 3, 5), (), [3, 5], 0),
    ],
)
def test_pictures_show_the_first_image_of_each_digit(eager, sheets, build, classes, restricted, shown, example):
    task = replace(ROTATION, ranges=Ranges(ROTATION.ranges.default, dict.fromkeys(restricted, PART)))
    given, published = dataset(classes), {4: {0.0: 0.1}}
    found = task.measure(build(task), given, classes, Evaluation(90, published=published))
    pictures = sheets(found)
    # A model without codes has no samples.
    assert set(pictures) == ALWAYS
    assert pictures["error_by_parameter.png"] == (found.errors, task, example, "title", published)
    first = {label: pixels(given.x_test[np.flatnonzero(given.y_test == label)[0]]) for label in classes}
    expected, drawn, labels, points, *_ = pictures["pairs.png"]
    assert labels == shown and points.tolist() == list(range(-180, 180, 18))
    film, own = pictures["round.gif"], example if example in shown else shown[0]
    assert (film.label, film.task, film.points.tolist()) == (own, task, list(range(-180, 180, 6)))
    assert film.expected.shape == film.drawn.shape == (60, SIDE, SIDE, 1)
    # Upright, and a quarter turn on.
    for turns in (0, 1):
        turned = {label: np.rot90(image, turns) for label, image in first.items()}
        np.testing.assert_allclose(expected[10 + 5 * turns], [turned[label] for label in shown], rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(film.expected[30 + 15 * turns], turned[own], rtol=0, atol=ROUNDING)
    for one, other in ((drawn, expected), (film.drawn, film.expected)):
        np.testing.assert_allclose(one, -np.ones_like(other) if build is useless else other, rtol=0, atol=1e-5)


def test_map_over_both_shifts(eager, sheets):
    given = dataset()
    found = SHIFT.measure(copier(SHIFT), given, CLASSES, Evaluation(2))
    pictures = sheets(found)
    assert set(pictures) == {*ALWAYS, "map.png"}
    values, points, trained, title, _ = pictures["map.png"]
    np.testing.assert_array_equal(points, np.arange(-3, 4))
    assert (trained, title) == (((-1, 2),), "title: 4")
    own = pixels(given.x_test[given.y_test == 4])
    canvas = np.full((8, CANVAS, CANVAS, 1), -1.0)
    centred = canvas.copy()
    centred[:, 3:9, 3:9] = own
    for row, dy in enumerate(range(-3, 4)):
        for column, dx in enumerate(range(-3, 4)):
            moved = canvas.copy()
            moved[:, 3 + dy : 9 + dy, 3 + dx : 9 + dx] = own
            assert values[row, column] == pytest.approx(((moved - centred) ** 2).mean(), abs=ROUNDING)
    rows = found.tables["map.csv"]
    assert rows[1] == {"digit": 4, "dy": -3, "dx": -2, "value": values[0, 1]} and len(rows) == 49


def test_nothing_out_of_range(eager):
    full = ROTATION.ranges.default
    # Without restricted classes, ranges must be given.
    with pytest.raises(UserError, match=r"^[^\n]*mse_out[^\n]*$"):
        Generation(Rotation(), Ranges(full)).measure(useless(ROTATION), dataset(), CLASSES, Evaluation(90))
    task = Generation(Rotation(), Ranges(full), inside=PART, outside=ROTATION.outside)
    found = task.measure(useless(task), dataset(), CLASSES, Evaluation(90))
    low, *_, high = sorted(found.metrics["ratio"].values())
    assert found.summary() == f"all classes: out/in {low:.2f} to {high:.2f}"
    assert len(found.lines()) == 4 and "restricted" not in str(found)
    column, _ = task.columns(())
    assert column.read(found.metrics) == (low, high)
