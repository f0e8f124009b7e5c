"""The four proportions on predictors whose values can be derived by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.stats import binomtest

from invariance import evaluation
from invariance.errors import UserError
from invariance.evaluation import Predictions, limited, predict_grid, proportions, reconstruct, redraws, sweep
from invariance.layers.capsules import Length
from invariance.models.capsule_network import CapsuleNetwork
from invariance.protocol import Recognition
from invariance.ranges import Ranges, angle_grid
from invariance.results import wilson
from invariance.transforms import rotate

# Labels are not 0, 1, 2, ... so that labels and outputs cannot be mixed up.
CLASSES = (1, 3, 4, 8)
PROTOCOL = Recognition(Ranges(((0, 360),), {3: ((-45, 45),), 4: ((-45, 45),)}))
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
    # The centre of an odd-sized image is turned onto itself exactly.
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
    """A model that is right where images are turned by angles in [low, high), and wrong elsewhere."""
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
    for metric in evaluation.METRICS:
        assert abs(result[metric] - 1.0) < ROUNDING
    assert result["chance"] == 0.25
    # 3 and 4 have 20 and 30 test images.
    assert result["images"] == {"p_test": TOTAL, "p_in": 50, "p_out": 50, "p_inv": 50}
    for metric, number in result["images"].items():
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
    for metric, number in result["images"].items():
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
        result = measured(right_between(-45, 90), Recognition(PROTOCOL.ranges, outside=outside))
        assert abs(result["p_out"] - expected) < ROUNDING


def test_ranges_that_are_no_multiples_of_the_spacing():
    # Right in (-45, 45); of the range (-10, 50) the cells (-15, 0), (0, 15), (15, 30), (30, 45), (45, 60) count 10, 15,
    # 15, 15 and 5 degrees, the last one wrong: 55 of 60.
    result = measured(right_between(-45, 45), Recognition(PROTOCOL.ranges, inside=((-10, 50),)))
    assert abs(result["p_in"] - 55 / 60) < ROUNDING


def test_a_class_with_a_range_of_its_own():
    # Class 3 was shown at (45, 90) only: P_test takes it there, where the model is wrong.
    protocol = Recognition(Ranges(((0, 360),), {3: ((45, 90),)}), outside=((90, 315),))
    result = measured(right_between(-45, 45), protocol)
    # 80 free images are right for a quarter of the circle; the 20 of class 3 never.
    assert abs(result["p_test"] - 80 / 4 / 100) < ROUNDING
    assert result["images"]["p_in"] == 20
    assert abs(result["p_in"] - 1.0) < ROUNDING


def test_without_restricted_classes_there_is_p_test_only():
    result = measured(reads_the_centre(), Recognition(Ranges(((0, 360),))))
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
        (Recognition(Ranges(((0, 360),))), angle_grid(15)),
        (Recognition(Ranges(((-1, 1),))), angle_grid(15)),
        # Training knows single angles only: there is nothing else to ask for.
        (Recognition(Ranges(((0, 0),))), [0.0]),
        (Recognition(Ranges(((-30, -30), (90, 90)))), [-30.0, 90.0]),
        # But for restricted classes all angles are of interest.
        (Recognition(Ranges(((0, 0),), {3: ((-45, 45),)})), angle_grid(15)),
    ],
    ids=["restricted", "all", "narrow", "upright", "two angles", "upright but one"],
)
def test_angles_of_a_protocol(protocol, expected):
    np.testing.assert_array_equal(protocol.grid(15), expected)


def test_upright_protocol():
    # Right at 0 only; at a single angle that angle has all the weight.
    upright = Recognition(Ranges(((0, 0),)))
    angles = upright.grid(5)
    assert abs(measured(right_between(-1, 1), upright, angles=angles)["p_test"] - 1.0) < ROUNDING
    # Of two angles, one of them wrong, the half.
    two = Recognition(Ranges(((0, 0), (90, 90))))
    assert abs(measured(right_between(-1, 1), two, angles=two.grid(5))["p_test"] - 0.5) < ROUNDING


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
    monkeypatch.setattr(evaluation, "BATCH", 32)  # 100 images: three batches and an eighth
    parts = predict_grid(right_between(-45, 45), IMAGES, LABELS, CLASSES, GRID[:3]).counts
    np.testing.assert_array_equal(whole, parts)


def test_curves_and_table():
    counts = np.array([[[3, 1], [2, 2]], [[0, 5], [4, 1]]])
    predictions = Predictions((3, 7), np.array([-90.0, 90.0]), counts)
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
        return Predictions((3, 7), np.array([-90.0, 90.0]), np.array(counts)).unanswered

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
def test_error_of_a_black_reconstruction_is_the_mean_square_of_the_turned_image(monkeypatch, batch):
    monkeypatch.setattr(evaluation, "BATCH", batch)
    predictions = predict_grid(drawing(black), IMAGES, LABELS, CLASSES, GRID)
    for row, label in enumerate(CLASSES):
        chosen = IMAGES[label == LABELS].astype("float32") / 255
        for column, angle in enumerate(GRID):
            turned = np.asarray(rotate(chosen, np.full(len(chosen), angle, "float32")))
            # Of the images padded to a full batch none is counted. Float32 means of 225 numbers.
            assert abs(predictions.errors[row, column] - (turned**2).mean()) < 1e-6
    # The four classes differ in their centre, so that rows cannot be mixed up.
    assert (np.diff(predictions.errors[:, 0]) > 1e-4).all()


def test_models_without_a_reconstruction_have_no_errors():
    for model in (reads_the_centre(), drawing(black, "other")):
        predictions = predict_grid(model, IMAGES, LABELS, CLASSES, angle_grid(90))
        assert predictions.errors is None
        assert predictions.error_curves() == []
        assert "reconstruction" not in proportions(predictions, PROTOCOL)


def test_error_curves():
    counts = np.array([[[3, 1], [2, 2]], [[0, 5], [4, 1]], [[0, 0], [0, 0]]])
    errors = np.array([[0.1, 0.2], [0.3, 0.4], [0.0, 0.0]])
    predictions = Predictions((3, 7, 8), np.array([-90.0, 90.0]), counts, errors)
    # A class without images has no error.
    assert predictions.error_curves() == [
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
    result = proportions(Predictions(CLASSES, GRID, counts, errors), PROTOCOL)["reconstruction"]
    # 20 images of a 3 and 30 of a 4: (20 + 300) / 50 = 6.4. Mean distances: of +/-45 degrees .25, of all others 1.25,
    # of the inverted ones 1.75, of the circle 1; P_test takes 3 and 4 in +/-45 degrees, the other 50 everywhere.
    expected = {"mse_in": 0.25 * 6.4, "mse_out": 1.25 * 6.4, "mse_inv": 1.75 * 6.4, "mse_test": (80 + 50) / 100}
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert abs(result[name] - value) < ROUNDING


def test_reconstruct():
    images, angles = IMAGES[:5], np.array([0.0, 90.0, -30.0, 180.0, 33.0], "float32")
    turned, drawn, chosen = reconstruct(drawing(lambda images: 1.0 - images), images, angles)
    np.testing.assert_allclose(turned, rotate(images.astype("float32") / 255, angles), rtol=0, atol=1e-6)  # float32
    np.testing.assert_array_equal(turned[1], np.rot90(images[1].astype("float32") / 255))
    np.testing.assert_array_equal(drawn, 1.0 - turned)
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
    drawn = sweep(model, image, offsets)
    assert drawn.shape == (4, 3, 6, 6, 1)
    _, plain, [chosen] = reconstruct(model, image[None], np.zeros(1, "float32"))
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
    far = sweep(model, image, [0.0, 100.0])
    weights = model.decoder.trainable_weights[0].numpy()
    _, _, [chosen] = reconstruct(model, image[None], np.zeros(1, "float32"))
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
    # Right within +/-60 degrees; of the 50 images of 3 and 4 the last 20 are not turned, and always right.
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
    with pytest.raises(UserError, match=r"--upright-last: 0 to 50, .* it is 51"):
        redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 2, upright_last=51)


def test_redraws_are_a_function_of_the_seed():
    model = right_between(-60, 60)
    one, again, other = (redraws(model, PROTOCOL, IMAGES, LABELS, CLASSES, 3, seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_one_redraw_has_no_variance_and_none_is_refused():
    drawn = redraws(reads_the_centre(), Recognition(Ranges(((0, 360),))), IMAGES, LABELS, CLASSES, 1)
    assert drawn["p_test"] == {"mean": 1.0, "variance": 0.0, "redraws": 1}
    assert drawn["p_in"] is drawn["p_out"] is drawn["p_inv"] is None
    with pytest.raises(UserError, match="--redraws: a positive number is needed; it is 0"):
        redraws(reads_the_centre(), PROTOCOL, IMAGES, LABELS, CLASSES, 0)


# A user's own model


def test_model_with_two_outputs_is_judged_by_the_first():
    perfect, constant = reads_the_centre(), always(8)
    inputs = keras.Input((SIZE, SIZE, 1))
    result = measured(keras.Model(inputs, [perfect(inputs), constant(inputs)]))
    assert abs(result["p_test"] - 1.0) < ROUNDING


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
    with pytest.raises(UserError, match=f"{outputs}\\), but 4 scores an image are needed"):
        predict_grid(model, IMAGES, LABELS, CLASSES, GRID)


def test_model_that_returns_images_is_refused():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), layers.Conv2D(4, 3)])
    with pytest.raises(UserError, match="4 scores an image are needed"):
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
