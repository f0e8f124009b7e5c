"""``python -m experiments.<sweeps>``: the runs of several sweeps, carried out together, and their curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from invariance import datasets, output
from invariance.cli import arguments as check
from invariance.cli import run, suite
from invariance.errors import RunError
from invariance.progress import Progress
from invariance.runs.execute import RunConfig
from invariance.runs.find import find
from invariance.sweeps import Sweep, record
from invariance.variations import base


def run_sweeps(name: str, title: str, sweeps: Sequence[Sweep], argv: Sequence[str] | None = None) -> int:
    """Runs sweeps from the command line; returns the exit code.

    Args:
        name: of the folder of the curves, among the runs.
        title: what the sweeps are, in one line.
        sweeps: at least one.
        argv: the command line; None for that of the program.
    """
    return check.guarded(lambda: _run_sweeps(name, title, sweeps, argv))


def _run_sweeps(name: str, title: str, sweeps: Sequence[Sweep], argv: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if "--help" in given or "-h" in given:
        suite.print_help(title, sweeps)
        return 0
    suite.refuse_own(given)
    profile = run.parser(sweeps[0].experiment).parse_args(given).profile
    commands = [
        (run.checked(part.experiment, given, suite.arguments_of(part, ())), sweep.factor if number else None)
        for sweep in sweeps
        for number, part in enumerate(sweep.parts(profile))
    ]
    first, _ = commands[0]

    def configs_on(dataset: str) -> list[RunConfig]:
        found: dict[str, RunConfig] = {}
        for command, factor in commands:
            for config in command.configs(dataset, record(name, factor)):
                # What several sweeps share has one name: that of the first.
                described = {key: value for key, value in config.to_json().items() if key != "model"}
                found.setdefault(json.dumps([described, base(config.model)]), config)
        # Whole curves of the first seed before those of the next.
        order = list(dict.fromkeys(config.seed for config in found.values()))
        return sorted(found.values(), key=lambda config: order.index(config.seed))

    if first.arguments.print_config:
        print(json.dumps([config.to_json() for config in configs_on(first.arguments.dataset)], indent=1))
        output.require_written()
        return 0
    say = Progress("", first.arguments.quiet).line
    dataset = run.in_child(lambda: datasets.resolve(first.arguments.dataset, say))
    configs = configs_on(dataset)
    say(title)
    for sweep in sweeps:
        percent = sweep.percent.get(profile, 100)
        reduced = "" if percent == 100 else f"; {percent:g} % of the profile's steps"
        say(f"{sweep}{reduced}")
    runs = first.arguments.runs
    finished = sum(config.folder(runs).done for config in configs)
    say(f"{len(configs)} runs, {finished} of them finished")
    run.together(configs, first, dataset, say, lambda: _curves(Path(runs), name, configs))
    return 0


def _curves(runs: Path, name: str, configs: Sequence[RunConfig]) -> str:
    """Draws the curves of the experiments, dataset and profile of these runs, and returns their points as text."""
    from invariance.report import responses

    folders = {config.folder(runs).path.parents[1] for config in configs}
    finished, _ = find(runs)
    made = responses.curves(run for run in finished if folders & set(run.folder.path.parents))
    texts = []
    for folder in sorted({runs / name / curve.experiment / curve.dataset / curve.profile for curve in made}):
        own = [curve for curve in made if folder.parts[-3:] == (curve.experiment, curve.dataset, curve.profile)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create {folder}: {error.strerror}") from error
        responses.save(own, folder)
        texts.append("\n".join([*responses.text(own), f"Points and curves: {folder}"]))
    return "\n\n".join(texts) or "No curves yet: no setting was varied."
