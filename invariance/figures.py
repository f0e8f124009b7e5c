"""All figures. The only module that imports matplotlib."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from invariance.files import replacing
from invariance.ranges import Intervals, centred, contains
from invariance.wording import join, printable

if TYPE_CHECKING:
    from invariance.report.responses import Curve
    from invariance.tasks import Recognition, Task
    from invariance.tasks.applied_movement import AppliedMovement
    from invariance.tasks.draw import Errors
    from invariance.tasks.metrics import Predictions
    from invariance.transfer.answers import Answers

# Names may have characters that the font lacks; they are drawn as boxes.
warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")

# Safe for colour-blind readers (Okabe and Ito). Restricted classes get the strong colours.
_STRONG, _FREE = ("#D55E00", "#0072B2", "#CC79A7", "#009E73"), "#9A9A9A"
_DASHES = (
    "-",
    "--",
    "-.",
    (0, (1, 2.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 0.8)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (2, 2)),
    (0, (12, 3, 3, 3)),
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure to be saved in a folder.

    Args:
        name: name of its file.
        figure: the figure.
        greys: whether it consists of grey images, whose shades the palette must preserve.
    """

    name: str
    figure: Figure
    greys: bool = False

    def save(self, folder: Path) -> None:
        """Writes the figure as PNG, atomically, and closes it. A palette halves the size without visible loss.

        Raises:
            RunError: if the file cannot be written.
        """
        drawn = io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
        plt.close(self.figure)
        colours, method = (96, Image.Quantize.MEDIANCUT) if self.greys else (256, Image.Quantize.FASTOCTREE)
        reduced = Image.open(drawn).convert("RGB").quantize(colours, method, dither=Image.Dither.NONE)
        with replacing(folder / self.name) as partial:
            reduced.save(partial, "PNG", optimize=True)


def png(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as PNG, in bytes. The figure is closed."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, bbox_inches="tight")
    plt.close(figure)
    return stream.getvalue()


def accuracy_by_parameter(predictions: Predictions, task: Recognition, title: str, chance: float) -> Figure:
    """Accuracy over the parameter, a line per class; the restricted training range is shaded, chance is dashed."""
    figure, axes = _by_parameter(predictions, predictions.accuracy, task)
    axes.axhline(chance, color="black", lw=1, ls=(0, (2, 3)), label=f"chance ({chance:.3f})")
    axes.set(ylabel="accuracy", title=title, ylim=(-0.02, 1.02))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="class")
    return figure


def error_of_reconstruction(predictions: Predictions, task: Recognition, title: str) -> Figure:
    """Mean squared error of the reconstruction over the parameter, drawn like the accuracy."""
    figure, axes = _by_parameter(predictions, predictions.errors, task)
    axes.set(ylabel="mean squared error of the reconstruction", title=title)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="class")
    return figure


def _shade(axes: Any, task: Task, labels: Sequence[int], names: str) -> None:
    """Shades the training ranges of some classes; ranges of whole values up to their last one."""
    kind = task.transformation
    spans = {span for label in labels for span in centred(task.drawn.of(label), kind.period)}
    for number, (low, high) in enumerate(sorted(spans)):
        axes.axvspan(
            low,
            high - 1 if kind.whole else high,
            color="#FBEBD3",
            zorder=0,
            label=f"training range of {names}" if number == 0 else None,
        )


def _parameter_axis(axes: Any, task: Task) -> None:
    """Sets the label, limits and ticks of the parameter's axis."""
    kind = task.transformation
    axes.set_xlabel(kind.axis)
    if kind.period:
        axes.set_xlim(-kind.period / 2, kind.period / 2)
    if kind.ticks:
        axes.set_xticks(kind.ticks)


def _by_parameter(predictions: Predictions, values: Any, task: Recognition) -> tuple[Figure, Any]:
    """Axes with a line per class over the parameter and the restricted training range shaded."""
    figure, axes = plt.subplots(figsize=(9, 4.6))
    _parameter_axis(axes, task)
    _shade(axes, task, task.restricted, ", ".join(map(str, task.restricted)))
    free = 0
    for label, line in zip(predictions.classes, values, strict=True):
        if label in task.restricted:
            colour = _STRONG[task.restricted.index(label) % len(_STRONG)]
            axes.plot(predictions.points, line, color=colour, lw=2.4, label=f"{label} (restricted)", zorder=3)
        else:
            axes.plot(predictions.points, line, color=_FREE, ls=_DASHES[free % len(_DASHES)], lw=1.1, label=str(label))
            free += 1
    axes.grid(alpha=0.25)
    return figure, axes


def taken_for(predictions: Predictions, task: Recognition, title: str) -> Figure:
    """What the restricted classes are taken for, farthest from their training range."""
    labels = task.restricted
    shares = predictions.taken_for(labels, task.farthest)
    figure, panels = plt.subplots(1, len(labels), figsize=(4.2 * len(labels), 3.2), sharey=True, squeeze=False)
    for panel, label, row in zip(panels[0], labels, shares, strict=True):
        colours = ["#009E73" if predicted == label else "#888888" for predicted in predictions.classes]
        bars = panel.bar([str(predicted) for predicted in predictions.classes], row, color=colours)
        panel.bar_label(bars, [f"{value:.2f}" if value >= 0.005 else "0" for value in row], fontsize=8)
        images = predictions.images[predictions.classes.index(label)]
        panel.set(title=f"{label} ({images:,} images; green: correct)", xlabel="taken for", ylim=(0, 1.08))
    panels[0, 0].set_ylabel("share of images")
    figure.suptitle(f"{title}: {join(labels)} {task.transformation.describe(task.farthest)}", y=1.02)
    return figure


def training_curves(history: Sequence[Mapping[str, float]], title: str) -> Figure:
    """The loss and the other logged values over the number of training images seen."""
    keys = [key for key in history[0] if key not in ("step", "images", "seconds")]
    figure, panels = plt.subplots(1, len(keys), figsize=(4.6 * len(keys), 3.2), squeeze=False)
    images = [row["images"] for row in history]
    for panel, key in zip(panels[0], keys, strict=True):
        panel.plot(
            images, [row[key] for row in history], color=_STRONG[1], marker="o" if len(history) < 40 else None, ms=3
        )
        panel.set(xlabel="training images seen", ylabel=f"{key}, mean over an epoch")
        panel.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        panel.grid(alpha=0.25)
    figure.suptitle(title, y=1.02)
    figure.tight_layout()
    return figure


def contact_sheet(images: Any, captions: Sequence[str], title: str) -> Figure:
    """A sheet of captioned images.

    Args:
        images: (n, height, width, channels), in [0, 1].
        captions: n short captions.
        title: of the figure.
    """
    columns = 12
    rows = math.ceil(len(images) / columns)
    figure, panels = plt.subplots(rows, columns, figsize=(columns * 0.9, rows * 1.1 + 0.6), squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for panel, image, caption in zip(panels.flat, np.asarray(images), captions, strict=False):
        _image(panel, image)
        panel.set_title(caption, fontsize=7, pad=2)
    figure.suptitle(title, fontsize=10)
    heading = 0.35 + 0.2 * len(title.splitlines())
    top = 1 - heading / (rows * 1.1 + 0.6)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=top, wspace=0.06, hspace=0.24)
    return figure


def reconstructions(
    inputs: Any, drawn: Any, captions: Sequence[tuple[str, str]], right: Sequence[bool], title: str
) -> Figure:
    """Pairs of images: the network's input above its reconstruction.

    Args:
        inputs: (n, height, width, channels), in [0, 1].
        drawn: reconstructions, of the same shape.
        captions: n pairs (caption of the input, class it is taken for).
        right: n booleans; captions of wrong answers are red.
        title: of the figure.
    """
    columns = 12 if len(inputs) % 12 == 0 else 8
    blocks = math.ceil(len(inputs) / columns)
    height = blocks * 2.5 + 0.7
    figure, panels = plt.subplots(2 * blocks, columns, figsize=(columns * 1.0, height), squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for number, (image, reconstruction) in enumerate(zip(inputs, drawn, strict=True)):
        block, column = divmod(number, columns)
        above, below = captions[number]
        colour = "black" if right[number] else "#C03000"
        for row, picture, caption, shade in (
            (2 * block, image, above, "black"),
            (2 * block + 1, reconstruction, f"taken for {below}", colour),
        ):
            _image(panels[row, column], picture)
            panels[row, column].set_title(caption, fontsize=7.5, pad=2, color=shade)
    figure.suptitle(f"{title}\nabove: input; below: reconstruction (red: not the true class)", fontsize=10)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.95 / height, wspace=0.06, hspace=0.2)
    return figure


def dimensions(drawn: np.ndarray, offsets: Sequence[float] | np.ndarray, title: str) -> Figure:
    """The decoder's images as each dimension of a capsule is varied, a row per dimension.

    Args:
        drawn: (dimensions, offsets, height, width, channels), in [0, 1].
        offsets: the values added to a dimension.
        title: of the figure.
    """
    rows, columns = drawn.shape[:2]
    height = rows * 0.62 + 0.9
    figure, panels = plt.subplots(rows, columns, figsize=(columns * 0.62 + 0.5, height), squeeze=False)
    for row in range(rows):
        for column in range(columns):
            panel = panels[row, column]
            panel.set(xticks=[], yticks=[])
            _image(panel, drawn[row, column])
            if row == 0:
                panel.set_title(f"{offsets[column]:+.2f}", fontsize=7, pad=2)
        panels[row, 0].set_ylabel(str(row + 1), rotation=0, fontsize=8, labelpad=8, va="center")
    figure.suptitle(title, fontsize=9)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.01, top=1 - 0.75 / height, wspace=0.04, hspace=0.04)
    return figure


def error_by_parameter(
    errors: Errors,
    task: Task,
    digit: int,
    title: str,
    published: Mapping[int, Mapping[float, float]] | None = None,
    what: str = "mean squared error, pixels in [-1, 1]",
) -> Figure:
    """An error over the parameter, a line per class, on a logarithmic scale; by default that of drawn images.

    The restricted training range is shaded. Crosses are points at which interpolation does not blur the target; circles
    are published values.

    Args:
        errors: of a model.
        task: gives the ranges.
        digit: the class whose baselines are drawn.
        title: of the figure.
        published: digit -> {parameter: value}.
        what: label of the error's axis.
    """
    figure, axes = plt.subplots(figsize=(9, 5.4))
    _shade(axes, task, task.restricted or errors.classes[:1], ", ".join(map(str, task.restricted)) or "all classes")
    blurred = ~np.isin(errors.points, task.transformation.unblurred)
    free, strong = 0, iter(_STRONG)
    emphasised = {label: next(strong) for label in (task.restricted or (digit,))[: len(_STRONG)]}
    style: dict[str, Any]
    for label, line in zip(errors.classes, errors.errors, strict=True):
        if label in emphasised:
            style = {"color": emphasised[label], "lw": 2.2, "zorder": 3}
        else:
            style = {"color": _FREE, "lw": 1.1, "ls": _DASHES[free % len(_DASHES)]}
            free += 1
        axes.plot(errors.points[blurred], line[blurred], label=str(label), **style)
        cross = {"ls": "none", "marker": "x", "ms": 4, "zorder": style.get("zorder", 2)}
        axes.plot(errors.points[~blurred], line[~blurred], color=style["color"], **cross)
    row = errors.classes.index(digit)
    for number, (name, values) in enumerate(errors.baselines.items()):
        axes.plot(
            errors.points[blurred],
            # A copied input has no error at the identity, which has no logarithm.
            np.where(values[row, blurred] > 0, values[row, blurred], np.nan),
            color="black",
            lw=0.9,
            ls=_DASHES[number + 1],
            label=f"{digit}: {name}",
        )
    for number, (label, points) in enumerate(sorted((published or {}).items())):
        colour = emphasised.get(label, _FREE)
        legend = "published (article)" if number == 0 else None
        axes.plot(
            list(points),
            list(points.values()),
            ls="none",
            marker="o",
            ms=5,
            mfc="none",
            mec=colour,
            label=legend,
            zorder=4,
        )
    if not blurred.all():
        axes.plot([], [], ls="none", marker="x", color="black", ms=4, label="not blurred (left out)")
    axes.set(yscale="log", ylabel=what, title=title)
    _parameter_axis(axes, task)
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def pairs(
    expected: np.ndarray, drawn: np.ndarray, labels: Sequence[int], points: Any, task: Task, title: str
) -> Figure:
    """Expected images above drawn ones, two rows per class and a column per parameter; trained parameters are framed.

    Args:
        expected: (points, digits, height, width, channels), in [-1, 1].
        drawn: the same shape.
        labels: of the digits.
        points: (points,) of the parameter.
        task: gives the training ranges.
        title: of the figure.
    """
    digits = len(labels)
    figure, panels = _sheet(2 * digits, len(points))
    trained_at = {label: contains(task.drawn.of(label), points, task.transformation.period) for label in labels}
    for row, label in enumerate(labels):
        for column, point in enumerate(points):
            trained = trained_at[label][column]
            for line, image in ((2 * row, expected[column, row]), (2 * row + 1, drawn[column, row])):
                panel = panels[line, column]
                _image(panel, (np.asarray(image) + 1) / 2)
                for spine in panel.spines.values():
                    spine.set(color="#E69F00" if trained else "white", linewidth=1.2)
            if row == 0:
                panels[0, column].set_title(f"{point:.3g}", fontsize=7, pad=2)
        panels[2 * row, 0].set_ylabel(str(label), rotation=0, fontsize=10, labelpad=10, va="center")
    figure.suptitle(f"{title}; framed: shown in training ({_named(task)})", fontsize=10)
    return figure


def samples(drawn: np.ndarray, points: Any, task: Task, title: str) -> Figure:
    """Images drawn from codes, a row per code and a column per parameter.

    Args:
        drawn: (codes, points, height, width, channels), in [-1, 1].
        points: (points,) of the parameter.
        task: names the parameter.
        title: of the figure.
    """
    return _grid((drawn + 1) / 2, points, f"{title} ({_named(task)})")


def _named(task: Task) -> str:
    """The parameter and its unit."""
    kind = task.transformation
    return f"{kind.parameter}, {kind.unit}" if kind.unit else kind.parameter


def parameter_map(
    values: np.ndarray, points: np.ndarray, trained: Intervals, title: str, label: str, most: float | None = None
) -> Figure:
    """A number over (dy, dx); the training range, between its outermost ends, is framed.

    Args:
        values: (points, points), a row for each dy.
        points: shifts in pixels, evenly spaced.
        trained: the training range.
        title: of the figure.
        label: of the colour scale.
        most: end of the colour scale; None for the largest number.
    """
    figure, axes = plt.subplots(figsize=(6.2, 5.2))
    half = (points[1] - points[0]) / 2 if len(points) > 1 else 0.5
    extent = (points[0] - half, points[-1] + half, points[-1] + half, points[0] - half)
    image = axes.imshow(values, extent=extent, cmap="viridis", vmin=0, vmax=most)
    low, high = trained[0][0] - 0.5, trained[-1][1] - 0.5
    axes.add_patch(plt.Rectangle((low, low), high - low, high - low, fill=False, ec="#E69F00", lw=2))
    axes.set(xlabel="dx, pixels (positive: right)", ylabel="dy, pixels (positive: down)", title=title)
    axes.title.set_fontsize(10)
    figure.colorbar(image, label=label)
    return figure


def vector_fields(learnt: np.ndarray, true: np.ndarray, mask: np.ndarray, task: Task, title: str) -> Figure:
    """Learnt vector fields beside the true ones, and their difference.

    Args:
        learnt: (fields, height, width, 2), rows and columns in pixels.
        true: (dimensions, height, width, 2). The combination of learnt fields nearest to each is shown beside it.
        mask: (height, width), where they are compared.
        task: gives the names.
        title: of the figure.
    """
    height, width = mask.shape
    rows, columns = np.mgrid[:height:2, :width:2]
    figure, panels = plt.subplots(len(true), 3, figsize=(10.5, 3.6 * len(true) + 0.6), squeeze=False)
    basis = learnt[:, mask].reshape(len(learnt), -1).T
    for panel_row, field in zip(panels, true, strict=True):
        weights = np.linalg.lstsq(basis, field[mask].ravel(), rcond=None)[0]
        nearest = np.tensordot(weights, learnt, 1)
        scale = np.abs(field[mask]).max() / 1.8
        shown = np.where(mask[..., None], field, np.nan)
        for panel, values, name in zip(
            panel_row,
            (nearest, shown, (nearest - shown) * 10),
            ("learnt", "true", "difference, ten times"),
            strict=True,
        ):
            arrows = values[::2, ::2] / scale
            panel.quiver(
                columns, rows, arrows[..., 1], arrows[..., 0], angles="xy", scale_units="xy", scale=1, width=0.004
            )
            panel.set(title=name, aspect="equal", xlim=(-1, width), ylim=(height, -1))
            panel.set_xticks([])
            panel.set_yticks([])
    figure.suptitle(f"{title}\nhow pixels move, per unit of the {task.transformation.parameter}", fontsize=10)
    figure.tight_layout()
    return figure


def answers(given: Answers, title: str) -> Figure:
    """The parameters that a learnt movement answers, over the true ones: a panel for each."""
    kind = given.transformation
    dimensions = given.true.shape[1]
    figure, panels = plt.subplots(1, dimensions, figsize=(5.4 * dimensions, 5.4), squeeze=False)
    # On the scale on which parameters are drawn, relative to the identity.
    true, answered = (
        np.asarray(kind.from_coordinate(values + kind.to_coordinate(kind.identity)), float)
        for values in (given.true, given.answered)
    )
    names = ("dy", "dx") if dimensions == 2 else (kind.parameter,)
    groups = (("free", ~given.restricted, _FREE, "o"), ("restricted", given.restricted, _STRONG[0], "x"))
    for number, (panel, name) in enumerate(zip(panels[0], names, strict=True)):
        ends = true[:, number].min(), true[:, number].max()
        panel.plot(ends, ends, color="black", lw=0.8, ls=(0, (2, 3)), label="the true one")
        for label, mask, colour, marker in groups:
            style = {"ls": "none", "marker": marker, "ms": 4, "color": colour}
            panel.plot(true[mask, number], answered[mask, number], label=f"{label} classes", **style)
        unit = f", {kind.unit}" if kind.unit else ""
        panel.set(xlabel=f"true {name}{unit}", ylabel=f"answered {name}{unit}")
        if kind.ticks:
            panel.set(xticks=kind.ticks, yticks=kind.ticks)
        panel.grid(alpha=0.25)
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{title}\ntest images, moved from upright; {given.unit}", fontsize=10)
    figure.tight_layout()
    return figure


def moved(times: np.ndarray, images: np.ndarray, title: str) -> Figure:
    """Images moved by a learnt movement: a row for each image, a column for each time.

    Args:
        times: (number,), of the movement's own unit.
        images: (rows, number, height, width, channels) in [0, 1], or near it.
        title: the figure's title.
    """
    return _grid(images, times, f"{title}\ntest images, moved as was learnt, by times from end to end")


def _grid(images: np.ndarray, heads: Any, title: str) -> Figure:
    """Images (rows, columns, height, width, channels) in [0, 1], with a number over each column."""
    figure, panels = _sheet(*images.shape[:2])
    for row, line in zip(panels, images, strict=True):
        for panel, image in zip(row, line, strict=True):
            _image(panel, image)
    for panel, head in zip(panels[0], heads, strict=True):
        panel.set_title(f"{head:.3g}", fontsize=7, pad=2)
    figure.suptitle(title, fontsize=10)
    return figure


def applied_movement(measured: AppliedMovement, title: str) -> Figure:
    """How a network itself moves its input, a panel for each number: means over the free and the restricted classes."""
    task, means = measured.task, measured.means()
    kind, names = task.transformation, list(measured.values)
    figure, panels = plt.subplots(len(names), 1, figsize=(9, 2.8 * len(names) + 0.6), squeeze=False)
    for panel, name in zip(panels[:, 0], names, strict=True):
        _parameter_axis(panel, task)
        _shade(panel, task, task.restricted, ", ".join(map(str, task.restricted)))
        for group, colour in (("free", _FREE), ("restricted", _STRONG[0])):
            if group not in means:
                continue
            own = means[group]
            # Where angles are scattered, their mean says little.
            sizes = 20 * own["concentration"] + 1 if name == kind.parameter and kind.period else 12
            panel.scatter(measured.points, own[name], s=sizes, color=colour, label=f"{group} classes")
        if name == kind.parameter and kind.period:
            half = kind.period / 2
            panel.plot((-half, half), (half, -half), color="black", lw=0.8, ls=(0, (2, 3)), label="undoes it all")
            panel.set(yticks=kind.ticks, ylim=(-half, half))
        panel.set(ylabel=f"applied {name}" + (f", {kind.unit}" if name == kind.parameter else ""))
        panel.grid(alpha=0.25)
    panels[0, 0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    what = "mean over images; larger points: images agree" if measured.angles is not None else "mean over images"
    figure.suptitle(f"{title}\nhow the network itself moves its input ({what})", fontsize=10)
    figure.tight_layout()
    return figure


@dataclass(frozen=True, eq=False)
class Animation:
    """An animated GIF: the expected image beside the drawn one, above a white bar if the parameter was trained.

    Args:
        name: name of its file.
        expected: (frames, height, width, channels), in [-1, 1].
        drawn: the same shape.
        points: (frames,) of the parameter.
        task: gives the training range.
        label: of the class that is drawn.
    """

    name: str
    expected: np.ndarray
    drawn: np.ndarray
    points: np.ndarray
    task: Task
    label: int

    def save(self, folder: Path) -> None:
        """Writes the animation, atomically.

        Raises:
            RunError: if the file cannot be written.
        """
        trained = contains(self.task.drawn.of(self.label), self.points, self.task.transformation.period)
        frames = []
        for left, right, inside in zip(self.expected, self.drawn, trained, strict=True):
            gap = -np.ones((left.shape[0], 2, left.shape[2]))
            frame = np.concatenate([left, gap, right], axis=1)
            bar = np.full((2, *frame.shape[1:]), 1.0 if inside else -1.0)
            grey = np.clip((np.concatenate([frame, bar]).mean(axis=-1) + 1) * 127.5, 0, 255).astype("uint8")
            size = (grey.shape[1] * 4, grey.shape[0] * 4)
            frames.append(Image.fromarray(grey).resize(size, Image.Resampling.NEAREST))
        with replacing(folder / self.name) as partial:
            frames[0].save(partial, "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)


def curves_together(curves: Mapping[str, Sequence[Mapping[float, float]]], task: Task, title: str) -> Figure:
    """A curve per model over the parameter: the mean of its runs, shaded from the lowest to the highest.

    Args:
        curves: name -> [{parameter: value} of each run]; only parameters that all runs of a model share are drawn.
        task: names the parameter and what is measured.
        title: of the figure.
    """
    figure, axes = plt.subplots(figsize=(8, 4.4))
    for number, (name, runs) in enumerate(curves.items()):
        color = _STRONG[number % len(_STRONG)]
        points = sorted(set.intersection(*map(set, runs)))
        values = np.array([[run[point] for point in points] for run in runs])
        dashes = _DASHES[number // len(_STRONG) % len(_DASHES)]
        axes.plot(points, values.mean(axis=0), label=_literal(name), lw=1.4, color=color, ls=dashes)
        if len(runs) > 1:
            axes.fill_between(points, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, lw=0)
    axes.set(ylabel=task.curve, title=_literal(title), yscale="log" if task.logarithmic else "linear")
    _parameter_axis(axes, task)
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def responses(curves: Sequence[Curve], title: str) -> Figure:
    """Responses against one setting: a panel for each response, a line per model, bars of 95 % intervals.

    The level of each response is dashed, the usual dose dotted.

    Args:
        curves: of one experiment and one setting.
        title: of the figure.
    """
    names = list(dict.fromkeys(curve.label for curve in curves))
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        panels.setdefault(curve.response.key, []).append(curve)
    figure, row = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4), squeeze=False)
    for axes, members in zip(row[0], panels.values(), strict=True):
        for curve in members:
            number = names.index(curve.label)
            means, halves = zip(*(point.interval for point in curve.points), strict=True)
            axes.errorbar(
                [point.dose for point in curve.points],
                means,
                [half or 0.0 for half in halves],
                label=_literal(curve.label),
                color=_STRONG[number % len(_STRONG)],
                ls=_DASHES[number // len(_STRONG) % len(_DASHES)],
                lw=1.6,
                marker="o",
                ms=4,
                elinewidth=1,
                capsize=3,
            )
        levels = {round(curve.level, 4): curve.response for curve in members if curve.level is not None}
        for number, (level, response) in enumerate(levels.items()):
            label = response.level_title if number == 0 else None
            axes.axhline(level, color="black", lw=1, ls=(0, (4, 3)), label=label)
        usual = sorted({point.dose for curve in members for point in curve.points if point.usual})
        for number, dose in enumerate(usual):
            axes.axvline(dose, color="black", lw=1, ls=":", label=members[0].usual if number == 0 else None)
        response = members[0].response
        axes.set(xlabel=members[0].axis, ylabel=response.title)
        axes.set_title(response.where, fontsize=9)
        if any(curve.logarithmic for curve in members):
            axes.set_xscale("log", base=2)
        doses = sorted({point.dose for curve in members for point in curve.points})
        if len(doses) <= 10:
            axes.set_xticks(doses, [f"{dose:g}" for dose in doses], fontsize=8)
        if response.logarithmic:
            # An interval that reaches below zero has no end on this scale.
            axes.set_yscale("log", nonpositive="clip")
            shown = [value for curve in members for point in curve.points for _, value in point.values]
            axes.set_ylim(0.8 * min(*shown, *levels), 1.25 * max(*shown, *levels))
            for axis_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                axis_ticks(matplotlib.ticker.FormatStrFormatter("%.3g"))
        elif all(0 <= value <= 1 for curve in members for point in curve.points for _, value in point.values):
            axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.25)
    # One legend for all panels, which share their models.
    handles: dict[str, Any] = {}
    for axes in row[0]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    row[0][-1].legend(
        handles.values(), handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8
    )
    figure.suptitle(_literal(title), fontsize=10)
    figure.tight_layout()
    return figure


def _literal(text: str) -> str:
    """A text from a file, on one line; nothing in it is a formula."""
    return printable(text).replace("$", r"\$")


def _sheet(rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure of small panels without ticks."""
    height = rows * 0.66 + 0.8
    figure, panels = plt.subplots(rows, columns, figsize=(columns * 0.62 + 0.5, height), squeeze=False)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.01, top=1 - 0.75 / height, wspace=0.06, hspace=0.06)
    return figure, panels


def _image(panel: Any, image: Any) -> None:
    image = np.asarray(image)
    panel.imshow(image[..., 0] if image.shape[-1] not in (3, 4) else image, cmap="gray", vmin=0, vmax=1)
