"""Drawing the untransformed images of transformed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from invariance.tasks.generation import Generation


@dataclass(frozen=True)
class Compensation(Generation):
    """`Generation` the other way round: a model is given transformed images and is to draw the untransformed ones.

    It maps images (batch, height, width, channels) in [-1, 1] to images of the same shape; the parameter is not told.
    Ranges and averages are about the parameters of the images that it is given.

    Raises:
        ValueError: also if the transformation changes the size of images.
    """

    name = "compensation"
    told = "K1: which drawings show the same image, one of them untransformed"
    encodes = False
    above = "given"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transformation.output_shape((1, 1, 1)) != (1, 1, 1):
            raise ValueError(
                "Argument `transformation` must keep the size of images, for they are compared. "
                f"Received: {self.transformation!r}"
            )

    def arguments(self, image_shape: tuple[int, ...], classes: Sequence[int]) -> tuple:
        """(shape of the given images, shape of the untransformed images, 0: nothing is told)"""
        return tuple(image_shape), tuple(image_shape), 0

    def given(self, upright: Any, parameters: Any) -> Any:
        return self.transformation.apply(upright, parameters, self.fill)

    def expected(self, upright: Any, parameters: Any) -> Any:
        return upright

    def unchanged(self, upright: Any, parameters: Any) -> Any:
        return self.given(upright, parameters)

    def beside(self, upright: Any, parameters: Any) -> Any:
        return self.given(upright, parameters)

    def shown(self, inputs: Any, targets: Any) -> tuple[Any, str]:
        return super().shown(targets, inputs)[0], "the first training images, as given to the network"
