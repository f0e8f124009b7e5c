"""Capsules that place their features on a map."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from invariance import xla
from invariance.errors import require_positive
from invariance.typing import Shape, Tensor


def place(positions: Tensor, features: Tensor, height: int, width: int) -> Tensor:
    """The map of `PlaceCapsules`."""
    rows, columns = (_hats(positions[..., axis], side) for axis, side in enumerate((height, width)))
    # (batch, capsules, height, width). Multiplying features by one of the factors instead saves nothing: the product
    # (batch, capsules, width, maps) is larger than this one if there are more maps than rows.
    weights = ops.reshape(rows[..., :, None] * columns[..., None, :], (-1, features.shape[1], height * width))
    placed = ops.matmul(ops.transpose(weights, (0, 2, 1)), features)
    return ops.reshape(placed, (-1, height, width, features.shape[2]))


def _hats(coordinates: Tensor, side: int) -> Tensor:
    """max(0, 1 - distance) of coordinates (batch, capsules) in [-1, 1] from each cell: (batch, capsules, side)."""
    index = (coordinates[..., None] + 1.0) * ((side - 1) / 2.0)
    return ops.relu(1.0 - ops.abs(ops.arange(side, dtype="float32") - index))


@keras.saving.register_keras_serializable(package="invariance")
class PlaceCapsules(layers.Layer):
    """A map on which each capsule places its features, bilinearly, at its position.

        map_yxm = sum_c max(0, 1 - |y - r_cy|) max(0, 1 - |x - r_cx|) f_cm

    where r is the position in cells. Features of a capsule that moves move with it, whatever they are. Inside the map
    the weights of a capsule sum to one; from its edge outwards they fall to zero within one cell. The gradient with
    respect to a position comes from the up to four cells around it. Computed in float32 under any precision policy.

    Args:
        height, width: number of cells of the map.

    Input shape: positions (batch, capsules, 2), the row from -1 (first) to 1 (last) and the column likewise, or
        beyond; features (batch, capsules, maps).
    Output shape: (batch, height, width, maps), float32.

    Raises:
        ValueError: if a size is not a positive integer or the inputs have other shapes.

    Reference: the generative capsules of singnet/semantic-vision, experiments/invariance/gencaps_net.
    """

    def __init__(self, height: int, width: int, **kwargs: Any):
        # A position would lose its meaning in fewer bits.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.height, self.width = height, width
        require_positive(self, "height", "width")

    def build(self, positions_shape: Shape, features_shape: Shape) -> None:
        shapes = [tuple(positions_shape), tuple(features_shape)]
        if [*map(len, shapes)] != [3, 3] or None in shapes[1][1:] or shapes[0][1:] != (shapes[1][1], 2):
            raise ValueError(
                "Inputs must be positions (batch, capsules, 2) and features (batch, capsules, maps). "
                f"Received: features_shape={shapes[1]}, positions_shape={shapes[0]}"
            )
        self.built = True

    def call(self, positions: Tensor, features: Tensor) -> Tensor:
        return xla.compiled_with_gradient(place, (positions, features), self.height, self.width)

    def compute_output_shape(self, positions_shape: Shape, features_shape: Shape) -> Shape:
        return positions_shape[0], self.height, self.width, features_shape[2]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}
