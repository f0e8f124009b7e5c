"""What all tasks share: a transformation, its range for each class, and the ranges in which models are measured."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from invariance.errors import UserError
from invariance.progress import Progress
from invariance.ranges import Intervals, Ranges, complement, extent, intervals
from invariance.schema import Amount, bounded, check, declared, record, short
from invariance.tasks.columns import Column, Response
from invariance.transforms import Transformation, transformation_from_json
from invariance.wording import join

if TYPE_CHECKING:
    import numpy as np

    from invariance.datasets import Data


@dataclass(frozen=True)
class Evaluation:
    """How a trained model is measured.

    Args:
        spacing: between the points of the grid, see `Transformation.grid`; None for the finest grid.
        images_per_class: number of test images of each class; None for all.
        redraws: if positive, also measure with this many random drawings of the parameters, as the article did.
        upright_last: number of images that these drawings leave untransformed, see `classify.redraws`.
        orbit: if positive, also measure classifiers that see about this many transformed copies of each test image, see
            `orbit_classifier`.
        seed: of these drawings, and of random codes in figures.
        pixels: the values of black and white pixels in a classifier's input.
        published: digit -> {parameter: published value}, shown in a figure.
    """

    spacing: float | None
    images_per_class: int | None = None
    redraws: int = 0
    upright_last: int = 0
    orbit: int = 0
    seed: int = 0
    pixels: tuple[float, float] = (0.0, 1.0)
    published: Mapping[int, Mapping[float, float]] = field(default_factory=dict)


class Measured:
    """The results of an evaluation: metrics, the tables behind them, and figures.

    Attributes:
        metrics: the content of metrics.json.
        task: the task that was measured.
    """

    metrics: dict
    task: Task

    def __str__(self) -> str:
        return "\n".join([self.task.title(), *self.lines()])

    @property
    def tables(self) -> dict[str, list[dict]]:
        """The CSV tables: file name -> rows."""
        raise NotImplementedError

    def summary(self) -> str:
        """The main metrics in one line."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """All metrics, line by line."""
        raise NotImplementedError

    def figures(self, title: str = "") -> Iterator[Any]:
        """Yields the figures (`figures.Picture` or `figures.Animation`): each has a ``name`` and ``save(folder)``."""
        raise NotImplementedError

    def save(self, folder: str | Path, title: str = "") -> None:
        """Writes tables and figures into an existing folder.

        Raises:
            RunError: if a file cannot be written.
        """
        from invariance.files import write_csv

        for name, rows in self.tables.items():
            write_csv(Path(folder) / name, rows)
        for picture in self.figures(title):
            picture.save(Path(folder))


@dataclass(frozen=True)
class Task:
    """A transformation whose full range is shown for the free classes, and part of it for the restricted ones.

    Args:
        transformation: of the images.
        ranges: the training range of each class.
        excluded: labels removed from training and test data.
        inside: parameters that count as in range; by default the training range of the restricted classes.
        outside: parameters that count as out of range; by default the rest of the free classes' training range.
        training: the ranges that training draws from instead of ``ranges``, for controls and sweeps. What is measured,
            and where, does not change.

    Raises:
        ValueError: if a range is malformed, if a class is both restricted and excluded, or if the restricted classes
            have different ranges and ``inside`` or ``outside`` is missing.
    """

    transformation: Transformation
    ranges: Ranges
    excluded: tuple[int, ...] = ()
    inside: Intervals = ()
    outside: Intervals = ()
    training: Ranges | None = None

    name: ClassVar[str]
    # The module of this package whose ``measure`` measures a model; it loads TensorFlow.
    measurer: ClassVar[str]
    # The transformation that config.json leaves out of `kind`: the task's only one when the format was defined.
    implied: ClassVar[str | None] = None
    # What curves over the parameter show, and whether on a logarithmic scale.
    curve: ClassVar[str]
    logarithmic: ClassVar[bool] = False
    # The value of pixels outside the images.
    fill: ClassVar[float] = 0.0
    # What every model of the task is told, see `experiment.Entry.told`.
    told: ClassVar[str]
    # Whether models can also be measured with random parameters.
    redrawn: ClassVar[bool] = False
    # What metrics.json may hold: name -> type. Values in curves.csv: their type.
    measures: ClassVar[Mapping[str, Any]]
    values: ClassVar[Any] = Amount

    def __post_init__(self) -> None:
        for pairs in (*self.ranges.all, *(self.training.all if self.training else ())):
            self.transformation.check(pairs)
        labels = tuple(sorted({int(label) for label in self.excluded}))
        if both := sorted(set(labels) & set(self.restricted)):
            raise ValueError(f"Classes cannot be both excluded and restricted. Received: {both}")
        object.__setattr__(self, "excluded", labels)
        different = set(self.ranges.restricted.values())
        if len(different) > 1 and not (self.inside and self.outside):
            raise ValueError(
                "Arguments `inside` and `outside` are required if restricted classes have different ranges. "
                f"Received: {dict(self.ranges.restricted)}"
            )
        shown = next(iter(different), self.ranges.default)
        self._set_range("inside", shown)
        self._set_range("outside", complement(self.ranges.default, shown, self.transformation.period))

    def _set_range(self, name: str, default: Intervals) -> None:
        value = getattr(self, name) or default
        object.__setattr__(self, name, intervals(value, name) if value else ())
        self.transformation.check(getattr(self, name))

    @property
    def restricted(self) -> tuple[int, ...]:
        """Labels of the restricted classes."""
        return tuple(self.ranges.restricted)

    @property
    def kind(self) -> str:
        """Task and transformation as config.json names them."""
        by = self.transformation.name
        return self.name if by == self.implied else f"{self.name}_by_{by}"

    def classes(self, labels: Iterable[int]) -> tuple[int, ...]:
        """The classes among ``labels`` that are not excluded, ascending, as a classifier's outputs are ordered.

        Raises:
            ValueError: if a restricted class is missing, or fewer than two classes remain.
        """
        present = sorted({int(label) for label in labels})
        if missing := [label for label in self.restricted if label not in present]:
            raise ValueError(f"restricted classes {missing} are not in the data, whose classes are {present}")
        remaining = tuple(label for label in present if label not in self.excluded)
        if len(remaining) < 2:
            raise ValueError(f"at least two classes are needed; {list(remaining)} remain of {present}")
        return remaining

    @property
    def drawn(self) -> Ranges:
        """The ranges that training draws from."""
        return self.training or self.ranges

    def teaching(self, classes: Iterable[int]) -> tuple[int, ...]:
        """The classes from which a transformation can be learnt: the free ones or, without any, all."""
        restricted = {*self.restricted, *self.drawn.restricted}
        return tuple(label for label in classes if label not in restricted) or tuple(classes)

    def drawings(self, seed: int, images: Any, labels: Any, draws: Any, stream: int | None = None) -> Any:
        """Training images transformed by parameters of their own, as `prepare` does.

        Args:
            seed: the run's seed.
            images: (batch, height, width, channels) uint8.
            labels: (batch,) integers.
            draws: (batch,) int64 draw numbers.
            stream: of random numbers; None for that of `prepare`.

        Returns:
            (batch, *output_shape) float32 in [0, 1].
        """
        from keras import ops

        parameters = self.transformation.draw(self.drawn, seed, draws, labels, stream)
        return self.transformation.apply(ops.cast(images, "float32") / 255.0, parameters)

    def pairs(self, seed: int, images: Any, labels: Any, draws: Any) -> tuple[Any, Any]:
        """Two drawings of each training image, for models that are told which drawings show the same image.

        Args and shapes: as for `drawings`.
        """
        from invariance import random

        return (
            self.drawings(seed, images, labels, draws),
            self.drawings(seed, images, labels, draws, random.PARTNERS),
        )

    def moving(self, prepare: Callable, move: Callable) -> Callable:
        """What `prepare` gives, with images moved in a way that was learnt.

        Args:
            prepare: see `prepare`.
            move: a function of images (batch, *output_shape) in [0, 1] and draw numbers (batch,) that moves them.

        Returns:
            A function like ``prepare``: by default itself, for networks that are told how to move images.
        """
        return prepare

    def title(self) -> str:
        """The task in one line."""
        text = f"{self.name.capitalize()} under {self.transformation.name}".replace("_", " ")
        if self.training:
            control = "in training" if self.training.restricted else "control, in training"
            text += f" ({control}: {self._described(self.training)})"
        return f"{text}: {self._described(self.ranges)}"

    def _described(self, ranges: Ranges) -> str:
        """Which classes are shown in which range, in words."""
        if not ranges.restricted:
            return f"every class shown {self.transformation.describe(ranges.default)}"
        groups: dict[Intervals, list[int]] = {}
        for label, pairs in ranges.restricted.items():
            groups.setdefault(pairs, []).append(label)
        return "; ".join(
            f"class{'es' * (len(labels) > 1)} {join(labels)} shown {self.transformation.describe(pairs)} only"
            for pairs, labels in groups.items()
        )

    def caveats(self, classes: Sequence[int]) -> list[str]:
        """What users should know about the task on these classes before it runs."""
        if self.restricted and not set(classes) - set(self.restricted):
            return ["No free class remains: every class is restricted, so there is nothing to transfer from."]
        return []

    @property
    def extent(self) -> tuple[float, float]:
        """The lowest and highest parameter in which models are trained or measured."""
        return extent(*self.ranges.all, self.inside, self.outside)

    def points(self, spacing: float | None) -> np.ndarray:
        """The parameters at which models are measured, (points,), ascending.

        Raises:
            ValueError: if there is no such grid, or nothing can be measured on it.
        """
        return self.transformation.grid(spacing, self.extent)

    @property
    def usual_spacing(self) -> float | None:
        """The default spacing of evaluation grids; None for the finest grid."""
        return self.transformation.spacing

    def example(self, classes: Sequence[int]) -> int:
        """The class to show when there is room for one: the first restricted one, or the article's 4, or the first."""
        return (*self.restricted, *({4} & set(classes)), *classes)[0]

    # Subclasses define the methods below.

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """The arguments of a model's builder that precede the learning rate."""
        raise NotImplementedError

    def prepare(self, seed: int, classes: Sequence[int]) -> Callable:
        """The function that turns a batch into inputs and targets, as part of the training step.

        Args:
            seed: the run's seed.
            classes: labels in the order of a classifier's outputs.

        Returns:
            A function of images (batch, height, width, channels) uint8, labels (batch,) and draw numbers (batch,) int64
            that returns (inputs, targets) for the model's ``train_step``.
        """
        raise NotImplementedError

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        """The transformed images of a prepared batch, in [0, 1], and a caption for them."""
        raise NotImplementedError

    def require_outputs(self, model: Any, image_shape: tuple[int, ...], classes: Sequence[int]) -> None:
        """Calls a model on two blank images and checks its outputs.

        Raises:
            UserError: if they do not fit the task.
        """
        raise NotImplementedError

    def evaluator(self, model: Any, images: np.ndarray, classes: Sequence[int]) -> Callable[[float], Any]:
        """A function that evaluates all images at one point of the grid, for measuring speed."""
        raise NotImplementedError

    def check(self, evaluation: Evaluation) -> None:
        """Raises UserError if the task does not support an evaluation."""
        if evaluation.redraws and not self.redrawn:
            raise UserError("--redraws: only recognition is measured with random parameters")
        try:
            self.points(evaluation.spacing)
        except ValueError as error:
            raise UserError(str(error)) from error

    def measure(
        self,
        model: Any,
        data: Data,
        classes: Sequence[int],
        evaluation: Evaluation,
        progress: Progress | None = None,
    ) -> Measured:
        """Measures a trained model.

        Args:
            model: see the subclass.
            data: test images, and training images for baselines, of these classes only.
            classes: labels in the order of a classifier's outputs.
            evaluation: how to measure.
            progress: reports progress, if given.

        Raises:
            UserError: if the model does not fit the data, or the task does not support the evaluation.
        """
        self.check(evaluation)
        module = importlib.import_module(f"invariance.tasks.{self.measurer}")
        return module.measure(self, model, data, classes, evaluation, progress)

    def orbit(self, copies: int) -> np.ndarray | None:
        """The parameters of about this many copies of a test image, whose scores can be pooled.

        Returns:
            (copies,) or (copies, dimensions); None if there is nothing to pool.
        """
        return None

    def measure_orbit(
        self,
        model: Any,
        data: Data,
        classes: Sequence[int],
        evaluation: Evaluation,
        progress: Progress | None = None,
    ) -> dict:
        """Measures a trained classifier that sees several copies of each image; only where `orbit` is not None.

        Args and errors: as for `measure`.

        Returns:
            "copies": their number, "told": what the classifier is told by them, "images": metric -> number of images,
            "pooled": name of the pooling -> {metric: share, "interval": metric -> 95 % interval}.
        """
        raise NotImplementedError

    def columns(self, labels: Sequence[int]) -> tuple[Column, ...]:
        """The columns of tables, for some classes of interest."""
        raise NotImplementedError

    def responses(self) -> tuple[Response, ...]:
        """What answers to how much is shown of the restricted classes; by default nothing."""
        return ()

    def remarks(self, metrics: Mapping) -> list[str]:
        """What readers of a table need to know, given the metrics of one of its runs."""
        raise NotImplementedError

    def warnings(self, metrics: Mapping) -> list[str]:
        """Reasons not to take a run's metrics at face value."""
        return []

    @property
    def required(self) -> Mapping[str, Any]:
        """What metrics.json must hold: name -> type."""
        raise NotImplementedError

    def require_metrics(self, metrics: Mapping) -> None:
        """Raises ValueError, naming the field, if a run's metrics are incomplete or malformed.

        What other tasks measure must not be malformed either, because tables and claims may read it.
        """
        known = {name: own for kind in _kinds() for name, own in kind.measures.items()}
        check(metrics, record("metrics", self.required, known))

    def pictures(self) -> Mapping[str, str]:
        """The figures of a run shown in reports: file name -> caption; by default those of what was learnt first."""
        return {
            "field.png": "How pixels move: the learnt vector field beside the true one",
            "moved.png": "Test images, moved as was learnt; in the middle not at all",
            "answers.png": f"The {self.transformation.parameter} that the learnt movement answers, over the true one",
        }

    def to_json(self) -> dict:
        """A flat description of the task and its transformation, with ``kind``."""
        value = {"kind": self.kind, "ranges": self.ranges.to_json(), "excluded": list(self.excluded)}
        own = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        for name, item in own.items():
            # Omitted if zero or None: the committed runs are older than the fields `max_shift` and `training`.
            if name in ("transformation", *value) or item in (0, None):
                continue
            if isinstance(item, Ranges):
                item = item.to_json()
            value[name] = json.loads(json.dumps(item))
        return {**value, **self.transformation.to_json()}


def _kinds() -> list[type[Task]]:
    """All tasks that are declared."""
    return [*Task.__subclasses__(), *(own for kind in Task.__subclasses__() for own in kind.__subclasses__())]


def task_from_json(value: Mapping) -> Task:
    """The task described in a run's config.json, see `Task.to_json`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if the description is incomplete or malformed.
    """
    name, _, by = value["kind"].partition("_by_")
    known = {kind.name: kind for kind in _kinds()}
    if name not in known:
        raise ValueError(f"unknown task {short(name)}; known are {', '.join(known)}")
    # Ranges are compared with each other modulo a period: with larger numbers, or more, that takes for ever.
    bounded(value, largest=1e4, most=10_000)
    check(value, record(name, {}, declared(known[name])))
    rest = {key: item for key, item in value.items() if key != "kind"}
    transformation, rest = transformation_from_json(by or known[name].implied or "", rest)
    ranges = {key: Ranges.from_json(rest[key]) for key in ("ranges", "training") if rest.get(key) is not None}
    return known[name](transformation, **{**rest, **ranges})
