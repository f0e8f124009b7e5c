"""(protocol, model, budget, seed) -> a trained model in a run folder; resumed exactly, stopped by a NaN."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from invariance import pipeline, xla
from invariance.errors import Interrupted, RunError, require_extra
from invariance.progress import Progress, duration
from invariance.protocol import Budget
from invariance.results import CHECKPOINT, RunFolder, replacing, write_csv

CHECKPOINT_SECONDS = 60.0


def compiled_step(model: keras.Model, prepare: Callable, batch_size: int):
    """One update as one compiled function: transform, forward, backward, update.

    On a CPU the transformation (and the update, see `optimizers`) is compiled by XLA and the network runs on
    TensorFlow's oneDNN kernels, which on two cores are 1.4 times as fast as XLA's; on a GPU XLA compiles it all.

    Args:
        model: a compiled Keras model; whatever its ``train_step`` does is done.
        prepare: (images, labels, draws) -> (inputs, targets), see `protocol.Recognition.prepare`.
        batch_size: images a step.

    Returns:
        A function of a batch of the pipeline that returns the model's logs and, as int64, the first step (counted from
        1) since the function was made whose logs were not all finite, or 0.
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


def state_variables(model: keras.Model) -> list:
    """All that a training run changes: weights, random states, metrics, the state of every optimiser."""
    variables = [*model.variables, *model.metrics_variables]
    for part in (model, *model._flatten_layers(include_self=False)):
        # Optimisers may be attributes, or lie in lists and dictionaries that are; Keras tracks none but `optimizer`.
        for value in [getattr(part, "optimizer", None), *vars(part).values()]:
            several = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            )
            for optimizer in several:
                if isinstance(optimizer, keras.optimizers.Optimizer):
                    variables += optimizer.variables
    return list({id(variable): variable for variable in variables}.values())


def save_checkpoint(path, model: keras.Model, progress: dict):
    """Writes the state of a training run atomically.

    Raises:
        RunError: if the disk does not take it, or a weight is not finite; an older checkpoint stays as it was.
    """
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(state_variables(model))}
    for array in arrays.values():
        # A sum is not finite if a term is not, and needs no temporary array.
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array.sum(dtype=np.float64)):
            raise RunError(f"a weight is not finite after step {progress['step']}")
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, progress=json.dumps(progress), **arrays)


def load_checkpoint(path, model: keras.Model) -> dict:
    """Puts a saved state into a model, its optimisers and metrics; returns the progress saved with it.

    Raises:
        RunError: if the file is damaged or was written for another model.
    """
    variables = state_variables(model)
    try:
        with np.load(path, allow_pickle=False) as archive:
            progress = json.loads(str(archive["progress"]))
            arrays = [archive[f"v{number}"] for number in range(len(archive.files) - 1)]
    except Exception as error:  # a damaged archive raises whatever its first bad byte provokes
        raise RunError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}); --overwrite starts the run anew"
        ) from error
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise RunError(f"{path}: the checkpoint was written for another model; --overwrite starts the run anew")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return progress


@contextlib.contextmanager
def _stop_requests():
    """Ctrl-C and a scheduler's SIGTERM ask the loop to stop after its step; a second Ctrl-C stops at once."""
    requested = []
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def ask(number, frame):
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
    tensorboard: bool = False,
    parent: int | None = None,
) -> dict:
    """Trains a model for its budget, going on from the folder's checkpoint if there is one.

    The n-th image and its transformation depend on the seed and n alone, and the checkpoint holds every variable, so a
    resumed run ends with the weights and the history of one that was never stopped. A checkpoint is written at the end
    of each epoch (`Budget.steps_per_epoch`), every minute, and when the run is asked to stop.

    Args:
        model: a compiled Keras model.
        prepare: (images, labels, draws) -> (inputs, targets).
        images: (n, height, width, channels) uint8.
        labels: (n,) integers.
        budget: for how long.
        seed: of the order and the draws.
        folder: the run folder, held by the caller; history.csv and the checkpoint go there.
        progress: where to say how far it is.
        tensorboard: also write the history for TensorBoard.
        parent: a process whose end is a request to stop.

    Returns:
        {"seconds": of training, "images": seen, "history": rows of history.csv}

    Raises:
        Interrupted: when asked to stop; the state was saved.
        RunError: at a loss or weight that is not finite, or a disk that is full; the last good checkpoint stays.
    """
    progress = progress or Progress("training", quiet=True)
    checkpoint = folder / CHECKPOINT
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    step_function = compiled_step(model, prepare, budget.batch_size)
    signature = pipeline.batches(images, labels, seed, budget.batch_size, 0, 1).element_spec
    # Tracing makes the variables of the metrics, so that a checkpoint can be put into them.
    step_function = step_function.get_concrete_function(*signature)
    done = {"step": 0, "seconds": 0.0, "history": []}
    if checkpoint.exists():
        done = load_checkpoint(checkpoint, model)
        if 0 < done["step"] < budget.steps:
            progress.line(f"{progress.name}: going on from step {done['step']:,} of {budget.steps:,}")
    step, history = done["step"], done["history"]
    write_csv(folder / "history.csv", history)
    writer = _tensorboard_writer(folder) if tensorboard else None

    began, seconds_before, first = time.perf_counter(), done["seconds"], step
    saved_at, logs = time.monotonic(), {}

    def seconds():
        return seconds_before + time.perf_counter() - began

    def check(diverged):
        if diverged:
            raise RunError(f"the loss is not finite at step {int(diverged):,}")

    def save():
        save_checkpoint(checkpoint, model, {"step": step, "seconds": seconds(), "history": history})

    try:
        with _stop_requests() as requested:
            for batch in pipeline.batches(images, labels, seed, budget.batch_size, step, budget.steps):
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
                if requested and step < budget.steps:
                    raise Interrupted(
                        f"{requested[0]} at step {step:,} of {budget.steps:,}; saved. Repeat the command to go on"
                    )
    except Interrupted:
        raise
    except RunError as error:
        kept = (
            f"the checkpoint of step {saved_step(checkpoint):,} is kept" if checkpoint.exists() else "no checkpoint yet"
        )
        raise RunError(f"{progress.name}: {error} ({kept} in {folder.path})") from error
    return {"seconds": seconds(), "images": step * budget.batch_size, "history": history}


def saved_step(checkpoint) -> int:
    """The step that a run goes on from: 0 where there is no checkpoint, or one that cannot be read."""
    try:
        with np.load(checkpoint, allow_pickle=False) as archive:
            return json.loads(str(archive["progress"]))["step"]
    except Exception:  # a damaged archive raises whatever its first bad byte provokes; whoever loads it says so
        return 0


def _status(budget, step, values, rate):
    """The text of a progress line: epoch, values, rate and the time left."""
    epoch, epochs = -(-step // budget.steps_per_epoch), -(-budget.steps // budget.steps_per_epoch)
    numbers = "  ".join(f"{key} {float(value):.4f}" for key, value in values.items())
    left = duration((budget.steps - step) * budget.batch_size / rate)
    return f"epoch {epoch}/{epochs}  {numbers}  {rate:,.0f} images/s  {left} left"


def _tensorboard_writer(folder):
    require_extra("tensorboard", "--tensorboard")
    return tf.summary.create_file_writer(str(folder / "tensorboard"))


def _write_tensorboard(writer, step, values):
    with writer.as_default(step=step):
        for key, value in values.items():
            tf.summary.scalar(key, value)
    writer.flush()
