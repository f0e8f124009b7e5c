"""Declarations: models, training budgets, expected numbers, experiments. Imports no TensorFlow."""

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

# In order of cost.
PROFILES = ("smoke", "quick", "standard", "paper")
# The shortest profile whose numbers are compared with published ones. Shorter ones give provisional numbers.
COMPARABLE = "standard"
# About how many copies of a test image orbit pooling takes, where it is measured.
ORBIT = 16


def comparable(profile: str) -> bool:
    """Whether a profile trains for long enough that its numbers can be compared with published ones."""
    return profile in PROFILES[PROFILES.index(COMPARABLE) :]


@dataclass(frozen=True)
class Budget:
    """How long a model is trained and how finely it is measured.

    Args:
        steps: number of updates.
        batch_size: images per step.
        steps_per_epoch: steps between two rows of history.csv.
        learning_rate: initial learning rate.
        decay_rate: factor applied to the learning rate every `decay_steps` steps (staircase).
        decay_steps: steps between two decays.
        warmup_steps: if positive, the learning rate rises linearly from 0 to `learning_rate` in this many steps and
            then falls to 0 along a cosine, instead of the staircase.
        grid_spacing: spacing of the evaluation grid, in the parameter's unit; None for the finest grid.
        images_per_class: test images of each class that are evaluated; None for all.

    Raises:
        ValueError: if an argument is out of range.
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
        """How models are measured under this budget, with some settings changed.

        Where all test images are measured, so is orbit pooling.
        """
        usual = {"spacing": self.grid_spacing, "images_per_class": self.images_per_class}
        return Evaluation(**{**usual, "orbit": 0 if self.images_per_class else ORBIT, **changes})

    def schedule(self) -> Any:
        """The learning rate: a Keras schedule, or a float if it is constant."""
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
        model: a builder, ``(*arguments, learning_rate) -> compiled Keras model``, where the task gives the arguments
            (`Task.arguments`): ``(input_shape, classes, learning_rate)`` for `Recognition`,
            ``(input_shape, output_shape, numbers, learning_rate)`` for `Generation`. Preferably a frozen dataclass with
            such a ``__call__`` (`models.declaration.Declaration`), whose fields are recorded in config.json.
        budgets: profile -> `Budget`.
        variants: profile -> builder used there instead (of a narrower network, for example).
        task: the model's own task; None for the experiment's.
        note: what readers of its numbers need to know, printed below the tables.
        told: what the model is told, beginning with its rung: "K0: ..." labelled images only; "K1: ..." which drawings
            show the same image; "K2: ..." the parameter as a number; "K3: ..." the transformation itself. Empty for
            what every model of the task is told.
    """

    model: Callable[..., Any]
    budgets: Mapping[str, Budget]
    variants: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    task: Task | None = None
    note: str = ""
    told: str = ""

    def model_for(self, profile: str) -> Callable[..., Any]:
        """The builder used in a profile."""
        return self.variants.get(profile, self.model)

    def with_budgets(self, profiles: Collection[str] = PROFILES, **changes: Any) -> Entry:
        """The same model with some settings of its budgets changed.

        Args:
            profiles: whose budgets are changed.
            changes: fields of `Budget`.

        Raises:
            ValueError: if a value is out of range.
        """
        changed = {name: replace(budget, **changes) for name, budget in self.budgets.items() if name in profiles}
        return replace(self, budgets={**self.budgets, **changed})

    def departures(self, profile: str) -> list[str]:
        """How a profile differs from the original (the profile `paper`): a phrase for each setting that does."""
        if "paper" not in self.budgets or self.told:
            return []  # a model that is told more than the original's is not one of them
        # How often losses are logged and how finely models are measured does not change the model.
        harmless = ("steps_per_epoch", "grid_spacing", "images_per_class")
        pairs: list[tuple[Any, Any]] = [(self.budgets[profile], self.budgets["paper"])]
        if dataclasses.is_dataclass(self.model) and type(self.model) is type(self.model_for(profile)):
            pairs.append((self.model_for(profile), self.model))
        return [
            f"{field.name} {_number(getattr(here, field.name))} (original {_number(getattr(original, field.name))})"
            for here, original in pairs
            for field in dataclasses.fields(original)
            if field.name not in harmless and getattr(here, field.name) != getattr(original, field.name)
        ]


@dataclass(frozen=True)
class Band:
    """The range in which our number is expected to fall, given the published one. Declared before the runs.

    Args:
        absolute: largest absolute difference.
        relative: largest difference, as a share of the published number.
        below: upper bound of our number, whatever was published.
    """

    absolute: float | None = None
    relative: float | None = None
    below: float | None = None

    def holds(self, ours: float, published: float) -> bool:
        """Whether our number falls within the band."""
        difference = abs(ours - published)
        return (
            (self.absolute is None or difference <= self.absolute)
            and (self.relative is None or difference <= self.relative * abs(published))
            and (self.below is None or ours < self.below)
        )

    def text(self) -> str:
        """The band in words: "within 0.05 and below 0.125"."""
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
    """A task and the models that are trained on it.

    Args:
        name: name of the declaring module, and of the experiment's folder of runs.
        task: what models are trained on and measured at.
        models: name -> `Entry`.
        defaults: models that are run by default; all if empty.
        published: model -> metric -> published value, or {digit: value}, for the tables.
        published_on: dataset of the published values.
        published_curves: model -> digit -> {parameter: published value}, for the figures.
        bands: metric -> `Band` around the published values.
        findings: model -> column of the table ("p_out", "ratio_4") -> why our number falls outside its band: a string,
            or an object whose ``str`` is taken whenever a table shows it.
        deviations: pairs (deviation from the original in every profile, reason).

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
    findings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    deviations: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "defaults", self.defaults or tuple(self.models))
        if unknown := sorted(set(self.defaults) - set(self.models)):
            raise ValueError(f"Argument `defaults` must name models of the experiment. Received: {unknown}")

    def task_of(self, model: str) -> Task:
        """The task a model is trained on."""
        return self.models[model].task or self.task


@dataclass(frozen=True)
class Part:
    """Runs of one experiment that belong to a suite.

    Args:
        experiment: the experiment.
        models: their names.
        options: further options of the experiment's command line.
    """

    experiment: Experiment
    models: tuple[str, ...]
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.experiment.name, ",".join(self.models), *self.options))


@dataclass(frozen=True)
class Suite:
    """Runs of several experiments that are carried out by one command.

    Args:
        name: name of the declaring module.
        title: what it is, in one line.
        parts: carried out in this order.
    """

    name: str
    title: str
    parts: tuple[Part, ...]


def installed_modules() -> Iterator[ModuleType]:
    """All modules of the packages named by entry points "invariance.experiments", subpackages included.

    Raises:
        UserError: if a module cannot be imported.
    """
    for point in entry_points(group="invariance.experiments"):
        package = point.load()
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                yield importlib.import_module(found.name)
            except Exception as error:  # a file being edited may raise anything
                raise UserError(f"{found.name} cannot be imported ({type(error).__name__}: {error})") from error


def installed_experiments() -> dict[str, Experiment]:
    """Every installed module's `EXPERIMENT`, by name.

    Raises:
        UserError: if a module cannot be imported, or its experiment has another name than the module.
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


def _number(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_number, value)) + ")"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def describe_model(model: Callable[..., Any]) -> dict:
    """A JSON description of a builder, by which a resumed run recognises it.

    A dataclass is described by its fields, a builder with a method ``describe`` by what that returns, any other builder
    by its name and the SHA-256 of its source (not of the functions it calls).
    """
    if dataclasses.is_dataclass(model) and not isinstance(model, type):
        return {"builder": type(model).__name__, **dataclasses.asdict(model)}
    if hasattr(model, "describe"):
        return model.describe()
    described = {"builder": getattr(model, "__qualname__", type(model).__qualname__)}
    with contextlib.suppress(OSError, TypeError):  # typed at a prompt, or a callable object
        described["source_sha256"] = hashlib.sha256(inspect.getsource(model).encode()).hexdigest()
    return described
