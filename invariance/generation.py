"""(model, protocol, arrays) -> how well each digit is drawn at each parameter; then mse_in, mse_out and their ratio."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from invariance import xla
from invariance.errors import UserError
from invariance.evaluation import mean_squared
from invariance.progress import Progress, Watch
from invariance.protocol import Generation

# Images drawn at once: so many at most, in multiples of the second.
BATCH, ROUND = 256, 16
BASELINES = ("all black", "mean image of the digit", "input copied")


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of drawn images, of pixels in [-1, 1].

    Attributes:
        classes: labels.
        points: (points,) degrees or pixels, ascending.
        errors: (classes, points) mean over the images of a class.
        deviations: (classes, points) standard deviation between the images of a class.
        images: (classes,) number of images of each class.
        baselines: one of `BASELINES` -> (classes, points) mean squared error of drawing just that.
    """

    classes: tuple[int, ...]
    points: np.ndarray
    errors: np.ndarray
    deviations: np.ndarray
    images: np.ndarray
    baselines: dict[str, np.ndarray]

    def curves(self) -> list[dict]:
        """The long table: digit, parameter (degrees or pixels), value (mean squared error), images, deviation."""
        return [
            {
                "digit": label,
                "parameter": float(point),
                "value": float(self.errors[row, column]),
                "images": int(self.images[row]),
                "deviation": float(self.deviations[row, column]),
            }
            for row, label in enumerate(self.classes)
            for column, point in enumerate(self.points)
        ]

    def baseline_curves(self) -> list[dict]:
        """The same of the baselines: baseline, digit, parameter, value."""
        return [
            {"baseline": name, "digit": label, "parameter": float(point), "value": float(values[row, column])}
            for name, values in self.baselines.items()
            for row, label in enumerate(self.classes)
            for column, point in enumerate(self.points)
        ]


def require_images(shape, expected):
    """Raises UserError if a model's outputs of this shape, (batch, ...), are not images of the protocol's."""
    if tuple(shape[1:]) != tuple(expected):
        raise UserError(f"the model draws images {tuple(shape[1:])}; the protocol's are {tuple(expected)}")


class Artist:
    """A model's encoder and decoder, compiled once for all that is drawn with them.

    Args:
        model: a `models.conditional_autoencoder.ConditionalAutoencoder`, or any Keras model that takes a pair (upright
            images in [-1, 1], encoded parameters) and returns images.
        protocol: gives the transformation.
    """

    def __init__(self, model: keras.Model, protocol: Generation):
        self.protocol = protocol
        transformation = protocol.transformation()
        encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
        if encoder is None or decoder is None:
            # A model in one piece is given the image itself for a code.
            encoder, decoder = (lambda pixels, training: pixels), model

        def encode(images):
            return encoder(protocol.pixels(images), training=False)

        def draw(codes, parameters):
            return ops.cast(decoder([codes, transformation.encode(parameters)], training=False), "float32")

        def target(images, parameters):
            return transformation.apply(protocol.pixels(images), parameters)

        def errors(images, codes, parameters):
            drawn, expected = self.draw(codes, parameters), self.target(images, parameters)
            require_images(drawn.shape, expected.shape[1:])
            return mean_squared(drawn, expected)

        def baselines(images, parameters, means, rows):
            upright = protocol.pixels(images)
            expected = transformation.apply(upright, parameters)
            repeated = ops.broadcast_to(parameters[:1], (means.shape[0], *parameters.shape[1:]))
            mean = ops.take(transformation.apply(means, repeated), rows, axis=0)
            copied = transformation.apply(upright, ops.zeros_like(parameters))
            return ops.stack([mean_squared(expected, other) for other in (-1.0, mean, copied)])

        on_gpu = xla.on_gpu()
        # The warp is compiled by XLA anywhere; on a CPU networks run faster on TensorFlow's kernels.
        for function, compiled in (
            (encode, on_gpu),
            (draw, on_gpu),
            (errors, on_gpu),
            (target, True),
            (baselines, True),
        ):
            setattr(
                self,
                function.__name__,
                tf.function(function, jit_compile=compiled, autograph=False, reduce_retracing=True),
            )


class Drawings:
    """Images, each encoded once, that can be drawn at any parameters.

    Args:
        artist: draws them.
        images: (n, height, width, channels) uint8.

    Raises:
        UserError: if the model does not fit the images.
    """

    def __init__(self, artist: Artist, images: np.ndarray):
        self.artist, self.count = artist, len(images)
        if not self.count:
            raise UserError("there are no images to be drawn")
        # Batches of one size, the last padded, so that little is compiled and little computed in vain.
        batches = ceil(self.count / BATCH)
        self.size = ROUND * ceil(self.count / (ROUND * batches))
        padding = np.zeros((batches * self.size - self.count, *images.shape[1:]), images.dtype)
        padded = np.concatenate([images, padding])
        self._batches = [tf.constant(padded[start : start + self.size]) for start in range(0, len(padded), self.size)]
        try:
            self._codes = [artist.encode(batch) for batch in self._batches]
        except ValueError as error:
            raise UserError(f"the model does not take the images {tuple(images.shape[1:])} ({error})") from error

    @property
    def codes(self) -> np.ndarray:
        """(n, code_size)"""
        return np.concatenate([np.asarray(part) for part in self._codes])[: self.count]

    def _told(self, parameters):
        """The parameters for a batch."""
        return tf.constant(np.repeat(np.asarray(parameters, "float32")[None], self.size, axis=0))

    def errors(self, parameters) -> np.ndarray:
        """Mean squared errors (n,) of all images drawn with the same parameters."""
        told = self._told(parameters)
        parts = [self.artist.errors(*batch, told).numpy() for batch in zip(self._batches, self._codes, strict=True)]
        errors = np.concatenate(parts)[: self.count]
        if not np.isfinite(errors).all():
            raise UserError(f"the model's drawings of {int((~np.isfinite(errors)).sum())} images are not finite")
        return errors

    def baselines(self, parameters, means, rows) -> np.ndarray:
        """The same for `BASELINES`, (baselines, n).

        Args:
            parameters: of the transformation.
            means: (classes, height, width, channels) float32 in [-1, 1], the classes' mean images.
            rows: (n,) each image's row there.
        """
        told = self._told(parameters)
        padded = np.zeros(len(self._batches) * self.size, "int32")
        padded[: self.count] = rows
        parts = [
            self.artist.baselines(batch, told, tf.constant(means), tf.constant(chosen))
            for batch, chosen in zip(self._batches, padded.reshape(-1, self.size), strict=True)
        ]
        return np.concatenate([part.numpy() for part in parts], axis=1)[:, : self.count]

    def pairs(self, parameters):
        """Expected and drawn images at each of some parameters, both (parameters, n, height, width, channels)."""
        expected, drawn = [], []
        for told in parameters:
            told = self._told(told)
            expected.append(np.concatenate([self.artist.target(batch, told) for batch in self._batches])[: self.count])
            drawn.append(np.concatenate([self.artist.draw(codes, told) for codes in self._codes])[: self.count])
        return np.stack(expected), np.stack(drawn)


def draw_codes(model, protocol: Generation, codes: np.ndarray, parameters) -> np.ndarray:
    """What the decoder alone makes of codes, at each of some parameters.

    Args:
        model: a `models.conditional_autoencoder.ConditionalAutoencoder`.
        protocol: gives the encoding of the parameters.
        codes: (n, code_size).
        parameters: (parameters,) degrees or (parameters, 2) pixels.

    Returns:
        (n, parameters, height, width, channels).
    """
    parameters = np.asarray(parameters, "float32")
    told = np.asarray(protocol.transformation().encode(parameters))
    drawn = model.decoder(
        [np.repeat(codes, len(told), axis=0), np.tile(told, (len(codes), 1))],
        training=False,
    )
    return np.asarray(drawn, "float32").reshape(len(codes), len(told), *drawn.shape[1:])


def evaluation_points(protocol: Generation, spacing: float | None) -> np.ndarray:
    """The points at which images are drawn, ascending: the protocol's grid and its unblurred points."""
    return np.union1d(protocol.grid(spacing), protocol.unblurred)


def measure(
    artist: Artist,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    means: np.ndarray,
    points: np.ndarray,
    progress: Progress | None = None,
) -> Errors:
    """Draws every image at every point and compares.

    Args:
        artist: the model and its protocol.
        images: (n, height, width, channels) uint8.
        labels: (n,) labels, all among ``classes``.
        classes: ascending labels.
        means: (classes, height, width, channels) in [-1, 1], see `mean_images`.
        points: (points,) degrees, or pixels for dy = dx.
        progress: where to say how far it is.

    Raises:
        UserError: if the model does not fit, or images of a class are missing.
    """
    progress = progress or Progress("evaluation", quiet=True)
    rows = np.searchsorted(classes, labels)
    counts = np.bincount(rows, minlength=len(classes))
    if len(images) != len(labels) or not set(labels.tolist()) == set(classes):
        raise UserError(
            f"images of each class are needed, one label an image; there are {len(images)} images and {len(labels)} "
            f"labels, and not each of the classes {list(classes)}"
        )
    drawings, protocol = Drawings(artist, images), artist.protocol
    values = np.zeros((2 + len(BASELINES), len(classes), len(points)))
    watch = Watch(len(points))
    for column, parameters in enumerate(protocol.parameters(points)):
        errors = drawings.errors(parameters).astype("float64")
        for kind, each in enumerate((errors, errors**2, *drawings.baselines(parameters, means, rows))):
            values[kind, :, column] = np.bincount(rows, each, len(classes)) / counts
        if progress.due():
            progress.show(
                (column + 1) / len(points),
                f"{protocol.parameter} {column + 1}/{len(points)}  {watch.left(column + 1)} left",
            )
    mean, square, *baselines = values
    deviations = np.sqrt(np.maximum(0.0, square - mean**2))
    named = dict(zip(BASELINES, baselines, strict=True))
    return Errors(tuple(classes), np.asarray(points, float), mean, deviations, counts, named)


def mean_images(images: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The mean image of each class, (classes, height, width, channels) float32 in [-1, 1]."""
    means = [images[labels == label].mean(axis=0, dtype=np.float64) for label in classes]
    return (np.stack(means) / 127.5 - 1.0).astype("float32")


def ratios(errors: Errors, protocol: Generation) -> dict:
    """mse_in, mse_out and their ratio for each digit: plain averages over the points of the evaluation.

    Points at which the target is not blurred by interpolation are left out.

    Returns:
        {"mse_in", "mse_out", "ratio": {digit: value}, "unblurred": {point: {digit: value}}, "baselines": name ->
        {"mse_in", "mse_out": {digit: value}}, "images": {digit: number}}; digits and points as text.

    Raises:
        ValueError: see `averaged`.
    """
    chosen = averaged(errors.points, protocol)

    def by_digit(values):
        return {str(label): float(value) for label, value in zip(errors.classes, values, strict=True)}

    def means(values):
        return {name: by_digit(values[:, mask].mean(axis=1)) for name, mask in chosen.items()}

    result = means(errors.errors)
    result["ratio"] = {
        digit: result["mse_out"][digit] / max(result["mse_in"][digit], 1e-12) for digit in result["mse_in"]
    }
    result["unblurred"] = {
        f"{point:g}": by_digit(errors.errors[:, column])
        for column, point in enumerate(errors.points)
        if point in protocol.unblurred
    }
    result["baselines"] = {name: means(values) for name, values in errors.baselines.items()}
    result["images"] = {str(label): int(number) for label, number in zip(errors.classes, errors.images, strict=True)}
    return result


def averaged(points: np.ndarray, protocol: Generation) -> dict[str, np.ndarray]:
    """Which of the points each average is taken over: {"mse_in", "mse_out": (points,) truth values}.

    Raises:
        ValueError: if none of the points lies inside, or none outside.
    """
    chosen = {
        "mse_in": within(points, protocol.inside, protocol),
        "mse_out": within(points, protocol.outside, protocol),
    }
    for name, mask in chosen.items():
        if not mask.any():
            raise ValueError(f"no point of the evaluation's grid lies in the range of {name}; a finer grid is needed")
    return chosen


def within(points: np.ndarray, pairs, protocol: Generation) -> np.ndarray:
    """Which of the points lie in a range, ends included, and are blurred; angles are taken modulo 360. (points,)"""
    turns = (-360.0, 0.0, 360.0) if protocol.parameter == "angle" else (0.0,)
    inside = [(low <= points + turn) & (points + turn <= high) for low, high in pairs for turn in turns]
    return np.any(inside, axis=0) & ~np.isin(points, protocol.unblurred)


def shift_map(artist: Artist, images: np.ndarray, shifts: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Mean squared error of some images at each (dy, dx) of a square grid, (shifts, shifts)."""
    progress = progress or Progress("map", quiet=True)
    drawings, watch, rows = Drawings(artist, images), Watch(len(shifts)), []
    for dy in shifts:
        rows.append([drawings.errors((dy, dx)).mean() for dx in shifts])
        if progress.due():
            progress.show(len(rows) / len(shifts), f"map, row {len(rows)}/{len(shifts)}  {watch.left(len(rows))} left")
    return np.array(rows)
