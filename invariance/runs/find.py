"""Finds runs below a folder and reads them. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invariance.errors import UserError, located, one_line
from invariance.runs.folder import CHECKPOINT, ORBIT, RunFolder
from invariance.schema import listed
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
        orbit: the content of orbit.json, see `Task.measure_orbit`; None without it.
    """

    folder: RunFolder
    config: dict
    metrics: dict
    task: Task
    orbit: dict | None = None

    def provenance(self, key: str) -> str:
        """Its "device" or "commit": "A then B" if it was resumed with another."""
        before = [self.config, *(self.config.get("resumed") or [])]
        return " then ".join(dict.fromkeys(str(each.get(key) or UNKNOWN) for each in before))

    def curves(self) -> list[dict[str, Any]]:
        """The rows of curves.csv: digit, parameter, value.

        Raises:
            UserError: if the file is missing or unreadable.
        """
        rows = self.folder.csv("curves.csv")
        if not rows:
            raise UserError(f"{self.folder / 'curves.csv'}: expected rows of numbers; received none")
        self.folder.check("curves.csv", [row["value"] for row in rows], listed(self.task.values))
        points: dict[int, list[float]] = {}
        for row in rows:
            points.setdefault(row["digit"], []).append(row["parameter"])
        for digit, measured in points.items():
            if measured != points[rows[0]["digit"]]:
                raise UserError(
                    f"{self.folder / 'curves.csv'}: expected the same parameters for all classes; {digit} differs"
                )
        return rows

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
        for row in self.curves():
            if row["digit"] in chosen:
                points.setdefault(float(row["parameter"]), []).append(float(row["value"]))
        return {point: sum(values) / len(values) for point, values in points.items()}


def read_task(folder: RunFolder, config: Mapping) -> Task:
    """The task that a run's config.json describes.

    Raises:
        UserError: if it describes none.
    """
    try:
        return task_from_json(config["protocol"])
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{folder / 'config.json'}: not a run's configuration ({located(error, '')})") from error


def read_metrics(folder: RunFolder, task: Task) -> dict[str, Any]:
    """What a run measured.

    Raises:
        UserError: if metrics.json cannot be read, or is not what its task measures.
    """
    metrics = folder.json("metrics.json")
    _require(folder / "metrics.json", task, metrics)
    return metrics


def read(folder: RunFolder) -> Run:
    """Reads a finished run.

    Raises:
        UserError: if one of its files cannot be read, or does not hold what such a run's does.
    """
    config = folder.json("config.json")
    task = read_task(folder, config)
    return Run(folder, config, read_metrics(folder, task), task, _read_orbit(folder, task))


def _read_orbit(folder: RunFolder, task: Task) -> dict | None:
    if not folder.has(ORBIT):
        return None
    found = folder.json(ORBIT)
    for pooled in found["pooled"].values():
        _require(folder / ORBIT, task, pooled)
    return found


def _require(path: Path, task: Task, metrics: Mapping) -> None:
    try:
        task.require_metrics(metrics)
    except ValueError as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def find(runs: str | Path) -> tuple[list[Run], list[tuple[Path, str]]]:
    """Reads all runs below a folder.

    Returns:
        The finished runs, sorted by path, and (folder, reason) for each run that is unfinished or unreadable.
    """
    finished, others = [], []
    for path in sorted(Path(runs).glob("*/*/*/*/seed-*")):
        folder = RunFolder(path)
        if not any(map(folder.has, ("config.json", "metrics.json", CHECKPOINT))):
            continue  # nothing has been written yet
        try:
            if folder.done:
                finished.append(read(folder))
            else:
                folder.json("config.json")
                others.append((path, UNFINISHED))
        except UserError as error:
            others.append((path, str(error)))
    return finished, others


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
