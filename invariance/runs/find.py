"""Finds runs below a folder and reads them. Imports no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invariance.errors import UserError
from invariance.runs.folder import ORBIT, RunFolder
from invariance.tasks import Task, task_from_json

# Reasons to omit a folder with which nothing is wrong.
UNFINISHED = "not finished; repeat its command to resume it"
REPEATED = "omitted: another folder holds the same model and seed"
# A device or commit that is not recorded.
UNKNOWN = "unknown"

# Together they identify a run.
_NAMES = ("experiment", "model", "dataset", "profile", "seed")
# What tables and pages read of every task's metrics.
_TYPE_NAMES: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    (int, float): "a number",
    dict: "an object",
    list: "a list",
}
_TYPES: dict[str, Any] = {
    **dict.fromkeys(_NAMES, str),
    "seed": int,
    **dict.fromkeys(("train_seconds", "evaluate_seconds"), (int, float)),
    **dict.fromkeys(("interval", "images"), dict),
    "never_answers": list,
}


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
    if not all(isinstance(each, dict) for each in (config.get("resumed") or [])):
        raise UserError(f"{folder / 'config.json'}: resumed is not a list of objects")
    try:
        if missing := [key for key in _NAMES if key not in metrics]:
            raise ValueError(f"lacks {', '.join(missing)}")
        for key, value in metrics.items():
            expected = _TYPES.get(key)
            # To Python, a truth value is an int, and infinity and NaN are floats.
            if expected and (not isinstance(value, expected) or isinstance(value, bool) or _is_odd(value)):
                raise ValueError(f"{key} is not {_TYPE_NAMES[expected]}: {value!r}")
        task.require_metrics(metrics)
    except ValueError as error:
        raise UserError(f"{folder / 'metrics.json'}: {error}") from error
    return Run(folder, config, metrics, task, _read_orbit(folder, task))


def _read_orbit(folder: RunFolder, task: Task) -> dict | None:
    if not (folder / ORBIT).exists():
        return None
    found = folder.json(ORBIT)
    try:
        for pooled in found["pooled"].values():
            task.require_metrics(pooled)
        if not all(isinstance(found[key], kind) for key, kind in (("copies", int), ("told", str))):
            raise ValueError("copies is not a whole number, or told not a text")
    except (KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / ORBIT}: not what was measured ({error})") from error
    return found


def _is_odd(value: Any) -> bool:
    """Whether a value is a number that is not finite."""
    return isinstance(value, float) and not math.isfinite(value)


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
