"""Run folders -> tables beside the published numbers. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import exp
from statistics import median

from invariance import datasets, variations
from invariance.experiment import PROFILES, Band, Experiment, comparable
from invariance.progress import duration
from invariance.report.statistics import aggregate, least_p, permutation, pooled
from invariance.runs.find import UNKNOWN, Run
from invariance.tasks.columns import Column, Number, log_odds


@dataclass(frozen=True)
class Cell:
    """One number of ours, its uncertainty, and the published one; pairs are the lowest and highest of several."""

    ours: Number
    spread: str
    published: Number
    # (seed, value) of each run.
    values: tuple[tuple[int, Number], ...] = ()
    # Where ours is expected to lie, if that was declared, and why it does not.
    band: Band | None = None
    finding: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the published one; None where either is missing or a pair."""
        if isinstance(self.ours, float) and isinstance(self.published, float):
            return self.ours - self.published
        return None

    @property
    def inside(self) -> bool | None:
        """Whether ours lies in its band; None where there is none or nothing to compare."""
        if self.band is None or self.difference is None:
            return None
        return self.band.holds(self.ours, self.published)


@dataclass(frozen=True)
class Row:
    """One model: its runs' seeds, a cell a column, and the training time, such as "83 s, 2:10 min (1 core)".

    Warnings say what makes its numbers mean less than they seem to.
    """

    model: str
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]
    trained: str
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The model's name with the warnings."""
        return " — ".join([self.model, *self.warnings])


@dataclass(frozen=True)
class Pair:
    """Two models with several runs each.

    Attributes:
        models: the two.
        seeds: how many runs each has.
        differences: column -> (mean of the second minus mean of the first, p of a two-sided permutation test
            of the runs, published difference or None).
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
        """Whether there is any published number to be shown."""
        return any(cell.published is not None for row in self.rows for cell in row.cells.values())

    def _cells_of(self, column):
        return [row.cells[column.key] for row in self.rows]

    def bands(self) -> list[str]:
        """How many numbers fall within their bands, and each that does not; nothing for short profiles."""
        if not comparable(self.profile):
            return []
        judged = [
            (row.model, column, row.cells[column.key])
            for row in self.rows
            for column in self.columns
            if row.cells[column.key].inside is not None
        ]
        if not judged:
            return []
        outside = [each for each in judged if not each[2].inside]
        medians = [
            f"{column.title} {column.signed(median(differences))}"
            for column in self.columns
            if (differences := [c.difference for c in self._cells_of(column) if c.difference is not None])
        ]
        lines = [
            f"{len(judged) - len(outside)} of {len(judged)} numbers fall within their expected band. Ours minus "
            f"published, median over models: {', '.join(medians)}."
        ]
        for model, column, cell in outside:
            lines.append(
                f"Outside: {model} {column.title} {column.form(cell.ours)}, published {column.form(cell.published)} "
                f"({column.signed(cell.difference)}; expected {cell.band.text()})"
                + (f". {cell.finding}" if cell.finding else ". No finding yet.")
            )
        return lines

    def pairs(self) -> list[Pair]:
        """Every two models with two seeds or more each, compared number by number."""
        rows = [row for row in self.rows if len(row.seeds) > 1]
        return [_pair(self.columns, *two) for two in combinations(rows, 2)]

    def differences(self) -> tuple[list[str], list[list[str]]]:
        """The pairs as a table of text: heads, and a row a pair."""
        pairs = self.pairs()
        columns = [column for column in self.columns if any(column.key in pair.differences for pair in pairs)]
        rows = []
        for pair in pairs:
            least = least_p(*pair.seeds)
            texts = [f"{pair.models[1]} − {pair.models[0]} ({pair.seeds[1]}, {pair.seeds[0]}; p ≥ {least:.3f})"]
            for column in columns:
                difference, p, published = pair.differences.get(column.key, (None, None, None))
                text = "—" if difference is None else f"{column.signed(difference)} (p {p:.3f})"
                texts.append(text + ("" if published is None else f", published {column.signed(published)}"))
            rows.append(texts)
        return ["difference (seeds; smallest possible p)", *(column.title for column in columns)], rows

    def seed_variation(self) -> list[str]:
        """How far apart single-seed models must be to differ significantly; nothing if no model has several seeds.

        Runs of one model are taken to vary alike for all models (pooled standard deviation, Student's t) on the column's
        logarithmic scale, which makes the differences factors. Models without finite logarithms (a share of 0) are
        omitted.
        """
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        # A changed model is no model of its own.
        rows = [row for row in self.rows if not variations.is_changed(row.model)]
        for column in self.columns:
            groups = [values for values in scaled(self.rows, column).values() if len(values) > 1]
            if groups:
                deviation, least = pooled(groups)
                means = [sum(values) / len(values) for values in scaled(rows, column).values()]
                pairs = [abs(one - other) > least for one, other in combinations(means, 2)]
                texts = (
                    f"{column.title} {exp(deviation):.3f}",
                    f"{column.title} {exp(least):.2f} ({sum(pairs)} of {len(pairs)})",
                )
                over = f"{len(groups)} model{'s' * (len(groups) > 1)}, {sum(map(len, groups))} runs"
                what = "the odds P / (1 − P)" if column.scale is log_odds else "the numbers"
                found.setdefault((over, what), []).append(texts)
        lines = []
        for (over, what), texts in found.items():
            deviations, least_differences = (", ".join(each) for each in zip(*texts, strict=True))
            lines.append(
                f"Between seeds of one model (pooled: {over}), {what} vary by a factor of (standard deviation): "
                f"{deviations}. Single-seed models differ significantly (95 %) beyond these factors (in brackets: pairs of "
                f"models that do): {least_differences}."
            )
        return lines

    def beneath(self) -> list[str]:
        """The lines below the table, wherever it is shown."""
        return [*self.bands(), *self.seed_variation()]

    def text(self) -> str:
        """For a terminal: for each model a line of our numbers, of the published ones, and of the uncertainty."""
        lines = [f"{self.experiment} · {self.dataset} · {self.profile}", *self.remarks, ""]
        width = max(len(row.model) for row in self.rows) + 2
        beside = 12 if self.compared else 0
        blank = " " * (width + beside)
        written = [
            [(column.form(cell.ours), column.form(cell.published), cell.spread) for column, cell in _cells(self, row)]
            for row in self.rows
        ]
        widths = [
            max(len(text) for texts in cells for text in (column.title, *texts)) + 2
            for column, cells in zip(self.columns, zip(*written, strict=True), strict=True)
        ]

        def line(texts):
            return "".join(f"{text:<{size}}" for text, size in zip(texts, widths, strict=True))

        lines.append(blank + line(column.title for column in self.columns) + "trained")
        for row, cells in zip(self.rows, written, strict=True):
            ours, published, spread = (line(texts) for texts in zip(*cells, strict=True))
            first = f"{row.model:<{width}}" + (f"{'ours':<{beside}}" if beside else "")
            lines.append(first + ours + row.trained)
            if published.strip(" —"):
                lines.append(f"{'':{width}}{'published':<{beside}}{published}".rstrip())
            if spread.strip():
                lines.append((blank + spread).rstrip())
            lines += [f"{'':{width}}{warning}" for warning in row.warnings]
        beneath = self.beneath()
        lines += ["", *beneath] if beneath else []
        heads, rows = self.differences()
        for first, *texts in rows:
            lines.append(f"{first}: " + "; ".join(map(" ".join, zip(heads[1:], texts, strict=True))))
        return "\n".join(lines)

    def markdown(self) -> str:
        """For a page: ours | published in neighbouring columns, the uncertainty behind ours."""
        heads = ["model", "seeds"]
        for column in self.columns:
            heads += [f"{column.title} ours", "published"] if self.compared else [column.title]
        heads.append("trained")
        lines = [f"**{self.experiment}, {self.dataset}, {self.profile}.** {' '.join(self.remarks)}", ""]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for row in self.rows:
            texts = [row.label, ", ".join(map(str, row.seeds))]
            for column, cell in _cells(self, row):
                texts.append(column.form(cell.ours) + (f" ({cell.spread})" if cell.spread else ""))
                if self.compared:
                    texts.append(column.form(cell.published))
            lines.append("| " + " | ".join([*texts, row.trained]) + " |")
        beneath = self.beneath()
        lines += ["", *(f"* {line}" for line in beneath)] if beneath else []
        heads, rows = self.differences()
        if rows:
            lines += ["", PAIRS, "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
            lines += ["| " + " | ".join(texts) + " |" for texts in rows]
        return "\n".join(lines) + "\n"


# The heading of the comparison of models.
PAIRS = (
    "Do models differ by more than their seeds do? p is that of a two-sided permutation test of the seeds (exact for up "
    "to seven of each), not corrected for the number of pairs; with few seeds it cannot be small, whatever the "
    "difference."
)


def _pair(columns: Iterable[Column], first: Row, second: Row) -> Pair:
    differences = {}
    for column in columns:
        cells = [row.cells[column.key] for row in (first, second)]
        values = [[value for _, value in cell.values] for cell in cells]
        if any(len(each) < 2 or isinstance(each[0], tuple) for each in values):
            continue
        published = [cell.published for cell in cells]
        known = all(isinstance(value, float) for value in published)
        differences[column.key] = (*permutation(*values[::-1]), published[1] - published[0] if known else None)
    return Pair((first.model, second.model), (len(first.seeds), len(second.seeds)), differences)


def scaled(rows: Iterable[Row], column: Column) -> dict[str, list[float]]:
    """Model -> the numbers of its runs on the column's scale; models with a number that is not on it are omitted."""
    found = {}
    for row in rows:
        values = [value for _, value in row.cells[column.key].values]
        if values and not isinstance(values[0], tuple):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                found[row.model] = [column.scale(value) for value in values]
    return found


def _cells(table, row):
    return [(column, row.cells[column.key]) for column in table.columns]


def tables(runs: Iterable[Run], experiments: Mapping[str, Experiment]) -> list[Table]:
    """Gathers runs into a table per experiment, dataset and profile.

    Args:
        runs: finished runs.
        experiments: name -> experiment, for the published numbers and the order of the models; runs of unknown
            experiments have no published numbers.
    """
    groups: dict[tuple, dict[str, list[Run]]] = {}
    for run in runs:
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
    """What is published of a model, if its runs measured just that: the same classes and ranges."""
    model = variations.without_precision(model)
    if experiment is None or model not in published:
        return {}
    task = json.loads(json.dumps(experiment.task_of(model).to_json()))
    return published[model] if all(run.config["protocol"] == task for run in runs) else {}


def _columns(runs: list[Run], experiment: Experiment | None) -> tuple[Column, ...]:
    """The columns of a table: those of which its runs have a number."""
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
    """The restricted classes of an experiment, from its runs: of those that kept them, if there are any."""
    runs = list(runs)
    kept = [run for run in runs if not variations.is_changed(run.metrics["model"], "restricted")] or runs
    return tuple(sorted({label for run in kept for label in run.task.restricted}))


def between_markers(page: str, text: str) -> str:
    """A page with ``text`` in place of what stands between the lines "<!-- results: begin" and "<!-- results: end".

    Raises:
        ValueError: if the two lines are not there, in this order.
    """
    lines = page.splitlines()
    marks = [
        next((i for i, line in enumerate(lines) if line.startswith(f"<!-- results: {mark}")), None)
        for mark in ("begin", "end")
    ]
    if None in marks or marks[0] > marks[1]:
        raise ValueError('the lines "<!-- results: begin" and "<!-- results: end" are needed, in this order')
    return "\n".join([*lines[: marks[0] + 1], text.rstrip("\n"), *lines[marks[1] :]]) + "\n"


def _row(
    model: str,
    runs: list[Run],
    published: Mapping,
    columns: tuple[Column, ...],
    experiment: Experiment | None,
    usual: str,
) -> Row:
    # Digits are text in JSON.
    published = json.loads(json.dumps(published))
    bands = experiment.bands if experiment else {}
    findings = experiment.findings.get(model, {}) if experiment else {}
    cells = {}
    for column in columns:
        each = [(run.metrics["seed"], column.read(run.metrics)) for run in runs]
        each = sorted((seed, value) for seed, value in each if value is not None)
        values = [value for _, value in each]
        spread = ""
        if values and isinstance(values[0], tuple):
            ours = min(low for low, _ in values), max(high for _, high in values)
        else:
            ours, deviation = aggregate(values) if values else (None, None)
            interval = column.read(runs[0].metrics.get("interval") or {})
            if deviation is not None:
                spread = f"±{column.form(deviation)}, {len(values)} seeds"
            elif interval and values:
                spread = f"{column.form(interval[0])}–{column.form(interval[1])}"
        band = bands.get(column.key) or bands.get(column.key.rsplit("_", 1)[0])
        finding = findings.get(column.key, "")
        cells[column.key] = Cell(ours, spread, column.read(published), tuple(each), band, finding)
    seeds = tuple(sorted(run.metrics["seed"] for run in runs))
    warnings = dict.fromkeys(
        f"{warning} (seed {run.metrics['seed']})" if len(runs) > 1 else warning
        for run in runs
        for warning in run.task.warnings(run.metrics)
    )
    return Row(model, seeds, cells, _trained(runs, usual), tuple(warnings))


def _trained(runs, usual) -> str:
    """The mean training time of a model's runs, device by device; a device is named if it is not the usual one."""
    devices: dict[str, list[float]] = {}
    for run in runs:
        devices.setdefault(run.provenance("device"), []).append(run.metrics.get("train_seconds", 0.0))
    cores = {
        device: " then ".join(part.rpartition(", ")[2] for part in device.split(" then "))
        for device in {*devices, usual}
    }
    # The number of cores says which, unless other processors have as many.
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
    # A note holds with other settings, too, unless it is about the classes and these were changed.
    names = [variations.base(model) for model in models if not variations.is_changed(model, "restricted", "excluded")]
    for model in dict.fromkeys(names):
        entry = experiment.models.get(model) if experiment else None
        if entry and entry.note:
            yield f"{model}: {entry.note}."
    if device != UNKNOWN:
        yield f"Trained on {device} unless another device is named."
    if caveat := datasets.caveat(dataset):
        yield caveat
