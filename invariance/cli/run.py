"""``python -m experiments.<name>``: chooses models, varies them, runs them, prints the table."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariance import datasets, output
from invariance.cli import arguments as check
from invariance.cli.forecast import departures, forecast
from invariance.errors import RunError, UserError, require_extra
from invariance.experiment import PROFILES, Entry, Experiment
from invariance.files import write_text
from invariance.processes import cores, in_child
from invariance.progress import Progress
from invariance.runs.builder import FileBuilder
from invariance.runs.engine import carry_out
from invariance.runs.execute import PRECISIONS, Options, RunConfig, check_unchanged, load_data
from invariance.runs.find import UNFINISHED, find
from invariance.runs.provenance import stderr_on_failure
from invariance.sweeps import varied
from invariance.variations import CONTROLS, Variant
from invariance.wording import printable

if TYPE_CHECKING:
    from invariance.datasets import Data


def parser(experiment: Experiment) -> argparse.ArgumentParser:
    """The parser of ``python -m experiments.<name>``."""
    made = check.Parser(
        prog=f"python -m experiments.{experiment.name}",
        description=experiment.task.title(),
        epilog=f"Models: {', '.join(experiment.models)}. Interrupt and repeat the same command: it resumes. Of an "
        "option that is given twice the last value counts; lists may be given once, --set repeatedly.",
    )
    add = made.add
    add(
        "--models",
        check.text,
        action=check.Once,
        default=",".join(experiment.defaults),
        metavar="NAME,...|all",
        help="models to run; FILE.py:FUNCTION is a builder of your own; default: %(default)s",
    )
    add(
        "--profile",
        partial(check.choice, known=PROFILES),
        default="quick",
        help=f"one of {', '.join(PROFILES)}; default: %(default)s",
    )
    add("--dataset", check.text, default="auto", help=f"one of {', '.join(datasets.NAMES)}; default: %(default)s")
    add(
        "--seed",
        check.seeds,
        action=check.Once,
        default="0",
        metavar="N,...|N-N",
        help="of weights, order and draws; default: %(default)s",
    )
    add(
        "--jobs",
        partial(check.integer, low=1, high=len(cores())),
        default="1",
        metavar="N",
        help="runs at a time, each on its share of the cores; default: %(default)s",
    )
    add("--runs", check.folder_to_write, default="runs", metavar="DIR", help="folder of all runs; default: %(default)s")
    add(
        "--precision",
        partial(check.choice, known=tuple(PRECISIONS)),
        default="float32",
        help="float32 or bfloat16 (stored as NAME+bfloat16); default: %(default)s",
    )
    add(
        "--restricted",
        check.labels_or_none,
        action=check.Once,
        metavar="LABEL,...",
        help="other restricted classes ('' for none); stored as NAME+restricted=LABEL,...",
    )
    add(
        "--control",
        partial(check.choice, known=tuple(CONTROLS)),
        help=f"other training data: {' or '.join(CONTROLS)}; stored as NAME+CONTROL",
    )
    add(
        "--also-restricted",
        check.labels,
        action=check.Once,
        default=(),
        metavar="LABEL,...",
        help="also show these in the restricted range only; stored likewise",
    )
    add(
        "--shown",
        check.interval,
        metavar="LOW..HIGH",
        help="other restricted range in training only; NAME+shown=LOW..HIGH",
    )
    add(
        "--excluded",
        check.labels_or_none,
        action=check.Once,
        metavar="LABEL,...",
        help="other excluded classes ('' for none); stored likewise",
    )
    add(
        "--set",
        check.text,
        action="append",
        metavar="ARGUMENT=VALUE,...",
        help="other arguments of the models; may be repeated; stored as NAME+ARGUMENT=VALUE",
    )
    add(
        "--steps",
        check.steps,
        metavar="N|N%",
        help="steps of training, or share of the profile's; stored as NAME+steps=N",
    )
    add(
        "--learning-rate",
        check.positive,
        metavar="RATE",
        help="another learning rate; stored as NAME+learning_rate=RATE",
    )
    add(
        "--grid",
        check.text,
        metavar="SPACING|full",
        help="spacing of the evaluation grid; full: the finest grid",
    )
    add(
        "--redraws",
        partial(check.integer, low=0, high=10**6),
        default="0",
        metavar="N",
        help="also measure with N random draws of the parameters",
    )
    flag = made.add_argument
    flag("--corrected", action="store_true", help="without the original's double softmax; stored as NAME_corrected")
    flag("--tensorboard", action="store_true", help="also write TensorBoard files (needs the extra 'tensorboard')")
    flag("--overwrite", action="store_true", help="start finished and interrupted runs again, from scratch")
    flag("--print-config", action="store_true", help="print the configurations of the runs as JSON, and stop")
    flag("--quiet", action="store_true", help="print errors only")
    return made


def run_experiment(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Runs an experiment from the command line; returns the exit code."""
    return check.guarded(lambda: _run_experiment(experiment, argv))


def _run_experiment(experiment: Experiment, argv: Sequence[str] | None) -> int:
    command = checked(experiment, argv)
    if command.arguments.print_config:
        print(json.dumps([config.to_json() for config in command.configs(command.arguments.dataset)], indent=1))
        output.require_written()
        return 0
    say = Progress("", command.arguments.quiet).line
    if command.uncorrected:
        say(f"--corrected: nothing to correct in {', '.join(command.uncorrected)}; omitted")
    # In a child, because it may import TensorFlow (see `processes`).
    dataset = in_child(lambda: datasets.resolve(command.arguments.dataset, say))
    configs = command.configs(dataset)
    _say_titles(command.variants, say)
    together(configs, command, dataset, say, lambda: _tables(command.arguments.runs, experiment, configs))
    return 0


@dataclass(frozen=True)
class Command:
    """A command line of an experiment, once it is checked.

    Attributes:
        experiment: the experiment.
        arguments: the command line.
        variants: the models to run.
        uncorrected: names of models omitted because --corrected has nothing to correct in them.
    """

    experiment: Experiment
    arguments: argparse.Namespace
    variants: list[Variant]
    uncorrected: list[str]

    def configs(self, dataset: str, record: Mapping[str, Any] | None = None) -> list[RunConfig]:
        """The runs, on a dataset; ``record``: see `RunConfig`."""
        curves = self.experiment.published_curves if dataset == self.experiment.published_on else {}
        return [
            RunConfig(
                self.experiment.name,
                self.arguments.profile,
                variant.name,
                variant.entry,
                variant.task,
                dataset,
                seed,
                self.arguments.precision,
                curves.get(variant.name, {}),
                record or {},
            )
            for seed in self.arguments.seed
            for variant in self.variants
        ]


def checked(experiment: Experiment, argv: Sequence[str] | None, usual: Sequence[str] = ()) -> Command:
    """Parses a command line of an experiment.

    Args:
        experiment: the experiment.
        argv: the command line; None for that of the program.
        usual: options that it replaces.

    Raises:
        UserError: if there is a mistake in it.
    """
    arguments = parser(experiment).parse_args(argv, parser(experiment).parse_args(usual))
    if arguments.dataset != "auto":
        datasets.resolve(arguments.dataset)
    if arguments.tensorboard:
        require_extra("tensorboard", "--tensorboard")
    variants, uncorrected = _variants(experiment, arguments)
    for variant in variants:
        variant.task.check(variant.entry.budgets[arguments.profile].evaluation(redraws=arguments.redraws))
        check.folder_name("--models, --set, ...", variant.name)
    return Command(experiment, arguments, variants, uncorrected)


def together(
    configs: Sequence[RunConfig],
    command: Command,
    dataset: str,
    say: Callable[[str], Any],
    conclude: Callable[[], str],
) -> None:
    """Carries out runs on one dataset: announces them, and says at the end what came of them.

    Args:
        configs: the runs, of one or several experiments.
        command: says how to carry them out.
        dataset: that of the runs.
        say: prints a line.
        conclude: a function that returns the last words, once all has been run.

    Raises:
        UserError, RunError: see `carry_out`; also if some runs failed.
    """
    arguments = command.arguments
    output.provide_temporary_folder(os.path.join(arguments.runs, ".temporary"))
    seeds = list(dict.fromkeys(config.seed for config in configs))
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    say(f"{dataset} · {arguments.profile} · {named} · {arguments.precision} · runs in {arguments.runs}")
    caveat = datasets.caveat(datasets.stored_as(dataset))
    if caveat:
        say(caveat)
    for config in () if arguments.overwrite else configs:
        # All of them now, because the last may start hours after the first.
        check_unchanged(config.folder(arguments.runs), config)

    pending = [config for config in configs if arguments.overwrite or not config.folder(arguments.runs).done]
    jobs = max(1, min(arguments.jobs, len(pending)))
    # What a sweep varies is announced by the sweep.
    for line in departures([config for config in pending if not varied(config.record)]):
        say(line)
    resumed = None if arguments.overwrite else arguments.runs
    data, first = None, None
    if len(pending) > 1:
        # Loaded once for all of them: decoding takes as long as importing TensorFlow.
        data = in_child(lambda: load_data(dataset, say))
        _check_classes(data, pending, say)
    if pending:
        # A single run loads its data in its own process. There the forecast may load TensorFlow, too.
        def before_first() -> Data:
            loaded = data
            if loaded is None:
                loaded = load_data(dataset, say)
                _check_classes(loaded, pending, say)
            forecast(pending, resumed, jobs, loaded, say)
            return loaded

        first = pending[0], before_first
    options = Options(arguments.overwrite, arguments.quiet, arguments.tensorboard, arguments.redraws)
    failures = carry_out(configs, arguments.runs, options, jobs, data, first)
    say("")
    say(conclude())
    if caveat:
        say(caveat)
    if failures:
        names = [f"{each.model} seed {each.seed}" if len(seeds) > 1 else each.model for each, _ in failures]
        mistakes = all(isinstance(error, UserError) for _, error in failures)
        raise (UserError if mistakes else RunError)(f"not finished: {', '.join(names)}")


def _say_titles(variants: Sequence[Variant], say: Callable[[str], Any]) -> None:
    """Prints the titles of all tasks, with their models if there are several tasks."""
    titles: dict[str, list[str]] = {}
    for variant in variants:
        titles.setdefault(variant.task.title(), []).append(variant.name)
    for title, names in titles.items():
        say(title if len(titles) == 1 else f"{title} ({', '.join(names)})")


def _check_classes(data: Data, configs: Sequence[RunConfig], say: Callable[[str], Any]) -> None:
    """Checks that the tasks fit the data, and prints their caveats.

    Raises:
        UserError: if one does not.
    """
    caveats: dict[str, None] = {}
    # One task object belongs to all seeds of a model.
    for task in {id(config.task): config.task for config in configs}.values():
        _, classes = data.of_task(task)
        caveats |= dict.fromkeys(task.caveats(classes))
    for caveat in caveats:
        say(caveat)


def _tables(runs: str, experiment: Experiment, configs: Sequence[RunConfig]) -> str:
    """The table of all runs of the experiment with this dataset and profile, also written beside them as Markdown."""
    from invariance.report.table import tables

    folder = configs[0].folder(runs).path.parent.parent
    finished, others = find(runs)
    made = tables([run for run in finished if folder in run.folder.path.parents], {experiment.name: experiment})
    for table in made:
        write_text(folder / "table.md", table.markdown())
    odd = [(path, reason) for path, reason in others if folder in path.parents and reason != UNFINISHED]
    parts = [*(table.text() for table in made), *(printable(f"{path}: {reason}") for path, reason in odd)]
    return "\n\n".join([*parts, f"Table, curves and figures: {folder}"])


def _variants(experiment: Experiment, arguments: argparse.Namespace) -> tuple[list[Variant], list[str]]:
    """The models to run, and the names of those omitted because --corrected has nothing to correct in them."""
    profile = arguments.profile
    variants, uncorrected = _chosen(experiment, arguments.models), []
    if arguments.corrected:
        pairs = [(variant, variant.corrected()) for variant in variants]
        uncorrected = [variant.name for variant, corrected in pairs if corrected is None]
        variants = [corrected for _, corrected in pairs if corrected is not None]
        if not variants:
            raise UserError(f"--corrected: nothing to correct in {', '.join(uncorrected)}")
    for variant in variants:
        check.choice(f"--profile of {variant.name}", profile, tuple(variant.entry.budgets))
    if arguments.set is not None:
        given = check.pairs("--set", arguments.set)
        variants = [variant.with_arguments(_settings(variant, given)) for variant in variants]
    if isinstance(arguments.steps, float):
        variants = [variant.with_share_of_steps(profile, arguments.steps) for variant in variants]
    elif arguments.steps is not None:
        variants = [variant.with_steps(profile, arguments.steps) for variant in variants]
    if arguments.learning_rate is not None:
        variants = [variant.with_learning_rate(profile, arguments.learning_rate) for variant in variants]
    variants = [variant.with_classes(arguments.restricted, arguments.excluded) for variant in variants]
    if arguments.control is not None:
        variants = [variant.with_control(arguments.control) for variant in variants]
    shown = None if arguments.shown is None else (arguments.shown,)
    variants = [variant.with_shown(shown, arguments.also_restricted) for variant in variants]
    variants = [variant.with_precision(arguments.precision) for variant in variants]
    if arguments.grid is not None:
        variants = [
            variant.with_grid(profile, check.spacing("--grid", arguments.grid, variant.task)) for variant in variants
        ]
    return variants, uncorrected


def _chosen(experiment: Experiment, names: str) -> list[Variant]:
    """The named models, each once."""
    chosen = list(experiment.models) if names == "all" else [name.strip() for name in names.split(",")]
    if not all(chosen):
        raise UserError(f"--models: no model named; choose from {', '.join(experiment.models)}")
    variants: dict[str, Variant] = {}
    for name in dict.fromkeys(chosen):
        variant = _variant(experiment, name)
        if variant.name in variants:
            raise UserError(f"--models: two models would be stored as {variant.name}; rename one of them")
        variants[variant.name] = variant
    return list(variants.values())


def _variant(experiment: Experiment, name: str) -> Variant:
    """The experiment's model of that name, or the user's own builder FILE.py:FUNCTION."""
    if ":" in name:
        builder = _own_builder(name)
        # Trained for as long as the experiment's first model.
        budgets = experiment.models[experiment.defaults[0]].budgets
        return Variant(builder.name, Entry(builder, budgets), experiment.task)
    known = ", ".join(experiment.models)
    if name not in experiment.models:
        raise UserError(f"--models: unknown model {name!r}; choose from {known}, or FILE.py:FUNCTION")
    return Variant(name, experiment.models[name], experiment.task_of(name))


def _own_builder(name: str) -> FileBuilder:
    """The builder that a text such as "my_file.py:build" names, once it is known to load."""
    path, _, function = name.rpartition(":")
    if not path.endswith(".py") or not Path(path).stem.isidentifier() or not function.isidentifier():
        raise UserError(f"--models: expected FILE.py:FUNCTION; received {name!r}")
    builder = FileBuilder(check.file_to_read("--models", path), function)

    def check_that_it_loads() -> None:
        with stderr_on_failure():
            builder.load()

    try:
        # In a child, because it probably imports Keras (see `processes`).
        in_child(check_that_it_loads)
    except UserError as error:
        raise UserError(f"--models: {error}") from error
    return builder


def _settings(variant: Variant, given: Mapping[str, str]) -> dict[str, Any]:
    """The values in --set, checked against the arguments of a model."""
    present = variant.arguments()
    if unknown := [f"{argument}={value}" for argument, value in given.items() if argument not in present]:
        known = ", ".join(f"{key}={value}" for key, value in present.items()) or "none"
        raise UserError(
            f"--set: expected ARGUMENT=VALUE with an argument of {variant.name} ({known}); received {unknown[0]!r}"
        )
    return {
        argument: check.value_like(f"--set {argument}", value, present[argument]) for argument, value in given.items()
    }
