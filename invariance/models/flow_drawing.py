"""Draws a transformed image by moving the upright one along a learnt flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from invariance.errors import require_positive
from invariance.models.drawing import Drawing
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class FlowDrawing(Drawing):
    """Moves an image along a flow for a time that is a linear function of the told parameters.

    It has no code: what it learns is how images move, not what digits look like. Fields and times are trained through
    the integration. As gradients through a warp reach a pixel or two only, it needs a good beginning, such as a flow
    learnt from pairs (see `transfer`).

    Args:
        fields: number of the flow's fields.
        circular: whether the told numbers are (cos a, sin a); see `layers.movement_times.MovementTimes`.
        degree: of the fields' polynomials, see `layers.flow.Flow`.

    Raises:
        ValueError: if a number is not a positive integer.
    """

    fields: int = 1
    circular: bool = False
    degree: int = 5

    def __post_init__(self) -> None:
        require_positive(self, "fields", "degree")

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """Its layers "times" and "flow" hold what it learns. The canvas must be centred on the images."""
        import keras
        from keras import layers

        from invariance.layers.flow import Flow
        from invariance.layers.movement_times import MovementTimes

        excess = [out - own for out, own in zip(output_shape[:2], input_shape[:2], strict=True)]
        if any(each < 0 or each % 2 for each in excess):
            raise ValueError(
                f"The canvas must exceed the images by an even number of pixels. Received: {tuple(output_shape[:2])} "
                f"for images {tuple(input_shape[:2])}"
            )
        images, numbers = keras.Input(input_shape, name="images"), keras.Input((parameters,), name="parameters")
        # To [0, 1], so that what comes from outside is black.
        x = layers.Rescaling(0.5, 0.5, name="to_ink")(images)
        if any(excess):
            x = layers.ZeroPadding2D([each // 2 for each in excess], name="canvas")(x)
        times = MovementTimes(self.fields, self.circular, name="times")(numbers)
        # Bilinear, as the images to be drawn.
        x = Flow(self.fields, self.degree, cubic=False, name="flow")([x, times])
        return keras.Model([images, numbers], layers.Rescaling(2.0, -1.0, name="to_pixels")(x), name="flow_drawing")

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        # No matrix product to speak of; some eight warps of a displacement, half again as wide as the canvas.
        yield 0.0
        yield 8 * 30.0 * 2.25 * prod(output_shape)
