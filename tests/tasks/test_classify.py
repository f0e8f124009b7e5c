"""Classifiers: what they answer, redraws by hand, forms of models, and what is kept of a measured classifier."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from invariance import figures, random
from invariance.datasets import Data
from invariance.errors import UserError
from invariance.layers.capsules import Length
from invariance.models.capsule_network import CapsuleNetwork
from invariance.ranges import Ranges, contains
from invariance.tasks import Recognition, classify
from invariance.tasks.classify import Classifier, predict, sweep
from invariance.tasks.metrics import METRICS
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Scaling, Shear, Shift
from tests.helpers import noise, transformed

# Labels are not 0, 1, 2, ... so that labels and outputs cannot be mixed up. Classes have unequal numbers of images.
CLASSES, PER_CLASS, SIDE = (1, 3, 4, 8), (10, 20, 30, 40), 15
FULL, PART, INVERTED = ((0, 360),), ((-45, 45),), ((135, 225),)
TASK = Recognition(Rotation(), Ranges(FULL, {3: PART, 4: PART}), inverted=INVERTED)
FREE, UPRIGHT = Recognition(Rotation(), Ranges(FULL)), Recognition(Rotation(), Ranges(((0, 0),)))
SCALED = Recognition(Scaling(), Ranges(((0.5, 2),), {3: ((0.8, 1.25),), 4: ((0.8, 1.25),)}), inverted=((0.5, 0.6),))
SHIFTED = Recognition(Shift((21, 21)), Ranges(((-3, 4),), {3: ((-1, 2),)}), inverted=((-3, -1), (2, 4)))


def images_and_labels():
    """Images whose centre tells the label (a fifth of 255 a class) and whose mark above the centre tells the angle."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    mark = 100 * np.exp(-((rows + 5) ** 2 + columns**2) / (2 * 1.2**2))
    labels = np.random.default_rng(0).permutation(np.repeat(CLASSES, PER_CLASS))
    images = np.repeat(np.round(mark)[None], len(labels), axis=0)
    # The centre of an odd-sized image is rotated onto itself exactly.
    images[:, SIDE // 2, SIDE // 2] = 51 * (1 + np.searchsorted(CLASSES, labels))
    return images[..., None].astype("uint8"), labels


IMAGES, LABELS = images_and_labels()
ROWS = np.searchsorted(CLASSES, LABELS)
# Training images are others: they must not be measured.
DATA = Data("marks", np.zeros_like(IMAGES[:4]), np.array(CLASSES), IMAGES, LABELS, "test")


@pytest.fixture
def eager():
    """Nothing is compiled: for what takes longer to compile than to compute."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def right_between(low, high):
    """A model that is right where the mark stands at angles in [low, high), and else answers with the next class."""
    rows, columns = (values.reshape(-1).astype("float32") for values in np.mgrid[:SIDE, :SIDE] - SIDE // 2)

    def read(images):
        pixels = ops.reshape(images[..., 0], (-1, SIDE * SIDE))
        label = ops.round(pixels[:, SIDE * SIDE // 2] * 5.0) - 1.0
        angle = ops.arctan2(ops.sum(-pixels * columns, axis=-1), ops.sum(-pixels * rows, axis=-1)) * (180.0 / np.pi)
        right = ops.logical_and(angle >= low, angle < high)
        return ops.one_hot(ops.cast(ops.where(right, label, ops.mod(label + 1.0, 4.0)), "int32"), 4)

    return keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Lambda(read)])


def dense():
    """Logits: of value v = (k + 1) / 5 in the centre, class k has 2 v_k v - v_k^2 = v^2 - (v - v_k)^2."""
    values = (np.arange(4) + 1) / 5
    kernel, bias = (keras.initializers.Constant(each.astype("float32")) for each in (2 * values[None], -(values**2)))
    return layers.Dense(4, kernel_initializer=kernel, bias_initializer=bias)


def centre():
    return layers.Cropping2D(SIDE // 2), layers.GlobalAveragePooling2D(), dense()


def reads_the_centre(*first, shape=(SIDE, SIDE, 1)):
    """A perfect classifier of plain layers."""
    return keras.Sequential([keras.Input(shape), *first, *centre()])


def several(**outputs):
    inputs = keras.Input((SIDE, SIDE, 1))
    return keras.Model(inputs, {name: model(inputs) for name, model in outputs.items()})


def drawing(decode, name="reconstruction"):
    """The perfect classifier, with a second output that is a function of what it sees."""
    return several(scores=reads_the_centre(), **{name: layers.Lambda(decode)})


def classifier(model, task=TASK, **options):
    return Classifier(model, task, (SIDE, SIDE, 1), 4, **options)


def capsules(shape=(SIDE, SIDE, 1), classes=4):
    """A capsule network of plain layers, whose decoder is linear: (classes, 4) -> pixels."""
    keras.utils.set_random_seed(0)
    inputs, masked = keras.Input(shape), keras.Input((4 * classes,))
    poses = layers.Reshape((classes, 4))(layers.Dense(4 * classes)(layers.Flatten()(inputs)))
    drawn = layers.Reshape(shape)(layers.Dense(int(np.prod(shape)))(masked))
    return CapsuleNetwork(keras.Model(inputs, [poses, Length()(poses)]), keras.Model(masked, drawn))


# Answers


def test_answers_are_counted_by_class_point_and_output():
    """Compiled as in a run: right from 45 degrees clockwise to 90 counter-clockwise."""
    points = TASK.points(15)
    found = predict(classifier(right_between(-45, 90)), IMAGES, LABELS, CLASSES, points)
    expected = np.zeros((4, 24, 4), int)
    for row, number in enumerate(PER_CLASS):
        for column, angle in enumerate(points):
            expected[row, column, row if -45 < angle < 90 else (row + 1) % 4] = number
    np.testing.assert_array_equal(found.counts, expected)
    assert (found.classes, found.errors, found.transformation) == (CLASSES, None, Rotation())
    np.testing.assert_array_equal(found.points, points)


KINDS = {
    "rotation": (Rotation(), FULL, 45),  # odd multiples of 22.5 degrees
    "scaling": (Scaling(), ((0.5, 2),), 0.5),
    "shear": (Shear(), ((-1, 1),), 0.5),
    "shift": (Shift((17, 19)), ((-3, 4),), 2),
}


@pytest.mark.parametrize(
    ("name", "pixels"),
    [*((name, (0.0, 1.0)) for name in KINDS), *(("rotation", pixels) for pixels in ((-1, 1), (0, 255), (1.0, 0.0)))],
)
@pytest.mark.parametrize("form", ["keras", "callable"])
def test_answers_and_errors_agree_with_scipy(monkeypatch, name, pixels, form):
    """A linear model, which draws the same grey everywhere, on noise; 42 images in batches of 16."""
    monkeypatch.setattr(classify, "BATCH", 16)
    kind, full, spacing = KINDS[name]
    task, (low, high) = Recognition(kind, Ranges(full)), pixels
    images, labels = noise(42, 9, 11, 1, spread=(0, 256)).astype("uint8"), np.resize(CLASSES, 42)
    shape = kind.output_shape((9, 11, 1))
    weights, grey = noise(np.prod(shape), 4) / (high - low), low + (high - low) / 4
    if form == "keras":
        scores = layers.Dense(4, use_bias=False, kernel_initializer=lambda shape, dtype: ops.cast(weights, dtype))
        inputs = keras.Input(shape)
        outputs = scores(layers.Flatten()(inputs)), layers.Lambda(lambda given: 0.0 * given + grey)(inputs)
        model = keras.Model(inputs, dict(zip(("scores", "reconstruction"), outputs, strict=True)))
    else:

        def model(given):
            assert type(given) is np.ndarray and given.dtype == np.float32
            return {"scores": given.reshape(len(given), -1) @ weights, "reconstruction": 0 * given + grey}

    evaluation = Evaluation(spacing, pixels=pixels)
    found = task.measure(model, Data("noise", images, labels, images, labels, "test"), CLASSES, evaluation).predictions
    assert len(found.points) >= 4
    at = task.evaluator(model, images, CLASSES)
    for column, point in enumerate(found.points):
        seen = np.stack([transformed(kind, image, point) for image in images[..., 0] / 255])
        scores = (seen * (high - low) + low).reshape(42, -1) @ weights.astype("float64")
        # Sums of 100 to 323 products up to 4 in float32: no answer depends on their rounding.
        assert np.diff(np.sort(scores, axis=-1)[:, -2:]).min() > 1e-3
        expected, errors = np.zeros((4, 4), int), ((seen - 0.25) ** 2).mean(axis=(1, 2))
        np.add.at(expected, (np.searchsorted(CLASSES, labels), scores.argmax(axis=-1)), 1)
        np.testing.assert_array_equal(found.counts[:, column], expected)
        by_class = [errors[labels == label].mean() for label in CLASSES]
        # Pixels are interpolated to 3e-5; they are at most .75 from grey.
        np.testing.assert_allclose(found.errors[:, column], by_class, rtol=0, atol=5e-5)
        if pixels == (0.0, 1.0):
            # What is timed is what is measured.
            answers, own = at(point)
            np.testing.assert_array_equal(answers, scores.argmax(axis=-1))
            np.testing.assert_allclose(own, errors, rtol=0, atol=5e-5)


def test_reconstructions(eager):
    """Each image at an angle of its own, drawn twice as bright, in the model's own pixels."""
    images, points = (
        noise(5, SIDE, SIDE, 1, spread=(0, 256)).astype("uint8"),
        np.array([0, 90, -30, 180, 33], "float32"),
    )
    images[:, SIDE // 2, SIDE // 2, 0] = [51, 102, 204, 153, 51]
    expected = [transformed(Rotation(), *each) for each in zip(images[..., 0] / 255, points, strict=True)]
    for pixels in ((0.0, 1.0), (-1.0, 1.0)):
        given = classifier(drawing(lambda seen, low=pixels[0]: 2.0 * (seen - low) + low), pixels=pixels)
        seen, drawn, outputs = given.reconstruct(images, points)
        np.testing.assert_allclose(seen[..., 0], expected, rtol=0, atol=3e-5)  # see test_warp
        np.testing.assert_allclose(drawn, 2 * seen, rtol=0, atol=1e-6)  # float32
        answers, errors = given.answers(given.batches(images), points)
        np.testing.assert_array_equal(answers, outputs)
        np.testing.assert_allclose(errors, np.square(expected).mean(axis=(1, 2)), rtol=0, atol=5e-5)
        assert pixels[0] or outputs.tolist() == [0, 1, 3, 2, 0]
    # Classes without images have no errors.
    found = predict(given, images, np.array([1, 3, 1, 3, 1]), CLASSES, np.array([0.0]))
    assert found.images.tolist() == [3, 2, 0, 0] and (found.errors[:, 0] > 0).tolist() == [True, True, False, False]
    # Another name is not a reconstruction.
    assert classifier(drawing(ops.negative, "other")).answers(given.batches(images), points)[1] is None


def test_sweep_moves_the_capsule_that_was_the_longest():
    model, image, offsets = capsules((6, 6, 1), 3), noise(6, 6, 1, spread=(0, 1)), [-0.25, 0.0, 0.5, 100.0]
    poses, lengths = (np.asarray(each)[0] for each in model.encoder(image[None]))
    drawn, chosen = sweep(model, image, offsets), lengths.argmax()
    assert drawn.shape == (4, 4, 6, 6, 1)
    weights = model.decoder.trainable_weights[0].numpy()
    assert np.abs(weights).max() > 0.1
    plain = poses[chosen] @ weights[4 * chosen : 4 * chosen + 4]
    for dimension in range(4):
        for number, offset in enumerate(offsets):
            # The decoder is linear: what is added is the offset times a row of its weights. Even if moved far, when
            # another capsule may be the longest.
            expected = (plain + offset * weights[4 * chosen + dimension]).reshape(6, 6, 1)
            np.testing.assert_allclose(drawn[dimension, number], expected, rtol=1e-6, atol=2e-6)  # float32


# Redraws


class Recorded(Classifier):
    """Right wherever the parameter's distance from the identity is small; keeps all parameters. No model is asked."""

    def batches(self, images):
        return images

    def answers(self, batches, parameters):
        self.given.append(parameters)
        rows = np.round(batches[:, SIDE // 2, SIDE // 2, 0] / 51).astype(int) - 1
        return np.where(self.right(parameters), rows, (rows + 1) % 4), None

    def right(self, parameters):
        identity = self.task.transformation.identity
        return abs(parameters - identity) < (60 if identity == 0 else 0.3)


@pytest.mark.parametrize("last", [0, 20])
@pytest.mark.parametrize("task", [TASK, replace(TASK, inverted=()), SCALED], ids=["rotation", "no P_inv", "scaling"])
def test_redraws_by_hand(task, last):
    """Of n images, the i-th has position (4 d + w) n + i in drawing d for the w-th of the metrics that are measured."""
    given = Recorded(lambda images: np.zeros((len(images), 4)), task, (SIDE, SIDE, 1), 4)
    given.given = []
    found = classify.redraws(given, IMAGES, LABELS, CLASSES, Evaluation(15, redraws=3, seed=7, upright_last=last))
    full, part = task.ranges.default, task.inside
    metrics = {
        "p_test": {1: full, 3: part, 4: part, 8: full},
        "p_in": {3: part, 4: part},
        "p_out": {3: task.outside, 4: task.outside},
        **({"p_inv": {3: task.inverted, 4: task.inverted}} if task.inverted else {}),
        "false_alarms": {1: task.outside, 8: task.outside},
    }
    assert len(given.given) == 3 * len(metrics) and set(found) == set(METRICS)
    shares, parameters = {key: [] for key in metrics}, iter(given.given)
    for drawing in range(3):
        for number, (key, ranges) in enumerate(metrics.items()):
            rows = np.flatnonzero(np.isin(LABELS, list(ranges)))
            positions = ops.cast((4 * drawing + number) * 100 + rows, "int64")
            own = Ranges(next(iter(ranges.values())), ranges)
            expected = np.array(task.transformation.draw(own, 7, positions, LABELS[rows], random.EVALUATION))
            if last and key in ("p_in", "p_out", "p_inv"):
                expected[-last:] = task.transformation.identity
            np.testing.assert_array_equal(next(parameters), expected)
            right = given.right(expected)
            # If it is wrong, 1 is taken for 3, and 8 for 1.
            shares[key].append(np.mean(~right & (LABELS[rows] == 1) if key == "false_alarms" else right))
    for key, values in shares.items():
        # Float64 means of three numbers.
        assert found[key] == pytest.approx(
            {"mean": np.mean(values), "variance": np.var(values, ddof=1), "redraws": 3}, rel=0, abs=1e-12
        )
    assert task.inverted or found["p_inv"] is None
    assert len(set(shares["p_test"])) > 1  # drawings differ


def test_redraws_agree_with_the_grid(eager):
    model, number = right_between(-60, 60), 10
    found = TASK.measure(model, DATA, CLASSES, Evaluation(15, redraws=number)).metrics
    for key, images in found["images"].items():
        p, drawn = found[key], found["redraws"][key]
        # Drawings and images are independent: binomial with all of them. The angle read from the mark is wrong by
        # less than half a degree, at two ends of a range of 90 or more.
        error = 5 * np.sqrt(p * (1 - p) / (number * images)) + (0.0 if key in ("p_in", "p_inv") else 1 / 90)
        assert abs(drawn["mean"] - p) <= error + 1e-12
    assert found["redraws"]["p_in"] == {"mean": 1.0, "variance": 0.0, "redraws": number}


def test_one_redraw_and_too_many_upright_images(eager):
    given = classifier(reads_the_centre(), FREE)
    found = classify.redraws(given, IMAGES, LABELS, CLASSES, Evaluation(15, redraws=1))
    assert found.pop("p_test") == {"mean": 1.0, "variance": 0.0, "redraws": 1} and set(found.values()) == {None}
    for last in (51, -1):
        with pytest.raises(UserError, match=rf"^--upright-last must be between 0 and 50, [^\n]* received {last}$"):
            TASK.measure(reads_the_centre(), DATA, CLASSES, Evaluation(15, redraws=2, upright_last=last))


# A user's own model


def flat():
    images = keras.Input((SIDE, SIDE))
    return keras.Model(images, {"scores": reads_the_centre(layers.Reshape((SIDE, SIDE, 1)), shape=(SIDE, SIDE))(images),
                                "reconstruction": layers.Activation("linear")(images)})  # fmt: skip


MODELS = {
    "logits": reads_the_centre,
    "probabilities": lambda: keras.Sequential([reads_the_centre(), layers.Softmax()]),
    "one output fits": lambda: several(other=layers.Flatten(), answer=reads_the_centre()),
    "named scores": lambda: several(constant=right_between(0, 0), scores=reads_the_centre()),
    "a list": lambda: lambda images: [images, np.asarray(reads_the_centre()(images))],
    # Without a declared input; variables are made by the first call.
    "not built": lambda: keras.Sequential([*centre()]),
    # New batch norm divides by sqrt(1 + 1e-3): the centre's value moves by .0005, far from the next class' .2.
    "dropout and batch norm": lambda: reads_the_centre(layers.Dropout(0.9), layers.BatchNormalization()),
    "of any size": lambda: reads_the_centre(shape=(None, None, 1)),
    "without a channel axis": flat,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_model(eager, name):
    found = predict(classifier(MODELS[name]()), IMAGES, LABELS, CLASSES, [-67.5, 10])
    np.testing.assert_array_equal(found.counts, np.repeat(np.diag(PER_CLASS)[:, None], 2, axis=1))
    assert found.errors is None or (name == "without a channel axis" and not found.errors.any())


def two_inputs():
    images, codes = keras.Input((SIDE, SIDE, 1)), keras.Input((2,))
    return keras.Model([images, codes], layers.Concatenate()([layers.Flatten()(images), codes]))


def with_input(*shape, units=4):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(units)])


def raising(images):
    raise ValueError("first line\nsecond line")


NEEDED = "but one score for each of 4 classes is needed"
REFUSED = {
    "two outputs fit": (lambda: several(a=reads_the_centre(), b=reads_the_centre()), "name one of them 'scores'$"),
    "scores do not": (lambda: several(scores=layers.Flatten(), b=reads_the_centre()), rf"scores \(2, 225\).* {NEEDED}"),
    "two inputs": (two_inputs, "several inputs"),
    "raises": (lambda: raising, r"the model does not take images \(15, 15, 1\)"),
    "another count": (lambda: lambda images: np.zeros((3, 4)), rf"returns \(3, 4\) for 2 images, {NEEDED}"),
    "images": (lambda: keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Conv2D(4, 3)]), NEEDED),
    "one score": (lambda: with_input(SIDE, SIDE, 1, units=1), rf"\(2, 1\) for 2 .*{NEEDED}"),
    "ten scores": (lambda: with_input(SIDE, SIDE, 1, units=10), rf"\(2, 10\) for 2 .*{NEEDED}"),
    "larger": (lambda: with_input(28, 28, 1), r"\(28, 28, 1\), but the images are \(15, 15, 1\)"),
    "colours": (lambda: with_input(SIDE, SIDE, 3), r"\(15, 15, 3\), but the images are \(15, 15, 1\)"),
    "flat": (lambda: with_input(SIDE * SIDE), r"\(225,\), but the images are \(15, 15, 1\)"),
    "reconstruction": (
        lambda: drawing(lambda images: images[:, 1:]),
        r"^the model's output 'reconstruction' is \(14, 15, 1\), but its input is \(15, 15, 1\)$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_in_one_line(eager, name):
    model, message = REFUSED[name]
    model = model()
    with pytest.raises(UserError, match=message) as refused:
        classifier(model)
    assert "\n" not in str(refused.value)
    # Before a run begins, too.
    with pytest.raises(UserError, match=message):
        TASK.require_outputs(model, (SIDE, SIDE, 1), CLASSES)


def test_colour_images_have_channels():
    with pytest.raises(UserError, match=r"takes \(15, 15\), but the images are \(15, 15, 3\)"):
        Classifier(with_input(SIDE, SIDE), TASK, (SIDE, SIDE, 3), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(eager, value):
    """One score of each image of the classes 1 and 3 is not finite, nor those of black ones, which fill the batch."""

    def model(images):
        scores = np.zeros((len(images), 4))
        scores[:, 2] = np.where(images[:, SIDE // 2, SIDE // 2, 0] < 0.5, -value, 0.0)
        return scores

    with pytest.raises(UserError, match=r"^the model's scores for 30 images are not finite$"):
        TASK.measure(model, DATA, CLASSES, Evaluation(45))


@pytest.mark.parametrize("pixels", [(1.0, 1.0), (0.0,), (0, 0.5, 1)])
def test_pixels_are_two_different_numbers(pixels):
    with pytest.raises(UserError, match=r"^pixels: two different numbers, for black and white, are needed; received "):
        classifier(reads_the_centre(), pixels=pixels)


def test_images_and_labels_must_fit(eager):
    given, points = classifier(reads_the_centre()), np.array([10.0])
    for labels, classes in ((LABELS[:-1], CLASSES), (LABELS, (1, 3, 4, 9)), (LABELS, (3, 1, 4, 8))):
        with pytest.raises(
            UserError, match=r"^one label per image, all among ascending classes, is needed; there are "
        ):
            predict(given, IMAGES, labels, classes, points)
    with pytest.raises(UserError, match=r"^the images are \(14, 15, 1\), but"):
        predict(given, IMAGES[:, 1:], LABELS, CLASSES, points)


# What is kept


@pytest.fixture
def sheets(monkeypatch):
    """A function: the figures of what was measured, as name -> arguments. Nothing is drawn."""
    for name in ("accuracy_by_parameter", "error_of_reconstruction", "taken_for", "parameter_map", "reconstructions",
                 "dimensions"):  # fmt: skip
        monkeypatch.setattr(figures, name, lambda *arguments, **_: arguments)
    return lambda measured: {each.name: each.figure for each in measured.figures("title")}


CURVES, IN_RANGE = {"accuracy_by_angle.png", "reconstruction_by_angle.png"}, "reconstructions_in_range.png"
CLOSE = {"reconstructions_one_in_range.png", "reconstructions_one_outside.png"}
OUTSIDE = {*CLOSE, "reconstructions_inverted.png", "taken_for.png"}
# Out of the range of all classes, so that nothing is left for P_out.
BEYOND = Recognition(Rotation(), Ranges(PART, {3: PART}), inverted=INVERTED)


@pytest.mark.parametrize(
    ("task", "model", "names"),
    [
        (TASK, reads_the_centre, {"accuracy_by_angle.png", "taken_for.png"}),
        (TASK, capsules, {*CURVES, IN_RANGE, *OUTSIDE, "dimensions.png"}),
        (TASK, lambda: drawing(ops.negative), {*CURVES, IN_RANGE, *OUTSIDE}),
        (BEYOND, lambda: drawing(ops.negative), {*CURVES, IN_RANGE, *OUTSIDE}),
        # Nothing is out of range.
        (FREE, lambda: drawing(ops.negative), {*CURVES, IN_RANGE}),
        (replace(FREE, ranges=Ranges(FULL, {3: FULL})), lambda: drawing(ops.negative), {*CURVES, IN_RANGE}),
        (FREE, reads_the_centre, {"accuracy_by_angle.png"}),
        (UPRIGHT, reads_the_centre, set()),
        (UPRIGHT, lambda: drawing(ops.negative), {IN_RANGE}),
        (SHIFTED, lambda: lambda images: images[:, 10, :4, 0], {"accuracy_by_shift.png", "taken_for.png", "map.png"}),
        (Recognition(Shift(), Ranges(((-3, 4),))), reads_the_centre, {"accuracy_by_shift.png"}),
    ],
)
def test_figures_tables_and_words(eager, sheets, task, model, names):
    spacing = 2 if task.transformation.whole else 45
    measured = task.measure(model(), DATA, CLASSES, Evaluation(spacing, images_per_class=3, redraws=2))
    metrics = measured.metrics
    assert metrics["images"]["p_test"] == 12 and measured.predictions.points.tolist() == task.points(spacing).tolist()
    assert set(sheets(measured)) == names
    # Reports have a caption for each, except for close looks.
    assert names - CLOSE - {"dimensions.png"} <= set(task.pictures())
    drawn = measured.predictions.errors is not None
    tables = {"curves.csv", "predictions.csv", *["reconstruction.csv"] * drawn, *["map.csv"] * ("map.png" in names)}
    assert set(measured.tables) == tables
    if drawn:
        assert measured.tables["reconstruction.csv"] == measured.predictions.curves(measured.predictions.errors)
    # Words on what was measured, and nothing else.
    known = {key: each.title for key, each in METRICS.items() if metrics[key] is not None}
    warnings = task.warnings(metrics)
    shares = [f"{title} {metrics[key]:.4f}" for key, title in known.items()]
    assert measured.summary() == ", ".join([*shares, *warnings])
    lines = [task.title()]
    for key, title in known.items():
        (low, high), drawings = metrics["interval"][key], metrics["redraws"][key]
        lines.append(f"{title:8} {metrics[key]:.4f} (95 % over images {low:.4f} to {high:.4f})  2 redraws: "
                     f"mean {drawings['mean']:.4f}, variance {drawings['variance']:.2e}")  # fmt: skip
    assert str(measured).splitlines() == [*lines, *warnings]
    columns = [column for column in task.columns(task.restricted) if column.read(metrics) is not None]
    assert [column.key for column in columns] == list(known)


def test_words_of_a_constant_classifier(eager):
    measured = FREE.measure(lambda images: np.eye(4)[[1] * len(images)], DATA, CLASSES, Evaluation(90))
    assert measured.summary() == "P_test 0.2000, gives the same answer to every image"
    # Of 100 images: (.2 + z^2 / 200) / (1 + z^2 / 100) = .2111, plus or minus .0777.
    interval = "(95 % over images 0.1334 to 0.2888)"
    assert measured.lines() == [f"P_test   0.2000 {interval}", "gives the same answer to every image"]


def test_sheets_of_reconstructions(eager, sheets):
    """Each image is labelled with its class, its angle and the answer, and its angle is from the range of its sheet."""
    inputs = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(inputs, {"scores": right_between(-60, 60)(inputs), "reconstruction": layers.ReLU()(inputs)})
    found = sheets(TASK.measure(model, DATA, CLASSES, Evaluation(45)))
    for name, labels, pairs in (
        ("in_range", np.repeat(CLASSES, 4), None),
        ("inverted", [3] * 12 + [4] * 12, INVERTED),
        ("one_in_range", [3] * 12, PART),
        ("one_outside", [3] * 12, TASK.outside),
    ):
        seen, drawn, captions, right, title = found[f"reconstructions_{name}.png"]
        np.testing.assert_array_equal(seen, drawn)
        assert title.startswith("title\n")
        rows = np.rint(seen[:, SIDE // 2, SIDE // 2, 0] * 5).astype(int) - 1
        assert [CLASSES[row] for row in rows] == list(labels)
        for row, (own, answer), each in zip(rows, captions, right, strict=True):
            label, angle = own.removesuffix("°").split(", ")
            assert int(label) == CLASSES[row]
            assert contains(TASK.ranges.of(int(label)) if pairs is None else pairs, [int(angle)], 360, closed=True)[0]
            assert each == (abs((int(angle) + 180) % 360 - 180) < 60)
            assert int(answer) == CLASSES[row if each else (row + 1) % 4]
        assert len({own for own, _ in captions}) == len(labels)


def test_map_over_both_shifts(eager, sheets):
    """A model that is right where an image has been moved by one pixel to the right, and by one or two downwards."""

    def model(images):
        # Row 10 and column 10 hold the centre of an image that has not been moved.
        scores = np.zeros((len(images), 4))
        for row in (11, 12):
            value = images[:, row, 11, 0] * 5
            found = (np.abs(value - np.rint(value)) < 1e-3) & (value > 0.5)
            scores[found, np.rint(value[found]).astype(int) - 1] = 1
        return scores

    measured = SHIFTED.measure(model, DATA, CLASSES, Evaluation(2))
    # Measured at -3, -1, 1 and 3, right at 1, which stands for 1 and 2: of -1, 0, 1 and of -3, -2, 2, 3, one each.
    assert measured.metrics["p_in"] == pytest.approx(1 / 3)
    assert measured.metrics["p_out"] == measured.metrics["p_inv"] == pytest.approx(1 / 4)
    values, points, trained, *_ = sheets(measured)["map.png"]
    expected = np.zeros((7, 7))
    expected[4, 4] = expected[5, 4] = 1.0
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(points, np.arange(-3, 4))
    assert trained == ((-1, 2),)
    rows = measured.tables["map.csv"]
    assert len(rows) == 49 and [(row["dy"], row["dx"]) for row in rows if row["value"]] == [(1, 1), (2, 1)]


def test_map_of_one_point(eager, tmp_path):
    task = Recognition(Shift(), Ranges(((0, 1),), {3: ((0, 1),)}))
    measured = task.measure(reads_the_centre(), DATA, CLASSES, Evaluation(None))
    assert measured.tables["map.csv"] == [{"dy": 0, "dx": 0, "value": 1.0}]
    measured.save(tmp_path, "title")
    assert {path.name for path in tmp_path.iterdir()} == {"curves.csv", "predictions.csv", "map.csv", "map.png"}
