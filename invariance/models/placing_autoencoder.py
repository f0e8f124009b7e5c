"""Autoencoders whose decoder places the features of capsules on a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from invariance.errors import require_positive
from invariance.models.autoencoder import Autoencoder

_OUTPUTS = ("positions", "features")


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
        told: which of the two hear of the transformation: "both", or "positions" or "features" alone; the others are
            computed from the code only, and the dense layer is there twice.

    Further arguments: as for `Autoencoder`; `units` are those of the encoder.

    Raises:
        ValueError: as for `Autoencoder`, and if `slope` is not in [0, 1) or `told` is another word.

    Reference: the generative capsules of singnet/semantic-vision, experiments/invariance/gencaps_net.
    """

    feature_maps: int = 32
    capsules: int = 128
    decoder_units: int = 1024
    half_maps: int = 16
    slope: float = 0.0
    told: str = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "capsules", "decoder_units", "half_maps")
        if not 0 <= self.slope < 1:
            raise ValueError(f"Argument `slope` must be at least 0 and less than 1. Received: {self.slope!r}")
        if self.told not in ("both", *_OUTPUTS):
            raise ValueError(f"Argument `told` must be both, positions or features. Received: {self.told!r}")

    def _quarter(self, codes: Any, numbers: Any, size: Sequence[int]) -> Any:
        from keras import layers

        from invariance.layers.large_dense import LargeDense
        from invariance.layers.place_capsules import PlaceCapsules

        told = layers.Concatenate()([codes, numbers])

        def dense(inputs: Any, name: str) -> Any:
            return layers.Dense(self.decoder_units, "relu", name=name)(inputs)

        if self.told == "both":
            where = what = dense(told, "dense")
        else:
            where, what = (dense(told if name == self.told else codes, f"dense_{name}") for name in _OUTPUTS)
        positions = layers.Dense(2 * self.capsules, dtype="float32", name="positions")(where)
        positions = layers.Reshape((self.capsules, 2), dtype="float32")(positions)
        features = LargeDense(self.capsules * self.feature_maps, "sigmoid", name="features")(what)
        features = layers.Reshape((self.capsules, self.feature_maps))(features)
        return PlaceCapsules(*size, name="placing")(positions, features)

    def _half(self) -> tuple[int, float]:
        return self.half_maps, self.slope

    def _quarter_flops(self, cells: int, parameters: int) -> Iterator[float]:
        yield 2.0 * (self.code_size + parameters) * self.decoder_units
        if self.told != "both":
            yield 2.0 * self.code_size * self.decoder_units
        yield 2.0 * self.decoder_units * 2 * self.capsules
        yield 2.0 * self.decoder_units * self.capsules * self.feature_maps
        yield 2.0 * cells * self.capsules * self.feature_maps
