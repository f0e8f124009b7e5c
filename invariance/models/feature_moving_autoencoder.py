"""An autoencoder whose features are moved to places that the told parameters choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from invariance.errors import require_positive
from invariance.models.convolutions import (
    convolution_flops,
    convolutions,
    deconvolution_flops,
    deconvolutions,
    quarter,
)
from invariance.models.drawing import Drawing
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class FeatureMovingAutoencoder(Drawing):
    """The told parameters give every cell of the image's features a place, whatever the image.

    Encoder: two convolutions (5 x 5, stride 2; tanh, ReLU). A linear layer makes a position of the parameters for each
    cell, and its features are placed there (`layers.place_capsules.PlaceCapsules`). Decoder: two transposed
    convolutions (5 x 5, stride 2; ReLU, tanh), the first with `first` channels.

    Args:
        first, second: numbers of filters of the encoder's convolutions.

    Raises:
        ValueError: if a number is not a positive integer.

    Reference: the address model of singnet/semantic-vision, experiments/invariance/hypernets/rotation_learning.
    """

    first: int = 16
    second: int = 32

    def __post_init__(self) -> None:
        require_positive(self, "first", "second")

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """Its codes are feature maps."""
        import keras
        from keras import layers

        from invariance.layers.place_capsules import PlaceCapsules
        from invariance.models.conditional_autoencoder import ConditionalAutoencoder

        images = keras.Input(input_shape, name="images")
        encoder = keras.Model(images, convolutions(images, (self.first, self.second), ("tanh", "relu")), name="encoder")
        height, width, channels = encoder.output_shape[1:]
        codes, numbers = (
            keras.Input((height, width, channels), name="codes"),
            keras.Input((parameters,), name="parameters"),
        )
        positions = layers.Dense(2 * height * width, dtype="float32", name="positions")(numbers)
        positions = layers.Reshape((height * width, 2), dtype="float32")(positions)
        x = PlaceCapsules(*quarter(output_shape), name="placed")(
            positions, layers.Reshape((height * width, channels))(codes)
        )
        decoder = keras.Model([codes, numbers], deconvolutions(x, self.first, output_shape), name="decoder")
        return ConditionalAutoencoder(encoder, decoder, name="feature_moving_autoencoder")

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        yield from convolution_flops(input_shape, (self.first, self.second))
        yield from self._decoder_flops(input_shape, output_shape, parameters)

    def _decoder_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        cells = prod(quarter(input_shape))
        yield 2.0 * parameters * 2 * cells
        yield 2.0 * cells * prod(quarter(output_shape)) * self.second
        yield from deconvolution_flops(self.second, self.first, output_shape)

    def evaluation_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> float:
        """Operations of the decoder alone: the evaluation encodes each image once and decodes it at every parameter."""
        return sum(self._decoder_flops(input_shape, output_shape, parameters))
