"""Capsules that send their activation to the cells of a map whose addresses match."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from invariance import xla
from invariance.errors import require_positive
from invariance.typing import Shape, Tensor


def address(queries: Tensor, activations: Tensor, addresses: Tensor) -> Tensor:
    """The cells of `AddressCapsules`: (batch, cells)."""
    # (batch, capsules, cells)
    shares = ops.softmax(ops.matmul(queries, addresses), axis=-1)
    return ops.squeeze(ops.matmul(activations[:, None, :], shares), axis=1)


@keras.saving.register_keras_serializable(package="invariance")
class AddressCapsules(layers.Layer):
    """Cells to which each capsule distributes its activation, by a softmax over their learnt addresses.

        cell_j = sum_c a_c softmax_j(q_c . A_j)

    The counterpart of `PlaceCapsules` without geometry: which cells are neighbours has to be learnt. Computed in
    float32 under any precision policy.

    Args:
        cells: number of cells.
        initializer: for the addresses (dimension, cells).

    Input shape: queries (batch, capsules, dimension), activations (batch, capsules).
    Output shape: (batch, cells), float32.

    Raises:
        ValueError: if `cells` is not a positive integer or the inputs have other shapes.

    Reference: the generative capsules of singnet/semantic-vision, experiments/invariance/gencaps_net.
    """

    def __init__(self, cells: int, initializer: Any = "glorot_uniform", **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.cells = cells
        require_positive(self, "cells")
        self.initializer = keras.initializers.get(initializer)

    def build(self, queries_shape: Shape, activations_shape: Shape) -> None:
        if len(queries_shape) != 3 or None in queries_shape[1:] or activations_shape[1:] != queries_shape[1:2]:
            raise ValueError(
                "Inputs must be queries (batch, capsules, dimension) and activations (batch, capsules). "
                f"Received: activations_shape={tuple(activations_shape)}, queries_shape={tuple(queries_shape)}"
            )
        self.kernel = self.add_weight((queries_shape[-1], self.cells), self.initializer, name="kernel")
        self.built = True

    def call(self, queries: Tensor, activations: Tensor) -> Tensor:
        tensors = (queries, activations, ops.convert_to_tensor(self.kernel))
        return xla.compiled_with_gradient(address, tensors)

    def compute_output_shape(self, queries_shape: Shape, activations_shape: Shape) -> Shape:
        return queries_shape[0], self.cells

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "cells": self.cells, "initializer": initializer}
