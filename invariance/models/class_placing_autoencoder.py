"""Autoencoders whose decoder places the features of capsules that the class of the image selects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from invariance.errors import require_positive
from invariance.models.autoencoder import Autoencoder


@dataclass(frozen=True)
class ClassPlacingAutoencoder(Autoencoder):
    """An `Autoencoder` whose code says which class it draws and how, and whose capsules place features.

    The softmax of the first ``classes`` numbers of the code is the class, which nobody tells; the others and the
    parameters are the pose. A linear map of the pose gives each capsule a vector for each class, and the mean of these,
    weighted by the class, is the capsule's. Two small networks of its own (one ReLU layer each) derive its position
    (linear) and its features (sigmoid), which are placed as in `PlacingAutoencoder`.

    Args:
        feature_maps: number of features of each capsule, and of maps.
        code_size: of class and pose together.
        classes: number of classes.
        capsules: number of capsules.
        dimension: of a capsule's vector.
        capsule_units: ReLU units of each of a capsule's two networks.
        half_maps: number of maps after the first transposed convolution (ReLU).

    Further arguments: as for `Autoencoder`; `units` are those of the encoder.

    Raises:
        ValueError: as for `Autoencoder`, and if the code has no more numbers than there are classes.

    Reference: the generative capsules of singnet/semantic-vision, experiments/invariance/gencaps_net.
    """

    feature_maps: int = 32
    code_size: int = 20
    classes: int = 10
    capsules: int = 20
    dimension: int = 10
    capsule_units: int = 128
    half_maps: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "classes", "capsules", "dimension", "capsule_units", "half_maps")
        if self.code_size <= self.classes:
            raise ValueError(
                "Argument `code_size` must be larger than the number of classes. "
                f"Received: code_size={self.code_size}, classes={self.classes}"
            )

    def _quarter(self, codes: Any, numbers: Any, size: Sequence[int]) -> Any:
        from keras import layers

        from invariance.layers.place_capsules import PlaceCapsules

        chosen = layers.Softmax(dtype="float32", name="class")(codes[:, : self.classes])
        pose = layers.Concatenate()([codes[:, self.classes :], numbers])
        x = layers.Dense(self.capsules * self.dimension * self.classes, name="poses")(pose)
        x = layers.Reshape((self.capsules * self.dimension, self.classes))(x)
        # (batch, capsules * dimension, classes) x (batch, classes) -> (batch, capsules, dimension)
        x = layers.Reshape((self.capsules, self.dimension))(layers.Dot((2, 1), name="choice")([x, chosen]))
        positions = self._own(x, 2, None, "positions", "float32")
        features = self._own(x, self.feature_maps, "sigmoid", "features")
        return PlaceCapsules(*size, name="placing")(positions, features)

    def _own(self, x: Any, units: int, activation: str | None, name: str, dtype: str | None = None) -> Any:
        """A network of each capsule's own: (batch, capsules, dimension) -> (batch, capsules, units)."""
        hidden = self._dense(self.dimension, self.capsule_units, activation="relu", name=f"{name}_dense")(x)
        return self._dense(self.capsule_units, units, activation=activation, name=name, dtype=dtype)(hidden)

    def _dense(self, inputs: int, units: int, **options: Any) -> Any:
        """A dense layer for each capsule, with Glorot's initialisation of each."""
        import keras

        limit = (6 / (inputs + units)) ** 0.5
        return keras.layers.EinsumDense(
            "bci,cio->bco",
            (self.capsules, units),
            bias_axes="co",
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
            **options,
        )

    def _half(self) -> tuple[int, float]:
        return self.half_maps, 0.0

    def _quarter_flops(self, cells: int, parameters: int) -> Iterator[float]:
        vectors = self.capsules * self.dimension
        yield 2.0 * (self.code_size - self.classes + parameters) * vectors * self.classes
        yield 2.0 * vectors * self.classes
        for units in (2, self.feature_maps):
            yield 2.0 * vectors * self.capsule_units
            yield 2.0 * self.capsules * self.capsule_units * units
        yield 2.0 * cells * self.capsules * self.feature_maps
