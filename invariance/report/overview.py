"""Tables -> one table of all models, sorted by what they are told, and the answer in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from invariance import variations
from invariance.experiment import Experiment, comparable
from invariance.report import claims
from invariance.report.claims import Verdict
from invariance.report.statistics import aggregate
from invariance.report.table import Row, Table, markdown_table
from invariance.tasks.columns import FARTHEST, IN, OUT, percent
from invariance.tasks.recognition import Recognition
from invariance.wording import join

# The profile of tables that are not marked.
USUAL = "standard"
PLACES = (IN, OUT, FARTHEST)
HEADS = ("experiment", "model", "told", "seeds", *PLACES)
EXPLANATION = (
    "All models on their restricted classes, by what they are told: accuracy where they recognise, mean squared error "
    "(mean of the restricted classes) where they draw; standard deviation over seeds, if there are several."
)


def overview(tables: Sequence[Table]) -> list[tuple[str, ...]]:
    """A row of texts, as in `HEADS`, for each model that was trained for long enough to be compared.

    Models with other settings are left out, except controls.
    """
    found = []
    for table in tables:
        changes = [table.dataset] if table.dataset != tables[0].dataset else []
        where = ", ".join([table.experiment, *changes, *([table.profile] if table.profile != USUAL else [])])
        rows = [row for row in table.rows if variations.is_as_declared(row.model)] if comparable(table.profile) else []
        for row in (each for own in rows for each in (own, *own.pooled)):
            texts = [_text(table, row, place) for place in PLACES]
            if any(texts):
                found.append((where, row.label, row.told, ", ".join(map(str, row.seeds)), *texts))
    # K0 before K1 and so on; what an experiment's models are told by itself comes first.
    return sorted(found, key=lambda texts: texts[2])


def markdown(tables: Sequence[Table]) -> str:
    """The overview as Markdown, with its explanation; "" without any row."""
    rows = overview(tables)
    return f"{EXPLANATION}\n\n{markdown_table(HEADS, rows)}\n" if rows else ""


def results(tables: Sequence[Table], verdicts: Sequence[Verdict]) -> str:
    """Everything that a page says of its runs, as Markdown: the overview, each table, and the verdicts on claims."""
    return "\n".join([markdown(tables), *(table.markdown() for table in tables), claims.markdown(verdicts)])


def _text(table: Table, row: Row, place: str) -> str:
    columns = [column for column in table.columns if column.place == place]
    cells = [row.cells[column.key] for column in columns]
    values: dict[int, list[float]] = {}
    for cell in cells:
        for seed, value in cell.values:
            if isinstance(value, (int, float)):
                values.setdefault(seed, []).append(value)
    means = [sum(each) / len(each) for each in values.values() if len(each) == len(cells)]
    if not means:
        return ""
    mean, deviation = aggregate(means)
    form = columns[0].form
    return form(mean) + ("" if deviation is None else f" ±{form(deviation)}")


def answer(tables: Sequence[Table], experiments: Mapping[str, Experiment]) -> str:
    """How the restricted classes are recognised farthest out of range, in one sentence; "" without such runs.

    By the plain networks of an experiment and by those that learn how images move, of the first table that has both.
    """
    for table in tables:
        experiment = experiments.get(table.experiment)
        if experiment and comparable(table.profile) and isinstance(experiment.task, Recognition):
            learning = list(_farthest(table, experiment, learns=True))
            plain = [value for _, value in _farthest(table, experiment, learns=False)]
            if learning and plain:
                told = dict(sorted(learning))  # the best of each
                where = experiment.task.transformation.describe(experiment.task.farthest)
                return (
                    f"Shown {where}, {join(experiment.task.restricted)} are recognised in {percent(max(plain))} of "
                    f"all cases by the best of {len(plain)} plain networks, and in "
                    + join(f"{percent(value)} ({told})" for told, value in told.items())
                    + " by a network that first learnt from the other classes how images move."
                )
    return ""


def _farthest(table: Table, experiment: Experiment, learns: bool) -> Iterator[tuple[str, float]]:
    """What models are told, and their accuracy farthest out of range."""
    key = next((column.key for column in table.columns if column.place == FARTHEST), "")
    for row in table.rows if key else ():
        entry, value = experiment.models.get(row.model), row.cells[key].ours
        if entry is None or not isinstance(value, float) or hasattr(entry.model, "learner") != learns:
            continue
        if learns or row.told == experiment.task.told:
            yield row.told, value
