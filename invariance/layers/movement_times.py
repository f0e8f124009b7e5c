"""How far images are moved, from the numbers that a network is told."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from invariance.errors import require_positive
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class MovementTimes(layers.Layer):
    """Times for a `Flow`: a learnt linear function of the told parameters.

    Args:
        fields: number of times.
        circular: whether the told numbers are a point of the circle, (cos a, sin a); their parameter is then the
            angle a, from -pi to pi. Otherwise each number is a parameter.

    Input: (batch, numbers). Output: (batch, fields) float32.

    Raises:
        ValueError: if `fields` is not a positive integer, or the input has another shape.
    """

    def __init__(self, fields: int = 1, circular: bool = False, **kwargs: Any):
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.fields, self.circular = fields, circular
        require_positive(self, "fields")

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None or (self.circular and input_shape[-1] != 2):
            expected = "(batch, 2)" if self.circular else "(batch, numbers)"
            raise ValueError(f"Input must have the shape {expected}. Received: {tuple(input_shape)}")
        parameters = 1 if self.circular else input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(parameters, self.fields), initializer="zeros")
        self.built = True

    def parameters(self, numbers: Tensor) -> Tensor:
        """The told parameters: (batch, 1) angles in radians, or the numbers as they are."""
        numbers = ops.cast(numbers, "float32")
        return ops.arctan2(numbers[:, 1:2], numbers[:, :1]) if self.circular else numbers

    def call(self, numbers: Tensor) -> Tensor:
        return ops.matmul(self.parameters(numbers), self.kernel)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.fields)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fields": self.fields, "circular": self.circular}
