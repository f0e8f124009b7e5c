"""``python -m invariance``: report, list, evaluate, bench, notebooks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from invariance import output
from invariance.cli import arguments as check
from invariance.errors import UserError
from invariance.experiment import installed_experiments, installed_modules
from invariance.files import write_text
from invariance.runs.execute import PRECISIONS
from invariance.runs.find import REPEATED, UNFINISHED, Run, find, once, read
from invariance.runs.folder import RunFolder
from invariance.tasks.task import Evaluation
from invariance.wording import join, printable


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m invariance``; returns the exit code."""
    return check.guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int | None:
    arguments = _parser().parse_args(argv)
    return arguments.action(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = check.Parser(prog="python -m invariance", description="Reports on runs, lists them, evaluates them again.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    report = commands.add_parser("report", help="print our numbers beside the published ones")
    report.add("--html", check.file_to_write, metavar="FILE", help="also write one page with all tables and figures")
    report.add(
        "--markdown", check.file_to_write, metavar="FILE", help="also write the page as Markdown, without figures"
    )
    report.add_argument("--claims", action="store_true", help="print the verdicts on the article's claims instead")
    report.add(
        "--readme",
        check.file_to_replace,
        metavar="FILE",
        help="also write tables and verdicts between the 'results' markers of this file",
    )
    listing = commands.add_parser("list", help="list the experiments and all runs, finished or not")
    evaluate = commands.add_parser("evaluate", help="evaluate a finished run again, on a finer grid or by redraws")
    evaluate.add("run", check.text, metavar="RUN_FOLDER")
    evaluate.add(
        "--redraws",
        partial(check.integer, low=0, high=10**6),
        default="0",
        metavar="N",
        help="the published estimator: N random draws of the parameters",
    )
    evaluate.add(
        "--upright-last",
        partial(check.integer, low=0, high=10**9),
        default="0",
        metavar="N",
        help="leave the last N images of the restricted classes upright in the redraws, as the original seems to do",
    )
    evaluate.add(
        "--orbit",
        partial(check.integer, low=2, high=10**4),
        metavar="N",
        help="instead, measure it with orbit pooling: it sees about N copies of each test image, moved by the true "
        "transformation; kept as orbit.json in the run's folder, where reports find it",
    )
    evaluate.add(
        "--grid-spacing",
        check.text,
        metavar="SPACING|full",
        help="spacing of the evaluation grid; default: the task's usual one (full: the finest grid)",
    )
    evaluate.add("--dataset", check.text, help="other data than the run was trained on")
    evaluate.add("--json", check.new_file, metavar="FILE", help="also write the results to a new file")
    bench = commands.add_parser("bench", help="measure speed, as shares of the machine's matrix-product peak")
    bench.add("--json", check.file_to_write, default="bench.json", metavar="FILE", help="default: %(default)s")
    bench.add(
        "--precision",
        partial(check.choices, known=tuple(PRECISIONS)),
        action=check.Once,
        default="float32,bfloat16",
        help="default: %(default)s",
    )
    bench.add(
        "--seconds",
        partial(check.positive, high=3600),
        default="10",
        metavar="N",
        help="per measurement; default: %(default)s",
    )
    notebooks = commands.add_parser("notebooks", help="execute notebooks on the newest runs")
    notebooks.add("notebook", check.file_to_read, nargs="+", metavar="FILE.ipynb")
    notebooks.add("--runs", check.folder_to_write, default="runs", metavar="DIR", help="default: %(default)s")
    notebooks.add(
        "--out",
        check.folder_to_write,
        metavar="DIR",
        help="folder of the executed notebooks; default: RUNS/notebooks",
    )
    for command in (report, listing):
        command.add(
            "--runs",
            check.text,
            action="append",
            metavar="DIR",
            help="folder of runs; may be repeated (the first run of a model and seed counts); default: runs",
        )
    actions = ((report, _report), (listing, _list), (evaluate, _evaluate), (bench, _bench), (notebooks, _notebooks))
    for command, action in actions:
        command.set_defaults(action=action)
    return parser


def _found(arguments: argparse.Namespace) -> tuple[list[Run], list[tuple[Path, str]]]:
    """The runs below all folders --runs, see `find`."""
    finished: list[Run] = []
    others: list[tuple[Path, str]] = []
    # A folder that is given twice is read once.
    folders = [check.folder_to_read("--runs", runs) for runs in arguments.runs or ["runs"]]
    for runs in {Path(runs).resolve(): runs for runs in folders}.values():
        more = find(runs)
        finished += more[0]
        others += more[1]
    finished, repeated = once(finished)
    return finished, others + repeated


def _report(arguments: argparse.Namespace) -> None:
    from invariance.report import claims, overview
    from invariance.report.page import Page
    from invariance.report.table import between_markers, tables

    outputs = {"--html": arguments.html, "--markdown": arguments.markdown, "--readme": arguments.readme}
    check.require_distinct({option: path for option, path in outputs.items() if path})
    finished, others = _found(arguments)
    experiments = installed_experiments()
    made = tables(finished, experiments)
    # Each once, though several modules may import them.
    declared = {id(claim): claim for module in installed_modules() for claim in getattr(module, "CLAIMS", ())}
    verdicts = claims.judge(declared.values(), finished)
    if arguments.claims:
        print("\n".join(verdict.text() for verdict in verdicts))
    else:
        print("\n\n".join(table.text() for table in made) or "No finished runs.")
    for path, reason in others:
        print(printable(f"{path}: {reason}"))
    page = Page(finished, others, made, verdicts, experiments)
    if arguments.markdown:
        write_text(arguments.markdown, page.markdown())
    if arguments.html:
        output.provide_temporary_folder(str(arguments.html.parent / ".temporary"))
        write_text(arguments.html, page.html())
    for path in filter(None, (arguments.html, arguments.markdown)):
        print(f"written to {path}")
    if arguments.readme:
        path = arguments.readme
        try:
            write_text(path, between_markers(path.read_text(encoding="utf-8"), overview.results(made, verdicts)))
        except (OSError, ValueError) as error:
            raise UserError(f"--readme: {path}: {error}") from error
    unreadable = [str(path) for path, reason in others if reason not in (UNFINISHED, REPEATED)]
    if unreadable:
        raise UserError(f"unreadable: {', '.join(unreadable)}")
    output.require_written()


def _list(arguments: argparse.Namespace) -> None:
    for name, experiment in installed_experiments().items():
        print(f"{name}: {experiment.task.title()}\n  models: {', '.join(experiment.models)}")
    finished, others = _found(arguments)
    for run in finished:
        lacking = run.folder.lacks("curves.csv", "model.keras")
        without = f"; without {join(lacking)}" if lacking else ""
        print(printable(f"{run.folder.path}: finished, commit {run.provenance('commit')}{without}"))
    for path, reason in others:
        print(printable(f"{path}: {reason}"))
    output.require_written()


def _evaluate(arguments: argparse.Namespace) -> None:
    folder = RunFolder(Path(arguments.run))
    redraws, upright_last = arguments.redraws, arguments.upright_last
    if upright_last and not redraws:
        raise UserError("--upright-last: this is a setting of the redraws; add --redraws N")
    if not os.path.isfile(folder / "metrics.json"):
        raise UserError(f"{folder.path} is not the folder of a finished run")
    run = read(folder)
    task, seed = run.task, run.metrics["seed"]
    if arguments.orbit is not None:
        _evaluate_orbit(arguments, run)
        return
    spacing = task.usual_spacing
    if arguments.grid_spacing is not None:
        spacing = check.spacing("--grid-spacing", arguments.grid_spacing, task)
    evaluation = Evaluation(spacing, redraws=redraws, upright_last=upright_last, seed=seed)
    task.check(evaluation)
    from invariance.runs.evaluate import evaluate

    evaluate(run, evaluation, arguments.dataset, arguments.json)
    output.require_written()


def _evaluate_orbit(arguments: argparse.Namespace, run: Run) -> None:
    copies = arguments.orbit
    for option in ("--redraws", "--grid-spacing", "--dataset", "--json"):
        if getattr(arguments, option[2:].replace("-", "_")) not in (None, 0):
            raise UserError(f"--orbit cannot be combined with {option}: it is measured alone, and kept beside the run")
    if run.task.orbit(copies) is None:
        raise UserError("--orbit: only recognition with a range of parameters has scores that can be pooled")
    from invariance.runs.evaluate import evaluate_orbit

    evaluate_orbit(run, Evaluation(run.task.usual_spacing, orbit=copies, seed=run.metrics["seed"]))


def _notebooks(arguments: argparse.Namespace) -> None:
    from invariance.notebooks import RUNS, execute_all

    os.environ[RUNS] = str(Path(arguments.runs).resolve())
    execute_all(arguments.notebook, arguments.out or Path(arguments.runs) / "notebooks")


def _bench(arguments: argparse.Namespace) -> None:
    from invariance import benchmark

    benchmark.main(arguments.precision, arguments.seconds, arguments.json)
