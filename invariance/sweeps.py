"""Sweeps: one setting of some models is varied, all others stay as they are. Plain data; imports no TensorFlow.

A sweep becomes parts of a suite, and its runs are ordinary runs. From the runs' recorded configurations it is read back
which setting was varied: runs that differ in one setting only make a curve.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from invariance import variations
from invariance.experiment import PROFILES, Experiment, Part
from invariance.runs.find import Run

FREE_CLASSES, HALF_WIDTH, STEPS = "free_classes", "half_width", "steps"


@dataclass(frozen=True)
class Sweep:
    """One setting of some models of an experiment, and the values that it takes.

    Args:
        experiment: the experiment.
        models: names of its models.
        factor: `FREE_CLASSES`: the number of classes that are shown in the whole range; `HALF_WIDTH`: of the restricted
            range, in the parameter's unit; `STEPS`: of training, in percent of the others' steps; or a numeric argument
            of the models. What is measured, and where, does not change.
        values: that the factor takes. The setting of all other sweeps is run in any case.
        order: for `FREE_CLASSES`, the free classes in the order in which they are restricted, so that the restricted
            classes of one value contain those of the next larger one.
        seeds: of each value.
        percent: profile -> share of its steps that all runs take there; 100 where it is missing.

    Raises:
        ValueError: if an argument does not fit the experiment, or is out of range.
    """

    experiment: Experiment
    models: tuple[str, ...]
    factor: str
    values: tuple[float, ...]
    order: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    percent: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.experiment.models
        if not self.models or not set(self.models) <= set(known):
            raise ValueError(
                f"Argument `models` must name models of {self.experiment.name} ({', '.join(known)}). "
                f"Received: {self.models!r}"
            )
        for model in self.models:
            arguments = _numbers(known[model].model)
            if self.factor not in (*_OPTIONS, *arguments):
                raise ValueError(
                    f"Argument `factor` must be {', '.join(_OPTIONS)} or a number among the arguments of {model} "
                    f"({', '.join(arguments) or 'none'}). Received: {self.factor!r}"
                )
        numbers = [each for each in self.values if isinstance(each, (int, float)) and not isinstance(each, bool)]
        if not self.values or len(numbers) < len(self.values) or not all(map(isfinite, numbers)):
            raise ValueError(f"Argument `values` must be numbers, at least one. Received: {self.values!r}")
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"Argument `values` must not repeat itself. Received: {self.values!r}")
        if self.factor == FREE_CLASSES:
            self._check_order()
        elif self.order:
            raise ValueError(f"Argument `order` belongs to {FREE_CLASSES}. Received: {self.order!r}")
        least = {HALF_WIDTH: min(numbers) >= 0, STEPS: min(numbers) > 0}
        if not least.get(self.factor, True):
            raise ValueError(f"Argument `values` is out of range for {self.factor}. Received: {self.values!r}")
        if not self.seeds or any(not isinstance(seed, int) or not 0 <= seed < 2**32 for seed in self.seeds):
            raise ValueError(f"Argument `seeds` must be integers from 0 to {2**32 - 1}. Received: {self.seeds!r}")
        if not set(self.percent) <= set(PROFILES) or any(not 0 < each <= 100 for each in self.percent.values()):
            raise ValueError(
                f"Argument `percent` must give profiles ({', '.join(PROFILES)}) numbers above 0 and up to 100. "
                f"Received: {self.percent!r}"
            )

    def _check_order(self) -> None:
        for model in self.models:
            task = self.experiment.task_of(model)
            if len(set(self.order)) < len(self.order) or {*task.restricted, *task.excluded} & set(self.order):
                raise ValueError(
                    f"Argument `order` must be free classes of {model}, each once. Received: {self.order!r}"
                )
        if any(value not in range(len(self.order) + 1) for value in self.values):
            raise ValueError(
                f"Argument `values` must be whole numbers from 0 to {len(self.order)}, the length of `order`. "
                f"Received: {self.values!r}"
            )

    def parts(self, profile: str) -> tuple[Part, ...]:
        """The runs of the sweep in a profile: first the models as in all other sweeps, then a part for each value."""
        share = self.percent.get(profile, 100)
        seeds = "--seed", ",".join(map(str, self.seeds))
        usual = (*seeds, *_steps(share))
        parts = [Part(self.experiment, self.models, usual)]
        for value in self.values:
            if self.factor == STEPS:
                options = (*seeds, *_steps(share * value / 100))
            elif self.factor in _OPTIONS:
                options = (*usual, *_OPTIONS[self.factor](self, value))
            else:
                options = (*usual, "--set", f"{self.factor}={value}")
            parts.append(Part(self.experiment, self.models, options))
        return tuple(parts)

    def __str__(self) -> str:
        values = ", ".join(f"{value:g}" for value in self.values)
        text = f"{self.experiment.name} {','.join(self.models)}: {self.factor} {values}"
        if self.factor == STEPS:
            text += " (percent of the other sweeps' steps)"
        if self.order:
            text += f" (restricted one after the other: {', '.join(map(str, self.order))})"
        return text


def _steps(percent: float) -> tuple[str, ...]:
    return () if percent == 100 else ("--steps", f"{percent:g}%")


def _free_classes(sweep: Sweep, value: float) -> tuple[str, ...]:
    restricted = sweep.order[: len(sweep.order) - int(value)]
    return ("--also-restricted", ",".join(map(str, restricted))) if restricted else ()


def _half_width(sweep: Sweep, value: float) -> tuple[str, ...]:
    return (f"--shown={-value or 0:g}..{value:g}",)


# Factor -> the command-line options of one of its values.
_OPTIONS: Mapping[str, Callable[[Sweep, float], tuple[str, ...]]] = {
    FREE_CLASSES: _free_classes,
    HALF_WIDTH: _half_width,
    STEPS: lambda sweep, value: (),
}


def _numbers(model: Any) -> dict[str, float]:
    """The numeric arguments of a model's builder."""
    if not dataclasses.is_dataclass(model):
        return {}
    return _numeric({each.name: getattr(model, each.name) for each in dataclasses.fields(model)})


def _numeric(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: value for key, value in values.items() if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


# In config.json of a run that belongs to a sweep: {"suite": its name, "varied": the factor, or None}.
RECORD = "sweep"


def record(suite: str, factor: str | None) -> dict[str, Any]:
    """What config.json says of a run in a sweep; ``factor``: None for the setting of all other sweeps."""
    return {RECORD: {"suite": suite, "varied": factor}}


def varied(config: Mapping) -> str | None:
    """The factor that a run varies, from its config.json or `record`; None if it varies none."""
    return config.get(RECORD, {}).get("varied")


def only_for_curves(run: Run) -> bool:
    """Whether a run was made for a sweep and is not a model of the experiment as it is."""
    return RECORD in run.config and variations.is_changed(run.metrics["model"])


def contributes(run: Run) -> bool:
    """Whether a run may be a point of a curve: one of a sweep, or a model as it is."""
    return RECORD in run.config or not variations.is_changed(run.metrics["model"])


def settings(run: Run) -> tuple[dict[str, float], str]:
    """What a run's configuration says that sweeps vary, as numbers, and all the rest, as text.

    Raises:
        UserError: if its curves, which tell its classes, are not readable.
    """
    config, task = run.config, run.task
    budget, arguments = ({**(config.get(key) or {})} for key in ("budget", "model_arguments"))
    classes = {row["digit"] for row in run.curves()}
    free = [label for label in classes - {*task.restricted} if task.drawn.of(label) == task.ranges.default]
    found: dict[str, float] = {FREE_CLASSES: len(free)}
    shown = {task.drawn.of(label) for label in task.restricted}
    if len(shown) == 1 and len(pairs := shown.pop()) == 1:
        found[HALF_WIDTH] = (pairs[0][1] - pairs[0][0]) / 2
    if "steps" in budget:
        found[STEPS] = budget["steps"]
    # They are shortened together with the steps.
    budget = {key: value for key, value in budget.items() if key not in ("steps", "warmup_steps", "decay_steps")}
    numbers = _numeric(arguments)
    protocol = {key: value for key, value in config["protocol"].items() if key != "training"}
    fixed = {key: value for key, value in arguments.items() if key not in numbers}
    names = [run.metrics[key] for key in ("experiment", "dataset", "profile")]
    names.append(variations.base(run.metrics["model"]))
    rest = [names, protocol, budget, fixed, config.get("precision")]
    return {**numbers, **found}, json.dumps(rest, sort_keys=True)
