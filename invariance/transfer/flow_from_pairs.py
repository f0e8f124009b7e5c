"""Learns a flow from pairs of drawings of the same image."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invariance.errors import require_positive, require_share
from invariance.experiment import Budget
from invariance.transfer.learned_movement import LearnedMovement
from invariance.transfer.learner import Learned, Learner, Stage

if TYPE_CHECKING:
    import keras

    from invariance.datasets import Data
    from invariance.layers.flow import Flow
    from invariance.tasks import Task


@dataclass(frozen=True)
class FlowFromPairs(Learner):
    """K1: learns from pairs of drawings of the same image, by how much they differ being unknown.

    Args:
        degree: of the fields' polynomials, see `layers.flow.Flow`.
        steps: updates from small movements.
        refine_steps: updates that also account for larger ones.
        batch_size: pairs drawn for an update.
        nearest: share of them, those that differ least, that is used.
        refine_nearest: the same for the refinement.

    Raises:
        ValueError: if an argument is out of range.
    """

    degree: int = 5
    steps: int = 100
    refine_steps: int = 60
    batch_size: int = 1024
    nearest: float = 0.06
    refine_nearest: float = 0.18

    def __post_init__(self) -> None:
        require_positive(self, "degree", "steps", "refine_steps", "batch_size")
        require_share(self, "nearest", "refine_nearest")

    def learn(self, task: Task, data: Data, seed: int) -> Generator[Stage, None, Learned]:
        from invariance.layers.flow import Flow
        from invariance.transfer.flow_estimator import FlowEstimator

        taught = data.select(task.teaching(np.unique(data.y_train).tolist()))
        flow = Flow(task.transformation.dimensions, self.degree, seed, name="flow")
        flow.build([(None, *task.transformation.output_shape(data.image_shape)), (None, flow.fields)])

        def prepare(images: Any, labels: Any, draws: Any) -> tuple:
            return task.pairs(seed, images, labels, draws), labels

        stages = (
            ("flow", self.steps, self.nearest, False),
            ("flow_refined", self.refine_steps, self.refine_nearest, True),
        )
        for name, steps, nearest, refine in stages:
            budget = Budget(steps, self.batch_size, max(1, steps // 10), 1.0)
            model = FlowEstimator(flow, nearest, refine=refine, name=name)
            model.normalise()
            yield Stage(name, model, prepare, taught.x_train, taught.y_train, budget)
        return learned_flow(flow, task, taught, seed)


# Pairs whose movements give the range of a flow that is not periodic.
_PAIRS = 256


def learned_flow(flow: Flow, task: Task, data: Data, seed: int, *, paired: bool = True) -> LearnedFlow:
    """Finds the period or the range of a learnt flow, from training images that were not drawn before.

    Args:
        flow: the flow.
        task: gives the drawings.
        data: of the classes from which the flow was learnt.
        seed: the run's seed.
        paired: whether the range may be found from pairs of drawings of the same image; otherwise from pairs of
            drawings of the same class.
    """
    from invariance.transfer.flow_estimator import blurred, squares
    from invariance.transfer.movements import Movements, find_period, times_between

    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(data.x_train), _PAIRS)
    # Draw numbers far beyond those of any training.
    draws = np.arange(_PAIRS, dtype="int64") + 2**60
    labels = data.y_train[chosen]
    if paired:
        first, second = map(np.asarray, task.pairs(seed, data.x_train[chosen], labels, draws))
    else:
        others = np.array([rng.choice(np.flatnonzero(data.y_train == label)) for label in labels])
        first = np.asarray(task.drawings(seed, data.x_train[chosen], labels, draws))
        second = np.asarray(task.drawings(seed, data.x_train[others], labels, draws + _PAIRS))
    differ = np.asarray(squares(second - first)) > 1e-3 * np.asarray(squares(first))
    metrics: dict[str, Any] = {}
    if not differ.any():
        return LearnedFlow(flow, task, Movements(flow.fields, None, np.zeros((flow.fields, flow.fields))), metrics)
    ink = np.asarray(blurred(first)).sum((0, 3))
    found = find_period(flow, ink) if flow.fields == 1 else None
    period = None
    if found:
        period, metrics["closing_error"] = found
        metrics["period"] = period
    times, left = times_between(flow, first[differ], second[differ], period)
    explained = left < 0.5
    metrics["explained"] = float(explained.mean())
    movements = Movements.like(times[explained], period)
    if period is None:
        metrics["range"] = np.round(movements.axes, 4).tolist()
    found_so_far = (flow, task, movements, metrics)
    if not paired:
        return LearnedFlow(*found_so_far)  # the second images show others, at parameters that are not those of `draws`
    # For models that are told the parameter of the second image, as that of an upright one.
    parameters = np.asarray(task.transformation.draw(task.drawn, seed, draws, labels))
    told = np.asarray(task.transformation.encode(parameters))[differ][explained]
    return LearnedFlow(*found_so_far, (told, times[explained]))


class LearnedFlow(LearnedMovement):
    """A learnt flow and how far images are moved along it; ``flow`` is the flow, otherwise as `LearnedMovement`."""

    def __init__(self, flow: Flow, *arguments: Any):
        super().__init__(*arguments)
        self.flow = flow
        self.metrics = {**self.metrics, "cosines": self._cosines()}

    def attach(self, network: keras.Model) -> keras.Model:
        """Hands the flow to a network's layer "flow", and what was found of times to its layer "times", if it has them.

        See `models.flow_drawing.FlowDrawing` and `models.flow_tangents.FlowTangents`.
        """
        from invariance.transfer.movements import fit_times

        names = {layer.name for layer in network.layers}
        if "flow" in names:
            network.get_layer("flow").coefficients.assign(self.flow.coefficients)
        if "times" in names and self.examples is not None:
            fit_times(network.get_layer("times"), *self.examples)
        return network

    def move(self, images: Any, times: Any) -> Any:
        from keras import ops

        # Cubic interpolation may leave the range of pixels.
        return ops.clip(self.flow([images, times]), 0.0, 1.0)

    def times_between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        from invariance.transfer.movements import times_between

        return times_between(self.flow, first, second, self.movements.period)[0]

    def _masked(self) -> tuple[np.ndarray, np.ndarray]:
        """The true fields (dimensions, height, width, 2), and where their pixels come from within the image."""
        height, width = self.flow.size
        rows, columns = np.mgrid[:height, :width]
        radius = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
        return self.task.transformation.vector_fields(height, width), radius < 0.39 * min(height, width)

    def _cosines(self) -> list[float]:
        """For each parameter, the cosine between its true field and the span of the learnt ones. Measured, not used."""
        true, mask = self._masked()
        basis, _ = np.linalg.qr(np.asarray(self.flow.vector_fields())[:, mask].reshape(self.flow.fields, -1).T)
        vectors = true[:, mask].reshape(len(true), -1)
        return [float(np.linalg.norm(basis.T @ each) / np.linalg.norm(each)) for each in vectors]

    def save(self, folder: Any) -> None:
        import keras

        from invariance.files import replacing

        shape = (*self.flow.size, 1)
        inputs = keras.Input(shape, name="images"), keras.Input((self.flow.fields,), name="times")
        model = keras.Model(inputs, self.flow(list(inputs)), name="learned_flow")
        with replacing(Path(folder) / "flow.keras") as partial:
            model.save(partial)

    def figures(self, title: str) -> Iterator[Any]:
        from invariance import figures

        learnt = np.asarray(self.flow.vector_fields())
        true, mask = self._masked()
        yield figures.Picture("field.png", figures.vector_fields(learnt, true, mask, self.task, title))
        yield from super().figures(title)
