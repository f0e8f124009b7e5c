"""What the notebooks share: finding a finished run, loading its model and data, showing figures."""

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from invariance.errors import RunError, UserError, one_line, require_extra
from invariance.experiment import Experiment
from invariance.files import replacing
from invariance.output import temporary_file
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
        UserError: if the extra "notebooks" is not installed, a file is not a notebook, or a result would replace a
            notebook or another result; before anything is executed.
        RunError: if a cell fails, a kernel dies, or a result cannot be written.
    """
    paths, out = list(map(Path, notebooks)), Path(out)
    targets: dict[Path, Path] = {}
    for path in paths:
        target = (out / path.name).resolve()
        if target == path.resolve():
            raise UserError(f"{path}: its result would replace it; choose another folder than {out}")
        if target in targets:
            raise UserError(f"{path}: its result would replace that of {targets[target]}, which has the same name")
        targets[target] = path
    require_extra("nbclient", "notebooks", "notebooks")
    for path, page in [(path, _read(path)) for path in paths]:
        _execute(page, path)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create {out}: {error.strerror}") from error
        import nbformat

        with replacing(out / path.name) as partial:
            nbformat.write(page, partial)
        say(f"{path}: executed, see {out / path.name}")


def _read(path: Path) -> Any:
    """A notebook; raises UserError if the file is none."""
    import nbformat

    try:
        with warnings.catch_warnings(action="ignore"):  # of notebooks of older versions
            page = nbformat.convert(nbformat.reader.reads(path.read_text(encoding="utf-8")), 4)
            nbformat.validate(page)
        return page
    except Exception as error:  # of JSON that is no notebook, whatever is missing first
        raise UserError(f"{path}: not a notebook ({type(error).__name__})") from error


def _execute(page: Any, path: Path) -> None:
    """Executes a notebook in a kernel of its own."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    # The kernel's standard error, TensorFlow's messages above all, matters only if the kernel dies.
    with temporary_file() as messages:
        try:
            NotebookClient(page, timeout=None, kernel_name="python3").execute(stderr=messages)
        except CellExecutionError as error:
            raise RunError(f"{path}: a cell failed ({error.ename}: {error.evalue})") from error
        except DeadKernelError as error:
            messages.seek(0)
            last = messages.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise RunError(f"{path}: the kernel died ({last[0]})") from error
        except Exception as error:  # a kernel that is not installed, or cannot be started
            raise RunError(f"{path}: cannot be executed ({type(error).__name__}: {one_line(error)})") from error
