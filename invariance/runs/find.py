"""Finds runs below a folder and reads them. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from invariance.errors import UserError
from invariance.runs.folder import RunFolder
from invariance.tasks import Task, task_from_json

# Reasons to omit a folder with which nothing is wrong.
UNFINISHED = "not finished; repeat its command to resume it"
REPEATED = "omitted: another folder holds the same model and seed"
# A device or commit that is not recorded.
UNKNOWN = "unknown"

# Together they identify a run.
_NAMES = ("experiment", "model", "dataset", "profile", "seed")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: its folder.
        config, metrics: the content of config.json and metrics.json.
        task: what it was trained on and measured at.
    """

    folder: RunFolder
    config: dict
    metrics: dict
    task: Task

    def provenance(self, key: str) -> str:
        """Its "device" or "commit": "A then B" if it was resumed with another."""
        before = [self.config, *(self.config.get("resumed") or [])]
        return " then ".join(dict.fromkeys(str(each.get(key) or UNKNOWN) for each in before))

    def curve(self, labels: Iterable[int]) -> dict[float, float]:
        """The mean over some classes of the values in curves.csv.

        Args:
            labels: the classes.

        Returns:
            {parameter: value}

        Raises:
            UserError: if the file is missing or unreadable.
        """
        chosen, points = set(labels), dict[float, list[float]]()
        for row in self.folder.csv("curves.csv"):
            try:
                if row["digit"] in chosen:
                    points.setdefault(float(row["parameter"]), []).append(float(row["value"]))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{self.folder / 'curves.csv'}: unreadable ({error!r})") from error
        return {point: sum(values) / len(values) for point, values in points.items()}


def read_task(folder: RunFolder, config: Mapping) -> Task:
    """The task that a run's config.json describes.

    Raises:
        UserError: if it describes none.
    """
    try:
        return task_from_json(config["protocol"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({error!r})") from error


def find(runs: str | Path) -> tuple[list[Run], list[tuple[Path, str]]]:
    """Reads all runs below a folder.

    Returns:
        The finished runs, sorted by path, and (folder, reason) for each run that is unfinished or unreadable.
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
    """The first of all runs with the same model and seed, and (folder, reason) for each of the others."""
    chosen, repeated = {}, []
    for run in runs:
        key = tuple(run.metrics[name] for name in _NAMES)
        if key in chosen:
            repeated.append((run.folder.path, REPEATED))
        else:
            chosen[key] = run
    return list(chosen.values()), repeated
