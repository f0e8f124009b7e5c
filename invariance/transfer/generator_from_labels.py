"""Learns a linear generator from labelled images alone, without knowing which pixels are neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from invariance.errors import require_positive
from invariance.transfer.generator_from_pairs import LearnedGenerator
from invariance.transfer.learner import Learned, Learner, Stage

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks import Task


@dataclass(frozen=True)
class GeneratorFromLabels(Learner):
    """K0: learns a linear generator from labelled images, of which it is not known which show the same original.

    See `generators_from_classes`. Assumed: the transformation acts linearly on images, keeps their length, several
    parameters commute, and the free classes are shown over its range. It need not move pixels; which of them are
    neighbours is not known.

    Args:
        components: number of principal components.
        pool: drawings of each class, one of an image.

    Raises:
        ValueError: if an argument is not a positive integer.
    """

    components: int = 120
    pool: int = 6000

    def __post_init__(self) -> None:
        require_positive(self, "components", "pool")

    def learn(self, task: Task, data: Data, seed: int) -> Generator[Stage, None, Learned]:
        from invariance.layers.linear_generator import LinearGenerator
        from invariance.transfer.movements import Movements

        yield from ()  # it takes a minute or two, and is no stage
        taught = data.select(task.teaching(np.unique(data.y_train).tolist()))
        rng, classes = np.random.default_rng(seed), []
        for label in np.unique(taught.y_train):
            own = rng.permutation(np.flatnonzero(taught.y_train == label))[: self.pool]
            # Draw numbers of their own.
            draws = own.astype("int64") + 2**58
            classes.append(np.asarray(task.drawings(seed, taught.x_train[own], taught.y_train[own], draws)))
        layer = LinearGenerator(self.components, task.transformation.dimensions, name="generator")
        with warnings.catch_warnings():
            # That random starts disagree is among the metrics.
            warnings.simplefilter("ignore", UserWarning)
            metrics = layer.learn_from_classes(classes, seed=seed)
        # Between drawings of one class; they tell how far images are moved if there is no period.
        first, second = (np.concatenate([each[part::2][: len(each) // 2] for each in classes]) for part in (0, 1))
        chosen = rng.permutation(len(first))[:_PAIRS]
        times = layer.times_between(first[chosen], second[chosen])
        return LearnedGenerator(layer, task, Movements.like(times, layer.period), LearnedGenerator.named(metrics))


# Pairs of drawings of one class that give the range of a movement without a period.
_PAIRS = 1024
