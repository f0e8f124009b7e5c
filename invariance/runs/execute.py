"""One run, from its configuration to metrics.json: data, training, evaluation, figures."""

from __future__ import annotations

import contextlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance import datasets
from invariance.errors import ModelError, RunError, UserError, located, one_line
from invariance.experiment import Budget, Entry, describe_model
from invariance.files import replacing, write_json
from invariance.progress import Progress, duration
from invariance.runs.builder import FileBuilder
from invariance.runs.find import read_metrics
from invariance.runs.folder import CHECKPOINT, RunFolder
from invariance.runs.orbit import measure_orbit
from invariance.runs.provenance import import_tensorflow, peak_memory_mb, provenance
from invariance.tasks import Task
from invariance.wording import join

if TYPE_CHECKING:
    from invariance.datasets import Data

# Name -> Keras' policy.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's numbers.

    Args:
        experiment, profile, model: names.
        entry: the model's builder and budgets.
        task: what the model is trained on and measured at.
        dataset: a name or path that `datasets.load` accepts, other than "auto".
        seed: of weights, order and draws; 0 <= seed < 2**32.
        precision: a key of `PRECISIONS`.
        published: digit -> {parameter: published value}, drawn beside ours.
        record: written into config.json as well; does not change the numbers.

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
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task.points(self.budget.grid_spacing)

    @property
    def budget(self) -> Budget:
        """The budget of the run's profile."""
        return self.entry.budgets[self.profile]

    @property
    def builder(self) -> Callable[..., Any]:
        """The builder of the run's profile."""
        return self.entry.model_for(self.profile)

    @property
    def where(self) -> str:
        """Model and dataset, for messages."""
        return f"{self.model} on {self.dataset}"

    @property
    def title(self) -> str:
        """The title of the run's figures."""
        name = datasets.stored_as(self.dataset)
        caveat = datasets.caveat(name, short=True)
        title = f"{self.model} on {name} ({self.profile}, seed {self.seed})" + (f" — {caveat}" if caveat else "")
        return title.replace("$", r"\$")  # no formulas

    def folder(self, runs: str | Path) -> RunFolder:
        """The run's folder below the folder of all runs."""
        return RunFolder.of(
            runs, self.experiment, datasets.stored_as(self.dataset), self.profile, self.model, self.seed
        )

    def to_json(self) -> dict:
        """For config.json. A run is resumed only while this stays the same."""
        return {
            "experiment": self.experiment,
            "dataset": datasets.stored_as(self.dataset),
            "profile": self.profile,
            "model": self.model,
            "model_arguments": json.loads(json.dumps(describe_model(self.builder))),
            "protocol": self.task.to_json(),
            "budget": asdict(self.budget),
            "seed": self.seed,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class Options:
    """How a run is carried out. None of it changes the numbers of the grid.

    Args:
        overwrite: discard an earlier run with the same name.
        quiet: print nothing.
        tensorboard: also write TensorBoard files.
        redraws: also measure with this many random draws of the parameters; see `tasks.task.Evaluation`.
        parent: process whose end stops the run.
        live: whether a line on the terminal may be rewritten; see `Progress`.
    """

    overwrite: bool = False
    quiet: bool = False
    tensorboard: bool = False
    redraws: int = 0
    parent: int | None = None
    live: bool = True


def execute(config: RunConfig, runs: str | Path, options: Options = Options(), data: Data | None = None) -> None:
    """Carries out a run, resuming it if it was interrupted. A finished run stays as it is.

    Args:
        config: the run.
        runs: the folder of all runs.
        options: how to carry it out.
        data: the dataset, if it is loaded already.

    Raises:
        UserError: if the run's folder holds another run, or model, task and data do not fit together.
        RunError: if the run fails; its last checkpoint stays.
        Interrupted: if it is asked to stop; its state has been saved.
    """
    folder = config.folder(runs)
    progress = Progress(f"{config.model} seed {config.seed}", options.quiet, live=options.live)
    with folder.locked(), contextlib.closing(progress), _in_one_line(config):
        if options.overwrite:
            folder.clear()
        check_unchanged(folder, config)
        if folder.done:
            _report_finished(config, folder, progress, options, data)
        else:
            _execute(config, folder, progress, options, data)


@contextlib.contextmanager
def _in_one_line(config: RunConfig) -> Iterator[None]:
    """Turns errors that are not the program's own into a line for the user."""
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        # The second is TensorFlow's, of a GPU for example.
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            raise RunError(f"{config.where}: out of memory ({one_line(error)})") from error
        if isinstance(config.builder, FileBuilder):
            raise ModelError(f"{config.where}: {located(error, config.builder.path.resolve())}") from error
        if isinstance(error, ValueError):
            raise ModelError(f"{config.where}: {one_line(error)}") from error
        raise


def _report_finished(
    config: RunConfig, folder: RunFolder, progress: Progress, options: Options, data: Data | None
) -> None:
    if config.dataset.endswith(".npz"):
        # Other datasets do not change.
        selected, _ = _selected(config, data)
        _check_data(folder, selected.sha256())
    (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed at the very end
    lacking = folder.lacks("curves.csv", "model.keras")
    without = f", but without {join(lacking)}" if lacking else ""
    progress.line(f"{progress.name}: already finished{without}, see {folder.path} (--overwrite starts it again)")
    if options.redraws and "redraws" not in folder.json("metrics.json"):
        progress.line(f"Redraws: python -m invariance evaluate {folder.path} --redraws {options.redraws}")


def load_data(dataset: str, say: Callable[[str], Any] = lambda text: None) -> Data:
    """Loads a dataset as `datasets.load` does, without TensorFlow's messages."""
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

    budget, task = config.budget, config.task
    evaluation = budget.evaluation(redraws=options.redraws, seed=config.seed, published=config.published)
    task.check(evaluation)
    described = {**config.to_json(), "data_sha256": data.sha256()}
    resumed = folder.has("config.json")
    if resumed:
        _check_data(folder, described["data_sha256"])

    keras.config.set_dtype_policy(PRECISIONS[config.precision])
    model = _model(config, data.image_shape, classes)
    if resumed:
        _record_provenance(folder, progress)
    else:
        source = {"data_source": data.source}
        if isinstance(config.builder, FileBuilder):
            source["builder_file"] = str(config.builder.path.resolve())
        write_json(folder / "config.json", {**described, **config.record, **provenance(), **source})
    prepare = task.prepare(config.seed, classes)
    learned, learning = _learned(config, data, folder, progress, options)
    if learned is not None:
        model = _model(config, data.image_shape, classes, learned=learned)
        prepare = learned.prepare(prepare, config.seed)
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
    if evaluation.orbit and task.orbit(evaluation.orbit) is not None:
        measure_orbit(folder, task, model, data, classes, evaluation, progress)
    _training_figures(config, data, prepare, trained["history"], folder)
    measured.save(folder.path, config.title)
    if learned is not None:
        learning["learned"].update(learned.measure(data, config.seed))
        learned.save(folder.path)
        for picture in learned.figures(config.title):
            picture.save(folder.path)
    with replacing(folder / "model.keras") as partial:
        model.save(partial)
    write_json(
        folder / "metrics.json",
        {
            **{key: described[key] for key in ("experiment", "model", "dataset", "profile", "seed", "precision")},
            **measured.metrics,
            **learning,
            "train_seconds": round(trained["seconds"] + learning.get("learned", {}).get("seconds", 0.0), 2),
            "evaluate_seconds": round(evaluate_seconds, 2),
            "train_images_per_second": round(trained["images"] / trained["seconds"], 1),
            "parameters": model.count_params(),
            "peak_memory_mb": round(peak_memory_mb()),
        },
    )
    # Superseded by model.keras and history.csv.
    for saved in folder.path.rglob(CHECKPOINT):
        saved.unlink(missing_ok=True)
    times = f"trained {duration(trained['seconds'])}, evaluated {duration(evaluate_seconds)}"
    progress.line(f"{progress.name}: {measured.summary()}  ({times}; {folder.path})")


def _learned(
    config: RunConfig, data: Data, folder: RunFolder, progress: Progress, options: Options
) -> tuple[Any, dict[str, Any]]:
    """What is learnt before the network is trained (a `transfer.learner.Learned`), and its numbers for metrics.json.

    (None, {}) if the builder has no such stages. A stage that was finished before is only loaded.
    """
    from invariance.runs import training

    learner = getattr(config.builder, "learner", None)
    if learner is None:
        return None, {}
    stages, seconds = learner.learn(config.task, data, config.seed), 0.0
    while True:
        began = time.perf_counter()
        try:
            stage = next(stages)
        except StopIteration as end:
            # What is learnt between the stages takes time, too; so does what precedes the first.
            seconds += time.perf_counter() - began
            return end.value, {"learned": {**end.value.metrics, "seconds": round(seconds, 2)}}
        seconds += time.perf_counter() - began
        name = f"{config.model} seed {config.seed}, {stage.name}"
        with contextlib.closing(Progress(name, options.quiet, live=options.live)) as shown:
            trained = training.train(
                stage.model,
                stage.prepare,
                stage.images,
                stage.labels,
                stage.budget,
                config.seed,
                folder.stage(stage.name),
                shown,
                parent=options.parent,
                one_class=stage.one_class,
            )
        seconds += trained["seconds"]


def _model(config: RunConfig, image_shape: tuple[int, ...], classes: tuple[int, ...], **options: Any) -> Any:
    """The built and compiled model, with random weights that depend on the seed only.

    Args:
        config: the run.
        image_shape, classes: of the data.
        options: further arguments of the builder.

    Raises:
        ModelError: if the builder does not return what the task needs.
    """
    import keras

    arguments = config.task.arguments(image_shape, classes)
    builder = config.builder.load() if isinstance(config.builder, FileBuilder) else config.builder
    with contextlib.suppress(ValueError):  # some callables have no signature to check
        try:
            inspect.signature(builder).bind(*arguments, "learning rate")
        except TypeError as error:
            named = ", ".join(map(str, arguments))
            raise ModelError(f"{config.where}: the builder is called with ({named}, learning rate): {error}") from error
    keras.utils.set_random_seed(config.seed)
    model = builder(*arguments, config.budget.schedule(), **options)
    if not isinstance(model, keras.Model):
        raise ModelError(f"{config.where}: the builder must return a Keras model; it returned {type(model).__name__}")
    if not getattr(model, "compiled", False):
        raise ModelError(f"{config.where}: the model is not compiled; its builder must call `model.compile`")
    if hasattr(config.builder, "learner") and not options:
        return model  # it may not be able to do anything before something was learnt
    try:
        config.task.require_outputs(model, image_shape, classes)
    except UserError as error:
        raise ModelError(f"{config.where}: {error}") from error
    return model


def _training_figures(config: RunConfig, data: Data, prepare: Callable, history: list[dict], folder: RunFolder) -> None:
    """The logged values by training images, and the first images with their parameters."""
    import numpy as np

    from invariance import figures
    from invariance.runs import pipeline

    figures.Picture("training.png", figures.training_curves(history, config.title)).save(folder.path)
    images, labels, draws = next(iter(pipeline.batches(data.x_train, data.y_train, config.seed, 60, 0, 1)))
    task = config.task
    drawn = np.asarray(task.transformation.draw(task.drawn, config.seed, draws, labels))
    captions = [
        f"{label}: {task.transformation.text(value)}" for label, value in zip(labels.numpy(), drawn, strict=True)
    ]
    shown, caption = task.shown(*prepare(images, labels, draws))
    sheet = figures.contact_sheet(np.asarray(shown), captions, f"{config.title}\n{caption}")
    figures.Picture("training_images.png", sheet, greys=True).save(folder.path)


def check_unchanged(folder: RunFolder, config: RunConfig) -> None:
    """Checks that a folder is empty or holds this run.

    Raises:
        UserError: if it holds a run with other settings, one without config.json, or one whose files are damaged.
    """
    with _offering_remedies():
        if folder.has("config.json"):
            before, wanted = folder.json("config.json"), config.to_json()
            _compare(folder, {key: before.get(key) for key in wanted}, wanted)
        elif folder.done or folder.has(CHECKPOINT):
            # config.json is written before these.
            raise UserError(f"{folder.path} holds a run without config.json, so its settings are unknown")
        if folder.done:
            read_metrics(folder, config.task)


@contextlib.contextmanager
def _offering_remedies() -> Iterator[None]:
    """Says with an error about what is in a folder how to go on."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; --overwrite starts it again, another --runs keeps it") from error


def _record_provenance(folder: RunFolder, progress: Progress) -> None:
    """Records in config.json that a run is resumed with other versions, or on another device, than before."""
    config = folder.json("config.json")
    here = provenance()
    before = {key: config.get(key) for key in here} | (config.get("resumed") or [{}])[-1]
    changed = {key: value for key, value in here.items() if value != before[key]}
    if changed:
        write_json(folder / "config.json", {**config, "resumed": [*config.get("resumed", []), {**before, **changed}]})
        progress.line(f"{progress.name}: resumed with another {', '.join(changed)}; see config.json")


def _check_data(folder: RunFolder, digests: dict[str, str]) -> None:
    """Raises UserError if a run was started with other data."""
    with _offering_remedies():
        _compare(folder, {"data_sha256": folder.json("config.json").get("data_sha256")}, {"data_sha256": digests})


def _compare(folder: RunFolder, before: dict, wanted: dict) -> None:
    changes = list(_differences(before, json.loads(json.dumps(wanted))))
    if changes:
        raise UserError(f"{folder.path} holds a run with other settings ({'; '.join(changes[:3])})")


def _differences(before: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(wanted, dict):
        for key in sorted(before.keys() | wanted.keys()):
            yield from _differences(before.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif before != wanted:
        yield f"{path}: {json.dumps(before)[:60]} there, {json.dumps(wanted)[:60]} wanted"
