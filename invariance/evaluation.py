"""(model, protocol, arrays) -> what it takes each turned image for, and the four proportions derived from that."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from invariance import random, xla
from invariance.errors import UserError
from invariance.progress import Progress, Watch
from invariance.protocol import Recognition
from invariance.ranges import Ranges, cell_weights
from invariance.results import wilson
from invariance.transforms import Rotation, rotate

BATCH = 512
METRICS = ("p_test", "p_in", "p_out", "p_inv")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier took the turned test images for.

    Attributes:
        classes: labels, in the order of the network's outputs.
        angles: (angles,) degrees, an even grid over the circle or the single angles of a protocol.
        counts: (classes, angles, outputs) number of images of a class, at an angle, taken for an output.
        errors: (classes, angles) mean squared error of the reconstruction, of pixels in [0, 1]; None for a network
            that draws none.
    """

    classes: tuple[int, ...]
    angles: np.ndarray
    counts: np.ndarray
    errors: np.ndarray | None = None

    @property
    def images(self) -> np.ndarray:
        """Number of test images of each class, (classes,); a class may have none."""
        return self.counts[:, 0].sum(-1)

    @property
    def accuracy(self) -> np.ndarray:
        """Share recognised, (classes, angles); 0 for a class without images."""
        right = np.stack([self.counts[i, :, i] for i in range(len(self.classes))])
        return right / np.maximum(1, self.images)[:, None]

    @property
    def unanswered(self) -> list[int]:
        """The classes that no image was taken for, of whatever class and at whatever angle."""
        return [label for label, answers in zip(self.classes, self.counts.sum((0, 1)), strict=True) if not answers]

    def curves(self) -> list[dict]:
        """The long table: digit, parameter (degrees), value (accuracy), images."""
        return self._long(self.accuracy)

    def error_curves(self) -> list[dict]:
        """The same with the reconstruction's mean squared error as value; empty for a network that draws none."""
        return [] if self.errors is None else self._long(self.errors)

    def _long(self, values):
        return [
            {"digit": label, "parameter": float(angle), "value": float(value), "images": int(images)}
            for label, images, row in zip(self.classes, self.images, values, strict=True)
            for angle, value in zip(self.angles, row, strict=True)
            if images
        ]

    def table(self) -> list[dict]:
        """The longer table behind it: digit, parameter (degrees), predicted (label), images."""
        return [
            {"digit": label, "parameter": float(angle), "predicted": predicted, "images": int(self.counts[i, j, k])}
            for i, label in enumerate(self.classes)
            for j, angle in enumerate(self.angles)
            for k, predicted in enumerate(self.classes)
        ]

    def taken_for(self, labels: Sequence[int], pairs) -> np.ndarray:
        """Shares (labels, outputs) of what the labels' images are taken for, averaged over a range of angles."""
        weights = np.asarray(cell_weights(self.angles, pairs, 360.0))
        rows = [self.classes.index(label) for label in labels]
        return np.einsum("lao,a->lo", self.counts[rows] / np.maximum(1, self.images[rows])[:, None, None], weights)


def predict_grid(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    angles: np.ndarray,
    progress: Progress | None = None,
) -> Predictions:
    """Shows every image at every angle to a classifier.

    Args:
        model: any Keras model that takes (batch, height, width, channels) float32 in [0, 1] and returns one score a
            class, (batch, classes); of several outputs the first is taken. If an output is named "reconstruction",
            its mean squared error against the turned image is measured too.
        images: (n, height, width, channels) uint8.
        labels: (n,) labels, all among ``classes``.
        classes: labels in the order of the model's outputs.
        angles: (angles,) degrees.
        progress: where to say how far it is.

    Raises:
        UserError: if the model does not fit the images and classes.
    """
    progress = progress or Progress("evaluation", quiet=True)
    rows = _rows(images, labels, classes)
    classify = classifier(model, images.shape[1:], len(classes))
    counts = np.zeros((len(classes), len(angles), len(classes)), np.int64)
    errors = np.zeros((len(classes), len(angles)))
    drawn = None
    batches = _batches(images)
    watch = Watch(len(angles))
    for column, angle in enumerate(angles):
        predicted, drawn = _classify_all(classify, batches, np.full(len(images), angle, "float32"))
        np.add.at(counts, (rows, column, predicted), 1)
        if drawn is not None:
            np.add.at(errors, (rows, column), drawn)
        if progress.due():
            progress.show(
                (column + 1) / len(angles), f"angle {column + 1}/{len(angles)}  {watch.left(column + 1)} left"
            )
    errors = None if drawn is None else errors / np.maximum(1, np.bincount(rows, minlength=len(classes)))[:, None]
    return Predictions(tuple(classes), np.asarray(angles), counts, errors)


def proportions(predictions: Predictions, protocol: Recognition) -> dict:
    """P_test, P_in, P_out and P_inv from the predictions on a grid of angles.

    P_test averages all classes, each over its own training range; the others average the restricted classes over the
    protocol's ranges. Every image weighs the same, so a class weighs as its number of test images.

    Returns:
        {"p_test", "p_in", "p_out", "p_inv": shares (None without restricted classes), "chance": 1 / classes,
        "images": metric -> number of images, "interval": metric -> 95 % Wilson interval on that number}; and for a
        network that reconstructs, "reconstruction": {"mse_test", "mse_in", "mse_out", "mse_inv"}, mean squared errors
        over the same images and angles (None where there are none)
    """
    images = dict(zip(predictions.classes, predictions.images.tolist(), strict=True))
    result = {"chance": 1 / len(predictions.classes), "images": {}, "interval": {}}
    reconstruction = {}
    for metric, ranges in _ranges(protocol, predictions.classes).items():
        error = "mse" + metric.removeprefix("p")
        total = sum(images[label] for label in ranges)
        result["images"][metric] = total
        if not total:
            result[metric] = result["interval"][metric] = reconstruction[error] = None
            continue
        weights = np.zeros((len(predictions.classes), len(predictions.angles)))
        for label, pairs in ranges.items():
            cells = np.asarray(cell_weights(predictions.angles, pairs, 360.0))
            weights[predictions.classes.index(label)] = images[label] / total * cells
        result[metric] = min(1.0, float(np.sum(weights * predictions.accuracy)))
        result["interval"][metric] = list(wilson(result[metric], total))
        if predictions.errors is not None:
            reconstruction[error] = float(np.sum(weights * predictions.errors))
    if predictions.errors is not None:
        result["reconstruction"] = reconstruction
    return result


def redraws(
    model: keras.Model,
    protocol: Recognition,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
    number: int,
    seed: int = 0,
    progress: Progress | None = None,
    upright_last: int = 0,
) -> dict:
    """The published estimator: random angles for all images, again and again.

    Args:
        model, images, labels, classes, progress: as for `predict_grid`.
        protocol: gives the ranges.
        number: how often the angles are drawn.
        seed: of the angles.
        upright_last: so many images of the restricted classes, their last, stay upright for P_in, P_out and P_inv: a
            fault that the published numbers seem to have (`experiments.leftover`).

    Returns:
        metric -> {"mean": over the drawings, "variance": of one drawing's share, "redraws": number}, None where there
        are no restricted classes.
    """
    if number < 1:
        raise UserError(f"--redraws: a positive number is needed; it is {number}")
    restricted = int(np.isin(labels, list(protocol.restricted)).sum())
    if not 0 <= upright_last <= restricted:
        raise UserError(
            f"--upright-last: 0 to {restricted}, all images of the restricted classes; it is {upright_last}"
        )
    progress = progress or Progress("redraws", quiet=True)
    rows = _rows(images, labels, classes)
    classify = classifier(model, images.shape[1:], len(classes))
    shares: dict[str, list[float]] = {metric: [] for metric in METRICS}
    chosen = {}
    for metric, ranges in _ranges(protocol, classes).items():
        mask = np.isin(labels, list(ranges))
        if mask.any():
            table = Rotation(Ranges(next(iter(ranges.values())), ranges))
            chosen[metric] = mask, _batches(images[mask]), table
    watch = Watch(number)
    for draw in range(number):
        for which, (metric, (mask, batches, rotation)) in enumerate(chosen.items()):
            # Each metric, drawing and image has a position of its own in the stream of random numbers.
            positions = (draw * len(METRICS) + which) * len(labels) + np.flatnonzero(mask)
            angles = rotation.draw(seed, ops.cast(positions, "int64"), labels[mask], random.EVALUATION)
            angles = np.array(angles)
            if upright_last and metric != "p_test":
                angles[-upright_last:] = 0.0
            predicted, _ = _classify_all(classify, batches, angles)
            shares[metric].append(float(np.mean(predicted == rows[mask])))
        if progress.due():
            progress.show((draw + 1) / number, f"drawing {draw + 1}/{number}  {watch.left(draw + 1)} left")
    return {
        metric: {
            "mean": float(np.mean(values)),
            "variance": float(np.var(values, ddof=int(number > 1))),
            "redraws": number,
        }
        if values
        else None
        for metric, values in shares.items()
    }


def limited(images: np.ndarray, labels: np.ndarray, per_class: int | None):
    """The first so many images of each class (all for None), in their order."""
    if per_class is None:
        return images, labels
    keep = np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]))
    return images[keep], labels[keep]


def _rows(images, labels, classes):
    """The place of each label among the classes."""
    unknown = sorted(set(np.unique(labels).tolist()) - set(classes))
    if unknown or not len(images) or len(images) != len(labels) or list(classes) != sorted(set(classes)):
        raise UserError(
            "images and labels of the classes are needed, one label an image, the classes ascending; there are "
            f"{len(images)} images, {len(labels)} labels, the classes {list(classes)} and the unknown labels {unknown}"
        )
    return np.searchsorted(classes, labels)


def _ranges(protocol, classes) -> dict:
    """metric -> {label: range} of the images and angles it averages over."""
    return {
        "p_test": {label: protocol.ranges.of(label) for label in classes},
        "p_in": dict.fromkeys(protocol.restricted, protocol.inside),
        "p_out": dict.fromkeys(protocol.restricted, protocol.outside),
        "p_inv": dict.fromkeys(protocol.restricted, protocol.inverted),
    }


def require_scores(shape, classes: int):
    """Raises UserError if a model's outputs of this shape, (batch, ...), are not one score a class."""
    if len(shape) != 2 or shape[-1] != classes:
        raise UserError(f"the model returns {tuple(shape)}, but {classes} scores an image are needed")


def classifier(model, image_shape, classes):
    """A compiled function of uint8 images and angles in degrees.

    It returns the outputs chosen (batch,), -1 where the scores are not finite, and the mean squared error of the
    reconstruction (batch,), None for a model without an output of that name.
    """
    expected = model.input_shape if hasattr(model, "input_shape") else (None, *image_shape)
    if len(expected) != 4 or any(
        want not in (None, have) for want, have in zip(expected[1:], image_shape, strict=True)
    ):
        raise UserError(f"the model takes {expected[1:]}, but the images are {tuple(image_shape)}")
    warp = xla.compiled(_turned)

    @tf.function(jit_compile=xla.on_gpu(), autograph=False)
    def classify(images, angles):
        turned = warp(images, angles)
        scores, error = model(turned, training=False), None
        if isinstance(scores, dict):
            if "reconstruction" in scores:
                error = mean_squared(turned, scores["reconstruction"])
            scores = list(scores.values())
        scores = scores[0] if isinstance(scores, (list, tuple)) else scores
        require_scores(scores.shape, classes)
        # The largest of scores that are not finite means nothing; -1 is refused by the caller.
        finite = tf.reduce_all(tf.math.is_finite(scores), axis=-1)
        return tf.where(finite, tf.argmax(scores, axis=-1, output_type=tf.int32), -1), error

    return classify


def reconstruct(model, images: np.ndarray, angles: np.ndarray):
    """What a network with a decoder sees and draws.

    Args:
        model: a `models.capsule_network.CapsuleNetwork`, or any model with outputs "scores" and "reconstruction".
        images: (n, height, width, channels) uint8.
        angles: (n,) degrees.

    Returns:
        The turned images, the reconstructions (both (n, height, width, channels), in [0, 1]), and the outputs chosen
        (n,).
    """
    turned = _turned(images, angles)
    outputs = model(turned, training=False)
    chosen = ops.argmax(outputs["scores"], axis=-1)
    return np.asarray(turned), np.asarray(outputs["reconstruction"]), np.asarray(chosen)


def sweep(model, image: np.ndarray, offsets: Sequence[float]) -> np.ndarray:
    """What each dimension of the chosen capsule stands for: the decoder's images as it is moved.

    Args:
        model: a `models.capsule_network.CapsuleNetwork`.
        image: (height, width, channels) uint8.
        offsets: added to one dimension at a time.

    Returns:
        (dimensions, offsets, height, width, channels).

    Reference: Sabour, Frosst and Hinton (2017), figure 4.
    """
    capsules, scores = (np.asarray(output) for output in model.encoder(_turned(image[None], [0.0]), training=False))
    dimensions, steps = capsules.shape[-1], len(offsets)
    moved = np.repeat(capsules, dimensions * steps, axis=0)
    for dimension in range(dimensions):
        rows = dimension * steps + np.arange(steps)
        moved[rows, :, dimension] += np.asarray(offsets, "float32")[:, None]
    drawn = np.asarray(model.decode(moved, np.repeat(scores, len(moved), axis=0)))
    return drawn.reshape(dimensions, steps, *drawn.shape[1:])


def _turned(images, angles):
    return rotate(ops.cast(images, "float32") / 255.0, angles)


def mean_squared(images, others):
    """Mean squared error of each image, (batch,), of two batches (batch, height, width, channels)."""
    return ops.mean(ops.square(images - ops.cast(others, "float32")), axis=(1, 2, 3))


def _batches(images):
    """The images as tensors of one shape (the last padded), so that everything is compiled once."""
    padding = -len(images) % BATCH
    padded = np.concatenate([images, np.zeros((padding, *images.shape[1:]), images.dtype)])
    return [tf.constant(padded[start : start + BATCH]) for start in range(0, len(padded), BATCH)]


def _classify_all(classify, batches, angles):
    """The outputs chosen (n,), and the reconstructions' errors (n,) or None."""
    padded = np.zeros(len(batches) * BATCH, "float32")
    padded[: len(angles)] = angles
    parts = [classify(batch, tf.constant(padded[i * BATCH : (i + 1) * BATCH])) for i, batch in enumerate(batches)]
    outputs = np.concatenate([chosen.numpy() for chosen, _ in parts])[: len(angles)]
    if outputs.min() < 0:
        raise UserError(f"the model's scores of {int((outputs < 0).sum())} images are not finite")
    if parts[0][1] is None:
        return outputs, None
    return outputs, np.concatenate([error.numpy() for _, error in parts])[: len(angles)]
