"""Draws a transformed image by moving the upright one with a learnt linear generator."""

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
class GeneratorDrawing(Drawing):
    """Moves an image by exp(tA), with a time t that is a linear function of the told parameter.

    The generator A has to be learnt before (`transfer.generator_from_pairs`); training only fits the time.

    Args:
        components: of the generator, see `layers.linear_generator.LinearGenerator`.
        circular: whether the told numbers are (cos a, sin a); see `layers.movement_times.MovementTimes`.

    Raises:
        ValueError: if `components` is not a positive integer.
    """

    components: int = 120
    circular: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "components")

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """The canvas must be as large as the images."""
        import keras
        from keras import layers

        from invariance.layers.linear_generator import LinearGenerator
        from invariance.layers.movement_times import MovementTimes

        if tuple(output_shape) != tuple(input_shape):
            raise ValueError(
                f"The canvas must be as large as the images. Received: {tuple(output_shape)} for {tuple(input_shape)}"
            )
        images, numbers = keras.Input(input_shape, name="images"), keras.Input((parameters,), name="parameters")
        x = layers.Rescaling(0.5, 0.5, name="to_ink")(images)
        times = MovementTimes(1, self.circular, name="times")(numbers)
        x = LinearGenerator(self.components, name="generator")([x, times])
        model = keras.Model(
            [images, numbers], layers.Rescaling(2.0, -1.0, name="to_pixels")(x), name="generator_drawing"
        )
        return model

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        yield 2.0 * prod(input_shape) * self.components
        yield 2.0 * prod(output_shape) * self.components
