"""Finished runs below a folder. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from invariance.errors import UserError
from invariance.runs.folder import RunFolder
from invariance.tasks import Task, task_from_json

# Why a folder is not shown, if nothing is wrong with it.
UNFINISHED = "not finished; repeat its command to resume it"
REPEATED = "left out: another folder holds the same model and seed"
# A device or commit that a run folder does not tell.
UNKNOWN = "unknown"

# What distinguishes runs.
_NAMES = ("experiment", "model", "dataset", "profile", "seed")


@dataclass(frozen=True)
class Run:
    """A run that was read.

    Attributes:
        folder: its folder.
        config, metrics: what its files say.
        task: what it was measured at.
    """

    folder: RunFolder
    config: dict
    metrics: dict
    task: Task

    def provenance(self, key: str) -> str:
        """Its "device" or "commit"; "... then ..." where it was resumed with another."""
        before = [self.config, *(self.config.get("resumed") or [])]
        return " then ".join(dict.fromkeys(str(each.get(key) or UNKNOWN) for each in before))

    def curve(self, labels: Iterable[int]) -> dict[float, float]:
        """The mean over some classes of what curves.csv says: parameter -> value.

        Raises:
            UserError: if the file is not there or not readable.
        """
        chosen, points = set(labels), {}
        for row in self.folder.csv("curves.csv"):
            try:
                if row["digit"] in chosen:
                    points.setdefault(float(row["parameter"]), []).append(float(row["value"]))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{self.folder / 'curves.csv'}: unreadable ({error!r})") from error
        return {point: sum(values) / len(values) for point, values in points.items()}


def read_task(folder: RunFolder, config: Mapping) -> Task:
    """The task in a run's config.json.

    Raises:
        UserError: if there is none.
    """
    try:
        return task_from_json(config["protocol"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error


def find(runs: str | Path) -> tuple[list[Run], list[tuple[Path, str]]]:
    """Reads all runs below a folder.

    Returns:
        The finished runs, in order of their paths, and the other folders: (folder, reason).
    """
    finished, others = [], []
    for config in sorted(Path(runs).glob("*/*/*/*/seed-*/config.json")):
        folder = RunFolder(config.parent)
        if not folder.done:
            others.append((folder.path, UNFINISHED))
            continue
        try:
            finished.append(_read(folder))
        except UserError as error:
            others.append((folder.path, str(error)))
    return finished, others


def _read(folder: RunFolder) -> Run:
    config, metrics = folder.json("config.json"), folder.json("metrics.json")
    task = read_task(folder, config)
    try:
        if missing := [key for key in _NAMES if key not in metrics]:
            raise ValueError(f"lacks {', '.join(missing)}")
        for key in ("seed", "train_seconds"):
            if not isinstance(metrics.get(key, 0.0), (int, float)):
                raise ValueError(f"not a number: {key}")
        task.require_metrics(metrics)
    except ValueError as error:
        raise UserError(f"{folder / 'metrics.json'}: {error}") from error
    return Run(folder, config, metrics, task)


def once(runs: Iterable[Run]) -> tuple[list[Run], list[tuple[Path, str]]]:
    """The first of the runs that are the same but for their folder, and the others: (folder, reason)."""
    chosen, repeated = {}, []
    for run in runs:
        key = tuple(run.metrics[name] for name in _NAMES)
        if key in chosen:
            repeated.append((run.folder.path, REPEATED))
        else:
            chosen[key] = run
    return list(chosen.values()), repeated
