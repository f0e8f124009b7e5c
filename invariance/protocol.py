"""What is trained on, what is measured, and for how long. Plain data: no TensorFlow, JSON in and out."""

import contextlib
import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from invariance.errors import require_positive
from invariance.ranges import Intervals, Ranges, angle_grid, intervals, length, overlap

# In order of their cost.
PROFILES = ("smoke", "quick", "standard", "paper")


@dataclass(frozen=True)
class Recognition:
    """Recognition of rotated images, some classes shown in a narrow range of angles only.

    Angles are in degrees, positive = counter-clockwise, about the image's centre.

    Args:
        ranges: the range of training angles of each class.
        excluded: labels removed from training and test, because turned they are taken for one another (6 and 9).
        inside: range of P_in.
        outside: range of P_out, outside the training range of the restricted classes.
        inverted: range of P_inv, farthest from the training range of the restricted classes.
        max_shift: turned training images are moved by up to so many whole pixels, up or down and left or right, a fresh
            shift for every drawing of an image. Test images never are.

    Raises:
        ValueError: if a range is malformed, a class both restricted and excluded, or ``outside`` or ``inverted`` has
            anything in common with a restricted class's range.
    """

    ranges: Ranges
    excluded: tuple[int, ...] = ()
    inside: Intervals = ((-45.0, 45.0),)
    outside: Intervals = ((45.0, 315.0),)
    inverted: Intervals = ((135.0, 225.0),)
    max_shift: int = 0

    # What stands at the axis of a figure.
    axis = "angle, degrees"

    def __post_init__(self):
        if isinstance(self.max_shift, bool) or not isinstance(self.max_shift, int) or self.max_shift < 0:
            raise ValueError(
                f"Argument `max_shift` must be a whole number of pixels, at least 0. Received: {self.max_shift!r}"
            )
        object.__setattr__(self, "excluded", _excluded(self.excluded, self.ranges))
        for name in ("inside", "outside", "inverted"):
            object.__setattr__(self, name, intervals(getattr(self, name), name))
        for label, shown in self.ranges.restricted.items():
            for name in ("outside", "inverted"):
                if (common := overlap(shown, getattr(self, name), 360.0)) > 0:
                    raise ValueError(
                        f"Argument `{name}` must lie outside the training range of class {label}. Received: "
                        f"{getattr(self, name)}, which has {common:g} degrees in common with {shown}"
                    )

    @property
    def restricted(self) -> tuple[int, ...]:
        """Labels of the restricted classes."""
        return tuple(self.ranges.restricted)

    @property
    def single_angles(self) -> tuple[float, ...]:
        """The angles of a protocol without restricted classes that knows single angles only; otherwise none."""
        if self.restricted or length(self.ranges.default):
            return ()
        return tuple(low for low, _ in self.ranges.default)

    def grid(self, spacing: float | None):
        """The angles of the evaluation, (angles,) degrees: the single angles, or the middles of equal cells.

        Raises:
            ValueError: see `ranges.angle_grid`.
        """
        import numpy as np

        return np.array(self.single_angles) if self.single_angles else angle_grid(spacing)

    def classes(self, labels) -> tuple[int, ...]:
        """The labels that remain of ``labels``, ascending: the meaning of a network's outputs, in order.

        Raises:
            ValueError: if a restricted class is not among the labels, or fewer than two classes remain.
        """
        return _remaining(labels, self.restricted, self.excluded)

    def arguments(self, image_shape, classes) -> tuple:
        """What a model's callable is given before the learning rate: (image_shape, number of classes)."""
        return tuple(image_shape), len(classes)

    def transformation(self):
        """The `transforms.Rotation` that draws and applies the angles."""
        from invariance.transforms import Rotation

        return Rotation(self.ranges, fill=0.0)

    def prepare(self, seed: int, classes: tuple[int, ...]):
        """The function that turns a batch of the pipeline into inputs and targets, on the device, inside the step.

        Args:
            seed: the run's seed.
            classes: labels in the order of the network's outputs.

        Returns:
            A function of images (batch, height, width, channels) uint8, labels (batch,) and draw numbers (batch,) that
            returns the turned and shifted images, float32 in [0, 1], and the outputs they should raise (batch,) int32.
        """
        import numpy as np
        from keras import ops

        from invariance import random
        from invariance.transforms import Shift

        rotation = self.transformation()
        shift = Shift(Ranges(((-self.max_shift, self.max_shift + 1),)))
        output = np.zeros(max(classes) + 1, "int32")
        output[list(classes)] = range(len(classes))

        def prepare(images, labels, draws):
            inputs = rotation.apply(ops.cast(images, "float32") / 255.0, rotation.draw(seed, draws, labels))
            if self.max_shift:
                inputs = shift.apply(inputs, shift.draw(seed, draws, labels, random.AUGMENTATION))
            return inputs, ops.take(output, labels, axis=0)

        return prepare

    def to_json(self) -> dict:
        return {
            "kind": "recognition",
            "ranges": self.ranges.to_json(),
            "excluded": list(self.excluded),
            **{name: [list(pair) for pair in getattr(self, name)] for name in ("inside", "outside", "inverted")},
            # Said only where there is one, as runs of before there were shifts do not.
            **({"max_shift": self.max_shift} if self.max_shift else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping) -> "Recognition":
        fields = {key: item for key, item in value.items() if key != "kind"}
        return cls(**{**fields, "ranges": Ranges.from_json(value["ranges"])})


@dataclass(frozen=True)
class Generation:
    """Drawing of transformed images, some classes shown in a narrow range of parameters only. One of its two kinds,
    `GenerationByRotation` and `GenerationByShift`, is used.

    The network is given the upright image and the parameters, pixels in [-1, 1]; its target is the transformed image.

    Args:
        ranges: the range of training parameters of each class.
        excluded: labels removed from training and test.
        inside: the parameters whose mean squared errors are averaged as mse_in, ends included.
        outside: those of mse_out.
    """

    ranges: Ranges
    excluded: tuple[int, ...] = ()
    inside: Intervals = ()
    outside: Intervals = ()

    kind = None
    # How people call the parameter, its unit, and what stands at the axis of a figure.
    parameter = unit = axis = None

    def __post_init__(self):
        object.__setattr__(self, "excluded", _excluded(self.excluded, self.ranges))
        for name in ("inside", "outside"):
            object.__setattr__(self, name, intervals(getattr(self, name), name))

    @property
    def restricted(self) -> tuple[int, ...]:
        """Labels of the restricted classes."""
        return tuple(self.ranges.restricted)

    def classes(self, labels) -> tuple[int, ...]:
        """The labels that remain of ``labels``, ascending.

        Raises:
            ValueError: if a restricted class is not among the labels, or fewer than two classes remain.
        """
        return _remaining(labels, self.restricted, self.excluded)

    def arguments(self, image_shape, classes) -> tuple:
        """What a model's callable is given before the learning rate: (image_shape, shape to draw, 2 parameters)."""
        return tuple(image_shape), self.output_shape(image_shape), 2

    def output_shape(self, image_shape) -> tuple:
        """(height, width, channels) of the images to be drawn."""
        return tuple(image_shape)

    def prepare(self, seed: int, classes: tuple[int, ...]):
        """The function that turns a batch of the pipeline into inputs and targets, on the device, inside the step.

        Args:
            seed: the run's seed.
            classes: not needed.

        Returns:
            A function of images (batch, height, width, channels) uint8, labels (batch,) and draw numbers (batch,) that
            returns ((upright images in [-1, 1], encoded parameters (batch, 2)), transformed images).
        """
        transformation = self.transformation()

        def prepare(images, labels, draws):
            upright = self.pixels(images)
            parameters = transformation.draw(seed, draws, labels)
            return (upright, transformation.encode(parameters)), transformation.apply(upright, parameters)

        return prepare

    @staticmethod
    def pixels(images):
        """uint8 images as the network gets them: float32 in [-1, 1]."""
        from keras import ops

        return ops.cast(images, "float32") / 127.5 - 1.0

    def to_json(self) -> dict:
        value = {
            "kind": self.kind,
            "ranges": self.ranges.to_json(),
            "excluded": list(self.excluded),
            **{name: [list(pair) for pair in getattr(self, name)] for name in ("inside", "outside")},
        }
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return value | {name: _listed(rest[name]) for name in rest if name not in value}

    @classmethod
    def from_json(cls, value: Mapping) -> "Generation":
        fields = {key: item for key, item in value.items() if key != "kind"}
        return cls(**{**fields, "ranges": Ranges.from_json(value["ranges"])})


@dataclass(frozen=True)
class GenerationByRotation(Generation):
    """Digits drawn turned about the image's centre; degrees, positive = counter-clockwise, in [-180, 180)."""

    inside: Intervals = ((-45.0, 45.0),)
    outside: Intervals = ((-180.0, -47.0), (47.0, 180.0))

    kind = "generation_by_rotation"
    parameter, unit, axis = "angle", "degrees", "angle, degrees"
    # At quarter turns the target is not blurred by interpolation, and easier or harder to draw than its neighbours.
    unblurred = (-180.0, -90.0, 0.0, 90.0)

    def transformation(self):
        """The `transforms.Rotation` that draws and applies the angles."""
        from invariance.transforms import Rotation

        return Rotation(self.ranges, fill=-1.0)

    def grid(self, spacing: float | None):
        """The angles of the evaluation, (points,): middles of equal cells, or, for None, the published 200.

        Raises:
            ValueError: see `ranges.angle_grid`.
        """
        import numpy as np

        if spacing is None:
            return np.round(-180.0 + 1.8 * np.arange(200), 1)
        return angle_grid(spacing)

    def parameters(self, values):
        """The transformation's parameters for points of the grid: the angles themselves."""
        return values


@dataclass(frozen=True)
class GenerationByShift(Generation):
    """Digits drawn shifted by whole pixels on a larger canvas; dy positive = downwards, dx positive = to the right.

    Args:
        canvas: (height, width) of the images to be drawn.
        scale: the shift that the decoder is told as 1.
    """

    inside: Intervals = ((-5.0, 5.0),)
    outside: Intervals = ((-20.0, -8.0), (8.0, 20.0))
    canvas: tuple[int, int] = (68, 68)
    scale: float = 20.0

    kind = "generation_by_shift"
    parameter, unit, axis = "shift", "pixels", "shift, pixels (dy = dx)"
    unblurred = ()

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "canvas", tuple(int(side) for side in self.canvas))
        if len(self.canvas) != 2 or min(self.canvas) < 1 or not self.scale > 0:
            raise ValueError(
                f"Arguments `canvas` and `scale` must be two positive sides and a positive number. "
                f"Received: {self.canvas!r}, {self.scale!r}"
            )

    def output_shape(self, image_shape) -> tuple:
        """(height, width, channels) of the canvas."""
        return (*self.canvas, image_shape[-1])

    def transformation(self):
        """The `transforms.Shift` that draws and applies the shifts."""
        from invariance.transforms import Shift

        return Shift(self.ranges, self.canvas, fill=-1.0, scale=self.scale)

    def grid(self, spacing: float | None):
        """The shifts dy = dx of the evaluation, (points,): as published, every second pixel of the widest range.

        Raises:
            ValueError: if the spacing is not in whole pixels.
        """
        import numpy as np

        if spacing is not None and not (spacing > 0 and float(spacing).is_integer()):
            raise ValueError(f"A grid of shifts is spaced by whole pixels. Received: {spacing!r}")
        ranges = [self.ranges.default, self.inside, self.outside]
        low, high = min(pairs[0][0] for pairs in ranges), max(pairs[-1][1] for pairs in ranges)
        return np.arange(low, high, 2.0 if spacing is None else spacing)

    def parameters(self, values):
        """The transformation's parameters for points of the grid, (points, 2): dy = dx."""
        import numpy as np

        return np.stack([values, values], axis=-1)


PROTOCOLS = {"recognition": Recognition, **{kind.kind: kind for kind in (GenerationByRotation, GenerationByShift)}}


def protocol_from_json(value: Mapping) -> "Recognition | Generation":
    """The protocol that a run's config.json describes.

    Raises:
        KeyError, TypeError, ValueError: if it describes none.
    """
    return PROTOCOLS[value["kind"]].from_json(value)


def _excluded(labels, ranges) -> tuple[int, ...]:
    labels = tuple(sorted({int(label) for label in labels}))
    both = sorted(set(labels) & set(ranges.restricted))
    if both:
        raise ValueError(f"Classes cannot be both excluded and restricted. Received: {both}")
    return labels


def _remaining(labels, restricted, excluded) -> tuple[int, ...]:
    present = sorted({int(label) for label in labels})
    missing = [label for label in restricted if label not in present]
    if missing:
        raise ValueError(f"restricted classes {missing} are not in the data, which has the classes {present}")
    remaining = tuple(label for label in present if label not in excluded)
    if len(remaining) < 2:
        raise ValueError(f"at least two classes must remain, of {present} there remain {list(remaining)}")
    return remaining


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Budget:
    """How long a model is trained and how finely it is measured.

    Args:
        steps: number of updates.
        batch_size: images a step.
        steps_per_epoch: steps between two rows of history.csv.
        learning_rate: at the first step.
        decay_rate: the learning rate is multiplied by this ...
        decay_steps: ... every so many steps (staircase).
        warmup_steps: if not 0, the learning rate rises in so many steps from 0 to `learning_rate` and then falls along
            a cosine to 0 at the last step, instead of the staircase.
        grid_spacing: degrees or pixels between the points of the evaluation; None for the published grid of an
            experiment with drawn images. `RunConfig` refuses what its protocol has no grid for.
        images_per_class: test images of each class that are evaluated; None for all.
    """

    steps: int
    batch_size: int
    steps_per_epoch: int
    learning_rate: float
    decay_rate: float = 1.0
    decay_steps: int = 1
    warmup_steps: int = 0
    grid_spacing: float | None = 5.0
    images_per_class: int | None = None

    def __post_init__(self):
        require_positive(self, "steps", "batch_size", "steps_per_epoch", "decay_steps")
        if self.images_per_class is not None:
            require_positive(self, "images_per_class")
        for name in ("learning_rate", "decay_rate", "grid_spacing"):
            value = getattr(self, name)
            if name == "grid_spacing" and value is None:
                continue
            if value is None or not 0 < value < float("inf"):
                raise ValueError(f"Argument `{name}` must be positive. Received: {value!r}")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"Argument `warmup_steps` must be at least 0 and less than `steps`. Received: {self.warmup_steps!r}"
            )

    def schedule(self):
        """The learning rate as a Keras schedule (a float where it is constant)."""
        if self.decay_rate == 1.0 and not self.warmup_steps:
            return self.learning_rate
        import keras

        if self.warmup_steps:
            return keras.optimizers.schedules.CosineDecay(
                0.0, self.steps - self.warmup_steps, warmup_target=self.learning_rate, warmup_steps=self.warmup_steps
            )
        return keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, self.decay_steps, self.decay_rate, staircase=True
        )


@dataclass(frozen=True)
class Entry:
    """A model of an experiment, with its budgets.

    Args:
        model: callable ``(input_shape, classes, learning_rate) -> compiled Keras model`` for a `Recognition`,
            ``(input_shape, output_shape, parameters, learning_rate) -> compiled Keras model`` for a `Generation`. A
            frozen dataclass with such a ``__call__`` is best: its fields go into config.json.
        budgets: profile -> `Budget`.
        variants: profile -> the callable that takes the model's place there (a narrower network, say).
        protocol: instead of the experiment's; None for that.
        note: what a reader of its numbers must know, for the tables.
    """

    model: Callable[..., Any]
    budgets: Mapping[str, Budget]
    variants: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    protocol: Recognition | Generation | None = None
    note: str = ""

    def model_for(self, profile: str) -> Callable[..., Any]:
        """The callable that is built in a profile."""
        return self.variants.get(profile, self.model)

    def departures(self, profile: str) -> list[str]:
        """How a profile differs from the original, the profile `paper`: a phrase for each setting."""
        if "paper" not in self.budgets:
            return []
        pairs = [
            (self.budgets[profile], self.budgets["paper"], ("steps_per_epoch", "grid_spacing", "images_per_class"))
        ]
        if dataclasses.is_dataclass(self.model) and type(self.model) is type(self.model_for(profile)):
            pairs.append((self.model_for(profile), self.model, ()))
        return [
            f"{field.name} {_number(getattr(here, field.name))} (original {_number(getattr(original, field.name))})"
            for here, original, harmless in pairs
            for field in dataclasses.fields(original)
            if field.name not in harmless and getattr(here, field.name) != getattr(original, field.name)
        ]


@dataclass(frozen=True)
class Band:
    """Where a number of ours is expected, given the published one. Declared before the runs.

    Args:
        absolute: largest difference.
        relative: largest difference as a share of the published number.
        below: a bound of ours, whatever was published.
    """

    absolute: float | None = None
    relative: float | None = None
    below: float | None = None

    def holds(self, ours: float, published: float) -> bool:
        """Whether ours lies in it."""
        difference = abs(ours - published)
        return (
            (self.absolute is None or difference <= self.absolute)
            and (self.relative is None or difference <= self.relative * abs(published))
            and (self.below is None or ours < self.below)
        )

    def text(self) -> str:
        """For people."""
        parts = []
        if self.absolute is not None:
            parts.append(f"within {self.absolute:g}")
        if self.relative is not None:
            parts.append(f"within {self.relative:.0%}")
        if self.below is not None:
            parts.append(f"below {self.below:g}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Experiment:
    """One experiment: a protocol and the models that are put through it.

    Args:
        name: the run folders' first level.
        title: one line for people.
        protocol: what is trained on and measured.
        models: name -> `Entry`.
        defaults: the models that run when none is named.
        published: model name -> metric -> published value, or {digit: value}, for the reports.
        published_on: the dataset the published values were measured on.
        published_curves: model name -> digit -> {parameter: published value}, for the figures.
        bands: metric -> `Band` of the published numbers.
        findings: model name -> column of the table ("p_out", "ratio_4") -> why ours lies outside its band, found by
            experiment.
        deviations: pairs (what differs from the original in every profile, why).
    """

    name: str
    title: str
    protocol: Recognition | Generation
    models: Mapping[str, Entry]
    defaults: tuple[str, ...]
    published: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    published_on: str = "mnist"
    published_curves: Mapping[str, Mapping[int, Mapping[float, float]]] = dataclasses.field(default_factory=dict)
    bands: Mapping[str, Band] = dataclasses.field(default_factory=dict)
    findings: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    deviations: tuple[tuple[str, str], ...] = ()


def _number(value) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_number, value)) + ")"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def describe_model(model: Callable[..., Any]) -> dict:
    """A JSON description of a model's callable: its fields if it is a dataclass, otherwise its name and a digest.

    The digest is that of the function's or class' own source; what it calls is not in it.
    """
    if dataclasses.is_dataclass(model):
        return {"builder": type(model).__name__, **dataclasses.asdict(model)}
    described = {"builder": getattr(model, "__qualname__", type(model).__qualname__)}
    with contextlib.suppress(OSError, TypeError):  # typed at a prompt, or a callable object
        described["source_sha256"] = hashlib.sha256(inspect.getsource(model).encode()).hexdigest()
    return described
