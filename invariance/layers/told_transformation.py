"""Transforms images by parameters that it derives from told numbers."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from invariance import xla
from invariance.transforms import Transformation, transformation_from_json
from invariance.typing import Shape, Tensor


def _transformed(images: Tensor, numbers: Tensor, transformation: Transformation, fill: float) -> Tensor:
    return transformation.apply(images, transformation.decode(numbers), fill)


@keras.saving.register_keras_serializable(package="invariance")
class ToldTransformation(layers.Layer):
    """A known transformation whose parameters are a learnt function of told numbers.

    The numbers n become W n + b, which is taken to encode the parameters: for a rotation, W n + b is a point in the
    plane, and its direction the angle. In the beginning W is zero and b encodes the identity, so that images stay as
    they are. Small parameters, for which the gradient of a warp points the right way, are then learnt first; a random W
    may begin near a rotation by 180 degrees, where many digits resemble themselves.

    Args:
        transformation: of the images.
        fill: value outside the images.

    Input: [images (batch, height, width, channels), numbers (batch, transformation.numbers)].
    Output: (batch, *output_shape) float32.

    Raises:
        ValueError: if the input has another shape.
    """

    def __init__(self, transformation: Transformation, fill: float = -1.0, **kwargs: Any):
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.transformation, self.fill = transformation, fill

    def build(self, input_shape: Any) -> None:
        images, numbers = input_shape
        size = self.transformation.numbers
        if len(images) != 4 or None in images[1:] or len(numbers) != 2 or numbers[-1] != size:
            raise ValueError(
                f"Input must be images (batch, height, width, channels) and numbers (batch, {size}). "
                f"Received: shapes {tuple(images)} and {tuple(numbers)}"
            )
        self.kernel = self.add_weight(name="kernel", shape=(size, size), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(size,), initializer=self._unchanged)
        self.built = True

    def _unchanged(self, shape: Shape, dtype: Any = None) -> Tensor:
        """What encodes the identity, (numbers,)."""
        kind = self.transformation
        identity = ops.full((1,) if kind.dimensions == 1 else (1, kind.dimensions), kind.identity, "float32")
        return ops.cast(kind.encode(identity)[0], dtype or "float32")

    def call(self, inputs: Any) -> Tensor:
        images, numbers = (ops.cast(each, "float32") for each in inputs)
        tensors = images, ops.matmul(numbers, self.kernel) + self.bias
        return xla.compiled_with_gradient(_transformed, tensors, self.transformation, self.fill)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        images, _ = input_shape
        return (images[0], *self.transformation.output_shape(tuple(images[1:])))

    def get_config(self) -> dict[str, Any]:
        described = {"name": self.transformation.name, **self.transformation.to_json()}
        return {**super().get_config(), "transformation": described, "fill": self.fill}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ToldTransformation:
        described = dict(config["transformation"])
        transformation, _ = transformation_from_json(described.pop("name"), described)
        return cls(**{**config, "transformation": transformation})
