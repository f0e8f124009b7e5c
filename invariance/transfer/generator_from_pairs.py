"""Learns a linear generator from pairs of drawings of the same image, without knowing which pixels are neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance.errors import require_positive, require_share
from invariance.transfer.learned_movement import LearnedMovement
from invariance.transfer.learner import Learned, Learner, Stage

if TYPE_CHECKING:
    import keras

    from invariance.datasets import Data
    from invariance.layers.linear_generator import LinearGenerator
    from invariance.tasks import Task


@dataclass(frozen=True)
class GeneratorFromPairs(Learner):
    """K1: learns a linear generator from pairs of drawings of the same image, see `layers.linear_generator`.

    Assumed: the transformation acts linearly on images, keeps their length, and several parameters commute. It need not
    move pixels; which of them are neighbours is not known.

    Args:
        components: number of principal components.
        batches: number of batches of pairs that are drawn.
        batch_size: pairs of a batch.
        nearest: share of a batch's pairs, those that differ least, that the generator is learnt from. As many others
            refine it.

    Raises:
        ValueError: if an argument is out of range.
    """

    components: int = 120
    batches: int = 50
    batch_size: int = 1024
    nearest: float = 0.06

    def __post_init__(self) -> None:
        require_positive(self, "components", "batches", "batch_size")
        require_share(self, "nearest")

    def learn(self, task: Task, data: Data, seed: int) -> Generator[Stage, None, Learned]:
        from invariance.layers.linear_generator import LinearGenerator
        from invariance.transfer.movements import Movements

        yield from ()  # it takes seconds, so it is no stage
        taught = data.select(task.teaching(np.unique(data.y_train).tolist()))
        first, second, near, told = self._pairs(task, taught, seed)
        layer = LinearGenerator(self.components, task.transformation.dimensions, name="generator")
        with warnings.catch_warnings():
            # That random starts disagree is among the metrics.
            warnings.simplefilter("ignore", UserWarning)
            numbers = layer.learn(first[near], second[near], farther=(first[~near], second[~near]), seed=seed)
        times = layer.times_between(first[~near], second[~near])
        return LearnedGenerator(
            layer, task, Movements.like(times, layer.period), LearnedGenerator.named(numbers), (told[~near], times)
        )

    def _pairs(self, task: Task, data: Data, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of drawings, (pairs, height, width, channels) each.

        Returns:
            First and second, which of them are near, and the encoded parameters of the second.
        """
        import tensorflow as tf

        from invariance import xla
        from invariance.transfer.flow_estimator import squares

        @xla.compiled
        def drawn(images: Any, labels: Any, draws: Any) -> tuple:
            first, second = task.pairs(seed, images, labels, draws)
            parameters = task.transformation.draw(task.drawn, seed, draws, labels)
            distances = squares(second - first) / (squares(first) + 1e-6)
            return first, second, distances, task.transformation.encode(parameters)

        rng, count = np.random.default_rng(seed), max(1, round(self.nearest * self.batch_size))
        parts: list[list[np.ndarray]] = []
        for number in range(self.batches):
            chosen = rng.integers(0, len(data.x_train), self.batch_size)
            # Draw numbers of their own.
            draws = np.arange(self.batch_size, dtype="int64") + 2**58 + number * self.batch_size
            arrays = drawn(data.x_train[chosen], tf.constant(data.y_train[chosen], tf.int32), draws)
            first, second, distances, told = (each.numpy() for each in arrays)
            order = np.argsort(distances)
            others = rng.choice(order[count:], min(count, len(order) - count), replace=False)
            kept = np.concatenate([order[:count], others])
            parts.append([first[kept], second[kept], np.arange(len(kept)) < count, told[kept]])
        first, second, near, told = (np.concatenate(each) for each in zip(*parts, strict=True))
        return first, second, near, told


class LearnedGenerator(LearnedMovement):
    """A learnt linear generator; ``layer`` is the generator, otherwise as `LearnedMovement`."""

    def __init__(self, layer: LinearGenerator, *arguments: Any):
        super().__init__(*arguments)
        self.layer = layer

    @staticmethod
    def named(diagnostics: dict) -> dict:
        """The metrics among what a generator says of its learning."""
        names = ("share", "residual", "starts_agreement", "period", "misfit", "chance_misfit", "moved_residual")
        return {name: diagnostics[name] for name in names if diagnostics[name] is not None or name == "period"}

    def move(self, images: Any, times: Any) -> Any:
        return self.layer([images, times])

    def times_between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self.layer.times_between(first, second)

    def attach(self, network: keras.Model) -> keras.Model:
        """The network with the generator: as its own layer if it has one, else in front, where it projects images."""
        import keras
        from keras import ops

        from invariance.transfer.movements import fit_times

        if {"generator", "times"} <= {layer.name for layer in network.layers}:
            own = network.get_layer("generator")
            for mine, other in zip(own.weights, self.layer.weights, strict=True):
                mine.assign(other)
            if self.examples is not None:
                fit_times(network.get_layer("times"), *self.examples)
            return network
        # Training images lie within the components, and test images must be shown alike.
        inputs = keras.Input(network.input_shape[1:], name="images")
        projected = self.layer(
            [inputs, ops.repeat(ops.zeros_like(inputs[:, 0, 0, :1]), self.layer.parameters, axis=-1)]
        )
        # The network's layers, without an optimiser of their own.
        model = keras.Model(inputs, keras.Model(network.input, network.output, name="network")(projected))
        model.compile_from_config(network.get_compile_config())
        return model

    def save(self, folder: Any) -> None:
        import keras

        from invariance.files import replacing

        inputs = keras.Input(self.layer.image_shape, name="images"), keras.Input((self.layer.parameters,), name="times")
        with replacing(Path(folder) / "generator.keras") as partial:
            keras.Model(inputs, self.layer(list(inputs)), name="learned_generator").save(partial)
