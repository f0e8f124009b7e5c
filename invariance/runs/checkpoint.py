"""The state of an unfinished run: written atomically, put back exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from invariance.errors import RunError
from invariance.files import replacing


def state_variables(model: Any) -> list:
    """All that a training run changes: weights, random states, metrics, the state of every optimiser."""
    import keras

    variables = [*model.variables, *model.metrics_variables]
    for part in (model, *model._flatten_layers(include_self=False)):
        # Optimisers may be attributes, or lie in lists and dictionaries that are; Keras tracks none but `optimizer`.
        for value in [getattr(part, "optimizer", None), *vars(part).values()]:
            several = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            )
            for optimizer in several:
                if isinstance(optimizer, keras.optimizers.Optimizer):
                    variables += optimizer.variables
    return list({id(variable): variable for variable in variables}.values())


def save(path: Path, model: Any, progress: dict) -> None:
    """Writes the state of a training run atomically.

    Raises:
        RunError: if it cannot be written, or a weight is not finite; an older checkpoint stays as it was.
    """
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(state_variables(model))}
    for array in arrays.values():
        # A sum is not finite if a term is not, and needs no temporary array.
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array.sum(dtype=np.float64)):
            raise RunError(f"a weight is not finite after step {progress['step']}")
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, progress=json.dumps(progress), **arrays)


def load(path: Path, model: Any) -> dict:
    """Restores a saved state into a model, its optimisers and metrics; returns the progress saved with it.

    Raises:
        RunError: if the file is damaged or was written for another model.
    """
    variables = state_variables(model)
    try:
        with np.load(path, allow_pickle=False) as archive:
            progress = json.loads(str(archive["progress"]))
            arrays = [archive[f"v{number}"] for number in range(len(archive.files) - 1)]
    except Exception as error:  # a damaged archive raises whatever its first bad byte provokes
        raise RunError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}); --overwrite starts the run anew"
        ) from error
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise RunError(f"{path}: the checkpoint was written for another model; --overwrite starts the run anew")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return progress


def saved_step(path: Path) -> int:
    """The step that a run resumes from: 0 if there is no checkpoint, or one that cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return json.loads(str(archive["progress"]))["step"]
    except Exception:  # a damaged archive raises whatever its first bad byte provokes; whoever loads it says so
        return 0
