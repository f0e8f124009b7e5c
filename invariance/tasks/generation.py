"""Drawing transformed images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from invariance.errors import UserError
from invariance.ranges import centred, contains, length
from invariance.schema import Amount, Count, Label
from invariance.tasks.columns import IN, OUT, Column, Number, Response, error, ratio, share
from invariance.tasks.task import Evaluation, Task
from invariance.wording import join

if TYPE_CHECKING:
    import numpy as np


# Of each class.
_ERRORS = dict[Label, Amount]


@dataclass(frozen=True)
class Generation(Task):
    """Drawing of transformed images, the restricted classes shown in a narrow range of parameters only.

    A model maps upright images (batch, height, width, channels) in [-1, 1] and encoded parameters (batch, numbers) to
    the transformed images. Its mean squared errors are averaged over ``inside`` as mse_in and over ``outside`` as
    mse_out.
    """

    name = "generation"
    measurer = "draw"
    curve = "mean squared error"
    told = "K2: the parameter as a number"
    logarithmic = True
    fill = -1.0
    # Whether images can be encoded once and drawn at every parameter.
    encodes: ClassVar[bool] = True
    # What figures show above, or beside, the drawn images: see `beside`.
    above: ClassVar[str] = "expected"
    measures: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(("mse_in", "mse_out", "ratio"), _ERRORS),
        "mse_between": Annotated[_ERRORS, Meta(min_length=1)],
        "ratio_others": tuple[Amount, Amount],
        "unblurred": dict[str, _ERRORS],
        "baselines": dict[str, dict[str, _ERRORS]],
        "images": dict[str, Count],
    }

    def points(self, spacing: float | None) -> np.ndarray:
        """The grid, the transformation's unblurred points, and single values of the averages' ranges."""
        import numpy as np

        single = [
            low for low, high in centred((*self.inside, *self.outside), self.transformation.period) if low == high
        ]
        points = np.union1d(super().points(spacing), [*self.transformation.unblurred, *single])
        self.averaged(points)
        return points

    @property
    def discrete(self) -> bool:
        """Whether training draws single values of the parameter only, so that there is something between them."""
        return not any(map(length, self.ranges.all))

    @property
    def usual_spacing(self) -> float | None:
        return None

    def averaged(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """The points that each average includes: {"mse_in", "mse_out": (points,) booleans}.

        Unblurred points are in neither. Both ends of the ranges are included, unless values are whole: an interval of
        `inside` then contains those that are drawn from it. No point is in both averages. A `discrete` task also has
        "mse_between", of all points at which no class was trained.

        Raises:
            ValueError: if one of the averages includes no point.
        """
        import numpy as np

        kind = self.transformation
        blurred = ~np.isin(points, kind.unblurred)
        inside = contains(self.inside, points, kind.period, closed=not kind.whole)
        outside = contains(self.outside, points, kind.period, closed=True) & ~inside
        chosen = {"mse_in": inside & blurred, "mse_out": outside & blurred}
        if self.discrete:
            trained = [contains(pairs, points, kind.period) for pairs in (*self.ranges.all, self.inside, self.outside)]
            chosen["mse_between"] = blurred & ~np.any(trained, axis=0)
        for name, mask in chosen.items():
            if not mask.any():
                raise ValueError(
                    f"no point of the evaluation's grid lies in the range of {name}; a finer grid is needed"
                )
        return chosen

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """(image_shape, shape of the drawn images, number of encoded parameters)"""
        return tuple(image_shape), self.transformation.output_shape(image_shape), self.transformation.numbers

    def prepare(self, seed: int, classes: Sequence[int]) -> Callable:
        """See `Task.prepare`.

        Inputs are a pair (upright images in [-1, 1], encoded parameters (batch, numbers)); targets are the transformed
        images.
        """

        def prepare(images: Any, labels: Any, draws: Any) -> tuple:
            upright = self.pixels(images)
            parameters = self.transformation.draw(self.drawn, seed, draws, labels)
            return self.given(upright, parameters), self.expected(upright, parameters)

        return prepare

    def given(self, upright: Any, parameters: Any) -> Any:
        """What a model is given, to draw images (batch, ...), or their codes, at parameters (batch, ...)."""
        return upright, self.transformation.encode(parameters)

    def expected(self, upright: Any, parameters: Any) -> Any:
        """What it is to draw, (batch, *output_shape) in [-1, 1], of images in [-1, 1]."""
        return self.transformation.apply(upright, parameters, self.fill)

    def unchanged(self, upright: Any, parameters: Any) -> Any:
        """The image that it is given, on the canvas: what it would draw if it changed nothing."""
        from keras import ops

        return self.transformation.apply(upright, ops.full_like(parameters, self.transformation.identity), self.fill)

    def beside(self, upright: Any, parameters: Any) -> Any:
        """The images that figures show with the drawn ones."""
        return self.expected(upright, parameters)

    def pairs(self, seed: int, images: Any, labels: Any, draws: Any) -> tuple[Any, Any]:
        """The upright image on the canvas, and its drawing; see `Task.pairs`."""
        from keras import ops

        upright = self.pixels(images) * 0.5 + 0.5
        identity = ops.zeros_like(self.transformation.draw(self.drawn, seed, draws, labels))
        first = self.transformation.apply(upright, identity + self.transformation.identity)
        return first, self.drawings(seed, images, labels, draws)

    @staticmethod
    def pixels(images: Any) -> Any:
        """Maps uint8 images to float32 in [-1, 1]."""
        from keras import ops

        return ops.cast(images, "float32") / 127.5 - 1.0

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        import numpy as np

        return (np.asarray(targets) + 1.0) / 2.0, "the first training images, to be drawn by the network"

    def require_outputs(self, model: Any, image_shape: tuple[int, ...], classes: Sequence[int]) -> None:
        from invariance.tasks.draw import Autoencoding

        Autoencoding(model, self, image_shape)

    def evaluator(self, model: Any, images: np.ndarray, classes: Sequence[int]) -> Callable[[float], Any]:
        import numpy as np

        from invariance.tasks.draw import Autoencoding, EncodedImages

        encoded = EncodedImages(Autoencoding(model, self, images.shape[1:]), images)
        return lambda point: encoded.errors(self.transformation.parameters(np.array([point]))[0])

    def check(self, evaluation: Evaluation) -> None:
        if evaluation.pixels != Evaluation.pixels:
            raise UserError("pixels: models that draw always get pixels in [-1, 1]")
        super().check(evaluation)

    def columns(self, labels: Sequence[int]) -> tuple[Column, ...]:
        """Errors in and out of range and their ratio for each label, and the range of ratios of all other classes.

        For tasks with single values, also the lowest and highest error of a class between them.
        """
        digits = [str(label) for label in labels]

        def reader(key: str, digit: str) -> Callable[[Mapping], Any]:
            return lambda values: (values.get(key) or {}).get(digit)

        def others(values: Mapping) -> Number:
            if known := values.get("ratio_others"):
                return known if isinstance(known, str) else tuple(known)
            rest = [value for digit, value in (values.get("ratio") or {}).items() if digit not in digits]
            return (min(rest), max(rest)) if rest else None

        def between(values: Mapping) -> Number:
            known = values.get("mse_between")
            return known if known is None or isinstance(known, str) else (min(known.values()), max(known.values()))

        kinds = (("mse_in", "in", error, IN), ("mse_out", "out", error, OUT), ("ratio", "out/in", ratio, ""))
        own = [
            Column(f"{key}_{digit}", f"{digit} {title}", reader(key, digit), form, place=place)
            for digit in digits
            for key, title, form, place in kinds
        ]
        return (
            *own,
            Column("ratio_others", "others out/in", others, ratio),
            Column("mse_between", "all between", between, share),
        )

    def responses(self) -> tuple[Response, ...]:
        """Error on the restricted classes out of range, and how many times as large as in range it is."""
        digits = [str(label) for label in self.restricted]

        def reader(key: str, *within: str) -> Callable[[Mapping], Any]:
            def read(metrics: Mapping) -> float | None:
                for name in (*within, key):
                    metrics = metrics.get(name) or {}
                values = [metrics[digit] for digit in digits if digit in metrics]
                return sum(values) / len(values) if values else None

            return read

        who, where = join(digits), self.transformation.describe(self.outside)
        mean = reader("mse_out", "baselines", "mean image of the digit")
        return (
            Response(
                "mse_out",
                f"mean squared error of {who}",
                where,
                reader("mse_out"),
                mean,
                "mean image of the digit",
                True,
            ),
            Response(
                "ratio",
                f"error of {who}, out / in",
                where,
                reader("ratio"),
                lambda metrics: 1.0,
                "as good as in range",
                True,
            ),
        )

    def remarks(self, metrics: Mapping) -> list[str]:
        number = sum((metrics.get("images") or {}).values())
        return [
            f"Mean squared errors of drawn images, pixels in [-1, 1], {number:,} test images: in and out of the range "
            "of the restricted classes, and their ratio, out/in."
        ]

    def summary(self, ratios: Mapping[str, float]) -> str:
        """The restricted classes' ratios and the range of the others', in one line."""
        free = [value for label, value in ratios.items() if int(label) not in self.restricted]
        texts = [f"{label}: out/in {ratios[str(label)]:.2f}" for label in self.restricted if str(label) in ratios]
        texts = [", ".join(texts)] if texts else []
        if free:
            texts.append(f"{'others' if texts else 'all classes: out/in'} {min(free):.2f} to {max(free):.2f}")
        return "; ".join(texts)

    @property
    def required(self) -> Mapping[str, Any]:
        return dict.fromkeys(("mse_in", "mse_out", "ratio"), _ERRORS)

    def pictures(self) -> Mapping[str, str]:
        return {
            "error_by_parameter.png": f"Error of drawn images by {self.transformation.parameter}, one line per class",
            "pairs.png": f"{self.above.capitalize()} and drawn images",
            "map.png": "Error over both parameters",
            **super().pictures(),
        }
