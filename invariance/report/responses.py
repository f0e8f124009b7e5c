"""Curves of runs that differ in one setting: what is measured (response) against what was varied (dose)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from invariance import sweeps, variations
from invariance.errors import UserError
from invariance.files import write_csv
from invariance.report.statistics import aggregate, interval
from invariance.runs.find import Run
from invariance.tasks.columns import Response
from invariance.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The axes of the settings that are not a model's own arguments.
_AXES = {
    sweeps.FREE_CLASSES: "classes shown in the whole range",
    sweeps.HALF_WIDTH: "half-width of the restricted range",
    sweeps.STEPS: "steps of training",
}


@dataclass(frozen=True)
class Point:
    """The runs of a model with one dose.

    Attributes:
        dose: the value of the setting.
        values: (seed, response) of each run, by seed.
        usual: whether the dose is that of the other curves.
    """

    dose: float
    values: tuple[tuple[int, float], ...]
    usual: bool = False

    @property
    def interval(self) -> tuple[float, float | None]:
        """The mean over the seeds, and half its 95 % interval by Student's t; None for a single seed."""
        return interval([value for _, value in self.values])


@dataclass(frozen=True)
class Curve:
    """A response of one model against one setting, all others being equal.

    Attributes:
        experiment, dataset, profile, model: whose runs these are.
        steps: of training; None if they are what was varied.
        factor: the setting.
        axis: the setting in words.
        response: what is measured.
        points: by ascending dose, at least two.
        level: what the response is compared with, the mean over the runs; None without.
    """

    experiment: str
    dataset: str
    profile: str
    model: str
    steps: float | None
    factor: str
    axis: str
    response: Response
    points: tuple[Point, ...]
    level: float | None

    @property
    def label(self) -> str:
        """The model, and how long it was trained if that is the same for all points."""
        return self.model if self.steps is None else f"{self.model} ({self.steps:,g} steps)"

    @property
    def usual(self) -> str:
        """What the usual dose is, in words."""
        return "as in the other curves" if self.factor == sweeps.STEPS else "published setting"

    @property
    def logarithmic(self) -> bool:
        """Whether the doses span so much that their axis is better logarithmic."""
        return self.points[0].dose > 0 and self.points[-1].dose >= 16 * self.points[0].dose


def curves(runs: Iterable[Run]) -> list[Curve]:
    """The curves in some runs: of each setting that a sweep varied, among runs that agree in all others."""
    groups: dict[str, list[tuple[dict[str, float], Run]]] = {}
    runs = list(filter(sweeps.contributes, runs))
    swept_models = {_model(run) for run in runs if sweeps.varied(run.config)}
    for run in runs:
        if _model(run) not in swept_models:
            continue
        try:
            found, rest = sweeps.settings(run)
        except UserError:  # no readable curves
            continue
        groups.setdefault(rest, []).append((found, run))
    made: list[Curve] = []
    for members in groups.values():
        for factor in dict.fromkeys(filter(None, (sweeps.varied(run.config) for _, run in members))):
            alike: dict[tuple, list[tuple[float, Run]]] = {}
            for found, run in members:
                others = tuple(sorted((key, value) for key, value in found.items() if key != factor))
                if factor in found:
                    alike.setdefault(others, []).append((found[factor], run))
            for others, swept in alike.items():
                made += _curves(factor, swept, dict(others).get(sweeps.STEPS))
    order = {factor: number for number, factor in enumerate(_AXES)}

    def place(curve: Curve) -> tuple:
        return curve.experiment, curve.dataset, curve.profile, order.get(curve.factor, len(order)), curve.factor

    return sorted(made, key=place)


def _model(run: Run) -> tuple[str, str, str, str]:
    """Experiment, dataset, profile and model without its changes."""
    experiment, dataset, profile, model = (run.metrics[key] for key in ("experiment", "dataset", "profile", "model"))
    return experiment, dataset, profile, variations.base(model)


def _curves(factor: str, swept: Sequence[tuple[float, Run]], steps: float | None) -> Iterator[Curve]:
    """A curve for each response of runs that differ in one setting, if they do."""
    some = swept[0][1]
    usual = {dose for dose, run in swept if sweeps.varied(run.config) is None}
    for response in some.task.responses():
        values: dict[float, dict[int, float]] = {}
        levels = []
        for dose, run in swept:
            if (value := response.read(run.metrics)) is not None:
                values.setdefault(dose, {})[run.metrics["seed"]] = value
                levels.append(response.level(run.metrics))
        known = [level for level in levels if level is not None]
        points = tuple(Point(dose, tuple(sorted(values[dose].items())), dose in usual) for dose in sorted(values))
        if len(points) > 1:
            axis = _AXES.get(factor, factor.replace("_", " "))
            if factor == sweeps.HALF_WIDTH:
                axis += f", {some.task.transformation.unit}"
            level = aggregate(known)[0] if known else None
            yield Curve(*_model(some), steps, factor, axis, response, points, level)


HEADS = ("factor", "dose", "model", "response", "mean", "95 % ±", "seeds")


def rows(made: Iterable[Curve]) -> list[dict]:
    """The points of some curves as rows of a table of numbers."""
    return [
        {
            "experiment": curve.experiment,
            "factor": curve.factor,
            "dose": point.dose,
            "usual": int(point.usual),
            "model": curve.model,
            "steps": "" if curve.steps is None else curve.steps,
            "response": curve.response.key,
            "mean": mean,
            "half_interval": "" if half is None else half,
            "seeds": len(point.values),
            "values": " ".join(f"{seed}:{value!r}" for seed, value in point.values),
        }
        for curve in made
        for point in curve.points
        for mean, half in [point.interval]
    ]


def texts(made: Iterable[Curve]) -> list[tuple[str, ...]]:
    """The points of some curves as rows of text below `HEADS`. A star marks the dose of the other curves."""
    return [
        (
            curve.factor,
            f"{point.dose:g}{'*' if point.usual else ''}",
            curve.label,
            curve.response.key,
            f"{mean:.4f}",
            "—" if half is None else f"{half:.4f}",
            ", ".join(str(seed) for seed, _ in point.values),
        )
        for curve in made
        for point in curve.points
        for mean, half in [point.interval]
    ]


def text(made: Sequence[Curve]) -> list[str]:
    """A line for each curve: its doses and means, with half their 95 % intervals."""
    lines = []
    for curve in made:
        points = []
        for point in curve.points:
            mean, half = point.interval
            spread = "" if half is None else f" ±{half:.3f}"
            points.append(f"{point.dose:g}{'*' if point.usual else ''}: {mean:.3f}{spread}")
        level = "" if curve.level is None else f" ({curve.response.level_title} {curve.level:.3f})"
        head = f"{curve.experiment} {curve.label}, {curve.response.key}{level} by {curve.factor}"
        lines.append(printable(f"{head}: {'; '.join(points)}"))
    return lines


def pictures(made: Sequence[Curve]) -> Iterator[tuple[str, Figure]]:
    """(name of the file, figure) for each setting, of the curves of one experiment, dataset and profile."""
    from invariance import figures

    for factor in dict.fromkeys(curve.factor for curve in made):
        own = [curve for curve in made if curve.factor == factor]
        seeds = {len(point.values) for curve in own for point in curve.points}
        many = str(max(seeds)) if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
        bars = "; bars: 95 % intervals over seeds (Student's t)" if max(seeds) > 1 else ""
        title = f"{own[0].experiment} on {own[0].dataset}, {own[0].profile}: {many} seed{'s' * (max(seeds) > 1)}{bars}"
        yield f"dose_{factor}.png", figures.responses(own, title)


def save(made: Sequence[Curve], folder: Path) -> None:
    """Writes the figures, and points.csv, into a folder.

    Raises:
        RunError: if a file cannot be written.
    """
    from invariance.figures import Picture

    write_csv(folder / "points.csv", rows(made))
    for name, figure in pictures(made):
        Picture(name, figure).save(folder)
