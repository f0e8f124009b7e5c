"""Predicts tangents of a transformation by moving the image along a learnt flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class FlowTangents(Declaration):
    """The tangents of a flow that was learnt before, see `transfer`; it is not trained any further.

    Args:
        degree: of the fields' polynomials, see `layers.flow.Flow`.

    Raises:
        ValueError: if `degree` is not a positive integer.
    """

    degree: int = 5

    def __post_init__(self) -> None:
        require_positive(self, "degree")

    def __call__(self, input_shape: Shape, tangents: int, learning_rate: Any = 1e-3) -> keras.Model:
        """Builds and compiles the network; arguments and results as for `models.tangent_network.TangentNetwork`."""
        import keras

        from invariance import losses
        from invariance.layers import flow_tangents
        from invariance.optimizers import Adam

        images = keras.Input(input_shape, name="images")
        flow = flow_tangents.FlowTangents(tangents, self.degree, cubic=False, name="flow", trainable=False)
        model = keras.Model(images, flow(images), name="flow_tangents")
        model.compile(Adam(learning_rate), losses.TangentLoss())
        return model

    def layer_flops(self, input_shape: Shape, tangents: int) -> Iterator[float]:
        # No matrix product to speak of; for each tangent twice the warps of `models.flow_drawing.FlowDrawing`.
        yield 0.0
        yield 2 * tangents * 8 * 30.0 * 2.25 * prod(input_shape)
