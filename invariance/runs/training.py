"""The training loop: resumes exactly, stops on request, and stops at a loss that is not finite."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from invariance import xla
from invariance.errors import Interrupted, RunError, require_extra
from invariance.experiment import Budget
from invariance.files import write_csv
from invariance.progress import Progress, duration
from invariance.runs import checkpoint, pipeline
from invariance.runs.folder import CHECKPOINT, RunFolder

# Between two checkpoints, at most.
CHECKPOINT_SECONDS = 60.0


def compiled_step(model: keras.Model, prepare: Callable, batch_size: int) -> Any:
    """One training step as one compiled function: transformation, forward pass, backward pass, update.

    On a GPU XLA compiles all of it. On a CPU XLA compiles the transformation (and the update, see `optimizers`), and
    the network runs on TensorFlow's oneDNN kernels, which on two cores are 1.4 times as fast as XLA's.

    Args:
        model: a Keras model; its ``train_step`` is called.
        prepare: (images, labels, draws) -> (inputs, targets), see `Task.prepare`.
        batch_size: images per step.

    Returns:
        A function of a batch of the pipeline. It returns the model's logs and, as int64, the first step (counted from
        1) whose logs were not all finite since the function was made, or 0.
    """
    prepare = xla.compiled(prepare)
    diverged = tf.Variable(0, dtype=tf.int64, trainable=False)

    @tf.function(jit_compile=xla.on_gpu(), autograph=False)
    def step(images, labels, draws):
        logs = model.train_step(prepare(images, labels, draws))
        finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32))) for value in logs.values()]
        )
        diverged.assign(tf.where((diverged == 0) & ~finite, draws[0] // batch_size + 1, diverged))
        return logs, diverged.read_value()

    return step


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Collects SIGINT and SIGTERM, so that the loop can stop after its step. A second SIGINT stops at once."""
    requested: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def ask(number: int, frame: Any) -> None:
        if requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(
    model: keras.Model,
    prepare: Callable,
    images: np.ndarray,
    labels: np.ndarray,
    budget: Budget,
    seed: int,
    folder: RunFolder,
    progress: Progress | None = None,
    *,
    tensorboard: bool = False,
    parent: int | None = None,
    one_class: bool = False,
) -> dict:
    """Trains a model, resuming from the folder's checkpoint if there is one.

    The n-th image and its transformation depend only on the seed and n, and a checkpoint holds every variable. A
    resumed run therefore ends with the same weights and the same history as an uninterrupted one. Checkpoints are saved
    at the end of each epoch (`Budget.steps_per_epoch`), every minute, and on a request to stop.

    Args:
        model: a compiled Keras model.
        prepare: (images, labels, draws) -> (inputs, targets), see `Task.prepare`.
        images: (n, height, width, channels) uint8.
        labels: (n,) integers.
        budget: how long to train.
        seed: of order and draws.
        folder: for history.csv and the checkpoint; locked by the caller.
        progress: shows the progress.
        tensorboard: also write TensorBoard files.
        parent: process whose end is a request to stop.
        one_class: see `pipeline.batches`.

    Returns:
        {"seconds": training time, "images": number of training images, "history": rows of history.csv}

    Raises:
        Interrupted: on a request to stop; the state has been saved.
        RunError: if the loss or a weight is not finite, or the disk is full; the last checkpoint stays.
    """
    progress = progress or Progress("training", quiet=True)
    saved = folder / CHECKPOINT
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    step_function = compiled_step(model, prepare, budget.batch_size)
    signature = pipeline.batches(images, labels, seed, budget.batch_size, 0, 1).element_spec
    # Tracing creates the variables of the metrics, which a checkpoint restores.
    step_function = step_function.get_concrete_function(*signature)
    done: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": []}
    if folder.has(CHECKPOINT):
        done = checkpoint.load(saved, model, budget.steps)
        if 0 < done["step"] < budget.steps:
            progress.line(f"{progress.name}: resuming from step {done['step']:,} of {budget.steps:,}")
    step, history = done["step"], done["history"]
    write_csv(folder / "history.csv", history)
    writer = _tensorboard_writer(folder) if tensorboard else None

    began, seconds_before, first = time.perf_counter(), done["seconds"], step
    saved_at, logs = time.monotonic(), {}

    def seconds() -> float:
        return seconds_before + time.perf_counter() - began

    def check(diverged: Any) -> None:
        if diverged:
            raise RunError(f"the loss is not finite at step {int(diverged):,}")

    def save() -> None:
        checkpoint.save(saved, model, {"step": step, "seconds": seconds(), "history": history})

    try:
        with _stop_requests() as requested:
            for batch in pipeline.batches(
                images, labels, seed, budget.batch_size, step, budget.steps, one_class=one_class
            ):
                logs, diverged = step_function(*batch)
                step += 1
                rate = (step - first) * budget.batch_size / (time.perf_counter() - began)
                if parent is not None and os.getppid() != parent:
                    requested.append("the end of the parent process")
                if step % budget.steps_per_epoch == 0 or step == budget.steps:
                    values = {key: float(value) for key, value in logs.items()}
                    check(diverged)
                    history.append(
                        {"step": step, "images": step * budget.batch_size, "seconds": round(seconds(), 3)} | values
                    )
                    model.reset_metrics()
                    save()
                    saved_at = time.monotonic()
                    write_csv(folder / "history.csv", history)
                    if writer:
                        _write_tensorboard(writer, step, values)
                    progress.line(f"{progress.name}  {_status(budget, step, values, rate)}")
                elif requested or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    check(diverged)
                    save()
                    saved_at = time.monotonic()
                elif progress.due():
                    check(diverged)
                    progress.show(step / budget.steps, _status(budget, step, logs, rate))
                if requested:
                    raise Interrupted(
                        f"{requested[0]} at step {step:,} of {budget.steps:,}; saved; repeat the command to resume"
                    )
    except Interrupted:
        raise
    except RunError as error:
        kept = (
            f"the checkpoint of step {checkpoint.saved_step(saved):,} is kept"
            if saved.exists()
            else "no checkpoint yet"
        )
        raise RunError(f"{progress.name}: {error} ({kept} in {folder.path})") from error
    return {"seconds": seconds(), "images": step * budget.batch_size, "history": history}


def _status(budget: Budget, step: int, values: Mapping[str, Any], rate: float) -> str:
    """A progress line: epoch, logged values, rate, time left."""
    epoch, epochs = -(-step // budget.steps_per_epoch), -(-budget.steps // budget.steps_per_epoch)
    numbers = "  ".join(f"{key} {float(value):.4f}" for key, value in values.items())
    left = duration((budget.steps - step) * budget.batch_size / rate)
    return f"epoch {epoch}/{epochs}  {numbers}  {rate:,.0f} images/s  {left} left"


def _tensorboard_writer(folder: RunFolder) -> Any:
    require_extra("tensorboard", "--tensorboard")
    return tf.summary.create_file_writer(str(folder / "tensorboard"))


def _write_tensorboard(writer: Any, step: int, values: Mapping[str, float]) -> None:
    with writer.as_default(step=step):
        for key, value in values.items():
            tf.summary.scalar(key, value)
    writer.flush()
