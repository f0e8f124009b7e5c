"""An autoencoder whose code is mixed by weights that a control makes: of told parameters, or of the image itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

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

_RELU = ("relu", "relu")


@dataclass(frozen=True)
class ControlledAutoencoder(Drawing):
    """Encoder, averages of the code with weights that a control makes, decoder.

    Encoder: convolutions of `small` and `large` filters (5 x 5, stride 2, ReLU), and a linear layer to the code. Its
    place is taken by as many averages of its numbers. Their weights (`layers.second_order_dense.SecondOrderDense`) are
    made of the told parameters, through a dense layer (ReLU); or, if none are told, of the image, through convolutions
    of `large` and `small` filters. Decoder: a linear layer to a map of `large` channels, and two transposed
    convolutions (5 x 5, stride 2; ReLU with `small` channels, tanh).

    Args:
        code_size: dimension of the code.
        small, large: numbers of filters.
        hidden: units of the dense layer between told parameters and the weights.

    Raises:
        ValueError: if a number is not a positive integer.

    Reference: the convolutional models of singnet/semantic-vision, experiments/invariance/hypernets.
    """

    code_size: int = 200
    small: int = 10
    large: int = 20
    hidden: int = 64

    def __post_init__(self) -> None:
        require_positive(self, "code_size", "small", "large", "hidden")

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """The network, not compiled; if nothing is told (0 parameters), a model of images alone."""
        import keras

        from invariance.models.conditional_autoencoder import ConditionalAutoencoder

        images = keras.Input(input_shape, name="images")
        if parameters:
            encoder = keras.Model(images, self._code(images), name="encoder")
            codes, numbers = keras.Input((self.code_size,), name="codes"), keras.Input((parameters,), name="parameters")
            drawn = self._drawn(codes, numbers, self.hidden, output_shape)
            return ConditionalAutoencoder(
                encoder, keras.Model([codes, numbers], drawn, name="decoder"), name="controlled_autoencoder"
            )
        control = keras.layers.Flatten()(convolutions(images, (self.large, self.small), _RELU, "control"))
        drawn = self._drawn(self._code(images), control, 0, output_shape)
        return keras.Model(images, drawn, name="controlled_autoencoder")

    def _code(self, images: Any) -> Any:
        from keras import layers

        return layers.Dense(self.code_size, name="code")(
            layers.Flatten()(convolutions(images, (self.small, self.large), _RELU))
        )

    def _drawn(self, codes: Any, control: Any, hidden: int, output_shape: Shape) -> Any:
        from keras import layers

        from invariance.layers.second_order_dense import SecondOrderDense

        shape = (*quarter(output_shape), self.large)
        x = SecondOrderDense(self.code_size, hidden, name="averages")(codes, control)
        x = layers.Reshape(shape)(layers.Dense(prod(shape), name="dense")(x))
        return deconvolutions(x, self.small, output_shape)

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        control = 0
        if not parameters:
            control = prod(quarter(input_shape)) * self.small
            yield from convolution_flops(input_shape, (self.large, self.small))
        yield from self._encoder_flops(input_shape)
        yield from self._decoder_flops(output_shape, parameters, control)

    def _encoder_flops(self, input_shape: Shape) -> Iterator[float]:
        yield from convolution_flops(input_shape, (self.small, self.large))
        yield 2.0 * prod(quarter(input_shape)) * self.large * self.code_size

    def _decoder_flops(self, output_shape: Shape, parameters: int, control: int) -> Iterator[float]:
        if parameters:
            yield 2.0 * parameters * self.hidden
            control = self.hidden
        yield 2.0 * control * self.code_size**2
        yield 2.0 * self.code_size**2
        yield 2.0 * self.code_size * prod(quarter(output_shape)) * self.large
        yield from deconvolution_flops(self.large, self.small, output_shape)

    def evaluation_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> float:
        """Operations at one parameter; with told parameters of the decoder alone, as each image is encoded once."""
        if parameters:
            return sum(self._decoder_flops(output_shape, parameters, 0))
        return self.flops(input_shape, output_shape, parameters)
