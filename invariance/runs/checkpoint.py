"""The state of an unfinished run: saved atomically, restored exactly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from invariance.errors import RunError, located
from invariance.files import opened, replacing
from invariance.runs.schema import HISTORY, PROGRESS
from invariance.schema import bounded, check, decode, short


def state_variables(model: Any) -> list[Any]:
    """Every variable that training changes: weights, random states, metrics, optimiser states."""
    import keras

    variables = [*model.variables, *model.metrics_variables]
    for part in (model, *model._flatten_layers(include_self=False)):
        # Optimisers may be attributes, or elements of lists and dictionaries. Keras tracks only `optimizer`.
        for value in [getattr(part, "optimizer", None), *vars(part).values()]:
            values = value.values() if isinstance(value, dict) else value
            for optimizer in values if isinstance(value, (dict, list, tuple)) else [value]:
                if isinstance(optimizer, keras.optimizers.Optimizer):
                    variables += optimizer.variables
    return list({id(variable): variable for variable in variables}.values())


def save(path: Path, model: Any, progress: dict) -> None:
    """Saves the state of a training run atomically.

    Args:
        path: the file.
        model: a Keras model.
        progress: anything that JSON can hold, with the number of steps under "step".

    Raises:
        RunError: if the file cannot be written or a weight is not finite. An earlier checkpoint stays as it was.
    """
    arrays: dict[str, Any] = {
        f"v{number}": np.asarray(variable) for number, variable in enumerate(state_variables(model))
    }
    for array in arrays.values():
        # If a term is not finite the sum is not, and it needs no temporary array.
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array.sum(dtype=np.float64)):
            raise RunError(f"a weight is not finite after step {progress['step']}")
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, progress=json.dumps(progress), **arrays)


def load(path: Path, model: Any, steps: int) -> dict[str, Any]:
    """Restores a saved state into a model, its optimisers and its metrics.

    Args:
        path: the file.
        model: a Keras model.
        steps: of the whole training.

    Returns:
        The progress that was saved with it.

    Raises:
        RunError: if the file is damaged or belongs to another training.
    """
    variables = state_variables(model)
    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as archive:
            progress = _progress(archive)
            arrays = [archive[f"v{number}"] for number in range(len(archive.files) - 1)]
    except Exception as error:  # a damaged archive may raise anything
        raise RunError(f"{path}: the checkpoint is damaged ({located(error, '')}); {_REMEDY}") from error
    if progress["step"] > steps:
        raise RunError(f"{path}: the checkpoint is of step {progress['step']:,}, but there are {steps:,}; {_REMEDY}")
    found = [(array.shape, array.dtype) for array in arrays]
    if found != [(tuple(variable.shape), np.dtype(variable.dtype)) for variable in variables]:
        raise RunError(f"{path}: the checkpoint belongs to another model; {_REMEDY}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return progress


def saved_step(path: Path) -> int:
    """The step of a checkpoint; 0 if it is missing or unreadable."""
    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as archive:
            return _progress(archive)["step"]
    except Exception:  # a damaged archive may raise anything; `load` reports it
        return 0


_REMEDY = "--overwrite starts the run again"


def _progress(archive: Mapping[str, Any]) -> dict[str, Any]:
    """The progress in an opened checkpoint; raises ValueError if it is none."""
    progress = decode(str(archive["progress"]).encode())
    bounded(progress, most=10**9)  # a row may have been logged for each step
    check(progress, PROGRESS)
    for row in progress["history"]:
        check(row, HISTORY)
        if row.keys() != progress["history"][0].keys():
            raise ValueError(f"history: expected equal fields in all rows; received {short(list(row))}")
    return progress
