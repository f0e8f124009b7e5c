"""Measures classifiers: their answers to transformed images, and the metrics derived from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from invariance import random, xla
from invariance.errors import UserError, one_line
from invariance.progress import Progress, Watch
from invariance.ranges import Ranges, middles
from invariance.tasks import applied_movement
from invariance.tasks.applied_movement import AppliedMovement
from invariance.tasks.batches import Batches, limited, mean_squared, over_both
from invariance.tasks.metrics import METRICS, Average, Predictions, proportions
from invariance.tasks.task import Evaluation, Measured
from invariance.typing import Tensor
from invariance.wording import join

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks.recognition import Recognition

BATCH = 512
# Names of the outputs of a model with several.
SCORES, RECONSTRUCTION = "scores", "reconstruction"
# A map over two parameters: points in each direction, and images of each restricted class.
_MAP_POINTS, _MAP_IMAGES = 12, 50
# Distance between the drawings' positions in the stream of random numbers, in test sets: the number of metrics when the
# committed runs were measured.
_METRICS_PER_DRAWING = 4


class Classifier:
    """Any model that returns one score per class, combined with a task's transformation.

    Args:
        model: a Keras model, compiled together with the transformation, or any callable on float32 arrays (batch,
            height, width, channels). Keras models may also take (batch, height, width). It returns scores (batch,
            classes), probabilities or logits. Of several outputs, the one named "scores" is taken, or the only one of
            that shape. An output named "reconstruction" is compared with the input. If a part of the model offers
            ``applied_movement``, that is measured, too; see `applied_movement.moving_part`.
        task: gives the transformation.
        image_shape: (height, width, channels) of images before the transformation.
        classes: number of classes.
        pixels: the values of black and white pixels in the model's input.

    Raises:
        UserError: if the model does not take such images, or does not return one score per class.
    """

    def __init__(
        self,
        model: Any,
        task: Recognition,
        image_shape: tuple[int, ...],
        classes: int,
        pixels: tuple[float, float] = (0.0, 1.0),
    ):
        self.model, self.task, self.classes, self.pixels = model, task, classes, tuple(pixels)
        if len(self.pixels) != 2 or self.pixels[0] == self.pixels[1]:
            raise UserError(f"pixels: two different numbers, for black and white, are needed; received {pixels}")
        self.image_shape = tuple(image_shape)
        self.shape = task.transformation.output_shape(self.image_shape)
        self._flat = self._takes_flat_images()

        def transform(images: Tensor, parameters: Tensor) -> Tensor:
            return task.transformation.apply(ops.cast(images, "float32") / 255.0, parameters, task.fill)

        transform = xla.compiled(transform)

        def answer(images: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
            transformed = transform(images, parameters)
            scores, drawn = self._outputs(transformed)
            error = None if drawn is None else mean_squared(transformed, drawn)
            # Scores that are not finite have no meaningful maximum; `answers` refuses -1.
            finite = tf.reduce_all(tf.math.is_finite(scores), axis=-1)
            return tf.where(finite, tf.argmax(scores, axis=-1, output_type=tf.int32), -1), error

        self.transform = transform
        self._answer: Callable = answer
        if isinstance(model, keras.Model):
            self._answer = tf.function(answer, jit_compile=xla.on_gpu(), autograph=False)
        try:
            self._outputs(tf.zeros((2, *self.shape)))
        except UserError:
            raise
        except Exception as error:  # a model may raise anything
            raise UserError(f"the model does not take images {self.shape} ({one_line(error)})") from error

    def _takes_flat_images(self) -> bool:
        """Whether the model takes (batch, height, width); raises UserError if its input has another shape."""
        try:
            expected = self.model.input_shape
        except (AttributeError, ValueError):  # not a Keras model, or one without a declared input
            return False
        if not isinstance(expected, tuple) or isinstance(expected[0], tuple):
            raise UserError(f"the model has several inputs, {expected}, but must take images only")
        flat = len(expected) == 3 and self.shape[-1] == 1
        given = self.shape[:2] if flat else self.shape
        if len(expected) != len(given) + 1 or any(
            size not in (None, own) for size, own in zip(expected[1:], given, strict=True)
        ):
            raise UserError(f"the model takes {expected[1:]}, but the images are {self.shape}")
        return flat

    def inputs(self, images: Tensor) -> Tensor:
        """Images (batch, height, width, channels) in [0, 1] as the model takes them."""
        low, high = self.pixels
        inputs = images if self.pixels == (0.0, 1.0) else images * (high - low) + low
        return inputs[..., 0] if self._flat else inputs

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The model's scores (batch, classes) for images in [0, 1] and its reconstructions in [0, 1], or None."""
        low, high = self.pixels
        inputs = self.inputs(images)
        if isinstance(self.model, keras.Model):
            outputs = _named(self.model(inputs, training=False))
        else:
            outputs = {name: np.asarray(each) for name, each in _named(self.model(np.asarray(inputs))).items()}
        shapes = {name: tuple(each.shape) for name, each in outputs.items()}
        fitting = [
            name
            for name, shape in shapes.items()
            if len(shape) == 2 and shape[0] in (None, images.shape[0]) and shape[1] == self.classes
        ]
        chosen = [SCORES] if SCORES in outputs else fitting
        if len(chosen) != 1 or chosen[0] not in fitting:
            came = [f"{name} {shape}" if len(shapes) > 1 else str(shape) for name, shape in shapes.items()]
            hint = f"; name one of them {SCORES!r}" if len(chosen) > 1 else ""
            raise UserError(
                f"the model returns {', '.join(came)} for {images.shape[0]} images, but one score for each of "
                f"{self.classes} classes is needed{hint}"
            )
        drawn = outputs.get(RECONSTRUCTION)
        if drawn is not None:
            if shapes[RECONSTRUCTION][1:] != tuple(inputs.shape[1:]):
                raise UserError(
                    f"the model's output {RECONSTRUCTION!r} is {shapes[RECONSTRUCTION][1:]}, but its input is "
                    f"{tuple(inputs.shape[1:])}"
                )
            drawn = drawn[..., None] if self._flat else drawn
            drawn = drawn if self.pixels == (0.0, 1.0) else (ops.cast(drawn, "float32") - low) / (high - low)
        return tf.cast(outputs[chosen[0]], tf.float32), drawn

    def batches(self, images: ArrayLike) -> Batches:
        """Images in batches for `answers`; see `Batches` for what is accepted."""
        return Batches(images, self.image_shape, BATCH)

    def answers(self, batches: Batches, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The model's answers to transformed images.

        Args:
            batches: the images.
            parameters: (n,) or (n, dimensions), one for each image.

        Returns:
            The indices (n,) of the outputs with the highest scores (of `OrbitClassifier`: (n, poolings)), and the
            reconstructions' mean squared errors (n,), of pixels in [0, 1], or None.

        Raises:
            UserError: if scores are not finite.
        """
        parts = [
            self._answer(batch, own)
            for batch, own in zip(batches, batches.split(parameters.astype("float32")), strict=True)
        ]
        outputs = batches.join(answer for answer, _ in parts)
        if outputs.min() < 0:
            count = (outputs < 0).reshape(len(outputs), -1).any(axis=-1).sum()
            raise UserError(f"the model's scores for {count} images are not finite")
        return outputs, None if parts[0][1] is None else batches.join(error for _, error in parts)

    def reconstruct(self, images: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transformed images and a model's reconstructions of them.

        Args:
            images: (n, height, width, channels) uint8.
            parameters: (n,) or (n, dimensions).

        Returns:
            The transformed images and the reconstructions, both (n, height, width, channels) in [0, 1], and the indices
            (n,) of the outputs with the highest scores.
        """
        inputs = self.transform(images, tf.constant(parameters, tf.float32))
        scores, drawn = self._outputs(inputs)
        return np.asarray(inputs), np.asarray(drawn), np.argmax(scores, axis=-1)


def _named(outputs: Any) -> dict[str, Any]:
    """A model's outputs by name; a number if they have none."""
    if isinstance(outputs, dict):
        return outputs
    if isinstance(outputs, (list, tuple)) and all(hasattr(each, "shape") for each in outputs):
        return {str(number): each for number, each in enumerate(outputs)}
    return {"0": outputs}


def sweep(model: Any, image: np.ndarray, offsets: Sequence[float] | np.ndarray) -> np.ndarray:
    """What each dimension of the winning capsule represents: the decoder's images as the dimension is varied.

    Args:
        model: a `models.capsule_network.CapsuleNetwork`.
        image: (height, width, channels) in [0, 1].
        offsets: added to one dimension at a time.

    Returns:
        (dimensions, offsets, height, width, channels).

    Reference: Sabour, Frosst and Hinton (2017), figure 4.
    """
    capsules, scores = (np.asarray(output) for output in model.encoder(image[None], training=False))
    dimensions, steps = capsules.shape[-1], len(offsets)
    moved = np.repeat(capsules, dimensions * steps, axis=0)
    for dimension in range(dimensions):
        rows = dimension * steps + np.arange(steps)
        moved[rows, :, dimension] += np.asarray(offsets, "float32")[:, None]
    drawn = np.asarray(model.decode(moved, np.repeat(scores, len(moved), axis=0)))
    return drawn.reshape(dimensions, steps, *drawn.shape[1:])


def predict(
    classifier: Classifier,
    images: ArrayLike,
    labels: np.ndarray,
    classes: Sequence[int],
    points: np.ndarray,
    progress: Progress | None = None,
) -> Predictions:
    """A classifier's answers to all images at all points of a grid.

    Args:
        classifier: of these classes.
        images: (n, height, width) or (n, height, width, channels), see `datasets.checked_images`.
        labels: (n,) labels, all among ``classes``.
        classes: labels in the order of the model's outputs, ascending.
        points: (points,) of the transformation's parameter.
        progress: reports progress, if given.

    Raises:
        UserError: if images and labels do not fit the classifier and one another, or scores are not finite.
    """
    progress = progress or Progress("evaluation", quiet=True)
    batches = classifier.batches(images)
    rows = _rows(batches.count, labels, classes)
    counts = np.zeros((len(classes), len(points), len(classes)), np.int64)
    errors = np.zeros((len(classes), len(points)))
    drawn = None
    watch = Watch(len(points))
    for column, point in enumerate(points):
        predicted, drawn = classifier.answers(batches, classifier.task.parameters_of(point, len(rows)))
        np.add.at(counts[:, column], (rows, predicted), 1)
        if drawn is not None:
            np.add.at(errors[:, column], rows, drawn)
        if progress.due():
            what = classifier.task.transformation.parameter
            done = column + 1
            progress.show(done / len(points), f"{what} {done}/{len(points)}  {watch.left(done)} left")
    means = None if drawn is None else errors / np.maximum(1, np.bincount(rows, minlength=len(classes)))[:, None]
    return Predictions(classifier.task.transformation, tuple(classes), np.asarray(points), counts, means)


def redraws(
    classifier: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    evaluation: Evaluation,
    progress: Progress | None = None,
) -> dict:
    """The article's estimator: all metrics measured repeatedly, with random parameters for all images.

    Args:
        classifier, labels, classes, progress: as for `predict`.
        images: (n, height, width, channels) uint8.
        evaluation: number and seed of the drawings. Of the restricted classes' images, the last ``upright_last`` are
            left untransformed in all metrics of these classes: an error that the published numbers seem to contain
            (`experiments.article.unrotated_images`).

    Returns:
        key of each metric -> {"mean": over the drawings, "variance": of one drawing's share, "redraws": number}, or
        None if no image counts.

    Raises:
        UserError: see `predict`; also if ``upright_last`` exceeds the number of images.
    """
    number = evaluation.redraws
    restricted = int(np.isin(labels, list(classifier.task.restricted)).sum())
    if not 0 <= evaluation.upright_last <= restricted:
        raise UserError(
            f"--upright-last must be between 0 and {restricted}, the number of images of restricted classes; received "
            f"{evaluation.upright_last}"
        )
    shares: dict[str, list[float]] = {key: [] for key in METRICS}
    for key, hit in drawn_hits(classifier, images, labels, classes, evaluation, number, progress):
        shares[key].append(float(np.mean(hit)))
    return {
        key: {
            "mean": float(np.mean(values)),
            "variance": float(np.var(values, ddof=int(number > 1))),
            "redraws": number,
        }
        if values
        else None
        for key, values in shares.items()
    }


def drawn_hits(
    classifier: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    evaluation: Evaluation,
    number: int,
    progress: Progress | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Draws random parameters for the images of each metric, repeatedly, and finds what the classifier answers.

    Args:
        classifier, images, labels, classes, evaluation, progress: as for `redraws`.
        number: of drawings.

    Yields:
        The key of each metric that can be measured, and which answers are hits: (images,), or (poolings, images) if
        the classifier has several answers to each image.
    """
    task = classifier.task
    rows = _rows(len(images), labels, classes)
    progress = progress or Progress("drawings", quiet=True)
    averages = {key: each.average(task, classes) for key, each in METRICS.items()}
    chosen: dict[str, tuple[Average, np.ndarray, Batches, Ranges]] = {}
    for key, average in averages.items():
        mask = np.isin(labels, list(average.ranges))
        if mask.any() and all(average.ranges.values()):
            ranges = Ranges(next(iter(average.ranges.values())), average.ranges)
            chosen[key] = average, mask, classifier.batches(images[mask]), ranges
    watch = Watch(number * len(chosen))
    for draw in range(number):
        for which, (key, (average, mask, batches, ranges)) in enumerate(chosen.items()):
            positions = (draw * _METRICS_PER_DRAWING + which) * len(labels) + np.flatnonzero(mask)
            parameters = np.array(
                task.transformation.draw(
                    ranges, evaluation.seed, ops.cast(positions, "int64"), labels[mask], random.EVALUATION
                )
            )
            if evaluation.upright_last and set(average.ranges) == set(task.restricted):
                parameters[-evaluation.upright_last :] = task.transformation.identity
            # (images,), or (poolings, images)
            predicted = classifier.answers(batches, parameters)[0].T
            hit = predicted == rows[mask]
            if average.answers is not None:
                hit = np.isin(predicted, np.searchsorted(classes, average.answers))
            yield key, hit
            if progress.due():
                done = draw * len(chosen) + which + 1
                what = f"drawing {draw + 1}/{number}, {METRICS[key].title}"
                progress.show(done / (number * len(chosen)), f"{what}  {watch.left(done)} left")


def _rows(images: int, labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The index of each label among the classes, (images,)."""
    unknown = sorted(set(np.unique(labels).tolist()) - set(classes))
    if unknown or images != len(labels) or list(classes) != sorted(set(classes)):
        raise UserError(
            f"one label per image, all among ascending classes, is needed; there are {images} images, {len(labels)} "
            f"labels, the classes {list(classes)} and the unknown labels {unknown}"
        )
    return np.searchsorted(classes, labels)


@dataclass(eq=False)
class MeasuredRecognition(Measured):
    """The results of measuring a classifier, see `Measured`.

    Attributes:
        predictions: on the grid.
        accuracy_map: accuracy (points, points) on the restricted classes over two parameters, and the points; None if
            the transformation has one parameter.
        applied: how the model itself moves images; None if no part of it does.
    """

    task: Recognition
    classifier: Classifier
    data: Data
    classes: tuple[int, ...]
    predictions: Predictions
    metrics: dict
    accuracy_map: tuple[np.ndarray, np.ndarray] | None = None
    applied: AppliedMovement | None = None

    @property
    def tables(self) -> dict[str, list[dict]]:
        found = {"curves.csv": self.predictions.curves(), "predictions.csv": self.predictions.table()}
        if self.predictions.errors is not None:
            found["reconstruction.csv"] = self.predictions.curves(self.predictions.errors)
        if self.accuracy_map is not None:
            values, points = self.accuracy_map
            found["map.csv"] = [
                {"dy": dy, "dx": dx, "value": value}
                for dy, row in zip(points.tolist(), values.tolist(), strict=True)
                for dx, value in zip(points.tolist(), row, strict=True)
            ]
        if self.applied is not None:
            found[f"learnt_{self.task.transformation.parameter}s.csv"] = self.applied.table()
        return found

    def summary(self) -> str:
        named = [
            f"{each.title} {self.metrics[key]:.4f}" for key, each in METRICS.items() if self.metrics[key] is not None
        ]
        return ", ".join(named + self.task.warnings(self.metrics))

    def lines(self) -> list[str]:
        drawn, found = self.metrics.get("redraws"), []
        for key, each in METRICS.items():
            if self.metrics[key] is None:
                continue
            low, high = self.metrics["interval"][key]
            text = f"{each.title:8} {self.metrics[key]:.4f} (95 % over images {low:.4f} to {high:.4f})"
            if drawn:
                redrawn = drawn[key]
                text += f"  {redrawn['redraws']} redraws: mean {redrawn['mean']:.4f}"
                text += f", variance {redrawn['variance']:.2e}"
            found.append(text)
        for group, values in self.metrics.get("applied_movement", {}).items():
            found.append(
                f"{group} classes: the network itself undoes {values['undone']:.2f} of the movement "
                f"(correlation {values['correlation']:.2f}, {values['images']} images)"
            )
        return found + self.task.warnings(self.metrics)

    def figures(self, title: str = "") -> Iterator[Any]:
        from invariance import figures

        task, predictions = self.task, self.predictions
        by = task.transformation.parameter
        if len(predictions.points) > 1:
            yield figures.Picture(
                f"accuracy_by_{by}.png", figures.accuracy_by_parameter(predictions, task, title, self.metrics["chance"])
            )
            if predictions.errors is not None:
                yield figures.Picture(
                    f"reconstruction_by_{by}.png", figures.error_of_reconstruction(predictions, task, title)
                )
        if task.restricted and task.farthest:
            yield figures.Picture("taken_for.png", figures.taken_for(predictions, task, title))
        if self.accuracy_map is not None:
            values, points = self.accuracy_map
            what = f"{title}: accuracy on {join(task.restricted)}"
            yield figures.Picture(
                "map.png",
                figures.parameter_map(values, points, task.ranges.of(task.restricted[0]), what, "accuracy", most=1.0),
            )
        if self.applied is not None:
            yield figures.Picture(f"learnt_{by}s.png", figures.applied_movement(self.applied, title))
        if predictions.errors is not None:
            yield from self._reconstructions(title)

    def _reconstructions(self, title: str) -> Iterator[Any]:
        """The article's four figures of reconstructions, and the sweep over a capsule's dimensions."""
        from invariance import figures

        task, classes = self.task, self.classes
        images, labels = self.data.x_test, self.data.y_test
        text = task.transformation.text

        def picture(name: str, rows: list[int], points: list[float], what: str) -> Any:
            parameters = task.transformation.parameters(np.asarray(points, "float32"))
            inputs, drawn, chosen = self.classifier.reconstruct(images[rows], parameters)
            captions = [
                (f"{labels[row]}, {text(value)}", str(classes[output]))
                for row, value, output in zip(rows, parameters, chosen, strict=True)
            ]
            right = [classes[output] == labels[row] for row, output in zip(rows, chosen, strict=True)]
            sheet = figures.reconstructions(inputs, drawn, captions, right, f"{title}\n{what}")
            return figures.Picture(f"reconstructions_{name}.png", sheet, greys=True)

        def first(label: int, count: int) -> list[int]:
            return np.flatnonzero(labels == label)[:count].tolist()

        rows = [row for label in classes for row in first(label, 16 // len(classes) or 1)]
        points = [middle for row in rows for middle in middles(task.ranges.of(int(labels[row])), 16)]
        # Neighbouring images get parameters far from each other.
        points = [points[16 * number + (7 * number) % 16] for number in range(len(rows))]
        yield picture("in_range", rows, points, "test images of all classes, each in its training range")
        for label in task.restricted[:1] if task.farthest else ():
            if one := first(label, 1):
                inside, outside = (middles(pairs, 12) for pairs in (task.inside, task.outside or task.farthest))
                yield picture("one_in_range", one * 12, inside, f"one {label} in its training range")
                yield picture("one_outside", one * 12, outside, f"the same {label} outside its training range")
        chosen = [first(label, 24 // len(task.restricted)) for label in task.restricted if task.farthest]
        if rows := [row for rows in chosen for row in rows]:
            span = [point for rows in chosen for point in middles(task.farthest, len(rows))]
            names = join(f"{label}s" for label in task.restricted)
            yield picture("inverted", rows, span, f"{names} {task.transformation.describe(task.farthest)}")
        offsets = np.arange(-5, 6) * 0.05
        example = first(task.example(classes), 1)
        if example and hasattr(self.classifier.model, "decode"):
            identity = task.parameters_of(task.transformation.identity, 1)
            image = np.asarray(self.classifier.transform(images[example], tf.constant(identity, tf.float32)))[0]
            drawn = sweep(self.classifier.model, image, offsets)
            what = f"an upright {labels[example[0]]}: each dimension of the winning capsule varied from -0.25 to 0.25"
            yield figures.Picture("dimensions.png", figures.dimensions(drawn, offsets, f"{title}\n{what}"), greys=True)


def measure(
    task: Recognition,
    model: Any,
    data: Data,
    classes: Sequence[int],
    evaluation: Evaluation,
    progress: Progress | None = None,
) -> MeasuredRecognition:
    """Measures a classifier on the grid and, if the evaluation has them, with redraws.

    Args:
        task, data, classes, evaluation, progress: see `Task.measure`.
        model: see `Classifier`.

    Raises:
        UserError: if the model does not fit the data, or the evaluation is not possible.
    """
    images, labels = limited(data.x_test, data.y_test, evaluation.images_per_class)
    classifier = Classifier(model, task, images.shape[1:], len(classes), evaluation.pixels)
    # The redraws come first because they may be refused.
    drawn = redraws(classifier, images, labels, classes, evaluation, progress) if evaluation.redraws else None
    predictions = predict(classifier, images, labels, classes, task.points(evaluation.spacing), progress)
    metrics = proportions(predictions, task)
    if drawn:
        metrics["redraws"] = drawn
    applied = applied_movement.measure(classifier, images, labels, predictions.points)
    if applied is not None:
        metrics["applied_movement"] = applied.metrics()
    over = None
    if task.restricted and task.transformation.dimensions == 2:
        points = task.transformation.even(_MAP_POINTS, task.extent)
        restricted = np.isin(labels, list(task.restricted))
        some, labels = limited(images[restricted], labels[restricted], _MAP_IMAGES)
        batches, rows = classifier.batches(some), _rows(len(some), labels, classes)

        def accuracy(parameters: tuple[float, float]) -> float:
            answers, _ = classifier.answers(batches, np.tile(np.asarray(parameters), (len(rows), 1)))
            return float(np.mean(answers == rows))

        over = over_both(points, accuracy, progress), points
    return MeasuredRecognition(task, classifier, data, tuple(classes), predictions, metrics, over, applied)
