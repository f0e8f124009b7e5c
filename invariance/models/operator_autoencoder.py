"""Networks that transform an image by rotating pairs of numbers of its code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive
from invariance.models.autoencoder import Autoencoder
from invariance.models.drawing import Drawing
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class OperatorAutoencoder(Drawing):
    """y = decoder(R(t) encoder(x)), where R(t) rotates pairs of code numbers by angles that are linear in t.

    Where the article's autoencoder appends the parameters t to the code, they act on it here. The frequencies of the
    rotations are those of a Fourier series in t: nothing else is known of the transformation.

    `linear`: encoder and decoder are matrices, and so y = T(t) x + (a constant background), with a matrix T(t) that is
    the same for all images. What is learnt of it from some images holds for all others: nothing can be remembered of
    single images or classes. Such a matrix has the rank that the code leaves it, and mean squared error is what the
    remaining directions hold.

    `separable`: linear, with one matrix for rows and one for columns, y = T_r(t_1) x T_c(t_2)'. The first parameter
    acts along columns of pixels and the second along rows. A few thousand weights instead of millions.

    Otherwise encoder and decoder are those of `Autoencoder`, and only the code is transformed linearly.

    Args:
        code_size: dimension of the code, even; with `separable`, of each of its two axes.
        circular: whether parameters are angles, given as (cos, sin).
        spacing: distance of frequencies, in radians per unit of an encoded parameter; a whole number for angles. A
            spacing w gives operators that repeat after 2 pi / w units, which should exceed the range of the parameter.
        learnt: whether frequencies are learnt, from those of `frequencies` on.
        linear, separable: see above.
        feature_maps, filters, units: of `Autoencoder`; of no effect if `linear`.

    Raises:
        ValueError: if a size is not a positive integer, the code's size is odd, the spacing is out of range, or a
            network is separable but not linear.

    References: Rao and Ruderman, "Learning Lie groups for invariant visual perception" (1999); Cohen and Welling,
        "Transformation properties of learned visual representations" (2015); Freeman and Adelson, "The design and use
        of steerable filters" (1991).
    """

    code_size: int = 512
    circular: bool = True
    spacing: float = 1.0
    learnt: bool = False
    linear: bool = True
    separable: bool = False
    feature_maps: int = 256
    filters: tuple[int, ...] = (64, 128)
    units: int = 1024

    def __post_init__(self) -> None:
        require_positive(self, "code_size", "feature_maps", "units")
        if self.code_size % 2:
            raise ValueError(f"Argument `code_size` must be even: numbers form pairs. Received: {self.code_size!r}")
        if not 0 < self.spacing < math.inf or (self.circular and self.spacing != int(self.spacing)):
            raise ValueError(
                "Argument `spacing` must be a positive number, and a whole one for circular parameters. "
                f"Received: {self.spacing!r}"
            )
        if self.separable and not self.linear:
            raise ValueError("Argument `separable` needs `linear`. Received: separable=True, linear=False")

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """Circular parameters must be pairs.

        A separable network must have two parameters, and draw as many channels as its images have.
        """
        from invariance.models.conditional_autoencoder import ConditionalAutoencoder

        self._dimensions(parameters)
        if self.separable:
            if input_shape[-1] != output_shape[-1]:
                raise ValueError(
                    "A separable network draws as many channels as its images have. Received: images "
                    f"{tuple(input_shape)}, canvas {tuple(output_shape)}"
                )
            encoder, decoder = self._separable(input_shape, output_shape, parameters)
        else:
            encoder, decoder = self._encoder(input_shape), self._decoder(output_shape, parameters)
        return ConditionalAutoencoder(encoder, decoder, name="operator_autoencoder")

    def optimizer(self, learning_rate: Any) -> keras.Optimizer:
        """Adam; without `linear`, RMSProp, as for `Autoencoder`."""
        from invariance.optimizers import RMSProp

        return super().optimizer(learning_rate) if self.linear else RMSProp(learning_rate)

    def frequencies(self, dimensions: int) -> tuple[tuple[float, ...], ...]:
        """The frequencies of the code's pairs, (pairs, dimensions), lowest first.

        They are points k of a grid, `spacing` apart; of k and -k only one, since they differ by the order of a pair.
        Two parameters, or the one along a separable network's axis, reach every pixel from every other one: each
        frequency occurs once in the images. One parameter in the plane leaves a dimension over (the radius, for
        rotations): frequency k then occurs with several profiles along it, number m = 0, 1, ... of which has about
        k + 2 m half waves. All those with the fewest half waves are taken, as in a disc's Fourier-Bessel series.

        Args:
            dimensions: number of parameters that rotate the code.
        """
        pairs, repeated = self.code_size // 2, dimensions == 1 and not self.separable
        for reach in itertools.count():
            points = [
                (math.hypot(*point) + 2 * copy, copy, point)
                for point in itertools.product(range(-reach, reach + 1), repeat=dimensions)
                if point >= (0,) * dimensions
                for copy in range(reach // 2 + 1 if repeated else 1)
            ]
            found = sorted(each for each in points if each[0] <= reach)
            if len(found) >= pairs:
                break
        return tuple(tuple(self.spacing * each for each in point) for *_, point in found[:pairs])

    def _dimensions(self, parameters: int) -> int:
        """How many parameters rotate a code, or an axis of it, of those that ``parameters`` numbers describe."""
        dimensions, rest = divmod(parameters, 2) if self.circular else (parameters, 0)
        if rest or not dimensions:
            raise ValueError(f"Circular parameters are pairs (cos, sin). Received: {parameters} numbers")
        if self.separable and dimensions != 2:
            raise ValueError(
                f"A separable network has a parameter for rows and one for columns. Received: {dimensions} parameters"
            )
        return 1 if self.separable else dimensions

    def _rotation(self, parameters: int, name: str) -> keras.layers.Layer:
        from invariance.layers.block_rotation import BlockRotation

        return BlockRotation(self.frequencies(self._dimensions(parameters)), self.circular, self.learnt, name=name)

    def _encoder(self, input_shape: Shape) -> keras.Model:
        import keras
        from keras import layers

        if not self.linear:
            return self._convolutional._encoder(input_shape)
        inputs = keras.Input(input_shape, name="images")
        # The background becomes zero, and no bias is needed.
        x = layers.Flatten()(layers.Rescaling(1.0, 1.0, name="ink")(inputs))
        x = layers.Dense(self.code_size, use_bias=False, name="code")(x)
        return keras.Model(inputs, x, name="encoder")

    def _decoder(self, output_shape: Shape, parameters: int) -> keras.Model:
        import keras
        from keras import layers

        codes, numbers = keras.Input((self.code_size,), name="codes"), keras.Input((parameters,), name="parameters")
        x = self._rotation(parameters, "rotation")([codes, numbers])
        if self.linear:
            x = layers.Dense(prod(output_shape), use_bias=False, name="pixels")(x)
            x = layers.Rescaling(1.0, -1.0, dtype="float32", name="pixels_in_range")(layers.Reshape(output_shape)(x))
        else:
            # No number is appended to the rotated code.
            x = self._convolutional._decoder(output_shape, 0)([x, x[:, :0]])
        return keras.Model([codes, numbers], x, name="decoder")

    def _separable(self, input_shape: Shape, output_shape: Shape, parameters: int) -> tuple[keras.Model, keras.Model]:
        import keras
        from keras import layers

        height, width, channels = output_shape
        transposed = layers.Permute((1, 3, 2))

        def dense(units: int, name: str) -> layers.Layer:
            return layers.Dense(units, use_bias=False, name=name)

        inputs = keras.Input(input_shape, name="images")
        # (height, width, channels) -> (channels, height, width) -> (channels, code, height) -> (channels, code, code)
        x = layers.Permute((3, 1, 2))(layers.Rescaling(1.0, 1.0, name="ink")(inputs))
        x = dense(self.code_size, "rows")(transposed(dense(self.code_size, "columns")(x)))
        encoder = keras.Model(inputs, x, name="encoder")

        codes = keras.Input((channels, self.code_size, self.code_size), name="codes")
        numbers, half = keras.Input((parameters,), name="parameters"), parameters // 2
        x = self._rotation(parameters, "rows_rotation")([codes, numbers[:, :half]])
        x = self._rotation(parameters, "columns_rotation")([transposed(x), numbers[:, half:]])
        # (channels, code, code) -> (channels, code, width) -> (channels, width, height)
        x = dense(height, "pixel_rows")(transposed(dense(width, "pixel_columns")(x)))
        x = layers.Rescaling(1.0, -1.0, dtype="float32", name="pixels_in_range")(layers.Permute((3, 2, 1))(x))
        return encoder, keras.Model([codes, numbers], x, name="decoder")

    @property
    def _convolutional(self) -> Autoencoder:
        return Autoencoder(self.feature_maps, self.code_size, self.filters, self.units)

    def evaluation_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> float:
        """Operations of the decoder alone: the evaluation encodes each image once and decodes it at every parameter."""
        return sum(self._decoder_flops(output_shape))

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        yield from self._encoder_flops(input_shape)
        yield from self._decoder_flops(output_shape)

    def _encoder_flops(self, input_shape: Shape) -> Iterator[float]:
        if not self.linear:
            yield from self._convolutional._encoder_flops(input_shape)
            return
        yield 2.0 * prod(input_shape) * self.code_size
        if self.separable:
            yield 2.0 * input_shape[0] * input_shape[-1] * self.code_size**2

    def _decoder_flops(self, output_shape: Shape) -> Iterator[float]:
        if not self.linear:
            yield from self._convolutional._decoder_flops(output_shape, 0)
            return
        if self.separable:
            yield 2.0 * output_shape[1] * output_shape[-1] * self.code_size**2
        yield 2.0 * prod(output_shape) * self.code_size
