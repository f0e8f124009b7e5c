"""Rotates pairs of code numbers by angles that are linear in given parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class BlockRotation(layers.Layer):
    """Rotates each pair of code numbers by an angle that is linear in the parameters: a linear group action on codes.

    Pair b consists of the numbers (u, v) = (z_b, z_(b + blocks)) of a code z. With frequencies w and parameters t,

        phi_b = sum_p w_bp t_p
        (u, v) -> (u cos phi_b - v sin phi_b, u sin phi_b + v cos phi_b)

    Parameters t and then s act as t + s, zero leaves a code unchanged, and no parameter changes a code's length. A pair
    of frequency zero is invariant. Every continuous action of such parameters by orthogonal matrices has this form in
    some basis, apart from single invariant numbers.

    Args:
        frequencies: (blocks, parameters), in radians per unit of the parameter; (blocks,) for a single parameter.
        circular: whether each parameter is an angle and given by two numbers, (cos t, sin t). Its frequencies should
            then be whole numbers: the angle has a jump at 180 degrees.
        learnt: whether the frequencies are learnt, from the given ones on.

    Input: [codes (batch, ..., 2 blocks), parameters (batch, numbers)]. Circular parameters take two numbers each,
        (cos t_1, sin t_1, cos t_2, ...).
    Output: (batch, ..., 2 blocks) float32, also in mixed precision: large phases need all bits.

    Raises:
        ValueError: if frequencies are not such a matrix of finite numbers, or the input has another shape.

    Reference: Cohen and Welling, "Learning the irreducible representations of commutative Lie groups" (2014).
    """

    def __init__(self, frequencies: Iterable[Any], circular: bool = False, learnt: bool = False, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        matrix = _matrix(frequencies)
        self.frequencies = [tuple(row) for row in matrix.tolist()]
        self.circular, self.learnt = circular, learnt
        self.blocks, self.parameters = matrix.shape
        self.numbers = 2 * self.parameters if circular else self.parameters

    def build(self, input_shape: Any) -> None:
        codes, numbers = map(tuple, input_shape)
        if len(codes) < 2 or len(numbers) != 2 or codes[-1] != 2 * self.blocks or numbers[1] != self.numbers:
            raise ValueError(
                f"Input must be codes (batch, ..., {2 * self.blocks}) and parameters (batch, {self.numbers}). "
                f"Received: shapes {codes} and {numbers}"
            )
        # Constants are no weights: get_config holds them.
        self.matrix = np.array(self.frequencies, "float32").T
        if self.learnt:
            self.matrix = self.add_weight(
                name="frequencies",
                shape=(self.parameters, self.blocks),
                initializer=lambda shape, dtype=None: ops.convert_to_tensor(np.array(self.frequencies).T, dtype),
            )
        self.built = True

    def phases(self, numbers: Tensor) -> Tensor:
        """The angles of rotation, (batch, blocks) in radians, of parameters (batch, numbers)."""
        if self.circular:
            # (batch, 2 parameters) -> (batch, parameters)
            numbers = ops.arctan2(numbers[:, 1::2], numbers[:, ::2])
        return ops.matmul(numbers, self.matrix)

    def call(self, inputs: Any) -> Tensor:
        codes, numbers = inputs
        first, second = codes[..., : self.blocks], codes[..., self.blocks :]
        # (batch, blocks) -> (batch, 1, ..., 1, blocks)
        phases = ops.reshape(self.phases(numbers), (-1, *(1,) * (len(codes.shape) - 2), self.blocks))
        cosine, sine = ops.cos(phases), ops.sin(phases)
        return ops.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "frequencies": self.frequencies,
            "circular": self.circular,
            "learnt": self.learnt,
        }


def _matrix(frequencies: Iterable[Any]) -> np.ndarray:
    """Frequencies as (blocks, parameters) float64."""
    given = list(frequencies)
    try:
        matrix = np.array(given, "float64")
    except (TypeError, ValueError):
        matrix = np.empty(0)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(
            f"Argument `frequencies` must be finite numbers, (blocks,) or (blocks, parameters). Received: {given!r}"
        )
    return matrix
