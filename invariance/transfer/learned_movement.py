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
        return {"answers": self.answers.metrics()}

    def figures(self, title: str) -> Iterator[Any]:
        from invariance import figures

        if self.answers is not None:
            yield figures.Picture("answers.png", figures.answers(self.answers, title))
