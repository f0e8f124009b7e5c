"""Draws a transformed image by the transformation itself, whose parameter is learnt from what is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from invariance.models.drawing import Drawing
from invariance.transforms import Transformation
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class WarpDrawing(Drawing):
    """Applies a known transformation to the image. All that it learns is by which parameter, given the told numbers.

    Args:
        transformation: what it knows.
    """

    transformation: Transformation

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """The canvas and the number of parameters must be the transformation's."""
        import keras

        from invariance.layers.told_transformation import ToldTransformation

        if tuple(output_shape) != (own := self.transformation.output_shape(tuple(input_shape))):
            raise ValueError(f"The canvas must be that of the transformation, {own}. Received: {tuple(output_shape)}")
        images, numbers = keras.Input(input_shape, name="images"), keras.Input((parameters,), name="parameters")
        drawn = ToldTransformation(self.transformation, name="told")([images, numbers])
        return keras.Model([images, numbers], drawn, name="warp_drawing")

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        # No matrix product to speak of; a warp takes some 30 operations a pixel.
        yield 0.0
        yield 30.0 * prod(output_shape)
