"""Measures a trained model of one's own in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invariance import datasets
from invariance.errors import UserError
from invariance.progress import Progress
from invariance.ranges import Intervals, Ranges
from invariance.tasks import Recognition, Task
from invariance.tasks.task import Evaluation, Measured
from invariance.transforms import Transformation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def probe(
    model: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    restricted: Sequence[int],
    transformation: Transformation,
    shown: Intervals,
    free: Intervals | None = None,
    inside: Intervals = (),
    outside: Intervals = (),
    task: type[Task] = Recognition,
    spacing: float | None = None,
    redraws: int = 0,
    pixels: tuple[float, float] = (0.0, 1.0),
    quiet: bool = True,
    **ranges: Any,
) -> Measured:
    """Measures a trained model on transformed images, in the range that restricted classes were shown in and outside.

    Args:
        model: for `Recognition` a Keras model, or any callable on float32 arrays (batch, height, width, channels), that
            returns one score a class, (batch, classes), in the order of the labels; probabilities or logits; of several
            outputs the one named "scores", or the only one of that shape. For `Generation` a Keras model that takes
            [upright images in [-1, 1], encoded parameters] and returns images.
        x: test images (n, height, width) or (n, height, width, channels), uint8 or floats in [0, 1].
        y: their labels, (n,) non-negative integers.
        restricted: the classes that the model was shown in a narrow range only.
        transformation: of the images, such as ``Rotation()``.
        shown: that narrow range, such as ``((-45, 45),)``.
        free: the range that the other classes were shown in; by default every parameter of a periodic transformation.
        inside, outside: what counts as in range and out of range; by default ``shown``, and the rest of ``free``.
        task: `Recognition` or `Generation`.
        spacing: between the points of the grid, see `Transformation.grid`; by default the task's usual one.
        redraws: also measure recognition with so many random drawings of the parameters.
        pixels: what a classifier takes for black and for white.
        quiet: show no progress.
        ranges: further ranges of the task, such as ``inverted`` of P_inv.

    Returns:
        What was measured: ``str(measured)`` is a table, ``measured.metrics`` holds the numbers, ``measured.tables`` the
        rows behind them, ``measured.figures()`` draws, ``measured.save(folder)`` writes tables and figures.

    Raises:
        UserError: if the arguments do not fit one another. Nothing has been measured then.
    """
    images, labels = datasets.checked_images(x, "x"), datasets.checked_labels(y, "y")
    if len(images) != len(labels):
        raise UserError(f"x and y must be equally long; they have {len(images)} images and {len(labels)} labels")
    if free is None:
        if transformation.period is None:
            raise UserError(
                f"Argument `free` is needed for a {transformation.name}: the range that the other classes were shown in"
            )
        free = ((-transformation.period / 2, transformation.period / 2),)
    try:
        narrow = Ranges(free, dict.fromkeys(restricted, shown))
        asked = task(transformation, narrow, inside=inside, outside=outside, **ranges)
        classes = asked.classes(labels)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    usual = asked.usual_spacing if spacing is None else spacing
    evaluation = Evaluation(usual, redraws=redraws, pixels=pixels)
    asked.check(evaluation)
    from invariance.runs.provenance import import_tensorflow

    import_tensorflow()
    # Baselines take mean images from the training images; here there are only these.
    data = datasets.Data("probe", images, labels, images, labels, "arguments of probe")
    return asked.measure(model, data, classes, evaluation, Progress("probe", quiet=quiet))
