"""Training: exact resumption, stopping at what is not finite, and that anything is learnt at all."""

import csv
import json
import os
import signal
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
from invariance.runs.folder import RunFolder

SIDE, CLASSES = 6, 3
# 23 steps in epochs of 5: the last epoch is shorter, and most steps are in mid-epoch.
BUDGET = Budget(steps=23, batch_size=8, steps_per_epoch=5, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (64, SIDE, SIDE, 1), np.uint8), rng.integers(0, CLASSES, 64)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def network(seed=0):
    """Batch norm and dropout, an optimiser with moments and a schedule: all kinds of state there are.

    tanh, because oneDNN's relu turns NaN into zero, and the loss stays finite while the weights do not.
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
    """An autoencoder and a classifier on its code, each with its own optimiser; nothing logged is named "loss"."""

    def __init__(self, compiled=True):
        super().__init__()
        if compiled:
            self.compile()
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


def dimmed(images, labels, draws):
    """Stands for a transformation: depends on the draw number. (Rotations are in test_run_folder.)"""
    light = ops.cast(1 + draws % 7, "float32") / (7 * 255.0)
    return ops.cast(images, "float32") * ops.reshape(light, (-1, 1, 1, 1)), ops.cast(labels, "int32")


def train(model, data, folder, budget=BUDGET, seed=3, prepare=dimmed, **options):
    return training.train(model, prepare, *data, budget, seed, folder, **options)


def state(model):
    return [np.asarray(variable) for variable in checkpoint.state_variables(model)]


def assert_same_state(model, other):
    first, second = state(model), state(other)
    assert len(first) == len(second)
    for one, another in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, another)


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def stopping_after(step, action):
    """`pipeline.batches` that does something when the training asks for the batch behind ``step`` of the run.

    The batches are handed over one at a time, so what they do is at an exact step.
    """
    batches = pipeline.batches

    def stopped(images, labels, seed, batch_size, start, stop):
        dataset = batches(images, labels, seed, batch_size, start, stop)
        if stop == 1:  # only asked for its form
            return dataset

        def generate():
            for number, batch in enumerate(dataset, start):
                if number == step:
                    action()
                yield batch

        return generate()

    return stopped


class Crash(Exception):
    """Stands for whatever ends a process without asking."""


def crash():
    raise Crash


# Resuming


@pytest.fixture(scope="module", params=[network, two_optimisers])
def uninterrupted(request, data, tmp_path_factory):
    """A model's builder, and the model and result of a run that was never stopped."""
    model = request.param()
    return request.param, model, train(model, data, RunFolder(tmp_path_factory.mktemp("whole")))


def stop_after(monkeypatch, step, action, *arguments):
    """Trains until ``action``, which comes while step ``step + 1`` is fetched, so that this step is the last."""
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "batches", stopping_after(step, action))
        train(*arguments)


def ask(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("step, number", [(1, signal.SIGTERM), (13, signal.SIGINT)])
def test_asked_to_stop_and_resumed_equals_uninterrupted(uninterrupted, data, folder, monkeypatch, step, number):
    build, whole, expected = uninterrupted
    with pytest.raises(Interrupted) as caught:
        stop_after(monkeypatch, step, ask(number), build(), data, folder)
    name = signal.Signals(number).name
    assert str(caught.value) == f"{name} at step {step + 1} of 23; saved. Repeat the command to resume"
    model = build(seed=99)  # other weights and dropout: all must come from the checkpoint
    resumed = train(model, data, folder)
    assert_same_state(model, whole)
    assert without_seconds(resumed["history"]) == without_seconds(expected["history"])
    assert resumed["images"] == expected["images"] == 23 * 8


def test_crashed_and_resumed_equals_uninterrupted(uninterrupted, data, folder, monkeypatch):
    build, whole, expected = uninterrupted
    # The one writes a checkpoint behind every step, the other at the end of every epoch only.
    seconds, kept = (0.0, 13) if build is network else (60.0, 10)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
    with pytest.raises(Crash):
        stop_after(monkeypatch, 13, crash, build(), data, folder)
    assert checkpoint.saved_step(folder / training.CHECKPOINT) == kept
    assert [row["step"] for row in folder.csv("history.csv")] == [5, 10]
    model = build(seed=99)
    resumed = train(model, data, folder)
    assert_same_state(model, whole)
    assert without_seconds(resumed["history"]) == without_seconds(expected["history"])


def test_stopped_many_times_equals_uninterrupted(uninterrupted, data, folder, monkeypatch):
    build, whole, expected = uninterrupted
    if build is not network:
        pytest.skip("once is enough")
    for step in (3, 4, 20):
        with pytest.raises(Interrupted):
            stop_after(monkeypatch, step, ask(signal.SIGTERM), build(seed=0 if step == 3 else step), data, folder)
    model = build(seed=99)
    assert without_seconds(train(model, data, folder)["history"]) == without_seconds(expected["history"])
    assert_same_state(model, whole)


def test_finished_training_is_not_repeated(data, folder, monkeypatch):
    """Asked to stop at the last step, it is simply done; called again, as after a kill in the evaluation, it loads."""
    model, again = network(), network(seed=99)
    stop_after(monkeypatch, 22, ask(signal.SIGTERM), model, data, folder)
    before = state(model)
    result = train(again, data, folder)
    for one, another in zip(before, state(again), strict=True):
        np.testing.assert_array_equal(one, another)
    assert [row["step"] for row in result["history"]] == [5, 10, 15, 20, 23]


def test_model_that_is_not_compiled(data, folder):
    """A custom train_step with optimisers of its own needs no `compile`; `train` allows for that."""
    train(TwoOptimisers(compiled=False), data, folder, Budget(1, 8, 1, 1e-3))


@pytest.mark.parametrize("place", ["list", "dictionary", "part"])
def test_optimisers_are_found_wherever_they_are(place):
    model = two_optimisers()
    hidden = model.class_optimizer
    del model.class_optimizer
    if place == "list":
        model.optimizers = [hidden]
    elif place == "dictionary":
        model.optimizers = {"head": hidden}
    else:
        model.head.own_optimizer = hidden
    mine = {id(variable) for variable in checkpoint.state_variables(model)}
    assert {id(variable) for variable in hidden.variables} <= mine


def test_the_state_is_all_there_is():
    """Weights, moments, iteration, moving averages, dropout's generator: nothing is forgotten."""
    model = network()
    model.optimizer.build(model.trainable_variables)
    paths = [variable.path for variable in checkpoint.state_variables(model)]
    assert len(paths) == len(set(map(id, checkpoint.state_variables(model))))
    for part in ("kernel", "gamma", "moving_mean", "seed_generator_state", "iteration", "momentum", "velocity"):
        assert any(part in path for path in paths), (part, paths)
    two = two_optimisers()
    mine = {id(variable) for variable in checkpoint.state_variables(two)}
    for optimizer in (two.reconstruction_optimizer, two.class_optimizer):
        assert {id(variable) for variable in optimizer.variables} <= mine


def test_second_ctrl_c_stops_at_once(data, folder, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pipeline, "batches", stopping_after(2, twice))
    with pytest.raises(KeyboardInterrupt):
        train(network(), data, folder)
    assert not (folder / training.CHECKPOINT).exists()


def test_handlers_are_put_back(data, folder):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(network(), data, folder, Budget(1, 8, 1, 1e-3))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_end_of_the_parent_is_a_request_to_stop(data, folder):
    with pytest.raises(Interrupted, match="the end of the parent process at step 1 of 23; saved"):
        train(network(), data, folder, parent=os.getppid() + 1)
    assert checkpoint.saved_step(folder / training.CHECKPOINT) == 1


def test_trains_in_a_thread(data, folder):
    """Where no signal handler can be set."""
    result = []
    thread = threading.Thread(target=lambda: result.append(train(network(), data, folder, Budget(2, 8, 2, 1e-3))))
    thread.start()
    thread.join()
    assert [row["step"] for row in result[0]["history"]] == [2]


# Not finite


def poisoned(draw, value=float("nan")):
    """A prepare function whose images are not finite from a draw number on."""

    def prepare(images, labels, draws):
        shown = ops.cast(images, "float32") / 255.0
        bad = ops.reshape(draws >= draw, (-1, 1, 1, 1))
        return ops.where(bad, value, shown), ops.cast(labels, "int32")

    return prepare


# Draw 8 n is the first image of step n + 1; 8 n + 7 the last.
@pytest.mark.parametrize(
    "build, draw, step",
    [(network, 7, 1), (network, 88, 12), (network, 8 * 14 + 7, 15), (two_optimisers, 8 * 22, 23)],
)
def test_loss_that_is_not_finite_stops_at_its_step(data, folder, build, draw, step):
    with pytest.raises(RunError) as caught:
        train(build(), data, folder, prepare=poisoned(draw))
    text = str(caught.value)
    assert f"the loss is not finite at step {step} " in text and "\n" not in text
    kept = (step - 1) // 5 * 5
    if kept:
        assert f"the checkpoint of step {kept} is kept" in text
        with np.load(folder / training.CHECKPOINT) as archive:
            assert json.loads(str(archive["progress"]))["step"] == kept
            assert all(np.isfinite(archive[name]).all() for name in archive.files if name != "progress")
    else:
        assert "no checkpoint yet" in text
        assert not (folder / training.CHECKPOINT).exists()


def test_infinite_loss_stops_too(data, folder):
    with pytest.raises(RunError, match="the loss is not finite at step 3 "):
        train(network(), data, folder, prepare=poisoned(16, float("inf")))


def test_weights_that_are_not_finite_are_never_saved(data, folder, monkeypatch):
    """A weight that no loss shows: the one of an input that is always nought gets NaN behind step 7."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    class Unseen(layers.Layer):
        def build(self, shape):
            self.unseen = self.add_weight(shape=(), trainable=False, name="unseen")

        def call(self, inputs):
            return inputs

    unseen = Unseen()
    model = keras.Sequential([network(), unseen])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(RunError, match=r"a weight is not finite after step 8 \(the checkpoint of step 7 is kept"):
        stop_after(monkeypatch, 7, lambda: unseen.unseen.assign(float("nan")), model, data, folder)
    with np.load(folder / training.CHECKPOINT) as archive:
        assert all(np.isfinite(archive[name]).all() for name in archive.files if name != "progress")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_save_refuses_what_is_not_finite(folder, value):
    model = network()
    checkpoint.save(folder / "c.npz", model, {"step": 1})
    before = (folder / "c.npz").read_bytes()
    weights = np.array(model.layers[-1].kernel)
    weights[0, 0] = value
    model.layers[-1].kernel.assign(weights)
    with pytest.raises(RunError, match="a weight is not finite after step 2"):
        checkpoint.save(folder / "c.npz", model, {"step": 2})
    assert (folder / "c.npz").read_bytes() == before


# Checkpoints


def saved(folder):
    model = network()
    checkpoint.save(folder / training.CHECKPOINT, model, {"step": 5, "seconds": 1.0, "history": []})
    return folder / training.CHECKPOINT


def test_checkpoint_round_trip(folder):
    model, other = network(), network(seed=1)
    progress = {"step": 5, "seconds": 0.1, "history": [{"step": 5, "loss": 0.1 + 0.2}]}
    checkpoint.save(folder / "c.npz", model, progress)
    assert checkpoint.load(folder / "c.npz", other) == progress
    assert_same_state(model, other)


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
def test_damaged_checkpoint_is_named(folder, damage):
    path = saved(folder)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    model = network()
    before = state(model)
    with pytest.raises(RunError) as caught:
        checkpoint.load(path, model)
    text = str(caught.value)
    for one, another in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(one, another)
    assert str(path) in text and "damaged" in text and "--overwrite" in text and "\n" not in text
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("other", ["another model", "more arrays", "fewer arrays", "without progress"])
def test_checkpoint_of_another_model_is_refused(folder, other):
    path = saved(folder)
    if other == "another model":
        model = two_optimisers()
    else:
        model = network()
        with np.load(path) as archive:
            arrays = dict(archive)
        last = f"v{len(arrays) - 2}"
        if other == "more arrays":
            arrays[f"v{len(arrays) - 1}"] = np.zeros(3)
        else:
            del arrays[last if other == "fewer arrays" else "progress"]
        np.savez(path, **arrays)
    before = state(model)
    with pytest.raises(RunError, match=r"damaged|another model"):
        checkpoint.load(path, model)
    for one, another in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(one, another)


def test_full_disk_keeps_the_last_checkpoint(uninterrupted, data, folder, monkeypatch):
    build, whole, expected = uninterrupted
    if build is not network:
        pytest.skip("once is enough")
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        # An empty history comes first, then checkpoint and history of each epoch: the third checkpoint is call 6.
        if len(calls) >= 6:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        train(network(), data, folder)
    text = str(caught.value)
    assert f"cannot write {folder / training.CHECKPOINT}: No space left on device" in text
    assert "the checkpoint of step 10 is kept" in text and "\n" not in text
    assert sorted(path.name for path in folder.path.iterdir()) == [training.CHECKPOINT, "history.csv"]
    monkeypatch.undo()
    model = network(seed=99)
    resumed = train(model, data, folder)
    assert_same_state(model, whole)
    assert without_seconds(resumed["history"]) == without_seconds(expected["history"])


# History and progress


def test_history_is_reset_at_each_epoch(data, folder):
    """A row's value is the mean over its own epoch: here of the draw numbers."""

    class Counting(keras.Model):
        def __init__(self):
            super().__init__()
            self.compile()
            self.mean = keras.metrics.Mean(name="position")

        metrics = property(lambda self: [self.mean])

        def train_step(self, data):
            self.mean.update_state(data[1])
            return {"position": self.mean.result()}

    def draws_as_targets(images, labels, draws):
        return ops.cast(images, "float32"), ops.cast(draws, "float32")

    history = train(Counting(), data, folder, prepare=draws_as_targets)["history"]
    # Steps 0-4 hold the draws 0-39, mean 19.5; the last epoch has the steps 20-22, draws 160-183, mean 171.5.
    assert [row["position"] for row in history] == [19.5, 59.5, 99.5, 139.5, 171.5]
    assert [(row["step"], row["images"]) for row in history] == [(5, 40), (10, 80), (15, 120), (20, 160), (23, 184)]


@pytest.mark.parametrize(
    "build, names", [(network, ["loss", "accuracy"]), (two_optimisers, ["reconstruction", "classification"])]
)
def test_history_file(data, folder, build, names):
    result = train(build(), data, folder)
    rows = folder.csv("history.csv")
    assert rows == result["history"]
    assert list(rows[0]) == ["step", "images", "seconds", *names]
    for row in rows:
        assert type(row["step"]) is int and all(type(row[name]) is float for name in names)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and 0 < seconds[-1] <= result["seconds"]
    with open(folder / "history.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 6
    with np.load(folder / training.CHECKPOINT) as archive:
        json.dumps(json.loads(str(archive["progress"])), allow_nan=False)


def test_seeds_differ(data, tmp_path):
    histories = []
    for seed in (0, 1):
        folder = RunFolder(tmp_path / str(len(histories)))
        folder.path.mkdir()
        histories.append(without_seconds(train(network(), data, folder, Budget(1, 8, 1, 1e-2), seed)["history"]))
    assert histories[0] != histories[1]


class Screen:
    """A stream that is a terminal, or not."""

    def __init__(self, terminal):
        self.terminal, self.text = terminal, ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_on_a_terminal_shows_the_time_left(data, folder, monkeypatch):
    screen = Screen(True)
    progress = Progress("mine", stream=screen)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(progress, "due", lambda: True)
    train(network(), data, folder, progress=progress)
    live = [part for part in screen.text.split("\r") if "[" in part and "epoch" in part]
    assert len(live) == 23 - 5  # every step but the ends of the epochs
    assert live[0].startswith("mine  [#...................] epoch 1/5  ")
    assert all(part.rstrip().endswith(" left") and " images/s  " in part and "loss " in part for part in live)
    # A rewritten line is wiped out before the next, or its end would stay.
    for shown, blanks in zip(screen.text.split("\r"), screen.text.split("\r")[1:], strict=False):
        if shown in live:
            assert blanks == " " * len(shown.splitlines()[-1])


@pytest.mark.parametrize(
    "columns, expected",
    [(44, "mine  [##########..........] epoch 1/2 left"), (43, "mine  epoch 1/2 left"), (12, "mine … left")],
)
def test_live_line_is_no_wider_than_the_terminal(monkeypatch, columns, expected):
    screen = Screen(True)
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = Progress("mine", stream=screen)
    progress.show(0.5, "epoch 1/2 left")
    assert screen.text == expected and len(expected) < columns
    progress.close()
    assert screen.text == expected + "\r" + " " * len(expected) + "\r"


def test_reader_that_has_gone_ends_what_is_said_and_not_the_work():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        progress = Progress("mine", stream=stream)
        progress.line("nobody reads this")
        progress.line("nor that")
    assert progress.quiet


def test_progress_elsewhere_is_whole_lines(data, folder):
    screen = Screen(False)
    train(network(), data, folder, progress=Progress("mine", stream=screen))
    assert "\r" not in screen.text and screen.text.endswith("\n")
    lines = screen.text.splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"epoch {number}/5" for number in range(1, 6)]
    assert all(line.startswith("mine  ") and line.endswith(" left") for line in lines)
    assert lines[-1].endswith("  0 s left")


def test_progress_elsewhere_breaks_a_long_silence(monkeypatch):
    screen, now = Screen(False), 0.0
    monkeypatch.setattr("invariance.progress.time.monotonic", lambda: now)
    progress = Progress("mine", stream=screen)
    for now in (119.0, 121.0, 200.0, 242.0, 243.0):
        if progress.due():
            progress.show(now / 1000, f"at {now}")
        if now == 200:
            progress.line("a line")
    assert screen.text == "mine  12%  at 121.0\na line\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_progress_says_nothing(data, folder, terminal):
    screen = Screen(terminal)
    train(network(), data, folder, Budget(5, 8, 5, 1e-2), progress=Progress("mine", quiet=True, stream=screen))
    assert screen.text == ""


def test_resuming_is_said(data, folder, monkeypatch):
    with pytest.raises(Crash):
        stop_after(monkeypatch, 13, crash, network(), data, folder)
    screen = Screen(False)
    train(network(), data, folder, progress=Progress("mine", stream=screen))
    assert screen.text.splitlines()[0] == "mine: resuming from step 10 of 23"


def test_tensorboard_missing(data, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"not installed.*pip install"):
        train(network(), data, folder, tensorboard=True)


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
    """Three classes that are told apart by where the bright bar is."""
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
