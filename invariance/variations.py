"""Changes of an experiment's entries, and the names that say what was changed.

A model that runs with other settings is stored as NAME+SETTING=VALUE+...: reports average the runs of one name, and
compare only those that bear a published model's name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from invariance.errors import UserError
from invariance.experiment import Entry
from invariance.ranges import Ranges, complement, length
from invariance.tasks import Task

_MARK = "+"
CORRECTED = "_corrected"


@dataclass(frozen=True)
class Variant:
    """An entry as it will be run: with its name, its task, and what was changed.

    Args:
        name: of the model, with all that was changed.
        entry: builder and budgets.
        task: what it is trained on and measured at.
    """

    name: str
    entry: Entry
    task: Task

    def named(self, suffix: str, **changes: Any) -> Variant:
        """Another name, with ``suffix`` behind a mark, and other fields."""
        return replace(self, name=f"{self.name}{_MARK}{suffix}", **changes)

    def with_arguments(self, values: Mapping[str, Any]) -> Variant:
        """With other arguments of the model.

        Raises:
            UserError: if the model refuses one.
        """
        try:
            entry = replace(
                self.entry,
                model=replace(self.entry.model, **values),
                variants={key: replace(model, **values) for key, model in self.entry.variants.items()},
            )
        except ValueError as error:
            raise UserError(f"--set: {error}") from error
        return self.named(_MARK.join(f"{key}={value}" for key, value in values.items()), entry=entry)

    def arguments(self) -> dict[str, Any]:
        """The model's arguments that can be changed: numbers, texts and None."""
        model = self.entry.model
        if not dataclasses.is_dataclass(model):
            return {}
        values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        return {key: value for key, value in values.items() if isinstance(value, (int, float, str, type(None)))}

    def with_steps(self, profile: str, steps: int) -> Variant:
        """Trained for so many steps.

        Raises:
            UserError: if the learning rate would still be rising at the last step.
        """
        warmup = self.entry.budgets[profile].warmup_steps
        if steps <= warmup:
            raise UserError(
                f"--steps: the learning rate of {self.name} rises for {warmup:,} steps; more are needed; it is {steps:,}"
            )
        return self.named(f"steps={steps}", entry=self.entry.with_budgets([profile], steps=steps))

    def with_learning_rate(self, profile: str, rate: float) -> Variant:
        """With another learning rate; its schedule stays."""
        return self.named(f"learning_rate={rate}", entry=self.entry.with_budgets([profile], learning_rate=rate))

    def with_grid(self, profile: str, spacing: float | None) -> Variant:
        """Measured on another grid, under the same name."""
        return replace(self, entry=self.entry.with_budgets([profile], grid_spacing=spacing))

    def corrected(self) -> Variant | None:
        """Without the original's errors; None if the model has none."""
        model = _corrected(self.entry.model)
        if model is None:
            return None
        variants = {profile: _corrected(each) for profile, each in self.entry.variants.items()}
        return replace(self, name=self.name + CORRECTED, entry=replace(self.entry, model=model, variants=variants))

    def with_classes(self, restricted: tuple[int, ...] | None, excluded: tuple[int, ...] | None) -> Variant:
        """With other restricted or excluded classes; the range of the restricted ones stays.

        Raises:
            UserError: if the task has no range of its own for restricted classes, or refuses these.
        """
        changes: dict[str, Any] = {}
        suffixes = []
        if restricted is not None:
            ranges = self.task.ranges
            changes["ranges"] = Ranges(ranges.default, dict.fromkeys(restricted, self._restricted_range()))
            suffixes.append(f"restricted={_listed(restricted)}")
        if excluded is not None:
            changes["excluded"] = excluded
            suffixes.append(f"excluded={_listed(excluded)}")
        if not changes:
            return self
        try:
            return self.named(_MARK.join(suffixes), task=replace(self.task, **changes))
        except ValueError as error:
            raise UserError(str(error)) from error

    def _restricted_range(self) -> Any:
        """The range that restricted classes of this task are shown in."""
        own = set(self.task.ranges.restricted.values())
        if len(own) == 1:
            return own.pop()
        period = self.task.transformation.period
        beyond = complement(self.task.inside, self.task.ranges.default, period)
        if own or length(beyond) > 0 or not length(self.task.inside):
            what = "several ranges" if own else "no range"
            raise UserError(
                f"--restricted: {self.name} has {what} for restricted classes, so other classes cannot get it"
            )
        return self.task.inside

    def with_precision(self, precision: str) -> Variant:
        """Trained in another precision than float32."""
        return self if precision == "float32" else self.named(precision)


def _corrected(model: Callable) -> Callable | None:
    correct = getattr(model, "corrected", None)
    return correct() if correct else None


def _listed(labels: Iterable[int]) -> str:
    return ",".join(map(str, labels)) or "none"


def base(name: str) -> str:
    """The name of the model that was changed."""
    return name.partition(_MARK)[0]


def is_changed(name: str, *settings: str) -> bool:
    """Whether a model ran with other settings than declared; of some settings only, if they are named."""
    return any(not settings or each.partition("=")[0] in settings for each in name.split(_MARK)[1:])


def without_precision(name: str) -> str:
    """The name without the precision, which is no property of the experiment."""
    return name.removesuffix(f"{_MARK}bfloat16")
