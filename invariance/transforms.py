"""Rotation and shift: one batched, bilinear, differentiable warp, and the drawing of its parameters.

Images are (batch, height, width, channels), any float dtype is computed in float32. Angles are in degrees, positive =
counter-clockwise as seen on the screen (rows run downwards). Shifts are in pixels, dy positive = downwards, dx
positive = to the right.
"""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from invariance import random
from invariance.ranges import Ranges, length


def warp(images, rows, columns, fill=0.0):
    """Samples images bilinearly at the given coordinates; all that lies outside them is ``fill``.

    Between the border pixels and the outside it blends, as scipy's mode 'grid-constant' does.

    Args:
        images: (batch, height, width, channels).
        rows: (batch, out_height, out_width) row coordinates to sample; pixel centres are integers.
        columns: (batch, out_height, out_width) column coordinates.
        fill: value outside the images.

    Returns:
        (batch, out_height, out_width, channels) float32, differentiable in images, rows and columns.
    """
    images = ops.cast(images, "float32")
    height, width, channels = images.shape[1:]
    # A border of one pixel holds the fill value; whatever lies farther out is moved onto it.
    padded = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=float(fill))
    pixels = ops.reshape(padded, (-1, channels))
    top, down = _split(rows, height)
    left, right = _split(columns, width)
    batch = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32"), (-1, 1, 1))
    corner = (batch * (height + 2) + top) * (width + 2) + left

    def at(offset):
        return ops.take(pixels, corner + offset, axis=0)

    down, right = down[..., None], right[..., None]
    upper = at(0) * (1.0 - right) + at(1) * right
    lower = at(width + 2) * (1.0 - right) + at(width + 3) * right
    return upper * (1.0 - down) + lower * down


def _split(coordinates, size):
    """Index of the pixel before each coordinate, in the padded image, and the fraction behind it."""
    inside = ops.clip(coordinates, -1.0, float(size)) + 1.0
    before = ops.minimum(ops.floor(inside), float(size))
    return ops.cast(before, "int32"), inside - ops.stop_gradient(before)


def _grid(height, width):
    """Row and column coordinates (1, height, width)."""
    rows = ops.arange(height, dtype="float32")[None, :, None]
    columns = ops.arange(width, dtype="float32")[None, None, :]
    return rows, columns


def cosine_sine(degrees):
    """Cosine and sine of angles in degrees, exact at multiples of 90."""
    degrees = ops.cast(degrees, "float32")
    turns = ops.stop_gradient(ops.round(degrees / 90.0))
    rest = (degrees - 90.0 * turns) * (math.pi / 180.0)
    cosine, sine = ops.cos(rest), ops.sin(rest)
    quarter = ops.mod(turns, 4.0)
    odd = ops.equal(ops.mod(turns, 2.0), 1.0)
    sign = ops.where(quarter < 2.0, 1.0, -1.0)
    # cos(90) = -sin(0), sin(90) = cos(0); the signs of both turn over with every half turn.
    return sign * ops.where(odd, -sine, cosine), sign * ops.where(odd, cosine, sine)


def rotate(images, degrees, fill=0.0):
    """Rotates images about their centre.

    Args:
        images: (batch, height, width, channels).
        degrees: (batch,) angles, positive = counter-clockwise.
        fill: value outside the images.

    Returns:
        (batch, height, width, channels) float32, differentiable in images and angles.
    """
    height, width = images.shape[1:3]
    cosine, sine = (ops.reshape(value, (-1, 1, 1)) for value in cosine_sine(degrees))
    middle_row, middle_column = (height - 1) / 2.0, (width - 1) / 2.0
    rows, columns = _grid(height, width)
    rows, columns = rows - middle_row, columns - middle_column
    # Where does an output pixel come from? Turn it back; rows run downwards, hence the signs.
    return warp(
        images, cosine * rows + sine * columns + middle_row, cosine * columns - sine * rows + middle_column, fill
    )


def shift(images, dy, dx, canvas=None, fill=0.0):
    """Puts images on a canvas, centred and then moved.

    Args:
        images: (batch, height, width, channels).
        dy: (batch,) pixels downwards.
        dx: (batch,) pixels to the right.
        canvas: (height, width) of the result; None for the images' own. The differences to the images' sides should be
            even, or the centre lies between pixels.
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


class _Table:
    """The ranges of all classes as arrays, for drawing on the device."""

    def __init__(self, ranges: Ranges):
        # Labels above the highest restricted one share the last row, which holds the default.
        rows = [ranges.of(label) for label in range(max(ranges.restricted, default=-1) + 1)] + [ranges.default]
        most = max(len(row) for row in rows)
        self.low, self.width, self.below_high = (np.zeros((len(rows), most), "float32") for _ in range(3))
        # Cumulative probability at which each interval begins; 2 for those that are not there.
        self.begin, self.share = np.full((len(rows), most), 2.0, "float32"), np.ones((len(rows), most), "float32")
        for row, pairs in enumerate(rows):
            total, begin = length(pairs), 0.0
            for column, (low, high) in enumerate(pairs):
                share = (high - low) / total if total else 1.0 / len(pairs)
                self.low[row, column], self.width[row, column] = low, high - low
                self.below_high[row, column] = np.nextafter(np.float32(high), np.float32(-np.inf))
                self.begin[row, column], self.share[row, column] = begin, share or 1.0
                begin += share

    def draw(self, labels, uniform):
        """Values (batch,) from the intervals of each label, for uniform numbers (batch,) in [0, 1)."""
        row = ops.minimum(ops.cast(labels, "int32"), len(self.low) - 1)
        column = ops.sum(ops.cast(ops.take(self.begin, row, axis=0) <= uniform[:, None], "int32"), axis=-1) - 1
        cell = row * self.low.shape[1] + column

        def at(table):
            return ops.take(ops.convert_to_tensor(table.reshape(-1)), cell, axis=0)

        low, width = at(self.low), at(self.width)
        value = low + (uniform - at(self.begin)) / at(self.share) * width
        # Rounding must not carry a value out of its half-open interval.
        return ops.maximum(low, ops.minimum(value, at(self.below_high)))


@dataclass(frozen=True)
class Rotation:
    """Rotation by an angle drawn from the range of the image's class.

    Args:
        ranges: degrees, positive = counter-clockwise.
        fill: value outside the images.
    """

    ranges: Ranges
    fill: float = 0.0

    def draw(self, seed, positions, labels, stream=random.PARAMETERS):
        """Angles (batch,) in degrees: a pure function of seed, position and label."""
        return _Table(self.ranges).draw(labels, random.uniform(seed, stream, positions)[0])

    def apply(self, images, parameters):
        """The images (batch, height, width, channels), each turned by its angle (batch,)."""
        return rotate(images, parameters, self.fill)

    def encode(self, parameters):
        """(cos, sin) of the angles, (batch, 2): the form in which a decoder is told an angle."""
        return ops.stack(cosine_sine(parameters), axis=-1)


@dataclass(frozen=True)
class Shift:
    """Shift by whole pixels, both directions drawn independently from the range of the image's class.

    Args:
        ranges: pixels; an interval (-5, 5) holds the shifts -5, ..., 4.
        canvas: (height, width) of the result; None for the images' own.
        fill: value outside the images.
        scale: the shift that is encoded as 1.
    """

    ranges: Ranges
    canvas: tuple[int, int] | None = None
    fill: float = 0.0
    scale: float = 20.0

    def __post_init__(self):
        every = [self.ranges.default, *self.ranges.restricted.values()]
        if any(end != int(end) for pairs in every for pair in pairs for end in pair):
            raise ValueError(f"The ends of ranges of shifts must be whole pixels. Received: {self.ranges}")

    def draw(self, seed, positions, labels, stream=random.PARAMETERS):
        """Shifts (batch, 2), (dy, dx) in pixels: a pure function of seed, position and label."""
        table = _Table(self.ranges)
        return ops.stack(
            [ops.floor(table.draw(labels, value)) for value in random.uniform(seed, stream, positions)], axis=-1
        )

    def apply(self, images, parameters):
        """The images on their canvas, each shifted by its (dy, dx) (batch, 2)."""
        return shift(images, parameters[:, 0], parameters[:, 1], self.canvas, self.fill)

    def encode(self, parameters):
        """(dy, dx) / scale, (batch, 2)."""
        return ops.cast(parameters, "float32") / self.scale
