"""Recognition of transformed images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from invariance.errors import require_count
from invariance.progress import Progress
from invariance.ranges import Intervals, Ranges, extent, length, overlap
from invariance.schema import Amount, Count, Share, mapped, record
from invariance.tasks.columns import FARTHEST, IN, OUT, Column, Response, log_odds, share
from invariance.tasks.metrics import METRICS
from invariance.tasks.task import Evaluation, Task
from invariance.transforms import Shift
from invariance.wording import join

if TYPE_CHECKING:
    import numpy as np

    from invariance.datasets import Data


@dataclass(frozen=True)
class Recognition(Task):
    """Classification of transformed images, the restricted classes shown in a narrow range of parameters only.

    A model maps images (batch, height, width, channels) in [0, 1] to one score per class, (batch, classes).

    Args:
        transformation, ranges, excluded, inside, outside: see `Task`. (Under rotation, 6 and 9 are excluded because
            rotated ones look alike.)
        inverted: the range of P_inv, farthest from the training range of the restricted classes; P_inv is not measured
            if it is empty.
        max_shift: each time a training image is drawn, it is also shifted at random by up to this many whole pixels,
            vertically and horizontally. Test images are not.

    Raises:
        ValueError: see `Task`; also if ``outside`` or ``inverted`` overlaps the range of a restricted class.
    """

    inverted: Intervals = ()
    max_shift: int = 0

    name = "recognition"
    measurer = "classify"
    implied = "rotation"
    curve = "accuracy"
    told = "K0: labelled images"
    redrawn = True
    measures: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(METRICS, Share | None),
        "chance": Annotated[float, Meta(ge=1e-6, le=1)],
        "interval": dict[str, tuple[Share, Share] | None],
        "images": dict[str, Count],
        "never_answers": list[Count],
        "reconstruction": dict[str, Amount | None],
        "redraws": mapped(record("redraws", {"mean": Share, "variance": Amount, "redraws": Count}) | None),
        "applied_movement": mapped(record("applied", {"images": Count, "undone": float, "correlation": float})),
    }
    values = Share

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "max_shift")
        self._set_range("inverted", ())
        for label, shown in self.ranges.restricted.items():
            for name in ("outside", "inverted"):
                common = overlap(shown, getattr(self, name), self.transformation.period)
                if common > 0:
                    raise ValueError(
                        f"Argument `{name}` must lie outside the training range of class {label}. Received: "
                        f"{getattr(self, name)}, which shares {common:g} {self.transformation.unit} with {shown}"
                    )

    @property
    def farthest(self) -> Intervals:
        """The range farthest from the restricted classes' training range: that of P_inv or, without one, of P_out."""
        return self.inverted or self.outside

    @property
    def single_values(self) -> tuple[float, ...]:
        """The only parameters of a task that has no restricted classes and no interval; empty for all other tasks."""
        if self.restricted or length(self.ranges.default):
            return ()
        return tuple(low for low, _ in self.ranges.default)

    @property
    def extent(self) -> tuple[float, float]:
        return extent((super().extent,), self.inverted)

    def points(self, spacing: float | None) -> np.ndarray:
        """The single values if there are any, otherwise an even grid; see `Task.points`."""
        import numpy as np

        return np.array(self.single_values) if self.single_values else super().points(spacing)

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """(shape of transformed images, number of classes)"""
        return self.transformation.output_shape(image_shape), len(classes)

    def prepare(self, seed: int, classes: Sequence[int]) -> Callable:
        """See `Task.prepare`; inputs are images in [0, 1], targets (batch,) int32 the indices of the right outputs."""
        import numpy as np
        from keras import ops

        from invariance import random

        shift, shifts = Shift(), Ranges(((-self.max_shift, self.max_shift + 1),))
        output = np.zeros(max(classes) + 1, "int32")
        output[list(classes)] = range(len(classes))

        def prepare(images: Any, labels: Any, draws: Any) -> tuple:
            inputs = self.drawings(seed, images, labels, draws)
            if self.max_shift:
                inputs = shift.apply(inputs, shift.draw(shifts, seed, draws, labels, random.AUGMENTATION), self.fill)
            return inputs, ops.take(output, labels, axis=0)

        return prepare

    def moving(self, prepare: Callable, move: Callable) -> Callable:
        """Moves the images that are to be recognised; see `Task.moving`."""

        def moved(images: Any, labels: Any, draws: Any) -> tuple:
            inputs, targets = prepare(images, labels, draws)
            return move(inputs, draws), targets

        return moved

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        also = f", also shifted by up to {self.max_shift} pixels each way" if self.max_shift else ""
        return inputs, f"the first training images as the network sees them{also}"

    def require_outputs(self, model: Any, image_shape: tuple[int, ...], classes: Sequence[int]) -> None:
        from invariance.tasks.classify import Classifier

        Classifier(model, self, image_shape, len(classes))

    def evaluator(self, model: Any, images: np.ndarray, classes: Sequence[int]) -> Callable[[float], Any]:
        from invariance.tasks.classify import Classifier

        classifier = Classifier(model, self, images.shape[1:], len(classes))
        batches = classifier.batches(images)
        return lambda point: classifier.answers(batches, self.parameters_of(point, len(images)))

    def parameters_of(self, point: float, count: int) -> np.ndarray:
        """The parameters of ``count`` images at a point of the grid: (count,) or (count, dimensions), float32."""
        import numpy as np

        return self.transformation.parameters(np.full(count, point, "float32"))

    def orbit(self, copies: int) -> np.ndarray | None:
        """Parameters over the whole training range of the free classes; None if that is a single value."""
        shown = self.ranges.default
        return self.transformation.orbit(copies, shown) if length(shown) else None

    def measure_orbit(
        self,
        model: Any,
        data: Data,
        classes: Sequence[int],
        evaluation: Evaluation,
        progress: Progress | None = None,
    ) -> dict:
        """See `Task.measure_orbit` and `orbit_classifier.measure`."""
        from invariance.tasks import orbit_classifier

        return orbit_classifier.measure(self, model, data, classes, evaluation, progress)

    def columns(self, labels: Sequence[int]) -> tuple[Column, ...]:
        """One column per metric."""

        def reader(key: str) -> Callable[[Mapping], Any]:
            return lambda values: values.get(key)

        places = {"p_in": IN, "p_out": OUT, "p_inv": FARTHEST}
        return tuple(
            Column(key, each.title, reader(key), share, log_odds, places.get(key, "")) for key, each in METRICS.items()
        )

    def responses(self) -> tuple[Response, ...]:
        """Accuracy on the restricted classes, out of range and farthest from it."""

        def reader(key: str) -> Callable[[Mapping], Any]:
            return lambda metrics: metrics.get(key)

        ranges = {"p_out": self.outside, "p_inv": self.inverted}
        return tuple(
            Response(
                key,
                f"{METRICS[key].title} of {join(self.restricted)}",
                self.transformation.describe(pairs),
                reader(key),
                reader("chance"),
                "chance",
            )
            for key, pairs in ranges.items()
            if pairs
        )

    def remarks(self, metrics: Mapping) -> list[str]:
        counts = metrics.get("images") or {}
        if not counts.get("p_test"):
            return []
        restricted = f", {counts['p_in']:,} for the restricted classes" if counts.get("p_in") else ""
        texts = [
            f"Test images: {counts['p_test']:,} for P_test{restricted}; chance {share(metrics.get('chance'))}; "
            "95 % intervals over images, at most."
        ]
        if self.restricted:
            say = self.transformation.describe
            ranges = {"P_in": self.inside, "P_out": self.outside, "P_inv": self.inverted}
            texts.append("; ".join(f"{name}: {say(pairs)}" for name, pairs in ranges.items() if pairs) + ".")
        return texts

    def warnings(self, metrics: Mapping) -> list[str]:
        never, chance = metrics.get("never_answers"), metrics.get("chance")
        if not never:
            return []
        if chance and len(never) + 1 == round(1 / chance):
            return ["gives the same answer to every image"]
        return [f"never answers {join(never, 'or')}"]

    @property
    def required(self) -> Mapping[str, Any]:
        return {"p_test": self.measures["p_test"]}

    def pictures(self) -> Mapping[str, str]:
        by = self.transformation.parameter
        return {
            f"accuracy_by_{by}.png": f"Accuracy by {by}, one line per class",
            "map.png": "Accuracy on the restricted classes over both parameters",
            "taken_for.png": "What the restricted classes are taken for, farthest from their training range",
            "reconstructions_in_range.png": "Reconstructions in range",
            "reconstructions_inverted.png": "Reconstructions of restricted classes, farthest from their training range",
            f"reconstruction_by_{by}.png": f"Error of the reconstruction by {by}",
            f"learnt_{by}s.png": "How the network itself moves its input, free and restricted classes",
            **super().pictures(),
        }
