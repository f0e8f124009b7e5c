"""``python -m experiments.<suite>``: the runs of several experiments, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from invariance import output
from invariance.cli import arguments as check
from invariance.cli import run
from invariance.errors import Interrupted, RunError, UserError
from invariance.experiment import Part, Suite

# What the parts of a suite decide themselves.
_OWN = ("--models", "--control", "--restricted", "--also-restricted", "--shown", "--excluded", "--set", "--steps")


def run_suite(suite: Suite, argv: Sequence[str] | None = None) -> int:
    """Runs a suite from the command line; returns the exit code. A part that fails does not stop the others."""
    return check.guarded(lambda: _run_suite(suite, argv))


def _run_suite(suite: Suite, argv: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if "--help" in given or "-h" in given:
        print_help(suite.title, suite.parts)
        return 0
    refuse_own(given)
    commands = [(part, arguments_of(part, given)) for part in suite.parts]
    for part, arguments in commands:
        # All of them now, because the last may start hours after the first.
        run.checked(part.experiment, arguments)
    codes = []
    for number, (part, arguments) in enumerate(commands, 1):
        if "--quiet" not in given:
            print(f"\n[{number} of {len(commands)}] {part}", flush=True)
        codes.append(run.run_experiment(part.experiment, arguments))
        if codes[-1] in (Interrupted.exit_code, UserError.exit_code):
            break  # stopped, or a mistake that all parts share
    if codes[-1] in (Interrupted.exit_code, UserError.exit_code):
        return codes[-1]  # the part has said why
    if failed := [str(part) for (part, _), code in zip(commands, codes, strict=False) if code]:
        raise RunError(f"not finished: {'; '.join(failed)}")
    return 0


def print_help(title: str, lines: Iterable[object]) -> None:
    """Prints what a suite runs."""
    print(f"{title}\n\nRuns, each with the options given here:")
    print("\n".join(f"  {line}" for line in lines))
    print(f"\nOptions: those of every experiment (see --help there), without {', '.join(_OWN)}.")
    output.require_written()


def refuse_own(given: Sequence[str]) -> None:
    """Raises UserError if one of the given options is what the parts of a suite decide."""
    for option in given:
        if option.partition("=")[0] in _OWN:
            raise UserError(f"{option.partition('=')[0]}: decided by the suite; run its experiments one by one instead")


def arguments_of(part: Part, given: Sequence[str]) -> list[str]:
    """The command line of a part, with the options given to the suite."""
    return ["--models", ",".join(part.models), *part.options, *given]
