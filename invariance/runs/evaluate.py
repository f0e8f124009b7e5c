"""A finished run's model, loaded and evaluated once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance import datasets
from invariance.errors import UserError
from invariance.files import write_json
from invariance.progress import Progress
from invariance.runs.folder import RunFolder
from invariance.runs.provenance import import_tensorflow, provenance
from invariance.tasks import Task
from invariance.tasks.batches import one_line
from invariance.tasks.task import Evaluation

if TYPE_CHECKING:
    from invariance.datasets import Data


def evaluate(
    folder: RunFolder, task: Task, evaluation: Evaluation, dataset: str | None = None, file: Path | None = None
) -> None:
    """Evaluates a finished run's model once more and prints what it measured; the run's own files stay unchanged.

    Args:
        folder: a finished run.
        task: the run's.
        evaluation: how finely.
        dataset: other data than the run's, of the same image size and classes.
        file: to be written as JSON: what was measured, on which run and data, by which versions and commit.

    Raises:
        UserError: if the run, its model or data cannot be read, or what is asked for cannot be measured.
        RunError: if the file cannot be written.
    """
    config = folder.json("config.json")
    try:
        name = config["model"]
        data, classes = data_of(config, task, dataset)
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error
    progress = Progress(name)
    measured = task.measure(load_model(folder), data, classes, evaluation, progress)
    points = task.points(evaluation.spacing)
    progress.line(
        f"{name} on {data.name}, {len(points)} points of the {task.transformation.parameter}, {len(data.x_test):,} test images"
    )
    for line in measured.lines():
        progress.line(line)
    if file is not None:
        run = {key: config.get(key) for key in ("experiment", "model", "profile", "seed", "commit")}
        given = {"run": run, "dataset": data.name, "images": len(data.x_test), "evaluation": asdict(evaluation)}
        write_json(file, {**given, "measured": measured.metrics, **provenance()})


def load_model(folder: RunFolder) -> Any:
    """The trained Keras model of a run.

    Raises:
        UserError: if it cannot be loaded.
    """
    import_tensorflow()
    import keras

    try:
        return keras.saving.load_model(folder / "model.keras")
    except Exception as error:  # a damaged archive raises whatever its first bad byte provokes
        raise UserError(f"{folder / 'model.keras'}: cannot be loaded ({one_line(error)})") from error


def data_of(config: Mapping, task: Task, dataset: str | None = None) -> tuple[Data, tuple[int, ...]]:
    """The data of a run's classes once more, and these classes.

    Args:
        config: the run's config.json.
        task: the run's.
        dataset: other data than the run's.

    Raises:
        UserError: if they cannot be loaded, or differ from what the run had.
    """
    name, source = config["dataset"], config.get("data_source", "")
    own = source if source.endswith(".npz") else name
    data = datasets.load(dataset or own)
    data, classes = data.of_task(task)
    if not dataset and data.sha256() != config.get("data_sha256"):
        raise UserError(f"{data.source} is not what the run had; `evaluate --dataset {own}` takes it all the same")
    return data, classes
