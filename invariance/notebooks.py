"""What the notebooks share: finding a finished run, loading its model and data, showing figures."""

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from invariance.errors import RunError, UserError, require_extra
from invariance.experiment import Experiment
from invariance.files import replacing
from invariance.progress import Progress
from invariance.runs.find import Run, find

# Environment variables: the folder of all runs; profile and dataset of a run that has to be trained first.
RUNS, PROFILE, DATASET = "INVARIANCE_RUNS", "INVARIANCE_PROFILE", "INVARIANCE_DATASET"


def newest_run(
    experiment: str, models: Collection[str] | None = None, runs: Sequence[str | Path] | None = None
) -> Run | None:
    """The run of an experiment that finished last.

    Args:
        experiment: its name.
        models: names of models; None for all.
        runs: folders of runs; by default the one named by the variable INVARIANCE_RUNS, or "runs" and "../runs".

    Returns:
        The run; None if there is none with a saved model.
    """
    if runs is None:
        runs = [os.environ[RUNS]] if RUNS in os.environ else ["runs", "../runs"]
    suitable = [
        run
        for folder in runs
        if Path(folder).is_dir()
        for run in find(folder)[0]
        if run.metrics["experiment"] == experiment
        and (models is None or run.metrics["model"] in models)
        and not run.folder.lacks("model.keras")
    ]
    return max(suitable, key=lambda run: (run.folder / "metrics.json").stat().st_mtime, default=None)


def newest_or_trained(experiment: Experiment, model: str, models: Collection[str] | None = None) -> Run:
    """The newest suitable run. If there is none, one is trained in the profile `quick`, which takes minutes.

    Args:
        experiment: the experiment.
        model: the model to train.
        models: names of suitable models; None for all.

    Raises:
        UserError, RunError: if there is no run and training fails.
    """
    run = newest_run(experiment.name, models)
    if run is None:
        from invariance import datasets
        from invariance.runs.execute import RunConfig, execute

        # Jupyter executes a notebook in its own folder.
        usual = "../runs" if Path("../notebooks").is_dir() else "runs"
        profile, runs = os.environ.get(PROFILE, "quick"), os.environ.get(RUNS, usual)
        print(f"No finished run of {experiment.name} was found. Training {model} now, profile {profile}.")
        entry = experiment.models[model]
        dataset = datasets.resolve(os.environ.get(DATASET, "auto"), print)
        execute(RunConfig(experiment.name, profile, model, entry, experiment.task_of(model), dataset), runs)
        run = newest_run(experiment.name, models, runs=[runs])
        if run is None:
            raise UserError(f"{model} is not among the suitable models {', '.join(models or ())}")
    Progress("").line(f"Run: {run.folder.path}")
    return run


def loaded(run: Run) -> tuple[Any, Any, tuple[int, ...]]:
    """A run's trained model, the `Data` of its classes, and these classes. Its task is `Run.task`.

    Raises:
        UserError: if the model or the data cannot be loaded, or the data have changed since the run.
    """
    from invariance.runs.evaluate import data_of, load_model

    data, classes = data_of(run)
    return load_model(run.folder), data, classes


def shown(figure: Any) -> Any:
    """A figure of `figures`, as an image for a notebook."""
    from IPython.display import Image

    from invariance import figures

    return Image(data=figures.png(figure))


def execute_all(notebooks: Iterable[str | Path], out: str | Path, say: Callable[[str], Any] = print) -> None:
    """Executes notebooks, each in a kernel of its own, and saves them with their outputs.

    Args:
        notebooks: .ipynb files.
        out: folder of the executed notebooks.
        say: called with a line of text for each notebook.

    Raises:
        UserError: if the extra "notebooks" is not installed, or a file is not a notebook.
        RunError: if a cell fails or a kernel dies.
    """
    require_extra("nbclient", "notebooks", "notebooks")
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    for path in map(Path, notebooks):
        try:
            page = nbformat.read(path, as_version=4)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a notebook ({type(error).__name__})") from error
        # The kernel's standard error, TensorFlow's messages above all, matters only if the kernel dies.
        with tempfile.TemporaryFile() as messages:
            try:
                NotebookClient(page, timeout=None, kernel_name="python3").execute(stderr=messages)
            except CellExecutionError as error:
                raise RunError(f"{path}: a cell failed ({error.ename}: {error.evalue})") from error
            except DeadKernelError as error:
                messages.seek(0)
                last = messages.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
                raise RunError(f"{path}: the kernel died ({last[0]})") from error
        Path(out).mkdir(parents=True, exist_ok=True)
        with replacing(Path(out) / path.name) as partial:
            nbformat.write(page, partial)
        say(f"{path}: executed, see {Path(out) / path.name}")
