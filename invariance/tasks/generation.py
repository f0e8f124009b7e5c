"""Generation of transformed images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariance.errors import UserError
from invariance.progress import Progress
from invariance.ranges import contains
from invariance.tasks.columns import Column, ratio, share
from invariance.tasks.task import Evaluation, Measured, Task

if TYPE_CHECKING:
    import numpy as np

    from invariance.datasets import Data


@dataclass(frozen=True)
class Generation(Task):
    """Drawing of transformed images, some classes shown in a narrow range of parameters only.

    A model is given the upright image, pixels in [-1, 1], and the encoded parameters; its target is the transformed
    image. ``inside`` and ``outside`` are the parameters whose mean squared errors are averaged as mse_in and mse_out,
    ends included.
    """

    name = "generation"
    curve = "mean squared error"
    logarithmic = True
    fill = -1.0

    def points(self, spacing: float | None) -> np.ndarray:
        """The grid and the points at which nothing is blurred, see `Task.points`."""
        import numpy as np

        points = np.union1d(super().points(spacing), self.transformation.unblurred)
        self.averaged(points)
        return points

    @property
    def usual_spacing(self) -> float | None:
        return None

    def averaged(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Which points each average is taken over: {"mse_in", "mse_out": (points,) booleans}.

        Points at which nothing is blurred are in neither.

        Raises:
            ValueError: if none of the points is in range, or none out of range.
        """
        import numpy as np

        blurred = ~np.isin(points, self.transformation.unblurred)
        chosen = {
            name: contains(pairs, points, self.transformation.period, closed=True) & blurred
            for name, pairs in (("mse_in", self.inside), ("mse_out", self.outside))
        }
        for name, mask in chosen.items():
            if not mask.any():
                raise ValueError(
                    f"no point of the evaluation's grid lies in the range of {name}; a finer grid is needed"
                )
        return chosen

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """(image_shape, shape of the images to be drawn, how many numbers tell the parameters)"""
        return tuple(image_shape), self.transformation.output_shape(image_shape), self.transformation.numbers

    def prepare(self, seed: int, classes: Sequence[int]) -> Callable:
        """See `Task.prepare`.

        Inputs are (upright images in [-1, 1], encoded parameters (batch, numbers)), targets the transformed images.
        """

        def prepare(images: Any, labels: Any, draws: Any) -> tuple:
            upright = self.pixels(images)
            parameters = self.transformation.draw(self.ranges, seed, draws, labels)
            told = self.transformation.encode(parameters)
            return (upright, told), self.transformation.apply(upright, parameters, self.fill)

        return prepare

    @staticmethod
    def pixels(images: Any) -> Any:
        """uint8 images as networks get them: float32 in [-1, 1]."""
        from keras import ops

        return ops.cast(images, "float32") / 127.5 - 1.0

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        import numpy as np

        return (np.asarray(targets) + 1.0) / 2.0, "the first training images, to be drawn by the network"

    def require_outputs(self, model: Any, image_shape: tuple[int, ...], classes: Sequence[int]) -> None:
        from invariance.tasks.draw import Autoencoding

        Autoencoding(model, self, image_shape).check()

    def evaluator(self, model: Any, images: np.ndarray, classes: Sequence[int]) -> Callable[[float], Any]:
        import numpy as np

        from invariance.tasks.draw import Autoencoding, EncodedImages

        encoded = EncodedImages(Autoencoding(model, self, images.shape[1:]), images)
        return lambda point: encoded.errors(self.transformation.parameters(np.array([point]))[0])

    def check(self, evaluation: Evaluation) -> None:
        if evaluation.redraws:
            raise UserError("--redraws: only recognition is measured with random parameters")
        super().check(evaluation)

    def measure(
        self,
        model: Any,
        data: Data,
        classes: Sequence[int],
        evaluation: Evaluation,
        progress: Progress | None = None,
    ) -> Measured:
        """Measures a model that draws: see `Task.measure` and `draw.measure`."""
        from invariance.tasks import draw

        self.check(evaluation)
        return draw.measure(self, model, data, classes, evaluation, progress)

    def columns(self, labels: Sequence[int]) -> tuple[Column, ...]:
        """Errors in and out of range and their ratio for each label, and the range of the others' ratios."""
        digits = [str(label) for label in labels]

        def reader(key: str, digit: str) -> Callable[[Mapping], Any]:
            return lambda values: (values.get(key) or {}).get(digit)

        def others(values: Mapping) -> tuple[float, float] | None:
            if "ratio_others" in values:
                return tuple(values["ratio_others"])
            rest = [value for digit, value in (values.get("ratio") or {}).items() if digit not in digits]
            return (min(rest), max(rest)) if rest else None

        kinds = (("mse_in", "in", share), ("mse_out", "out", share), ("ratio", "out/in", ratio))
        own = [
            Column(f"{key}_{digit}", f"{digit} {title}", reader(key, digit), form)
            for digit in digits
            for key, title, form in kinds
        ]
        return (*own, Column("ratio_others", "others out/in", others, ratio))

    def remarks(self, metrics: Mapping) -> list[str]:
        number = sum((metrics.get("images") or {}).values())
        return [
            f"Mean squared errors of drawn images, pixels in [-1, 1], {number:,} test images: in and out of the range "
            "of the restricted classes, and their ratio, out/in."
        ]

    def summary(self, ratios: Mapping[str, float]) -> str:
        """Ratios in one line: each restricted class', and the lowest and highest of the others."""
        free = [value for label, value in ratios.items() if int(label) not in self.restricted]
        texts = [f"{label}: out/in {ratios[str(label)]:.2f}" for label in self.restricted if str(label) in ratios]
        texts = [", ".join(texts)] if texts else []
        if free:
            texts.append(f"{'others' if texts else 'all classes: out/in'} {min(free):.2f} to {max(free):.2f}")
        return "; ".join(texts)

    def require_metrics(self, metrics: Mapping) -> None:
        for key in ("mse_in", "mse_out", "ratio"):
            if key not in metrics:
                raise ValueError(f"lacks {key}")
            value = metrics[key]
            if not isinstance(value, Mapping) or not all(
                isinstance(each, (int, float)) and not isinstance(each, bool) and each >= 0 for each in value.values()
            ):
                raise ValueError(f"{key} is not an object of errors")
        if not isinstance(metrics.get("images", {}), Mapping):
            raise ValueError("images: not an object")

    def pictures(self) -> Mapping[str, str]:
        return {
            "error_by_parameter.png": f"Error of drawn images by {self.transformation.parameter}, one line per class",
            "pairs.png": "Expected and drawn images",
            "map.png": "Error over both parameters",
        }
