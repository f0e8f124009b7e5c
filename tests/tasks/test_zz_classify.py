"""Classifiers of every form: their answers to transformed images, reconstructions, redraws, and figures."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from invariance import figures, random
from invariance.datasets import Data
from invariance.errors import UserError
from invariance.layers.capsules import Length
from invariance.models.capsule_network import CapsuleNetwork
from invariance.ranges import Ranges, contains
from invariance.tasks import Recognition, classify
from invariance.tasks.classify import Classifier, sweep
from invariance.tasks.metrics import METRICS, proportions
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Shift
from invariance.warp import rotate
from tests.helpers import noise
from tests.test_warp import scipy_rotated

# Labels are not 0, 1, 2, ... so that labels and outputs cannot be mixed up. Classes have unequal numbers of images.
CLASSES, PER_CLASS = (1, 3, 4, 8), (10, 20, 30, 40)
RANGES = Ranges(((0, 360),), {3: ((-45, 45),), 4: ((-45, 45),)})
TASK = Recognition(Rotation(), RANGES, inverted=((135, 225),))
FREE = Recognition(Rotation(), Ranges(((0, 360),)))
SIZE, SHAPE = 15, (15, 15, 1)
GRID, COARSE = Rotation().grid(15, (0, 360)), Rotation().grid(90, (0, 360))
# Proportions are float64 sums of some hundred terms.
ROUNDING = 1e-12


def images_and_labels():
    """Images whose centre tells the label (a fifth of 255 a class) and whose mark above the centre tells the angle."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    mark = 100 * np.exp(-((rows + 5) ** 2 + columns**2) / (2 * 1.2**2))
    labels = np.random.default_rng(0).permutation(np.repeat(CLASSES, PER_CLASS))
    images = np.repeat(np.round(mark)[None], len(labels), axis=0)
    # The centre of an odd-sized image is rotated onto itself exactly.
    images[:, SIZE // 2, SIZE // 2] = 51 * (1 + np.searchsorted(CLASSES, labels))
    return images[..., None].astype("uint8"), labels


IMAGES, LABELS = images_and_labels()
DATA = Data("test", IMAGES, LABELS, IMAGES, LABELS, "test")


class ReadAnswer(layers.Layer):
    """Scores one for the true class where the mark stands in a sector, for the next class elsewhere.

    Args:
        low, high: the sector in degrees, counter-clockwise from upright.
    """

    def __init__(self, low, high, **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, images):
        centre = ops.convert_to_tensor(np.eye(SIZE * SIZE, dtype="float32")[SIZE * SIZE // 2])
        pixels = ops.reshape(images[..., 0], (-1, SIZE * SIZE))
        label = ops.round(ops.sum(pixels * centre, axis=-1) * 5.0) - 1.0
        rows, columns = (values.reshape(-1).astype("float32") for values in np.mgrid[:SIZE, :SIZE] - SIZE // 2)
        up, left = ops.sum(-pixels * rows, axis=-1), ops.sum(-pixels * columns, axis=-1)
        angle = ops.arctan2(left, up) * (180.0 / np.pi)
        right = ops.logical_and(angle >= self.low, angle < self.high)
        answer = ops.where(right, label, ops.mod(label + 1.0, float(len(CLASSES))))
        return ops.one_hot(ops.cast(answer, "int32"), len(CLASSES))


def right_between(low, high):
    """A model that is right where images are rotated by angles in [low, high), and wrong elsewhere."""
    return keras.Sequential([keras.Input(SHAPE), ReadAnswer(low, high)])


VALUES = (np.arange(len(CLASSES)) + 1) / 5


def reads_the_centre():
    """A perfect classifier of plain layers, with logits.

    For the value v = (k + 1) / 5 in the centre, class k has the score 2 v_k v - v_k^2 = v^2 - (v - v_k)^2: the largest.
    """
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Cropping2D(SIZE // 2), layers.Flatten(), layers.Dense(len(CLASSES))]
    )
    model.layers[-1].set_weights([2 * VALUES[None], -(VALUES**2)])
    return model


def always_8():
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(len(CLASSES), "softmax")])
    model.layers[-1].set_weights([np.zeros((SIZE * SIZE, 4)), np.eye(4)[3]])
    return model


def several(**outputs):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, {name: model(inputs) for name, model in outputs.items()})


def drawing(decode, name="reconstruction"):
    """The perfect classifier, whose second output is a function of its input."""
    return several(scores=reads_the_centre(), **{name: layers.Lambda(decode)})


def classifier(model, task=TASK, **options):
    return Classifier(model, task, SHAPE, len(CLASSES), **options)


def predict(model, points=GRID, images=IMAGES, **options):
    return classify.predict(classifier(model, **options), images, LABELS, CLASSES, points)


def accuracy(model, **options):
    """On all images, whatever their angle."""
    predictions = predict(model, COARSE, **options)
    return (predictions.accuracy.mean(1) * PER_CLASS).sum() / len(LABELS)


# Answers


@pytest.mark.parametrize("batch", [512, 32], ids=["one batch", "three batches and an eighth"])
def test_counts_are_indexed_by_class_angle_and_output(monkeypatch, batch):
    monkeypatch.setattr(classify, "BATCH", batch)
    # From 45 degrees clockwise to 90 counter-clockwise: a wrong sign shows.
    predictions = predict(right_between(-45, 90))
    expected = np.zeros((4, 24, 4), int)
    for i, number in enumerate(PER_CLASS):
        for j, angle in enumerate(GRID):
            expected[i, j, i if -45 <= angle < 90 else (i + 1) % 4] = number
    np.testing.assert_array_equal(predictions.counts, expected)
    assert (predictions.classes, predictions.transformation, predictions.errors) == (CLASSES, Rotation(), None)
    np.testing.assert_array_equal(predictions.points, GRID)


def test_answers_agree_with_a_linear_model_on_scipys_rotations():
    weights, images = noise(SIZE * SIZE, 4), noise(100, *SHAPE, spread=(0, 256)).astype("uint8")
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(4, use_bias=False)])
    model.set_weights([weights])
    points = np.array([-171.0, -60.0, 0.0, 33.0])
    counts = np.zeros((4, 4, 4), int)
    for column, angle in enumerate(points):
        rotated = np.stack([scipy_rotated(image / 255, angle) for image in images])
        scores = rotated.reshape(100, -1) @ weights
        # No answer hangs on float32 rounding: sums of 225 products below 4, known to 1e-4.
        best = np.sort(scores, axis=-1)
        assert (best[:, -1] - best[:, -2]).min() > 1e-3
        np.add.at(counts[:, column], (np.searchsorted(CLASSES, LABELS), scores.argmax(-1)), 1)
    np.testing.assert_array_equal(predict(model, points, images).counts, counts)


def test_images_and_labels_must_fit_one_another():
    one = classifier(reads_the_centre())
    for labels, classes in ((LABELS[1:], CLASSES), (LABELS + 1, CLASSES), (LABELS, CLASSES[::-1])):
        with pytest.raises(UserError, match="one label per image, all among ascending classes, is needed"):
            classify.predict(one, IMAGES, labels, classes, COARSE)


# Models and images of every form


class Unbuilt(keras.Model):
    """A subclassed model, whose variables are made by its first call."""

    def __init__(self):
        super().__init__()
        self.crop, self.flatten = layers.Cropping2D(SIZE // 2), layers.Flatten()
        self.dense = layers.Dense(
            len(CLASSES),
            kernel_initializer=lambda shape, dtype: 2 * VALUES[None].astype("float32"),
            bias_initializer=lambda shape, dtype: -(VALUES**2).astype("float32"),
        )

    def call(self, images):
        return self.dense(self.flatten(self.crop(images)))


class WithoutVariables(keras.Model):
    def __init__(self):
        super().__init__()
        self.answer = ReadAnswer(-181, 181)

    def call(self, images):
        return self.answer(images)


FORMS = {
    "logits": reads_the_centre,
    "probabilities": lambda: keras.Sequential([reads_the_centre(), layers.Softmax()]),
    "one output fits": lambda: several(other=layers.Flatten(), answer=reads_the_centre()),
    "named": lambda: several(constant=always_8(), scores=reads_the_centre()),
    "subclassed": Unbuilt,
    "without variables": WithoutVariables,
    "callable": lambda: lambda images: reads_the_centre()(images).numpy(),
    "callable with several outputs": lambda: lambda images: (images, reads_the_centre()(images)),
    "without a channel axis": lambda: keras.Sequential(
        [keras.Input((SIZE, SIZE)), layers.Reshape(SHAPE), reads_the_centre()]
    ),
    # New batch norm divides by sqrt(1 + 1e-3): the centre's value moves by .0005, far from the next class' .2.
    "with dropout": lambda: keras.Sequential(
        [keras.Input(SHAPE), layers.Dropout(0.9), layers.BatchNormalization(), reads_the_centre()]
    ),
}


@pytest.mark.parametrize("model", FORMS.values(), ids=FORMS)
def test_every_form_of_model(model):
    assert accuracy(model()) == pytest.approx(1.0, abs=ROUNDING)


def test_model_of_any_image_size():
    inputs = keras.Input((None, None, 1))
    scores = layers.Dense(4)(layers.GlobalAveragePooling2D()(inputs))
    assert predict(keras.Model(inputs, scores), COARSE).counts.sum() == 4 * len(LABELS)


@pytest.mark.parametrize("keras_model", [True, False])
def test_pixels_of_a_models_own_range(keras_model):
    # White is 0 and black is 2.
    inner = reads_the_centre()
    model = keras.Sequential([keras.Input(SHAPE), layers.Rescaling(-0.5, 1.0), inner])
    assert accuracy(model if keras_model else lambda images: model(images), pixels=(2.0, 0.0)) == pytest.approx(1.0)
    assert accuracy(model) < 0.9
    # Reconstructions are mapped back.
    errors = predict(drawing(lambda images: images), COARSE, pixels=(2.0, 0.0)).errors
    assert errors.max() < 1e-12  # float32, squared
    for wrong in ((1.0, 1.0), (0.0, 0.5, 1.0)):
        with pytest.raises(UserError, match="pixels: two different numbers"):
            classifier(inner, pixels=wrong)


def test_every_form_of_images():
    one = classifier(right_between(-45, 90))
    expected = predict(right_between(-45, 90), COARSE).counts
    for images in (IMAGES[..., 0], IMAGES / 255, (IMAGES / 255).astype("float32"), IMAGES.astype("int64")):
        np.testing.assert_array_equal(classify.predict(one, images, LABELS, CLASSES, COARSE).counts, expected)
    for images, message in (
        (IMAGES * 2.0, r"must lie in \[0, 1\]"),
        (IMAGES.astype("int64") + 200, r"must lie in \[0, 255\]"),
        (IMAGES.reshape(100, -1), "must have the shape"),
        (IMAGES > 100, "bool"),
        (IMAGES[:0], "must not be empty"),
        (IMAGES[:, 1:], r"the images are \(14, 15, 1\), but images \(15, 15, 1\) are needed"),
    ):
        with pytest.raises(UserError, match=message):
            classify.predict(one, images, LABELS, CLASSES, COARSE)


def two_inputs():
    images, codes = keras.Input(SHAPE), keras.Input((2,))
    return keras.Model([images, codes], layers.Concatenate()([layers.Flatten()(images), codes]))


def dense(outputs, shape=SHAPE):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(outputs)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        *((lambda n=n: dense(n), rf"returns \(2, {n}\) for 2 images, but one score for each of 4") for n in (1, 3, 10)),
        (lambda: keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3)]), "one score for each of 4 classes"),
        (lambda: several(a=reads_the_centre(), b=always_8()), "name one of them 'scores'"),
        # The name counts, even if another output would fit.
        (lambda: several(scores=layers.Flatten(), answer=reads_the_centre()), r"scores \(2, 225\)"),
        (lambda: several(scores=layers.Flatten(), reconstruction=reads_the_centre()), r"scores \(2, 225\)"),
        (lambda: drawing(lambda images: images[:, 1:]), r"'reconstruction' is \(14, 15, 1\), but its input is \(15,"),
        (two_inputs, "several inputs"),
        *(
            (lambda shape=shape: dense(4, shape), rf"takes \({shape[0]},.* but the images are \(15, 15, 1\)")
            for shape in ((28, 28, 1), (SIZE, SIZE, 3), (SIZE * SIZE,), (SIZE, 28))
        ),
        (lambda: lambda images: images @ images[0, 0, 0, :0], "the model does not take images"),
        (lambda: lambda images: np.zeros((1, 4)), r"returns \(1, 4\) for 2 images"),
        (lambda: lambda images: "a 3", "the model"),
    ],
)
def test_other_models_are_refused_in_one_line(model, message):
    with pytest.raises(UserError, match=message) as refused:
        classifier(model())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("keras_model", [True, False])
def test_scores_that_are_not_finite_are_refused(value, keras_model):
    # Finite on black images, so that the first check passes; not on the 40 of class 8, whose centre is .8.
    def scores(images):
        centre = images[:, SIZE // 2, SIZE // 2]
        return ops.where(centre > 0.7, value, 0.0) + ops.convert_to_tensor([[0.0, 1.0, 2.0, 3.0]])

    model = keras.Sequential([keras.Input(SHAPE), layers.Lambda(scores)]) if keras_model else scores
    with pytest.raises(UserError, match=r"^the model's scores for 40 images are not finite$"):
        predict(model, COARSE)


# Reconstructions


@pytest.mark.parametrize("batch", [512, 32], ids=["one batch", "parts of batches"])
def test_errors_of_reconstruction(monkeypatch, batch):
    monkeypatch.setattr(classify, "BATCH", batch)
    predictions = predict(drawing(lambda images: images * 0.0))
    for row, label in enumerate(CLASSES):
        chosen = IMAGES[label == LABELS].astype("float32") / 255
        for column, angle in enumerate(GRID):
            rotated = np.asarray(rotate(chosen, np.full(len(chosen), angle, "float32")))
            # Of the images padded to a full batch none is counted. Float32 means of 225 numbers.
            assert abs(predictions.errors[row, column] - (rotated**2).mean()) < 1e-6
    # The four classes differ in their centre, so that rows cannot be mixed up.
    assert (np.diff(predictions.errors[:, 0]) > 1e-4).all()
    # A perfect reconstruction has no error, and does not change the answers.
    perfect = predict(drawing(lambda images: images))
    np.testing.assert_array_equal(perfect.errors, np.zeros((4, 24)))
    np.testing.assert_array_equal(perfect.accuracy, 1.0)


def test_models_without_a_reconstruction_have_no_errors():
    predictions = predict(drawing(lambda images: images, "other"), COARSE)
    assert predictions.errors is None and "reconstruction" not in proportions(predictions, TASK)


def test_reconstruct():
    images, angles = IMAGES[:5], np.array([0.0, 90.0, -30.0, 180.0, 33.0], "float32")
    rotated, drawn, chosen = classifier(drawing(lambda images: 1.0 - images)).reconstruct(images, angles)
    np.testing.assert_allclose(rotated, rotate(images.astype("float32") / 255, angles), rtol=0, atol=1e-6)  # float32
    np.testing.assert_allclose(rotated[1], np.rot90(images[1].astype("float32") / 255), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(drawn, 1.0 - rotated)
    np.testing.assert_array_equal(np.array(CLASSES)[chosen], LABELS[:5])


DIGITS = (1, 3, 4)
SMALL = Data("small", noise(30, 6, 6, 1, spread=(0, 1)), np.resize(DIGITS, 30), noise(30, 6, 6, 1, spread=(0, 1), seed=1),
             np.resize(DIGITS, 30), "small")  # fmt: skip


def capsule_network():
    """A network of plain layers, whose decoder is linear: (3, 4) -> 36 pixels."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    capsules = layers.Reshape((3, 4))(layers.Dense(12)(layers.Flatten()(inputs)))
    masked = keras.Input((12,))
    return CapsuleNetwork(
        keras.Model(inputs, [capsules, Length()(capsules)]),
        keras.Model(masked, layers.Reshape((6, 6, 1))(layers.Dense(36)(masked))),
    )


def test_sweep():
    model, image = capsule_network(), SMALL.x_test[0]
    # Moved by 100, another capsule would be the longest.
    offsets = [-0.25, 0.0, 0.5, 100.0]
    drawn = sweep(model, image / np.float32(255), offsets)
    assert drawn.shape == (4, 4, 6, 6, 1)
    one = Classifier(model, TASK, (6, 6, 1), 3)
    _, plain, [chosen] = one.reconstruct(image[None], np.zeros(1, "float32"))
    weights = model.decoder.trainable_weights[0].numpy()
    assert np.abs(weights).max() > 0.1
    for dimension in range(4):
        # The decoder is linear: what is added is the offset times a row of its weights.
        row = weights[4 * chosen + dimension].reshape(6, 6, 1)
        for number, offset in enumerate(offsets):
            # Float32, relative to the largest term.
            tolerance = 1e-6 * max(1, abs(offset))
            np.testing.assert_allclose(drawn[dimension, number], plain[0] + offset * row, rtol=0, atol=tolerance)


# Redraws


class ByAngle:
    """Answers from labels and angles: right within ±60 degrees, elsewhere the next class. Images are outputs' indices."""

    def __init__(self, task=TASK):
        self.task, self.asked = task, []

    def batches(self, images):
        return images

    def answers(self, images, parameters):
        self.asked.append(parameters)
        right = np.abs((parameters + 180) % 360 - 180) < 60
        return np.where(right, images, (images + 1) % 4), None


OUTPUTS = np.searchsorted(CLASSES, LABELS)


def redraws(number, seed=0, upright_last=0, model=None):
    evaluation = Evaluation(15, redraws=number, seed=seed, upright_last=upright_last)
    return classify.redraws(model or ByAngle(), OUTPUTS, LABELS, CLASSES, evaluation)


def test_redraws_agree_with_the_grid():
    # As on the grid: P_test 2/3, P_out 1/9; of the free classes 1 (10 of 50 images) is taken for 3, beyond 60 degrees.
    drawn, number = redraws(50), 50
    expected = {"p_test": (50 + 50 / 3) / 100, "p_in": 1.0, "p_out": 1 / 9, "p_inv": 0.0, "false_alarms": 0.2 * 8 / 9}
    assert set(drawn) == set(expected) == set(METRICS)
    for key, p in expected.items():
        images = 100 if key == "p_test" else 50
        # Drawings and images are independent: binomial with all of them at most; five deviations.
        error = 5 * np.sqrt(p * (1 - p) / (number * images))
        assert abs(drawn[key]["mean"] - p) <= error + ROUNDING, key
        assert drawn[key]["redraws"] == number
    # The variance of a share of 50 independent images; its own relative error is about sqrt(2 / 49) = .2.
    assert 0.3 < drawn["p_out"]["variance"] / (1 / 9 * 8 / 9 / 50) < 2
    assert drawn["p_in"]["variance"] == drawn["p_inv"]["variance"] == 0.0


def test_redraws_are_reproducible():
    assert redraws(3) == redraws(3) != redraws(3, seed=1)
    # Draw numbers are those of the committed redraws: four test sets a drawing, whatever the number of metrics.
    model = ByAngle()
    redraws(2, seed=5, model=model)
    chosen, ranges = np.isin(LABELS, (3, 4)), Ranges(TASK.outside)
    for draw in range(2):
        positions = (draw * 4 + list(METRICS).index("p_out")) * 100 + np.flatnonzero(chosen)
        angles = Rotation().draw(ranges, 5, ops.cast(positions, "int64"), LABELS[chosen], random.EVALUATION)
        np.testing.assert_array_equal(model.asked[draw * len(METRICS) + 2], angles)


def test_last_images_upright_are_a_constant_of_the_redraws():
    # Of the 50 images of 3 and 4 the last 20 are not rotated, and always right.
    usual, drawn = redraws(20), redraws(20, upright_last=20)
    assert drawn["p_test"] == usual["p_test"] and drawn["false_alarms"] == usual["false_alarms"]
    assert (usual["p_inv"]["mean"], drawn["p_inv"]["mean"]) == (0.0, 0.4)
    assert drawn["p_inv"]["variance"] < 1e-30
    # 30 of 50 images are recognised in a ninth of the range: a standard error of .045 / sqrt(20), five of them.
    assert drawn["p_out"]["mean"] == pytest.approx(0.4 + 0.6 / 9, abs=0.05)
    every = redraws(2, upright_last=50)
    assert every["p_out"]["mean"] == every["p_inv"]["mean"] == 1.0
    for wrong in (51, -1):
        with pytest.raises(UserError, match=rf"--upright-last must be between 0 and 50, .* received {wrong}"):
            redraws(2, upright_last=wrong)


def test_one_redraw_without_restricted_classes():
    drawn = redraws(1, model=ByAngle(Recognition(Rotation(), Ranges(((-50, 50),)))))
    assert drawn["p_test"] == {"mean": 1.0, "variance": 0.0, "redraws": 1}
    assert all(drawn[key] is None for key in METRICS if key != "p_test")


# Everything together


def test_measure_with_redraws_and_few_images():
    evaluation = Evaluation(15, images_per_class=5, redraws=2)
    measured = TASK.measure(right_between(-60, 60), DATA, CLASSES, evaluation)
    assert measured.metrics["images"]["p_test"] == 20 and measured.metrics["redraws"]["p_in"]["mean"] == 1.0
    assert measured.summary() == "P_test 0.6667, P_in 1.0000, P_out 0.1111, P_inv 0.0000, false alarms 0.4444"
    first, *lines = str(measured).splitlines()
    assert first == TASK.title() and len(lines) == 5
    assert lines[1].startswith("P_in     1.0000 (95 % over images 0.7225 to 1.0000)  2 redraws: mean 1.0000, variance ")
    assert set(measured.tables) == {"curves.csv", "predictions.csv"}
    plain = FREE.measure(always_8(), DATA, CLASSES, Evaluation(90))
    assert "redraws" not in plain.metrics and plain.summary() == "P_test 0.4000, gives the same answer to every image"
    with pytest.raises(UserError, match="must divide 360"):
        TASK.measure(always_8(), DATA, CLASSES, Evaluation(7))
    # For measuring speed.
    answers, errors = TASK.evaluator(right_between(-60, 60), IMAGES, CLASSES)(30.0)
    np.testing.assert_array_equal(answers, OUTPUTS)
    assert errors is None


def test_map_over_both_shifts_on_a_canvas():
    """A model that is right where the centre of the image is in the middle of the canvas; over both shifts."""
    task = Recognition(Shift((21, 21)), Ranges(((-3, 4),), {3: ((-1, 2),)}), inverted=((-3, -1), (2, 4)))

    def model(images):
        # The pixel (10, 11) holds the centre at dy = 0, dx = 1.
        value = images[:, 10, 11, 0] * 5
        right = (value > 0.5) & (np.abs(value - np.round(value)) < 1e-3)
        return np.eye(4)[np.where(right, np.round(value) - 1, 0).astype(int)]

    measured = task.measure(model, DATA, CLASSES, Evaluation(1))
    # dy = dx is never so.
    assert measured.metrics["p_in"] == measured.metrics["p_out"] == measured.metrics["p_inv"] == 0.0
    values, points = measured.accuracy_map
    np.testing.assert_array_equal(points, np.arange(-3, 4))
    expected = np.zeros((7, 7))
    expected[3, 4] = 1.0
    np.testing.assert_array_equal(values, expected)
    rows = measured.tables["map.csv"]
    assert len(rows) == 49 and {"dy": 0, "dx": 1, "value": 1.0} in rows


@pytest.fixture
def sheets(monkeypatch):
    """What figures of reconstructions are given; no figure is drawn."""
    given = []
    for name in ("accuracy_by_parameter", "error_of_reconstruction", "taken_for", "parameter_map", "dimensions"):
        monkeypatch.setattr(figures, name, lambda *_, **__: None)
    monkeypatch.setattr(figures, "reconstructions", lambda *each: given.append(each))
    return given


SOME = Recognition(Rotation(), Ranges(((0, 360),), {3: ((-45, 45),)}), inverted=((135, 225),))
CURVES = {"accuracy_by_angle.png", "reconstruction_by_angle.png"}
RECONSTRUCTIONS = {f"reconstructions_{name}.png" for name in ("in_range", "one_in_range", "one_outside", "inverted")}


@pytest.mark.parametrize(
    ("model", "task", "names"),
    [
        (lambda: dense(3, (6, 6, 1)), SOME, {"accuracy_by_angle.png", "taken_for.png"}),
        (capsule_network, SOME, {*CURVES, *RECONSTRUCTIONS, "taken_for.png", "dimensions.png"}),
        (capsule_network, FREE, {*CURVES, "reconstructions_in_range.png", "dimensions.png"}),
        # Nothing over angles, of which there is one.
        (
            capsule_network,
            Recognition(Rotation(), Ranges(((0, 0),))),
            {"reconstructions_in_range.png", "dimensions.png"},
        ),
        (
            lambda: dense(3, (8, 8, 1)),
            Recognition(Shift((8, 8)), Ranges(((-2, 3),), {3: ((0, 1),)})),
            {"accuracy_by_shift.png", "taken_for.png", "map.png"},
        ),
    ],
    ids=["plain", "reconstructions", "free", "upright", "shift"],
)
def test_figures(sheets, model, task, names):
    spacing = 45 if isinstance(task.transformation, Rotation) else 1
    measured = task.measure(model(), SMALL, DIGITS, Evaluation(spacing))
    found = [picture.name for picture in measured.figures("t")]
    assert sorted(found) == sorted(names)
    # Reports show a selection of them.
    if task is SOME and "dimensions.png" in names:
        assert set(task.pictures()) - {"map.png"} <= names and len(task.pictures()) == 6
    assert ("reconstruction.csv" in measured.tables) == ("reconstructions_in_range.png" in names)


def test_reconstructions_are_drawn_in_and_out_of_range(sheets):
    list(SOME.measure(capsule_network(), SMALL, DIGITS, Evaluation(45)).figures("t"))
    everything, inside, outside, inverted = sheets
    for inputs, drawn, captions, right, _ in sheets:
        assert len(inputs) == len(drawn) == len(captions) == len(right)
        # Red is what is not taken for its own class.
        assert [caption.split(",")[0] == answer for caption, answer in captions] == right

    def labelled(sheet):
        return [tuple(map(int, caption.rstrip("°").split(", "))) for caption, _ in sheet[2]]

    # Restricted classes in their training range; the free ones beyond it, too.
    angles = {digit: [angle for label, angle in labelled(everything) if label == digit] for digit in DIGITS}
    assert all(len(each) == 5 for each in angles.values()) and max(map(abs, angles[3])) <= 45
    assert max(angles[1]) > 180
    for sheet, count, pairs in ((inside, 12, SOME.inside), (outside, 12, SOME.outside), (inverted, 10, SOME.inverted)):
        assert {label for label, _ in labelled(sheet)} == {3} and len(sheet[0]) == count
        assert contains(pairs, [angle for _, angle in labelled(sheet)]).all()
