"""The command line. Asking for help or making a mistake costs no import of TensorFlow."""

import argparse
import dataclasses
import json
import math
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from invariance.errors import ModelError, RunError, UserError, require_extra
from invariance.processes import cores, in_child, in_children
from invariance.progress import Progress, duration
from invariance.protocol import (
    PROFILES,
    Entry,
    Experiment,
    Generation,
    GenerationByShift,
    Recognition,
    protocol_from_json,
)
from invariance.results import CHECKPOINT, REPEATED, UNFINISHED, RunFolder, find, once, write_text

# TensorFlow's C++ side reports every machine without a GPU as an error; what goes wrong reaches us as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Shares of the matrix-product peak that training and evaluation reach, for the forecast of a run's cost (`make bench`).
_TRAINING_SHARE, _EVALUATION_SHARE, _START_SECONDS = 0.5, 0.55, 20.0


class _Parser(argparse.ArgumentParser):
    """One line for a mistake; no guessing at abbreviations."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message):
        raise UserError(f"{message} (--help lists what there is)")


def experiment_parser(experiment: Experiment) -> argparse.ArgumentParser:
    """The parser of ``python -m experiments.<name>``."""
    parser = _Parser(
        prog=f"python -m experiments.{experiment.name}",
        description=experiment.title,
        epilog=f"Models: {', '.join(experiment.models)}. Interrupt and repeat the same command: it resumes.",
    )
    add = parser.add_argument
    add("--models", default=",".join(experiment.defaults), metavar="NAME,...|all", help="default: %(default)s")
    add("--profile", default="quick", help=f"one of {', '.join(PROFILES)}; default: %(default)s")
    add(
        "--dataset", default="auto", help="auto, mnist, fashion_mnist, kmnist, digits or FILE.npz; default: %(default)s"
    )
    add("--seed", default="0", metavar="N,...|N-N", help="of weights, order and draws; default: %(default)s")
    add("--jobs", default="1", metavar="N", help="run so many at a time, each on its share of the cores; default: 1")
    add(
        "--runs",
        default="runs",
        type=os.path.expanduser,
        metavar="DIR",
        help="where the run folders go; default: %(default)s",
    )
    add("--precision", default="float32", help="float32 or bfloat16 (stored as NAME+bfloat16); default: %(default)s")
    add("--restricted", metavar="LABEL,...", help="other restricted classes; stored as NAME+restricted=LABEL,...")
    add("--excluded", metavar="LABEL,...", help="other excluded classes ('' for none); stored likewise")
    add("--corrected", action="store_true", help="without the original's double softmax; stored as NAME_corrected")
    add("--set", metavar="ARGUMENT=VALUE,...", help="other arguments of the models; stored as NAME+ARGUMENT=VALUE")
    add("--steps", metavar="N", help="train for so many steps instead of the profile's; stored as NAME+steps=N")
    add("--learning-rate", metavar="RATE", help="instead of the profile's; stored as NAME+learning_rate=RATE")
    add("--grid", metavar="SPACING|full", help="degrees or pixels between the evaluation's points; full: as published")
    add("--redraws", default="0", metavar="N", help="also measure with N random drawings of the angles, as published")
    add("--tensorboard", action="store_true", help="also write TensorBoard files (needs the extra 'tensorboard')")
    add("--overwrite", action="store_true", help="run anew what has been run")
    add("--print-config", action="store_true", help="print what would be run, as JSON, and stop")
    add("--quiet", action="store_true", help="print nothing but errors")
    return parser


def run_experiment(experiment: Experiment, argv=None) -> int:
    """Runs an experiment from the command line; returns the exit code."""
    return _guarded(lambda: _run_experiment(experiment, argv))


def _guarded(action) -> int:
    try:
        return action() or 0
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run_experiment(experiment, argv):
    arguments = experiment_parser(experiment).parse_args(argv)
    from invariance import datasets
    from invariance.running import PRECISIONS, RunConfig, check_unchanged, execute, loaded

    _choice("--profile", arguments.profile, PROFILES)
    _choice("--precision", arguments.precision, tuple(PRECISIONS))
    seeds = _seeds(arguments.seed)
    jobs = _integer("--jobs", arguments.jobs, 1, len(cores()))
    redraws = _integer("--redraws", arguments.redraws, 0, 10**6)
    if redraws and isinstance(experiment.protocol, Generation):
        raise UserError("--redraws: only experiments on recognition draw angles for their evaluation")
    entries, uncorrected = _entries(experiment, arguments.models), []
    if arguments.corrected:
        entries, uncorrected = _corrected(entries)
    for name, entry in entries.items():
        _choice(f"--profile of {name}", arguments.profile, tuple(entry.budgets))
    if arguments.set:
        entries = _with_arguments(entries, arguments.set)
    if arguments.steps is not None:
        entries = _with_steps(entries, arguments.profile, arguments.steps)
    if arguments.learning_rate is not None:
        entries = _with_learning_rate(entries, arguments.profile, arguments.learning_rate)
    if arguments.grid:
        entries = _with_grid(entries, arguments.profile, experiment.protocol, arguments.grid)
    if arguments.tensorboard:
        require_extra("tensorboard", "--tensorboard")
    entries = _renamed(entries, arguments)
    protocols = {
        name: _protocol(entry.protocol or experiment.protocol, arguments.restricted, arguments.excluded)
        for name, entry in entries.items()
    }

    say = Progress("", arguments.quiet).line

    def configs_on(dataset):
        curves = experiment.published_curves if dataset == experiment.published_on else {}
        return [
            RunConfig(
                experiment.name,
                arguments.profile,
                name,
                entry,
                protocols[name],
                dataset,
                seed,
                arguments.precision,
                curves.get(name, {}),
            )
            for seed in seeds
            for name, entry in entries.items()
        ]

    if arguments.print_config:
        if arguments.dataset != "auto":
            datasets.resolve(arguments.dataset)
        print(json.dumps([config.to_json() for config in configs_on(arguments.dataset)], indent=1))
        return 0
    if uncorrected:
        say(f"--corrected: nothing to correct in {', '.join(uncorrected)}; left out")
    # Resolving may import TensorFlow; that must not happen in the process that starts the others.
    dataset = in_child(lambda: datasets.resolve(arguments.dataset, say))
    configs = configs_on(dataset)
    warning = None
    if dataset == "digits":
        warning = "Data: scikit-learn's embedded digits, NOT MNIST: not to be compared with published numbers."
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    say(experiment.title)
    say(f"{dataset} · {arguments.profile} · {named} · {arguments.precision} · runs in {arguments.runs}")
    if warning:
        say(warning)
    pending = [config for config in configs if arguments.overwrite or not config.folder(arguments.runs).done]
    jobs = max(1, min(jobs, len(pending)))
    for config in () if arguments.overwrite else configs:
        # All of them before the first starts, which may be hours before the last.
        check_unchanged(config.folder(arguments.runs), config)
    announcement = _forecast(pending, None if arguments.overwrite else arguments.runs, jobs, say)

    data = None
    if len(pending) > 1:
        # Once for all of them: decoding takes as long as TensorFlow's import. One run alone loads its data itself.
        data = in_child(lambda: loaded(dataset, say))
    parent = os.getpid()
    failures = []
    actions = [
        partial(
            execute,
            config,
            arguments.runs,
            arguments.overwrite,
            arguments.quiet,
            arguments.tensorboard,
            redraws,
            parent,
            data,
            jobs == 1,
        )
        for config in configs
    ]
    if announcement:
        # In the first process that loads TensorFlow for a run; it costs a tenth of a second there.
        first = configs.index(pending[0])
        actions[first] = partial(_after, announcement, actions[first])
    with closing(in_children(actions, jobs)) as ends:
        for number, error, _ in ends:
            if error is None:
                continue
            if arguments.overwrite:
                # The same command would throw away what has been done.
                error.args = (str(error).replace("epeat the command", "epeat the command without --overwrite"),)
            # The other models may still be run; not after a request to stop, nor where the mistake is common to all.
            others = error.exit_code == RunError.exit_code or isinstance(error, ModelError)
            if not others or len(configs) == 1:
                raise error
            print(f"error: {error}", file=sys.stderr)
            config = configs[number]
            failures.append((f"{config.model} seed {config.seed}" if len(seeds) > 1 else config.model, error))
    say("")
    text = _tables(arguments.runs, {experiment.name: experiment}, configs)
    say(text)
    if warning:
        say(warning)
    if failures:
        names, errors = zip(*failures, strict=True)
        mistakes = all(isinstance(error, UserError) for error in errors)
        raise (UserError if mistakes else RunError)(f"not finished: {', '.join(names)}")
    return 0


def _tables(runs, experiments, configs):
    """The table of the configurations' experiment, dataset and profile; written beside the runs as Markdown, too."""
    from invariance.report import tables

    folder = configs[0].folder(runs).path.parent.parent
    finished, _ = find(runs)
    here = [run for run in finished if folder in run.folder.path.parents]
    made = tables(here, experiments)
    for table in made:
        write_text(folder / "table.md", table.markdown())
    return "\n\n".join(table.text() for table in made) + f"\n\nTable, curves and pictures: {folder}"


def _choice(option, value, known):
    if value not in known:
        raise UserError(f"{option}: unknown value {value!r}; known are {', '.join(known)}")


def _integer(option, text, low, high):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise UserError(f"{option}: an integer from {low} to {high} is needed; it is {text!r}")
    return value


def _seeds(text) -> list[int]:
    """The seeds of a text such as "0,2,5-7", each once, in its order."""
    seeds = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            low = _integer("--seed", first, 0, 2**32 - 1)
            high = _integer("--seed", last, low, low + 999) if dash else low
            seeds += range(low, high + 1)
    except UserError:
        raise UserError(
            f"--seed: integers from 0 to {2**32 - 1}, or ascending ranges of up to 1,000 of them, are needed, such as "
            f"0 or 0,2,5-7; it is {text!r}"
        ) from None
    return list(dict.fromkeys(seeds))


def _labels(option, text):
    try:
        return tuple(_integer(option, part.strip(), 0, 10**6) for part in text.split(",") if part.strip())
    except UserError as error:
        raise UserError(f"{option}: class labels separated by commas are needed; it is {text!r}") from error


def _entries(experiment, names) -> dict[str, Entry]:
    chosen = list(experiment.models) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise UserError(f"--models: no model named; known are {', '.join(experiment.models)}")
    for name in chosen:
        if name not in experiment.models:
            raise UserError(f"--models: unknown model {name!r}; known are {', '.join(experiment.models)}")
    return {name: experiment.models[name] for name in chosen}


def _corrected(entries) -> tuple[dict[str, Entry], list[str]]:
    """The entries without the original's mistakes, and the names of those that have none and are left out."""
    switched = {
        f"{name}_corrected": dataclasses.replace(
            entry,
            model=entry.model.corrected(),
            variants={profile: model.corrected() for profile, model in entry.variants.items()},
        )
        for name, entry in entries.items()
        if hasattr(entry.model, "corrected")
    }
    others = [name for name in entries if f"{name}_corrected" not in switched]
    if not switched:
        raise UserError(f"--corrected: nothing to correct in {', '.join(others)}")
    return switched, others


def _with_arguments(entries, text) -> dict[str, Entry]:
    """The entries with other arguments of their models, under names that say so."""
    changed = {}
    for name, entry in entries.items():
        values = {}
        for part in text.split(","):
            argument, equals, value = (piece.strip() for piece in part.partition("="))
            fields = (
                {
                    field.name: getattr(entry.model, field.name)
                    for field in dataclasses.fields(entry.model)
                    if isinstance(getattr(entry.model, field.name), (int, float, str, type(None)))
                }
                if dataclasses.is_dataclass(entry.model)
                else {}
            )
            if not equals or argument not in fields:
                known = ", ".join(f"{key}={value}" for key, value in fields.items()) or "none"
                raise UserError(
                    f"--set: ARGUMENT=VALUE is needed, of the arguments of {name} ({known}); it is {part!r}"
                )
            values[argument] = _like(f"--set {argument}", value, fields[argument])
        try:
            changed[f"{name}+{'+'.join(f'{key}={value}' for key, value in values.items())}"] = dataclasses.replace(
                entry,
                model=dataclasses.replace(entry.model, **values),
                variants={key: dataclasses.replace(model, **values) for key, model in entry.variants.items()},
            )
        except ValueError as error:
            raise UserError(f"--set: {error}") from error
    return changed


def _like(option, text, example):
    """Text as a value of the same type as an example."""
    kind = type(example)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if example is None or kind is str:
            return None if text.lower() == "none" else text
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise UserError(f"{option}: a value like {example} is needed; it is {text!r}") from None


def _with_steps(entries, profile, text) -> dict[str, Entry]:
    """The entries with longer or shorter trainings, under names that say so.

    The learning rate's cosine follows; capsnet_em's margin grows as in the profile (``--set margin_steps``).
    """
    steps = _integer("--steps", text, 1, 10**9)
    for name, entry in entries.items():
        if steps <= (warmup := entry.budgets[profile].warmup_steps):
            raise UserError(
                f"--steps: the learning rate of {name} rises for {warmup:,} steps; more are needed; it is {steps:,}"
            )
    return {f"{name}+steps={steps}": _with_budget(entry, profile, steps=steps) for name, entry in entries.items()}


def _with_learning_rate(entries, profile, text) -> dict[str, Entry]:
    """The entries with another learning rate, under names that say so; its schedule stays."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UserError(f"--learning-rate: a positive number is needed; it is {text!r}")
    return {
        f"{name}+learning_rate={rate}": _with_budget(entry, profile, learning_rate=rate)
        for name, entry in entries.items()
    }


def _renamed(entries, arguments) -> dict[str, Entry]:
    """The entries under names that say on which other classes or with which precision they run.

    Reports average the runs of one name, and compare those that bear a published model's name.
    """
    suffix = ""
    for option in ("restricted", "excluded"):
        if (text := getattr(arguments, option)) is not None:
            suffix += f"+{option}={','.join(map(str, _labels(f'--{option}', text))) or 'none'}"
    if arguments.precision != "float32":
        suffix += f"+{arguments.precision}"
    return {name + suffix: entry for name, entry in entries.items()}


def _with_grid(entries, profile, protocol, text) -> dict[str, Entry]:
    """The entries with another grid of the evaluation."""
    spacing = _spacing("--grid", text, protocol)
    return {name: _with_budget(entry, profile, grid_spacing=spacing) for name, entry in entries.items()}


def _with_budget(entry, profile, **changes) -> Entry:
    """The entry with other settings of a profile's budget."""
    budget = dataclasses.replace(entry.budgets[profile], **changes)
    return dataclasses.replace(entry, budgets={**entry.budgets, profile: budget})


def _spacing(option, text, protocol) -> float | None:
    """The distance between points of a grid; None for the published grid."""
    drawing = isinstance(protocol, Generation)
    if drawing and text == "full":
        return None
    try:
        protocol.grid(spacing := float(text))
    except ValueError:
        needed = "a whole number of pixels" if isinstance(protocol, GenerationByShift) else "a divisor of 360 up to 180"
        also = " or full" if drawing else ""
        raise UserError(f"{option}: {needed}{also} is needed; it is {text!r}") from None
    return spacing


def _protocol(protocol, restricted, excluded):
    try:
        changes = {}
        if excluded is not None:
            changes["excluded"] = _labels("--excluded", excluded)
        if restricted is not None:
            ranges = dict.fromkeys(_labels("--restricted", restricted), protocol.inside)
            changes["ranges"] = dataclasses.replace(protocol.ranges, restricted=ranges)
        return dataclasses.replace(protocol, **changes)
    except ValueError as error:
        raise UserError(str(error)) from error


def _forecast(pending, runs, jobs, say):
    """Says how what will be run departs from the original.

    Args:
        runs: the folder of all runs, for what resumed ones have behind them; None where all begin anew.

    Returns:
        A function that says how long it will take, for a process that may load TensorFlow; None where that is unknown.
    """
    departures, works = {}, []
    for config in pending:
        budget = config.entry.budgets[config.profile]
        protocol = config.protocol
        if text := "; ".join(config.entry.departures(config.profile)):
            departures.setdefault(text, {})[config.model] = None
        model = config.entry.model_for(config.profile)
        if works is not None and hasattr(model, "training_flops"):
            # MNIST's size; other data change the forecast, not the run.
            classes = 10 - len(protocol.excluded)
            sizes = protocol.arguments((28, 28, 1), range(classes))
            training = model.training_flops(*sizes) * budget.steps * budget.batch_size / _TRAINING_SHARE
            images = classes * min(1000, budget.images_per_class or 1000)
            once = model.decoder_flops(*sizes[1:]) if isinstance(protocol, Generation) else model.flops(*sizes)
            points = len(protocol.grid(budget.grid_spacing))
            evaluation = once * images * points / _EVALUATION_SHARE
            speed_up = getattr(model, "speed_up", 1.0)
            checkpoint = runs and config.folder(runs) / CHECKPOINT
            works.append((training / speed_up, evaluation / speed_up, budget.steps, checkpoint))
        else:
            works = None
    for text, names in departures.items():
        say(f"Departures from the original ({', '.join(names)}): {text}")
    return partial(_say_expected, works, jobs, say) if works else None


def _say_expected(works, jobs, say):
    """Says how long it takes, by a matrix product of TensorFlow's and what resumed runs have behind them.

    NumPy's would not need TensorFlow, but reaches the same rate on some processors and half of it on others (Zen 5).
    """
    from invariance.benchmark import Peak
    from invariance.running import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from invariance.training import saved_step

    with tf.device("CPU"):
        peak = jobs * Peak("float32", 1024)()
    seconds = len(works) * _START_SECONDS / jobs
    for training, evaluation, steps, checkpoint in works:
        seconds += (training * (1 - saved_step(checkpoint) / steps) + evaluation) / peak
    say(
        f"Expected: about {duration(seconds)} for {len(works)} run(s){f', {jobs} at a time' if jobs > 1 else ''} "
        f"(on this CPU, {peak / 1e9:.0f} GFLOP/s; a GPU is faster)"
    )


def _after(announcement, action):
    announcement()
    return action()


def main(argv=None) -> int:
    """``python -m invariance``; returns the exit code."""
    return _guarded(lambda: _main(argv))


def _main(argv):
    parser = _Parser(prog="python -m invariance", description="Reports on runs, evaluates them again, lists them.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    report = commands.add_parser("report", help="tables of all runs beside the published numbers")
    report.add_argument("--html", metavar="FILE", help="also write one page with everything, pictures included")
    report.add_argument("--markdown", metavar="FILE", help="the same as Markdown, without pictures")
    report.add_argument("--claims", action="store_true", help="print the verdicts on the article's claims instead")
    report.add_argument(
        "--readme", metavar="FILE", help="also write tables and verdicts between the 'results' markers of this file"
    )
    listing = commands.add_parser("list", help="the runs there are, finished or not, and the experiments")
    evaluate = commands.add_parser("evaluate", help="evaluate a finished run again, on a finer grid or by redraws")
    evaluate.add_argument("run", metavar="RUN_FOLDER")
    evaluate.add_argument(
        "--redraws", default="0", metavar="N", help="the published estimator: N drawings of the angles"
    )
    evaluate.add_argument(
        "--upright-last",
        default="0",
        metavar="N",
        help="leave the last N images of the restricted classes upright in the redraws, as the original seems to have",
    )
    evaluate.add_argument(
        "--grid-spacing", metavar="DEGREES|full", help="default: 5 for recognition; the published grid for drawn images"
    )
    evaluate.add_argument("--dataset", help="other data than the run was trained on")
    evaluate.add_argument("--json", type=os.path.expanduser, metavar="FILE", help="also write what was measured there")
    bench = commands.add_parser("bench", help="speed, as shares of the machine's matrix-product peak")
    bench.add_argument(
        "--json", type=os.path.expanduser, default="bench.json", metavar="FILE", help="default: %(default)s"
    )
    bench.add_argument("--precision", default="float32,bfloat16", help="default: %(default)s")
    bench.add_argument("--seconds", default="10", help="per measurement; default: %(default)s")
    notebooks = commands.add_parser("notebooks", help="execute notebooks on the newest runs")
    notebooks.add_argument("notebook", nargs="+", help=".ipynb files")
    notebooks.add_argument(
        "--runs", default="runs", type=os.path.expanduser, metavar="DIR", help="default: %(default)s"
    )
    notebooks.add_argument("--out", metavar="DIR", help="where the executed ones go; default: RUNS/notebooks")
    for command in (report, listing):
        command.add_argument(
            "--runs",
            action="append",
            type=os.path.expanduser,
            metavar="DIR",
            help="may be repeated (of the same model and seed the first counts); default: runs",
        )
    arguments = parser.parse_args(argv)
    actions = {"report": _report, "list": _list, "evaluate": _evaluate, "bench": _bench, "notebooks": _notebooks}
    return actions[arguments.command](arguments)


def _experiments() -> dict[str, Experiment]:
    """The installed experiments with their published numbers, by the entry points 'invariance.experiments'."""
    from importlib.metadata import entry_points

    return {point.name: point.load() for point in entry_points(group="invariance.experiments")}


def _found(arguments):
    finished, others = [], []
    # A folder that is named twice is read once.
    for runs in {Path(runs).resolve(): runs for runs in arguments.runs or ["runs"]}.values():
        if not Path(runs).is_dir():
            raise UserError(f"--runs: there is no folder {runs}")
        more = find(runs)
        finished += more[0]
        others += more[1]
    finished, repeated = once(finished)
    return finished, others + repeated


def _claims():
    """The installed claims, by the entry points 'invariance.claims'."""
    from importlib.metadata import entry_points

    return [claim for point in entry_points(group="invariance.claims") for claim in point.load()]


def _report(arguments):
    from invariance import claims
    from invariance.page import Page
    from invariance.report import between_markers, tables

    finished, others = _found(arguments)
    experiments = _experiments()
    made = tables(finished, experiments)
    verdicts = claims.judge(_claims(), finished)
    if arguments.claims:
        print("\n".join(verdict.text() for verdict in verdicts))
    else:
        print("\n\n".join(table.text() for table in made) or "No finished runs.")
    for path, reason in others:
        print(f"{path}: {reason}")
    text = "\n".join([*(table.markdown() for table in made), claims.markdown(verdicts)])
    page = Page(finished, others, made, verdicts, experiments)
    if arguments.markdown:
        write_text(Path(arguments.markdown), page.markdown())
    if arguments.html:
        write_text(Path(arguments.html), page.html())
    for path in filter(None, (arguments.html, arguments.markdown)):
        print(f"written to {path}")
    if arguments.readme:
        path = Path(arguments.readme)
        try:
            write_text(path, between_markers(path.read_text(encoding="utf-8"), text))
        except (OSError, ValueError) as error:
            raise UserError(f"--readme: {path}: {error}") from error
    unreadable = [str(path) for path, reason in others if reason not in (UNFINISHED, REPEATED)]
    if unreadable:
        raise UserError(f"unreadable: {', '.join(unreadable)}")


def _list(arguments):
    for name, experiment in _experiments().items():
        print(f"{name}: {experiment.title}\n  models: {', '.join(experiment.models)}")
    finished, others = _found(arguments)
    for run in finished:
        print(f"{run.folder.path}: finished, commit {run.provenance('commit')}")
    for path, reason in others:
        print(f"{path}: {reason}")


def _evaluate(arguments):
    folder = RunFolder(Path(arguments.run))
    redraws = _integer("--redraws", arguments.redraws, 0, 10**6)
    upright_last = _integer("--upright-last", arguments.upright_last, 0, 10**9)
    if upright_last and not redraws:
        raise UserError("--upright-last: only the redraws can leave images upright; add --redraws N")
    if not folder.done:
        raise UserError(f"{folder.path} is not the folder of a finished run")
    try:
        protocol = protocol_from_json(folder.json("config.json")["protocol"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error
    usual = "5" if isinstance(protocol, Recognition) else "full"
    spacing = _spacing("--grid-spacing", arguments.grid_spacing or usual, protocol)
    file = None if arguments.json is None else _file("--json", arguments.json)
    if file and file.exists():
        # It might be one of the run's own.
        raise UserError(f"--json: the name of a new file is needed; {arguments.json!r} is there already")
    from invariance import running

    return running.evaluate_again(folder, protocol, spacing, redraws, arguments.dataset, upright_last, file)


def _file(option, value) -> Path:
    """Where a result goes, checked before the minutes it takes to measure it."""
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option}: a file in an existing folder is needed; it is {value!r}")
    return path


def _notebooks(arguments):
    from invariance.notebooks import RUNS, execute_all

    for path in arguments.notebook:
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such notebook")
    os.environ[RUNS] = str(Path(arguments.runs).resolve())
    execute_all(arguments.notebook, arguments.out or Path(arguments.runs) / "notebooks")


def _bench(arguments):
    from invariance import benchmark

    try:
        seconds = float(arguments.seconds)
    except ValueError:
        raise UserError(f"--seconds: a positive number is needed; it is {arguments.seconds!r}") from None
    file = _file("--json", arguments.json)
    return benchmark.main(arguments.precision.split(","), seconds, file)
