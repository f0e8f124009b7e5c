"""The four proportions on predictors whose values can be derived by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.stats import binomtest

from invariance.errors import UserError
from invariance.layers.capsules import Length
from invariance.models.capsule_network import CapsuleNetwork
from invariance.ranges import Ranges
from invariance.tasks import Recognition, classify
from invariance.tasks.batches import limited
from invariance.tasks.classify import Classifier, sweep
from invariance.tasks.metrics import Predictions, proportions, wilson
from invariance.tasks.task import Evaluation
from invariance.transforms import Rotation, Scaling, Shift
from invariance.warp import rotate

# Labels are not 0, 1, 2, ... so that labels and outputs cannot be mixed up.
CLASSES = (1, 3, 4, 8)
FOUR = ("p_test", "p_in", "p_out", "p_inv")
OUT, INVERTED = ((45, 315),), ((135, 225),)
PROTOCOL = Recognition(Rotation(), Ranges(((0, 360),), {3: ((-45, 45),), 4: ((-45, 45),)}), inverted=INVERTED)


def angle_grid(spacing):
    return Rotation().grid(spacing, (-45, 45))


def predict_grid(model, images, labels, classes, angles):
    classifier = Classifier(model, PROTOCOL, images.shape[1:], len(classes))
    return classify.predict(classifier, images, labels, classes, angles)


def redraws(model, protocol, images, labels, classes, number, seed=0, upright_last=0):
    classifier = Classifier(model, protocol, images.shape[1:], len(classes))
    evaluation = Evaluation(15, redraws=number, seed=seed, upright_last=upright_last)
    return classify.redraws(classifier, images, labels, classes, evaluation)


def reconstruct(model, images, angles, classes=4):
    return Classifier(model, PROTOCOL, images.shape[1:], classes).reconstruct(images, angles)


SIZE = 15
# Images of each class: unequal, so that a mean over classes differs from a mean over images.
PER_CLASS = (10, 20, 30, 40)
TOTAL = 100
GRID = angle_grid(15)

# Proportions are float64 sums of some hundred terms.
ROUNDING = 1e-12


def images_and_labels(per_class=PER_CLASS):
    """Images whose centre tells the label (a fifth of 255 a class) and whose mark above the centre tells the angle."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    mark = 100 * np.exp(-((rows + 5) ** 2 + columns**2) / (2 * 1.2**2))
    labels = np.repeat(CLASSES, per_class)
    labels = np.random.default_rng(0).permutation(labels)
    images = np.repeat(np.round(mark)[None], len(labels), axis=0)
    # The centre of an odd-sized image is rotated onto itself exactly.
    images[:, SIZE // 2, SIZE // 2] = 51 * (1 + np.searchsorted(CLASSES, labels))
    return images[..., None].astype("uint8"), labels


IMAGES, LABELS = images_and_labels()


@keras.saving.register_keras_serializable(package="test_evaluation")
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
    return keras.Sequential([keras.Input((SIZE, SIZE, 1)), ReadAnswer(low, high)])


def reads_the_centre():
    """A perfect classifier of plain layers, with logits.

    Of value v = (k + 1) / 5 in the centre, class k has the score 2 v_k v - v_k^2 = v^2 - (v - v_k)^2: the largest.
    """
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 1)), layers.Cropping2D(SIZE // 2), layers.Flatten(), layers.Dense(len(CLASSES))]
    )
    values = (np.arange(len(CLASSES)) + 1) / 5
    model.layers[-1].set_weights([2 * values[None], -(values**2)])
    return model


def always(label):
    """A model that takes everything for one label."""
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(len(CLASSES), "softmax")])
    model.layers[-1].set_weights([np.zeros((SIZE * SIZE, 4)), np.eye(4)[CLASSES.index(label)]])
    return model


def measured(model, protocol=PROTOCOL, images=IMAGES, labels=LABELS, angles=GRID):
    return proportions(predict_grid(model, images, labels, CLASSES, angles), protocol)


# Proportions


def test_angles_are_the_middles_of_equal_cells():
    np.testing.assert_array_equal(angle_grid(90), [-135, -45, 45, 135])
    assert len(angle_grid(5)) == 72
    # Sums and products of numbers below 180 in float64.
    np.testing.assert_allclose(np.diff(angle_grid(5)), 5.0, atol=1e-12)
    assert not (angle_grid(5) % 90 == 0).any()


@pytest.mark.parametrize("model", [reads_the_centre, lambda: right_between(-181, 181)], ids=["centre", "sector"])
def test_perfect_predictor(model):
    result = measured(model())
    assert result["false_alarms"] == 0.0
    for metric in FOUR:
        assert abs(result[metric] - 1.0) < ROUNDING
    assert result["chance"] == 0.25
    # 3 and 4 have 20 and 30 test images.
    assert result["images"] == {"p_test": TOTAL, "p_in": 50, "p_out": 50, "p_inv": 50, "false_alarms": 50}
    for metric in FOUR:
        number = result["images"][metric]
        np.testing.assert_allclose(result["interval"][metric], wilson(1.0, number), atol=ROUNDING)


def test_constant_predictor():
    # Right for the 40 of 100 images that are an 8, none of which is restricted.
    result = measured(always(8))
    assert abs(result["p_test"] - 0.4) < ROUNDING
    assert result["p_in"] == result["p_out"] == result["p_inv"] == 0.0
    # Right for the 20 images of 3, of 50 restricted ones, at every angle.
    result = measured(always(3))
    for metric, expected in (("p_test", 0.2), ("p_in", 0.4), ("p_out", 0.4), ("p_inv", 0.4)):
        assert abs(result[metric] - expected) < ROUNDING
    np.testing.assert_allclose(result["interval"]["p_in"], wilson(0.4, 50), atol=ROUNDING)


def test_random_predictor_is_at_chance():
    # Orthonormal random weights of mean zero on images of noise: all outputs are equally likely, whatever the label.
    # The weights lie in a disc, into which no turn brings the fill value.
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    disc = (np.hypot(rows, columns) <= SIZE // 2 - 1).reshape(-1)
    weights = np.zeros((SIZE * SIZE, 4))
    weights[disc] = np.linalg.qr(np.c_[np.ones(disc.sum()), rng.normal(size=(disc.sum(), 4))])[0][:, 1:]
    images = rng.integers(0, 256, (400, SIZE, SIZE, 1), dtype="uint8")
    labels = rng.permutation(np.repeat(CLASSES, 100))
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(4, use_bias=False)])
    model.layers[-1].set_weights([weights])
    result = measured(model, images=images, labels=labels)
    for metric in FOUR:
        number = result["images"][metric]
        # Binomial with the number of images: an upper limit, as the mean over angles only lowers the variance.
        assert abs(result[metric] - 0.25) < 5 * np.sqrt(0.25 * 0.75 / number)


def test_predictor_that_is_right_when_upright():
    # All angles of (-45, 45) right, none of (45, 315): P_in 1, P_out and P_inv 0. P_test: the restricted 50 images are
    # always right within their training range, the free 50 for 90 of 360 degrees: (50 + 50 / 4) / 100.
    result = measured(right_between(-45, 45))
    for metric, expected in (("p_in", 1.0), ("p_out", 0.0), ("p_inv", 0.0), ("p_test", 0.625)):
        assert abs(result[metric] - expected) < ROUNDING
    assert result["interval"]["p_out"][0] == 0.0


def test_predictor_that_is_right_a_little_farther():
    # Right within +/-60 degrees: of the 270 of P_out the 15 at either end, of the 360 of the free classes 120.
    result = measured(right_between(-60, 60))
    for metric, expected in (("p_in", 1.0), ("p_out", 30 / 270), ("p_inv", 0.0), ("p_test", (50 + 50 / 3) / 100)):
        assert abs(result[metric] - expected) < ROUNDING


def test_sign_of_the_angles():
    # Right from 45 degrees clockwise to 90 counter-clockwise; measured to the left and to the right.
    for outside, expected in ((((45, 135),), 0.5), (((-135, -45),), 0.0), (((225, 315),), 0.0)):
        result = measured(right_between(-45, 90), Recognition(Rotation(), PROTOCOL.ranges, outside=outside))
        assert abs(result["p_out"] - expected) < ROUNDING


def test_ranges_that_are_no_multiples_of_the_spacing():
    # Right in (-45, 45); of the range (-10, 50) the cells (-15, 0), (0, 15), (15, 30), (30, 45), (45, 60) count 10, 15,
    # 15, 15 and 5 degrees, the last one wrong: 55 of 60.
    result = measured(right_between(-45, 45), Recognition(Rotation(), PROTOCOL.ranges, inside=((-10, 50),)))
    assert abs(result["p_in"] - 55 / 60) < ROUNDING


def test_a_class_with_a_range_of_its_own():
    # Class 3 was shown at (45, 90) only: P_test takes it there, where the model is wrong.
    protocol = Recognition(Rotation(), Ranges(((0, 360),), {3: ((45, 90),)}), inside=((-45, 45),), outside=((90, 315),))
    result = measured(right_between(-45, 45), protocol)
    # 80 free images are right for a quarter of the circle; the 20 of class 3 never.
    assert abs(result["p_test"] - 80 / 4 / 100) < ROUNDING
    assert result["images"]["p_in"] == 20
    assert abs(result["p_in"] - 1.0) < ROUNDING


def test_without_restricted_classes_there_is_p_test_only():
    result = measured(reads_the_centre(), Recognition(Rotation(), Ranges(((0, 360),))))
    assert abs(result["p_test"] - 1.0) < ROUNDING
    for metric in ("p_in", "p_out", "p_inv"):
        assert result[metric] is result["interval"][metric] is None
        assert result["images"][metric] == 0


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_class_without_test_images_is_left_out():
    # All images of class 1 taken away: an always wrong predictor stays at zero.
    keep = LABELS != 1
    result = measured(always(1), images=IMAGES[keep], labels=LABELS[keep])
    assert result["images"]["p_test"] == 90
    assert result["p_test"] == 0.0


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (PROTOCOL, angle_grid(15)),
        (Recognition(Rotation(), Ranges(((0, 360),))), angle_grid(15)),
        (Recognition(Rotation(), Ranges(((-1, 1),))), angle_grid(15)),
        # Training knows single angles only: there is nothing else to ask for.
        (Recognition(Rotation(), Ranges(((0, 0),))), [0.0]),
        (Recognition(Rotation(), Ranges(((-30, -30), (90, 90)))), [-30.0, 90.0]),
        # But for restricted classes all angles are of interest.
        (Recognition(Rotation(), Ranges(((0, 0),), {3: ((-45, 45),)})), angle_grid(15)),
    ],
    ids=["restricted", "all", "narrow", "upright", "two angles", "upright but one"],
)
def test_angles_of_a_protocol(protocol, expected):
    np.testing.assert_array_equal(protocol.points(15), expected)


def test_upright_protocol():
    # Right at 0 only; at a single angle that angle has all the weight.
    upright = Recognition(Rotation(), Ranges(((0, 0),)))
    angles = upright.points(5)
    assert abs(measured(right_between(-1, 1), upright, angles=angles)["p_test"] - 1.0) < ROUNDING
    # Of two angles, one of them wrong, the half.
    two = Recognition(Rotation(), Ranges(((0, 0), (90, 90))))
    assert abs(measured(right_between(-1, 1), two, angles=two.points(5))["p_test"] - 0.5) < ROUNDING


# Predictions


def test_counts_are_indexed_by_class_angle_and_output():
    predictions = predict_grid(right_between(-45, 45), IMAGES, LABELS, CLASSES, GRID)
    assert predictions.classes == CLASSES
    assert predictions.counts.shape == (4, 24, 4)
    expected = np.zeros((4, 24, 4), int)
    for i, number in enumerate(PER_CLASS):
        for j, angle in enumerate(GRID):
            expected[i, j, i if abs(angle) < 45 else (i + 1) % 4] = number
    np.testing.assert_array_equal(predictions.counts, expected)
    np.testing.assert_array_equal(predictions.images, PER_CLASS)
    np.testing.assert_array_equal(predictions.accuracy, np.tile(np.abs(GRID) < 45, (4, 1)))


def test_more_images_than_a_batch_and_a_part_of_one(monkeypatch):
    whole = predict_grid(right_between(-45, 45), IMAGES, LABELS, CLASSES, GRID[:3]).counts
    monkeypatch.setattr(classify, "BATCH", 32)  # 100 images: three batches and an eighth
    parts = predict_grid(right_between(-45, 45), IMAGES, LABELS, CLASSES, GRID[:3]).counts
    np.testing.assert_array_equal(whole, parts)


def test_curves_and_table():
    counts = np.array([[[3, 1], [2, 2]], [[0, 5], [4, 1]]])
    predictions = Predictions(Rotation(), (3, 7), np.array([-90.0, 90.0]), counts)
    assert predictions.curves() == [
        {"digit": 3, "parameter": -90.0, "value": 0.75, "images": 4},
        {"digit": 3, "parameter": 90.0, "value": 0.5, "images": 4},
        {"digit": 7, "parameter": -90.0, "value": 1.0, "images": 5},
        {"digit": 7, "parameter": 90.0, "value": 0.2, "images": 5},
    ]
    assert predictions.table()[4:6] == [
        {"digit": 7, "parameter": -90.0, "predicted": 3, "images": 0},
        {"digit": 7, "parameter": -90.0, "predicted": 7, "images": 5},
    ]
    assert sum(row["images"] for row in predictions.table()) == counts.sum()
    # Over the half circle to the right: the one angle -90.
    np.testing.assert_allclose(predictions.taken_for([7, 3], ((-180, 0),)), [[0, 1], [0.75, 0.25]], atol=ROUNDING)
    np.testing.assert_allclose(predictions.taken_for([3], ((0, 360),)), [[5 / 8, 3 / 8]], atol=ROUNDING)


def test_classes_that_are_never_answered():
    def unanswered(*counts):
        return Predictions(Rotation(), (3, 7), np.array([-90.0, 90.0]), np.array(counts)).unanswered

    assert unanswered([[4, 0], [4, 0]], [[5, 0], [5, 0]]) == [7]
    # Not one whose own images are taken for others, as long as others are taken for it.
    assert unanswered([[3, 1], [4, 0]], [[5, 0], [5, 0]]) == []


# Reconstructions


def drawing(decode, name="reconstruction"):
    """The perfect classifier, whose second output is a function of what it sees."""
    inputs = keras.Input((SIZE, SIZE, 1))
    return keras.Model(inputs, {"scores": reads_the_centre()(inputs), name: layers.Lambda(decode)(inputs)})


def black(images):
    return images * 0.0


def test_error_of_a_perfect_reconstruction_is_zero():
    predictions = predict_grid(drawing(lambda images: images), IMAGES, LABELS, CLASSES, GRID)
    assert predictions.errors.shape == (4, 24)
    np.testing.assert_array_equal(predictions.errors, 0.0)
    np.testing.assert_array_equal(predictions.accuracy, 1.0)


@pytest.mark.parametrize("batch", [512, 32], ids=["one batch", "parts of batches"])
def test_error_of_a_black_reconstruction_is_the_mean_square_of_the_rotated_image(monkeypatch, batch):
    monkeypatch.setattr(classify, "BATCH", batch)
    predictions = predict_grid(drawing(black), IMAGES, LABELS, CLASSES, GRID)
    for row, label in enumerate(CLASSES):
        chosen = IMAGES[label == LABELS].astype("float32") / 255
        for column, angle in enumerate(GRID):
            rotated = np.asarray(rotate(chosen, np.full(len(chosen), angle, "float32")))
            # Of the images padded to a full batch none is counted. Float32 means of 225 numbers.
            assert abs(predictions.errors[row, column] - (rotated**2).mean()) < 1e-6
    # The four classes differ in their centre, so that rows cannot be mixed up.
    assert (np.diff(predictions.errors[:, 0]) > 1e-4).all()


def test_models_without_a_reconstruction_have_no_errors():
    for model in (reads_the_centre(), drawing(black, "other")):
        predictions = predict_grid(model, IMAGES, LABELS, CLASSES, angle_grid(90))
        assert predictions.errors is None
        assert "reconstruction" not in proportions(predictions, PROTOCOL)


def test_error_curves():
    counts = np.array([[[3, 1], [2, 2]], [[0, 5], [4, 1]], [[0, 0], [0, 0]]])
    errors = np.array([[0.1, 0.2], [0.3, 0.4], [0.0, 0.0]])
    predictions = Predictions(Rotation(), (3, 7, 8), np.array([-90.0, 90.0]), counts, errors)
    # A class without images has no error.
    assert predictions.curves(predictions.errors) == [
        {"digit": 3, "parameter": -90.0, "value": 0.1, "images": 4},
        {"digit": 3, "parameter": 90.0, "value": 0.2, "images": 4},
        {"digit": 7, "parameter": -90.0, "value": 0.3, "images": 5},
        {"digit": 7, "parameter": 90.0, "value": 0.4, "images": 5},
    ]


def test_proportions_of_the_errors():
    # Errors that are the distance from upright in right angles, and ten times that for class 4.
    counts = np.zeros((4, len(GRID), 4), int)
    for row, number in enumerate(PER_CLASS):
        counts[row, :, row] = number
    distance = np.abs(GRID) / 90
    errors = distance * np.array([1, 1, 10, 1])[:, None]
    result = proportions(Predictions(Rotation(), CLASSES, GRID, counts, errors), PROTOCOL)["reconstruction"]
    # 20 images of a 3 and 30 of a 4: (20 + 300) / 50 = 6.4. Mean distances: of +/-45 degrees .25, of all others 1.25,
    # of the inverted ones 1.75, of the circle 1; P_test takes 3 and 4 in +/-45 degrees, the other 50 everywhere.
    expected = {"mse_in": 0.25 * 6.4, "mse_out": 1.25 * 6.4, "mse_inv": 1.75 * 6.4, "mse_test": (80 + 50) / 100}
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert abs(result[name] - value) < ROUNDING


def test_reconstruct():
    images, angles = IMAGES[:5], np.array([0.0, 90.0, -30.0, 180.0, 33.0], "float32")
    rotated, drawn, chosen = reconstruct(drawing(lambda images: 1.0 - images), images, angles)
    np.testing.assert_allclose(rotated, rotate(images.astype("float32") / 255, angles), rtol=0, atol=1e-6)  # float32
    np.testing.assert_allclose(rotated[1], np.rot90(images[1].astype("float32") / 255), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(drawn, 1.0 - rotated)
    np.testing.assert_array_equal(np.array(CLASSES)[chosen], LABELS[:5])


def drawing_capsules():
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
    model, offsets = drawing_capsules(), [-0.25, 0.0, 0.5]
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 1), dtype="uint8")
    drawn = sweep(model, image / np.float32(255), offsets)
    assert drawn.shape == (4, 3, 6, 6, 1)
    _, plain, [chosen] = reconstruct(model, image[None], np.zeros(1, "float32"), 3)
    weights = model.decoder.trainable_weights[0].numpy()
    assert np.abs(weights).max() > 0.1
    for dimension in range(4):
        # The decoder is linear: what is added is the offset times a row of its weights.
        row = weights[4 * chosen + dimension].reshape(6, 6, 1)
        for number, offset in enumerate(offsets):
            np.testing.assert_allclose(drawn[dimension, number], plain[0] + offset * row, rtol=0, atol=1e-6)  # float32


def test_sweep_stays_with_the_capsule_that_was_the_longest():
    # Moved far, another capsule would be the longest.
    model = drawing_capsules()
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 1), dtype="uint8")
    far = sweep(model, image / np.float32(255), [0.0, 100.0])
    weights = model.decoder.trainable_weights[0].numpy()
    _, _, [chosen] = reconstruct(model, image[None], np.zeros(1, "float32"), 3)
    moved = (far[:, 1] - far[:, 0]).reshape(4, 36)
    np.testing.assert_allclose(moved, 100 * weights[4 * chosen : 4 * chosen + 4], rtol=0, atol=1e-4)  # float32


# Redraws


def test_redraws_agree_with_the_grid():
    # Right within +/-60 degrees, as above: P_out 1/9, P_test 2/3.
    model, number = right_between(-60, 60), 20
    grid, drawn = measured(model), redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, number)
    for metric, images in grid["images"].items():
        p = grid[metric]
        # Drawings and images are independent: binomial with all of them. The angle read from the mark is wrong by
        # less than half a degree, at two ends of a range of 90 or more.
        error = 5 * np.sqrt(p * (1 - p) / (number * images)) + (0.0 if metric in ("p_in", "p_inv") else 1 / 90)
        assert abs(drawn[metric]["mean"] - p) <= error + ROUNDING
        assert drawn[metric]["redraws"] == number
    # The variance of a share of 50 independent images; its own relative error is about sqrt(2 / 19) = .32.
    assert 0.1 < drawn["p_out"]["variance"] / (1 / 9 * 8 / 9 / 50) < 2.5
    assert drawn["p_in"]["variance"] == drawn["p_inv"]["variance"] == 0.0


def test_last_images_upright_are_a_constant_of_the_redraws():
    # Right within +/-60 degrees; of the 50 images of 3 and 4 the last 20 are not rotated, and always right.
    model = right_between(-60, 60)
    usual = redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 5)
    drawn = redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 5, upright_last=20)
    assert drawn["p_test"] == usual["p_test"]
    assert (usual["p_inv"]["mean"], drawn["p_inv"]["mean"]) == (0.0, 0.4)
    assert drawn["p_inv"]["variance"] < 1e-30
    # 30 of 50 images are recognised in a ninth of the range, with a standard error of .026 each.
    assert drawn["p_out"]["mean"] == pytest.approx(0.4 + 0.6 / 9, abs=0.1)
    every = redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 2, upright_last=50)
    assert every["p_out"]["mean"] == every["p_inv"]["mean"] == 1.0
    with pytest.raises(UserError, match=r"--upright-last must be between 0 and 50, .* received 51"):
        redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 2, upright_last=51)


def test_redraws_are_a_function_of_the_seed():
    model = right_between(-60, 60)
    one, again, other = (redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 3, seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_one_redraw_has_no_variance():
    drawn = redraws(reads_the_centre(), Recognition(Rotation(), Ranges(((0, 360),))), IMAGES, LABELS, CLASSES, 1)
    assert drawn["p_test"] == {"mean": 1.0, "variance": 0.0, "redraws": 1}
    assert drawn["p_in"] is drawn["p_out"] is drawn["p_inv"] is None


# A user's own model


def several(**outputs):
    inputs = keras.Input((SIZE, SIZE, 1))
    return keras.Model(inputs, {name: model(inputs) for name, model in outputs.items()})


class Unbuilt(keras.Model):
    """A subclassed model, whose variables are made by its first call."""

    def __init__(self):
        super().__init__()
        self.crop, self.flatten = layers.Cropping2D(SIZE // 2), layers.Flatten()
        values = (np.arange(len(CLASSES)) + 1) / 5
        self.dense = layers.Dense(
            len(CLASSES),
            kernel_initializer=lambda shape, dtype: 2 * values[None].astype("float32"),
            bias_initializer=lambda shape, dtype: -(values**2).astype("float32"),
        )

    def call(self, images):
        return self.dense(self.flatten(self.crop(images)))


@pytest.mark.parametrize(
    "model",
    [
        lambda: keras.Sequential([reads_the_centre(), layers.Softmax()]),
        lambda: several(other=keras.Sequential([layers.Flatten()]), answer=reads_the_centre()),
        lambda: several(constant=always(8), scores=reads_the_centre()),
        Unbuilt,
        lambda: lambda images: reads_the_centre()(images).numpy(),
        lambda: keras.Sequential([keras.Input((SIZE, SIZE)), layers.Reshape((SIZE, SIZE, 1)), reads_the_centre()]),
    ],
    ids=["probabilities", "one output fits", "named", "subclassed", "callable", "without a channel axis"],
)
def test_every_form_of_model(model):
    assert abs(measured(model())["p_test"] - 1.0) < ROUNDING


def test_every_form_of_images():
    expected = measured(right_between(-45, 90))
    for images in (IMAGES[..., 0], IMAGES / 255, (IMAGES / 255).astype("float32"), IMAGES.astype("int64")):
        classifier = Classifier(right_between(-45, 90), PROTOCOL, (SIZE, SIZE, 1), 4)
        assert proportions(classify.predict(classifier, images, LABELS, CLASSES, GRID), PROTOCOL) == expected
    for images in (IMAGES * 2.0, IMAGES.astype("int64") + 200, IMAGES.reshape(100, -1), IMAGES > 100):
        with pytest.raises(UserError):
            classify.predict(classifier, images, LABELS, CLASSES, GRID)


def two_inputs():
    images, codes = keras.Input((SIZE, SIZE, 1)), keras.Input((2,))
    return keras.Model([images, codes], layers.Concatenate()([layers.Flatten()(images), codes]))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: several(a=reads_the_centre(), b=always(8)), "name one of them 'scores'"),
        (lambda: several(scores=layers.Flatten(), answer=reads_the_centre()), r"scores \(2, 225\)"),
        (two_inputs, "several inputs"),
        (lambda: lambda images: images @ images, "does not"),
    ],
)
def test_other_models_are_refused(model, expected):
    with pytest.raises(UserError, match=expected):
        Classifier(model(), PROTOCOL, (SIZE, SIZE, 1), 4).check()


def test_false_alarms_by_hand():
    # Of the free classes, whose images are taken for 3 or 4 beyond 45 degrees: 1 (10 images) becomes 3; 8 becomes 1.
    result = measured(right_between(-45, 45))
    assert result["images"]["false_alarms"] == 50
    assert abs(result["false_alarms"] - 10 / 50) < ROUNDING


def test_one_answer_for_everything_is_marked():
    result = measured(always(3), Recognition(Rotation(), Ranges(((0, 360),), {3: ((-45, 45),)}), inverted=INVERTED))
    assert result["p_inv"] == 1.0 and result["never_answers"] == [1, 4, 8]
    assert PROTOCOL.warnings(result) == ["gives the same answer to every image"]
    assert PROTOCOL.warnings({**result, "never_answers": [1, 4]}) == ["never answers 1 or 4"]
    assert PROTOCOL.warnings({**result, "never_answers": []}) == []


def test_whole_pixels_are_half_open_and_factors_logarithmic():
    counts = np.ones((1, 4, 1), int)
    shifts = Predictions(Shift(), (3,), np.array([-4.0, -2.0, 0.0, 2.0]), counts)
    np.testing.assert_allclose(shifts.weights(((-2, 2),)), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(shifts.weights(((-4, -2), (2, 4))), [0.5, 0, 0, 0.5])
    # Middles of the octaves from 1/4 to 4.
    factors = Predictions(Scaling(), (3,), 2.0 ** np.array([-1.5, -0.5, 0.5, 1.5]), counts)
    np.testing.assert_allclose(factors.weights(((0.5, 2),)), [0, 0.5, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(factors.weights(((1, 4),)), [0, 0, 0.5, 0.5], atol=1e-12)


def test_measured_on_a_canvas():
    """A model that is right where the mark has not left the middle of the canvas; over both shifts."""
    from invariance.datasets import Data

    task = Recognition(Shift((21, 21)), Ranges(((-3, 4),), {3: ((-1, 2),)}), inverted=((-3, -1), (2, 4)))

    def model(images):
        # Of a plain canvas, column 10 and row 10 hold the centre pixel, which tells the class.
        centre = np.round(images[:, 10, 10, 0] * 5) - 1
        right = (centre >= 0) & (np.abs(images[:, 10, 10, 0] * 5 - np.round(images[:, 10, 10, 0] * 5)) < 1e-3)
        return np.eye(4)[np.where(right, centre, 0).astype(int)]

    data = Data("test", IMAGES, LABELS, IMAGES, LABELS, "test")
    measured = task.measure(model, data, CLASSES, Evaluation(1))
    assert measured.metrics["p_in"] == pytest.approx(1 / 3)  # at one of the three shifts -1, 0, 1
    assert measured.metrics["p_out"] == measured.metrics["p_inv"] == 0.0
    values, points = measured.accuracy_map
    np.testing.assert_array_equal(points, np.arange(-3, 4))
    expected = np.zeros((7, 7))
    expected[3, 3] = 1.0
    np.testing.assert_array_equal(values, expected)
    assert {each.name for each in measured.figures("t")} == {"accuracy_by_shift.png", "taken_for.png", "map.png"}
    assert len(measured.tables["map.csv"]) == 49 and "P_in 0.3333" in measured.summary()


def test_model_of_any_image_size():
    inputs = keras.Input((None, None, 1))
    scores = layers.Dense(4)(layers.GlobalAveragePooling2D()(inputs))
    assert 0.0 <= measured(keras.Model(inputs, scores), angles=angle_grid(90))["p_test"] <= 1.0


def test_subclassed_model_without_a_declared_input():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.answer = ReadAnswer(-45, 45)

        def call(self, images):
            return self.answer(images)

    assert abs(measured(Own())["p_test"] - 0.625) < ROUNDING


def test_dropout_and_batch_norm_are_off():
    model = reads_the_centre()
    own = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Dropout(0.9), layers.BatchNormalization(), model])
    # New batch norm divides by sqrt(1 + 1e-3): the centre's value moves by .0005, far from the next class' .2.
    assert abs(measured(own)["p_test"] - 1.0) < ROUNDING


@pytest.mark.parametrize("shape", [(28, 28, 1), (SIZE, SIZE, 3), (SIZE * SIZE,)])
def test_model_for_other_images_is_refused(shape):
    model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(4)])
    with pytest.raises(UserError, match="but the images are \\(15, 15, 1\\)") as refused:
        predict_grid(model, IMAGES, LABELS, CLASSES, GRID)
    assert str(shape) in str(refused.value)
    with pytest.raises(UserError):
        redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 1)


@pytest.mark.parametrize("outputs", [1, 3, 10])
def test_model_with_another_number_of_scores_is_refused(outputs):
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(outputs)])
    with pytest.raises(UserError, match=f"{outputs}\\) for 2 images, but one score for each of 4 classes is needed"):
        predict_grid(model, IMAGES, LABELS, CLASSES, GRID)


def test_model_that_returns_images_is_refused():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Conv2D(4, 3)])
    with pytest.raises(UserError, match="one score for each of 4 classes is needed"):
        predict_grid(model, IMAGES, LABELS, CLASSES, GRID)


# Helpers


def test_limited_takes_the_first_of_each_class_in_their_order():
    labels = np.array([5, 3, 5, 5, 3, 7, 3])
    images = np.arange(7)
    for per_class, expected in ((1, [0, 1, 5]), (2, [0, 1, 2, 4, 5]), (9, range(7)), (None, range(7))):
        kept, their_labels = limited(images, labels, per_class)
        np.testing.assert_array_equal(kept, expected)
        np.testing.assert_array_equal(their_labels, labels[list(expected)])


def test_wilson_by_hand():
    # z^2 = 3.8415; centre (.5 + z^2 / 200) / (1 + z^2 / 100) = .5; half z / 1.038415 * sqrt(.0025 + z^2 / 40000).
    np.testing.assert_allclose(wilson(0.5, 100), (0.4038, 0.5962), atol=5e-5)  # four printed digits


@pytest.mark.parametrize("number", [1, 7, 100, 10_000])
def test_wilson_equals_scipy(number):
    for correct in sorted({0, 1, number // 3, number - 1, number}):
        expected = binomtest(correct, number).proportion_ci(0.95, method="wilson")
        # The same formula in float64.
        np.testing.assert_allclose(wilson(correct / number, number), expected, rtol=0, atol=1e-12)


def test_wilson_narrows_and_contains_the_proportion():
    for number in (1, 5, 50, 123, 500):
        for proportion in np.linspace(0, 1, 11):
            low, high = wilson(proportion, number)
            # Up to rounding where the proportion is itself an end.
            assert 0.0 <= low <= proportion + 1e-12
            assert proportion - 1e-12 <= high <= 1.0
    assert wilson(0.3, 1000)[1] - wilson(0.3, 1000)[0] < wilson(0.3, 10)[1] - wilson(0.3, 10)[0]


@pytest.mark.parametrize("end", [0, 1])
def test_wilson_is_exact_at_the_ends(end):
    assert all(wilson(float(end), number)[end] == end for number in range(1, 1000))


@pytest.mark.parametrize(("proportion", "number"), [(0.5, 0), (1.1, 10), (-0.1, 10), (float("nan"), 10)])
def test_wilson_refuses_what_is_no_proportion(proportion, number):
    with pytest.raises(ValueError, match="A proportion in"):
        wilson(proportion, number)
