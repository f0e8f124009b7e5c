"""One run from its declaration to metrics.json: data, training, evaluation, figures."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance import datasets
from invariance.errors import ModelError, RunError, UserError
from invariance.experiment import Entry, describe_model
from invariance.files import replacing, write_json
from invariance.progress import Progress, duration
from invariance.runs.folder import CHECKPOINT, RunFolder
from invariance.runs.provenance import import_tensorflow, peak_memory_mb, provenance
from invariance.tasks import Task

if TYPE_CHECKING:
    from invariance.datasets import Data

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclass(frozen=True)
class RunConfig:
    """All that determines a run.

    Args:
        experiment, profile, model: names.
        entry: the model's builder and budgets.
        task: what is trained on and measured.
        dataset: a name or path that `datasets.load` takes, "auto" resolved.
        seed: 0 <= seed < 2**32.
        precision: a key of `PRECISIONS`.
        published: digit -> {parameter: published value}, drawn beside ours if the data are the published ones.

    Raises:
        ValueError: if the task cannot be measured on the budget's grid.
    """

    experiment: str
    profile: str
    model: str
    entry: Entry
    task: Task
    dataset: str
    seed: int = 0
    precision: str = "float32"
    published: Mapping[int, Mapping[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # What could not be measured is not trained.
        self.task.points(self.entry.budgets[self.profile].grid_spacing)

    def folder(self, runs: str | Path) -> RunFolder:
        """Where the run's files go, below the folder of all runs."""
        return RunFolder.of(
            runs, self.experiment, datasets.stored_as(self.dataset), self.profile, self.model, self.seed
        )

    @property
    def title(self) -> str:
        """What stands above every figure of the run."""
        name = datasets.stored_as(self.dataset)
        caveat = datasets.caveat(name, short=True)
        return f"{self.model} on {name} ({self.profile}, seed {self.seed})" + (f" — {caveat}" if caveat else "")

    def to_json(self) -> dict:
        return {
            "experiment": self.experiment,
            "dataset": datasets.stored_as(self.dataset),
            "profile": self.profile,
            "model": self.model,
            "model_arguments": json.loads(json.dumps(describe_model(self.entry.model_for(self.profile)))),
            "protocol": self.task.to_json(),
            "budget": asdict(self.entry.budgets[self.profile]),
            "seed": self.seed,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class Options:
    """How runs are carried out, without any effect on their numbers.

    Args:
        overwrite: start anew even if there is a run.
        quiet: print nothing.
        tensorboard: write TensorBoard files too.
        redraws: also measure with so many random drawings of the parameters, see `tasks.task.Evaluation`.
        parent: a process whose end stops the run.
        live: rewrite a line on a terminal; False if other runs write to it, too.
    """

    overwrite: bool = False
    quiet: bool = False
    tensorboard: bool = False
    redraws: int = 0
    parent: int | None = None
    live: bool = True


def execute(config: RunConfig, runs: str | Path, options: Options = Options(), data: Data | None = None) -> None:
    """Carries a run out, or the rest of it, and writes its folder.

    Args:
        config: what to run.
        runs: the folder of all runs.
        options: how.
        data: the dataset if it has been loaded already.

    Raises:
        UserError, RunError, Interrupted: see `errors`.
    """
    folder = config.folder(runs)
    progress = Progress(f"{config.model} seed {config.seed}", options.quiet, live=options.live)
    with folder.locked(), contextlib.closing(progress), _memory_errors(config):
        if options.overwrite:
            folder.clear()
        try:
            check_unchanged(folder, config)
            if folder.done and (folder / "config.json").exists():
                _finished_before(config, folder, progress, options, data)
            else:
                _execute(config, folder, progress, options, data)
        except ValueError as error:
            raise UserError(f"{config.model} on {config.dataset}: {error}") from error


@contextlib.contextmanager
def _memory_errors(config: RunConfig) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise RunError(f"{config.model}: out of memory") from error
    except Exception as error:
        # TensorFlow's own, of a GPU say.
        if type(error).__name__ != "ResourceExhaustedError":
            raise
        raise RunError(f"{config.model}: out of memory ({str(error).splitlines()[0][:200]})") from error


def _finished_before(
    config: RunConfig, folder: RunFolder, progress: Progress, options: Options, data: Data | None
) -> None:
    if config.dataset.endswith(".npz"):
        # The one kind of data that may change under its name.
        _check_data(folder, _selected(config, data)[0].sha256())
    (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed at the very end
    progress.line(f"{progress.name}: finished before, see {folder.path} (--overwrite starts it anew)")
    if options.redraws and "redraws" not in folder.json("metrics.json"):
        progress.line(f"Redraws: python -m invariance evaluate {folder.path} --redraws {options.redraws}")


def load_data(dataset: str, say: Callable[[str], Any] = lambda text: None) -> Data:
    """A dataset by its name or path, "auto" resolved, as `datasets.load` returns it, without TensorFlow's messages."""
    if datasets.needs_tensorflow(dataset):
        import_tensorflow()
    return datasets.load(dataset, say)


def _selected(
    config: RunConfig, data: Data | None, say: Callable[[str], Any] = lambda text: None
) -> tuple[Data, tuple[int, ...]]:
    """The data of the task's classes, and these classes."""
    data = data or load_data(config.dataset, say)
    return data.of_task(config.task)


def _execute(config: RunConfig, folder: RunFolder, progress: Progress, options: Options, data: Data | None) -> None:
    data, classes = _selected(config, data, progress.line)
    import_tensorflow()
    import keras

    from invariance.runs import training

    budget, task = config.entry.budgets[config.profile], config.task
    evaluation = budget.evaluation(redraws=options.redraws, seed=config.seed, published=config.published)
    task.check(evaluation)
    described = {**config.to_json(), "data_sha256": data.sha256()}
    resumed = (folder / "config.json").exists()
    if resumed:
        _check_data(folder, described["data_sha256"])

    keras.config.set_dtype_policy(PRECISIONS[config.precision])
    keras.utils.set_random_seed(config.seed)
    model = _model(config, data.image_shape, classes)
    if resumed:
        _note_provenance(folder, progress)
    else:
        write_json(folder / "config.json", {**described, **provenance(), "data_source": data.source})
    prepare = task.prepare(config.seed, classes)
    trained = training.train(
        model,
        prepare,
        data.x_train,
        data.y_train,
        budget,
        config.seed,
        folder,
        progress,
        tensorboard=options.tensorboard,
        parent=options.parent,
    )

    began = time.perf_counter()
    measured = task.measure(model, data, classes, evaluation, progress)
    evaluate_seconds = time.perf_counter() - began
    _training_figures(config, data, prepare, trained["history"], folder)
    measured.save(folder.path, config.title)
    with replacing(folder / "model.keras") as partial:
        model.save(partial)
    write_json(
        folder / "metrics.json",
        {
            **{key: described[key] for key in ("experiment", "model", "dataset", "profile", "seed", "precision")},
            **measured.metrics,
            "train_seconds": round(trained["seconds"], 2),
            "evaluate_seconds": round(evaluate_seconds, 2),
            "train_images_per_second": round(trained["images"] / trained["seconds"], 1),
            "parameters": model.count_params(),
            "peak_memory_mb": round(peak_memory_mb()),
        },
    )
    # model.keras and history.csv hold all that it held.
    (folder / CHECKPOINT).unlink(missing_ok=True)
    times = f"trained {duration(trained['seconds'])}, evaluated {duration(evaluate_seconds)}"
    progress.line(f"{progress.name}: {measured.summary()}  ({times}; {folder.path})")


def _model(config: RunConfig, image_shape: tuple[int, ...], classes: tuple[int, ...]) -> Any:
    """The model, built, compiled and checked: its outputs are what the task asks for.

    Raises:
        ModelError: if not.
    """
    import keras

    arguments = config.task.arguments(image_shape, classes)
    where = f"{config.model} on {config.dataset}"
    try:
        model = config.entry.model_for(config.profile)(*arguments, config.entry.budgets[config.profile].schedule())
    except (UserError, ValueError) as error:
        raise ModelError(f"{where}: {error}") from error
    except TypeError as error:
        named = ", ".join(map(str, arguments))
        raise ModelError(f"{where}: the builder cannot be called with ({named}, learning rate): {error}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{where}: the builder must return a Keras model; it returned {type(model).__name__}")
    if not getattr(model, "compiled", False):
        raise ModelError(f"{where}: the model is not compiled; its builder must call `model.compile`")
    try:
        config.task.require_outputs(model, image_shape, classes)
    except UserError as error:
        raise ModelError(f"{where}: {error}") from error
    return model


def _training_figures(config: RunConfig, data: Data, prepare: Callable, history: list[dict], folder: RunFolder) -> None:
    """The course of the training, and the first images with the parameters that were drawn for them."""
    import numpy as np

    from invariance import figures
    from invariance.runs import pipeline

    figures.Picture("training.png", figures.training_curves(history, config.title)).save(folder.path)
    images, labels, draws = next(iter(pipeline.batches(data.x_train, data.y_train, config.seed, 60, 0, 1)))
    task = config.task
    drawn = np.asarray(task.transformation.draw(task.ranges, config.seed, draws, labels))
    captions = [
        f"{label}: {task.transformation.text(value)}" for label, value in zip(labels.numpy(), drawn, strict=True)
    ]
    shown, what = task.shown(*prepare(images, labels, draws))
    sheet = figures.contact_sheet(np.asarray(shown), captions, f"{config.title}\n{what}")
    figures.Picture("training_images.png", sheet, greys=True).save(folder.path)


def check_unchanged(folder: RunFolder, config: RunConfig) -> None:
    """Raises UserError if a folder holds a run with other settings."""
    if (folder / "config.json").exists():
        before, wanted = folder.json("config.json"), config.to_json()
        _compare(folder, {key: before.get(key) for key in wanted}, wanted)
    elif folder.done or (folder / CHECKPOINT).exists():
        # It is written before anything else.
        raise UserError(
            f"{folder.path} holds a run without config.json, so nobody knows of what; --overwrite starts it anew, "
            "another --runs keeps both"
        )


def _note_provenance(folder: RunFolder, progress: Progress) -> None:
    """Adds to config.json that a run is resumed by another version, or on another device, than before."""
    config = folder.json("config.json")
    here = provenance()
    before = {key: config.get(key) for key in here} | (config.get("resumed") or [{}])[-1]
    changed = {key: value for key, value in here.items() if value != before[key]}
    if changed:
        write_json(folder / "config.json", {**config, "resumed": [*config.get("resumed", []), {**before, **changed}]})
        progress.line(f"{progress.name}: started with another {', '.join(changed)}; see config.json")


def _check_data(folder: RunFolder, digests: dict) -> None:
    """Refuses data other than those the run was started with."""
    _compare(folder, {"data_sha256": folder.json("config.json").get("data_sha256")}, {"data_sha256": digests})


def _compare(folder: RunFolder, before: dict, wanted: dict) -> None:
    changes = list(_differences(before, json.loads(json.dumps(wanted))))
    if changes:
        raise UserError(
            f"{folder.path} holds a run with other settings ({'; '.join(changes[:3])}); "
            "--overwrite starts it anew, another --runs keeps both"
        )


def _differences(before: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(wanted, dict):
        for key in sorted(before.keys() | wanted.keys()):
            yield from _differences(before.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif before != wanted:
        yield f"{path}: {json.dumps(before)[:60]} there, {json.dumps(wanted)[:60]} wanted"
