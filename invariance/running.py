"""One run from its declaration to metrics.json: data, training, evaluation, figures."""

import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from invariance.errors import ModelError, RunError, UserError
from invariance.processes import cores
from invariance.progress import Progress, duration
from invariance.protocol import Entry, Generation, Recognition, describe_model
from invariance.results import CHECKPOINT, RunFolder, replacing, write_csv, write_json

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclass(frozen=True)
class RunConfig:
    """All that determines a run.

    Args:
        experiment, profile, model: names.
        entry: the model's callable and budgets.
        protocol: what is trained on and measured.
        dataset: a name or path that `datasets.load` takes, "auto" resolved.
        seed: 0 <= seed < 2**32.
        precision: a key of `PRECISIONS`.
        published: digit -> {parameter: published value}, drawn beside ours where the data are the published ones.

    Raises:
        ValueError: if the protocol has no grid of the budget's spacing.
    """

    experiment: str
    profile: str
    model: str
    entry: Entry
    protocol: Recognition | Generation
    dataset: str
    seed: int = 0
    precision: str = "float32"
    published: Mapping[int, Mapping[float, float]] = field(default_factory=dict)

    def __post_init__(self):
        # What could not be measured is not trained.
        self.protocol.grid(self.entry.budgets[self.profile].grid_spacing)

    def folder(self, runs) -> RunFolder:
        """Where the run's files go, below the folder of all runs."""
        return RunFolder.of(runs, self.experiment, Path(self.dataset).stem, self.profile, self.model, self.seed)

    def to_json(self) -> dict:
        return {
            "experiment": self.experiment,
            "dataset": Path(self.dataset).stem,
            "profile": self.profile,
            "model": self.model,
            "model_arguments": json.loads(json.dumps(describe_model(self.entry.model_for(self.profile)))),
            "protocol": self.protocol.to_json(),
            "budget": asdict(self.entry.budgets[self.profile]),
            "seed": self.seed,
            "precision": self.precision,
        }


def execute(
    config: RunConfig,
    runs,
    overwrite: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    redraws: int = 0,
    parent: int | None = None,
    data=None,
    live: bool = True,
):
    """Carries a run out, or the rest of it, and writes its folder.

    Args:
        config: what to run.
        runs: the folder of all runs.
        overwrite: start anew even where there is a run.
        quiet: say nothing.
        tensorboard: write TensorBoard files too.
        redraws: also measure with the published estimator, so many drawings of the angles; 0 for not.
        parent: a process whose end stops the run.
        data: the dataset (`datasets.Data`) where it has been loaded already; None to load it.
        live: rewrite a line on a terminal; False where other runs write to it, too.

    Raises:
        UserError, RunError, Interrupted: see `errors`.
    """
    folder = config.folder(runs)
    progress = Progress(f"{config.model} seed {config.seed}", quiet, live=live)
    with folder.locked(), contextlib.closing(progress):
        if overwrite:
            folder.clear()
        try:
            check_unchanged(folder, config)
            if folder.done and (folder / "config.json").exists():
                if config.dataset.endswith(".npz"):
                    # The one kind of data that may change under its name.
                    _check_data(folder, _selected(config, data)[0].sha256())
                (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed in its last moment
                progress.line(f"{progress.name}: finished before, see {folder.path} (--overwrite runs it anew)")
                if redraws and "redraws" not in folder.json("metrics.json"):
                    progress.line(f"Redraws: python -m invariance evaluate {folder.path} --redraws {redraws}")
                return
            _execute(config, folder, progress, tensorboard, redraws, parent, data)
        except ValueError as error:
            raise UserError(f"{config.model} on {config.dataset}: {error}") from error
        except MemoryError as error:
            raise RunError(f"{config.model}: out of memory") from error
        except Exception as error:
            # TensorFlow's own, of a GPU say.
            if type(error).__name__ != "ResourceExhaustedError":
                raise
            raise RunError(f"{config.model}: out of memory ({str(error).splitlines()[0][:200]})") from error


def import_tensorflow():
    """Imports TensorFlow without the lines its C++ side prints on every start; they reappear if the import fails."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as messages:
        stderr = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # starts the devices, which is when most is said
        except BaseException:
            messages.seek(0)
            os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def loaded(dataset: str, say=lambda text: None):
    """A dataset by its name or path, "auto" resolved, as `datasets.load` gives it."""
    from invariance import datasets

    if dataset in datasets.TFDS_NAMES:  # which loads TensorFlow, loudly
        import_tensorflow()
    return datasets.load(dataset, say)


def _selected(config, data, say=lambda text: None):
    """The data of the protocol's classes, and these classes."""
    data = data or loaded(config.dataset, say)
    classes = config.protocol.classes(data.y_train)
    data = data.select(classes)
    absent = sorted(set(classes) - set(data.y_test.tolist()))
    if absent:
        raise UserError(f"{data.source}: y_test has no images of the classes {absent}")
    return data, classes


def _execute(config, folder, progress, tensorboard, redraws, parent, data):
    data, classes = _selected(config, data, progress.line)
    import_tensorflow()
    import keras

    from invariance import generation, pictures, training

    budget = config.entry.budgets[config.profile]
    if isinstance(config.protocol, Generation):
        generation.averaged(generation.evaluation_points(config.protocol, budget.grid_spacing), config.protocol)
    described = {**config.to_json(), "data_sha256": data.sha256()}
    if (folder / "config.json").exists():
        _check_data(folder, described["data_sha256"])
        _note_provenance(folder, progress)
    else:
        write_json(folder / "config.json", {**described, **provenance(), "data_source": data.source})

    keras.config.set_dtype_policy(PRECISIONS[config.precision])
    keras.utils.set_random_seed(config.seed)
    arguments = config.protocol.arguments(data.image_shape, classes)
    model = _model(config, arguments)
    prepare = config.protocol.prepare(config.seed, classes)
    trained = training.train(
        model, prepare, data.x_train, data.y_train, budget, config.seed, folder, progress, tensorboard, parent
    )

    began = time.perf_counter()
    if isinstance(config.protocol, Recognition):
        measured, summary, draw = _measure_recognition(config, folder, data, classes, model, redraws, progress)
    else:
        measured, summary, draw = _measure_generation(config, folder, data, classes, model, progress)
    evaluate_seconds = time.perf_counter() - began
    title = pictures.title(config, data)
    pictures.training(config, data, prepare, trained["history"], folder, title)
    draw(title)
    with replacing(folder / "model.keras") as partial:
        model.save(partial)
    write_json(
        folder / "metrics.json",
        {
            **{key: described[key] for key in ("experiment", "model", "dataset", "profile", "seed", "precision")},
            **measured,
            "train_seconds": round(trained["seconds"], 2),
            "evaluate_seconds": round(evaluate_seconds, 2),
            "train_images_per_second": round(trained["images"] / trained["seconds"], 1),
            "parameters": model.count_params(),
            "peak_memory_mb": round(peak_memory_mb()),
        },
    )
    # All it held is in model.keras and history.csv now.
    (folder / CHECKPOINT).unlink(missing_ok=True)
    progress.line(
        f"{progress.name}: {summary}  (trained {duration(trained['seconds'])}, evaluated {duration(evaluate_seconds)}; "
        f"{folder.path})"
    )


def _model(config, arguments):
    """The model, built; refused if its outputs are known and not the protocol's."""
    from invariance import evaluation, generation

    try:
        model = config.entry.model_for(config.profile)(*arguments, config.entry.budgets[config.profile].schedule())
        recognition = isinstance(config.protocol, Recognition)
        # Known before it is called of a model whose layers are a graph, and has one output.
        shape = getattr(model if recognition else getattr(model, "decoder", model), "output_shape", None)
        if isinstance(shape, tuple) and not any(isinstance(side, (tuple, list)) for side in shape):
            (evaluation.require_scores if recognition else generation.require_images)(shape, arguments[1])
    except (UserError, ValueError) as error:
        raise ModelError(f"{config.model} on {config.dataset}: {error}") from error
    return model


def _measure_recognition(config, folder, data, classes, model, redraws, progress):
    """What goes into metrics.json, a line for people, and a function that draws the pictures."""
    from invariance import evaluation, pictures

    budget = config.entry.budgets[config.profile]
    images, labels = evaluation.limited(data.x_test, data.y_test, budget.images_per_class)
    predictions = evaluation.predict_grid(
        model, images, labels, classes, config.protocol.grid(budget.grid_spacing), progress
    )
    measured = evaluation.proportions(predictions, config.protocol)
    if redraws:
        measured["redraws"] = evaluation.redraws(
            model, config.protocol, images, labels, classes, redraws, config.seed, progress
        )
    write_csv(folder / "curves.csv", predictions.curves())
    write_csv(folder / "predictions.csv", predictions.table())
    if predictions.errors is not None:
        write_csv(folder / "reconstruction.csv", predictions.error_curves())

    def draw(title):
        pictures.recognition(config.protocol, predictions, measured["chance"], folder, title)
        if hasattr(model, "decode"):
            pictures.reconstructions(config.protocol, data, model, classes, folder, title)

    named = [f"{name} {measured[name]:.4f}" for name in evaluation.METRICS if measured[name] is not None]
    if predictions.unanswered:
        named.append(f"never answers {' or '.join(map(str, predictions.unanswered))}")
    return measured, ", ".join(named), draw


def _measure_generation(config, folder, data, classes, model, progress):
    """The same for images that are drawn."""
    from invariance import evaluation, generation, pictures

    budget, protocol = config.entry.budgets[config.profile], config.protocol
    images, labels = evaluation.limited(data.x_test, data.y_test, budget.images_per_class)
    means = generation.mean_images(data.x_train, data.y_train, classes)
    points = generation.evaluation_points(protocol, budget.grid_spacing)
    artist = generation.Artist(model, protocol)
    errors = generation.measure(artist, images, labels, classes, means, points, progress)
    measured = generation.ratios(errors, protocol)
    write_csv(folder / "curves.csv", errors.curves())
    write_csv(folder / "baselines.csv", errors.baseline_curves())
    if protocol.parameter == "shift":
        digit = pictures.example(protocol, classes)
        shifts = protocol.grid(4 if config.profile == "smoke" else 2)
        drawn = generation.shift_map(artist, images[labels == digit][:50], shifts, progress)
        write_csv(
            folder / "map.csv",
            [
                {"digit": digit, "dy": dy, "dx": dx, "value": value}
                for dy, row in zip(shifts.tolist(), drawn.tolist(), strict=True)
                for dx, value in zip(shifts.tolist(), row, strict=True)
            ],
        )
    else:
        digit = shifts = drawn = None

    def draw(title):
        pictures.generation(config, data, model, artist, classes, errors, folder, title)
        if drawn is not None:
            pictures.shift_map(protocol, digit, shifts, drawn, folder, title)

    return measured, _said(measured["ratio"], protocol.restricted), draw


def _said(ratios, restricted):
    """Ratios for people: each restricted digit's, and the least and largest of the others."""
    free = [value for digit, value in ratios.items() if int(digit) not in restricted]
    texts = [", ".join(f"{digit}: out/in {ratios[str(digit)]:.2f}" for digit in restricted)] if restricted else []
    if free:
        texts.append(f"{'others' if texts else 'all digits: out/in'} {min(free):.2f} to {max(free):.2f}")
    return "; ".join(texts)


def evaluate_again(
    folder: RunFolder,
    protocol,
    spacing: float | None,
    redraws: int = 0,
    dataset: str | None = None,
    upright_last: int = 0,
    file: Path | None = None,
):
    """Evaluates a finished run's model once more and prints what it measured; the run's own files stay as they are.

    Args:
        folder: a finished run.
        protocol: the run's.
        spacing: degrees or pixels between the grid's points; None for the published grid of drawn images.
        redraws: drawings of the angles for the published estimator; 0 for none. Recognition only.
        dataset: other data than the run's, of the same image size and classes.
        upright_last: see `evaluation.redraws`.
        file: to be written as JSON: what was measured, on which run and data, by which versions and commit.

    Raises:
        UserError: what is asked for cannot be measured with this run.
        RunError: the file cannot be written.
    """
    if redraws and isinstance(protocol, Generation):
        raise UserError("--redraws: only experiments on recognition draw angles for their evaluation")
    import_tensorflow()
    import keras

    config = folder.json("config.json")
    try:
        name, seed = config["model"], config["seed"]
        data, classes = data_again(config, protocol, dataset)
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error
    try:
        model = keras.saving.load_model(folder / "model.keras")
    except Exception as error:  # a damaged archive raises whatever its first bad byte provokes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder / 'model.keras'}: cannot be loaded ({reason})") from error
    progress = Progress(name)
    if isinstance(protocol, Recognition):
        measured = _recognise_again(model, protocol, data, classes, spacing, redraws, seed, progress, upright_last)
    else:
        measured = _draw_again(model, protocol, data, classes, spacing, progress)
    if file is not None:
        run = {key: config.get(key) for key in ("experiment", "model", "profile", "seed", "commit")}
        given = {"run": run, "dataset": data.name, "images": len(data.x_test), "grid_spacing": spacing}
        write_json(file, {**given, **measured, **provenance()})


def _recognise_again(model, protocol, data, classes, spacing, redraws, seed, progress, upright_last):
    from invariance import evaluation

    angles = protocol.grid(spacing)
    # First what may be refused.
    drawn = (
        evaluation.redraws(model, protocol, data.x_test, data.y_test, classes, redraws, seed, progress, upright_last)
        if redraws
        else {}
    )
    predictions = evaluation.predict_grid(model, data.x_test, data.y_test, classes, angles, progress)
    measured = evaluation.proportions(predictions, protocol)
    shown = f"at {', '.join(f'{angle:g}' for angle in angles)}" if protocol.single_angles else f"every {spacing:g}"
    progress.line(f"{progress.name} on {data.name}, angles {shown} degrees, {len(data.x_test):,} test images")
    for metric in evaluation.METRICS:
        if measured[metric] is None:
            continue
        low, high = measured["interval"][metric]
        text = f"{metric:7} grid {measured[metric]:.4f} (95 % over images {low:.4f} to {high:.4f})"
        if redraws:
            text += f"  {redraws} redraws: mean {drawn[metric]['mean']:.4f}, variance {drawn[metric]['variance']:.2e}"
        progress.line(text)
    return {"grid": measured, "redraws": drawn, "upright_last": upright_last}


def _draw_again(model, protocol, data, classes, spacing, progress):
    from invariance import generation

    means = generation.mean_images(data.x_train, data.y_train, classes)
    points = generation.evaluation_points(protocol, spacing)
    try:
        generation.averaged(points, protocol)
    except ValueError as error:
        raise UserError(str(error)) from error
    artist = generation.Artist(model, protocol)
    errors = generation.measure(artist, data.x_test, data.y_test, classes, means, points, progress)
    measured = generation.ratios(errors, protocol)
    progress.line(
        f"{progress.name} on {data.name}, {len(points)} {protocol.parameter}s, {len(data.x_test):,} test images; mean "
        "squared errors of pixels in [-1, 1]"
    )
    for digit, ratio in measured["ratio"].items():
        mark = " (restricted)" if int(digit) in protocol.restricted else ""
        inside, outside = measured["mse_in"][digit], measured["mse_out"][digit]
        progress.line(f"{digit}: in {inside:.4f}  out {outside:.4f}  ratio {ratio:.2f}{mark}")
    return {"grid": measured}


def data_again(config: Mapping, protocol, dataset: str | None = None):
    """The data of a run's classes once more, and these classes.

    Args:
        config: the run's config.json.
        protocol: the run's.
        dataset: other data than the run's.

    Raises:
        UserError: if they are not to be had, or are not those of the run any more.
    """
    from invariance import datasets

    name, source = config["dataset"], config.get("data_source", "")
    own = source if source.endswith(".npz") else name
    data = datasets.load(dataset or own)
    try:
        classes = protocol.classes(data.y_train)
    except ValueError as error:
        raise UserError(f"{data.source}: {error}") from error
    data = data.select(classes)
    if not dataset and data.sha256() != config.get("data_sha256"):
        raise UserError(f"{data.source} is not what the run had; `evaluate --dataset {own}` takes it all the same")
    return data, classes


def check_unchanged(folder: RunFolder, config: RunConfig):
    """Raises UserError where a folder holds a run that was begun with other settings."""
    if (folder / "config.json").exists():
        before, wanted = folder.json("config.json"), config.to_json()
        _compare(folder, {key: before.get(key) for key in wanted}, wanted)
    elif folder.done or (folder / CHECKPOINT).exists():
        # It is written before anything else.
        raise UserError(
            f"{folder.path} holds a run without config.json, so nobody knows of what; --overwrite runs it anew, "
            "another --runs keeps both"
        )


def _note_provenance(folder, progress):
    """Adds to config.json where a run is going on with another program, or on another device, than before."""
    config = folder.json("config.json")
    here = provenance()
    before = {key: config.get(key) for key in here} | (config.get("resumed") or [{}])[-1]
    changed = {key: value for key, value in here.items() if value != before[key]}
    if changed:
        write_json(folder / "config.json", {**config, "resumed": [*config.get("resumed", []), {**before, **changed}]})
        progress.line(f"{progress.name}: begun with another {', '.join(changed)}; config.json says which")


def _check_data(folder, digests):
    """Refuses data other than those the run was begun with."""
    _compare(folder, {"data_sha256": folder.json("config.json").get("data_sha256")}, {"data_sha256": digests})


def _compare(folder, before, wanted):
    changes = list(_differences(before, json.loads(json.dumps(wanted))))
    if changes:
        raise UserError(
            f"{folder.path} holds a run with other settings ({'; '.join(changes[:3])}); "
            "--overwrite runs it anew, another --runs keeps both"
        )


def _differences(before, wanted, path=""):
    if isinstance(before, dict) and isinstance(wanted, dict):
        for key in sorted(before.keys() | wanted.keys()):
            yield from _differences(before.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif before != wanted:
        yield f"{path}: {json.dumps(before)[:60]} there, {json.dumps(wanted)[:60]} wanted"


def provenance() -> dict:
    """Versions, device and commit, for config.json."""
    import tensorflow as tf

    packages = ("invariance", "tensorflow", "keras", "numpy", "scipy", "tensorflow-datasets")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    gpus = tf.config.list_physical_devices("GPU")
    device = ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus)
    number = len(cores())
    device = device or f"{_processor()}, {number} core{'s' if number > 1 else ''}"
    return {"versions": versions, "device": device, "commit": _commit()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout the package lies in, with "+changes" where files differ from it."""

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        code = ("*.py", "setup.cfg", "pyproject.toml", "constraints.txt")
        return commit + "+changes" if git("status", "--porcelain", "--", *(f":/{name}" for name in code)) else commit
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """The process' largest resident memory so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
