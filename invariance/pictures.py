"""The pictures of a run's folder: what is chosen to be drawn. How, is in `figures`."""

import numpy as np

from invariance import figures


def title(config, data) -> str:
    """What stands over every picture of a run."""
    text = f"{config.model} on {data.name} ({config.profile}, seed {config.seed})"
    return text + " — embedded digits, not MNIST" if data.name == "digits" else text


def training(config, data, prepare, history, folder, title):
    """The course of the training, and the first images as the network gets them."""
    from invariance import pipeline

    figures.save(figures.training_curves(history, title), folder / "training.png")
    images, labels, draws = next(iter(pipeline.batches(data.x_train, data.y_train, config.seed, 60, 0, 1)))
    drawn = np.asarray(config.protocol.transformation().draw(config.seed, draws, labels))
    captions = [f"{label}: {_parameter(value)}" for label, value in zip(labels.numpy(), drawn, strict=True)]
    inputs, targets = prepare(images, labels, draws)
    generation = isinstance(inputs, tuple)
    shown = (np.asarray(targets) + 1.0) / 2.0 if generation else np.asarray(inputs)
    what = "to be drawn by the network" if generation else "as the network gets them"
    moved = getattr(config.protocol, "max_shift", 0)
    what += f", turned as captioned and moved by up to {moved} pixels either way" if moved else ""
    sheet = figures.contact_sheet(shown, captions, f"{title}\nthe first training images {what}")
    figures.save(sheet, folder / "training_images.png", greys=True)


def _parameter(value):
    """An angle or a shift for people."""
    # As integers: there is no minus zero.
    return f"{int(np.rint(value))}°" if np.ndim(value) == 0 else "{:+d}, {:+d}".format(*np.rint(value).astype(int))


def recognition(protocol, predictions, chance, folder, title):
    """Accuracy against angle, and what upside-down digits are taken for."""
    if len(predictions.angles) > 1:
        figures.save(figures.accuracy_by_angle(predictions, protocol, title, chance), folder / "accuracy_by_angle.png")
        if predictions.errors is not None:
            figures.save(figures.error_by_angle(predictions, protocol, title), folder / "reconstruction_by_angle.png")
    if protocol.restricted:
        figures.save(figures.taken_for(predictions, protocol, title), folder / "taken_for.png")


def reconstructions(protocol, data, model, classes, folder, title):
    """The article's four pictures of reconstructions, and the sweep of the dimensions of a capsule."""
    from invariance import evaluation

    images, labels = data.x_test, data.y_test

    def picture(name, rows, angles, what):
        inputs, drawn, chosen = evaluation.reconstruct(model, images[rows], np.asarray(angles, "float32"))
        captions = [
            (f"{labels[row]}, {angle:.0f}°", str(classes[output]))
            for row, angle, output in zip(rows, angles, chosen, strict=True)
        ]
        right = [classes[output] == labels[row] for row, output in zip(rows, chosen, strict=True)]
        figures.save(
            figures.reconstructions(inputs, drawn, captions, right, f"{title}\n{what}"),
            folder / f"reconstructions_{name}.png",
            greys=True,
        )

    def first(label, count):
        return np.flatnonzero(labels == label)[:count].tolist()

    rows = [row for label in classes for row in first(label, 16 // len(classes) or 1)]
    angles = [middle for row in rows for middle in spread_over(protocol.ranges.of(int(labels[row])), 16)]
    # Neighbouring images at angles far from each other.
    angles = [angles[16 * number + (7 * number) % 16] for number in range(len(rows))]
    picture("in_range", rows, angles, "test images of all classes, each in its training range")
    for label in protocol.restricted[:1]:
        one = first(label, 1)
        if one:
            inside, outside = (spread_over(pairs, 12) for pairs in (protocol.inside, protocol.outside))
            picture("one_in_range", one * 12, inside, f"one {label} in its training range")
            picture("one_outside", one * 12, outside, f"the same {label} outside its training range")
    chosen = [first(label, 24 // len(protocol.restricted)) for label in protocol.restricted]
    rows = [row for rows in chosen for row in rows]
    if rows:
        span = [angle for rows in chosen for angle in spread_over(protocol.inverted, len(rows))]
        names = " and ".join(f"{label}s" for label in protocol.restricted)
        picture("inverted", rows, span, f"{names} in the inverted range")
    offsets = np.arange(-5, 6) * 0.05
    example = first(protocol.restricted[0] if protocol.restricted else classes[0], 1)
    if example:
        drawn = evaluation.sweep(model, images[example[0]], offsets)
        what = f"an upright {labels[example[0]]}: each dimension of the chosen capsule moved from -0.25 to 0.25"
        figures.save(figures.dimensions(drawn, offsets, f"{title}\n{what}"), folder / "dimensions.png", greys=True)


def example(protocol, classes) -> int:
    """The digit that is shown where one must do: the first restricted one; without any, the article's 4."""
    return (*protocol.restricted, *({4} & set(classes)), *classes)[0]


def generation(config, data, model, artist, classes, errors, folder, title):
    """Error against parameter, pairs of expected and drawn images, one digit going round, samples of the decoder."""
    from invariance import generation as numbers

    protocol = config.protocol
    figures.save(
        figures.error_by_parameter(errors, protocol, example(protocol, classes), title, config.published),
        folder / "error_by_parameter.png",
    )
    article = [label for label in (3, 5, 4, 9) if label in classes]
    restricted = [label for label in classes if label in protocol.restricted]
    shown = article if set(restricted) <= set(article) else [*article[:2], *restricted]
    shown = shown or list(classes[:4])
    images = np.stack([data.x_test[np.flatnonzero(data.y_test == label)[0]] for label in shown])
    drawings = numbers.Drawings(artist, images)
    points = np.arange(-180, 180, 18.0) if protocol.parameter == "angle" else protocol.grid(None)
    expected, drawn = drawings.pairs(protocol.parameters(points))
    figures.save(
        figures.pairs(expected, drawn, shown, points, protocol, f"{title}\nabove: expected; below: drawn"),
        folder / "pairs.png",
        greys=True,
    )
    fine = np.arange(-180, 180, 6.0) if protocol.parameter == "angle" else protocol.grid(1)
    one = shown.index(example(protocol, classes)) if example(protocol, classes) in shown else 0
    expected, drawn = numbers.Drawings(artist, images[one : one + 1]).pairs(protocol.parameters(fine))
    label = shown[one]
    figures.animation(
        expected[:, 0], drawn[:, 0], protocol.ranges.of(label), fine, protocol.parameter, folder / "round.gif"
    )
    if hasattr(model, "decoder"):
        codes = numbers.Drawings(artist, data.x_train[:2000]).codes.astype("float64")
        _samples(config, model, codes, points, folder, title)


def _samples(config, model, codes, points, folder, title):
    """The decoder used alone: codes drawn at random, transformed through all parameters."""
    from invariance import generation as numbers

    rng, size = np.random.default_rng(config.seed), codes.shape[-1]
    # The prior of the regularised model; and for any, a normal distribution with the codes' mean and covariance.
    kinds = {
        "prior": ("codes uniform in [-1, 1]", rng.uniform(-1.0, 1.0, (6, size))),
        "codes": (
            "codes normal, with mean and covariance of the training images' codes",
            rng.multivariate_normal(codes.mean(axis=0), np.atleast_2d(np.cov(codes.T)), 6, method="eigh"),
        ),
    }
    for name, (what, sample) in kinds.items():
        drawn = numbers.draw_codes(model, config.protocol, sample.astype("float32"), config.protocol.parameters(points))
        figures.save(
            figures.samples(drawn, points, config.protocol, f"{title}\nthe decoder alone: {what}"),
            folder / f"samples_{name}.png",
            greys=True,
        )


def shift_map(protocol, digit, shifts, errors, folder, title):
    """The error of one digit over (dy, dx)."""
    figures.save(figures.error_map(errors, shifts, protocol.ranges.of(digit), f"{title}: {digit}"), folder / "map.png")


def spread_over(pairs, count):
    """Values spread evenly over intervals: the middles of ``count`` equal parts (single values in turn)."""
    total = sum(high - low for low, high in pairs)
    if not total:
        return [pairs[number % len(pairs)][0] for number in range(count)]
    values = []
    for number in range(count):
        rest = (number + 0.5) / count * total
        for low, high in pairs:
            if rest <= high - low:
                values.append(low + rest)
                break
            rest -= high - low
    return values
