"""Every figure is drawn and saved, and what a reader needs is in it: units, training range, chance."""

import io

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from invariance import figures, pictures
from invariance.evaluation import Predictions
from invariance.protocol import GenerationByRotation, Recognition
from invariance.ranges import Ranges, angle_grid

ANGLES = angle_grid(30)
CLASSES = (0, 3, 4)
UPRIGHT = ((-45, 45),)


def predictions():
    """Ten images a class; 0 is always recognised, 3 and 4 within +/-45 degrees only and otherwise taken for 0."""
    counts = np.zeros((len(CLASSES), len(ANGLES), len(CLASSES)), np.int64)
    inside = np.abs(ANGLES) < 45
    counts[0, :, 0] = 10
    for row in (1, 2):
        counts[row, inside, row] = 10
        counts[row, ~inside, 0] = 10
    return Predictions(CLASSES, ANGLES, counts)


def protocol(restricted=UPRIGHT):
    unseen = {} if restricted == UPRIGHT else dict.fromkeys(("outside", "inverted"), ((0, 0),))
    return Recognition(Ranges(((0, 360),), {3: restricted, 4: restricted}), **unseen)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def saved(figure, tmp_path):
    """Saves a figure and returns it as pixels (height, width, channels)."""
    path = tmp_path / "figure.png"
    figures.save(figure, path)
    assert [path] == list(tmp_path.iterdir())
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not plt.fignum_exists(figure.number)
    pixels = matplotlib.image.imread(path)
    # Large enough to be read, small enough for a page.
    assert 250 <= pixels.shape[0] <= 3000 and 250 <= pixels.shape[1] <= 3000
    # Not an empty sheet: more than one pixel in a hundred is not white.
    assert np.mean(pixels[..., :3].min(-1) < 0.9) > 0.01
    return pixels


def spans(axes):
    """The shaded intervals of an axes, (low, high), ascending."""
    boxes = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    # Pixels and back: exact to some 1e-12 of the axis; half a degree could not be seen.
    return sorted((round(box.x0, 6), round(box.x1, 6)) for box in boxes)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_accuracy_by_angle(tmp_path):
    figure = figures.accuracy_by_angle(predictions(), protocol(), "a title", 1 / 3)
    [axes] = figure.axes
    assert axes.get_title() == "a title"
    assert "degrees" in axes.get_xlabel() and "counter-clockwise" in axes.get_xlabel()
    assert axes.get_ylabel()
    assert axes.get_xlim() == (-180, 180)
    assert axes.get_ylim()[0] <= 0 and axes.get_ylim()[1] >= 1
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"0", "3 (restricted)", "4 (restricted)", "chance (0.333)"}
    np.testing.assert_array_equal(lines["3 (restricted)"].get_xdata(), ANGLES)
    np.testing.assert_array_equal(lines["3 (restricted)"].get_ydata(), np.abs(ANGLES) < 45)
    assert set(lines["chance (0.333)"].get_ydata()) == {1 / 3}
    assert lines["0"].get_linewidth() < lines["3 (restricted)"].get_linewidth()
    assert len({lines[f"{label} (restricted)"].get_color() for label in (3, 4)}) == 2
    assert spans(axes) == [(-45, 45)]
    assert set(legend(axes)) == {*lines, "training range of 3, 4"}
    saved(figure, tmp_path)


@pytest.mark.parametrize(
    "restricted, expected",
    [
        (((0, 45), (315, 360)), [(-45, 0), (0, 45)]),
        (((315, 405),), [(-45, 45)]),
        (((-45, 45),), [(-45, 45)]),
        # Across the end of the axis.
        (((135, 225),), [(-180, -135), (135, 180)]),
        (((-225, -135),), [(-180, -135), (135, 180)]),
        (((-90, 0), (90, 180)), [(-90, 0), (90, 180)]),
        (((0, 360),), [(-180, 180)]),
        (((-180, 180),), [(-180, 180)]),
        (((-360, 360),), [(-180, 180)]),
    ],
)
def test_training_range_is_shaded_on_the_circle(restricted, expected):
    figure = figures.accuracy_by_angle(predictions(), protocol(restricted), "", 1 / 3)
    [axes] = figure.axes
    found = [span for span in spans(axes) if span[0] != span[1]]
    assert found == expected
    assert axes.get_xlim() == (-180, 180)
    # However many pieces, one entry.
    assert sum("training range" in text for text in legend(axes)) == 1


def test_without_restricted_classes_nothing_is_shaded(tmp_path):
    figure = figures.accuracy_by_angle(predictions(), Recognition(Ranges(((0, 360),))), "", 1 / 3)
    [axes] = figure.axes
    assert not axes.patches
    assert set(legend(axes)) == {"0", "3", "4", "chance (0.333)"}
    saved(figure, tmp_path)


def test_every_free_class_can_be_told_apart():
    """Ten free classes, as of MNIST without restrictions."""
    counts = np.ones((10, len(ANGLES), 10), np.int64)
    shown = Predictions(tuple(range(10)), ANGLES, counts)
    figure = figures.accuracy_by_angle(shown, Recognition(Ranges(((0, 360),))), "", 0.1)
    styles = {(str(line._unscaled_dash_pattern), line.get_color()) for line in figure.axes[0].get_lines()}
    assert len(styles) == 11


def test_taken_for(tmp_path):
    figure = figures.taken_for(predictions(), protocol(), "a title")
    assert len(figure.axes) == 2
    assert "[135, 225] degrees" in figure._suptitle.get_text() and "a title" in figure._suptitle.get_text()
    assert figure.axes[0].get_ylabel()
    for axes, label in zip(figure.axes, (3, 4), strict=True):
        assert axes.get_title().startswith(f"{label} (10 images")
        assert axes.get_xlabel()
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "3", "4"]
        assert [bar.get_height() for bar in axes.patches] == [1.0, 0.0, 0.0]
    saved(figure, tmp_path)


def test_taken_for_of_one_class():
    figure = figures.taken_for(predictions(), Recognition(Ranges(((0, 360),), {3: UPRIGHT})), "")
    assert len(figure.axes) == 1


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_training_curves(tmp_path, rows):
    history = [
        {"step": 4 * n, "images": 128 * n, "seconds": 0.5 * n, "loss": 2.0 / n, "accuracy": 1 - 1 / n}
        for n in range(1, rows + 1)
    ]
    figure = figures.training_curves(history, "a title")
    assert [axes.get_ylabel().split(",")[0] for axes in figure.axes] == ["loss", "accuracy"]
    for axes, key in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert "images" in axes.get_xlabel()
        [line] = axes.get_lines()
        assert list(line.get_xdata()) == [row["images"] for row in history]
        assert list(line.get_ydata()) == [row[key] for row in history]
    assert figure._suptitle.get_text() == "a title"
    saved(figure, tmp_path)


@pytest.mark.parametrize("number, channels", [(1, 2), (14, 1), (14, 3), (1, 4)])
def test_contact_sheet(tmp_path, channels, number):
    rng = np.random.default_rng(0)
    images = rng.random((number, 8, 8, channels), dtype="float32")
    figure = figures.contact_sheet(images, [f"{n}: 7°" for n in range(number)], "a title")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == number
    for axes, image, n in zip(shown, images, range(number), strict=True):
        assert axes.get_title() == f"{n}: 7°"
        array = np.asarray(axes.images[0].get_array())
        np.testing.assert_array_equal(array, image if channels in (3, 4) else image[..., 0])
        # Brightness is not stretched: a dark image stays dark.
        assert axes.images[0].get_clim() == (0, 1)
    if number > 1:
        pixels = saved(figure, tmp_path)
        grey = np.ptp(pixels[..., :3], axis=-1).max() == 0
        assert grey == (channels < 3)


def drawing():
    """Predictions with errors of reconstruction: .01 for 0, .02 for 3, .03 for 4."""
    shown = predictions()
    errors = np.array([[0.01], [0.02], [0.03]]) * np.ones(len(ANGLES))
    return Predictions(shown.classes, shown.angles, shown.counts, errors)


def test_error_by_angle(tmp_path):
    figure = figures.error_by_angle(drawing(), protocol(), "a title")
    [axes] = figure.axes
    assert axes.get_title() == "a title"
    assert "degrees" in axes.get_xlabel() and "mean squared error" in axes.get_ylabel()
    assert axes.get_ylim()[0] == 0
    lines = {line.get_label(): line for line in axes.get_lines()}
    # No chance: an error has none.
    assert set(lines) == {"0", "3 (restricted)", "4 (restricted)"}
    np.testing.assert_array_equal(lines["4 (restricted)"].get_ydata(), 0.03)
    np.testing.assert_array_equal(lines["4 (restricted)"].get_xdata(), ANGLES)
    assert spans(axes) == [(-45, 45)]
    assert set(legend(axes)) == {*lines, "training range of 3, 4"}
    saved(figure, tmp_path)


def shown(figure):
    """The axes that hold an image."""
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize("number, channels, columns", [(12, 1, 12), (24, 1, 12), (10, 1, 8), (3, 3, 8)])
def test_reconstructions(tmp_path, number, channels, columns):
    rng = np.random.default_rng(0)
    inputs, drawn = rng.random((2, number, 8, 8, channels), dtype="float32")
    captions = [(f"3, {n}°", str(n % 10)) for n in range(number)]
    right = [n % 3 == 0 for n in range(number)]
    figure = figures.reconstructions(inputs, drawn, captions, right, "a title")
    assert len(shown(figure)) == 2 * number
    # Each input stands over its reconstruction, in rows of so many.
    place = {axes.get_title(): axes for axes in shown(figure) if axes.get_title().startswith("3, ")}
    for n in range(number):
        above = place[f"3, {n}°"]
        [below] = [
            axes for axes in shown(figure) if axes.get_subplotspec().num1 == above.get_subplotspec().num1 + columns
        ]
        for axes, image in ((above, inputs[n]), (below, drawn[n])):
            np.testing.assert_array_equal(axes.images[0].get_array(), image if channels == 3 else image[..., 0])
            assert axes.images[0].get_clim() == (0, 1)
        assert below.get_title() == f"taken for {n % 10}"
        assert above.title.get_color() == "black"
        assert (below.title.get_color() == "black") == right[n]
    red = {axes.title.get_color() for axes in shown(figure)} - {"black"}
    assert red == {"#C03000"}
    assert "a title" in figure._suptitle.get_text() and "red: not the true class" in figure._suptitle.get_text()
    saved(figure, tmp_path)


def test_dimensions(tmp_path):
    offsets = [-0.25, 0.0, 0.25]
    drawn = np.random.default_rng(0).random((6, 3, 8, 8, 1), dtype="float32")
    figure = figures.dimensions(drawn, offsets, "a title")
    panels = shown(figure)
    assert len(panels) == len(figure.axes) == 6 * 3
    for number, axes in enumerate(panels):
        row, column = divmod(number, 3)
        np.testing.assert_array_equal(axes.images[0].get_array(), drawn[row, column, ..., 0])
        assert axes.images[0].get_clim() == (0, 1)
        assert axes.get_title() == (["-0.25", "+0.00", "+0.25"][column] if row == 0 else "")
        assert axes.get_ylabel() == (str(row + 1) if column == 0 else "")
    assert figure._suptitle.get_text() == "a title"
    saved(figure, tmp_path)


def test_saving_is_atomic(tmp_path, monkeypatch):
    from invariance import results
    from invariance.errors import RunError

    (tmp_path / "figure.png").write_bytes(b"old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        figures.save(plt.figure(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_same_figure_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        figures.save(figures.accuracy_by_angle(predictions(), protocol(), "a title", 1 / 3), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_saving_loses_nothing_visible(tmp_path):
    images = np.linspace(-1, 1, 6 * 2 * 16 * 16).reshape(6, 2, 16, 16, 1)
    rotation = GenerationByRotation(Ranges(((-180, 180),), {4: ((-45, 45),)}))
    sheet = figures.pairs(images, images[::-1], [3, 4], np.arange(-180.0, 180.0, 60.0), rotation, "t")
    plot = figures.accuracy_by_angle(predictions(), protocol(), "a title", 1 / 3)
    for figure, greys in ((sheet, True), (plot, False)):
        whole, few = io.BytesIO(), tmp_path / "few.png"
        figure.savefig(whole, format="png", dpi=130, bbox_inches="tight")
        figures.save(figure, few, greys)
        assert few.stat().st_size < 0.8 * len(whole.getvalue())
        one, other = (np.asarray(Image.open(picture).convert("RGB"), "int32") for picture in (whole, few))
        difference = np.abs(one - other)
        assert difference.mean() < 2 and np.percentile(difference, 99) <= 12
        # What is coloured keeps its colour.
        assert (np.ptp(other, axis=-1) > 100).sum() > 0.9 * (np.ptp(one, axis=-1) > 100).sum() > 0


def test_runs_of_a_model_are_one_line_with_their_span():
    # The second model's runs share two of three parameters.
    curves = {"a": [{0: 1.0, 5: 3.0}], "b": [{0: 2.0, 5: 4.0, 9: 7.0}, {5: 8.0, 0: 4.0}]}
    figure = figures.curves_together(curves, "angle, degrees", "t")
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"a": [[0, 1], [5, 3]], "b": [[0, 3], [5, 6]]}
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(0, 2), (0, 4), (5, 4), (5, 8)}
    assert axes.get_xlabel() == "angle, degrees"


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.0, "0°"), (-0.4, "0°"), (44.6, "45°"), (-179.7, "-180°"), ([-0.0, 3.0], "+0, +3"), ([-5.0, 0.0], "-5, +0")],
)
def test_parameters_for_people(value, text):
    assert pictures._parameter(np.float32(value)) == text
