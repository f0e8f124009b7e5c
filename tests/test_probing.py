"""invariance.probe: a trained model of one's own, measured in one call."""

import keras
import numpy as np
import pytest

import invariance
from invariance.errors import UserError
from invariance.tasks import Generation, Recognition
from invariance.transforms import Rotation, Scaling, Shift

NARROW = ((-45, 45),)
SIDE = 12


@pytest.fixture(scope="module")
def bars():
    """Images (40, 12, 12) uint8 of bars and labels: 0 is upright, 1 lies; a rotation by 90 degrees swaps them."""
    images, labels = np.zeros((40, SIDE, SIDE), np.uint8), np.arange(40) % 2
    images[labels == 0, 2:10, 5:7] = 255
    images[labels == 1, 5:7, 2:10] = 255
    return images, labels


def oracle(images):
    """Scores (n, 2): how much ink lies in the middle columns, and in the middle rows."""
    return np.stack([images[:, :, 5:7, 0].sum((1, 2)), images[:, 5:7, :, 0].sum((1, 2))], axis=-1)


def keras_oracle():
    """The same as a Keras model, of logits."""
    inputs = keras.Input((SIDE, SIDE, 1))
    columns, rows = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    columns[:, 5:7] = rows[5:7] = 1.0
    outputs = keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.stack([columns.ravel(), rows.ravel()], axis=-1)])
    return model


def probe(model, x, y, **changes):
    arguments = {"restricted": (0,), "transformation": Rotation(), "shown": NARROW, "spacing": 15}
    return invariance.probe(model, x, y, **arguments | changes)


def test_numbers_of_an_oracle(bars):
    # A bar is nearest to its own orientation within 45 degrees and beyond 135, to the other in between.
    measured = probe(oracle, *bars, inverted=((135, 225),))
    assert measured.metrics["p_in"] == measured.metrics["p_inv"] == 1.0
    # 45 to 135 and 225 to 315 are 180 of the 270 degrees out of range.
    assert measured.metrics["p_out"] == pytest.approx(1 / 3)
    # Class 1 at every angle is right half of the time, class 0 within 45 degrees always.
    assert measured.metrics["p_test"] == pytest.approx((1.0 + 0.5) / 2)
    assert measured.metrics["images"] == {"p_test": 40, "p_in": 20, "p_out": 20, "p_inv": 20, "false_alarms": 20}
    assert {row["digit"] for row in measured.tables["curves.csv"]} == {0, 1}
    assert "class 0 shown within ±45 degrees only" in str(measured) and "P_out" in str(measured)


def test_any_form_of_model_and_images_gives_the_same_numbers(bars):
    images, labels = bars
    model = keras_oracle()
    expected = probe(oracle, images, labels).metrics
    assert probe(model, images, labels).metrics == expected
    assert probe(model, images[..., None], labels.reshape(-1, 1)).metrics == expected
    assert probe(model, images / 255.0, labels.astype("int64")).metrics == expected
    assert probe(keras.Sequential([model, keras.layers.Softmax()]), images, labels).metrics == expected
    # A model of pixels in [-1, 1], of which black counts as 0.
    assert probe(lambda x: oracle((x + 1) / 2), images, labels, pixels=(-1.0, 1.0)).metrics == expected


def test_figures_and_files(bars, tmp_path):
    measured = probe(oracle, *bars)
    assert {each.name for each in measured.figures()} == {"accuracy_by_angle.png", "taken_for.png"}
    measured.save(tmp_path, "bars")
    assert {path.name for path in tmp_path.iterdir()} == {
        "accuracy_by_angle.png",
        "taken_for.png",
        "curves.csv",
        "predictions.csv",
    }


def test_redraws_and_other_transformations(bars):
    measured = probe(oracle, *bars, redraws=20)
    assert measured.metrics["redraws"]["p_out"]["mean"] == pytest.approx(1 / 3, abs=0.1)
    # A bar stays a bar, whatever its size and place.
    scaled = probe(oracle, *bars, transformation=Scaling(), shown=((0.9, 1.1),), free=((0.5, 1.5),), spacing=0.1)
    assert scaled.metrics["p_out"] == 1.0
    shifted = probe(oracle, *bars, transformation=Shift(), shown=((0, 1),), free=((-3, 4),), spacing=1)
    assert shifted.metrics["p_out"] < 1.0 and "map.csv" in shifted.tables


def test_models_that_draw(bars):
    inputs = [keras.Input((SIDE, SIDE, 1)), keras.Input((2,))]
    same = keras.Model(inputs, keras.layers.Identity()(inputs[0]))
    measured = probe(same, *bars, task=Generation, outside=((60, 300),), spacing=30)
    # What is not rotated at all is the baseline of the copied input.
    baseline = measured.metrics["baselines"]["input copied"]
    assert measured.metrics["mse_out"] == pytest.approx(baseline["mse_out"])
    assert measured.metrics["mse_out"]["0"] > measured.metrics["mse_in"]["0"] > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"y": np.arange(39) % 2}, "equally long; they have 40 images and 39 labels"),
        ({"y": np.full(40, 0.5)}, "y must hold non-negative integers"),
        ({"x": np.zeros((40, 12))}, "x must have the shape"),
        ({"x": np.full((40, 12, 12), 7.0)}, "x must lie in [0, 1]"),
        ({"restricted": (7,)}, "restricted classes [7] are not in the data"),
        ({"shown": ((45, -45),)}, "low <= high"),
        ({"shown": ((-180, 180),), "outside": ((90, 180),)}, "must lie outside the training range"),
        ({"transformation": Scaling(), "shown": ((0.9, 1.1),)}, "Argument `free` is needed for a scaling"),
        ({"spacing": 7}, "must divide 360"),
        ({"inverted": ((10, 20),)}, "`inverted` must lie outside the training range"),
        ({"task": Generation, "inverted": ((90, 100),)}, "inverted"),
        ({"task": Generation, "redraws": 5}, "--redraws"),
        ({"model": lambda x: x}, "one score for each of 2 classes is needed"),
        ({"model": lambda x: np.zeros((len(x), 3))}, "one score for each of 2 classes is needed"),
        ({"model": None}, "does not take images"),
        ({"model": keras_oracle, "x": np.zeros((40, 14, 14))}, "the model takes (12, 12, 1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_refused_in_one_line(bars, changes, expected):
    arguments = {"model": oracle, "x": bars[0], "y": bars[1], **changes}
    model = arguments.pop("model")
    with pytest.raises(UserError) as refused:
        probe(keras_oracle() if model is keras_oracle else model, arguments.pop("x"), arguments.pop("y"), **arguments)
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_default_task_is_recognition(bars):
    assert isinstance(probe(oracle, *bars).task, Recognition)
