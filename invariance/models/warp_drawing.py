"""Draws a transformed image by the transformation itself, whose parameter is learnt from what is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.models.declaration import Declaration
from invariance.transforms import Transformation
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class WarpDrawing(Declaration):
    """Applies a known transformation to the image. All that it learns is by which parameter, given the told numbers.

    Args:
        transformation: what it knows.
    """

    transformation: Transformation

    def __call__(
        self, input_shape: Shape, output_shape: Shape, parameters: int, learning_rate: Any = 1e-3
    ) -> keras.Model:
        """Builds and compiles the network; arguments and results as for `models.flow_drawing.FlowDrawing`.

        Raises:
            ValueError: if the canvas or the number of parameters is not the transformation's.
        """
        import keras

        from invariance.layers.told_transformation import ToldTransformation
        from invariance.optimizers import Adam

        if tuple(output_shape) != (own := self.transformation.output_shape(tuple(input_shape))):
            raise ValueError(f"The canvas must be that of the transformation, {own}. Received: {tuple(output_shape)}")
        images, numbers = keras.Input(input_shape, name="images"), keras.Input((parameters,), name="parameters")
        drawn = ToldTransformation(self.transformation, name="told")([images, numbers])
        model = keras.Model([images, numbers], drawn, name="warp_drawing")
        model.compile(Adam(learning_rate), keras.losses.MeanSquaredError())
        return model

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        # No matrix product to speak of; a warp takes some 30 operations a pixel.
        yield 0.0
        yield 30.0 * prod(output_shape)
