"""Orbit pooling of a run's network: the same at the end of the run and later, in a file beside the run's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from invariance.files import write_json
from invariance.progress import Progress
from invariance.runs.folder import ORBIT, RunFolder
from invariance.runs.provenance import provenance
from invariance.tasks import Task
from invariance.tasks.task import Evaluation

if TYPE_CHECKING:
    from invariance.datasets import Data


def measure_orbit(
    folder: RunFolder,
    task: Task,
    model: Any,
    data: Data,
    classes: Sequence[int],
    evaluation: Evaluation,
    progress: Progress,
) -> dict:
    """Measures a network with orbit pooling, and writes orbit.json into its run's folder.

    Args:
        folder: the run.
        task, model, data, classes, evaluation, progress: see `Task.measure_orbit`.

    Returns:
        What was written: what `Task.measure_orbit` returns, versions, device and commit.

    Raises:
        UserError: see `Task.measure_orbit`.
        RunError: if the file cannot be written.
    """
    found = {**task.measure_orbit(model, data, classes, evaluation, progress), **provenance()}
    write_json(folder / ORBIT, found)
    return found


def lines(found: Mapping, task: Task) -> list[str]:
    """The content of orbit.json, line by line."""
    texts = [f"orbit pooling, {found['copies']} copies ({found['told']}), 95 % intervals over images"]
    for name, pooled in found["pooled"].items():
        named = [
            f"{column.title} {column.form(pooled[column.key])} "
            f"({'–'.join(map(column.form, pooled['interval'][column.key]))})"
            for column in task.columns(task.restricted)
            if pooled[column.key] is not None
        ]
        texts.append(f"{name}: {', '.join(named)}")
    return texts
