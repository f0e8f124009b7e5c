"""Autoencoders whose decoder has capsules that choose cells of its first map by learnt addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from invariance.errors import require_positive
from invariance.models.autoencoder import Autoencoder


@dataclass(frozen=True)
class AddressingAutoencoder(Autoencoder):
    """An `Autoencoder` whose capsules send their activations to cells of a map, by content instead of position.

    The decoder's dense layer gives each capsule a query and an activation (ReLU both). Softmax over the addresses of
    all cells of the first map (height x width x maps) decides where the activation goes: see
    `layers.address_capsules.AddressCapsules`.

    Args:
        feature_maps: number of maps.
        capsules: number of capsules.
        dimension: of queries and addresses.

    Further arguments: as for `Autoencoder`.

    Raises:
        ValueError: as for `Autoencoder`.

    Reference: the generative capsules of singnet/semantic-vision, experiments/invariance/gencaps_net.
    """

    feature_maps: int = 128
    capsules: int = 128
    dimension: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "capsules", "dimension")

    def _quarter(self, codes: Any, numbers: Any, size: Sequence[int]) -> Any:
        from keras import layers

        from invariance.layers.address_capsules import AddressCapsules

        x = layers.Concatenate()([codes, numbers])
        x = layers.Dense(self.units, "relu", name="dense")(x)
        queries = layers.Dense(self.capsules * self.dimension, "relu", dtype="float32", name="queries")(x)
        queries = layers.Reshape((self.capsules, self.dimension), dtype="float32")(queries)
        activations = layers.Dense(self.capsules, "relu", dtype="float32", name="activations")(x)
        cells = AddressCapsules(prod(size) * self.feature_maps, name="addressing")(queries, activations)
        return layers.Reshape((*size, self.feature_maps))(cells)

    def _quarter_flops(self, cells: int, parameters: int) -> Iterator[float]:
        yield 2.0 * (self.code_size + parameters) * self.units
        yield 2.0 * self.units * self.capsules * self.dimension
        yield 2.0 * self.units * self.capsules
        # Of the addresses, and of the sum over capsules.
        yield 2.0 * self.capsules * (self.dimension + 1) * cells * self.feature_maps
