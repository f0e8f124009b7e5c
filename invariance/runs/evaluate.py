"""Loads a finished run's model and evaluates it again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance.errors import UserError, one_line
from invariance.files import opened, write_json
from invariance.progress import Progress
from invariance.runs.builder import load_module
from invariance.runs.execute import load_data
from invariance.runs.find import Run
from invariance.runs.folder import ORBIT, RunFolder
from invariance.runs.orbit import lines, measure_orbit
from invariance.runs.provenance import import_tensorflow, provenance
from invariance.tasks.task import Evaluation
from invariance.wording import printable

if TYPE_CHECKING:
    from invariance.datasets import Data


def evaluate(run: Run, evaluation: Evaluation, dataset: str | None = None, file: Path | None = None) -> None:
    """Evaluates a finished run's model again and prints the results. The run's own files stay unchanged.

    Args:
        run: the run.
        evaluation: how to measure.
        dataset: other data than the run's, with the same image size and classes.
        file: JSON file for the results, the run, the data, versions and commit.

    Raises:
        UserError: if the run's model or the data cannot be read, or do not fit together.
        RunError: if the file cannot be written.
    """
    name, task = printable(run.metrics["model"]), run.task
    data, classes = data_of(run, dataset)
    progress = Progress(name)
    measured = task.measure(load_model(run.folder), data, classes, evaluation, progress)
    points = task.points(evaluation.spacing)
    progress.line(
        f"{name} on {data.name}: {len(points)} values of the {task.transformation.parameter}, "
        f"{len(data.x_test):,} test images"
    )
    for line in measured.lines():
        progress.line(line)
    if file is not None:
        names = {key: run.metrics[key] for key in ("experiment", "model", "profile", "seed")}
        described = {**names, "commit": run.config.get("commit")}
        given = {"run": described, "dataset": data.name, "images": len(data.x_test), "evaluation": asdict(evaluation)}
        write_json(file, {**given, "measured": measured.metrics, **provenance()})


def evaluate_orbit(run: Run, evaluation: Evaluation) -> None:
    """Measures a finished run's model with orbit pooling, prints the results and keeps them in its orbit.json.

    The run's other files stay unchanged.

    Args and errors: see `evaluate`.
    """
    data, classes = data_of(run)
    progress = Progress(printable(run.metrics["model"]))
    found = measure_orbit(run.folder, run.task, load_model(run.folder), data, classes, evaluation, progress)
    for line in lines(found, run.task):
        progress.line(line)
    progress.line(f"written to {run.folder / ORBIT}")


def load_model(folder: RunFolder) -> Any:
    """The trained Keras model of a run. A model from the user's own file needs that file, where it was.

    Raises:
        UserError: if it cannot be loaded.
    """
    path = folder / "model.keras"
    try:
        opened(path).close()
    except OSError as error:
        raise UserError(f"{path}: unreadable ({error.strerror})") from error
    import_tensorflow()
    import keras

    builder_file = Path(folder.json("config.json").get("builder_file", ""))
    if builder_file.is_file():
        # It may define the model's class.
        load_module(builder_file)
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # a damaged archive may raise anything
        raise UserError(f"{path}: cannot be loaded ({one_line(error)})") from error


def data_of(run: Run, dataset: str | None = None) -> tuple[Data, tuple[int, ...]]:
    """A run's data of its task's classes, and these classes.

    Args:
        run: the run.
        dataset: other data than the run's.

    Raises:
        UserError: if the data cannot be loaded, or have changed since the run.
    """
    source = run.config.get("data_source", "")
    own = source if source.endswith(".npz") else run.metrics["dataset"]
    data, classes = load_data(dataset or own).of_task(run.task)
    if not dataset and data.sha256() != run.config.get("data_sha256"):
        raise UserError(f"{data.source} has changed since the run; `evaluate --dataset {own}` uses it nevertheless")
    return data, classes
