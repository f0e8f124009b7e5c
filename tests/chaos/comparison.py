"""Compares the folders of two finished runs, to the bit where that is promised."""

import csv
import io
import json
import zipfile

import numpy as np

from tests.helpers import stored_arrays
from tests.runs.cases import VARYING


def differences(folder, other):
    """What differs between the folders of two equal runs: a list of texts. Times and memory may, and the commit."""
    mine, theirs = ({str(path.relative_to(each)) for path in each.rglob("*")} for each in (folder, other))
    found = [f"{name}: {'unexpected' if name in mine else 'missing'}" for name in sorted(mine ^ theirs)]
    for name in sorted(mine & theirs):
        if (folder / name).is_file() and name != ".lock":
            found += [f"{name}: {what}" for what in _different(folder / name, other / name)]
    return found


def _different(path, other):
    if path.name == "metrics.json":
        yield from _unequal(*(_without_times(json.loads(each.read_text())) for each in (path, other)))
    elif path.name == "config.json":
        yield from _unequal(*(_without_commit(json.loads(each.read_text())) for each in (path, other)))
    elif path.name == "history.csv":
        rows = [list(csv.DictReader(io.StringIO(each.read_text()))) for each in (path, other)]
        yield from _unequal(*([{**row, "seconds": None} for row in each] for each in rows))
        seconds = [float(row["seconds"]) for row in rows[0]]
        if seconds != sorted(seconds):
            yield "time runs backwards"
    elif path.suffix == ".keras":
        yield from _unequal_models(path, other)
    elif path.read_bytes() != other.read_bytes():
        yield "other bytes"


def _without_times(metrics):
    """The content of metrics.json, without what differs between equal runs."""
    kept = {key: value for key, value in metrics.items() if key not in VARYING}
    if "learned" in kept:
        kept["learned"] = {key: value for key, value in kept["learned"].items() if key != "seconds"}
    return kept


def _without_commit(config):
    """The content of config.json without what changes when somebody works on the program meanwhile."""
    return {key: value for key, value in config.items() if key not in ("commit", "resumed")}


def _without_addresses(value):
    """A part of a model's configuration, without what Keras makes of addresses in memory."""
    return {key: each for key, each in value.items() if key != "shared_object_id"}


def _unequal(mine, theirs):
    if mine != theirs:
        keys = [key for key in mine if mine[key] != theirs.get(key)] if isinstance(mine, dict) else []
        yield f"other values{' of ' + ', '.join(keys) if keys else ''}"


def _unequal_models(path, other):
    """Archives hold the time at which they were written, so their parts are compared."""
    configs = []
    for each in (path, other):
        with zipfile.ZipFile(each) as archive:
            configs.append(json.loads(archive.read("config.json"), object_hook=_without_addresses))
    yield from _unequal(*configs)
    arrays = [stored_arrays(each) for each in (path, other)]
    if arrays[0].keys() != arrays[1].keys():
        yield "other arrays"
        return
    for name, array in arrays[0].items():
        if not np.array_equal(array, arrays[1][name], equal_nan=array.dtype.kind == "f"):
            yield f"other values of {name}"
