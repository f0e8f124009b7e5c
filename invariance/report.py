"""Run folders -> tables beside the published numbers. Imports no TensorFlow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from invariance.progress import duration
from invariance.protocol import PROFILES
from invariance.results import Run, aggregate

NAMES = {"p_test": "P_test", "p_in": "P_in", "p_out": "P_out", "p_inv": "P_inv"}


@dataclass(frozen=True)
class Cell:
    """One number of ours, how sure it is, and the published one."""

    ours: float | None
    spread: str
    published: float | None


@dataclass(frozen=True)
class Row:
    """One model: its runs' seeds, a cell a metric, and the mean training time."""

    model: str
    seeds: tuple[int, ...]
    cells: Mapping[str, Cell]
    train_seconds: float


@dataclass(frozen=True)
class Table:
    """The runs of one experiment on one dataset in one profile."""

    experiment: str
    dataset: str
    profile: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    def text(self) -> str:
        """For a terminal: two lines a model, the second with the interval."""
        compared = any(cell.published is not None for row in self.rows for cell in row.cells.values())
        lines = [f"{self.experiment} · {self.dataset} · {self.profile}", *self.remarks, ""]
        width = max(len(row.model) for row in self.rows) + 2
        head = "".join(f"{name:<18}" for name in NAMES.values()) + "trained"
        lines.append(" " * width + head)
        if compared:
            lines.append(" " * width + f"{'ours  | published':<18}" * len(NAMES))
        for row in self.rows:
            first, second = f"{row.model:<{width}}", " " * width
            for metric in NAMES:
                cell = row.cells[metric]
                beside = f" | {_share(cell.published)}" if compared else ""
                first += f"{_share(cell.ours) + beside:<18}"
                second += f"{cell.spread:<18}"
            lines += [first + duration(row.train_seconds), second.rstrip()]
        return "\n".join(lines)

    def markdown(self) -> str:
        """For a page: ours | published in neighbouring columns, the interval under ours."""
        compared = any(cell.published is not None for row in self.rows for cell in row.cells.values())
        columns = ["model", "seeds"]
        for name in NAMES.values():
            columns += [f"{name} ours", "published"] if compared else [name]
        columns.append("trained")
        lines = [f"**{self.experiment}, {self.dataset}, {self.profile}.** {' '.join(self.remarks)}", ""]
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for row in self.rows:
            cells = [row.model, ", ".join(map(str, row.seeds))]
            for metric in NAMES:
                cell = row.cells[metric]
                cells.append(f"{_share(cell.ours)} ({cell.spread})" if cell.spread else _share(cell.ours))
                if compared:
                    cells.append(_share(cell.published))
            lines.append("| " + " | ".join([*cells, duration(row.train_seconds)]) + " |")
        return "\n".join(lines) + "\n"


def tables(runs: Iterable[Run], experiments: Mapping[str, object]) -> list[Table]:
    """Gathers runs into a table per experiment, dataset and profile.

    Args:
        runs: finished runs.
        experiments: name -> `protocol.Experiment`, for the published numbers and the order of the models; runs of
            experiments that are not there stand without published numbers.
    """
    groups: dict[tuple, dict[str, list[Run]]] = {}
    for run in runs:
        if "p_test" not in run.metrics:
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
        rows = tuple(_row(model, groups[key][model], published.get(model, {})) for model in models)
        result.append(Table(*key, rows, tuple(_remarks(groups[key], key[1]))))
    return result


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


def _row(model, runs, published) -> Row:
    cells = {}
    for metric in NAMES:
        values = [run.metrics[metric] for run in runs if run.metrics.get(metric) is not None]
        mean, deviation = aggregate(values) if values else (None, None)
        interval = (runs[0].metrics.get("interval") or {}).get(metric)
        if deviation is not None:
            spread = f"±{_share(deviation)}, {len(values)} seeds"
        elif interval and values:
            spread = f"{_share(interval[0])}–{_share(interval[1])}"
        else:
            spread = ""
        cells[metric] = Cell(mean, spread, published.get(metric))
    seeds = tuple(sorted(run.metrics["seed"] for run in runs))
    return Row(model, seeds, cells, aggregate([run.metrics.get("train_seconds", 0.0) for run in runs])[0])


def _remarks(models, dataset):
    some = next(iter(models.values()))[0]
    counts = some.metrics.get("images") or {}
    if counts.get("p_test"):
        text = f"Test images: {counts['p_test']:,} for P_test"
        text += f", {counts['p_in']:,} for the others" if counts.get("p_in") else ""
        yield f"{text}; chance {_share(some.metrics.get('chance'))}; under each number the 95 % interval over images."
    if dataset == "digits":
        yield "THE EMBEDDED DIGITS, NOT MNIST: nothing here can be compared with published numbers."


def _share(value) -> str:
    """A proportion with four decimals and no leading zero, a dash for none."""
    return "—" if value is None else f"{value:.4f}".removeprefix("0")
