"""Runs with stages: what they leave, and that they resume exactly wherever they are interrupted."""

import json

import keras
import numpy as np
import pytest

from experiments import generation_rotation, recognition_rotation
from invariance.experiment import Entry
from invariance.models.cnn import CNN, Convolution
from invariance.models.flow_drawing import FlowDrawing
from invariance.runs import checkpoint, pipeline
from invariance.runs.execute import RunConfig
from invariance.runs.folder import CHECKPOINT
from invariance.transfer.flow_from_pairs import FlowFromPairs
from invariance.transfer.learner import Transfer
from tests.runs import cases
from tests.runs.test_execute import assert_equally_trained, crash

pytestmark = pytest.mark.xdist_group("runs")

LEARNER = FlowFromPairs(degree=2, steps=3, refine_steps=2, batch_size=64)
NETWORK = CNN((Convolution(4, 4, 2),), batch_norm=True, dropout=0.5, dense=16, moving_average_decay=0.8)


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    return cases.run(made(data), tmp_path_factory.mktemp("learning"))


def made(data, network=NETWORK, task=recognition_rotation.TASK):
    entry = Entry(Transfer(network, LEARNER), {"smoke": cases.BUDGET}, task=task)
    return RunConfig("cases", "smoke", "learning", entry, task, str(data))


def test_files_and_numbers(whole_run):
    names = {str(path.relative_to(whole_run.path)) for path in whole_run.path.rglob("*") if path.is_file()}
    assert {"flow/history.csv", "flow_refined/history.csv", "flow.keras", "metrics.json"} <= names
    assert {"field.png", "answers.png", "moved.png"} <= names
    assert not any(name.endswith(CHECKPOINT) for name in names)
    metrics = whole_run.json("metrics.json")
    assert metrics["learned"]["cosines"][0] > 0.5 and metrics["train_seconds"] > metrics["learned"]["seconds"] > 0
    groups = [metrics["learned"]["answers"][group] for group in ("free", "restricted")]
    # Of the 60 test images those of 6 and 9 are left out.
    assert 40 < sum(each["images"] for each in groups) < 60 and all(each["median_error"] > 0 for each in groups)
    described = whole_run.json("config.json")["model_arguments"]
    assert described["learner"]["steps"] == 3 and described["network"]["dense"] == 16
    assert [row["step"] for row in whole_run.csv("flow/history.csv")] == [1, 2, 3]
    flow = keras.saving.load_model(whole_run / "flow.keras")
    images = np.random.default_rng(0).random((2, *flow.input_shape[0][1:])).astype("float32")
    np.testing.assert_array_equal(flow([images, np.zeros((2, 1))]), images)


# Steps of the two stages and of the network; each begins to count anew.
@pytest.mark.parametrize("stage, step", [("flow", 2), ("network", 6)])
def test_interrupted_anywhere_it_ends_as_if_it_had_not_been(whole_run, data, tmp_path, monkeypatch, stage, step):
    batches, begun = pipeline.batches, []

    def stopping(images, labels, seed, batch_size, start, stop, **options):
        dataset = batches(images, labels, seed, batch_size, start, stop, **options)
        if stop == 1:
            return dataset
        begun.append(stop)
        if stage != {1: "flow", 2: "flow_refined", 3: "network"}[len(begun)]:
            return dataset

        def generate():
            for number, batch in enumerate(dataset, start):
                if number >= step:
                    crash()
                yield batch

        return generate()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(pipeline, "batches", stopping)
        cases.run(made(data), tmp_path)
    folder = made(data).folder(tmp_path)
    assert not folder.done and (folder / "config.json").exists()
    # A stage that was finished is not carried out again.
    kept = folder / "flow" / CHECKPOINT
    before = kept.stat().st_mtime_ns if stage != "flow" else None
    progress = []
    if before:
        with np.load(kept) as archive:
            assert json.loads(str(archive["progress"]))["step"] == 3
        monkeypatch.setattr("invariance.runs.checkpoint.save", spying(progress))
    cases.run(made(data), tmp_path)
    assert not [path for path in progress if path == kept]
    assert_equally_trained(folder, whole_run)
    metrics = [each.json("metrics.json") for each in (folder, whole_run)]
    for each in metrics:
        each["learned"].pop("seconds")
    assert metrics[0]["learned"] == metrics[1]["learned"]
    assert (folder / "predictions.csv").read_bytes() == (whole_run / "predictions.csv").read_bytes()


def spying(seen):
    save = checkpoint.save

    def spied(path, model, progress):
        seen.append(path)
        save(path, model, progress)

    return spied


def test_networks_that_draw_take_over_the_flow(data, tmp_path):
    folder = cases.run(made(data, FlowDrawing(1, circular=True, degree=2), generation_rotation.TASK), tmp_path)
    metrics = folder.json("metrics.json")
    # Digits of 8 x 8 pixels, enlarged, and five updates: the images still move in the right way.
    assert metrics["learned"]["cosines"][0] > 0.5
    assert set(metrics["mse_out"]) == set("0123456789")
    model = keras.saving.load_model(folder / "model.keras")
    assert abs(float(model.get_layer("times").kernel[0, 0])) > 1
