"""Images in polar coordinates about their centre, and the padding of convolutions over them."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from invariance.errors import require_count, require_positive
from invariance.typing import Shape, Tensor
from invariance.warp import warp


@keras.saving.register_keras_serializable(package="invariance")
class PolarResampling(layers.Layer):
    """Resamples images about their centre, bilinearly: rows become radii, columns become angles.

    Row i, column j of the result is the image at the radius r_i and the angle 360 j / angles degrees, counter-clockwise
    from the right:

        r_i = outer (i + 1/2) / radii                          (rings of equal width)
        r_i = inner (outer / inner) ^ ((i + 1/2) / radii)      (logarithmic)

    Equivariant: if an image is rotated by k steps of 360 / angles degrees, then its result is shifted by k columns,
    cyclically. Exact, to rounding, for quarter turns if 4 divides ``angles``; for other steps up to the interpolation
    of the rotated image, which blurs it. With logarithmic radii a scaling is a shift of the rows, with new rows at one
    end.

    Args:
        angles: number of angles.
        radii: number of radii.
        logarithmic: whether the radii are spaced logarithmically.
        inner: the inner border in pixels, for logarithmic radii; it is not used otherwise.
        outer: the outer border in pixels; None for half the image's shorter side.

    Input shape: (batch, height, width, channels).
    Output shape: (batch, radii, angles, channels) float32. Outside the image there are zeros.

    Raises:
        ValueError: if an argument is malformed, or the input has another shape.

    Reference: Esteves, Allen-Blanchette, Zhou and Daniilidis, "Polar transformer networks" (2018).
    """

    def __init__(
        self,
        angles: int,
        radii: int,
        logarithmic: bool = False,
        inner: float = 1.0,
        outer: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.angles, self.radii, self.logarithmic, self.inner, self.outer = angles, radii, logarithmic, inner, outer
        require_positive(self, "angles", "radii")
        least = inner if logarithmic else 0
        if not (inner > 0 and (outer is None or outer > least)):
            raise ValueError(
                "Arguments `inner` and `outer` must be radii in pixels, the outer one larger. "
                f"Received: inner={inner!r}, outer={outer!r}"
            )

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)
        height, width = input_shape[1:3]
        outer = min(height, width) / 2 if self.outer is None else self.outer
        shares = (np.arange(self.radii) + 0.5) / self.radii
        radii = self.inner * (outer / self.inner) ** shares if self.logarithmic else outer * shares
        turns = np.arange(self.angles) / self.angles * 2 * math.pi
        # Coordinates (1, radii, angles). Rows run downwards.
        self.rows = ((height - 1) / 2 - np.outer(radii, np.sin(turns)))[None].astype("float32")
        self.columns = ((width - 1) / 2 + np.outer(radii, np.cos(turns)))[None].astype("float32")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return warp(inputs, self.rows, self.columns)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "Input must be images (batch, height, width, channels) of known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        return (input_shape[0], self.radii, self.angles, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "angles": self.angles,
            "radii": self.radii,
            "logarithmic": self.logarithmic,
            "inner": self.inner,
            "outer": self.outer,
        }


@keras.saving.register_keras_serializable(package="invariance")
class CircularPadding(layers.Layer):
    """Pads columns cyclically and rows with zeros, for a 'valid' convolution over polar coordinates.

    Equivariant exactly: a cyclic shift of the input's columns shifts the convolution's output likewise.

    Args:
        columns: (left, right), the numbers of columns to add; at most the input's columns.
        rows: (above, below), the numbers of rows to add.

    Input shape: (batch, radii, angles, channels).
    Output shape: (batch, above + radii + below, left + angles + right, channels).

    Raises:
        ValueError: if an argument is malformed, or there are fewer angles than columns to add on a side.
    """

    def __init__(self, columns: tuple[int, int], rows: tuple[int, int] = (0, 0), **kwargs: Any):
        super().__init__(**kwargs)
        self.columns, self.rows = tuple(columns), tuple(rows)
        self.left, self.right = self.columns
        self.above, self.below = self.rows
        require_count(self, "left", "right", "above", "below")

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(tuple(inputs.shape))
        angles = inputs.shape[2]
        # The last columns before the first, the first after the last.
        parts = [inputs[:, :, angles - self.left :], inputs, inputs[:, :, : self.right]]
        return ops.pad(ops.concatenate(parts, axis=2), ((0, 0), self.rows, (0, 0), (0, 0)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 4 or None in input_shape[1:3] or input_shape[2] < max(self.columns):
            raise ValueError(
                f"Input must be (batch, radii, angles, channels), of known size and with at least {max(self.columns)} "
                f"angles. Received: input_shape={tuple(input_shape)}"
            )
        batch, radii, angles, channels = input_shape
        return (batch, radii + sum(self.rows), angles + sum(self.columns), channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "columns": self.columns, "rows": self.rows}
