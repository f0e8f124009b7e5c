"""Transformations of images: their parameters, how these are drawn, applied to images and encoded for a decoder.

Keras is imported only when parameters are drawn or applied, so that transformations are cheap to declare. Images are
(batch, height, width, channels). A new transformation is a subclass of `Transformation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from invariance.errors import is_positive_integer
from invariance.ranges import Intervals, Ranges, intervals, length, middles
from invariance.schema import short
from invariance.typing import Tensor

if TYPE_CHECKING:
    import numpy as np

# Evaluations on more points than this would take days.
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Transformation:
    """A transformation of images with one parameter, or several that are drawn independently.

    Subclasses are frozen dataclasses. Their fields are stored in config.json, next to `name`.

    Attributes:
        name: the transformation, in config.json and in text.
        parameter, unit: name and unit of its parameter.
        axis: label of the parameter's axis in figures.
        dimensions: number of parameters. Evaluation grids follow their diagonal, where all are equal, unless
            `parameters` says otherwise.
        numbers: how many numbers encode the parameters for a decoder, see `encode`.
        period: of a periodic parameter; None if it is not periodic.
        whole: whether the parameter takes whole values only.
        identity: the parameter that leaves images unchanged.
        unblurred: isolated parameters at which interpolation does not blur images.
        spacing: default distance between the points of an evaluation, see `grid`.
        full: number of points of the finest grid.
        ticks: ticks of the parameter's axis in figures; empty for matplotlib's own choice.
    """

    name: ClassVar[str]
    parameter: ClassVar[str]
    unit: ClassVar[str]
    axis: ClassVar[str]
    dimensions: ClassVar[int] = 1
    numbers: ClassVar[int] = 1
    period: ClassVar[float | None] = None
    whole: ClassVar[bool] = False
    identity: ClassVar[float] = 0.0
    unblurred: ClassVar[tuple[float, ...]] = ()
    spacing: ClassVar[float]
    full: ClassVar[int] = 40
    ticks: ClassVar[tuple[float, ...]] = ()

    # Subclasses define `apply` and may override the other methods of this part.

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        """Transforms each image by its parameters.

        Args:
            images: (batch, height, width, channels).
            parameters: (batch,), or (batch, dimensions) if there are several.
            fill: value outside the images.

        Returns:
            (batch, *output_shape) float32.
        """
        raise NotImplementedError

    def encode(self, parameters: Tensor) -> Tensor:
        """Encodes parameters for a decoder, (batch, numbers) float32; by default as they are."""
        from keras import ops

        return ops.reshape(ops.cast(parameters, "float32"), (-1, self.numbers))

    def decode(self, numbers: Tensor) -> Tensor:
        """The parameters, (batch,) or (batch, dimensions), that numbers (batch, numbers) encode. Differentiable."""
        from keras import ops

        return ops.reshape(numbers, (-1,) if self.dimensions == 1 else (-1, self.dimensions))

    def text(self, value: Any) -> str:
        """A caption for a parameter: a number, or `dimensions` of them."""
        return f"{float(value):g}"

    def output_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(height, width, channels) of transformed images."""
        return tuple(image_shape)

    def to_coordinate(self, value: float) -> float:
        """Maps a parameter to the scale on which it is drawn uniformly and grids are even. Must be increasing."""
        return value

    def from_coordinate(self, value: Tensor) -> Tensor:
        """The inverse of `to_coordinate`, for tensors and arrays."""
        return value

    def each(self, ranges: Ranges) -> tuple[Ranges, ...]:
        """The ranges of each parameter, from those of the classes; by default all are drawn from the same ones."""
        return (ranges,) * self.dimensions

    def around(self, parameters: Any, ranges: Ranges, count: int) -> np.ndarray:
        """The parameters of ``count`` images at one point of a grid, (count,) or (count, dimensions).

        Args:
            parameters: of the point: a number, or `dimensions` of them.
            ranges: of parameters that the grid does not run over; by default there are none.
        """
        import numpy as np

        return np.repeat(np.asarray(parameters, "float32")[None], count, axis=0)

    def check(self, pairs: Intervals) -> None:
        """Raises ValueError if a range holds values that the parameter cannot take."""
        if self.whole and any(end != int(end) for pair in pairs for end in pair):
            raise ValueError(f"A range of {self.parameter}s must end at whole {self.unit}. Received: {pairs}")

    # Subclasses inherit the methods below.

    def draw(
        self, ranges: Ranges, seed: Tensor, positions: Tensor, labels: Tensor, stream: int | None = None
    ) -> Tensor:
        """Draws a parameter for each image from the range of its class: a pure function of seed, position and label.

        Args:
            ranges: the range of each class, see `each`.
            seed: integer, 0 <= seed < 2**32.
            positions: (batch,) int64 positions in the run.
            labels: (batch,) integers.
            stream: of random numbers, see `random`; None for the stream of training parameters.

        Returns:
            (batch,), or (batch, dimensions) if there are several.
        """
        from keras import ops

        from invariance import random

        samplers = [random.RangeSampler(each.mapped(self.to_coordinate)) for each in self.each(ranges)]
        uniform = random.uniform(seed, random.PARAMETERS if stream is None else stream, positions, self.dimensions)
        values = [
            self.from_coordinate(sampler.draw(labels, each)) for sampler, each in zip(samplers, uniform, strict=True)
        ]
        if self.whole:
            values = [ops.floor(value) for value in values]
        return values[0] if self.dimensions == 1 else ops.stack(values, axis=-1)

    def grid(self, spacing: float | None, extent: tuple[float, float]) -> np.ndarray:
        """The points of an evaluation, (points,), ascending.

        The midpoints of equal cells that cover the period or the extent; for whole parameters, every `spacing`-th value
        from the lower end of the extent, which is half-open.

        Args:
            spacing: distance between points, on the scale of `to_coordinate`; None for the finest grid.
            extent: lowest and highest parameter of interest.

        Raises:
            ValueError: if there is no such grid.
        """
        import numpy as np

        if spacing is None:
            return self.even(self.full, extent)
        low, high = (-self.period / 2, self.period / 2) if self.period else map(self.to_coordinate, extent)
        if not 0 < spacing <= (high - low) / 2:
            raise ValueError(f"The spacing must be above 0 and at most half of {high - low:g}. Received: {spacing!r}")
        if (high - low) / spacing > _MOST_POINTS:
            raise ValueError(f"A grid may have {_MOST_POINTS:,} points at most. Received: spacing={spacing!r}")
        if self.whole:
            if spacing != int(spacing):
                raise ValueError(f"The spacing must be a whole number of {self.unit}. Received: {spacing!r}")
            return np.arange(low, high, spacing)
        count = round((high - low) / spacing)
        if self.period and abs((high - low) / spacing - count) > 1e-9:
            raise ValueError(f"The spacing must divide {self.period:g} {self.unit}. Received: {spacing!r}")
        points = low + (high - low) / count * (np.arange(count) + 0.5)
        # Rounded, so that points compare equal to the `unblurred` ones.
        return np.round(np.asarray(self.from_coordinate(points), float), 9)

    def even(self, count: int, extent: tuple[float, float]) -> np.ndarray:
        """About ``count`` evenly spaced points, (points,), from the lower end of the period or the extent on.

        An extent's upper end is included unless the parameter is whole or periodic.
        """
        import numpy as np

        if self.whole:
            low, high = extent
            return np.arange(low, high, max(1.0, math.ceil((high - low) / count)))
        if self.period:
            return np.round(-self.period / 2 + self.period / count * np.arange(count), 9)
        low, high = map(self.to_coordinate, extent)
        return np.round(np.asarray(self.from_coordinate(np.linspace(low, high, count)), float), 9)

    def orbit(self, count: int, pairs: Intervals) -> np.ndarray:
        """About ``count`` parameters that cover a range evenly in all dimensions: (copies,) or (copies, dimensions).

        They divide the whole period, from the identity on, or are the middles of equal parts of the range.
        """
        import numpy as np

        each = max(1, round(count ** (1 / self.dimensions)))
        if self.period and length(pairs) >= self.period:
            points = self.identity + self.period / each * np.arange(each)
        else:
            scaled = Ranges(pairs).mapped(self.to_coordinate).default
            points = np.asarray(self.from_coordinate(np.asarray(middles(scaled, each))), float)
        points = np.floor(points) if self.whole else points
        if self.dimensions == 1:
            return points
        return np.stack(np.meshgrid(*[points] * self.dimensions, indexing="ij"), -1).reshape(-1, self.dimensions)

    def vector_fields(self, height: int, width: int) -> np.ndarray:
        """The velocity of each pixel of an image, by finite differences at the identity.

        Pixels that come from outside the image have no meaningful velocity.

        Returns:
            (dimensions, height, width, 2), rows and columns in pixels per unit of `to_coordinate`. For small
            parameters, the transformed image shows at p what the image shows at p + velocity x parameter.
        """
        import numpy as np

        places = np.moveaxis(np.mgrid[:height, :width], 0, -1).astype("float32")
        step = 1.0 if self.whole else 1e-2
        start = self.to_coordinate(self.identity)
        parameters = np.full((self.dimensions, self.dimensions), self.identity, "float32")
        np.fill_diagonal(parameters, self.from_coordinate(start + step))
        images = np.repeat(places[None], self.dimensions, 0)
        moved = self.apply(images, parameters if self.dimensions > 1 else parameters[:, 0])
        return (np.asarray(moved) - places) / step

    def parameters(self, points: np.ndarray) -> np.ndarray:
        """The parameters at the points of a grid: (points,), or (points, dimensions), all of them equal."""
        import numpy as np

        return points if self.dimensions == 1 else np.stack([points] * self.dimensions, axis=-1)

    def describe(self, pairs: Intervals) -> str:
        """A range in words: "within ±45 degrees", "at 18 degrees", "within -5..4 pixels"."""
        if self.period and length(pairs) >= self.period:
            return f"at every {self.parameter}"
        if len(pairs) > 2 and not length(pairs):
            first, second, *_, last = (low for low, _ in pairs)
            return f"at {first:g}, {second:g}, ..., {last:g} {self.unit}".rstrip()
        texts = []
        for low, high in pairs:
            if low == high:
                texts.append(f"at {low:g}")
            elif self.whole:
                texts.append(f"within {low:g}..{high - 1:g}")
            elif low == -high:
                texts.append(f"within ±{high:g}")
            else:
                texts.append(f"from {low:g} to {high:g}")
        return f"{' and '.join(texts)} {self.unit}".rstrip()

    def to_json(self) -> dict:
        """The transformation's fields."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Rotation(Transformation):
    """Rotation about the image's centre, in degrees, counter-clockwise positive."""

    name = "rotation"
    parameter, unit, axis = "angle", "degrees", "angle, degrees (counter-clockwise)"
    numbers, period = 2, 360.0
    unblurred = (-180.0, -90.0, 0.0, 90.0)
    spacing, full = 5.0, 200
    ticks = tuple(range(-180, 181, 45))

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from invariance.warp import rotate

        return rotate(images, parameters, fill)

    def encode(self, parameters: Tensor) -> Tensor:
        """(cos, sin) of the angles."""
        from keras import ops

        from invariance.warp import cosine_sine

        return ops.stack(cosine_sine(parameters), axis=-1)

    def decode(self, numbers: Tensor) -> Tensor:
        """The angles of points in the plane, whatever their distance from the origin."""
        from keras import ops

        return ops.arctan2(numbers[:, 1], numbers[:, 0]) * (180.0 / math.pi)

    def text(self, value: Any) -> str:
        # An integer has no negative zero.
        return f"{round(float(value))}°"


@dataclass(frozen=True)
class Shift(Transformation):
    """Shift by whole pixels, (dy, dx): dy positive downwards, dx positive to the right.

    Args:
        canvas: (height, width) of the transformed images, in pixels; None for the images' own size.
        scale: the shift, in pixels, that is encoded as 1.

    Raises:
        ValueError: if the canvas is not a pair of positive integers, or the scale is not a positive number.
    """

    canvas: tuple[int, int] | None = None
    scale: float = 20.0

    name = "shift"
    parameter, unit, axis = "shift", "pixels", "shift, pixels (dy = dx)"
    dimensions = numbers = 2
    whole = True
    spacing, full = 2.0, 20

    def __post_init__(self) -> None:
        if self.canvas is not None:
            sides = tuple(self.canvas) if isinstance(self.canvas, (tuple, list)) else ()
            if len(sides) != 2 or not all(map(is_positive_integer, sides)):
                raise ValueError(f"Argument `canvas` must be a pair of positive integers. Received: {self.canvas!r}")
            object.__setattr__(self, "canvas", sides)
        if not 0 < self.scale < math.inf:
            raise ValueError(f"Argument `scale` must be a positive number. Received: {self.scale!r}")

    def output_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*(self.canvas or image_shape[:2]), image_shape[-1])

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from invariance.warp import shift

        return shift(images, parameters[:, 0], parameters[:, 1], self.canvas, fill)

    def encode(self, parameters: Tensor) -> Tensor:
        """(dy, dx) / scale."""
        from keras import ops

        return ops.cast(parameters, "float32") / self.scale

    def decode(self, numbers: Tensor) -> Tensor:
        return numbers * self.scale

    def text(self, value: Any) -> str:
        return ", ".join(f"{round(float(each)):+d}" for each in value)


@dataclass(frozen=True)
class Scaling(Transformation):
    """Scaling about the image's centre by a factor, drawn log-uniformly; factors above 1 enlarge.

    The spacing of a grid is in octaves: 1 is a factor of two.
    """

    name = "scaling"
    parameter, unit, axis = "factor", "times", "scaling factor"
    identity = 1.0
    unblurred = (1.0,)
    spacing = 0.1

    def check(self, pairs: Intervals) -> None:
        if any(low <= 0 for low, _ in pairs):
            raise ValueError(f"Scaling factors must be positive. Received: {pairs}")

    def to_coordinate(self, value: float) -> float:
        return math.log2(value)

    def from_coordinate(self, value: Tensor) -> Tensor:
        return 2.0**value

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from keras import ops

        from invariance.warp import linear

        inverse = 1.0 / ops.cast(parameters, "float32")
        return linear(images, (inverse, 0.0, 0.0, inverse), fill=fill)

    def encode(self, parameters: Tensor) -> Tensor:
        """log2 of the factors."""
        from keras import ops

        return ops.log2(ops.cast(parameters, "float32"))[:, None]

    def decode(self, numbers: Tensor) -> Tensor:
        return 2.0 ** numbers[:, 0]

    def text(self, value: Any) -> str:
        return f"×{float(value):.2f}"


@dataclass(frozen=True)
class Shear(Transformation):
    """Horizontal shear about the image's centre, in pixels to the right per pixel upwards, as in italics."""

    name = "shear"
    parameter, unit, axis = "shear", "pixels per row", "shear, pixels to the right per pixel upwards"
    unblurred = (0.0,)
    spacing = 0.1

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from invariance.warp import linear

        return linear(images, (1.0, 0.0, parameters, 1.0), fill=fill)

    def text(self, value: Any) -> str:
        return f"{float(value):+.2f}"


@dataclass(frozen=True)
class Affine(Transformation):
    """Rotation, shear, scaling and shift, about the image's centre, with ranges of their own.

    With a rotation R (counter-clockwise), shears H and factors S, the result at a place x shows what the image shows at
    R H S (x - shift), both measured from the centre. Parameters: the angle in degrees; the shift, (dy, dx); the shears,
    (rows per column, columns per row); and the factors less one, of (rows, columns): factors above one shrink.

    A task gives the range of the angle. Each of the other parameters is drawn uniformly from its own range; where a
    class is shown a part of all angles, from an equal part of that range, in its middle. An evaluation runs over the
    angle, and draws the others for each image from the part that belongs to the range ``inside``.

    Args:
        shift: range of dy and dx, (lowest, highest), in pixels.
        shear: range of both shears, in pixels per pixel.
        factor: range of both factors.

    Raises:
        ValueError: if a range is not an ascending pair of finite numbers.
    """

    shift: tuple[float, float] = (-5.0, 5.0)
    shear: tuple[float, float] = (0.1, 0.5)
    factor: tuple[float, float] = (0.9, 1.4)

    name = "affine_map"
    parameter, unit, axis = "angle", "degrees", "angle, degrees (counter-clockwise; shift, shears and factors drawn)"
    dimensions, numbers, period = 7, 6, 360.0
    spacing, full = 5.0, 200
    ticks = Rotation.ticks

    def __post_init__(self) -> None:
        for field in fields(self):
            [pair] = intervals([getattr(self, field.name)], field.name)
            object.__setattr__(self, field.name, pair)

    def matrix(self, parameters: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
        """R H S as ``matrix``, and R H S (-shift) as ``offset``, of `warp.linear`; each (batch,)."""
        from keras import ops

        from invariance.warp import cosine_sine

        parameters = ops.cast(parameters, "float32")
        angle, dy, dx, rows, columns, tall, wide = (parameters[:, number] for number in range(self.dimensions))
        cosine, sine = cosine_sine(angle)
        a, b = (cosine + sine * columns) * (1.0 + tall), (cosine * rows + sine) * (1.0 + wide)
        c, d = (cosine * columns - sine) * (1.0 + tall), (cosine - sine * rows) * (1.0 + wide)
        return (a, b, c, d), (-a * dy - b * dx, -c * dy - d * dx)

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from invariance.warp import linear

        matrix, offset = self.matrix(parameters)
        return linear(images, matrix, fill=fill, offset=offset)

    def encode(self, parameters: Tensor) -> Tensor:
        """The six coefficients of the map: a matrix, and an offset in tens of pixels."""
        from keras import ops

        matrix, offset = self.matrix(parameters)
        return ops.stack([*matrix, *(each / 10.0 for each in offset)], axis=-1)

    def each(self, ranges: Ranges) -> tuple[Ranges, ...]:
        others = (self.shift, self.shear, tuple(end - 1.0 for end in self.factor))
        return (ranges, *(self._part(own, ranges) for own in others for _ in range(2)))

    def _part(self, own: tuple[float, ...], ranges: Ranges) -> Ranges:
        """The part of a range that is as large as the ranges' part of all angles, in its middle."""
        middle, half = (own[0] + own[1]) / 2.0, (own[1] - own[0]) / 2.0

        def part(pairs: Intervals) -> Intervals:
            reach = half * min(1.0, length(pairs) / 360.0)
            return ((middle - reach, middle + reach),)

        return Ranges(part(ranges.default), {label: part(pairs) for label, pairs in ranges.restricted.items()})

    def around(self, parameters: Any, ranges: Ranges, count: int) -> np.ndarray:
        import numpy as np

        from invariance import random

        drawn = self.draw(ranges, 0, np.arange(count), np.zeros(count, "int32"), random.EVALUATION)
        angle = np.broadcast_to(np.ravel(parameters)[0], (count, 1))
        return np.concatenate([angle, np.asarray(drawn)[:, 1:]], axis=1).astype("float32")

    def parameters(self, points: np.ndarray) -> np.ndarray:
        """The angles, and the middles of the other ranges: (points, dimensions)."""
        import numpy as np

        middles = [sum(own) / 2.0 for own in (self.shift, self.shear, self.factor) for _ in range(2)]
        others = np.array(middles) - [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
        return np.concatenate([np.asarray(points)[:, None], np.tile(others, (len(points), 1))], axis=1)

    def text(self, value: Any) -> str:
        import numpy as np

        return f"{round(float(np.ravel(value)[0]))}°"

    def describe(self, pairs: Intervals) -> str:
        share = length(pairs) / 360.0
        return super().describe(pairs) + (f" and {share:.0%} of the other ranges" if share < 1.0 else "")


def transformation_from_json(name: str, value: Mapping) -> tuple[Transformation, dict]:
    """Builds a transformation from its name and a flat mapping that contains its fields.

    Returns:
        The transformation, and the other items of the mapping.

    Raises:
        ValueError: if no transformation has this name, or a field is malformed.
    """
    known = {kind.name: kind for kind in Transformation.__subclasses__()}
    if name not in known:
        raise ValueError(f"unknown transformation {short(name)}; known are {', '.join(known)}")
    own = {field.name for field in fields(known[name])}
    rest = {key: item for key, item in value.items() if key not in own}
    return known[name](**{key: item for key, item in value.items() if key in own}), rest
