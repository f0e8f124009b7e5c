"""Autoencoders whose decoder places the features of capsules on a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from invariance.errors import require_positive
from invariance.models.autoencoder import Autoencoder


@dataclass(frozen=True)
class PlacingAutoencoder(Autoencoder):
    """An `Autoencoder` that draws by placing features: what is drawn and where are two outputs of its decoder.

    The decoder's dense layer gives each capsule a position (linear) and features (sigmoid). They are placed on a map at
    a quarter of the canvas' height and width, and two transposed convolutions draw what it holds, the same everywhere.
    To move a digit the decoder has to move positions only.

    Args:
        feature_maps: number of features of each capsule, and of maps.
        capsules: number of capsules.
        decoder_units: units of the decoder's dense layer (ReLU).
        half_maps: number of maps after the first transposed convolution.
        slope: of its leaky ReLU for negative inputs; 0 for a ReLU.
        placed: whether positions are computed; if not, capsules stay on a lattice that covers the map, and to move a
            digit the decoder has to change features.

    Further arguments: as for `Autoencoder`; `units` are those of the encoder.

    Raises:
        ValueError: as for `Autoencoder`, and if `slope` is not in [0, 1).

    Reference: the generative capsules of singnet/semantic-vision, experiments/invariance/gencaps_net.
    """

    feature_maps: int = 32
    capsules: int = 128
    decoder_units: int = 1024
    half_maps: int = 16
    slope: float = 0.0
    placed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "capsules", "decoder_units", "half_maps")
        if not 0 <= self.slope < 1:
            raise ValueError(f"Argument `slope` must be at least 0 and less than 1. Received: {self.slope!r}")

    def _quarter(self, codes: Any, numbers: Any, size: Sequence[int]) -> Any:
        from keras import layers

        from invariance.layers.large_dense import LargeDense
        from invariance.layers.place_capsules import PlaceCapsules

        x = layers.Concatenate()([codes, numbers])
        x = layers.Dense(self.decoder_units, "relu", name="dense")(x)
        dense = layers.Dense(2 * self.capsules, trainable=self.placed, dtype="float32", name="positions")
        positions = layers.Reshape((self.capsules, 2), dtype="float32")(dense(x))
        if not self.placed:
            dense.set_weights([0.0 * dense.kernel, lattice(self.capsules)])
        features = LargeDense(self.capsules * self.feature_maps, "sigmoid", name="features")(x)
        features = layers.Reshape((self.capsules, self.feature_maps))(features)
        return PlaceCapsules(*size, name="placing")(positions, features)

    def _half(self) -> tuple[int, float]:
        return self.half_maps, self.slope

    def _quarter_flops(self, cells: int, parameters: int) -> Iterator[float]:
        yield 2.0 * (self.code_size + parameters) * self.decoder_units
        yield 2.0 * self.decoder_units * 2 * self.capsules
        yield 2.0 * self.decoder_units * self.capsules * self.feature_maps
        yield 2.0 * cells * self.capsules * self.feature_maps


def lattice(capsules: int) -> Any:
    """Positions of a number of capsules, row by row on a square that covers the map: (2 * capsules,) in [-1, 1]."""
    import numpy as np

    rows = max(1, round(capsules**0.5))
    columns = -(-capsules // rows)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"), axis=-1)
    return grid.reshape(-1, 2)[:capsules].ravel()
