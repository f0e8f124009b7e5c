"""Predicts tangents of a transformation at any image, by a network that is free to predict anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from invariance.models.autoencoder import Autoencoder
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TangentNetwork(Declaration):
    """The article's autoencoder, narrower, with an output for each tangent instead of an image.

    Args:
        code_size, feature_maps, filters, units: of `models.autoencoder.Autoencoder`.

    Raises:
        ValueError: if a size is not a positive integer.

    Reference: Bengio and Monperrus, "Non-local manifold tangent learning" (2004).
    """

    code_size: int = 128
    feature_maps: int = 64
    filters: tuple[int, ...] = (64, 128)
    units: int = 1024

    def __post_init__(self) -> None:
        _ = self._autoencoder

    @cached_property
    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self.feature_maps, self.code_size, self.filters, self.units)

    def __call__(self, input_shape: Shape, tangents: int, learning_rate: Any = 1e-3) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            tangents: how many are predicted.
            learning_rate: a float or a Keras schedule, for Adam.

        Returns:
            A model that maps images to tangents (batch, tangents, height, width, channels).
        """
        import keras
        from keras import layers

        from invariance import losses
        from invariance.optimizers import Adam

        *size, channels = input_shape
        images = keras.Input(input_shape, name="images")
        codes = self._autoencoder._encoder(input_shape)(images)
        # The decoder is told nothing.
        x = self._autoencoder._decoder((*size, channels * tangents), 0)([codes, codes[:, :0]])
        x = layers.Permute((3, 1, 2, 4))(layers.Reshape((*size, tangents, channels))(x))
        model = keras.Model(images, x, name="tangent_network")
        model.compile(Adam(learning_rate), losses.TangentLoss())
        return model

    def layer_flops(self, input_shape: Shape, tangents: int) -> Iterator[float]:
        *size, channels = input_shape
        yield from self._autoencoder.layer_flops(input_shape, (*size, channels * tangents), 0)
