"""The transformations under test: what a parameter is, how it is drawn per class, applied to images, told to a decoder.

A transformation is declared without importing Keras, which is loaded when something is drawn or applied. Images are
(batch, height, width, channels). A new transformation is one class with `Transformation` as its base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from invariance.ranges import Intervals, Ranges
from invariance.typing import Tensor

if TYPE_CHECKING:
    import numpy as np

# More points of a grid than anybody can wait for.
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Transformation:
    """A transformation of images with one parameter, or with several of one kind that are drawn independently.

    Subclasses are frozen dataclasses; their fields are what config.json says beside the class' `name`.

    Attributes:
        name: of the transformation, in config.json and for people.
        parameter, unit: what its parameter is called and measured in.
        axis: the label of a figure's axis.
        dimensions: number of parameters; evaluation follows their diagonal, where all are equal.
        numbers: how many numbers tell a decoder the parameters (`encode`).
        period: the parameter is taken modulo it; None if it is not periodic.
        whole: whether the parameter takes whole values only.
        identity: the parameter that changes nothing.
        unblurred: the parameters at which interpolation does not blur an image, while it does at their neighbours.
        spacing: between the evaluation's points, if nobody chooses another; see `grid`.
        full: number of points of the finest grid that is offered.
        ticks: where a figure's axis is labelled; empty leaves that to the figure.
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

    # What a subclass defines, and what it may define.

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        """Transforms each image by its parameters.

        Args:
            images: (batch, height, width, channels).
            parameters: (batch,), or (batch, dimensions) where there are several.
            fill: value outside the images.

        Returns:
            (batch, *output_shape) float32.
        """
        raise NotImplementedError

    def encode(self, parameters: Tensor) -> Tensor:
        """The numbers that tell a decoder the parameters, (batch, numbers): by default the parameters themselves."""
        from keras import ops

        return ops.reshape(ops.cast(parameters, "float32"), (-1, self.numbers))

    def text(self, value: Any) -> str:
        """A parameter, one number or `dimensions` of them, as a caption."""
        return f"{float(value):g}"

    def output_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(height, width, channels) of transformed images."""
        return tuple(image_shape)

    def to_coordinate(self, value: float) -> float:
        """The parameter on the scale on which it is drawn uniformly and evaluated evenly; increasing."""
        return value

    def from_coordinate(self, value: Tensor) -> Tensor:
        """The inverse of `to_coordinate`, of tensors and arrays."""
        return value

    def check(self, ranges: Ranges) -> None:
        """Raises ValueError if a parameter cannot be drawn from some ranges."""
        if self.whole and any(end != int(end) for pairs in ranges.all for pair in pairs for end in pair):
            raise ValueError(
                f"The ends of ranges of a {self.parameter} must be whole numbers of {self.unit}. Received: {ranges}"
            )

    # What all of them share.

    def draw(
        self, ranges: Ranges, seed: Tensor, positions: Tensor, labels: Tensor, stream: int | None = None
    ) -> Tensor:
        """Draws parameters from the range of each image's class: a pure function of seed, position and label.

        Args:
            ranges: of the parameter, per class; of several parameters each is drawn from the same range.
            seed: integer, 0 <= seed < 2**32.
            positions: (batch,) int64 positions in the run.
            labels: (batch,) integers.
            stream: of random numbers (`random`); None for that of training parameters.

        Returns:
            (batch,), or (batch, dimensions) where there are several.
        """
        from keras import ops

        from invariance import random

        sampler = random.RangeSampler(ranges.mapped(self.to_coordinate))
        uniform = random.uniform(seed, random.PARAMETERS if stream is None else stream, positions)
        values = [self.from_coordinate(sampler.draw(labels, each)) for each in uniform[: self.dimensions]]
        if self.whole:
            values = [ops.floor(value) for value in values]
        return values[0] if self.dimensions == 1 else ops.stack(values, axis=-1)

    def grid(self, spacing: float | None, extent: tuple[float, float]) -> np.ndarray:
        """The points of an evaluation, (points,), ascending.

        They are the middles of equal cells, of the whole period or of the extent; of a parameter with whole values,
        every so many of the extent's values.

        Args:
            spacing: between points, in the parameter's unit (as `to_coordinate` measures it); None for the finest grid.
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
        # Rounded, so that points at which nothing is blurred are recognised as such.
        return np.round(np.asarray(self.from_coordinate(points), float), 9)

    def even(self, count: int, extent: tuple[float, float]) -> np.ndarray:
        """Up to ``count`` even steps through the whole period or an extent, its lower end included. (points,)"""
        import numpy as np

        if self.whole:
            low, high = extent
            return np.arange(low, high, max(1.0, math.ceil((high - low) / count)))
        if self.period:
            return np.round(-self.period / 2 + self.period / count * np.arange(count), 9)
        low, high = map(self.to_coordinate, extent)
        return np.round(np.asarray(self.from_coordinate(np.linspace(low, high, count)), float), 9)

    def parameters(self, points: np.ndarray) -> np.ndarray:
        """The parameters at points of a grid: (points,), or (points, dimensions) with all of them equal."""
        import numpy as np

        return points if self.dimensions == 1 else np.stack([points] * self.dimensions, axis=-1)

    def describe(self, pairs: Intervals) -> str:
        """A range in words: "within ±45 degrees", "at 18 degrees", "within -5..4 pixels"."""
        if self.period and sum(high - low for low, high in pairs) >= self.period:
            return f"at every {self.parameter}"
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
        """The transformation's own settings."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Rotation(Transformation):
    """Rotation about the image's centre, by degrees, positive = counter-clockwise."""

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

    def text(self, value: Any) -> str:
        # As an integer: there is no minus zero.
        return f"{round(float(value))}°"


@dataclass(frozen=True)
class Shift(Transformation):
    """Shift by whole pixels, (dy, dx): dy positive = downwards, dx positive = to the right.

    Args:
        canvas: (height, width) of the transformed images; None for the images' own.
        scale: the shift that a decoder is told as 1.

    Raises:
        ValueError: if the canvas is not two positive sides, or the scale not positive.
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
            object.__setattr__(self, "canvas", tuple(int(side) for side in self.canvas))
        if (self.canvas is not None and (len(self.canvas) != 2 or min(self.canvas) < 1)) or not self.scale > 0:
            raise ValueError(
                f"Arguments `canvas` and `scale` must be two positive sides and a positive number. "
                f"Received: {self.canvas!r}, {self.scale!r}"
            )

    def output_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*(self.canvas or image_shape[:2]), image_shape[-1])

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from invariance.warp import shift

        return shift(images, parameters[:, 0], parameters[:, 1], self.canvas, fill)

    def encode(self, parameters: Tensor) -> Tensor:
        """(dy, dx) / scale."""
        from keras import ops

        return ops.cast(parameters, "float32") / self.scale

    def text(self, value: Any) -> str:
        return ", ".join(f"{round(float(each)):+d}" for each in value)


@dataclass(frozen=True)
class Scaling(Transformation):
    """Scaling about the image's centre by a factor, drawn log-uniformly; above 1 enlarges.

    Grids are spaced in octaves: 1 is a factor of two.
    """

    name = "scaling"
    parameter, unit, axis = "factor", "times", "scaling factor"
    identity = 1.0
    unblurred = (1.0,)
    spacing = 0.1

    def check(self, ranges: Ranges) -> None:
        if any(low <= 0 for pairs in ranges.all for low, _ in pairs):
            raise ValueError(f"Scaling factors must be positive. Received: {ranges}")

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

    def text(self, value: Any) -> str:
        return f"×{float(value):.2f}"


@dataclass(frozen=True)
class Shear(Transformation):
    """Horizontal shear about the image's centre: pixels to the right per pixel upwards, as in italics."""

    name = "shear"
    parameter, unit, axis = "shear", "pixels per row", "shear, pixels to the right per pixel upwards"
    unblurred = (0.0,)
    spacing = 0.1

    def apply(self, images: Tensor, parameters: Tensor, fill: float = 0.0) -> Tensor:
        from invariance.warp import linear

        return linear(images, (1.0, 0.0, parameters, 1.0), fill=fill)

    def text(self, value: Any) -> str:
        return f"{float(value):+.2f}"


def transformation_from_json(name: str, value: Mapping) -> tuple[Transformation, dict]:
    """A transformation from its name and a flat mapping that holds its fields, and what else the mapping holds.

    Raises:
        ValueError: if there is no transformation of this name, or a field is malformed.
    """
    known = {kind.name: kind for kind in Transformation.__subclasses__()}
    if name not in known:
        raise ValueError(f"unknown transformation {name!r}; known are {', '.join(known)}")
    own = {field.name for field in fields(known[name])}
    rest = {key: item for key, item in value.items() if key not in own}
    return known[name](**{key: item for key, item in value.items() if key in own}), rest
