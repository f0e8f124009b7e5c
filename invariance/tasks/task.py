"""What every task has: a transformation, the range of its parameter per class, and what is measured where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from invariance.errors import UserError
from invariance.progress import Progress
from invariance.ranges import Intervals, Ranges, complement, extent, intervals
from invariance.tasks.columns import Column
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
        images_per_class: test images of each class; None for all.
        redraws: also measure with so many random drawings of the parameters, the published estimator; 0 for not.
        upright_last: of these drawings: see `classify.redraws`.
        seed: of these drawings, and of codes drawn at random for a figure.
        pixels: what a classifier takes for black and for white.
        published: digit -> {parameter: published value}, drawn beside ours.
    """

    spacing: float | None
    images_per_class: int | None = None
    redraws: int = 0
    upright_last: int = 0
    seed: int = 0
    pixels: tuple[float, float] = (0.0, 1.0)
    published: Mapping[int, Mapping[float, float]] = field(default_factory=dict)


class Measured:
    """What an evaluation found: the numbers, the tables behind them, and the figures.

    Attributes:
        metrics: for metrics.json.
    """

    metrics: dict
    task: Task

    def __str__(self) -> str:
        return "\n".join([self.task.title(), *self.lines()])

    @property
    def tables(self) -> dict[str, list[dict]]:
        """File name -> rows, for the run folder."""
        raise NotImplementedError

    def summary(self) -> str:
        """One line for people."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """Everything that was measured, line by line."""
        raise NotImplementedError

    def figures(self, title: str = "") -> Iterator[Any]:
        """Draws one figure after the other: each has a ``name`` and a method ``save(folder)`` (`figures.Picture`)."""
        raise NotImplementedError

    def save(self, folder: str | Path, title: str = "") -> None:
        """Writes tables and figures into an existing folder.

        Raises:
            RunError: if the disk does not take them.
        """
        from invariance.files import write_csv

        for name, rows in self.tables.items():
            write_csv(Path(folder) / name, rows)
        for picture in self.figures(title):
            picture.save(Path(folder))


@dataclass(frozen=True)
class Task:
    """A transformation, shown in full for the free classes and in part for the restricted ones.

    Args:
        transformation: of the images.
        ranges: the range of training parameters of each class.
        excluded: labels removed from training and test.
        inside: the parameters that count as in range; by default the range of the restricted classes.
        outside: those that count as out of range; by default what the free classes have beyond that.

    Raises:
        ValueError: if a range is malformed, or a class both restricted and excluded.
    """

    transformation: Transformation
    ranges: Ranges
    excluded: tuple[int, ...] = ()
    inside: Intervals = ()
    outside: Intervals = ()

    name: ClassVar[str]
    # The transformation that config.json does not name: there was no other when its form was decided.
    implied: ClassVar[str | None] = None
    # What a curve over the parameter shows, and whether on a logarithmic scale.
    curve: ClassVar[str]
    logarithmic: ClassVar[bool] = False
    # Value outside the images, as networks get them.
    fill: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        self.transformation.check(self.ranges)
        labels = tuple(sorted({int(label) for label in self.excluded}))
        if both := sorted(set(labels) & set(self.restricted)):
            raise ValueError(f"Classes cannot be both excluded and restricted. Received: {both}")
        object.__setattr__(self, "excluded", labels)
        shown = next(iter(self.ranges.restricted.values()), self.ranges.default)
        self._set_range("inside", shown)
        self._set_range("outside", complement(self.ranges.default, shown, self.transformation.period))

    def _set_range(self, name: str, default: Intervals) -> None:
        value = getattr(self, name) or default
        object.__setattr__(self, name, intervals(value, name) if value else ())

    @property
    def restricted(self) -> tuple[int, ...]:
        """Labels of the restricted classes."""
        return tuple(self.ranges.restricted)

    @property
    def kind(self) -> str:
        """Task and transformation, as config.json names them."""
        by = self.transformation.name
        return self.name if by == self.implied else f"{self.name}_by_{by}"

    def classes(self, labels: Iterable[int]) -> tuple[int, ...]:
        """The labels that remain of ``labels``, ascending: the meaning of a classifier's outputs, in order.

        Raises:
            ValueError: if a restricted class is not among the labels, or fewer than two classes remain.
        """
        present = sorted({int(label) for label in labels})
        if missing := [label for label in self.restricted if label not in present]:
            raise ValueError(f"restricted classes {missing} are not in the data, which has the classes {present}")
        remaining = tuple(label for label in present if label not in self.excluded)
        if len(remaining) < 2:
            raise ValueError(f"at least two classes are needed; of {present} there remain {list(remaining)}")
        return remaining

    def title(self) -> str:
        """The experiment in one line."""
        text = f"{self.name.capitalize()} under {self.transformation.name}"
        if not self.restricted:
            return f"{text}: every class shown {self.transformation.describe(self.ranges.default)}"
        groups: dict[Intervals, list[int]] = {}
        for label, pairs in self.ranges.restricted.items():
            groups.setdefault(pairs, []).append(label)
        shown = "; ".join(
            f"class{'es' * (len(labels) > 1)} {join(labels)} shown {self.transformation.describe(pairs)} only"
            for pairs, labels in groups.items()
        )
        return f"{text}: {shown}"

    def caveats(self, classes: Sequence[int]) -> list[str]:
        """What a reader should know about this task on these classes before it runs."""
        if self.restricted and not set(classes) - set(self.restricted):
            return ["No free class remains: every class is restricted, so there is nothing to transfer from."]
        return []

    @property
    def extent(self) -> tuple[float, float]:
        """The lowest and the highest parameter of all ranges."""
        return extent(*self.ranges.all, self.inside, self.outside)

    def points(self, spacing: float | None) -> np.ndarray:
        """The points at which models are measured, (points,), ascending.

        Raises:
            ValueError: if there is no such grid, or nothing can be measured on it.
        """
        return self.transformation.grid(spacing, self.extent)

    @property
    def usual_spacing(self) -> float | None:
        """Between the points of an evaluation if nobody chooses another; None for the finest grid."""
        return self.transformation.spacing

    def example(self, classes: Sequence[int]) -> int:
        """The class shown where one must do: the first restricted one; without any the article's 4, if it is there."""
        return (*self.restricted, *({4} & set(classes)), *classes)[0]

    # What a subclass defines.

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """What a model's builder is given before the learning rate."""
        raise NotImplementedError

    def prepare(self, seed: int, classes: Sequence[int]) -> Callable:
        """The function that turns a batch of the pipeline into inputs and targets, on the device, inside the step.

        Args:
            seed: the run's seed.
            classes: labels in the order of a classifier's outputs.

        Returns:
            A function of images (batch, height, width, channels) uint8, labels (batch,) and draw numbers (batch,) that
            returns (inputs, targets) as the model's ``train_step`` takes them.
        """
        raise NotImplementedError

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        """Of a prepared batch the images that are drawn from random parameters, in [0, 1], and a phrase about them."""
        raise NotImplementedError

    def require_outputs(self, model: Any, image_shape: tuple[int, ...], classes: Sequence[int]) -> None:
        """Calls a model on two blank images and checks what it returns.

        Raises:
            UserError: if that is not what the task asks for.
        """
        raise NotImplementedError

    def evaluator(self, model: Any, images: np.ndarray, classes: Sequence[int]) -> Callable[[float], Any]:
        """A function that puts all images through the model at one point of the grid, for measuring its speed."""
        raise NotImplementedError

    def check(self, evaluation: Evaluation) -> None:
        """Raises UserError if models cannot be measured so."""
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
            data: test images, and training images for baselines, of these classes.
            classes: labels in the order of a classifier's outputs.
            evaluation: how finely.
            progress: where to say how far it is.

        Raises:
            UserError: if the model does not fit the data, or what is asked for cannot be measured.
        """
        raise NotImplementedError

    def columns(self, labels: Sequence[int]) -> tuple[Column, ...]:
        """The columns of tables, for some restricted classes of interest."""
        raise NotImplementedError

    def remarks(self, metrics: Mapping) -> list[str]:
        """What a reader of a table needs to know, from the metrics of one of its runs."""
        raise NotImplementedError

    def warnings(self, metrics: Mapping) -> list[str]:
        """What makes a run's numbers mean less than they seem to."""
        return []

    def require_metrics(self, metrics: Mapping) -> None:
        """Raises ValueError, naming the field, if a run's metrics lack a number or hold something else."""
        raise NotImplementedError

    def pictures(self) -> Mapping[str, str]:
        """The figures of a run that a report shows: file -> caption."""
        raise NotImplementedError

    def to_json(self) -> dict:
        """A flat description, with ``kind``."""
        value = {"kind": self.kind, "ranges": self.ranges.to_json(), "excluded": list(self.excluded)}
        own = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        for name, item in own.items():
            # Fields that are zero did not exist when the first runs were made.
            if name not in ("transformation", *value) and item != 0:
                value[name] = [list(pair) for pair in item] if isinstance(item, tuple) else item
        return {**value, **self.transformation.to_json()}


def task_from_json(value: Mapping) -> Task:
    """The task that a run's config.json describes.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it describes none.
    """
    name, _, by = value["kind"].partition("_by_")
    known = {kind.name: kind for kind in Task.__subclasses__()}
    if name not in known:
        raise ValueError(f"unknown task {name!r}; known are {', '.join(known)}")
    rest = {key: item for key, item in value.items() if key != "kind"}
    transformation, rest = transformation_from_json(by or known[name].implied or "", rest)
    return known[name](transformation, **{**rest, "ranges": Ranges.from_json(rest["ranges"])})
