"""Learns a flow from labelled images alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance.errors import require_positive
from invariance.experiment import Budget
from invariance.transfer.flow_from_pairs import learned_flow
from invariance.transfer.learner import Learned, Learner, Stage

if TYPE_CHECKING:
    from invariance.datasets import Data
    from invariance.tasks import Task


@dataclass(frozen=True)
class FlowFromLabels(Learner):
    """K0: learns from labelled images, of which it is not known which show the same original.

    The fields are those along which images can be moved far and still look like drawings of their class; see
    `transfer.moved_estimator.MovedEstimator`.

    Assumed: the transformation moves pixels smoothly, and the free classes are shown over its range.

    Args:
        degree: of the fields' polynomials, see `layers.flow.Flow`.
        steps: updates.
        pool: drawings of one class, in which neighbours of the moved ones are sought.
        moved: images moved for one update.
        reach: how far images are moved at most, in pixels (root mean square).

    Raises:
        ValueError: if an argument is out of range.
    """

    degree: int = 5
    steps: int = 120
    pool: int = 8192
    moved: int = 128
    reach: float = 10.0

    def __post_init__(self) -> None:
        require_positive(self, "degree", "steps", "pool", "moved")
        if not self.reach > 0:
            raise ValueError(f"Argument `reach` must be positive. Received: {self.reach!r}")

    def learn(self, task: Task, data: Data, seed: int) -> Generator[Stage, None, Learned]:
        from keras import ops

        from invariance.layers.flow import Flow
        from invariance.transfer.moved_estimator import MovedEstimator

        taught = data.select(task.teaching(np.unique(data.y_train).tolist()))
        # A number for each image, by which two drawings of the same one are recognised: they are not compared.
        weights = np.random.default_rng(seed).integers(1, 2**31, data.image_shape)

        def prepare(images: Any, labels: Any, draws: Any) -> tuple:
            identities = ops.sum(ops.cast(images, "int64") * ops.convert_to_tensor(weights, "int64"), (1, 2, 3))
            return (task.drawings(seed, images, labels, draws), identities), labels

        flow = Flow(task.transformation.dimensions, self.degree, seed, name="flow")
        flow.build([(None, *task.transformation.output_shape(data.image_shape)), (None, flow.fields)])
        model = MovedEstimator(flow, self.moved, self.reach, seed, self.steps, name="flow")
        model.normalise()
        budget = Budget(self.steps, self.moved + self.pool, max(1, self.steps // 10), 1.0)
        yield Stage("flow", model, prepare, taught.x_train, taught.y_train, budget, one_class=True)
        return learned_flow(flow, task, taught, seed, paired=False)
