"""Carries out several runs, each in a process of its own on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from invariance.errors import ModelError, RunError
from invariance.processes import in_children
from invariance.runs.execute import Options, RunConfig, execute
from invariance.wording import printable

if TYPE_CHECKING:
    from invariance.datasets import Data


def carry_out(
    configs: Sequence[RunConfig],
    runs: str | Path,
    options: Options,
    jobs: int = 1,
    data: Data | None = None,
    first: tuple[RunConfig, Callable[[], Data | None]] | None = None,
) -> list[tuple[RunConfig, Exception]]:
    """Carries out runs, up to ``jobs`` at a time.

    Args:
        configs: the runs.
        runs: the folder of all runs.
        options: how to carry them out; ``parent`` becomes this process.
        jobs: 1 to the number of cores.
        data: the dataset, if it is loaded already.
        first: one of the runs, and a function that is called in its process before it starts and may load the data.

    Returns:
        The runs that failed while others could go on. Their errors have been printed to standard error.

    Raises:
        UserError: if a mistake concerns all runs.
        RunError, ModelError: if the only run fails.
        Interrupted: if asked to stop. Every run has saved its state.
    """
    options = replace(options, parent=os.getpid(), live=options.live and jobs == 1)

    def action(config: RunConfig) -> None:
        loaded = first[1]() if first and first[0] is config else data
        execute(config, runs, options, loaded)

    failures = []
    with closing(in_children([partial(action, config) for config in configs], jobs)) as ended:
        for index, error, _ in ended:
            if error is None:
                continue
            if options.overwrite:
                # Repeating the very same command would discard the saved state.
                error.args = (str(error).replace("repeat the command", "repeat the command without --overwrite"),)
            # Not after a request to stop, nor if the mistake concerns all runs.
            others_may_run = getattr(error, "exit_code", None) == RunError.exit_code or isinstance(error, ModelError)
            if not others_may_run or len(configs) == 1:
                raise error
            print(f"error: {printable(error)}", file=sys.stderr)
            failures.append((configs[index], error))
    return failures
