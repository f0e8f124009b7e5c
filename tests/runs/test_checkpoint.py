"""Checkpoints: all of a training's state, saved and restored; what is damaged or not finite is refused."""

import os

import keras
import numpy as np
import pytest

from invariance.errors import RunError
from invariance.runs import checkpoint
from tests.runs.test_training import assert_same_state, network, state, two_optimisers

PROGRESS = {"step": 5, "seconds": 0.1, "history": [{"step": 5, "images": 40, "seconds": 0.1, "loss": 0.1 + 0.2}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.npz"


@pytest.mark.parametrize("place", ["attribute", "list", "dictionary", "part"])
def test_optimisers_are_found_wherever_they_are(place):
    model = two_optimisers()
    hidden = model.class_optimizer
    if place != "attribute":
        del model.class_optimizer
    if place == "list":
        model.optimizers = [hidden]
    elif place == "dictionary":
        model.optimizers = {"head": hidden}
    elif place == "part":
        model.head.own_optimizer = hidden
    found = {id(variable) for variable in checkpoint.state_variables(model)}
    assert {id(variable) for variable in (*hidden.variables, *model.reconstruction_optimizer.variables)} <= found


def test_the_state_is_complete():
    """Weights, moments, iteration, moving averages, dropout's generator; each once."""
    model = network()
    model.optimizer.build(model.trainable_variables)
    variables = checkpoint.state_variables(model)
    assert len(variables) == len(set(map(id, variables)))
    paths = [variable.path for variable in variables]
    for part in ("kernel", "gamma", "moving_mean", "seed_generator_state", "iteration", "momentum", "velocity"):
        assert any(part in path for path in paths), (part, paths)


def test_round_trip(path):
    model, other = network(), network(seed=1)
    checkpoint.save(path, model, PROGRESS)
    assert checkpoint.load(path, other, 5) == PROGRESS and checkpoint.saved_step(path) == 5
    assert_same_state(state(model), state(other))


def test_model_without_variables(path):
    """Not even an optimiser's."""
    model = keras.Sequential([keras.layers.Flatten()])
    checkpoint.save(path, model, PROGRESS)
    assert checkpoint.load(path, model, 5) == PROGRESS


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_saved(path, value):
    model = network()
    checkpoint.save(path, model, {"step": 1})
    before = path.read_bytes()
    weights = np.array(model.layers[-1].kernel)
    weights[0, 0] = value
    model.layers[-1].kernel.assign(weights)
    with pytest.raises(RunError, match="a weight is not finite after step 2"):
        checkpoint.save(path, model, {"step": 2})
    assert path.read_bytes() == before


def test_missing_checkpoint(path):
    assert checkpoint.saved_step(path) == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-10],
        lambda whole: b"not an archive",
        lambda whole: whole[:200] + bytes(64) + whole[264:],
    ],
    ids=["empty", "half", "end missing", "text", "bytes changed"],
)
def test_damaged_checkpoint_is_named(path, damage):
    model = network()
    checkpoint.save(path, model, PROGRESS)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    before = state(model)
    with pytest.raises(RunError) as caught:
        checkpoint.load(path, model, 5)
    text = str(caught.value)
    assert_same_state(state(model), before)
    assert str(path) in text and "damaged" in text and "--overwrite" in text and "\n" not in text
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        *(({"step": step}, "step: expected a whole number.*; received") for step in (None, "5", 4.5, -1, True, [5])),
        ({"step": 6}, "of step 6, but there are 5"),
        ({"seconds": -1}, "seconds: expected a number >= 0.0; received -1"),
        ({"history": {}}, "history: expected a list"),
        ({"history": [{"step": 5}]}, "lacks images"),
        ({"history": [*PROGRESS["history"], {"step": 5, "images": 40, "seconds": 1}]}, "expected equal fields"),
        ({"history": [{**PROGRESS["history"][0], "loss": float("nan")}]}, "malformed"),
    ],
)
def test_progress_that_cannot_be_is_refused(path, change, expected):
    model = network()
    checkpoint.save(path, model, PROGRESS | change)
    before = state(model)
    with pytest.raises(RunError, match=rf"{path}: the checkpoint is .*{expected}.*; --overwrite starts"):
        checkpoint.load(path, model, 5)
    assert_same_state(state(model), before)


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_regular_file_is_refused(path, kind):
    model = network()
    checkpoint.save(path.with_name("elsewhere.npz"), model, PROGRESS)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("elsewhere.npz" if kind == "link" else "nowhere")
    with pytest.raises(RunError, match="not a regular file"):
        checkpoint.load(path, model, 5)
    assert checkpoint.saved_step(path) == 0


@pytest.mark.parametrize("other", ["another model", "other types", "more arrays", "fewer arrays", "without progress"])
def test_checkpoint_of_another_model_is_refused(path, other):
    checkpoint.save(path, network(), PROGRESS)
    if other == "another model":
        model = two_optimisers()
    else:
        model = network()
        with np.load(path) as archive:
            arrays = dict(archive)
        last = f"v{len(arrays) - 2}"
        if other == "other types":
            arrays["v0"] = arrays["v0"].astype("U8")
        elif other == "more arrays":
            arrays[f"v{len(arrays) - 1}"] = np.zeros(3)
        else:
            del arrays[last if other == "fewer arrays" else "progress"]
        np.savez(path, **arrays)
    before = state(model)
    with pytest.raises(RunError, match=r"damaged|another model"):
        checkpoint.load(path, model, 5)
    assert_same_state(state(model), before)
