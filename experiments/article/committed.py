"""Numbers of the committed runs (experiments/results) for texts that cite them; read when a text is shown."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from invariance.report.statistics import mean
from invariance.runs.find import Run, find
from invariance.tasks.columns import ratio, share

RESULTS = Path(__file__).resolve().parents[1] / "results"


@cache
def runs() -> tuple[Run, ...]:
    """The committed runs; none if they are not installed."""
    return tuple(find(RESULTS)[0])


class Numbers:
    """Nested numbers as the values of a format string: ``"{numbers:mse_out.4}"`` is the number at that path.

    Whole numbers are written with separators, ratios with two decimals, all others with four, missing ones as a dash,
    and texts as they are.
    """

    def __init__(self, values: Mapping[str, Any]):
        self.values = values

    def __format__(self, path: str) -> str:
        value: Any = self.values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, (int, str)):
            return f"{value:,}" if isinstance(value, int) else value
        return ratio(value) if path.startswith("ratio") else share(value)


def runs_of(folder: str) -> list[Run]:
    """The committed runs in a folder of experiments/results, or the one whose folder it is."""
    return [run for run in runs() if (RESULTS / folder) in (run.folder.path, *run.folder.path.parents)]


def numbers_of(folder: str) -> Numbers:
    """The metrics of a folder's runs, averaged over the seeds, the settings of the first, and "runs", their number."""
    found = runs_of(folder)
    counted = {"runs": len(found)}
    return Numbers({**found[0].config, **mean([run.metrics for run in found]), **counted} if found else counted)


class Text:
    """A text that cites committed runs, filled in whenever it is turned into a string.

    ``"{cnn_00:p_inv}"`` is P_inv of the runs in the folder cnn_00, averaged over the seeds; ``{cnn_00/seed-2:p_inv}``
    that of one run. Numbers of runs that are missing are dashes.

    Args:
        template: a format string.
        folder: the folder of the results that the template's folders lie in.
        values: whatever else the template names; functions without arguments are called for the value.
    """

    def __init__(self, template: str, folder: str, **values: Any):
        self.template, self.folder, self.values = template, folder, values

    def __str__(self) -> str:
        values = {key: value() if callable(value) else value for key, value in self.values.items()}
        return self.template.format_map(_Values(self.folder, values))


class _Values(dict):
    def __init__(self, folder: str, values: Mapping[str, Any]):
        super().__init__(values)
        self.folder = folder

    def __missing__(self, name: str) -> Numbers:
        return numbers_of(f"{self.folder}/{name}")
