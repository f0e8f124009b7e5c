"""Where runs are carried out: here, each in a process of its own."""

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
    """Carries runs out, up to ``jobs`` at a time.

    Args:
        configs: what to run.
        runs: the folder of all runs.
        options: how; the parent process is this one.
        jobs: 1 to the number of cores.
        data: the dataset, if it has been loaded already.
        first: what is called in the process of one of the runs before it starts; it may load the data.

    Returns:
        The runs that failed, each reported on standard error if there are others.

    Raises:
        UserError, RunError: if the only run fails, or the others would fail for the same reason.
        Interrupted: if asked to stop; every run has saved its state.
    """
    options = replace(options, parent=os.getpid(), live=options.live and jobs == 1)

    def action(config: RunConfig) -> None:
        loaded = first[1]() if first and first[0] is config else data
        execute(config, runs, options, loaded)

    failures = []
    with closing(in_children([partial(action, config) for config in configs], jobs)) as ends:
        for number, error, _ in ends:
            if error is None:
                continue
            if options.overwrite:
                # The same command would throw away what has been done.
                error.args = (str(error).replace("epeat the command", "epeat the command without --overwrite"),)
            # Other models may still be run; not after a request to stop, nor if the mistake is common to all.
            others = getattr(error, "exit_code", None) == RunError.exit_code or isinstance(error, ModelError)
            if not others or len(configs) == 1:
                raise error
            print(f"error: {error}", file=sys.stderr)
            failures.append((configs[number], error))
    return failures
