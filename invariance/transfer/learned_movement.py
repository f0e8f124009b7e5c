"""What learnt flows and generators share: they move images by times that they find themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance.transfer.learner import Learned

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks import Task
    from invariance.transfer.answers import Answers
    from invariance.transfer.movements import Movements

# Of the picture of moved images.
_CLASSES, _TIMES = 8, 13


class LearnedMovement(Learned):
    """Base of learnt movements.

    Args:
        task: how networks use it. Its transformation is the true one, with which the movement is compared.
        movements: the distribution of movements in training.
        metrics: see `Learned`.
        examples: encoded parameters (pairs, numbers) and times (pairs, parameters) of pairs of images, for models that
            are told the parameter.
    """

    def __init__(
        self, task: Task, movements: Movements, metrics: dict, examples: tuple[np.ndarray, np.ndarray] | None = None
    ):
        self.task, self.movements, self.metrics, self.examples = task, movements, metrics, examples
        self.answers: Answers | None = None
        self.moved: tuple[np.ndarray, np.ndarray] | None = None

    def move(self, images: Any, times: Any) -> Any:
        """Images (batch, height, width, channels) in [0, 1], moved by times (batch, parameters)."""
        raise NotImplementedError

    def times_between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The times (pairs, parameters) that carry the first images to the second ones; not finite where none do."""
        raise NotImplementedError

    def prepare(self, prepare: Callable, seed: int) -> Callable:
        def move(images: Any, draws: Any) -> Any:
            return self.move(images, self.movements.draw(seed, draws))

        return self.task.moving(prepare, move)

    def measure(self, data: Data, seed: int) -> dict:
        """How far, and which way, it finds that test images were moved; see `transfer.answers`."""
        from invariance.transfer.answers import ask

        self.answers = ask(self, data, seed)
        self.moved = self._examples(data)
        return {"answers": self.answers.metrics()}

    def _examples(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """A test image of each class, moved: times (number,), and images (classes, number, height, width, channels).

        Over one period, or from one end to the other; of several parameters, the first.
        """
        kind = self.task.transformation
        labels = np.unique(data.y_test)[:_CLASSES]
        chosen = [np.flatnonzero(data.y_test == label)[0] for label in labels]
        upright = data.x_test[chosen].astype("float32") / 255.0
        still = np.full((len(upright), kind.dimensions), kind.identity, "float32")
        upright = np.asarray(kind.apply(upright, still))
        end = self.movements.period / 2 if self.movements.period else float(np.linalg.norm(self.movements.axes[0]))
        times = np.linspace(-end, end, _TIMES)
        along = np.zeros((len(upright), self.movements.fields), "float32")
        along[:, 0] = 1.0
        return times, np.stack([np.asarray(self.move(upright, time * along)) for time in times], 1)

    def figures(self, title: str) -> Iterator[Any]:
        from invariance import figures

        if self.answers is not None:
            yield figures.Picture("answers.png", figures.answers(self.answers, title))
        if self.moved is not None:
            yield figures.Picture("moved.png", figures.moved(*self.moved, title))
