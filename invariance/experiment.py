"""What is declared: models, how long they are trained, what is expected of them. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from invariance.errors import UserError, require_count, require_positive
from invariance.tasks import Task
from invariance.tasks.task import Evaluation

# In order of their cost.
PROFILES = ("smoke", "quick", "standard", "paper")
# The shortest profile whose numbers are compared with published ones; those of shorter ones are provisional.
COMPARABLE = "standard"


def comparable(profile: str) -> bool:
    """Whether runs in a profile are long enough to be compared with published numbers."""
    return profile in PROFILES[PROFILES.index(COMPARABLE) :]


@dataclass(frozen=True)
class Budget:
    """How long a model is trained and how finely it is measured.

    Args:
        steps: number of updates.
        batch_size: images a step.
        steps_per_epoch: steps between two rows of history.csv.
        learning_rate: at the first step.
        decay_rate: the learning rate is multiplied by this ...
        decay_steps: ... every so many steps (staircase).
        warmup_steps: if not 0, the learning rate rises in so many steps from 0 to `learning_rate` and then falls along
            a cosine to 0 at the last step, instead of the staircase.
        grid_spacing: between the points of the evaluation, see `Transformation.grid`; None for the finest grid.
        images_per_class: test images of each class that are evaluated; None for all.

    Raises:
        ValueError: if a number is out of bounds.
    """

    steps: int
    batch_size: int
    steps_per_epoch: int
    learning_rate: float
    decay_rate: float = 1.0
    decay_steps: int = 1
    warmup_steps: int = 0
    grid_spacing: float | None = 5.0
    images_per_class: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "steps_per_epoch", "decay_steps")
        if self.images_per_class is not None:
            require_positive(self, "images_per_class")
        for name in ("learning_rate", "decay_rate", "grid_spacing"):
            value = getattr(self, name)
            if name == "grid_spacing" and value is None:
                continue
            if value is None or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ValueError(f"Argument `{name}` must be positive. Received: {value!r}")
        require_count(self, "warmup_steps")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"Argument `warmup_steps` must be less than `steps`. Received: {self.warmup_steps!r}")

    def evaluation(self, **changes: Any) -> Evaluation:
        """How finely models are measured, with some changes."""
        return Evaluation(**{"spacing": self.grid_spacing, "images_per_class": self.images_per_class, **changes})

    def schedule(self) -> Any:
        """The learning rate as a Keras schedule (a float where it is constant)."""
        if self.decay_rate == 1.0 and not self.warmup_steps:
            return self.learning_rate
        import keras

        if self.warmup_steps:
            return keras.optimizers.schedules.CosineDecay(
                0.0, self.steps - self.warmup_steps, warmup_target=self.learning_rate, warmup_steps=self.warmup_steps
            )
        return keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, self.decay_steps, self.decay_rate, staircase=True
        )


@dataclass(frozen=True)
class Entry:
    """A model of an experiment, with its budgets.

    Args:
        model: a builder, ``(*arguments, learning_rate) -> compiled Keras model`` with the arguments that the task gives
            (`Task.arguments`): ``(input_shape, classes, learning_rate)`` for `Recognition`,
            ``(input_shape, output_shape, numbers, learning_rate)`` for `Generation`. Best a frozen dataclass with such
            a ``__call__`` (`models.declaration.Declaration`): its fields go into config.json.
        budgets: profile -> `Budget`.
        variants: profile -> the builder that replaces the model there (of a narrower network, say).
        task: instead of the experiment's; None for that.
        note: what a reader of its numbers must know, for the tables.
    """

    model: Callable[..., Any]
    budgets: Mapping[str, Budget]
    variants: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    task: Task | None = None
    note: str = ""

    def model_for(self, profile: str) -> Callable[..., Any]:
        """The builder used in a profile."""
        return self.variants.get(profile, self.model)

    def with_budgets(self, profiles: Collection[str] = PROFILES, **changes: Any) -> Entry:
        """The entry with other settings in the budgets of some profiles.

        Raises:
            ValueError: if a budget refuses one.
        """
        changed = {name: replace(budget, **changes) for name, budget in self.budgets.items() if name in profiles}
        return replace(self, budgets={**self.budgets, **changed})

    def departures(self, profile: str) -> list[str]:
        """How a profile differs from the original budget, the profile `paper`: a phrase for each setting."""
        if "paper" not in self.budgets:
            return []
        pairs = [
            (self.budgets[profile], self.budgets["paper"], ("steps_per_epoch", "grid_spacing", "images_per_class"))
        ]
        if dataclasses.is_dataclass(self.model) and type(self.model) is type(self.model_for(profile)):
            pairs.append((self.model_for(profile), self.model, ()))
        return [
            f"{field.name} {_number(getattr(here, field.name))} (original {_number(getattr(original, field.name))})"
            for here, original, harmless in pairs
            for field in dataclasses.fields(original)
            if field.name not in harmless and getattr(here, field.name) != getattr(original, field.name)
        ]


@dataclass(frozen=True)
class Band:
    """Where our number is expected to lie, given the published one. Declared before the runs.

    Args:
        absolute: largest difference.
        relative: largest difference as a share of the published number.
        below: a bound of ours, whatever was published.
    """

    absolute: float | None = None
    relative: float | None = None
    below: float | None = None

    def holds(self, ours: float, published: float) -> bool:
        """Whether ours lies in it."""
        difference = abs(ours - published)
        return (
            (self.absolute is None or difference <= self.absolute)
            and (self.relative is None or difference <= self.relative * abs(published))
            and (self.below is None or ours < self.below)
        )

    def text(self) -> str:
        """For people."""
        parts = []
        if self.absolute is not None:
            parts.append(f"within {self.absolute:g}")
        if self.relative is not None:
            parts.append(f"within {self.relative:.0%}")
        if self.below is not None:
            parts.append(f"below {self.below:g}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Experiment:
    """One experiment: a task, and the models that are trained on it.

    Args:
        name: that of the declaring module; the run folders' first level.
        task: what is trained on and measured.
        models: name -> `Entry`.
        defaults: the models that run when none is named; all of them by default.
        published: model -> metric -> published value, or {digit: value}, for the reports.
        published_on: the dataset that the published values were measured on.
        published_curves: model -> digit -> {parameter: published value}, for the figures.
        bands: metric -> `Band` around the published numbers.
        findings: model -> column of the table ("p_out", "ratio_4") -> why ours lies outside its band, found by
            experiment.
        deviations: pairs (what differs from the original in every profile, why).

    Raises:
        ValueError: if a default is not among the models.
    """

    name: str
    task: Task
    models: Mapping[str, Entry]
    defaults: tuple[str, ...] = ()
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published_on: str = "mnist"
    published_curves: Mapping[str, Mapping[int, Mapping[float, float]]] = field(default_factory=dict)
    bands: Mapping[str, Band] = field(default_factory=dict)
    findings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    deviations: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "defaults", self.defaults or tuple(self.models))
        if unknown := sorted(set(self.defaults) - set(self.models)):
            raise ValueError(f"Argument `defaults` must name models of the experiment. Received: {unknown}")

    def task_of(self, model: str) -> Task:
        """The task of a model."""
        return self.models[model].task or self.task


def installed_modules() -> Iterator[ModuleType]:
    """The modules of all packages that the entry points "invariance.experiments" name, subpackages included.

    Raises:
        UserError: if a module cannot be imported.
    """
    for point in entry_points(group="invariance.experiments"):
        package = point.load()
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                yield importlib.import_module(found.name)
            except Exception as error:  # whatever a file that somebody is writing raises
                raise UserError(f"{found.name} cannot be imported ({type(error).__name__}: {error})") from error


def installed_experiments() -> dict[str, Experiment]:
    """Name -> experiment, of every installed module with an `EXPERIMENT`.

    Raises:
        UserError: see `installed_modules`.
    """
    found = {}
    for module in installed_modules():
        experiment = getattr(module, "EXPERIMENT", None)
        if isinstance(experiment, Experiment):
            if experiment.name != (named := module.__name__.rpartition(".")[2]):
                raise UserError(
                    f"{module.__name__} must declare an experiment named {named!r}; it is {experiment.name!r}"
                )
            found[named] = experiment
    return found


def _number(value) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_number, value)) + ")"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def describe_model(model: Callable[..., Any]) -> dict:
    """A JSON description of a builder: its fields if it is a dataclass, otherwise its name and a digest.

    The digest is that of the function's or class' own source, without what it calls.
    """
    if dataclasses.is_dataclass(model):
        return {"builder": type(model).__name__, **dataclasses.asdict(model)}
    described = {"builder": getattr(model, "__qualname__", type(model).__qualname__)}
    with contextlib.suppress(OSError, TypeError):  # typed at a prompt, or a callable object
        described["source_sha256"] = hashlib.sha256(inspect.getsource(model).encode()).hexdigest()
    return described
