"""The autoencoders that draw a transformed image: plain, and regularised adversarially."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from invariance.errors import require_positive

REGULARISERS = ("wasserstein", "wasserstein_batchwide", "cross_entropy")


@dataclass(frozen=True)
class Autoencoder:
    """Convolutional encoder of the upright image; decoder of its code and of the parameters of a transformation.

    Encoder: convolutions k4 s2, dense, code. Decoder: dense, dense to an image of a quarter of the canvas' sides with
    `feature_maps` channels, transposed convolution k4 s2 to half as many, transposed convolution k4 s2 to the pixels.

    Args:
        feature_maps: F, of the decoder's first image.
        code_size: z, dimension of the code.
        filters: of the encoder's convolutions (leaky ReLU of slope 0.1).
        units: of the dense layer of the encoder (leaky ReLU) and of the decoder's first (ReLU).
        regulariser: None, or one of `REGULARISERS` (`models.conditional_autoencoder.AdversarialAutoencoder`).
        critic: units of the critic's hidden layers (leaky ReLU).
        critic_updates: in each training step.
        penalty_weight: of the gradient penalty.
        initial_accumulator: what RMSProp's running averages begin with: 1.0 in TensorFlow 1, 0.0 in Keras.
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

    def __post_init__(self):
        require_positive(self, "feature_maps", "code_size", "units", "critic_updates")
        if self.regulariser not in (None, *REGULARISERS):
            raise ValueError(
                f"Argument `regulariser` must be None or one of {', '.join(REGULARISERS)}. "
                f"Received: {self.regulariser!r}"
            )

    def __call__(self, input_shape, output_shape, parameters: int, learning_rate=1e-3):
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of upright images in [-1, 1].
            output_shape: (height, width, channels) of the images to be drawn.
            parameters: how many numbers tell the decoder the transformation.
            learning_rate: a float or a Keras schedule of training steps, for RMSProp; the critic and the encoder's
                update against it follow it too. Were theirs to stay while it falls, the regulariser would win in the
                end: the error rises.

        Returns:
            A `models.conditional_autoencoder.ConditionalAutoencoder`, of the adversarial kind with a regulariser.
        """
        import keras

        from invariance.models.conditional_autoencoder import AdversarialAutoencoder, ConditionalAutoencoder
        from invariance.optimizers import RMSProp, per_step

        def optimizer(rate):
            return RMSProp(rate, initial_accumulator=self.initial_accumulator)

        encoder, decoder = self._encoder(input_shape), self._decoder(output_shape, parameters)
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

    def _encoder(self, input_shape):
        import keras
        from keras import layers

        from invariance.layers.fast import LargeDense

        inputs = x = keras.Input(input_shape, name="images")
        for number, count in enumerate(self.filters, 1):
            x = layers.Conv2D(count, 4, 2, "same", name=f"conv_{number}")(x)
            x = layers.LeakyReLU(0.1)(x)
        x = LargeDense(self.units, name="dense")(layers.Flatten()(x))
        x = layers.LeakyReLU(0.1)(x)
        return keras.Model(inputs, layers.Dense(self.code_size, dtype="float32", name="code")(x), name="encoder")

    def _decoder(self, output_shape, parameters):
        import keras
        from keras import layers

        from invariance.layers.fast import LargeDense

        *canvas, channels = output_shape
        quarter = [-(-side // 4) for side in canvas]
        codes, told = keras.Input((self.code_size,), name="codes"), keras.Input((parameters,), name="parameters")
        x = layers.Concatenate()([codes, told])
        x = layers.Dense(self.units, "relu", name="dense_1")(x)
        x = LargeDense(prod(quarter) * self.feature_maps, "relu", name="dense_2")(x)
        x = layers.Reshape((*quarter, self.feature_maps))(x)
        x = layers.Conv2DTranspose(max(1, self.feature_maps // 2), 4, 2, "same", activation="relu", name="deconv_1")(x)
        x = layers.Conv2DTranspose(channels, 4, 2, "same", name="deconv_2")(x)
        # A canvas whose sides are no multiples of four is cut out of the next larger one that is.
        spare = [4 * small - side for small, side in zip(quarter, canvas, strict=True)]
        if any(spare):
            x = layers.Cropping2D([(pixels // 2, pixels - pixels // 2) for pixels in spare])(x)
        return keras.Model([codes, told], layers.Activation("tanh", dtype="float32", name="tanh")(x), name="decoder")

    def _critic(self):
        import keras
        from keras import layers

        from invariance.layers.fast import LargeDense

        inputs = x = keras.Input((self.code_size,), name="codes")
        for number, count in enumerate(self.critic, 1):
            x = LargeDense(count, name=f"dense_{number}")(x)
            x = layers.LeakyReLU(0.1)(x)
        return keras.Model(inputs, layers.Dense(1, name="score")(x), name="critic")

    def flops(self, input_shape, output_shape, parameters: int) -> float:
        """Floating-point operations of the matrix products in a forward pass of one image (2 per multiply-add)."""
        return sum(self._encoder_flops(input_shape)) + self.decoder_flops(output_shape, parameters)

    def training_flops(self, input_shape, output_shape, parameters: int) -> float:
        """The same for a training step: forward, and backward to weights and, but for the first layer, to inputs.

        With a regulariser, the critic's and the encoder's updates are counted too: each critic update runs it forward
        and backward on the prior and the codes; a gradient penalty runs it forward, backward, and back through both,
        per sample or, batch-wide, for 128 times as many points.
        """
        first, *others = self._encoder_flops(input_shape)
        encoder = 2 * first + 3 * sum(others)
        total = encoder + 3 * self.decoder_flops(output_shape, parameters)
        if self.regulariser is None:
            return total
        critic = 2.0 * sum(before * after for before, after in pairwise((self.code_size, *self.critic, 1)))
        penalty = {"wasserstein": 4, "wasserstein_batchwide": 4 * 128, "cross_entropy": 0}[self.regulariser]
        return total + encoder + critic * (self.critic_updates * (6 + penalty) + 2)

    def decoder_flops(self, output_shape, parameters: int) -> float:
        """The same as `flops` for the decoder alone, which is all that the evaluation runs for each parameter."""
        *canvas, channels = output_shape
        quarter = prod(-(-side // 4) for side in canvas)
        dense = (self.code_size + parameters) * self.units + self.units * quarter * self.feature_maps
        half = max(1, self.feature_maps // 2)
        return 2.0 * (dense + quarter * 16 * self.feature_maps * half + 4 * quarter * 16 * half * channels)

    def _encoder_flops(self, input_shape):
        *size, channels = input_shape
        for count in self.filters:
            size = [-(-side // 2) for side in size]
            yield 2.0 * prod(size) * 16 * channels * count
            channels = count
        yield 2.0 * prod(size) * channels * self.units
        yield 2.0 * self.units * self.code_size
