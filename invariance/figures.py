"""All pictures. The only module that imports matplotlib."""

import io
import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from invariance.results import replacing

# Colour-blind-safe (Okabe and Ito); restricted classes get the two strong ones.
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


def save(figure, path, greys: bool = False):
    """Writes a figure as PNG, atomically, and closes it. Few colours remain: half the bytes, and nothing visible lost.

    Args:
        figure: of matplotlib.
        path: of the file.
        greys: whether it is a sheet of grey images, in which every shade counts.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    way = (96, Image.Quantize.MEDIANCUT) if greys else (256, Image.Quantize.FASTOCTREE)
    few = Image.open(drawn).convert("RGB").quantize(*way, dither=Image.Dither.NONE)
    with replacing(path) as partial:
        few.save(partial, "PNG", optimize=True)


def _signed(intervals):
    """Intervals modulo 360, cut and moved into [-180, 180]."""
    pieces = []
    for low, high in intervals:
        if high - low >= 360:
            return [(-180.0, 180.0)]
        start = (low + 180) % 360 - 180
        stop = start + high - low
        pieces += [(start, stop)] if stop <= 180 else [(start, 180.0), (-180.0, stop - 360)]
    return pieces


def accuracy_by_angle(predictions, protocol, title, chance):
    """Accuracy against angle, a line a digit; training range of the restricted digits shaded; chance dashed."""
    figure, axes = _by_angle(predictions, predictions.accuracy, protocol)
    axes.axhline(chance, color="black", lw=1, ls=(0, (2, 3)), label=f"chance ({chance:.3f})")
    axes.set(ylabel="share recognised", title=title, ylim=(-0.02, 1.02))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="digit")
    return figure


def error_by_angle(predictions, protocol, title):
    """Mean squared error of the reconstruction against angle, drawn as the accuracy is."""
    figure, axes = _by_angle(predictions, predictions.errors, protocol)
    axes.set(ylabel="mean squared error of the reconstruction", title=title)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="digit")
    return figure


def _by_angle(predictions, values, protocol):
    """Axes with a line a digit over the angles, the training range of the restricted digits shaded."""
    figure, axes = plt.subplots(figsize=(9, 4.6))
    spans = sorted({span for label in protocol.restricted for span in _signed(protocol.ranges.of(label))})
    names = ", ".join(str(label) for label in protocol.restricted)
    for number, (low, high) in enumerate(spans):
        axes.axvspan(low, high, color="#FBEBD3", zorder=0, label=f"training range of {names}" if number == 0 else None)
    free = 0
    for label, line in zip(predictions.classes, values, strict=True):
        if label in protocol.restricted:
            colour = _STRONG[protocol.restricted.index(label) % len(_STRONG)]
            axes.plot(predictions.angles, line, color=colour, lw=2.4, label=f"{label} (restricted)", zorder=3)
        else:
            axes.plot(predictions.angles, line, color=_FREE, ls=_DASHES[free % len(_DASHES)], lw=1.1, label=str(label))
            free += 1
    axes.set(xlabel="angle, degrees (counter-clockwise)", xlim=(-180, 180))
    axes.set_xticks(range(-180, 181, 45))
    axes.grid(alpha=0.25)
    return figure, axes


def taken_for(predictions, protocol, title):
    """What the restricted digits, turned into the protocol's inverted range, are taken for."""
    labels = protocol.restricted
    shares = predictions.taken_for(labels, protocol.inverted)
    figure, panels = plt.subplots(1, len(labels), figsize=(4.2 * len(labels), 3.2), sharey=True, squeeze=False)
    for panel, label, row in zip(panels[0], labels, shares, strict=True):
        colours = ["#009E73" if predicted == label else "#888888" for predicted in predictions.classes]
        bars = panel.bar([str(predicted) for predicted in predictions.classes], row, color=colours)
        panel.bar_label(bars, [f"{value:.2f}" if value >= 0.005 else "0" for value in row], fontsize=8)
        images = predictions.images[predictions.classes.index(label)]
        panel.set(title=f"{label} ({images:,} images; green: right)", xlabel="taken for", ylim=(0, 1.08))
    panels[0, 0].set_ylabel("share of images")
    spans = ", ".join(f"[{low:g}, {high:g}]" for low, high in protocol.inverted)
    figure.suptitle(f"{title}: restricted digits turned by {spans} degrees", y=1.02)
    return figure


def training_curves(history, title):
    """Loss and the other logged values against the number of training images seen."""
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


def contact_sheet(images, captions, title):
    """A sheet of images as a network gets them.

    Args:
        images: (n, height, width, channels), in [0, 1].
        captions: n short texts.
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


def reconstructions(inputs, drawn, captions, right, title):
    """Pairs of images: above what the network gets, below what its decoder draws of it.

    Args:
        inputs: (n, height, width, channels), in [0, 1].
        drawn: the same shape.
        captions: n pairs (text over the input, class that was chosen).
        right: n truth values; what is not right gets a red caption.
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


def dimensions(drawn, offsets, title):
    """The decoder's images as one dimension after the other of a capsule is moved: a row a dimension.

    Args:
        drawn: (dimensions, offsets, height, width, channels), in [0, 1].
        offsets: what was added.
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


def error_by_parameter(errors, protocol, digit, title, published=None):
    """Mean squared error of drawn images against angle or shift, a line a digit, on a logarithmic scale.

    The training range of the restricted digits is shaded. Points at which the target is not blurred by interpolation
    stand apart from the lines. Baselines are those of ``digit``; published values are dots.

    Args:
        errors: `generation.Errors`.
        protocol: gives the ranges.
        digit: whose baselines are drawn.
        title: over the axes.
        published: digit -> {parameter: value}.
    """
    figure, axes = plt.subplots(figsize=(9, 5.4))
    angle = protocol.parameter == "angle"
    # Shifts are whole pixels: an interval (-5, 5) holds -5, ..., 4.
    cut = _signed if angle else lambda pairs: [(low, high - 1) for low, high in pairs]
    some = protocol.restricted or errors.classes[:1]
    names = ", ".join(map(str, protocol.restricted)) or "all digits"
    for number, (low, high) in enumerate(sorted({span for label in some for span in cut(protocol.ranges.of(label))})):
        axes.axvspan(low, high, color="#FBEBD3", zorder=0, label=f"training range of {names}" if number == 0 else None)
    blurred = ~np.isin(errors.points, protocol.unblurred)
    free, strong = 0, iter(_STRONG)
    emphasised = {label: next(strong) for label in (protocol.restricted or (digit,))[: len(_STRONG)]}
    for label, line in zip(errors.classes, errors.errors, strict=True):
        if label in emphasised:
            style = {"color": emphasised[label], "lw": 2.2, "zorder": 3}
        else:
            style = {"color": _FREE, "lw": 1.1, "ls": _DASHES[free % len(_DASHES)]}
            free += 1
        axes.plot(errors.points[blurred], line[blurred], label=str(label), **style)
        colour = {"color": style["color"], "zorder": style.get("zorder", 2)}
        axes.plot(errors.points[~blurred], line[~blurred], ls="none", marker="x", ms=4, **colour)
    row = errors.classes.index(digit)
    for number, (name, values) in enumerate(errors.baselines.items()):
        axes.plot(
            errors.points[blurred],
            # A copied input has no error where nothing is moved; a logarithm has no place for that.
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
    axes.set(
        yscale="log",
        xlabel=protocol.axis,
        ylabel="mean squared error, pixels in [-1, 1]",
        title=title,
    )
    if angle:
        axes.set(xlim=(-180, 180), xticks=range(-180, 181, 45))
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def pairs(expected, drawn, labels, points, protocol, title):
    """Expected images above drawn ones, a column a parameter, two rows a digit; trained parameters are framed.

    Args:
        expected: (points, digits, height, width, channels), in [-1, 1].
        drawn: the same shape.
        labels: of the digits.
        points: of the parameter.
    """
    digits = len(labels)
    figure, panels = _sheet(2 * digits, len(points))
    for row, label in enumerate(labels):
        for column, point in enumerate(points):
            trained = _trained(protocol, label, point)
            for line, image in ((2 * row, expected[column, row]), (2 * row + 1, drawn[column, row])):
                panel = panels[line, column]
                _image(panel, (np.asarray(image) + 1) / 2)
                for spine in panel.spines.values():
                    spine.set(color="#E69F00" if trained else "white", linewidth=1.2)
            if row == 0:
                panels[0, column].set_title(f"{point:g}", fontsize=7, pad=2)
        panels[2 * row, 0].set_ylabel(str(label), rotation=0, fontsize=10, labelpad=10, va="center")
    figure.suptitle(f"{title}; framed: shown in training ({protocol.parameter}, {protocol.unit})", fontsize=10)
    return figure


def samples(drawn, points, protocol, title):
    """Images drawn from codes, a row a code and a column a parameter.

    Args:
        drawn: (codes, points, height, width, channels), in [-1, 1].
        points: of the parameter.
    """
    figure, panels = _sheet(*drawn.shape[:2])
    for row, images in enumerate(drawn):
        for column, image in enumerate(images):
            _image(panels[row, column], (image + 1) / 2)
            if row == 0:
                panels[row, column].set_title(f"{points[column]:g}", fontsize=7, pad=2)
    figure.suptitle(f"{title} ({protocol.parameter}, {protocol.unit})", fontsize=10)
    return figure


def error_map(errors, shifts, pairs, title):
    """Mean squared error over (dy, dx); the training range is framed.

    Args:
        errors: (shifts, shifts), rows dy.
        shifts: pixels.
        pairs: the training range, of which the outermost ends are drawn.
    """
    figure, axes = plt.subplots(figsize=(6.2, 5.2))
    half = (shifts[1] - shifts[0]) / 2
    extent = (shifts[0] - half, shifts[-1] + half, shifts[-1] + half, shifts[0] - half)
    image = axes.imshow(errors, extent=extent, cmap="viridis", vmin=0)
    low, high = pairs[0][0] - 0.5, pairs[-1][1] - 0.5
    axes.add_patch(plt.Rectangle((low, low), high - low, high - low, fill=False, ec="#E69F00", lw=2))
    axes.set(xlabel="dx, pixels (positive: right)", ylabel="dy, pixels (positive: down)", title=title)
    figure.colorbar(image, label="mean squared error, pixels in [-1, 1]")
    return figure


def animation(expected, drawn, pairs, points, parameter, path):
    """Writes an animated GIF: expected image left, drawn image right; a bar below while the parameter was trained.

    Args:
        expected: (frames, height, width, channels), in [-1, 1].
        drawn: the same shape.
        pairs: the training range.
        points: (frames,) of the parameter.
        parameter: "angle" or "shift".
        path: of the file.
    """
    frames = []
    for left, right, point in zip(expected, drawn, points, strict=True):
        gap = -np.ones((left.shape[0], 2, left.shape[2]))
        frame = np.concatenate([left, gap, right], axis=1)
        bar = np.full((2, *frame.shape[1:]), 1.0 if _in_range(point, pairs, parameter) else -1.0)
        grey = np.clip((np.concatenate([frame, bar]).mean(axis=-1) + 1) * 127.5, 0, 255).astype("uint8")
        frames.append(Image.fromarray(grey).resize((grey.shape[1] * 4, grey.shape[0] * 4), Image.Resampling.NEAREST))
    with replacing(path) as partial:
        frames[0].save(partial, "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)


def curves_together(curves, xlabel, title, logarithmic=False):
    """One curve a model over the same parameter: the mean of its runs, with the span between the lowest and highest.

    Args:
        curves: name -> [{parameter: value}, one a run]. Parameters that not all runs of a model have are left out.
        xlabel: what the parameter is.
        title: over the axes.
        logarithmic: scale of the values.
    """
    figure, axes = plt.subplots(figsize=(8, 4.4))
    for number, (name, runs) in enumerate(curves.items()):
        color = _STRONG[number % len(_STRONG)]
        points = sorted(set.intersection(*map(set, runs)))
        values = np.array([[run[point] for point in points] for run in runs])
        dashes = _DASHES[number // len(_STRONG) % len(_DASHES)]
        axes.plot(points, values.mean(axis=0), label=name, lw=1.4, color=color, ls=dashes)
        if len(runs) > 1:
            axes.fill_between(points, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, lw=0)
    axes.set(xlabel=xlabel, title=title, yscale="log" if logarithmic else "linear")
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return figure


def _trained(protocol, label, point):
    return _in_range(point, protocol.ranges.of(label), protocol.parameter)


def _in_range(point, pairs, parameter):
    turns = (-360, 0, 360) if parameter == "angle" else (0,)
    return any(low <= point + turn < high or low == high == point + turn for low, high in pairs for turn in turns)


def _sheet(rows, columns):
    """A figure of small panels without ticks."""
    height = rows * 0.66 + 0.8
    figure, panels = plt.subplots(rows, columns, figsize=(columns * 0.62 + 0.5, height), squeeze=False)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.01, top=1 - 0.75 / height, wspace=0.06, hspace=0.06)
    return figure, panels


def _image(panel, image):
    image = np.asarray(image)
    panel.imshow(image[..., 0] if image.shape[-1] not in (3, 4) else image, cmap="gray", vmin=0, vmax=1)
