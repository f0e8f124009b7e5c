"""Training: resumes exactly, stops on request and at what is not finite, shows its progress, and learns."""

import csv
import json
import os
import signal
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from invariance.errors import Interrupted, RunError, UserError
from invariance.experiment import Budget
from invariance.progress import Progress
from invariance.runs import checkpoint, pipeline, training
from invariance.runs.folder import CHECKPOINT, RunFolder
from tests.helpers import Screen, noise
from tests.runs.cases import stopping_after

SIDE, CLASSES = 6, 3
# 23 steps in epochs of 5: the last epoch is shorter, and most steps are within an epoch.
BUDGET = Budget(steps=23, batch_size=8, steps_per_epoch=5, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data():
    return noise(64, SIDE, SIDE, 1, spread=(0, 256), dtype="uint8"), np.arange(64) % CLASSES


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def network(seed=0):
    """Batch norm and dropout, an optimiser with moments and a schedule: every kind of state.

    With tanh, because oneDNN's ReLU turns NaN into zero, and then the loss stays finite while the weights do not.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Dense(8, activation="tanh")(layers.Flatten()(inputs))
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, 7, 0.5, staircase=True)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class TwoOptimisers(keras.Model):
    """An autoencoder and a classifier of its code, each with its own optimiser. Nothing logged is named "loss".

    It is not compiled: its ``train_step`` does not need that.
    """

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Flatten(), layers.Dense(5)])
        self.decoder = keras.Sequential([keras.Input((5,)), layers.Dense(SIDE * SIDE), layers.Dropout(0.2)])
        self.head = keras.Sequential([keras.Input((5,)), layers.Dense(CLASSES)])
        self.reconstruction_optimizer = keras.optimizers.Adam(1e-2)
        self.class_optimizer = keras.optimizers.RMSprop(1e-2, momentum=0.9)
        self.reconstruction = keras.metrics.Mean(name="reconstruction")
        self.classification = keras.metrics.Mean(name="classification")
        self.reconstruction_optimizer.build([*self.encoder.trainable_variables, *self.decoder.trainable_variables])
        self.class_optimizer.build(self.head.trainable_variables)

    @property
    def metrics(self):
        return [self.reconstruction, self.classification]

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape(persistent=True) as tape:
            code = self.encoder(images, training=True)
            drawn = self.decoder(code, training=True)
            reconstruction = ops.mean((ops.reshape(images, (-1, SIDE * SIDE)) - drawn) ** 2)
            scores = self.head(ops.stop_gradient(code), training=True)
            classification = ops.mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True))
        for loss, optimizer, parts in (
            (reconstruction, self.reconstruction_optimizer, (self.encoder, self.decoder)),
            (classification, self.class_optimizer, (self.head,)),
        ):
            variables = [variable for part in parts for variable in part.trainable_variables]
            optimizer.apply(tape.gradient(loss, variables), variables)
        self.reconstruction.update_state(reconstruction)
        self.classification.update_state(classification)
        return {metric.name: metric.result() for metric in self.metrics}


def two_optimisers(seed=0):
    keras.utils.set_random_seed(seed)
    return TwoOptimisers()


class Averaging(keras.Model):
    """Has no weights and logs the mean of its targets. For tests in which nothing is learnt: it is traced at once."""

    def __init__(self):
        super().__init__()
        self.compile()
        self.mean = keras.metrics.Mean(name="target")

    metrics = property(lambda self: [self.mean])

    def train_step(self, data):
        self.mean.update_state(data[1])
        return {"target": self.mean.result()}


def dimmed(images, labels, draws):
    """Stands for a transformation: a function of the draw number."""
    light = ops.cast(1 + draws % 7, "float32") / (7 * 255.0)
    return ops.cast(images, "float32") * ops.reshape(light, (-1, 1, 1, 1)), ops.cast(labels, "int32")


def train(model, data, folder, budget=BUDGET, seed=3, prepare=dimmed, **options):
    return training.train(model, prepare, *data, budget, seed, folder, **options)


def state(model):
    return [np.asarray(variable) for variable in checkpoint.state_variables(model)]


def assert_same_state(state, other):
    assert len(state) == len(other)
    for one, another in zip(state, other, strict=True):
        np.testing.assert_array_equal(one, another)


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


class Crash(Exception):
    """Stands for whatever ends a process without asking."""


def crash():
    raise Crash


def ask(number):
    return lambda: os.kill(os.getpid(), number)


def stop_after(step, action, *arguments, **options):
    """Trains until ``action``, which comes while step ``step + 1`` is fetched, so that this step is the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "batches", stopping_after(step, action))
        train(*arguments, **options)


# Resuming


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Builder -> (state at the end, result, folder) of a training that was never stopped."""
    found = {}

    def of(build):
        if build not in found:
            model, folder = build(), RunFolder(tmp_path_factory.mktemp("whole"))
            result = train(model, data, folder)
            found[build] = state(model), result, folder
        return found[build]

    return of


def resume(build, data, folder, uninterrupted):
    """Trains a stopped model to the end, which must be that of the uninterrupted training."""
    model = build(seed=99)  # other weights and dropout: everything must come from the checkpoint
    resumed = train(model, data, folder)
    whole, expected, _ = uninterrupted(build)
    assert_same_state(state(model), whole)
    assert without_seconds(resumed["history"]) == without_seconds(expected["history"])
    assert resumed["images"] == expected["images"] == 23 * 8


@pytest.mark.parametrize(
    ("build", "stops"),
    [
        # In the first epoch, at the end of one, within one; step, what happens then, and the step that is saved.
        (network, [(1, signal.SIGTERM, 2), (4, signal.SIGTERM, 5), (13, signal.SIGINT, 14), (17, "crash", 17)]),
        (two_optimisers, [(13, "crash", 10), (18, signal.SIGTERM, 19)]),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(uninterrupted, data, folder, monkeypatch, build, stops):
    """The one saves a checkpoint after every step, the other at the end of every epoch only."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0 if build is network else 60.0)
    for seed, (step, how, kept) in enumerate(stops):
        with pytest.raises(Crash if how == "crash" else Interrupted) as caught:
            stop_after(step, crash if how == "crash" else ask(how), build(seed=seed), data, folder)
        assert checkpoint.saved_step(folder / CHECKPOINT) == kept
        assert [row["step"] for row in folder.csv("history.csv")] == list(range(5, kept + 1, 5))
        if how != "crash":
            said = f"{how.name} at step {kept} of 23; saved; repeat the command to resume"
            assert str(caught.value) == said
    resume(build, data, folder, uninterrupted)


def test_finished_training_is_not_repeated(uninterrupted, data, folder):
    """Asked to stop at the last step, it stops, too; called again, as after a kill in the evaluation, it loads."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match="SIGTERM at step 23 of 23; saved"):
        stop_after(22, ask(signal.SIGTERM), Averaging(), data, folder)
    assert checkpoint.saved_step(folder / CHECKPOINT) == 23
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    whole, expected, folder = uninterrupted(two_optimisers)
    again = two_optimisers(seed=99)
    assert train(again, data, folder)["history"] == expected["history"] == folder.csv("history.csv")
    assert_same_state(state(again), whole)


def test_second_ctrl_c_stops_at_once(data, folder):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stop_after(2, twice, Averaging(), data, folder)
    assert not (folder / CHECKPOINT).exists()


def test_end_of_the_parent_is_a_request_to_stop(data, folder):
    with pytest.raises(Interrupted, match="the end of the parent process at step 1 of 23; saved"):
        train(Averaging(), data, folder, parent=os.getppid() + 1)
    assert checkpoint.saved_step(folder / CHECKPOINT) == 1


def test_trains_in_a_thread(data, folder):
    """Where no signal handler can be set."""
    result = []
    thread = threading.Thread(target=lambda: result.append(train(Averaging(), data, folder, Budget(2, 8, 2, 1e-3))))
    thread.start()
    thread.join()
    assert [row["step"] for row in result[0]["history"]] == [2]


def test_full_disk_keeps_the_last_checkpoint(uninterrupted, data, folder, monkeypatch):
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        # First an empty history, then checkpoint and history of each epoch: the third checkpoint is call 6.
        if len(calls) >= 6:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        train(two_optimisers(), data, folder)
    text = str(caught.value)
    assert f"cannot write {folder / CHECKPOINT}: No space left on device" in text
    assert "the checkpoint of step 10 is kept" in text and "\n" not in text
    assert sorted(path.name for path in folder.path.iterdir()) == [CHECKPOINT, "history.csv"]
    monkeypatch.undo()
    resume(two_optimisers, data, folder, uninterrupted)


# Not finite


def poisoned(draw, value=float("nan")):
    """A prepare function whose images are not finite from a draw number on."""

    def prepare(images, labels, draws):
        shown = ops.cast(images, "float32") / 255.0
        bad = ops.reshape(draws >= draw, (-1, 1, 1, 1))
        return ops.where(bad, value, shown), ops.cast(labels, "int32")

    return prepare


def assert_kept(folder, error, step):
    """The message names the checkpoint that is kept, if any, and all of it is finite."""
    text = str(error.value)
    assert "\n" not in text and (f"(the checkpoint of step {step} is kept" if step else "(no checkpoint yet") in text
    assert (folder / CHECKPOINT).exists() == bool(step)
    if step:
        assert checkpoint.saved_step(folder / CHECKPOINT) == step
        with np.load(folder / CHECKPOINT) as archive:
            assert all(np.isfinite(archive[name]).all() for name in archive.files if name != "progress")


# Draw 8 n is the first image of step n + 1; 8 n + 7 the last. Found at the end of an epoch or of the training; at once
# where a checkpoint is due, or progress is shown.
@pytest.mark.parametrize(
    ("build", "draw", "value", "step", "kept", "when"),
    [
        (network, 7, np.nan, 1, 0, "epoch"),
        (network, 88, np.inf, 12, 10, "epoch"),
        (two_optimisers, 8 * 14 + 7, np.nan, 15, 10, "epoch"),
        (two_optimisers, 8 * 22, np.nan, 23, 20, "epoch"),
        (two_optimisers, 88, np.nan, 12, 11, "checkpoint"),
        (two_optimisers, 88, np.nan, 12, 10, "shown"),
    ],
)
def test_loss_that_is_not_finite_stops(data, folder, monkeypatch, build, draw, value, step, kept, when):
    progress, seen = Progress("mine", stream=Screen(True)), []
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0 if when == "checkpoint" else 60.0)
    monkeypatch.setattr(progress, "due", lambda: when == "shown")
    monkeypatch.setattr(progress, "show", lambda share, text: seen.append(round(23 * share)))
    with pytest.raises(RunError, match=f"^mine: the loss is not finite at step {step} ") as caught:
        train(build(), data, folder, prepare=poisoned(draw, value), progress=progress)
    assert_kept(folder, caught, kept)
    assert seen == ([1, 2, 3, 4, 6, 7, 8, 9, 11] if when == "shown" else [])


def test_weights_that_are_not_finite_are_never_saved(data, folder, monkeypatch):
    """A weight that no loss shows becomes NaN after step 7."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    model = Averaging()
    unseen = model.add_weight(shape=(), trainable=False, name="unseen")
    with pytest.raises(RunError, match="a weight is not finite after step 8 ") as caught:
        stop_after(7, lambda: unseen.assign(float("nan")), model, data, folder)
    assert_kept(folder, caught, 7)


# History and progress


def test_history_is_reset_at_each_epoch(data, folder):
    """A row's value is the mean over its own epoch: here of the draw numbers."""

    def draws_as_targets(images, labels, draws):
        return ops.cast(images, "float32"), ops.cast(draws, "float32")

    history = train(Averaging(), data, folder, prepare=draws_as_targets)["history"]
    # Steps 0-4 have the draws 0-39, mean 19.5; the last epoch has the steps 20-22, draws 160-183, mean 171.5.
    assert [row["target"] for row in history] == [19.5, 59.5, 99.5, 139.5, 171.5]
    assert [(row["step"], row["images"]) for row in history] == [(5, 40), (10, 80), (15, 120), (20, 160), (23, 184)]


@pytest.mark.parametrize(
    "build, names", [(network, ["loss", "accuracy"]), (two_optimisers, ["reconstruction", "classification"])]
)
def test_history_file(uninterrupted, build, names):
    _, result, folder = uninterrupted(build)
    rows = folder.csv("history.csv")
    assert rows == result["history"]
    assert list(rows[0]) == ["step", "images", "seconds", *names]
    for row in rows:
        assert type(row["step"]) is int and all(type(row[name]) is float for name in names)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and 0 < seconds[-1] <= result["seconds"]
    with open(folder / "history.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 6
    with np.load(folder / CHECKPOINT) as archive:
        json.dumps(json.loads(str(archive["progress"])), allow_nan=False)


def test_order_depends_on_the_seed(data, folder, tmp_path):
    histories = []
    for number, seed in enumerate((0, 1, 1)):
        own = RunFolder(tmp_path / str(number))
        own.path.mkdir()
        histories.append(without_seconds(train(Averaging(), data, own, Budget(1, 8, 1, 1e-2), seed)["history"]))
    assert histories[0] != histories[1] == histories[2]


def test_progress_on_a_terminal_shows_the_time_left(data, folder, monkeypatch):
    screen = Screen(True)
    progress = Progress("mine", stream=screen)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(progress, "due", lambda: True)
    train(Averaging(), data, folder, progress=progress)
    live = [part for part in screen.text.split("\r") if "[" in part and "epoch" in part]
    assert len(live) == 23 - 5  # every step but the ends of the epochs
    assert live[0].startswith("mine  [#...................] epoch 1/5  ")
    assert all(part.rstrip().endswith(" left") and " images/s  " in part and "target " in part for part in live)
    # A rewritten line is wiped out before the next, or its end would stay.
    for shown, blanks in zip(screen.text.split("\r"), screen.text.split("\r")[1:], strict=False):
        if shown in live:
            assert blanks == " " * len(shown.splitlines()[-1])


@pytest.mark.parametrize(("quiet", "terminal"), [(False, False), (True, False), (True, True)])
def test_progress_in_a_log_is_whole_lines(data, folder, quiet, terminal):
    screen = Screen(terminal)
    with pytest.raises(Crash):
        stop_after(13, crash, Averaging(), data, folder)
    train(Averaging(), data, folder, progress=Progress("mine", quiet=quiet, stream=screen))
    assert "\r" not in screen.text
    first, *lines = screen.text.splitlines() or [None]
    assert first == (None if quiet else "mine: resuming from step 10 of 23")
    assert [line.split("  ")[1] for line in lines] == [f"epoch {number}/5" for number in (3, 4, 5) if not quiet]
    assert all(line.startswith("mine  ") and line.endswith(" left") for line in lines)
    assert quiet or screen.text.endswith("  0 s left\n")
    # Nothing is left to do, and nothing is said.
    train(Averaging(), data, folder, progress=Progress("mine", stream=(again := Screen(False))))
    assert again.text == ""


def test_tensorboard_missing(data, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"not installed.*pip install"):
        train(Averaging(), data, folder, tensorboard=True)


# Learning


def learner():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Dense(64, activation="relu")(layers.Flatten()(inputs))
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def upright(images, labels, draws):
    return ops.cast(images, "float32") / 255.0, ops.cast(labels, "int32")


def test_overfits_noise(data, folder):
    """64 images of noise with labels at random can only be learnt by heart; 64 hidden units are enough for that."""
    history = train(learner(), data, folder, Budget(400, 16, 100, 1e-2), prepare=upright)["history"]
    assert history[-1]["accuracy"] == 1.0
    # A loss of .05 is a mean probability of .95 for the right class; it is .01 here.
    assert history[-1]["loss"] < 0.05


def patterns(n, rng):
    """Three classes that differ in the position of a bright bar."""
    labels = rng.integers(0, CLASSES, n)
    images = rng.integers(0, 128, (n, SIDE, SIDE, 1))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 127
    return images.astype(np.uint8), labels


def test_learns_patterns_and_stays_at_chance_with_shuffled_labels(folder):
    rng = np.random.default_rng(1)
    images, labels = patterns(2000, rng)
    fresh, truth = patterns(600, rng)
    accuracy = {}
    for name, given in (("true", labels), ("shuffled", rng.permutation(labels))):
        model = learner()
        own = RunFolder(folder / name)
        own.path.mkdir()
        train(model, (images, given), own, Budget(150, 32, 50, 1e-2), prepare=upright)
        chosen = np.asarray(model(fresh.astype("float32") / 255.0)).argmax(-1)
        accuracy[name] = float(np.mean(chosen == truth))
    # The bars are far brighter than the noise: no image should be mistaken; one in a hundred is allowed for.
    assert accuracy["true"] > 0.99
    # A classifier that knows nothing may still favour classes alike in looks: 600 images give a standard deviation of
    # .02 around 1/3 where its choices are independent of them. Per class of pattern all images are taken for the same
    # label, so a third of the images may go right or wrong together; 2/3 would need two of three bars right by chance.
    assert accuracy["shuffled"] < 0.67
