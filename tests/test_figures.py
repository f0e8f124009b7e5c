"""Every figure is drawn and saved, and shows what a reader needs: units, training range, chance."""

import io
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image, ImageSequence

from invariance import figures
from invariance.errors import RunError
from invariance.ranges import Ranges
from invariance.tasks import Generation, Recognition
from invariance.tasks.draw import Errors
from invariance.tasks.metrics import Predictions
from invariance.transforms import Rotation, Shift
from tests.helpers import noise

ANGLES = Rotation().grid(30, (0, 360))
CLASSES = (0, 3, 4)
UPRIGHT, INSIDE = ((-45, 45),), np.abs(ANGLES) < 45


def recognition(shown=UPRIGHT, labels=(3, 4), **options):
    return Recognition(Rotation(), Ranges(((0, 360),), dict.fromkeys(labels, shown)), **options)


GENERATION = Generation(Rotation(), Ranges(((-180, 180),), {4: UPRIGHT}))
SHIFT = Generation(Shift(), Ranges(((-20, 20),), {4: ((-5, 5),)}))


def predictions():
    """Ten images of each class; 0 is always recognised, 3 and 4 within ±45 degrees only and otherwise taken for 0."""
    counts = np.zeros((len(CLASSES), len(ANGLES), len(CLASSES)), np.int64)
    counts[0, :, 0] = 10
    for row in (1, 2):
        counts[row, INSIDE, row] = 10
        counts[row, ~INSIDE, 0] = 10
    # Errors of reconstruction: .01 for 0, .02 for 3, .03 for 4.
    errors = np.array([[0.01], [0.02], [0.03]]) * np.ones(len(ANGLES))
    return Predictions(Rotation(), CLASSES, ANGLES, counts, errors)


def accuracy(task=None, shown=None):
    return figures.accuracy_by_parameter(shown or predictions(), task or recognition(), "a title", 1 / 3)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def saved(figure, folder):
    """Saves a figure and returns its pixels, (height, width, 3)."""
    figures.Picture("figure.png", figure).save(folder)
    assert [path.name for path in folder.iterdir()] == ["figure.png"]
    assert not plt.fignum_exists(figure.number)
    with Image.open(folder / "figure.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"), "int32")
    # Large enough to be read, small enough for a page.
    assert min(pixels.shape[:2]) >= 250 and max(pixels.shape[:2]) <= 3000
    # Not an empty sheet: more than one pixel in a hundred is not white.
    assert np.mean(pixels.min(-1) < 230) > 0.01
    return pixels


def spans(axes):
    """The shaded intervals of an axes, (low, high), ascending."""
    boxes = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    # To pixels and back: exact to some 1e-12 of the axis; half a degree could not be seen.
    return sorted((round(box.x0, 6), round(box.x1, 6)) for box in boxes if box.width)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def lines_of(axes):
    """Label -> line of those that are in the legend."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def shown_in(panel):
    """The image of a panel, whose brightness must not be stretched: a dark image stays dark."""
    (image,) = panel.images
    assert image.get_clim() == (0, 1)
    return np.asarray(image.get_array())


def test_accuracy_by_parameter(tmp_path):
    figure = accuracy()
    (axes,) = figure.axes
    assert (axes.get_title(), axes.get_ylabel()) == ("a title", "accuracy")
    assert axes.get_xlabel() == "angle, degrees (counter-clockwise)"
    assert axes.get_xlim() == (-180, 180) and axes.get_ylim()[0] <= 0 and axes.get_ylim()[1] >= 1
    lines = lines_of(axes)
    assert set(lines) == {"0", "3 (restricted)", "4 (restricted)", "chance (0.333)"}
    np.testing.assert_array_equal(lines["3 (restricted)"].get_xydata(), np.stack([ANGLES, INSIDE], axis=-1))
    assert set(lines["chance (0.333)"].get_ydata()) == {1 / 3}
    assert lines["0"].get_linewidth() < lines["3 (restricted)"].get_linewidth()
    assert len({lines[f"{label} (restricted)"].get_color() for label in (3, 4)}) == 2
    assert spans(axes) == [(-45, 45)]
    assert set(legend(axes)) == {*lines, "training range of 3, 4"}
    saved(figure, tmp_path)


def test_error_of_reconstruction(tmp_path):
    figure = figures.error_of_reconstruction(predictions(), recognition(), "a title")
    (axes,) = figure.axes
    assert axes.get_title() == "a title" and "mean squared error" in axes.get_ylabel() and axes.get_ylim()[0] == 0
    lines = lines_of(axes)
    # No chance: an error has none.
    assert set(lines) == {"0", "3 (restricted)", "4 (restricted)"}
    np.testing.assert_array_equal(lines["4 (restricted)"].get_ydata(), 0.03)
    assert set(legend(axes)) == {*lines, "training range of 3, 4"}
    saved(figure, tmp_path)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (((0, 45), (315, 360)), [(-45, 0), (0, 45)]),
        (((315, 405),), [(-45, 45)]),
        # Across the end of the axis.
        (((135, 225),), [(-180, -135), (135, 180)]),
        (((-225, -135),), [(-180, -135), (135, 180)]),
        (((0, 360),), [(-180, 180)]),
        (((-360, 360),), [(-180, 180)]),
    ],
)
def test_training_range_is_shaded_on_the_circle(shown, expected):
    (axes,) = accuracy(recognition(shown)).axes
    assert spans(axes) == expected
    assert axes.get_xlim() == (-180, 180)
    # However many pieces, one entry.
    assert sum("training range" in text for text in legend(axes)) == 1


def test_training_range_of_whole_values_is_shaded_to_its_last_one():
    points = np.arange(-10.0, 10.0, 5.0)
    shown = Predictions(Shift(), CLASSES, points, np.ones((len(CLASSES), len(points), len(CLASSES)), np.int64))
    task = Recognition(Shift(), Ranges(((-10, 10),), {3: ((-5, 5),)}))
    (axes,) = accuracy(task, shown).axes
    assert spans(axes) == [(-5, 4)] and axes.get_xlabel() == "shift, pixels (dy = dx)"


def test_without_restricted_classes_nothing_is_shaded():
    (axes,) = accuracy(recognition(labels=())).axes
    assert not axes.patches
    assert set(legend(axes)) == {"0", "3", "4", "chance (0.333)"}


def test_every_free_class_can_be_told_apart():
    """Ten free classes, as of MNIST without restrictions."""
    shown = Predictions(Rotation(), tuple(range(10)), ANGLES, np.ones((10, len(ANGLES), 10), np.int64))
    (axes,) = accuracy(recognition(labels=()), shown).axes
    assert len({(str(line._unscaled_dash_pattern), line.get_color()) for line in axes.get_lines()}) == 11


@pytest.mark.parametrize("labels", [(3, 4), (3,)])
def test_taken_for(tmp_path, labels):
    figure = figures.taken_for(predictions(), recognition(labels=labels, inverted=((135, 225),)), "a title")
    assert figure._suptitle.get_text() == f"a title: {' and '.join(map(str, labels))} from 135 to 225 degrees"
    for axes, label in zip(figure.axes, labels, strict=True):
        assert axes.get_title() == f"{label} (10 images; green: correct)" and axes.get_xlabel() == "taken for"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "3", "4"]
        assert [bar.get_height() for bar in axes.patches] == [1.0, 0.0, 0.0]
        green = [bar.get_facecolor()[1] > bar.get_facecolor()[0] for bar in axes.patches]
        assert green == [each == label for each in CLASSES]
    saved(figure, tmp_path)


@pytest.mark.parametrize("rows", [1, 100])
def test_training_curves(tmp_path, rows):
    history = [
        {"step": 4 * n, "images": 128 * n, "seconds": 0.5 * n, "loss": 2.0 / n, "accuracy": 1 - 1 / n}
        for n in range(1, rows + 1)
    ]
    figure = figures.training_curves(history, "a title")
    assert figure._suptitle.get_text() == "a title"
    for axes, key in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert axes.get_ylabel().startswith(f"{key},") and "images" in axes.get_xlabel()
        (line,) = axes.get_lines()
        assert line.get_xydata().tolist() == [[row["images"], row[key]] for row in history]
    saved(figure, tmp_path)


# Sheets of images


@pytest.mark.parametrize(("number", "channels"), [(1, 2), (14, 1), (14, 3), (1, 4)])
def test_contact_sheet(tmp_path, channels, number):
    images = noise(number, 8, 8, channels, spread=(0, 1))
    figure = figures.contact_sheet(images, [f"{n}: 7°" for n in range(number)], "a title")
    panels = [axes for axes in figure.axes if axes.images]
    for n, (axes, image) in enumerate(zip(panels, images, strict=True)):
        assert axes.get_title() == f"{n}: 7°"
        np.testing.assert_array_equal(shown_in(axes), image if channels in (3, 4) else image[..., 0])
    if number > 1:
        grey = np.ptp(saved(figure, tmp_path), axis=-1).max() == 0
        assert grey == (channels < 3)


@pytest.mark.parametrize(("number", "channels", "columns"), [(24, 1, 12), (10, 1, 8), (3, 3, 8)])
def test_reconstructions(tmp_path, number, channels, columns):
    inputs, drawn = noise(2, number, 8, 8, channels, spread=(0, 1))
    right = [n % 3 == 0 for n in range(number)]
    captions = [(f"3, {n}°", str(n % 10)) for n in range(number)]
    figure = figures.reconstructions(inputs, drawn, captions, right, "a title")
    panels = {axes.get_subplotspec().num1: axes for axes in figure.axes if axes.images}
    assert len(panels) == 2 * number
    for n in range(number):
        # Each input stands above its reconstruction.
        above = n // columns * 2 * columns + n % columns
        for place, image in ((above, inputs[n]), (above + columns, drawn[n])):
            np.testing.assert_array_equal(shown_in(panels[place]), image if channels == 3 else image[..., 0])
        assert (panels[above].get_title(), panels[above].title.get_color()) == (f"3, {n}°", "black")
        assert panels[above + columns].get_title() == f"taken for {n % 10}"
        assert panels[above + columns].title.get_color() == ("black" if right[n] else "#C03000")
    assert "a title" in figure._suptitle.get_text() and "red: not the true class" in figure._suptitle.get_text()
    saved(figure, tmp_path)


def test_dimensions(tmp_path):
    drawn = noise(6, 3, 8, 8, 1, spread=(0, 1))
    figure = figures.dimensions(drawn, [-0.25, 0.0, 0.25], "a title")
    for axes, (row, column) in zip(figure.axes, np.ndindex(6, 3), strict=True):
        np.testing.assert_array_equal(shown_in(axes), drawn[row, column, ..., 0])
        assert axes.get_title() == (["-0.25", "+0.00", "+0.25"][column] if row == 0 else "")
        assert axes.get_ylabel() == (str(row + 1) if column == 0 else "")
    assert figure._suptitle.get_text() == "a title"
    saved(figure, tmp_path)


@pytest.mark.parametrize(
    ("task", "points", "framed", "words"),
    [
        (GENERATION, [-180.0, -45.0, 1 / 3, 45.0], [False, True, True, False], "angle, degrees"),
        (SHIFT, [-20.0, -5.0, 4.0, 5.0], [False, True, True, False], "shift, pixels"),
    ],
)
def test_pairs(tmp_path, task, points, framed, words):
    expected, drawn = noise(2, 4, 2, 6, 6, 1, spread=(-1, 1))
    figure = figures.pairs(expected, drawn, [3, 4], points, task, "a title")
    for axes, (row, column) in zip(figure.axes, np.ndindex(4, 4), strict=True):
        image = (expected, drawn)[row % 2][column, row // 2, ..., 0]
        np.testing.assert_array_equal(shown_in(axes), (image + 1) / 2)
        # Free classes are trained everywhere; upper ends are open.
        edges = {spine.get_edgecolor()[:3] for spine in axes.spines.values()}
        assert (edges == {(1.0, 1.0, 1.0)}) == (row >= 2 and not framed[column])
        assert axes.get_title() == (f"{points[column]:.3g}" if row == 0 else "")
        assert axes.get_ylabel() == ("3", "", "4", "")[row] * (column == 0)
    assert figure._suptitle.get_text() == f"a title; framed: shown in training ({words})"
    saved(figure, tmp_path)


def test_samples(tmp_path):
    drawn = noise(3, 4, 6, 6, 1, spread=(-1, 1))
    figure = figures.samples(drawn, [-90.0, 0.0, 1 / 3, 45.0], GENERATION, "a title")
    for axes, (row, column) in zip(figure.axes, np.ndindex(3, 4), strict=True):
        np.testing.assert_array_equal(shown_in(axes), (drawn[row, column, ..., 0] + 1) / 2)
        assert axes.get_title() == (["-90", "0", "0.333", "45"][column] if row == 0 else "")
    assert figure._suptitle.get_text() == "a title (angle, degrees)"
    saved(figure, tmp_path)


# Errors


@pytest.mark.parametrize("restricted", [True, False])
def test_error_by_parameter(tmp_path, restricted):
    points = np.array([-135.0, -90.0, -45.0, 0.0, 45.0, 90.0])
    values = np.array([[0.01], [0.02], [0.03]]) * np.arange(1, 7)
    baseline = np.array([[9.0], [9.0], [0.5]]) * np.array([1, 1, 0, 1, 1, 1])
    errors = Errors(CLASSES, points, values, 0 * values, np.array([10, 10, 10]), {"copied input": baseline})
    task = GENERATION if restricted else replace(GENERATION, ranges=Ranges(((-180, 180),)))
    figure = figures.error_by_parameter(errors, task, 4, "a title", {4: {-45: 0.02, 45: 0.04}})
    (axes,) = figure.axes
    assert (axes.get_title(), axes.get_yscale()) == ("a title", "log")
    assert axes.get_ylabel() == "mean squared error, pixels in [-1, 1]"
    assert "degrees" in axes.get_xlabel() and axes.get_xlim() == (-180, 180)
    lines, blurred = lines_of(axes), [0, 2, 4]
    for label, line in zip(CLASSES, values, strict=True):
        np.testing.assert_array_equal(lines[str(label)].get_xydata(), np.stack([points, line], axis=-1)[blurred])
        crosses = np.stack([points, line], axis=-1)[[1, 3, 5]].tolist()
        assert any(
            line.get_marker() == "x" and line.get_xydata().tolist() == crosses
            and line.get_color() == lines[str(label)].get_color()
            for line in axes.get_lines()
        )  # fmt: skip
    assert lines["4"].get_color() != lines["3"].get_color() == lines["0"].get_color()
    # Of the digit asked for; no error at all has no logarithm.
    np.testing.assert_array_equal(lines["4: copied input"].get_ydata(), [0.5, np.nan, 0.5])
    assert lines["published (article)"].get_xydata().tolist() == [[-45, 0.02], [45, 0.04]]
    assert spans(axes) == ([(-45, 45)] if restricted else [(-180, 180)])
    shaded = f"training range of {4 if restricted else 'all classes'}"
    assert set(legend(axes)) == {*lines, shaded} and "not blurred (left out)" in lines
    saved(figure, tmp_path)


def test_parameter_map(tmp_path):
    values = np.arange(16.0).reshape(4, 4)
    figure = figures.parameter_map(values, np.array([-6, -3, 0, 3]), ((-5, 5),), "a title", "an error", most=20.0)
    axes, bar = figure.axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), values)
    # dy grows downwards, dx to the right, and each point is in the middle of its cell.
    assert tuple(image.get_extent()) == (-7.5, 4.5, 4.5, -7.5) and image.get_clim() == (0, 20)
    assert "dx" in axes.get_xlabel() and "dy" in axes.get_ylabel() and bar.get_ylabel() == "an error"
    (frame,) = axes.patches
    # The whole pixels -5 to 4.
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (-5.5, -5.5, 10, 10)
    saved(figure, tmp_path)


@pytest.mark.parametrize("task", [recognition(), SHIFT], ids=["accuracy", "error"])
def test_runs_of_a_model_are_one_line_with_their_span(task):
    # The second model's runs share two of three parameters.
    curves = {"a": [{0: 1.0, 5: 3.0}], "b": [{0: 2.0, 5: 4.0, 9: 7.0}, {5: 8.0, 0: 4.0}]}
    (axes,) = figures.curves_together(curves, task, "a title").axes
    assert {label: line.get_xydata().tolist() for label, line in lines_of(axes).items()} == {
        "a": [[0, 1], [5, 3]],
        "b": [[0, 3], [5, 6]],
    }
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(0, 2), (0, 4), (5, 4), (5, 8)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == (task.transformation.axis, task.curve)
    assert axes.get_yscale() == ("log" if task is SHIFT else "linear") and legend(axes) == ["a", "b"]


# Files


def animation(**changes):
    """Four frames of an expected image, ever lighter, beside an ever darker one; trained at 0 and 30 degrees."""
    shades = np.linspace(-1, 1, 4)[:, None, None, None] * np.ones((1, 5, 6, 1))
    angles = np.array([-45.5, 0.0, 30.0, 180.0])
    given = {"expected": shades, "drawn": -shades, "points": angles, "task": GENERATION, "label": 4}
    return figures.Animation("round.gif", **{**given, **changes})


def test_animation(tmp_path):
    animation().save(tmp_path)
    with Image.open(tmp_path / "round.gif") as film:
        assert film.format == "GIF" and film.info["loop"] == 0
        frames = [np.asarray(frame.convert("L"), "int32")[::4, ::4] for frame in ImageSequence.Iterator(film)]
    for frame, level, trained in zip(frames, np.linspace(0, 255, 4), (False, True, True, False), strict=True):
        # Two images of 5 x 6 pixels with a gap of two between them, above a bar. Rounded down; a GIF's palette.
        assert frame.shape == (7, 14)
        assert np.abs(frame[:5, :6] - level).max() <= 2 and np.abs(frame[:5, 8:] - (255 - level)).max() <= 2
        assert (frame[5:] == (255 if trained else 0)).all() and (frame[:5, 6:8] == 0).all()


@pytest.mark.parametrize("make", [lambda: figures.Picture("round.gif", accuracy()), animation])
def test_saving_is_atomic(tmp_path, monkeypatch, make):
    from invariance import files

    (tmp_path / "round.gif").write_bytes(b"old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        make().save(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("round.gif", b"old")]


def test_same_figure_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        figures.Picture(name, accuracy()).save(tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_saving_loses_nothing_visible(tmp_path):
    images = np.linspace(-1, 1, 6 * 2 * 16 * 16).reshape(6, 2, 16, 16, 1)
    sheet = figures.pairs(images, images[::-1], [3, 4], np.arange(-180.0, 180.0, 60.0), GENERATION, "t")
    for figure, greys in ((sheet, True), (accuracy(), False)):
        whole, few = io.BytesIO(), tmp_path / "few.png"
        figure.savefig(whole, format="png", dpi=130, bbox_inches="tight")
        figures.Picture("few.png", figure, greys).save(tmp_path)
        assert few.stat().st_size < 0.8 * len(whole.getvalue())
        one, other = (np.asarray(Image.open(picture).convert("RGB"), "int32") for picture in (whole, few))
        difference = np.abs(one - other)
        assert difference.mean() < 2 and np.percentile(difference, 99) <= 12
        # Coloured parts keep their colour.
        assert (np.ptp(other, axis=-1) > 100).sum() > 0.9 * (np.ptp(one, axis=-1) > 100).sum() > 0


def test_png_in_memory_closes_its_figure():
    figure = accuracy()
    with Image.open(io.BytesIO(figures.png(figure))) as image:
        assert image.format == "PNG"
    assert not plt.fignum_exists(figure.number)
