"""Changes to an experiment's models, and names that record them.

A model with changed settings is stored as NAME+SETTING=VALUE+...: tables average over runs of the same name, and
compare a name with the published model of that name only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from invariance.errors import UserError
from invariance.experiment import Entry
from invariance.ranges import Intervals, Ranges, complement, length
from invariance.tasks import Task

_MARK = "+"

# Controls: other data for the same measurement. Name -> what a model is told, or not told, by them.
UNRESTRICTED, ALL_RESTRICTED = "unrestricted", "all_restricted"
CONTROLS = {
    UNRESTRICTED: "and the missing drawings of the restricted classes",
    ALL_RESTRICTED: "without the free classes outside the restricted range",
}


@dataclass(frozen=True)
class Variant:
    """A model as it will be run.

    Args:
        name: name of the model, with every change.
        entry: its builder and budgets.
        task: what it is trained on and measured at.
    """

    name: str
    entry: Entry
    task: Task

    def named(self, suffix: str, **changes: Any) -> Variant:
        """The same variant with some fields changed, and with the change appended to its name."""
        return replace(self, name=f"{self.name}{_MARK}{suffix}", **changes)

    def with_arguments(self, values: Mapping[str, Any]) -> Variant:
        """With other arguments of the model, in every profile.

        Args:
            values: names from `arguments` -> values.

        Raises:
            UserError: if the model refuses a value.
        """

        def changed(model: Any) -> Any:
            return replace(model, **values)

        try:
            variants = {profile: changed(model) for profile, model in self.entry.variants.items()}
            entry = replace(self.entry, model=changed(self.entry.model), variants=variants)
        except (TypeError, ValueError) as error:  # the former of a text or nothing in the place of a number
            raise UserError(f"--set: {error}") from error
        return self.named(_MARK.join(f"{key}={value}" for key, value in values.items()), entry=entry)

    def arguments(self) -> dict[str, Any]:
        """The model's arguments that can be changed (numbers, strings and None), with their values."""
        model: Any = self.entry.model
        if not dataclasses.is_dataclass(model):
            return {}
        values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        return {key: value for key, value in values.items() if isinstance(value, (int, float, str, type(None)))}

    def with_steps(self, profile: str, steps: int) -> Variant:
        """Trained for another number of steps.

        Raises:
            UserError: if that is no more than the warm-up of the learning rate.
        """
        warmup = self.entry.budgets[profile].warmup_steps
        if steps <= warmup:
            raise UserError(
                f"--steps: more than {warmup:,} steps are needed, during which the learning rate of {self.name} rises; "
                f"received {steps:,}"
            )
        return self.named(f"steps={steps}", entry=self.entry.with_budgets([profile], steps=steps))

    def with_share_of_steps(self, profile: str, percent: float) -> Variant:
        """Trained for a share of the profile's steps, with its schedule of the learning rate shortened alike.

        Raises:
            UserError: if too few steps remain.
        """
        if percent == 100:
            return self
        budget = self.entry.budgets[profile]

        def part(number: int, least: int) -> int:
            return max(least, round(number * percent / 100))

        steps = {"steps": part(budget.steps, 1), "warmup_steps": part(budget.warmup_steps, 0)}
        try:
            entry = self.entry.with_budgets([profile], **steps, decay_steps=part(budget.decay_steps, 1))
        except ValueError as error:
            raise UserError(
                f"--steps: {percent:g}% of {budget.steps:,} are too few for {self.name}: {error}"
            ) from error
        return self.named(f"steps={percent:g}%", entry=entry)

    def with_learning_rate(self, profile: str, rate: float) -> Variant:
        """With another learning rate and the same schedule."""
        return self.named(f"learning_rate={rate}", entry=self.entry.with_budgets([profile], learning_rate=rate))

    def with_grid(self, profile: str, spacing: float | None) -> Variant:
        """Measured on another grid, under the same name: the model does not change."""
        return replace(self, entry=self.entry.with_budgets([profile], grid_spacing=spacing))

    def corrected(self) -> Variant | None:
        """Without the original program's errors; None if this model has none of them."""
        model = _corrected(self.entry.model)
        if model is None:
            return None
        variants = {profile: _corrected(each) or each for profile, each in self.entry.variants.items()}
        return replace(self, name=f"{self.name}_corrected", entry=replace(self.entry, model=model, variants=variants))

    def with_classes(self, restricted: tuple[int, ...] | None, excluded: tuple[int, ...] | None) -> Variant:
        """With other restricted or excluded classes. The restricted range stays.

        Args:
            restricted, excluded: labels; None to leave them as they are.

        Raises:
            UserError: if the task has no single range for restricted classes, or refuses these classes.
        """
        changes: dict[str, Any] = {}
        suffixes = []
        if restricted is not None:
            shown = self._restricted_range("--restricted") if restricted else ()
            changes["ranges"] = Ranges(self.task.ranges.default, dict.fromkeys(restricted, shown))
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

    def _restricted_range(self, option: str) -> Intervals:
        """The range in which restricted classes are trained; raises UserError, naming the option, without one."""
        own = set(self.task.ranges.restricted.values())
        if len(own) == 1:
            return own.pop()
        # Without restricted classes, the range that counts as in range, if it is a proper part of the training range.
        inside, whole, period = self.task.inside, self.task.ranges.default, self.task.transformation.period
        excess, rest = length(complement(inside, whole, period)), length(complement(whole, inside, period))
        if own or not length(inside) or excess or not rest:
            number = "several ranges" if own else "no range"
            raise UserError(f"{option}: {self.name} has {number} for restricted classes")
        return inside

    def with_control(self, control: str) -> Variant:
        """Trained on other drawings, and measured as before.

        Args:
            control: `UNRESTRICTED`: the restricted classes are shown in the free classes' range, too; or
                `ALL_RESTRICTED`: all classes are shown in the restricted range only.

        Raises:
            UserError: if the task has no restricted classes, or no range for them.
        """
        if not self.task.restricted:
            raise UserError(f"--control: {self.name} has no restricted classes")
        shown = self.task.ranges.default if control == UNRESTRICTED else self._restricted_range("--control")
        return self.named(control, task=replace(self.task, training=Ranges(shown)))

    def with_shown(self, shown: Intervals | None, also: tuple[int, ...] = ()) -> Variant:
        """Trained on more or fewer drawings, and measured as before: same classes, same ranges.

        Args:
            shown: the range in which restricted classes are shown; None for their own.
            also: further classes that are shown in that range only. They are not measured as restricted ones.

        Raises:
            UserError: if the task has no restricted classes, or refuses these.
        """
        if shown is None and not also:
            return self
        option = "--shown" if shown else "--also-restricted"
        if not self.task.restricted:
            raise UserError(f"{option}: {self.name} has no restricted classes")
        if self.task.training:
            raise UserError(f"{option}: {self.name} has other training data already")
        if twice := sorted({*self.task.restricted, *self.task.excluded} & set(also)):
            raise UserError(f"--also-restricted: expected free classes of {self.name}; received {_listed(twice)}")
        pairs = shown or self._restricted_range(option)
        training = Ranges(self.task.ranges.default, dict.fromkeys((*self.task.restricted, *also), pairs))
        if training == self.task.ranges:
            return self
        suffixes = [f"also_restricted={_listed(also)}"] if also else []
        if shown:
            suffixes.append("shown=" + ",".join(f"{low:g}..{high:g}" for low, high in shown))
        try:
            return self.named(_MARK.join(suffixes), task=replace(self.task, training=training))
        except ValueError as error:
            raise UserError(f"{option}: {error}") from error

    def with_precision(self, precision: str) -> Variant:
        """Trained in another precision; float32 leaves the name as it is."""
        return self if precision == "float32" else self.named(precision)


def _corrected(model: Callable[..., Any]) -> Callable[..., Any] | None:
    correct = getattr(model, "corrected", None)
    return correct() if correct else None


def _listed(labels: Iterable[int]) -> str:
    return ",".join(map(str, labels)) or "none"


def base(name: str) -> str:
    """The name without its changes."""
    return name.partition(_MARK)[0]


def is_changed(name: str, *settings: str) -> bool:
    """Whether a name records a change; of these settings only, if any are given."""
    return any(not settings or each.partition("=")[0] in settings for each in name.split(_MARK)[1:])


def is_as_declared(name: str) -> bool:
    """Whether a name records no change, except a control."""
    return set(name.split(_MARK)[1:]) <= set(CONTROLS)


def told(name: str, entry: Entry | None, task: Task) -> str:
    """What a model is told, see `Entry.told`, given its full name."""
    own = entry.told if entry and entry.told else task.told
    return " ".join([own, *(text for control, text in CONTROLS.items() if control in name.split(_MARK)[1:])])


def without_precision(name: str) -> str:
    """The name without the precision, which is not part of the experiment."""
    return name.removesuffix(f"{_MARK}bfloat16")
