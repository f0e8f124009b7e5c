"""Announces how long runs will take on this machine, and how they differ from the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance.progress import duration
from invariance.runs.builder import FileBuilder
from invariance.runs.execute import RunConfig
from invariance.runs.folder import CHECKPOINT

if TYPE_CHECKING:
    from invariance.datasets import Data

# Shares of the matrix-product peak that training and evaluation reach (`make bench`), and seconds before a run's first
# step.
_TRAINING_SHARE, _EVALUATION_SHARE, _START_SECONDS = 0.5, 0.55, 20.0
# The metrics of recognition that an image counts in, on average: orbit pooling draws a parameter for each.
_METRICS_PER_IMAGE = 2.5


def departures(configs: Sequence[RunConfig]) -> list[str]:
    """How runs differ from the original: one line for all models with the same differences."""
    found: dict[str, dict[str, None]] = {}
    for config in configs:
        if isinstance(config.builder, FileBuilder):
            continue  # the user's own model has no original
        if text := "; ".join(config.entry.departures(config.profile)):
            found.setdefault(text, {})[config.model] = None
    return [f"Departures from the original ({', '.join(names)}): {text}" for text, names in found.items()]


def forecast(
    pending: Sequence[RunConfig], runs: str | Path | None, jobs: int, data: Data, say: Callable[[str], Any]
) -> None:
    """Announces how long runs will take, unless a model does not tell its number of operations.

    The estimate rests on the rate of a matrix product in TensorFlow, which is loaded for it. (NumPy's product reaches
    only half of that rate on some processors, such as Zen 5.)

    Args:
        pending: the runs.
        runs: the folder of all runs, whose checkpoints shorten the work; None if all runs start from scratch.
        jobs: how many run at a time.
        data: the dataset.
        say: called with a line of text.
    """
    from invariance.runs.checkpoint import saved_step

    flops = 0.0
    for config in pending:
        model: Any = config.builder
        if not hasattr(model, "training_flops"):
            return
        budget = config.budget
        saved = saved_step(config.folder(runs) / CHECKPOINT) if runs else 0
        done = min(1.0, saved / budget.steps)
        classes = config.task.classes(data.y_train)
        sizes = config.task.arguments(data.image_shape, classes)
        training = model.training_flops(*sizes) * budget.steps * budget.batch_size / _TRAINING_SHARE
        images = sum(label in classes for label in data.y_test.tolist())
        images = min(images, len(classes) * (budget.images_per_class or images))
        points = float(len(config.task.points(budget.grid_spacing)))
        copies = budget.evaluation().orbit
        if copies and config.task.orbit(copies) is not None:
            points += _METRICS_PER_IMAGE * copies
        evaluation = model.evaluation_flops(*sizes) * images * points / _EVALUATION_SHARE
        flops += (training * (1 - done) + evaluation) / model.speed_up
    peak = jobs * _peak()
    seconds = len(pending) * _START_SECONDS / jobs + flops / peak
    say(
        f"Expected: about {duration(seconds)} for {len(pending)} run{'s' if len(pending) > 1 else ''}"
        f"{f', {jobs} at a time' if jobs > 1 else ''} (on this CPU, {peak / 1e9:.0f} GFLOP/s; a GPU is faster)"
    )


def _peak() -> float:
    """The rate of this process's cores for a matrix product, in FLOP/s."""
    from invariance.benchmark import Peak
    from invariance.runs.provenance import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    with tf.device("CPU"):
        return Peak("float32", 1024)()
