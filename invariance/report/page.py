"""Runs, tables and verdicts -> one self-contained HTML page, and the same as Markdown. Imports no TensorFlow."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from invariance import datasets
from invariance.errors import UserError
from invariance.experiment import Experiment
from invariance.files import read_bytes
from invariance.progress import duration
from invariance.report import overview, responses
from invariance.report.claims import UNTESTED, Verdict
from invariance.report.responses import Curve
from invariance.report.table import PAIRS, Table, common_restricted, markdown_table, warnings_of
from invariance.runs.find import Run
from invariance.sweeps import only_for_curves
from invariance.wording import join, markdown_text, printable

TITLE = "Can deep networks learn invariants? Our runs beside the article's"
QUESTION = (
    "A network sees most digits at every angle, or at every position, but a few of them only within a narrow range. "
    "Does it recognise, or draw, those few outside that range? A. Potapov's article “Can Deep Networks Learn "
    "Invariants?” (2018) says no, for convolutional networks, two kinds of capsule networks, and autoencoders. This "
    "page repeats the measurements."
)


@dataclass(frozen=True)
class Page:
    """A report.

    Args:
        runs: finished runs.
        others: (folder, reason) of runs that are not shown.
        tables: of the runs.
        verdicts: on the claims.
        experiments: name -> experiment, for bands and deviations.
    """

    runs: Sequence[Run]
    others: Sequence[tuple[Path, str]]
    tables: Sequence[Table]
    verdicts: Sequence[Verdict]
    experiments: Mapping[str, Experiment]

    @property
    def _models(self) -> list[Run]:
        """The runs of models as they are, without the dozens that sweeps consist of."""
        return [run for run in self.runs if not only_for_curves(run)]

    def html(self) -> str:
        """The report as one HTML file."""
        told = overview.answer(self.tables, self.experiments)
        parts = [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(TITLE)}</title>\n<style>\n{_file('page.css')}</style>",
            f"<script>\n{_file('page.js')}</script>\n</head>\n<body>",
            f"<h1>{escape(TITLE)}</h1>",
            *([f"<p><b>{escape(told)}</b></p>"] if told else []),
            f"<p>{escape(QUESTION)}</p>",
            _protocol_picture(),
        ]
        caveats = dict.fromkeys(filter(None, (datasets.caveat(run.metrics["dataset"]) for run in self.runs)))
        parts += [f'<p class="warning">{escape(caveat)}</p>' for caveat in caveats]
        parts.append("<h2>The article's claims</h2>")
        parts += [_verdict(verdict) for verdict in self.verdicts] or ["<p>None declared.</p>"]
        if rows := overview.overview(self.tables):
            parts.append(f"<h2>All models</h2>\n<p>{escape(overview.EXPLANATION)}</p>")
            parts.append(_plain_table(overview.HEADS, rows))
        parts.append("<h2>Numbers</h2>")
        shown = [_table(table, self.experiments.get(table.experiment)) for table in self.tables]
        parts += shown or ["<p>No finished runs.</p>"]
        if made := responses.curves(self.runs):
            parts.append(f"<h2>{_DOSES}</h2>")
            parts += [_doses(own) for own in _by_folder(made)]
        if self._models:
            parts.append("<h2>Figures of all models</h2>")
            parts += _together(self._models)
            parts.append("<h2>Runs</h2>")
            parts += [_run(run) for run in self._models]
        parts.append("<h2>Differences from the original</h2>")
        parts += [_deviations(experiment) for experiment in self.experiments.values() if experiment.deviations]
        if self.others:
            parts.append("<h2>Folders not shown</h2>\n<ul>")
            parts += [
                f"<li><code>{escape(printable(path))}</code>: {escape(printable(reason))}</li>"
                for path, reason in self.others
            ]
            parts.append("</ul>")
        return "\n".join([*parts, "</body>\n</html>\n"])

    def markdown(self) -> str:
        """The report without figures, as Markdown."""
        told = overview.answer(self.tables, self.experiments)
        parts = [f"# {TITLE}\n", *([f"**{told}**\n"] if told else []), f"{QUESTION}\n", "## The article's claims\n"]
        for verdict in self.verdicts:
            parts.append(f"* **{verdict.claim.name}: {verdict.summary()}.** {verdict.claim.text}")
            parts += [f"  {line}" for line in verdict.reasons()]
        if all_models := overview.markdown(self.tables):
            parts += ["\n## All models\n", all_models]
        parts.append("\n## Numbers\n")
        parts += [table.markdown() for table in self.tables] or ["No finished runs.\n"]
        heads = ("run", "training", "images/s", "evaluation", "memory", "device", "commit")
        if made := responses.curves(self.runs):
            parts += [f"## {_DOSES}\n", f"{_DOSES_TEXT}\n"]
            for own in _by_folder(made):
                points = markdown_table(responses.HEADS, responses.texts(own))
                parts.append(f"**{markdown_text(_folder(own))}**\n\n{points}\n")
        facts = ((_name(run), *_facts(run)) for run in self._models)
        rows = [(name, *cost, device, commit) for name, cost, device, commit, _ in facts]
        parts += ["## Runs\n", markdown_table(heads, rows)]
        parts.append("\n## Differences from the original\n")
        for experiment in self.experiments.values():
            parts += [f"* {experiment.name}: {what}: {why}." for what, why in experiment.deviations]
        parts += ["\n" + markdown_text(f"Not shown: `{path}`: {reason}") for path, reason in self.others]
        return "\n".join(parts) + "\n"


def _file(name: str) -> str:
    return (files("invariance.report") / name).read_text(encoding="utf-8")


def _verdict(verdict: Verdict) -> str:
    kind = "untested" if verdict.verdict == UNTESTED else verdict.verdict
    lines = "<br>".join(_code(line) for line in verdict.reasons())
    return (
        f"<details><summary><b>{escape(verdict.claim.name)}</b> · <b class={kind}>{escape(verdict.summary())}</b> · "
        f"{escape(verdict.claim.text)}</summary><p>{lines}</p></details>"
    )


def _code(text: str) -> str:
    """Text as HTML, with the parts in backquotes as code."""
    return "".join(
        f"<code>{escape(part)}</code>" if number % 2 else escape(part) for number, part in enumerate(text.split("`"))
    )


def _table(table: Table, experiment: Experiment | None) -> str:
    bands = experiment.bands if experiment else {}
    head = "<th>model</th><th>seeds</th>"
    for column in table.columns:
        head += f"<th>{escape(column.title)}</th>" + ("<th>published</th>" if table.compared else "")
    rows = []
    for row in table.shown:
        told = f'<span class="small">{escape(row.told)}</span>' if table.differently_told else ""
        cells = f"<td>{escape(row.label)}{told}</td><td>{', '.join(map(str, row.seeds))}</td>"
        for column in table.columns:
            cell = row.cells[column.key]
            uncertainty = f'<span class="small">{escape(cell.uncertainty)}</span>' if cell.uncertainty else ""
            values = ""
            if len(cell.values) > 1:
                each = ", ".join(f"{seed}:\u00a0{column.form(value)}" for seed, value in cell.values)
                values = f'<span class="small values">{escape(each)}</span>'
            mark = ' class="outside" title="outside the expected band"' if cell.inside is False else ""
            cells += f"<td><span{mark}>{escape(column.form(cell.ours))}</span>{uncertainty}{values}</td>"
            if table.compared:
                apart = (
                    "" if cell.difference is None else f'<span class="small">{column.signed(cell.difference)}</span>'
                )
                cells += f"<td>{escape(column.form(cell.published))}{apart}</td>"
        rows.append(f"<tr>{cells}<td>{escape(row.trained)}</td></tr>")
    titles = {column.key: column.title for column in table.columns}
    expected = "; ".join(f"{titles.get(name, name)} {band.text()}" for name, band in bands.items())
    note = (
        f" Expected differences from the published numbers: {expected}; numbers outside are red. Below each "
        "published number: ours minus published."
        if table.compared and expected
        else ""
    )
    return (
        f"<h3>{escape(table.experiment)} · {escape(table.dataset)} · {escape(table.profile)}</h3>"
        f"<p>{escape(' '.join(table.remarks) + note)}</p><div class=wide><table><tr>{head}<th>trained</th></tr>"
        f"{''.join(rows)}</table></div>" + "".join(f"<p>{_code(line)}</p>" for line in table.beneath()) + _pairs(table)
    )


def _pairs(table: Table) -> str:
    heads, rows = table.differences()
    if not rows:
        return ""

    return f"<p>{escape(PAIRS)}</p>{_plain_table(heads, rows)}"


def _plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"

    return f"<div class=wide><table>{line('th', heads)}{''.join(line('td', texts) for texts in rows)}</table></div>"


def _name(run: Run) -> str:
    keys = ("experiment", "dataset", "profile", "model")
    name = "/".join(str(run.metrics[key]) for key in keys) + f"/seed-{run.metrics['seed']}"
    return " — ".join([name, *warnings_of([run])])


def _facts(run: Run) -> tuple[tuple[str, ...], str, str, list[str]]:
    """A run's cost (training, images/s, evaluation, memory), device, commit, and provenance, as text."""
    metrics, config = run.metrics, run.config

    def number(key, form):
        return form(metrics[key]) if key in metrics else "—"

    cost = (
        number("train_seconds", duration),
        number("train_images_per_second", lambda value: f"{value:,.0f}"),
        number("evaluate_seconds", duration),
        number("peak_memory_mb", lambda value: f"{value:,.0f} MB"),
    )
    versions = config.get("versions") or {}
    digests = config.get("data_sha256") or {}
    provenance = [f"{key} {value}" for key, value in versions.items()]
    provenance += [f"SHA-256 of {key} {value}" for key, value in digests.items()]
    return cost, run.provenance("device"), run.provenance("commit"), provenance


def _run(run: Run) -> str:
    cost, device, commit, provenance = _facts(run)
    named = zip(("training", "images/s", "evaluation", "memory"), cost, strict=True)
    lines = [
        "; ".join(f"{name} {value}" for name, value in named) + f"; on {device}",
        f"commit {commit}",
        "; ".join(provenance),
    ]
    pictures = [
        _stored(run.folder / name, caption) for name, caption in run.task.pictures().items() if run.folder.has(name)
    ]
    text = "<br>".join(escape(line) for line in lines)
    return f"<details><summary>{escape(_name(run))}</summary><p>{text}</p>{''.join(pictures)}</details>"


def _stored(path: Path, caption: str) -> str:
    """A figure of a run, or why it is not shown."""
    try:
        picture = read_bytes(path)
        _require_png(picture, path)
    except UserError as error:
        return _not_shown(error)
    return _figure(picture, caption)


def _require_png(picture: bytes, path: Path) -> None:
    """Raises UserError if a picture is no PNG, or one of its checksums is wrong."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as opened:
            opened.verify()
    except Exception as error:  # a damaged picture may raise anything
        raise UserError(f"{path}: not a PNG, or damaged") from error


def _not_shown(error: UserError) -> str:
    return f"<p>Not shown: {escape(printable(error))}</p>"


def _figure(picture: bytes, caption: str) -> str:
    """A PNG embedded in the page."""
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _together(runs: Sequence[Run]) -> Iterator[str]:
    """Figures of the curves of all models, one for each experiment, dataset and profile."""
    from invariance import figures

    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        key = tuple(run.metrics[name] for name in ("experiment", "dataset", "profile"))
        groups.setdefault(key, []).append(run)
    for (experiment, dataset, profile), members in groups.items():
        # A run without restricted classes is drawn for those of the others.
        common = common_restricted(members)
        curves: dict[str, list] = {}
        for run in members:
            try:
                curve = run.curve(run.task.restricted or common)
            except UserError as error:
                yield _not_shown(error)
                continue
            if curve:
                curves.setdefault(run.metrics["model"], []).append(curve)
        if not curves:
            continue
        task = members[0].task
        classes = (
            f"classes {join(common)}"
            if all(run.task.restricted in ((), common) for run in members)
            else "the restricted classes"
        )
        seeds = "; shaded: range over the seeds" if max(map(len, curves.values())) > 1 else ""
        caption = f"{experiment} on {dataset}, {profile}: {task.curve}, mean over {classes}{seeds}"
        yield _figure(figures.png(figures.curves_together(curves, task, caption), dpi=110), caption)


_DOSES = "Dose and response"
_DOSES_TEXT = (
    "How much must be shown before it transfers? One setting is varied at a time; what is measured, and where, stays "
    "the same. Means and 95 % intervals over seeds (Student's t); a star marks the setting that all other curves have."
)


def _by_folder(made: Sequence[Curve]) -> Iterator[list[Curve]]:
    """Curves of one experiment, dataset and profile at a time."""
    groups: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in made:
        groups.setdefault((curve.experiment, curve.dataset, curve.profile), []).append(curve)
    yield from groups.values()


def _folder(made: Sequence[Curve]) -> str:
    """What the curves have in common."""
    return " · ".join((made[0].experiment, made[0].dataset, made[0].profile))


def _doses(made: Sequence[Curve]) -> str:
    """The curves of one experiment, dataset and profile, and the table of their points, folded."""
    from invariance import figures

    axes = list(dict.fromkeys(curve.axis for curve in made))
    drawn = (figures.png(figure, dpi=110) for _, figure in responses.pictures(made))
    shown = "".join(_figure(picture, axis) for picture, axis in zip(drawn, axes, strict=True))
    lines = [("th", responses.HEADS), *(("td", texts) for texts in responses.texts(made))]
    table = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>" for tag, texts in lines
    )
    return (
        f"<details><summary>{escape(_folder(made))}: {escape(join(axes))}</summary>"
        f"<p>{escape(_DOSES_TEXT)}</p>{shown}<div class=wide><table>{table}</table></div></details>"
    )


def _deviations(experiment: Experiment) -> str:
    items = "".join(f"<li>{_code(what)}: {_code(why)}.</li>" for what, why in experiment.deviations)
    return f"<h3>{escape(experiment.name)}</h3><ul>{items}</ul>"


def _protocol_picture() -> str:
    """A drawing of the two ranges of training angles."""

    def circle(x, wedge, colour, text):
        shape = (
            f'<path d="M{x} 70 L{x - 35.4:.1f} 34.6 A50 50 0 0 1 {x + 35.4:.1f} 34.6 Z" fill="{colour}"/>'
            if wedge
            else f'<circle cx="{x}" cy="70" r="50" fill="{colour}"/>'
        )
        return (
            f'{shape}<circle cx="{x}" cy="70" r="50" fill="none" stroke="#555"/>'
            f'<text x="{x}" y="145" text-anchor="middle" font-size="14">{text}</text>'
        )

    return (
        '<figure><svg viewBox="0 0 520 160" width="520" style="max-width:100%" role="img" '
        'aria-label="Training ranges: all angles for most digits, 45 degrees to either side for the restricted ones">'
        + circle(90, False, "#cfe3f3", "most digits: every angle")
        + circle(390, True, "#fbd9a8", "restricted digits: ±45° only")
        + "</svg><figcaption>Training angles (shaded). All angles are measured. Shifts are restricted in the same way, "
        "to -5..4 of -20..19 pixels.</figcaption></figure>"
    )
