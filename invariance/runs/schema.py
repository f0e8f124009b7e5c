"""What the files of a run hold, by their names. Metrics are declared by the tasks, see `Task.require_metrics`."""

from typing import Any

from invariance.schema import Amount, Count, Identifier, Name, Seed, listed, record

_PROVENANCE = {"versions": dict[str, str | None], "device": str, "commit": str | None}

CONFIG = record(
    "config",
    {"protocol": dict[str, Any]},
    {
        **dict.fromkeys(("experiment", "dataset", "profile", "model"), Name),
        "seed": Seed,
        "precision": str,
        "model_arguments": dict[str, Any],
        "budget": record("budget", {}, {"steps": Count}),
        "data_sha256": dict[str, str],
        "data_source": str,
        "builder_file": str,
        "sweep": record("sweep", {}, {"suite": str, "varied": Identifier | None}),
        "resumed": listed(record("resumed", {}, _PROVENANCE)),
        **_PROVENANCE,
    },
)
# What every task's metrics.json holds.
METRICS = record(
    "metrics",
    {**dict.fromkeys(("experiment", "model", "dataset", "profile"), Name), "seed": Seed},
    {
        "precision": str,
        **dict.fromkeys(
            ("train_seconds", "evaluate_seconds", "train_images_per_second", "peak_memory_mb", "parameters"), Amount
        ),
        "learned": dict[str, Any],
    },
)
ORBIT = record("orbit", {"copies": Count, "told": str, "pooled": dict[str, dict[str, Any]]}, _PROVENANCE)
# Rows of history.csv. A network's losses may have any sign, and any name.
HISTORY = record("history", {"step": Count, "images": Count, "seconds": Amount})
# Of a checkpoint.
PROGRESS = record("progress", {"step": Count, "seconds": Amount, "history": list[dict[str, float]]})

OBJECTS = {"config.json": CONFIG, "metrics.json": METRICS, "orbit.json": ORBIT}
ROWS = {
    "history.csv": HISTORY,
    "curves.csv": record(
        "curves", {"digit": Count, "parameter": float, "value": Amount}, {"images": Count, "deviation": Amount}
    ),
    "predictions.csv": record(
        "predictions", dict.fromkeys(("digit", "predicted", "images"), Count) | {"parameter": float}
    ),
}
