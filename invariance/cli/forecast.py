"""How long runs will take on this machine, and how they differ from the original's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from invariance.progress import duration
from invariance.runs.execute import RunConfig
from invariance.runs.folder import CHECKPOINT

# Shares of the matrix-product peak that training and evaluation reach (`make bench`), and seconds that a run takes
# before its first step.
_TRAINING_SHARE, _EVALUATION_SHARE, _START_SECONDS = 0.5, 0.55, 20.0
# MNIST's; other data change the forecast, not the run.
_IMAGE_SHAPE, _CLASSES, _TEST_IMAGES = (28, 28, 1), 10, 1000


def departures(configs: Sequence[RunConfig]) -> list[str]:
    """How runs differ from the original budget, a line for all models that differ alike."""
    found: dict[str, dict[str, None]] = {}
    for config in configs:
        if text := "; ".join(config.entry.departures(config.profile)):
            found.setdefault(text, {})[config.model] = None
    return [f"Departures from the original ({', '.join(names)}): {text}" for text, names in found.items()]


def forecast(
    pending: Sequence[RunConfig], runs: str | Path | None, jobs: int, say: Callable[[str], Any]
) -> Callable[[], None] | None:
    """A function that says how long runs will take, for a process that may load TensorFlow; None if that is unknown.

    Args:
        pending: the runs.
        runs: the folder of all runs, for what resumed ones have behind them; None if all start anew.
        jobs: how many run at a time.
        say: called with a line of text.
    """
    works = []
    for config in pending:
        model = config.entry.model_for(config.profile)
        if not hasattr(model, "training_flops"):
            return None
        budget = config.entry.budgets[config.profile]
        classes = _CLASSES - len(config.task.excluded)
        sizes = config.task.arguments(_IMAGE_SHAPE, range(classes))
        training = model.training_flops(*sizes) * budget.steps * budget.batch_size / _TRAINING_SHARE
        images = classes * min(_TEST_IMAGES, budget.images_per_class or _TEST_IMAGES)
        points = len(config.task.points(budget.grid_spacing))
        evaluation = model.evaluation_flops(*sizes) * images * points / _EVALUATION_SHARE
        checkpoint = config.folder(runs) / CHECKPOINT if runs else None
        works.append((training / model.speed_up, evaluation / model.speed_up, budget.steps, checkpoint))
    return partial(_say_expected, works, jobs, say) if works else None


def _say_expected(works: list[tuple], jobs: int, say: Callable[[str], Any]) -> None:
    """Says how long it takes, by a matrix product of TensorFlow's and what resumed runs have behind them.

    NumPy's would not need TensorFlow, but reaches the same rate on some processors and half of it on others (Zen 5).
    """
    from invariance.benchmark import Peak
    from invariance.runs.checkpoint import saved_step
    from invariance.runs.provenance import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    with tf.device("CPU"):
        peak = jobs * Peak("float32", 1024)()
    seconds = len(works) * _START_SECONDS / jobs
    for training, evaluation, steps, checkpoint in works:
        done = saved_step(checkpoint) / steps if checkpoint else 0.0
        seconds += (training * (1 - done) + evaluation) / peak
    say(
        f"Expected: about {duration(seconds)} for {len(works)} run(s){f', {jobs} at a time' if jobs > 1 else ''} "
        f"(on this CPU, {peak / 1e9:.0f} GFLOP/s; a GPU is faster)"
    )
