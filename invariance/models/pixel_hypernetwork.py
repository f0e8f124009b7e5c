"""A network without a code: the told parameters make the weights that average an image's pixels."""

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
class PixelHypernetwork(Drawing):
    """Draws each pixel as an average of the image's pixels, with weights that depend on the told parameters only.

    Parameters -> dense layer (ReLU) -> a weight for every pair of pixels, softmax over the pixels of the image. Nothing
    can be remembered of single images or classes: for each told parameter, the network is one linear map.

    Args:
        hidden: units of the dense layer.

    Raises:
        ValueError: if `hidden` is not a positive integer.
    """

    hidden: int = 64

    # Images that are told the same share the weights. Measured with the angles of the declared experiment.
    speed_up = 4.0

    def __post_init__(self) -> None:
        require_positive(self, "hidden")

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        import keras
        from keras import layers

        from invariance.layers.second_order_dense import SecondOrderDense

        images, numbers = keras.Input(input_shape, name="images"), keras.Input((parameters,), name="parameters")
        pixels = layers.Flatten(name="pixels")(images)
        x = SecondOrderDense(prod(output_shape), self.hidden, shared=True, name="averages")(pixels, numbers)
        x = layers.Reshape(output_shape, dtype="float32", name="drawn")(x)
        return keras.Model([images, numbers], x, name="pixel_hypernetwork")

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        weights = prod(input_shape) * prod(output_shape)
        yield 2.0 * parameters * self.hidden
        yield 2.0 * self.hidden * weights
        yield 2.0 * weights

    def evaluation_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> float:
        """Operations of the product alone: the evaluation tells all images of a batch the same."""
        return 2.0 * prod(input_shape) * prod(output_shape)
