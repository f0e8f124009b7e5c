"""What is shared by all ways to learn a transformation. Imports no Keras.

A run of a `Transfer` has stages. In the first ones a `Learner` learns how images move, from drawings of the free
classes only. In the last one the network is trained, on images of all classes moved at random in the learnt way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariance.experiment import Budget
from invariance.models.declaration import Declaration

if TYPE_CHECKING:
    import keras
    import numpy as np

    from invariance.datasets import Data
    from invariance.tasks import Task


@dataclass(frozen=True, eq=False)
class Stage:
    """A training that precedes that of the network.

    Attributes:
        name: of its folder in the run's.
        model: what is trained; resuming depends on its variables, as for any run.
        prepare: (images, labels, draws) -> (inputs, targets) of the model's ``train_step``.
        images, labels: what it is trained on.
        budget: for how long.
        one_class: whether all images of a batch are of one class.
    """

    name: str
    model: keras.Model
    prepare: Callable
    images: np.ndarray
    labels: np.ndarray
    budget: Budget
    one_class: bool = False


class Learned:
    """A learnt transformation.

    Attributes:
        metrics: what was learnt, in numbers, for metrics.json.
    """

    metrics: dict

    def prepare(self, prepare: Callable, seed: int) -> Callable:
        """A function like ``prepare`` (see `Task.prepare`) whose images are moved at random in the learnt way."""
        raise NotImplementedError

    def attach(self, network: keras.Model) -> keras.Model:
        """The network as it is trained and measured; by default as it is."""
        return network

    def measure(self, data: Data, seed: int) -> dict:
        """Measures what was learnt on test images, after the network was trained.

        Args:
            data: of the task's classes.
            seed: the run's seed.

        Returns:
            Further numbers for metrics.json; by default none.
        """
        return {}

    def save(self, folder: Any) -> None:
        """Writes what was learnt into a run's folder, by default nothing."""

    def figures(self, title: str) -> Iterator[Any]:
        """Yields figures of what was learnt."""
        yield from ()


class Learner:
    """Base of the ways to learn a transformation: frozen dataclasses that hold their settings."""

    def learn(self, task: Task, data: Data, seed: int) -> Generator[Stage, None, Learned]:
        """Yields the stages one after the other, each to be trained before the next is asked for.

        Args:
            task: what the network will be trained on.
            data: of the task's classes.
            seed: the run's seed.

        Returns:
            What was learnt.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Transfer(Declaration):
    """A network trained on images that are moved by a transformation learnt beforehand.

    Args:
        network: the network.
        learner: learns the transformation.
    """

    network: Declaration
    learner: Learner

    def __call__(self, *arguments: Any, learned: Learned | None = None, **options: Any) -> keras.Model:
        """Builds and compiles the network, in the form that suits what was learnt."""
        model = self.network(*arguments, **options)
        return model if learned is None else learned.attach(model)

    def layer_flops(self, *arguments: Any) -> Iterator[float]:
        yield from self.network.layer_flops(*arguments)

    def training_flops(self, *arguments: Any) -> float:
        return self.network.training_flops(*arguments)

    def evaluation_flops(self, *arguments: Any) -> float:
        return self.network.evaluation_flops(*arguments)
