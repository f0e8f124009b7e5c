"""The benchmark measures the published networks; its table and JSON file, with networks that take no time."""

import json
from functools import partial

import keras
import pytest

from experiments import (
    generation_affine,
    generation_rotation,
    generation_shift,
    recognition_rotation,
    rotation_compensation,
)
from invariance import benchmark
from invariance.cli import main
from tests.runs.cases import CASES


def test_networks_are_those_of_the_experiments():
    """But for batch norm's statistics and the tasks' measurements, which cost nothing."""
    modules = (recognition_rotation, generation_rotation, generation_shift, rotation_compensation, generation_affine)
    experiments = [module.EXPERIMENT for module in modules]
    declared = {name: experiment for experiment in experiments for name in experiment.models}
    for name, (network, task, batch_size) in benchmark.networks().items():
        name, _, width = name.partition(", F = ")
        experiment = declared[name]
        entry = experiment.models[name]
        assert network == entry.model or (width and network.feature_maps == int(width))
        measured = experiment.task_of(name)
        assert (type(task), task.ranges, task.excluded, batch_size) == (
            type(measured), measured.ranges, measured.excluded, entry.budgets["paper"].batch_size,
        )  # fmt: skip
        sizes = task.arguments((28, 28, 1), range(8))
        assert network.training_flops(*sizes) > network.evaluation_flops(*sizes) > 0


def test_table_and_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "EVALUATION_BATCH", 4)
    monkeypatch.setattr(benchmark, "BATCH", 8)
    monkeypatch.setattr(benchmark, "Peak", partial(benchmark.Peak, side=64))
    tiny = {
        name: (CASES[name].model, CASES[name].task, 8) for name in ("recognition_by_rotation", "generation_by_shift")
    }
    monkeypatch.setattr(benchmark, "networks", lambda: tiny)
    policy, file = keras.config.dtype_policy(), tmp_path / "bench.json"
    try:
        assert main(["bench", "--precision", "float32", "--seconds", "0.01", "--json", str(file)]) == 0
    finally:
        keras.config.set_dtype_policy(policy)
    written = json.loads(file.read_text())
    rows = {(row["name"], row["precision"]): row for row in written["rows"]}
    assert list(rows) == [
        *(("matrix product, 2048 x 2048", precision) for precision in ("float32", "bfloat16")),
        ("warp", "float32"),
        ("input pipeline", "float32"),
        *((f"{name} {part}", "float32") for name in tiny for part in ("training step", "evaluation")),
    ]
    lines = capsys.readouterr().out.splitlines()
    for (name, precision), row in rows.items():
        [line] = [line for line in lines if line.startswith(f"{name} ({precision})")]
        numbers = [float(word.rstrip("%").replace(",", "")) for word in line.split(")")[-1].split()]
        shown = [row[key] for key in ("images_per_second", "gflops", "share_of_peak") if key in row]
        assert len(numbers) == len(shown) and all(value > 0 for value in shown)
        assert numbers[0] == pytest.approx(shown[0], abs=0.5)
    for name in tiny:
        step, evaluation = (rows[f"{name} {part}", "float32"] for part in ("training step", "evaluation"))
        assert {"gflops", "share_of_peak"} <= step.keys() & evaluation.keys()
        point = written["ratios"][f"{name} one point of 10,000 test images, seconds"]
        assert point == pytest.approx(10_000 / evaluation["images_per_second"])
        parts = sum(1 / rows[part, "float32"]["images_per_second"] for part in ("warp", "input pipeline"))
        ratio = written["ratios"][f"{name} warp and pipeline / training step"]
        assert ratio == pytest.approx(parts * step["images_per_second"])
    assert written["versions"]["keras"] and written["cores"] > 0
