"""The autoencoders that draw a transformed image: plain, or regularised adversarially."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive
from invariance.models.declaration import Declaration
from invariance.models.regularisers import CROSS_ENTROPY, REGULARISERS, WASSERSTEIN, WASSERSTEIN_BATCHWIDE
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Autoencoder(Declaration):
    """Convolutional encoder of an untransformed image; decoder of its code and the parameters of a transformation.

    Encoder: convolutions (4 x 4, stride 2), dense layer, code. Decoder: two dense layers, the second giving
    `feature_maps` channels at a quarter of the canvas' height and width; transposed convolution (4 x 4, stride 2) to
    half as many channels; transposed convolution (4 x 4, stride 2) to the pixels.

    Args:
        feature_maps: F, number of channels of the decoder's first feature map.
        code_size: z, dimension of the code.
        filters: numbers of filters of the encoder's convolutions (leaky ReLU with slope 0.1).
        units: units of the encoder's dense layer (leaky ReLU) and the decoder's first (ReLU).
        regulariser: None, or one of `REGULARISERS`: see `models.conditional_autoencoder.AdversarialAutoencoder`.
        critic: units of the critic's hidden layers (leaky ReLU).
        critic_updates: number of critic updates in each training step.
        penalty_weight: weight of the gradient penalty.
        initial_accumulator: initial value of RMSProp's running averages: 1.0 in TensorFlow 1, 0.0 in Keras.

    Raises:
        ValueError: if a size is not a positive integer or the regulariser is unknown.
    """

    feature_maps: int = 256
    code_size: int = 10
    filters: tuple[int, ...] = (64, 128)
    units: int = 1024
    regulariser: str | None = None
    critic: tuple[int, ...] = (1024, 1024)
    critic_updates: int = 5
    penalty_weight: float = 10.0
    initial_accumulator: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "feature_maps", "code_size", "units", "critic_updates")
        if self.regulariser not in (None, *REGULARISERS):
            raise ValueError(
                f"Argument `regulariser` must be None or one of {', '.join(REGULARISERS)}. "
                f"Received: {self.regulariser!r}"
            )

    def __call__(
        self, input_shape: Shape, output_shape: Shape, parameters: int, learning_rate: Any = 1e-3
    ) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of untransformed images in [-1, 1].
            output_shape: (height, width, channels) of the canvas to draw on.
            parameters: how many numbers describe the transformation to the decoder.
            learning_rate: a float or a Keras schedule of training steps, for RMSProp. The critic, and the encoder's
                update against it, follow it too: at a constant rate the regulariser would win in the end, and the
                reconstruction error would rise.

        Returns:
            A `models.conditional_autoencoder.ConditionalAutoencoder`; with a regulariser, an `AdversarialAutoencoder`.
        """
        import keras

        from invariance.models.conditional_autoencoder import AdversarialAutoencoder, ConditionalAutoencoder
        from invariance.optimizers import RMSProp, per_step

        def optimizer(rate: Any) -> RMSProp:
            return RMSProp(rate, initial_accumulator=self.initial_accumulator)

        encoder, decoder = self._encoder(input_shape), self._decoder(output_shape, parameters)
        model: keras.Model
        if self.regulariser is None:
            model = ConditionalAutoencoder(encoder, decoder, name="autoencoder")
        else:
            model = AdversarialAutoencoder(
                encoder,
                decoder,
                self._critic(),
                optimizer(per_step(learning_rate, self.critic_updates)),
                optimizer(learning_rate),
                self.regulariser,
                self.critic_updates,
                self.penalty_weight,
                name="adversarial_autoencoder",
            )
        model.compile(optimizer(learning_rate), keras.losses.MeanSquaredError())
        return model

    def _encoder(self, input_shape: Shape) -> keras.Model:
        import keras
        from keras import layers

        from invariance.layers.large_dense import LargeDense

        inputs = x = keras.Input(input_shape, name="images")
        for number, count in enumerate(self.filters, 1):
            x = layers.Conv2D(count, 4, 2, "same", name=f"conv_{number}")(x)
            x = layers.LeakyReLU(0.1)(x)
        x = LargeDense(self.units, name="dense")(layers.Flatten()(x))
        x = layers.LeakyReLU(0.1)(x)
        return keras.Model(inputs, layers.Dense(self.code_size, dtype="float32", name="code")(x), name="encoder")

    def _decoder(self, output_shape: Shape, parameters: int) -> keras.Model:
        import keras
        from keras import layers

        *canvas, channels = output_shape
        quarter = [-(-side // 4) for side in canvas]
        codes, numbers = keras.Input((self.code_size,), name="codes"), keras.Input((parameters,), name="parameters")
        half_maps, slope = self._half()
        x = self._quarter(codes, numbers, quarter)
        x = layers.Conv2DTranspose(half_maps, 4, 2, "same", activation=None if slope else "relu", name="deconv_1")(x)
        x = layers.LeakyReLU(slope)(x) if slope else x
        x = layers.Conv2DTranspose(channels, 4, 2, "same", name="deconv_2")(x)
        # A canvas whose sides are not multiples of four is cropped from the next larger one that has such sides.
        excess = [4 * small - side for small, side in zip(quarter, canvas, strict=True)]
        if any(excess):
            x = layers.Cropping2D([(pixels // 2, pixels - pixels // 2) for pixels in excess])(x)
        return keras.Model([codes, numbers], layers.Activation("tanh", dtype="float32", name="tanh")(x), name="decoder")

    def _quarter(self, codes: Any, numbers: Any, size: Sequence[int]) -> Any:
        """The decoder's first map, (batch, *size, feature_maps), at a quarter of the canvas' size.

        Subclasses draw on other first maps: this and `_quarter_flops` are what their decoders differ in.

        Args:
            codes, numbers: symbolic codes (batch, code_size) and parameters (batch, numbers).
            size: height and width of the map.
        """
        from keras import layers

        from invariance.layers.large_dense import LargeDense

        x = layers.Concatenate()([codes, numbers])
        x = layers.Dense(self.units, "relu", name="dense_1")(x)
        x = LargeDense(prod(size) * self.feature_maps, "relu", name="dense_2")(x)
        return layers.Reshape((*size, self.feature_maps))(x)

    def _half(self) -> tuple[int, float]:
        """Number of maps after the first transposed convolution, and its leaky ReLU's slope for negative inputs."""
        return max(1, self.feature_maps // 2), 0.0

    def _critic(self) -> keras.Model:
        import keras
        from keras import layers

        from invariance.layers.large_dense import LargeDense

        inputs = x = keras.Input((self.code_size,), name="codes")
        for number, count in enumerate(self.critic, 1):
            x = LargeDense(count, name=f"dense_{number}")(x)
            x = layers.LeakyReLU(0.1)(x)
        return keras.Model(inputs, layers.Dense(1, name="score")(x), name="critic")

    def training_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> float:
        """Operations of a training step, including the updates that a regulariser adds.

        Each critic update runs the critic forward and backward on the prior and the codes. A gradient penalty runs it
        forward, backward, and back through both: per sample or, batch-wide, for 128 times as many points.
        """
        total = super().training_flops(input_shape, output_shape, parameters)
        if self.regulariser is None:
            return total
        first, *others = self._encoder_flops(input_shape)
        critic = 2.0 * sum(before * after for before, after in pairwise((self.code_size, *self.critic, 1)))
        penalty = {WASSERSTEIN: 4, WASSERSTEIN_BATCHWIDE: 4 * 128, CROSS_ENTROPY: 0}[self.regulariser]
        return total + 2 * first + 3 * sum(others) + critic * (self.critic_updates * (6 + penalty) + 2)

    def evaluation_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> float:
        """Operations of the decoder alone: the evaluation encodes each image once and decodes it at every parameter."""
        return sum(self._decoder_flops(output_shape, parameters))

    def layer_flops(self, input_shape: Shape, output_shape: Shape, parameters: int) -> Iterator[float]:
        yield from self._encoder_flops(input_shape)
        yield from self._decoder_flops(output_shape, parameters)

    def _encoder_flops(self, input_shape: Shape) -> Iterator[float]:
        *size, channels = input_shape
        for count in self.filters:
            size = [-(-side // 2) for side in size]
            yield 2.0 * prod(size) * 16 * channels * count
            channels = count
        yield 2.0 * prod(size) * channels * self.units
        yield 2.0 * self.units * self.code_size

    def _decoder_flops(self, output_shape: Shape, parameters: int) -> Iterator[float]:
        *canvas, channels = output_shape
        quarter = prod(-(-side // 4) for side in canvas)
        half_maps, _ = self._half()
        yield from self._quarter_flops(quarter, parameters)
        # Transposed convolutions take 16 products for each position and channel of their input.
        yield 2.0 * quarter * 16 * self.feature_maps * half_maps
        yield 2.0 * 4 * quarter * 16 * half_maps * channels

    def _quarter_flops(self, cells: int, parameters: int) -> Iterator[float]:
        """Operations of the layers of `_quarter`, on a map of a number of cells."""
        yield 2.0 * (self.code_size + parameters) * self.units
        yield 2.0 * self.units * cells * self.feature_maps
