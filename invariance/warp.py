"""A batched, differentiable warp on `keras.ops`, and the transformations of images based on it.

Images are (batch, height, width, channels) of any dtype; results are float32. Angles are in degrees, counter-clockwise
positive as seen on the screen, where rows run downwards. Shifts are in pixels, dy positive downwards, dx positive to
the right.
"""

import math

from keras import ops

from invariance.typing import Tensor


def warp(images: Tensor, rows: Tensor, columns: Tensor, fill: float = 0.0, *, cubic: bool = False) -> Tensor:
    """Samples images at the given coordinates, bilinearly by default.

    Between the border pixels and the outside, values are interpolated, as in scipy's mode "grid-constant".

    Args:
        images: (batch, height, width, channels).
        rows: (batch, out_height, out_width) row coordinates, in pixels; pixel centres are integers.
        columns: (batch, out_height, out_width) column coordinates.
        fill: value outside the images.
        cubic: interpolate by cubic convolution (Catmull-Rom), which blurs images less; values may then leave the
            images' range by some per cent.

    Returns:
        (batch, out_height, out_width, channels) float32, differentiable in images, rows and columns.

    Reference: Keys, "Cubic convolution interpolation for digital image processing" (1981), for ``cubic``.
    """
    images, rows, columns = (ops.cast(value, "float32") for value in (images, rows, columns))
    height, width, channels = images.shape[1:]
    if cubic:
        return _cubic_warp(images, rows, columns, fill)
    # The images are padded by one pixel of the fill value, to which coordinates farther out are clipped.
    padded = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=float(fill))
    pixels = ops.reshape(padded, (-1, channels))
    top, down = _split(rows, height)
    left, right = _split(columns, width)
    batch = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32"), (-1, 1, 1))
    corner = (batch * (height + 2) + top) * (width + 2) + left

    def at(offset: int) -> Tensor:
        return ops.take(pixels, corner + offset, axis=0)

    down, right = down[..., None], right[..., None]
    upper = at(0) * (1.0 - right) + at(1) * right
    lower = at(width + 2) * (1.0 - right) + at(width + 3) * right
    return upper * (1.0 - down) + lower * down


def _split(coordinates: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The index, in the padded image, of the pixel before each coordinate, and the remaining fraction."""
    inside = ops.clip(coordinates, -1.0, float(size)) + 1.0
    before = ops.minimum(ops.floor(inside), float(size))
    return ops.cast(before, "int32"), inside - ops.stop_gradient(before)


def _cubic_warp(images: Tensor, rows: Tensor, columns: Tensor, fill: float) -> Tensor:
    """`warp` by cubic convolution."""
    height, width, channels = images.shape[1:]
    # Coordinates are clipped to the first pixel outside the images. Four pixels are read around each: two before it and
    # two after it, or itself and three after it.
    padded = ops.pad(images, ((0, 0), (2, 3), (2, 3), (0, 0)), constant_values=float(fill))
    pixels = ops.reshape(padded, (-1, channels))
    top, down = _cubic_split(rows, height)
    left, right = _cubic_split(columns, width)
    batch = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32"), (-1, 1, 1))
    corner = (batch * (height + 5) + top) * (width + 5) + left
    total = 0.0
    for row, weight in enumerate(down):
        line = sum(
            ops.take(pixels, corner + row * (width + 5) + column, axis=0) * each[..., None]
            for column, each in enumerate(right)
        )
        total = total + line * weight[..., None]
    return total


def _cubic_split(coordinates: Tensor, size: int) -> tuple[Tensor, list[Tensor]]:
    """The index, in the padded image, of the first of the four pixels around each coordinate, and their weights."""
    inside = ops.clip(coordinates, -1.0, float(size))
    before = ops.floor(inside)
    t = inside - ops.stop_gradient(before)
    weights = [
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    return ops.cast(before, "int32") + 1, weights


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row coordinates (1, height, 1) and column coordinates (1, 1, width)."""
    rows = ops.arange(height, dtype="float32")[None, :, None]
    columns = ops.arange(width, dtype="float32")[None, None, :]
    return rows, columns


def cosine_sine(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of angles in degrees, in float32; exact at multiples of 90."""
    degrees = ops.cast(degrees, "float32")
    turns = ops.stop_gradient(ops.round(degrees / 90.0))
    rest = (degrees - 90.0 * turns) * (math.pi / 180.0)
    cosine, sine = ops.cos(rest), ops.sin(rest)
    quarter = ops.mod(turns, 4.0)
    odd = ops.equal(ops.mod(turns, 2.0), 1.0)
    sign = ops.cast(ops.where(quarter < 2.0, 1.0, -1.0), "float32")
    # cos(x + 90) = -sin x and sin(x + 90) = cos x; both change sign with every half turn.
    return sign * ops.where(odd, -sine, cosine), sign * ops.where(odd, cosine, sine)


def linear(
    images: Tensor,
    matrix: tuple[Tensor | float, Tensor | float, Tensor | float, Tensor | float],
    canvas: tuple[int, int] | None = None,
    fill: float = 0.0,
    offset: tuple[Tensor | float, Tensor | float] = (0.0, 0.0),
) -> Tensor:
    """Applies a linear map about the images' centre, given by its inverse.

    Args:
        images: (batch, height, width, channels).
        matrix: a, b, c, d, each (batch,) or a number. With (row, column) measured from the centres, the result at
            (row, column) is the image at (a row + b column, c row + d column).
        canvas: (height, width) of the result, in pixels; None for the images' own size.
        fill: value outside the images.
        offset: rows and columns, each (batch,) or a number, that are added to where the image is read.

    Returns:
        (batch, canvas height, canvas width, channels) float32, differentiable in images, matrix and offset.
    """
    height, width = images.shape[1:3]
    canvas_height, canvas_width = canvas or (height, width)
    a, b, c, d, p, q = (ops.reshape(ops.cast(value, "float32"), (-1, 1, 1)) for value in (*matrix, *offset))
    rows, columns = _grid(canvas_height, canvas_width)
    rows, columns = rows - (canvas_height - 1) / 2.0, columns - (canvas_width - 1) / 2.0
    p, q = p + (height - 1) / 2.0, q + (width - 1) / 2.0
    return warp(images, a * rows + b * columns + p, d * columns + c * rows + q, fill)


def rotate(images: Tensor, degrees: Tensor, fill: float = 0.0) -> Tensor:
    """Rotates images about their centre.

    Args:
        images: (batch, height, width, channels).
        degrees: (batch,) angles, counter-clockwise positive.
        fill: value outside the images.

    Returns:
        (batch, height, width, channels) float32, differentiable in images and angles.
    """
    # The inverse is a clockwise rotation; the signs account for rows running downwards.
    cosine, sine = cosine_sine(degrees)
    return linear(images, (cosine, sine, -sine, cosine), fill=fill)


def shift(images: Tensor, dy: Tensor, dx: Tensor, canvas: tuple[int, int] | None = None, fill: float = 0.0) -> Tensor:
    """Shifts images on a canvas, from its centre.

    Args:
        images: (batch, height, width, channels).
        dy: (batch,) pixels downwards.
        dx: (batch,) pixels to the right.
        canvas: (height, width) of the result, in pixels; None for the images' own size. If it differs from the images'
            size by an odd number, the centred image falls between pixels and is blurred.
        fill: value outside the images.

    Returns:
        (batch, canvas height, canvas width, channels) float32, differentiable in images and shifts.
    """
    height, width = images.shape[1:3]
    canvas_height, canvas_width = canvas or (height, width)
    rows, columns = _grid(canvas_height, canvas_width)
    zeros = ops.zeros((1, canvas_height, canvas_width), dtype="float32")
    dy, dx = (ops.reshape(ops.cast(value, "float32"), (-1, 1, 1)) for value in (dy, dx))
    return warp(
        images,
        rows - dy - (canvas_height - height) / 2.0 + zeros,
        columns - dx - (canvas_width - width) / 2.0 + zeros,
        fill,
    )
