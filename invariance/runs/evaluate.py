"""Loads a finished run's model and evaluates it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance.errors import UserError, one_line
from invariance.files import write_json
from invariance.progress import Progress
from invariance.runs.builder import load_module
from invariance.runs.execute import load_data
from invariance.runs.folder import ORBIT, RunFolder
from invariance.runs.orbit import lines, measure_orbit
from invariance.runs.provenance import import_tensorflow, provenance
from invariance.tasks import Task
from invariance.tasks.task import Evaluation

if TYPE_CHECKING:
    from invariance.datasets import Data


def evaluate(
    folder: RunFolder, task: Task, evaluation: Evaluation, dataset: str | None = None, file: Path | None = None
) -> None:
    """Evaluates a finished run's model again and prints the results. The run's own files stay unchanged.

    Args:
        folder: the run.
        task: its task.
        evaluation: how to measure.
        dataset: other data than the run's, with the same image size and classes.
        file: JSON file for the results, the run, the data, versions and commit.

    Raises:
        UserError: if the run, its model or the data cannot be read, or do not fit together.
        RunError: if the file cannot be written.
    """
    name, config, data, classes = _described(folder, task, dataset)
    progress = Progress(name)
    measured = task.measure(load_model(folder), data, classes, evaluation, progress)
    points = task.points(evaluation.spacing)
    progress.line(
        f"{name} on {data.name}: {len(points)} values of the {task.transformation.parameter}, "
        f"{len(data.x_test):,} test images"
    )
    for line in measured.lines():
        progress.line(line)
    if file is not None:
        run = {key: config.get(key) for key in ("experiment", "model", "profile", "seed", "commit")}
        given = {"run": run, "dataset": data.name, "images": len(data.x_test), "evaluation": asdict(evaluation)}
        write_json(file, {**given, "measured": measured.metrics, **provenance()})


def evaluate_orbit(folder: RunFolder, task: Task, evaluation: Evaluation) -> None:
    """Measures a finished run's model with orbit pooling, prints the results and keeps them in its orbit.json.

    The run's other files stay unchanged.

    Args and errors: see `evaluate`.
    """
    name, _, data, classes = _described(folder, task)
    progress = Progress(name)
    found = measure_orbit(folder, task, load_model(folder), data, classes, evaluation, progress)
    for line in lines(found, task):
        progress.line(line)
    progress.line(f"written to {folder / ORBIT}")


def _described(folder: RunFolder, task: Task, dataset: str | None = None) -> tuple[str, dict, Data, tuple[int, ...]]:
    """A run's model, configuration, data and classes, see `data_of`; raises UserError if config.json is not a run's."""
    config = folder.json("config.json")
    try:
        return config["model"], config, *data_of(config, task, dataset)
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error


def load_model(folder: RunFolder) -> Any:
    """The trained Keras model of a run. A model from the user's own file needs that file, where it was.

    Raises:
        UserError: if it cannot be loaded.
    """
    import_tensorflow()
    import keras

    builder_file = Path(folder.json("config.json").get("builder_file", ""))
    if builder_file.is_file():
        # It may define the model's class.
        load_module(builder_file)
    try:
        return keras.saving.load_model(folder / "model.keras")
    except Exception as error:  # a damaged archive may raise anything
        raise UserError(f"{folder / 'model.keras'}: cannot be loaded ({one_line(error)})") from error


def data_of(config: Mapping, task: Task, dataset: str | None = None) -> tuple[Data, tuple[int, ...]]:
    """A run's data of the task's classes, and these classes.

    Args:
        config: the run's config.json.
        task: its task.
        dataset: other data than the run's.

    Raises:
        UserError: if the data cannot be loaded, or have changed since the run.
    """
    name, source = config["dataset"], config.get("data_source", "")
    own = source if source.endswith(".npz") else name
    data, classes = load_data(dataset or own).of_task(task)
    if not dataset and data.sha256() != config.get("data_sha256"):
        raise UserError(f"{data.source} has changed since the run; `evaluate --dataset {own}` uses it nevertheless")
    return data, classes
