"""What the notebooks share: finding a finished run with its network, or making one."""

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from invariance.experiment import Experiment
from invariance.files import replacing
from invariance.progress import Progress
from invariance.runs.find import Run, find

# For the tests of the notebooks: where runs are looked for and made, in which profile, on which data.
RUNS, PROFILE, DATASET = "INVARIANCE_RUNS", "INVARIANCE_PROFILE", "INVARIANCE_DATASET"


def newest_run(
    experiment: str, models: Collection[str] | None = None, runs: Sequence[str | Path] | None = None
) -> Run | None:
    """The run that was finished last, of some models of an experiment.

    Args:
        experiment: its name.
        models: names; None for all.
        runs: folders of runs; None for "runs" here and one level up, or what the variable INVARIANCE_RUNS names.

    Returns:
        The run, None where there is none.
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
        and (run.folder / "model.keras").is_file()
    ]
    return max(suitable, key=lambda run: (run.folder / "metrics.json").stat().st_mtime, default=None)


def newest_or_trained(experiment: Experiment, model: str, models: Collection[str] | None = None) -> Run:
    """The newest suitable run; where there is none, a quick one is trained (minutes), and that is said.

    Args:
        experiment: the experiment.
        model: which of its models is trained.
        models: which of its models are suitable; None for all.
    """
    run = newest_run(experiment.name, models)
    if run is None:
        from invariance import datasets
        from invariance.runs.execute import RunConfig, execute

        # Opened in Jupyter, a notebook runs in its own folder.
        usual = "../runs" if Path("../notebooks").is_dir() else "runs"
        profile, runs = os.environ.get(PROFILE, "quick"), os.environ.get(RUNS, usual)
        print(f"No finished run of {experiment.name} was found. One is trained now: {model}, profile {profile}.")
        entry = experiment.models[model]
        dataset = datasets.resolve(os.environ.get(DATASET, "auto"), print)
        execute(RunConfig(experiment.name, profile, model, entry, experiment.task_of(model), dataset), runs)
        run = newest_run(experiment.name, models, runs=[runs])
    Progress("").line(f"Run: {run.folder.path}")
    return run


def loaded(run: Run) -> tuple[Any, Any, tuple[int, ...]]:
    """(model, data of the run's classes, classes) of a run; its task is `Run.task`.

    Raises:
        UserError: if model or data are not available.
    """
    from invariance.runs.evaluate import data_of, load_model

    data, classes = data_of(run.config, run.task)
    return load_model(run.folder), data, classes


def shown(figure: Any) -> Any:
    """A figure of `figures` as an image that a notebook shows."""
    from IPython.display import Image

    from invariance import figures

    return Image(data=figures.png(figure))


def execute_all(notebooks: Iterable[str | Path], out: str | Path, say: Callable[[str], Any] = print) -> None:
    """Executes notebooks, each in a kernel of its own, and writes what they show.

    Args:
        notebooks: paths of .ipynb files.
        out: the folder the executed ones go to.
        say: called with a line for each.

    Raises:
        UserError: if a package is missing that runs notebooks, or a file is no notebook.
        RunError: if a cell fails or the kernel dies; names notebook and error.
    """
    from invariance.errors import RunError, UserError, require_extra

    require_extra("nbclient", "notebooks", "notebooks")
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    for path in map(Path, notebooks):
        try:
            page = nbformat.read(path, as_version=4)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a notebook ({type(error).__name__})") from error
        # What the kernel says of itself, and TensorFlow in it, matters only if it dies.
        with tempfile.TemporaryFile() as messages:
            try:
                NotebookClient(page, timeout=None, kernel_name="python3").execute(stderr=messages)
            except CellExecutionError as error:
                raise RunError(f"{path}: a cell failed ({error.ename}: {error.evalue})") from error
            except DeadKernelError as error:
                messages.seek(0)
                last = messages.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise RunError(f"{path}: the kernel ended ({last[0]})") from error
        Path(out).mkdir(parents=True, exist_ok=True)
        with replacing(Path(out) / path.name) as partial:
            nbformat.write(page, partial)
        say(f"{path}: executed, see {Path(out) / path.name}")
