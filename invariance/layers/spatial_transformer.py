"""Spatial transformer: images warped by an affine map that a network derives from them."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from invariance.typing import Shape, Tensor
from invariance.warp import warp

# The identity in the form of `SpatialTransformer.matrices`, flattened.
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@keras.saving.register_keras_serializable(package="invariance")
class SpatialTransformer(layers.Layer):
    """Warps each image by an affine map of its own, which a localisation network derives from the image.

    With rows and columns measured from the centre in pixels and the matrix [[a, b, p], [c, d, q]], the result at (row,
    column) is the image at

        (a row + b column + p height / 2,  c row + d column + q width / 2)

    interpolated bilinearly; outside the image there are zeros. The matrix is a linear function of the localisation
    network's output, at first the identity for every image.

    Nothing makes the layer equivariant: whether a rotated image is rotated back is learnt.

    Args:
        localisation: Keras layer or model that maps images to (batch, features).

    Input shape: (batch, height, width, channels).
    Output shape: (batch, height, width, channels) float32.

    Raises:
        ValueError: if the input or the localisation network's output has another shape.

    Reference: Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial transformer networks" (2015).
    """

    def __init__(self, localisation: Any, **kwargs: Any):
        # Coordinates of pixels would lose their meaning in fewer bits.
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.localisation = localisation
        self.regression = layers.Dense(
            len(_IDENTITY), kernel_initializer="zeros", bias_initializer=_identity, dtype="float32", name="regression"
        )

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "Input must be images (batch, height, width, channels) of known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if not self.localisation.built:
            self.localisation.build(input_shape)
        features = tuple(self.localisation.compute_output_shape(input_shape))
        if len(features) != 2:
            raise ValueError(f"Argument `localisation` must return (batch, features). Received: shape {features}")
        self.regression.build(features)
        self.built = True

    def matrices(self, images: Tensor, training: bool | None = None) -> Tensor:
        """The affine maps of images (batch, height, width, channels): (batch, 2, 3), see the class."""
        features = ops.cast(self.localisation(images, training=training), "float32")
        return ops.reshape(self.regression(features), (-1, 2, 3))

    def applied_movement(self, images: Tensor) -> dict[str, Tensor]:
        """How the layer moves images (batch, height, width, channels), see `tasks.applied_movement.moving_part`.

        Returns:
            Each (batch,): "angle", see `rotation_angles`; "enlargement", a factor, below 1 where images are made
            smaller; "determinant" of the linear part, negative if images are mirrored.
        """
        matrices = self.matrices(images, training=False)
        determinants = matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]
        return {
            "angle": rotation_angles(matrices),
            "enlargement": ops.rsqrt(ops.maximum(ops.abs(determinants), 1e-6)),
            "determinant": determinants,
        }

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return affine(inputs, self.matrices(inputs, training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "localisation": keras.saving.serialize_keras_object(self.localisation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpatialTransformer:
        return cls(**{**config, "localisation": keras.saving.deserialize_keras_object(config["localisation"])})


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Warps images (batch, height, width, channels) by matrices (batch, 2, 3), see `SpatialTransformer`."""
    height, width = images.shape[1:3]
    halves = height / 2, width / 2
    rows = ops.convert_to_tensor(np.arange(height, dtype="float32")[:, None] - np.float32((height - 1) / 2))
    columns = ops.convert_to_tensor(np.arange(width, dtype="float32") - np.float32((width - 1) / 2))
    # Each (batch, height, width)
    at_row, at_column = (
        matrices[:, i, 0, None, None] * rows
        + matrices[:, i, 1, None, None] * columns
        + (matrices[:, i, 2, None, None] * halves[i] + (side - 1) / 2)
        for i, side in enumerate((height, width))
    )
    return warp(images, at_row, at_column)


def rotation_angles(matrices: Tensor) -> Tensor:
    """The angles by which matrices (batch, 2, 2) or (batch, 2, 3), see `SpatialTransformer`, rotate images.

    The linear part of a map that does not mirror is a rotation times a symmetric positive matrix (the polar
    decomposition); the angle is that of the rotation, the nearest one to the map.

    Returns:
        (batch,) degrees in [-180, 180], counter-clockwise positive.
    """
    matrices = ops.cast(matrices, "float32")
    sine, cosine = matrices[:, 0, 1] - matrices[:, 1, 0], matrices[:, 0, 0] + matrices[:, 1, 1]
    return ops.arctan2(sine, cosine) * (180.0 / math.pi)


def _identity(shape: Shape, dtype: Any = None) -> Tensor:
    """Initial bias of the regression."""
    return ops.convert_to_tensor(_IDENTITY, dtype)
