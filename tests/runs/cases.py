"""Small runs of every task, for the tests of whole runs. ``python -m tests.runs.cases`` runs them as an experiment."""

import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from experiments import generation_rotation, recognition_rotation
from invariance.cli import run_experiment
from invariance.experiment import Budget, Entry, Experiment
from invariance.models.autoencoder import Autoencoder
from invariance.models.cnn import CNN, Convolution
from invariance.ranges import Ranges
from invariance.runs.execute import Options, RunConfig, execute
from invariance.tasks import Generation, Task
from invariance.transforms import Shift

# Three epochs of four steps. Four images of each class are evaluated, at the middles of eight cells of 45 degrees.
BUDGET = Budget(12, 8, 4, 1e-3, warmup_steps=2, grid_spacing=45, images_per_class=4)
# Times and sizes that differ between equal runs.
VARYING = ("train_seconds", "evaluate_seconds", "train_images_per_second", "peak_memory_mb")
ALWAYS = (".lock", "config.json", "history.csv", "curves.csv", "metrics.json", "model.keras", "training.png",
          "training_images.png")  # fmt: skip
RECOGNISED = ("predictions.csv", "accuracy_by_angle.png", "taken_for.png")
RECONSTRUCTED = ("reconstruction.csv", "reconstruction_by_angle.png", "reconstructions_in_range.png",
                 "reconstructions_one_in_range.png", "reconstructions_one_outside.png",
                 "reconstructions_inverted.png")  # fmt: skip
DRAWN = ("baselines.csv", "error_by_parameter.png", "pairs.png", "round.gif", "samples_prior.png", "samples_codes.png")
CENTRAL = ((-2, 2),)


def tiny_capsule_network(input_shape, classes, learning_rate):
    """A capsule network without routing."""
    import keras
    from keras import layers

    from invariance.layers.capsules import Length
    from invariance.losses import MarginLoss
    from invariance.models.capsule_network import CapsuleNetwork, dense_decoder

    inputs = keras.Input(input_shape)
    capsules = layers.Reshape((classes, 4))(layers.Dense(classes * 4)(layers.Flatten()(inputs)))
    encoder = keras.Model(inputs, [capsules, Length()(capsules)])
    model = CapsuleNetwork(encoder, dense_decoder(classes * 4, (8,), input_shape), 0.4)
    model.compile(keras.optimizers.Adam(learning_rate), MarginLoss(), metrics=["accuracy"])
    return model


@dataclass(frozen=True)
class Case:
    """A model and its task, and what only such runs leave: files, and columns of history.csv."""

    task: Task
    model: Any
    files: tuple[str, ...]
    logged: tuple[str, ...]
    grid_spacing: float = 45

    @property
    def entry(self):
        return Entry(self.model, {"smoke": BUDGET}, task=self.task).with_budgets(grid_spacing=self.grid_spacing)


CASES = {
    # With dropout and batch norm, a network has every kind of state.
    "recognition_by_rotation": Case(
        recognition_rotation.TASK,
        CNN((Convolution(4, 4, 2),), batch_norm=True, dropout=0.5, dense=16, moving_average_decay=0.8),
        RECOGNISED,
        ("loss", "accuracy"),
    ),
    # Three optimisers.
    "generation_by_rotation": Case(
        generation_rotation.TASK,
        Autoencoder(4, 10, (4, 8), 16, "wasserstein", (8, 8), critic_updates=1),
        DRAWN,
        ("loss", "critic_loss", "encoder_loss"),
    ),
    # Two parameters: a map. A code of one number, whose covariance is a number, too.
    "generation_by_shift": Case(
        Generation(Shift((40, 40), 6.0), Ranges(((-6, 6),), {4: CENTRAL, 9: CENTRAL})),
        Autoencoder(4, 1, (4, 8), 16),
        (*DRAWN, "map.csv", "map.png"),
        ("loss",),
        grid_spacing=2,
    ),
    "reconstruction_by_rotation": Case(
        recognition_rotation.TASK,
        tiny_capsule_network,
        (*RECOGNISED, *RECONSTRUCTED, "dimensions.png"),
        ("loss", "accuracy", "classification_loss", "reconstruction_error"),
    ),
}
EXPERIMENT = Experiment("cases", recognition_rotation.TASK, {name: case.entry for name, case in CASES.items()})


def config(name, data, **changes):
    """The configuration of a case's run."""
    values = {"entry": CASES[name].entry, "task": CASES[name].task, "dataset": str(data)}
    return RunConfig("cases", "smoke", name, **{**values, **changes})


def run(config, runs, figures=False, **options):
    """Carries out a run in this process and returns its folder. Figures take longest and are left out on demand."""
    with pytest.MonkeyPatch.context() as patch:
        (small_sheets if figures else no_figures)(patch)
        execute(config, runs, Options(quiet=True, **options))
    return config.folder(runs)


def no_figures(patch):
    from invariance.tasks.classify import MeasuredRecognition
    from invariance.tasks.draw import MeasuredGeneration

    patch.setattr("invariance.runs.execute._training_figures", lambda *_: None)
    for measured in (MeasuredRecognition, MeasuredGeneration):
        patch.setattr(measured, "figures", lambda *_: iter(()))


SEEN = set()


def small_sheets(patch):
    """Sheets of a few images each, and of each kind one only: the axes around images take longer than all the rest."""
    from invariance import figures

    cuts = {
        "contact_sheet": (slice(12), slice(12)),
        "reconstructions": (slice(8),) * 4,
        "dimensions": ((slice(2), slice(3)), slice(3)),
        "pairs": ((slice(4), slice(2)), (slice(4), slice(2)), slice(2), slice(4)),
        "samples": ((slice(2), slice(4)), slice(4)),
    }

    def small(name, draw, parts, *given):
        if name in SEEN:
            return figures.Figure()
        SEEN.add(name)
        return draw(*(each[part] for each, part in zip(given, parts, strict=False)), *given[len(parts) :])

    for name, parts in cuts.items():
        patch.setattr(figures, name, partial(small, name, getattr(figures, name), parts))


def stopping_after(step, action):
    """`pipeline.batches`, but with a call of ``action`` when the batch after ``step`` is requested.

    Batches are handed over one at a time, so that the training is at exactly this step.
    """
    from invariance.runs import pipeline

    batches = pipeline.batches

    def stopping(images, labels, seed, batch_size, start, stop, **options):
        dataset = batches(images, labels, seed, batch_size, start, stop, **options)
        if stop == 1:  # requested for its signature, or for the figure of the first images
            return dataset

        def generate():
            for number, batch in enumerate(dataset, start):
                if number >= step:
                    action()
                yield batch

        return generate()

    return stopping


if __name__ == "__main__":
    from invariance.runs import engine

    def slow(config, *others):
        """Training that takes half a second for each step after the first epoch, so that it can be interrupted."""
        from invariance.runs import pipeline

        pipeline.batches = stopping_after(5, lambda: time.sleep(0.5))
        execute(config, *others)

    if "SLOW" in os.environ:
        engine.execute = slow
    sys.exit(run_experiment(EXPERIMENT))
