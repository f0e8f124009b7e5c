"""Run folders -> tables beside the published numbers. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import exp, inf
from statistics import median

from invariance import datasets, variations
from invariance.experiment import PROFILES, Band, Experiment, comparable
from invariance.progress import duration
from invariance.report.statistics import aggregate, least_p, permutation, pooled
from invariance.runs.find import UNKNOWN, Run
from invariance.sweeps import only_for_curves
from invariance.tasks.columns import ROUGH, Column, Number, log_odds
from invariance.wording import join, markdown_text, printable


@dataclass(frozen=True)
class Cell:
    """Our number, its uncertainty, and the published one. A number may be a pair: the lowest and highest of several.

    Attributes:
        ours: the mean over the seeds.
        uncertainty: of ours, as text.
        published: None if there is none; text if it is too rough to be compared with.
        values: (seed, value) of each run.
        band: where ours is expected to lie, if that was declared.
        finding: why it does not, see `Experiment.findings`.
    """

    ours: Number
    uncertainty: str
    published: Number
    values: tuple[tuple[int, Number], ...] = ()
    band: Band | None = None
    finding: object = ""

    @property
    def difference(self) -> float | None:
        """Ours minus published; None where either is missing or a pair."""
        if isinstance(self.ours, float) and isinstance(self.published, float):
            return self.ours - self.published
        return None

    @property
    def inside(self) -> bool | None:
        """Whether ours lies in its band; None where there is no band or nothing to compare."""
        return self._holds(self.ours)

    @property
    def outside(self) -> list[tuple[int, Number]]:
        """(seed, value) of each run that alone would lie outside the band."""
        return [(seed, value) for seed, value in self.values if self._holds(value) is False]

    def _holds(self, value: Number) -> bool | None:
        if self.band is None or not isinstance(value, float) or not isinstance(self.published, float):
            return None
        return self.band.holds(value, self.published)

    @property
    def single(self) -> list[float]:
        """The values of the runs; empty if they are pairs."""
        return [value for _, value in self.values if isinstance(value, (int, float))]


@dataclass(frozen=True)
class Row:
    """The runs of one model.

    Attributes:
        model: its name.
        seeds: of its runs.
        cells: column -> cell.
        trained: mean training time, such as "83 s, 2:10 min (1 core)".
        warnings: what makes its numbers mean less than they seem to.
        told: what it is told, see `experiment.Entry.told`.
        pooled: the same runs with orbit pooling, a row for each pooling. They are shown below it, and compared with
            nothing.
    """

    model: str
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]
    trained: str
    warnings: tuple[str, ...] = ()
    told: str = ""
    pooled: tuple[Row, ...] = ()

    @property
    def label(self) -> str:
        """The model's name and the warnings."""
        return " — ".join([self.model, *self.warnings])


@dataclass(frozen=True)
class Pair:
    """Two models with several seeds each.

    Attributes:
        models: their names.
        seeds: number of seeds of each.
        differences: column -> (mean of the second minus mean of the first, p of a two-sided permutation test,
            published difference or None).
    """

    models: tuple[str, str]
    seeds: tuple[int, int]
    differences: Mapping[str, tuple[float, float, float | None]]


@dataclass(frozen=True)
class Table:
    """The runs of one experiment on one dataset in one profile."""

    experiment: str
    dataset: str
    profile: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    @property
    def compared(self) -> bool:
        """Whether there is a published number to show."""
        return any(cell.published is not None for row in self.rows for cell in row.cells.values())

    @property
    def shown(self) -> list[Row]:
        """The rows, those with orbit pooling below those of the same model."""
        return [each for row in self.rows for each in (row, *row.pooled)]

    @property
    def differently_told(self) -> bool:
        """Whether its models are told different things."""
        return len({row.told for row in self.shown}) > 1

    def bands(self) -> list[str]:
        """How many numbers fall within their bands, and which do not; nothing for short profiles."""
        if not comparable(self.profile):
            return []
        judged = [
            (f"{row.label} {column.title}", column, cell)
            for row in self.rows
            for column, cell in _cells(self, row)
            if cell.inside is not None
        ]
        if not judged:
            return []
        medians = [
            f"{column.title} {column.signed(median(differences))}"
            for column in self.columns
            if (differences := [each for row in self.rows if (each := row.cells[column.key].difference) is not None])
        ]
        inside = sum(cell.inside is True for _, _, cell in judged)
        lines = [
            f"{inside} of {len(judged)} numbers fall within their expected band. Ours minus published, median over "
            f"models: {', '.join(medians)}."
        ]
        for name, column, cell in judged:
            if not cell.inside and cell.band and cell.difference is not None:
                lines.append(
                    f"Outside: {name} {column.form(cell.ours)}, published {column.form(cell.published)} "
                    f"({column.signed(cell.difference)}; expected {cell.band.text()}). "
                    f"{cell.finding or 'No finding yet.'}"
                )
        for name, column, cell in judged:
            if cell.inside and cell.outside:
                texts = ", ".join(f"{column.form(value)} (seed {seed})" for seed, value in cell.outside)
                lines.append(f"Inside only as a mean over seeds: {name}; outside alone: {texts}.")
        return lines

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs of models with at least two seeds each."""
        rows = [row for row in self.rows if len(row.seeds) > 1]
        return [_pair(self.columns, *two) for two in combinations(rows, 2)]

    def differences(self) -> tuple[list[str], list[list[str]]]:
        """The pairs as a table of text: its heads, and a row for each pair."""
        pairs, labels = self.pairs, {row.model: row.label for row in self.rows}
        columns = [column for column in self.columns if any(column.key in pair.differences for pair in pairs)]
        rows = []
        for pair in pairs:
            least = least_p(*pair.seeds)
            first, second = (labels[model] for model in pair.models)
            texts = [f"{second} − {first} ({pair.seeds[1]}, {pair.seeds[0]}; p ≥ {least:.3f})"]
            for column in columns:
                difference, p, published = pair.differences.get(column.key, (None, None, None))
                text = "—" if difference is None else f"{column.signed(difference)} (p {p:.3f})"
                texts.append(text + ("" if published is None else f", published {column.signed(published)}"))
            rows.append(texts)
        return ["difference (seeds; smallest possible p)", *(column.title for column in columns)], rows

    def seed_variation(self) -> list[str]:
        """How far apart single-seed models must be to differ significantly; nothing if no model has several seeds.

        The variance between seeds is taken to be that of all models (pooled standard deviation, Student's t) on the
        column's logarithmic scale, so differences are factors. Models without finite logarithms (a share of 0) are
        omitted.
        """
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        # A model with other settings is not a model of its own.
        rows = [row for row in self.rows if not variations.is_changed(row.model)]
        for column in self.columns:
            groups = [values for values in scaled(self.rows, column).values() if len(values) > 1]
            if groups:
                deviation, least = pooled(groups)
                means = [sum(values) / len(values) for values in scaled(rows, column).values()]
                pairs = [abs(one - other) > least for one, other in combinations(means, 2)]
                texts = (
                    f"{column.title} {_factor(deviation):.3f}",
                    f"{column.title} {_factor(least):.2f} ({sum(pairs)} of {len(pairs)})",
                )
                over = f"{len(groups)} model{'s' * (len(groups) > 1)}, {sum(map(len, groups))} runs"
                what = "the odds P / (1 − P)" if column.scale is log_odds else "the numbers"
                found.setdefault((over, what), []).append(texts)
        lines = []
        for (over, what), pairs_of_texts in found.items():
            deviations, least_differences = (", ".join(each) for each in zip(*pairs_of_texts, strict=True))
            lines.append(
                f"Between seeds of one model (pooled: {over}), {what} vary by a factor of (standard deviation): "
                f"{deviations}. Single-seed models differ significantly (95 %) beyond these factors (in brackets: "
                f"pairs of models that do): {least_differences}."
            )
        return lines

    def beneath(self) -> list[str]:
        """The lines below the table, in every form of it."""
        return [*self.bands(), *self.seed_variation(), *self.legend()]

    def legend(self) -> list[str]:
        """What the mark of rough published numbers means, if there are any."""
        texts = [cell.published for row in self.rows for cell in row.cells.values() if isinstance(cell.published, str)]
        return [f"{ROUGH} read from published pictures: rough, and not compared with ours."] if texts else []

    def text(self) -> str:
        """For a terminal: each model has a line of our numbers, of the published ones, and of the uncertainty."""
        lines = [f"{self.experiment} · {self.dataset} · {self.profile}", *self.remarks, ""]
        width = max(len(row.model) for row in self.shown) + 2
        beside = 12 if self.compared else 0
        blank = " " * (width + beside)
        written = [
            [
                (column.form(cell.ours), column.form(cell.published), cell.uncertainty)
                for column, cell in _cells(self, row)
            ]
            for row in self.shown
        ]
        widths = [
            max(len(text) for texts in cells for text in (column.title, *texts)) + 2
            for column, cells in zip(self.columns, zip(*written, strict=True), strict=True)
        ]

        def line(texts):
            return "".join(f"{text:<{size}}" for text, size in zip(texts, widths, strict=True))

        lines.append(blank + line(column.title for column in self.columns) + "trained")
        for row, cells in zip(self.shown, written, strict=True):
            ours, published, uncertainty = (line(texts) for texts in zip(*cells, strict=True))
            first = f"{row.model:<{width}}" + (f"{'ours':<{beside}}" if beside else "")
            lines.append(first + ours + row.trained)
            if published.strip(" —"):
                lines.append(f"{'':{width}}{'published':<{beside}}{published}".rstrip())
            if uncertainty.strip():
                lines.append((blank + uncertainty).rstrip())
            told = [f"told {row.told}"] if self.differently_told else []
            lines += [f"{'':{width}}{text}" for text in (*row.warnings, *told)]
        beneath = self.beneath()
        lines += ["", *beneath] if beneath else []
        heads, rows = self.differences()
        for first, *texts in rows:
            lines.append(f"{first}: " + "; ".join(map(" ".join, zip(heads[1:], texts, strict=True))))
        return "\n".join(map(printable, lines))

    def markdown(self) -> str:
        """As Markdown: ours and published in neighbouring columns, the uncertainty after ours."""
        heads = ["model", *(["told"] if self.differently_told else []), "seeds"]
        for column in self.columns:
            heads += [f"{column.title} ours", "published"] if self.compared else [column.title]
        heads.append("trained")
        rows = []
        for row in self.shown:
            texts = [row.label, *([row.told] if self.differently_told else []), ", ".join(map(str, row.seeds))]
            for column, cell in _cells(self, row):
                texts.append(column.form(cell.ours) + (f" ({cell.uncertainty})" if cell.uncertainty else ""))
                if self.compared:
                    texts.append(column.form(cell.published))
            rows.append([*texts, row.trained])
        remarks = " ".join(self.remarks)
        parts = [markdown_text(f"**{self.experiment}, {self.dataset}, {self.profile}.** {remarks}")]
        parts.append(markdown_table(heads, rows))
        if beneath := self.beneath():
            parts.append("\n".join(f"* {markdown_text(line)}" for line in beneath))
        heads, rows = self.differences()
        if rows:
            parts += [PAIRS, markdown_table(heads, rows)]
        return "\n\n".join(parts) + "\n"


# The heading of the comparison of pairs of models.
PAIRS = (
    "Do models differ by more than their seeds do? p is that of a two-sided permutation test of the seeds (exact for "
    "up to seven of each), not corrected for the number of pairs; with few seeds it cannot be small, whatever the "
    "difference."
)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown, without a line break at its end."""
    lines = (f"| {' | '.join(map(markdown_text, texts))} |" for texts in (heads, *rows))
    return "\n".join([next(lines), "|---" * len(heads) + "|", *lines])


def _factor(logarithm: float) -> float:
    """The factor with this logarithm; infinity if it is too large for a number."""
    return exp(logarithm) if logarithm < 700 else inf


def _pair(columns: Iterable[Column], first: Row, second: Row) -> Pair:
    differences = {}
    for column in columns:
        cells = [row.cells[column.key] for row in (first, second)]
        one, other = (cell.single for cell in cells)
        if len(one) < 2 or len(other) < 2:
            continue
        published = [cell.published for cell in cells if isinstance(cell.published, float)]
        known = published[1] - published[0] if len(published) == 2 else None
        differences[column.key] = (*permutation(other, one), known)
    return Pair((first.model, second.model), (len(first.seeds), len(second.seeds)), differences)


def scaled(rows: Iterable[Row], column: Column) -> dict[str, list[float]]:
    """Model -> the numbers of its runs on the column's scale; models without finite logarithms are omitted."""
    found = {}
    for row in rows:
        if values := row.cells[column.key].single:
            with contextlib.suppress(ValueError, ZeroDivisionError):
                found[row.model] = [column.scale(value) for value in values]
    return found


def _cells(table: Table, row: Row) -> list[tuple[Column, Cell]]:
    return [(column, row.cells[column.key]) for column in table.columns]


def tables(runs: Iterable[Run], experiments: Mapping[str, Experiment]) -> list[Table]:
    """Gathers runs into one table for each experiment, dataset and profile, except those of sweeps.

    Args:
        runs: finished runs.
        experiments: name -> experiment, for published numbers, bands and the order of the models. Runs of other
            experiments are shown without them.
    """
    groups: dict[tuple, dict[str, list[Run]]] = {}
    for run in runs:
        if only_for_curves(run):
            continue
        key = run.metrics["experiment"], run.metrics["dataset"], run.metrics["profile"]
        groups.setdefault(key, {}).setdefault(run.metrics["model"], []).append(run)
    result = []
    order = {name: number for number, name in enumerate(PROFILES)}
    for key in sorted(groups, key=lambda key: (*key[:2], order.get(key[2], len(order)))):
        experiment = experiments.get(key[0])
        known = list(experiment.models) if experiment else []
        published = experiment.published if experiment and experiment.published_on == key[1] else {}
        models = sorted(groups[key], key=lambda name: (known.index(name) if name in known else len(known), name))
        members = [run for model in models for run in groups[key][model]]
        columns = _columns(members, experiment)
        devices = Counter(run.provenance("device") for run in members)
        usual = devices.most_common(1)[0][0]
        rows = tuple(
            _row(
                model,
                groups[key][model],
                _comparable(model, groups[key][model], experiment, published),
                columns,
                experiment,
                usual,
            )
            for model in models
        )
        result.append(Table(*key, columns, rows, tuple(_remarks(groups[key], key[1], experiment, usual))))
    return result


def _comparable(model: str, runs: list[Run], experiment: Experiment | None, published: Mapping) -> Mapping:
    """A model's published numbers, if its runs measured the same classes and ranges."""
    model = variations.without_precision(model)
    if experiment is None or model not in published:
        return {}
    task = json.loads(json.dumps(experiment.task_of(model).to_json()))
    return published[model] if all(run.config["protocol"] == task for run in runs) else {}


def _columns(runs: list[Run], experiment: Experiment | None) -> tuple[Column, ...]:
    """The columns of a table, without those that none of its runs has."""
    task = runs[0].task
    labels = common_restricted(runs)
    if not labels and experiment:
        labels = experiment.task.restricted
    return tuple(
        column
        for column in task.columns(labels)
        if any(column.key in run.metrics or column.read(run.metrics) is not None for run in runs)
    )


def common_restricted(runs: Iterable[Run]) -> tuple[int, ...]:
    """The restricted classes of an experiment's runs; if possible of those that did not change them."""
    runs = list(runs)
    kept = [run for run in runs if not variations.is_changed(run.metrics["model"], "restricted")] or runs
    return tuple(sorted({label for run in kept for label in run.task.restricted}))


def between_markers(page: str, text: str) -> str:
    """A page with ``text`` between the lines that begin with "<!-- results: begin" and "<!-- results: end".

    Raises:
        ValueError: if it lacks these lines, in this order.
    """
    parts = re.fullmatch(r"(.*?^<!-- results: begin[^\n]*\n).*?(^<!-- results: end.*)", page, re.DOTALL | re.MULTILINE)
    if not parts:
        raise ValueError('the lines "<!-- results: begin" and "<!-- results: end" are needed, in this order')
    return f"{parts[1]}{text.rstrip()}\n{parts[2]}"


def _row(
    model: str,
    runs: list[Run],
    published: Mapping,
    columns: tuple[Column, ...],
    experiment: Experiment | None,
    usual: str,
) -> Row:
    # In JSON, class labels are text.
    published = json.loads(json.dumps(published))
    bands = experiment.bands if experiment else {}
    findings = experiment.findings.get(model, {}) if experiment else {}
    cells = {}
    for column in columns:
        band = bands.get(column.key) or bands.get(column.key.rsplit("_", 1)[0])
        empty = Cell(None, "", column.read(published), (), band, findings.get(column.key, ""))
        cells[column.key] = _filled(empty, column, runs)
    seeds = tuple(sorted(run.metrics["seed"] for run in runs))
    entry = experiment.models.get(variations.base(model)) if experiment else None
    told = variations.told(model, entry, runs[0].task)
    pooled = tuple(_pooled(model, told, runs, columns))
    return Row(model, seeds, cells, _trained(runs, usual), warnings_of(runs), told, pooled)


def _pooled(model: str, told: str, runs: Iterable[Run], columns: tuple[Column, ...]) -> Iterator[Row]:
    """A row for each way in which a model's scores were pooled over copies of the test images."""
    measured = [(run, run.orbit) for run in runs if run.orbit]
    for name in dict.fromkeys(name for _, orbit in measured for name in orbit["pooled"]):
        own = [(run, orbit) for run, orbit in measured if name in orbit["pooled"]]
        seeds = [run.metrics["seed"] for run, _ in own]
        some = [
            replace(run, metrics={**orbit["pooled"][name], "seed": seed})
            for (run, orbit), seed in zip(own, seeds, strict=True)
        ]
        cells = {column.key: _filled(Cell(None, "", None), column, some) for column in columns}
        also = f"{own[0][1]['told']}; in training {told}"
        yield Row(f"{model} + orbit pooling ({name})", tuple(sorted(seeds)), cells, "—", told=also)


def _filled(cell: Cell, column: Column, runs: Iterable[Run]) -> Cell:
    """A cell with the numbers of some runs."""
    measured = [run for run in runs if column.read(run.metrics) is not None]
    cell = replace(cell, values=tuple(sorted((run.metrics["seed"], column.read(run.metrics)) for run in measured)))
    if pairs := [value for _, value in cell.values if isinstance(value, tuple)]:
        return replace(cell, ours=(min(low for low, _ in pairs), max(high for _, high in pairs)))
    if not measured:
        return cell
    ours, deviation = aggregate(cell.single)
    uncertainty = ""
    if deviation is not None:
        uncertainty = f"±{column.form(deviation)}, {len(measured)} seeds"
    elif interval := column.read(measured[0].metrics.get("interval") or {}):
        uncertainty = f"{column.form(interval[0])}–{column.form(interval[1])}"
    return replace(cell, ours=ours, uncertainty=uncertainty)


def warnings_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """What makes the numbers of a model's runs mean less than they seem to; of several runs with the seed."""
    runs = list(runs)
    return tuple(
        f"{warning} (seed {run.metrics['seed']})" if len(runs) > 1 else warning
        for run in runs
        for warning in run.task.warnings(run.metrics)
    )


def _trained(runs: Iterable[Run], usual: str) -> str:
    """Mean training time of a model's runs on each device; a device is named unless it is the usual one."""
    devices: dict[str, list[float]] = {}
    for run in runs:
        devices.setdefault(run.provenance("device"), []).append(run.metrics.get("train_seconds", 0.0))
    cores = {
        device: " then ".join(part.rpartition(", ")[2] for part in device.split(" then "))
        for device in {*devices, usual}
    }
    # The number of cores is enough of a name unless two processors have the same number.
    names = cores if len(set(cores.values())) == len(cores) else {device: device for device in cores}
    return ", ".join(
        duration(aggregate(seconds)[0]) + ("" if device == usual else f" ({names[device]})")
        for device, seconds in sorted(devices.items(), key=lambda item: item[0] != usual)
    )


def _remarks(
    models: Mapping[str, list[Run]], dataset: str, experiment: Experiment | None, device: str
) -> Iterator[str]:
    some = next(iter(models.values()))[0]
    yield from some.task.remarks(some.metrics)
    if copies := sorted({run.orbit["copies"] for runs in models.values() for run in runs if run.orbit}):
        say = some.task.transformation.describe(some.task.ranges.default)
        yield (
            f"Orbit pooling: at test time the network sees {join(map(str, copies), 'or')} copies of each transformed "
            f"image, moved by the true {some.task.transformation.name} ({say}), and their largest or mean scores are "
            "taken; one random parameter for each image and number."
        )
    # A note holds for other settings, too, unless the classes were changed, which it may be about.
    names = [variations.base(model) for model in models if not variations.is_changed(model, "restricted", "excluded")]
    for model in dict.fromkeys(names):
        entry = experiment.models.get(model) if experiment else None
        if entry and entry.note:
            yield f"{model}: {entry.note}."
    if device != UNKNOWN:
        yield f"Trained on {device} unless another device is named."
    if caveat := datasets.caveat(dataset):
        yield caveat
