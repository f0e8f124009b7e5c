"""Run folders -> tables beside the published numbers. Imports no TensorFlow."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb, exp, log
from statistics import median

from invariance.progress import duration
from invariance.protocol import PROFILES, Band
from invariance.results import UNKNOWN, Run, aggregate

NAMES = {"p_test": "P_test", "p_in": "P_in", "p_out": "P_out", "p_inv": "P_inv"}


@dataclass(frozen=True)
class Column:
    """A number that a table shows: how it is called, read from metrics or published numbers, and written.

    On ``scale``, a logarithm of odds or of the number itself, trainings of small and of large numbers spread alike.
    """

    key: str
    title: str
    read: Callable[[Mapping], float | tuple[float, float] | None]
    form: Callable[[float | None], str]
    scale: Callable[[float], float] = log


@dataclass(frozen=True)
class Cell:
    """One number of ours, how sure it is, and the published one; pairs are the least and the largest of several."""

    ours: float | tuple[float, float] | None
    spread: str
    published: float | tuple[float, float] | None
    # (seed, value) of each run.
    values: tuple[tuple[int, float | tuple[float, float]], ...] = ()
    # Where ours is expected, if that was declared, and what was found out where it is not there.
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
    """One model: its runs' seeds, a cell a column, and the training time, such as "83 s, 2:10 min (1 core)"."""

    model: str
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]
    trained: str


@dataclass(frozen=True)
class Pair:
    """Two models that were trained several times each.

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
        """How many numbers lie where they were expected to, and each that does not; nothing for short profiles."""
        if self.profile not in PROFILES[PROFILES.index("standard") :]:
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
            f"{column.title} {signed(column, median(differences))}"
            for column in self.columns
            if (differences := [c.difference for c in self._cells_of(column) if c.difference is not None])
        ]
        lines = [
            f"Of {len(judged)} numbers with an expected band {len(judged) - len(outside)} lie inside. Ours minus the "
            f"published, median of the models: {', '.join(medians)}."
        ]
        for model, column, cell in outside:
            lines.append(
                f"Outside: {model} {column.title} {column.form(cell.ours)}, published {column.form(cell.published)} "
                f"({signed(column, cell.difference)}; expected {cell.band.text()})"
                + (f". {cell.finding}" if cell.finding else ". No finding yet.")
            )
        return lines

    def pairs(self) -> list[Pair]:
        """Every two models with two seeds or more, compared number by number."""
        rows = [row for row in self.rows if len(row.seeds) > 1]
        return [_pair(self.columns, *two) for two in combinations(rows, 2)]

    def differences(self) -> tuple[list[str], list[list[str]]]:
        """The pairs as a table of text: heads, and a row a pair."""
        pairs = self.pairs()
        columns = [column for column in self.columns if any(column.key in pair.differences for pair in pairs)]
        rows = []
        for pair in pairs:
            # The observed division of the runs and its mirror image are the most extreme there can be.
            least = 2 / comb(sum(pair.seeds), pair.seeds[0])
            texts = [f"{pair.models[1]} − {pair.models[0]} ({pair.seeds[1]}, {pair.seeds[0]}; p ≥ {least:.3f})"]
            for column in columns:
                difference, p, published = pair.differences.get(column.key, (None, None, None))
                text = "—" if difference is None else f"{signed(column, difference)} (p {p:.3f})"
                texts.append(text + ("" if published is None else f", published {signed(column, published)}"))
            rows.append(texts)
        return ["difference (seeds; least p that is possible)", *(column.title for column in columns)], rows

    def between_trainings(self) -> list[str]:
        """A line on how far apart two models trained once each must be; nothing where no model was trained twice.

        Trainings of one model are taken to spread alike for all models (pooled standard deviation, Student's t) on the
        column's logarithmic scale, so what is told are factors. Models with a number that it has not, a share of 0, are
        left out.
        """
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        # What ran with other settings is no model of its own.
        rows = [row for row in self.rows if "+" not in row.model]
        for column in self.columns:
            groups = scaled(self.rows, column)
            groups = [values for values in groups.values() if len(values) > 1]
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
            deviations, least = (", ".join(each) for each in zip(*texts, strict=True))
            lines.append(
                f"Between trainings of one model (pooled: {over}) {what} differ by a factor of (standard deviation): "
                f"{deviations}. Two models trained once each differ by more than chance (95 %) from these factors on "
                f"(and so many pairs of models do): {least}."
            )
        return lines

    def beneath(self) -> list[str]:
        """The lines that stand beneath the table, wherever it is shown."""
        return [*self.bands(), *self.between_trainings()]

    def text(self) -> str:
        """For a terminal: a line of ours, of what is published and of the spread for each model."""
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
        beneath = self.beneath()
        lines += ["", *beneath] if beneath else []
        heads, rows = self.differences()
        for first, *texts in rows:
            lines.append(f"{first}: " + "; ".join(map(" ".join, zip(heads[1:], texts, strict=True))))
        return "\n".join(lines)

    def markdown(self) -> str:
        """For a page: ours | published in neighbouring columns, the spread behind ours."""
        heads = ["model", "seeds"]
        for column in self.columns:
            heads += [f"{column.title} ours", "published"] if self.compared else [column.title]
        heads.append("trained")
        lines = [f"**{self.experiment}, {self.dataset}, {self.profile}.** {' '.join(self.remarks)}", ""]
        lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for row in self.rows:
            texts = [row.model, ", ".join(map(str, row.seeds))]
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


# What stands over the comparison of models.
PAIRS = (
    "Is a difference between models more than chance between trainings? p is that of a two-sided permutation test of "
    "the seeds (exact for up to seven of each), not corrected for the number of pairs; with few seeds it cannot be "
    "small, whatever the difference."
)


def signed(column: Column, difference: float) -> str:
    """A difference of two numbers of a column, with its sign."""
    return ("−" if difference < 0 else "+") + column.form(abs(difference))


def _pair(columns, first, second) -> Pair:
    import numpy as np
    from scipy.stats import permutation_test

    differences = {}
    for column in columns:
        cells = [row.cells[column.key] for row in (first, second)]
        values = [[value for _, value in cell.values] for cell in cells]
        if any(len(each) < 2 or isinstance(each[0], tuple) for each in values):
            continue
        test = permutation_test(
            values[::-1], lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis), vectorized=True, rng=0
        )
        published = [cell.published for cell in cells]
        known = all(isinstance(value, float) for value in published)
        differences[column.key] = (
            float(test.statistic),
            float(test.pvalue),
            published[1] - published[0] if known else None,
        )
    return Pair((first.model, second.model), (len(first.seeds), len(second.seeds)), differences)


def log_odds(share: float) -> float:
    """log P / (1 - P); raises ValueError or ZeroDivisionError for 0 and 1."""
    return log(share / (1 - share))


def scaled(rows: Iterable[Row], column: Column) -> dict[str, list[float]]:
    """Model -> the numbers of its runs on the column's scale; without models of which one is not on it."""
    found = {}
    for row in rows:
        values = [value for _, value in row.cells[column.key].values]
        if values and not isinstance(values[0], tuple):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                found[row.model] = [column.scale(value) for value in values]
    return found


def pooled(groups) -> tuple[float, float]:
    """The standard deviation within groups, and the least difference of one number each of two groups at 95 %."""
    import numpy as np
    from scipy.stats import t

    freedom = sum(map(len, groups)) - len(groups)
    deviation = np.sqrt(sum(np.var(values) * len(values) for values in groups) / freedom)
    return float(deviation), float(t.ppf(0.975, freedom) * np.sqrt(2) * deviation)


def _cells(table, row):
    return [(column, row.cells[column.key]) for column in table.columns]


def tables(runs: Iterable[Run], experiments: Mapping[str, object]) -> list[Table]:
    """Gathers runs into a table per experiment, dataset and profile.

    Args:
        runs: finished runs.
        experiments: name -> `protocol.Experiment`, for the published numbers and the order of the models; runs of
            experiments that are not there stand without published numbers.
    """
    groups: dict[tuple, dict[str, list[Run]]] = {}
    for run in runs:
        if not {"p_test", "ratio"} & run.metrics.keys():
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
        columns = _columns([run for model in models for run in groups[key][model]], experiment)
        devices = Counter(run.provenance("device") for model in models for run in groups[key][model])
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


def _comparable(model, runs, experiment, published) -> Mapping:
    """What is published of a model, if its runs measured just that: the same classes and ranges."""
    # Precision is no property of the experiment.
    model = model.removesuffix("+bfloat16")
    if model not in published:
        return {}
    protocol = json.loads(json.dumps((experiment.models[model].protocol or experiment.protocol).to_json()))
    return published[model] if all(run.config.get("protocol", protocol) == protocol for run in runs) else {}


def _columns(runs, experiment) -> tuple[Column, ...]:
    """What the table of an experiment shows."""
    if any("p_test" in run.metrics for run in runs):
        return tuple(
            Column(key, title, lambda values, key=key: values.get(key), share, log_odds) for key, title in NAMES.items()
        )
    digits = sorted({str(label) for run in unaltered(runs) for label in restricted(run)})
    if not digits and experiment:
        digits = [str(label) for label in experiment.protocol.restricted]
    columns = []
    for digit in digits:
        for key, title, form in (("mse_in", "in", share), ("mse_out", "out", share), ("ratio", "out/in", _ratio)):
            columns.append(
                Column(
                    f"{key}_{digit}",
                    f"{digit} {title}",
                    lambda values, key=key, digit=digit: (values.get(key) or {}).get(digit),
                    form,
                )
            )

    def others(values):
        if "ratio_others" in values:
            return tuple(values["ratio_others"])
        rest = [value for digit, value in (values.get("ratio") or {}).items() if digit not in digits]
        return (min(rest), max(rest)) if rest else None

    return (*columns, Column("ratio_others", "others out/in", others, _ratio))


def restricted(run: Run) -> tuple[int, ...]:
    """The restricted classes of a run."""
    ranges = (run.config.get("protocol") or {}).get("ranges") or {}
    return tuple(sorted(int(label) for label in ranges.get("restricted") or {}))


def unaltered(runs: Iterable[Run]) -> list[Run]:
    """The runs with their experiment's own restricted classes, or all, where there are none."""
    runs = list(runs)
    return [run for run in runs if "+restricted=" not in run.metrics["model"]] or runs


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


def _row(model, runs, published, columns, experiment, usual) -> Row:
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
    return Row(model, seeds, cells, _trained(runs, usual))


def _trained(runs, usual) -> str:
    """The mean training time of a model's runs, device by device; a device is named where it is not the usual one."""
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


def _remarks(models, dataset, experiment, device):
    some = next(iter(models.values()))[0]
    counts = some.metrics.get("images") or {}
    if counts.get("p_test"):
        text = f"Test images: {counts['p_test']:,} for P_test"
        text += f", {counts['p_in']:,} for the others" if counts.get("p_in") else ""
        chance = share(some.metrics.get("chance"))
        yield f"{text}; chance {chance}; 95 % intervals over images, at most."
    if "ratio" in some.metrics:
        number = sum(counts.values())
        yield (
            f"Mean squared errors of drawn images, pixels in [-1, 1], {number:,} test images: in and out of the range "
            "that restricted digits were shown in, and out/in."
        )
    # What runs with other settings is still what its note says, unless the settings are what the note is about.
    names = (model.partition("+") for model in models)
    for model in dict.fromkeys(name for name, _, settings in names if not re.search("restricted=|excluded=", settings)):
        entry = experiment.models.get(model) if experiment else None
        if entry and entry.note:
            yield f"{model}: {entry.note}."
    if device != UNKNOWN:
        yield f"Trained on {device}, where no other is named."
    if dataset == "digits":
        yield "THE EMBEDDED DIGITS, NOT MNIST: nothing here can be compared with published numbers."


def _ratio(value) -> str:
    """A ratio with two decimals, or two of them; a dash for none."""
    if isinstance(value, tuple):
        return "–".join(map(_ratio, value))
    return "—" if value is None else f"{value:.2f}"


def share(value) -> str:
    """A proportion with four decimals and no leading zero, a dash for none."""
    return "—" if value is None else f"{value:.4f}".removeprefix("0")
