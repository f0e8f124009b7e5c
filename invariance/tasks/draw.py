"""Measures models that draw: the error of each class at each parameter, then mse_in, mse_out and their ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from invariance import xla
from invariance.errors import UserError, one_line
from invariance.progress import Progress, Watch
from invariance.ranges import Ranges
from invariance.tasks.batches import Batches, limited, mean_squared, over_both
from invariance.tasks.task import Evaluation, Measured
from invariance.typing import Tensor

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks.generation import Generation

# The largest number of images drawn at once.
BATCH = 256
BASELINES = ("all black", "mean image of the digit", "input copied")
# A map over two parameters: points in each direction, and images of one class.
_MAP_POINTS, _MAP_IMAGES = 20, 50


class Autoencoding:
    """A model's encoder and decoder, combined with a task's transformation and compiled once for all uses.

    Args:
        model: a `models.conditional_autoencoder.ConditionalAutoencoder`, or any Keras model that takes a pair (upright
            images in [-1, 1], encoded parameters) and returns images (batch, *output_shape).
        task: gives the transformation.
        image_shape: (height, width, channels) of upright images.

    Raises:
        UserError: if the model does not take such images, or draws images of another shape.
    """

    def __init__(self, model: Any, task: Generation, image_shape: tuple[int, ...]):
        self.task, self.image_shape = task, tuple(image_shape)
        transformation = task.transformation
        self.output_shape = task.arguments(self.image_shape, ())[1]
        encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
        if encoder is None or decoder is None or not task.encodes:
            # For a model without an encoder of its own, the image is the code.
            encoder, decoder = (lambda pixels, training: pixels), model
        self._decoder = decoder

        def encode(images: Tensor) -> Tensor:
            return encoder(task.pixels(images), training=False)

        # Where images are transformed for the model, by XLA, too.
        given = task.given if task.encodes else xla.compiled(task.given)

        def draw(codes: Tensor, parameters: Tensor) -> Tensor:
            return self.decode(given(codes, parameters))

        def target(images: Tensor, parameters: Tensor) -> Tensor:
            return task.expected(task.pixels(images), parameters)

        def beside(images: Tensor, parameters: Tensor) -> Tensor:
            return task.beside(task.pixels(images), parameters)

        def errors(images: Tensor, codes: Tensor, parameters: Tensor) -> Tensor:
            return mean_squared(self.draw(codes, parameters), self.target(images, parameters))

        def baselines(images: Tensor, parameters: Tensor, means: Tensor, rows: Tensor) -> Tensor:
            upright = task.pixels(images)
            expected, copied = task.expected(upright, parameters), task.unchanged(upright, parameters)
            mean = task.expected(ops.take(means, rows, axis=0), parameters)
            return ops.stack([mean_squared(expected, other) for other in (task.fill, mean, copied)])

        def compiled(function: Any, by_xla: bool) -> Any:
            return tf.function(function, jit_compile=by_xla, autograph=False, reduce_retracing=True)

        # XLA always compiles the warp. On a CPU, networks run faster on TensorFlow's own kernels.
        on_gpu = xla.on_gpu()
        self.encode, self.draw, self.errors = (compiled(each, on_gpu) for each in (encode, draw, errors))
        self.target, self.beside, self.baselines = (compiled(each, True) for each in (target, beside, baselines))
        try:
            codes = self.encode(tf.zeros((2, *self.image_shape), tf.uint8))
            same = transformation.parameters(np.full(2, transformation.identity))
            self.decode(task.given(codes, tf.constant(same, tf.float32)))
        except UserError:
            raise
        except Exception as error:  # a model may raise anything
            raise UserError(f"the model does not take images {self.image_shape} ({one_line(error)})") from error

    def decode(self, given: Any) -> Tensor:
        """Images (batch, *output_shape) float32 from what the task gives, see `Generation.given`.

        Raises:
            UserError: if the model draws images of another shape.
        """
        drawn = self._decoder(list(given) if isinstance(given, tuple) else given, training=False)
        shape = tuple(getattr(drawn, "shape", ()))
        if shape[1:] != self.output_shape:
            raise UserError(f"the model draws images {shape[1:]}, but images {self.output_shape} are needed")
        return ops.cast(drawn, "float32")


class EncodedImages:
    """Images, each encoded once, to be drawn at any parameters.

    Args:
        autoencoding: the model that encodes and draws them.
        images: see `Batches`.

    Raises:
        UserError: if they are not images of the model's shape.
    """

    def __init__(self, autoencoding: Autoencoding, images: ArrayLike):
        self.autoencoding = autoencoding
        self._batches = Batches(images, autoencoding.image_shape, BATCH)
        self._codes = [autoencoding.encode(batch) for batch in self._batches]

    @property
    def count(self) -> int:
        """The number of images."""
        return self._batches.count

    @property
    def codes(self) -> np.ndarray:
        """The codes, (n, code_size)."""
        return self._batches.join(self._codes)

    def _repeated(self, parameters: Any) -> tf.Tensor:
        """The parameters of all images of a batch, at one point of a grid."""
        task = self.autoencoding.task
        return tf.constant(task.transformation.around(parameters, Ranges(task.inside), self._batches.size))

    def errors(self, parameters: Any) -> np.ndarray:
        """Mean squared errors (n,) of all images, drawn with the same parameters.

        Raises:
            UserError: if drawn images are not finite.
        """
        repeated = self._repeated(parameters)
        errors = self._batches.join(
            self.autoencoding.errors(*batch, repeated) for batch in zip(self._batches, self._codes, strict=True)
        )
        if not np.isfinite(errors).all():
            raise UserError(f"the model's drawings of {int((~np.isfinite(errors)).sum())} images are not finite")
        return errors

    def baselines(self, parameters: Any, means: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The errors of `BASELINES`, (baselines, n).

        Args:
            parameters: of the transformation.
            means: (classes, height, width, channels) float32 in [-1, 1], the classes' mean images.
            rows: (n,) the index of each image's class.
        """
        repeated, split = self._repeated(parameters), self._batches.split(rows.astype("int32"))
        parts = [
            tf.transpose(self.autoencoding.baselines(batch, repeated, tf.constant(means), own))
            for batch, own in zip(self._batches, split, strict=True)
        ]
        return self._batches.join(parts).T

    def pairs(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected images (see `Generation.beside`) and drawn ones, both (parameters, n, height, width, channels) in
        [-1, 1].

        Args:
            parameters: (parameters,) or (parameters, dimensions).
        """
        expected, drawn = [], []
        for each in parameters:
            repeated = self._repeated(each)
            expected.append(self._batches.join(self.autoencoding.beside(batch, repeated) for batch in self._batches))
            drawn.append(self._batches.join(self.autoencoding.draw(codes, repeated) for codes in self._codes))
        return np.stack(expected), np.stack(drawn)


def draw_codes(autoencoding: Autoencoding, codes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Images that the decoder alone draws from codes.

    Args:
        autoencoding: has the decoder.
        codes: (n, code_size).
        parameters: (parameters,) or (parameters, dimensions).

    Returns:
        (n, parameters, height, width, channels) in [-1, 1].
    """
    encoded = np.asarray(autoencoding.task.transformation.encode(np.asarray(parameters, "float32")))
    drawn = autoencoding.decode((np.repeat(codes, len(encoded), axis=0), np.tile(encoded, (len(codes), 1))))
    return np.asarray(drawn).reshape(len(codes), len(encoded), *drawn.shape[1:])


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of drawn images, pixels in [-1, 1].

    Attributes:
        classes: labels.
        points: (points,) parameters, ascending.
        errors: (classes, points) mean over the images of a class.
        deviations: (classes, points) standard deviation over the images of a class.
        images: (classes,) number of images of each class.
        baselines: name from `BASELINES` -> (classes, points) mean squared error of drawing that instead.
    """

    classes: tuple[int, ...]
    points: np.ndarray
    errors: np.ndarray
    deviations: np.ndarray
    images: np.ndarray
    baselines: dict[str, np.ndarray]

    def curves(self) -> list[dict]:
        """Rows (digit, parameter, value, images, deviation), where ``value`` is the mean squared error."""
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
        """Rows (baseline, digit, parameter, value)."""
        return [
            {"baseline": name, "digit": label, "parameter": float(point), "value": float(values[row, column])}
            for name, values in self.baselines.items()
            for row, label in enumerate(self.classes)
            for column, point in enumerate(self.points)
        ]


def draw_all(
    autoencoding: Autoencoding,
    images: ArrayLike,
    labels: np.ndarray,
    classes: Sequence[int],
    means: np.ndarray,
    points: np.ndarray,
    progress: Progress | None = None,
) -> Errors:
    """Draws all images at all points and compares them with the expected ones.

    Args:
        autoencoding: the model and its task.
        images: (n, height, width) or (n, height, width, channels), see `Batches`.
        labels: (n,) labels, all among ``classes``.
        classes: labels, ascending.
        means: (classes, height, width, channels) in [-1, 1], see `mean_images`.
        points: (points,) of the parameter.
        progress: reports progress, if given.

    Raises:
        UserError: if images and labels do not fit the model and one another, or a class has no images.
    """
    progress = progress or Progress("evaluation", quiet=True)
    encoded, transformation = EncodedImages(autoencoding, images), autoencoding.task.transformation
    if encoded.count != len(labels) or set(labels.tolist()) != set(classes):
        raise UserError(
            f"images of each class are needed, one label per image; there are {encoded.count} images and "
            f"{len(labels)} labels of the classes {sorted(set(labels.tolist()))} for the classes {list(classes)}"
        )
    rows = np.searchsorted(classes, labels)
    counts = np.bincount(rows)
    values = np.zeros((2 + len(BASELINES), len(classes), len(points)))
    watch = Watch(len(points))
    for column, parameters in enumerate(transformation.parameters(points)):
        errors = encoded.errors(parameters).astype("float64")
        for kind, each in enumerate((errors, errors**2, *encoded.baselines(parameters, means, rows))):
            values[kind, :, column] = np.bincount(rows, each, len(classes)) / counts
        if progress.due():
            done = column + 1
            progress.show(
                done / len(points), f"{transformation.parameter} {done}/{len(points)}  {watch.left(done)} left"
            )
    mean, square, *baselines = values
    deviations = np.sqrt(np.maximum(0.0, square - mean**2))
    named = dict(zip(BASELINES, baselines, strict=True))
    return Errors(tuple(classes), np.asarray(points, float), mean, deviations, counts, named)


def mean_images(images: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The mean image of each class, (classes, height, width, channels) float32 in [-1, 1]."""
    means = [images[labels == label].mean(axis=0, dtype=np.float64) for label in classes]
    return (np.stack(means) / 127.5 - 1.0).astype("float32")


def ratios(errors: Errors, task: Generation) -> dict:
    """mse_in, mse_out and their ratio for each digit: unweighted averages over the points of the evaluation.

    Points at which interpolation does not blur the target are omitted.

    Returns:
        {"mse_in", "mse_out", "ratio": {digit: value}, "unblurred": {point: {digit: value}}, "baselines": name ->
        {"mse_in", "mse_out": {digit: value}}, "images": {digit: number}}; digits and points as strings.

    Raises:
        ValueError: see `Generation.averaged`.
    """
    chosen = task.averaged(errors.points)

    def by_digit(values: np.ndarray) -> dict[str, float]:
        return {str(label): float(value) for label, value in zip(errors.classes, values, strict=True)}

    def means(values: np.ndarray) -> dict[str, dict[str, float]]:
        return {name: by_digit(values[:, mask].mean(axis=1)) for name, mask in chosen.items()}

    result: dict[str, dict] = {**means(errors.errors)}
    result["ratio"] = {
        digit: result["mse_out"][digit] / max(result["mse_in"][digit], 1e-12) for digit in result["mse_in"]
    }
    result["unblurred"] = {
        f"{point:g}": by_digit(errors.errors[:, column])
        for column, point in enumerate(errors.points)
        if point in task.transformation.unblurred
    }
    result["baselines"] = {name: means(values) for name, values in errors.baselines.items()}
    result["images"] = {str(label): int(number) for label, number in zip(errors.classes, errors.images, strict=True)}
    return result


@dataclass(eq=False)
class MeasuredGeneration(Measured):
    """The results of measuring a model that draws, see `Measured`.

    Attributes:
        errors: on the grid.
        error_map: a class, the mean squared error (points, points) of some of its images over two parameters, and the
            points; None if the transformation has one parameter.
    """

    task: Generation
    autoencoding: Autoencoding
    data: Data
    classes: tuple[int, ...]
    evaluation: Evaluation
    errors: Errors
    metrics: dict
    error_map: tuple[int, np.ndarray, np.ndarray] | None = None

    @property
    def tables(self) -> dict[str, list[dict]]:
        found = {"curves.csv": self.errors.curves(), "baselines.csv": self.errors.baseline_curves()}
        if self.error_map is not None:
            digit, values, points = self.error_map
            found["map.csv"] = [
                {"digit": digit, "dy": dy, "dx": dx, "value": value}
                for dy, row in zip(points.tolist(), values.tolist(), strict=True)
                for dx, value in zip(points.tolist(), row, strict=True)
            ]
        return found

    def summary(self) -> str:
        return self.task.summary(self.metrics["ratio"])

    def lines(self) -> list[str]:
        found = ["mean squared errors of pixels in [-1, 1]"]
        for digit, ratio in self.metrics["ratio"].items():
            mark = " (restricted)" if int(digit) in self.task.restricted else ""
            inside, outside = self.metrics["mse_in"][digit], self.metrics["mse_out"][digit]
            found.append(f"{digit}: in {inside:.4f}  out {outside:.4f}  ratio {ratio:.2f}{mark}")
        return found

    def figures(self, title: str = "") -> Iterator[Any]:
        from invariance import figures

        task, data, transformation = self.task, self.data, self.task.transformation
        digit = task.example(self.classes)
        yield figures.Picture(
            "error_by_parameter.png",
            figures.error_by_parameter(self.errors, task, digit, title, self.evaluation.published),
        )
        # The digits of the article's figures, if they include the restricted ones.
        article: list[int] = [label for label in (3, 5, 4, 9) if label in self.classes]
        restricted = [label for label in self.classes if label in task.restricted]
        shown = article if set(restricted) <= set(article) else [*article[:2], *restricted]
        shown = shown or list(self.classes[:4])
        images = np.stack([data.x_test[np.flatnonzero(data.y_test == label)[0]] for label in shown])
        points = transformation.even(20, task.extent)
        expected, drawn = EncodedImages(self.autoencoding, images).pairs(transformation.parameters(points))
        yield figures.Picture(
            "pairs.png",
            figures.pairs(expected, drawn, shown, points, task, f"{title}\nabove: {task.above}; below: drawn"),
            greys=True,
        )
        one = shown.index(digit) if digit in shown else 0
        fine = transformation.even(60, task.extent)
        expected, drawn = EncodedImages(self.autoencoding, images[one : one + 1]).pairs(transformation.parameters(fine))
        yield figures.Animation("round.gif", expected[:, 0], drawn[:, 0], fine, task, shown[one])
        codes = EncodedImages(self.autoencoding, data.x_train[:2000]).codes.astype("float64")
        if codes.ndim == 2:
            yield from self._samples(codes, points, title)
        if self.error_map is not None:
            digit, values, points = self.error_map
            yield figures.Picture(
                "map.png",
                figures.parameter_map(
                    values, points, task.ranges.of(digit), f"{title}: {digit}", "mean squared error, pixels in [-1, 1]"
                ),
            )

    def _samples(self, codes: np.ndarray, points: np.ndarray, title: str) -> Iterator[Any]:
        """Images that the decoder draws from random codes."""
        from invariance import figures

        rng, size = np.random.default_rng(self.evaluation.seed), codes.shape[-1]
        # The prior of regularised models, and a normal distribution fitted to the codes of any model.
        kinds = {
            "prior": ("codes uniform in [-1, 1]", rng.uniform(-1.0, 1.0, (6, size))),
            "codes": (
                "codes normal, with mean and covariance of the training images' codes",
                rng.multivariate_normal(codes.mean(axis=0), np.atleast_2d(np.cov(codes.T)), 6, method="eigh"),
            ),
        }
        parameters = self.task.transformation.parameters(points)
        for name, (what, sample) in kinds.items():
            drawn = draw_codes(self.autoencoding, sample.astype("float32"), parameters)
            sheet = figures.samples(drawn, points, self.task, f"{title}\nthe decoder alone: {what}")
            yield figures.Picture(f"samples_{name}.png", sheet, greys=True)


def measure(
    task: Generation,
    model: Any,
    data: Data,
    classes: Sequence[int],
    evaluation: Evaluation,
    progress: Progress | None = None,
) -> MeasuredGeneration:
    """Measures a model that draws, see `Task.measure` and `Autoencoding`.

    Raises:
        UserError: if the model does not fit the data, or a class has no images.
    """
    images, labels = limited(data.x_test, data.y_test, evaluation.images_per_class)
    autoencoding = Autoencoding(model, task, images.shape[1:])
    means = mean_images(data.x_train, data.y_train, classes)
    errors = draw_all(autoencoding, images, labels, classes, means, task.points(evaluation.spacing), progress)
    over = None
    if task.transformation.dimensions == 2:
        digit, points = task.example(classes), task.transformation.even(_MAP_POINTS, task.extent)
        encoded = EncodedImages(autoencoding, images[labels == digit][:_MAP_IMAGES])
        over = digit, over_both(points, lambda pair: float(encoded.errors(pair).mean()), progress), points
    return MeasuredGeneration(task, autoencoding, data, tuple(classes), evaluation, errors, ratios(errors, task), over)
