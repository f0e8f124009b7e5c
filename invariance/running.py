"""One run from its declaration to metrics.json: data, training, evaluation, figures."""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from invariance.errors import RunError, UserError
from invariance.progress import Progress, duration
from invariance.protocol import Entry, Recognition, describe_model
from invariance.results import RunFolder, replacing, write_csv, write_json

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
    """

    experiment: str
    profile: str
    model: str
    entry: Entry
    protocol: Recognition
    dataset: str
    seed: int = 0
    precision: str = "float32"

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

    Raises:
        UserError, RunError, Interrupted: see `errors`.
    """
    folder = config.folder(runs)
    progress = Progress(f"{config.model} seed {config.seed}", quiet)
    with folder.locked():
        if overwrite:
            folder.clear()
        try:
            if (folder / "config.json").exists():
                _check_unchanged(folder, config)
                if folder.done:
                    if config.dataset.endswith(".npz"):
                        # The one kind of data that may change under its name.
                        _check_data(folder, _selected(config)[0].sha256())
                    progress.line(f"{progress.name}: finished before, see {folder.path} (--overwrite runs it anew)")
                    return
            _execute(config, folder, progress, tensorboard, redraws, parent)
        except ValueError as error:
            raise UserError(f"{config.model} on {config.dataset}: {error}") from error
        except MemoryError as error:
            raise RunError(f"{config.model}: out of memory") from error


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


def _selected(config, say=lambda text: None):
    """The data of the protocol's classes, and these classes."""
    from invariance import datasets

    data = datasets.load(config.dataset, say)
    classes = config.protocol.classes(data.y_train)
    data = data.select(classes)
    absent = sorted(set(classes) - set(data.y_test.tolist()))
    if absent:
        raise UserError(f"{data.source}: y_test has no images of the classes {absent}")
    return data, classes


def _execute(config, folder, progress, tensorboard, redraws, parent):
    from invariance import datasets

    if config.dataset in datasets.TFDS_NAMES:  # which loads TensorFlow, loudly
        import_tensorflow()
    data, classes = _selected(config, progress.line)
    import_tensorflow()
    import keras

    from invariance import evaluation, training

    described = {**config.to_json(), "data_sha256": data.sha256()}
    if (folder / "config.json").exists():
        _check_data(folder, described["data_sha256"])
    else:
        write_json(folder / "config.json", {**described, **provenance(), "data_source": data.source})

    keras.config.set_dtype_policy(PRECISIONS[config.precision])
    keras.utils.set_random_seed(config.seed)
    budget = config.entry.budgets[config.profile]
    model = config.entry.model_for(config.profile)(data.image_shape, len(classes), budget.schedule())
    prepare = config.protocol.prepare(config.seed, classes)
    trained = training.train(
        model, prepare, data.x_train, data.y_train, budget, config.seed, folder, progress, tensorboard, parent
    )

    began = time.perf_counter()
    images, labels = evaluation.limited(data.x_test, data.y_test, budget.images_per_class)
    predictions = evaluation.predict_grid(
        model, images, labels, classes, evaluation.evaluation_angles(config.protocol, budget.grid_spacing), progress
    )
    measured = evaluation.proportions(predictions, config.protocol)
    if redraws:
        measured["redraws"] = evaluation.redraws(
            model, config.protocol, images, labels, classes, redraws, config.seed, progress
        )
    evaluate_seconds = time.perf_counter() - began
    write_csv(folder / "curves.csv", predictions.curves())
    write_csv(folder / "predictions.csv", predictions.table())
    if predictions.errors is not None:
        write_csv(folder / "reconstruction.csv", predictions.error_curves())
    _draw(config, folder, data, prepare, predictions, trained["history"], measured["chance"])
    if hasattr(model, "decode"):
        _draw_reconstructions(config, folder, data, model, classes)
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
    (folder / training.CHECKPOINT).unlink(missing_ok=True)
    progress.line(
        f"{progress.name}: "
        + ", ".join(f"{name} {measured[name]:.4f}" for name in evaluation.METRICS if measured[name] is not None)
        + f"  (trained {duration(trained['seconds'])}, evaluated {duration(evaluate_seconds)}; {folder.path})"
    )


def evaluate_again(folder: RunFolder, spacing: float, redraws: int = 0, dataset: str | None = None):
    """Evaluates a finished run's model once more and prints what it measured; the run's own files stay as they are.

    Args:
        folder: a finished run.
        spacing: degrees between the grid's angles.
        redraws: drawings of the angles for the published estimator; 0 for none.
        dataset: other data than the run's, of the same image size and classes.
    """
    import_tensorflow()
    import keras

    from invariance import datasets, evaluation

    config = folder.json("config.json")
    try:
        protocol = Recognition.from_json(config["protocol"])
        name, dataset, seed = config["model"], dataset or _data_of(config), config["seed"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error
    data = datasets.load(dataset)
    classes = protocol.classes(data.y_train)
    data = data.select(classes)
    try:
        model = keras.saving.load_model(folder / "model.keras")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'model.keras'}: cannot be loaded ({str(error).splitlines()[0]})") from error
    progress = Progress(name)
    predictions = evaluation.predict_grid(
        model, data.x_test, data.y_test, classes, evaluation.evaluation_angles(protocol, spacing), progress
    )
    measured = evaluation.proportions(predictions, protocol)
    progress.line(f"{name} on {data.name}, angles every {spacing:g} degrees, {len(data.x_test):,} test images")
    drawn = (
        evaluation.redraws(model, protocol, data.x_test, data.y_test, classes, redraws, seed, progress)
        if redraws
        else {}
    )
    for metric in evaluation.METRICS:
        if measured[metric] is None:
            continue
        low, high = measured["interval"][metric]
        text = f"{metric:7} grid {measured[metric]:.4f} (95 % over images {low:.4f} to {high:.4f})"
        if redraws:
            text += f"  {redraws} redraws: mean {drawn[metric]['mean']:.4f}, variance {drawn[metric]['variance']:.2e}"
        progress.line(text)


def _data_of(config) -> str:
    """What to load to get a run's data again."""
    name, source = config["dataset"], config.get("data_source", "")
    return source if source.endswith(".npz") else name


def _draw(config, folder, data, prepare, predictions, history, chance):
    import numpy as np

    from invariance import figures, pipeline

    title = _title(config, data)
    protocol = config.protocol
    if len(predictions.angles) > 1:
        figures.save(figures.accuracy_by_angle(predictions, protocol, title, chance), folder / "accuracy_by_angle.png")
        if predictions.errors is not None:
            figures.save(figures.error_by_angle(predictions, protocol, title), folder / "reconstruction_by_angle.png")
    if protocol.restricted:
        figures.save(figures.taken_for(predictions, protocol, title), folder / "taken_for.png")
    figures.save(figures.training_curves(history, title), folder / "training.png")
    images, labels, draws = next(iter(pipeline.batches(data.x_train, data.y_train, config.seed, 60, 0, 1)))
    angles = np.asarray(protocol.transformation().draw(config.seed, draws, labels))
    captions = [f"{label}: {angle:.0f}°" for label, angle in zip(labels.numpy(), angles, strict=True)]
    sheet = figures.contact_sheet(
        np.asarray(prepare(images, labels, draws)[0]),
        captions,
        f"{title}\nthe first training images as the network gets them",
    )
    figures.save(sheet, folder / "training_images.png")


def _title(config, data):
    title = f"{config.model} on {data.name} ({config.profile}, seed {config.seed})"
    return title + " — embedded digits, not MNIST" if data.name == "digits" else title


def _draw_reconstructions(config, folder, data, model, classes):
    """The article's four pictures of reconstructions, and the sweep of the dimensions of a capsule."""
    import numpy as np

    from invariance import evaluation, figures

    protocol, title = config.protocol, _title(config, data)
    images, labels = data.x_test, data.y_test

    def picture(name, rows, angles, what):
        inputs, drawn, chosen = evaluation.reconstruct(model, images[rows], np.asarray(angles, "float32"))
        captions = [
            (f"{labels[row]}, {angle:.0f}°", str(classes[output]))
            for row, angle, output in zip(rows, angles, chosen, strict=True)
        ]
        right = [classes[output] == labels[row] for row, output in zip(rows, chosen, strict=True)]
        figures.save(
            figures.reconstructions(inputs, drawn, captions, right, f"{title}\n{what}"),
            folder / f"reconstructions_{name}.png",
        )

    def first(label, count):
        return np.flatnonzero(labels == label)[:count].tolist()

    rows = [row for label in classes for row in first(label, 16 // len(classes) or 1)]
    angles = [middle for row in rows for middle in _spread(protocol.ranges.of(int(labels[row])), 16)]
    # Neighbouring images at angles far from each other.
    angles = [angles[16 * number + (7 * number) % 16] for number in range(len(rows))]
    picture("in_range", rows, angles, "test images of all classes, each in its training range")
    for label in protocol.restricted[:1]:
        one = first(label, 1)
        if one:
            inside, outside = (_spread(pairs, 12) for pairs in (protocol.inside, protocol.outside))
            picture("one_in_range", one * 12, inside, f"one {label} in its training range")
            picture("one_outside", one * 12, outside, f"the same {label} outside its training range")
    chosen = [first(label, 24 // len(protocol.restricted)) for label in protocol.restricted]
    rows = [row for rows in chosen for row in rows]
    if rows:
        span = [angle for rows in chosen for angle in _spread(protocol.inverted, len(rows))]
        names = " and ".join(f"{label}s" for label in protocol.restricted)
        picture("inverted", rows, span, f"{names} in the inverted range")
    offsets = np.arange(-5, 6) * 0.05
    example = first(protocol.restricted[0] if protocol.restricted else classes[0], 1)
    if example:
        drawn = evaluation.sweep(model, images[example[0]], offsets)
        what = f"an upright {labels[example[0]]}: each dimension of the chosen capsule moved from -0.25 to 0.25"
        figures.save(figures.dimensions(drawn, offsets, f"{title}\n{what}"), folder / "dimensions.png")


def _spread(pairs, count):
    """Values spread evenly over intervals: the middles of ``count`` equal parts (single values in turn)."""
    total = sum(high - low for low, high in pairs)
    if not total:
        return [pairs[number % len(pairs)][0] for number in range(count)]
    values = []
    for number in range(count):
        rest = (number + 0.5) / count * total
        for low, high in pairs:
            if rest <= high - low:
                values.append(low + rest)
                break
            rest -= high - low
    return values


def _check_unchanged(folder, config):
    """Refuses to go on with a run that was begun with other settings."""
    before = folder.json("config.json")
    wanted = config.to_json()
    _compare(folder, {key: before.get(key) for key in wanted}, wanted)


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
    return {"versions": versions, "device": device or f"{_processor()}, {os.cpu_count()} cores", "commit": _commit()}


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
        return commit + "+changes" if git("status", "--porcelain", "--", "..") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """The process' largest resident memory so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
