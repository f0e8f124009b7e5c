"""Moves images along vector fields that it owns."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.polynomial import legendre

from invariance import xla
from invariance.errors import require_positive
from invariance.typing import Shape, Tensor
from invariance.warp import warp


def integrated(fields: Tensor, times: Tensor, halvings: int, margin: int) -> Tensor:
    """The displacement of each pixel along vector fields, by scaling and squaring.

    Args:
        fields: (fields, height + 2 margin, width + 2 margin, 2).
        times: (batch, fields).
        halvings: the integration begins with steps of 2 ** -halvings of the time.
        margin: of the fields around the image, in pixels.

    Returns:
        (batch, height, width, 2), rows and columns in pixels.
    """
    height, width = fields.shape[1:3]
    rows = ops.arange(height, dtype="float32")[None, :, None]
    columns = ops.arange(width, dtype="float32")[None, None, :]

    def at(places: Tensor, values: Tensor) -> Tensor:
        """The values where displacements lead to."""
        at_rows = ops.clip(rows + places[..., 0], 0.0, height - 1.0)
        at_columns = ops.clip(columns + places[..., 1], 0.0, width - 1.0)
        return warp(values, at_rows, at_columns)

    # (batch, fields) x (fields, height, width, 2) -> (batch, height, width, 2)
    step = ops.tensordot(times, fields, 1) * 2.0**-halvings
    # The first step is a midpoint step, of second order. The others are a loop in the graph: XLA would compile unrolled
    # compositions into one that repeats their work many times.
    start = at(step / 2.0, step)
    if keras.backend.backend() == "jax":
        # Its while_loop has no gradient.
        moved = ops.fori_loop(0, halvings, lambda _, moved: moved + at(moved, moved), start)
    else:
        _, moved = ops.while_loop(
            lambda done, moved: done < halvings,
            lambda done, moved: (done + 1, moved + at(moved, moved)),
            (0, start),
            maximum_iterations=halvings,
        )
    inner = slice(margin, -margin)
    return moved[:, inner, inner]


def displaced(images: Tensor, displacements: Tensor, cubic: bool) -> Tensor:
    """Images that show at each pixel what they show at its displacement (batch, height, width, 2)."""
    height, width = images.shape[1:3]
    rows = ops.arange(height, dtype="float32")[None, :, None] + displacements[..., 0]
    columns = ops.arange(width, dtype="float32")[None, None, :] + displacements[..., 1]
    return warp(images, rows, columns, cubic=cubic)


def _moved(images: Tensor, fields: Tensor, times: Tensor, halvings: int, margin: int, cubic: bool) -> Tensor:
    return displaced(images, integrated(fields, times, halvings, margin), cubic)


@keras.saving.register_keras_serializable(package="invariance")
class Flow(layers.Layer):
    """Moves images along smooth vector fields, from which all movements follow by integration.

    With times t_j and fields v_j, the moved image shows at a point p what the image shows at phi(p), where phi is the
    flow of the field v = sum_j t_j v_j after a unit of time. Moving by t and then by s along one field is moving by
    t + s, up to interpolation.

    A field is a polynomial of the point's coordinates with learnt coefficients, so that it also has values where no
    image has ink. Terms of higher degree begin at zero and are learnt more slowly (see `scales`): what the images leave
    open is smooth. Nothing in the layer knows which transformation it is going to learn.

    Args:
        fields: number of vector fields, that is, of parameters of the movement.
        degree: of the polynomials, in both coordinates together.
        seed: of the initial coefficients, drawn from a normal distribution.
        cubic: whether moved images are interpolated by cubic convolution, which blurs less, or bilinearly.

    Input: [images (batch, height, width, channels), times (batch, fields)].
    Output: (batch, height, width, channels) float32.

    Raises:
        ValueError: if an argument is not a positive integer, or the input has another shape.

    References: Rao and Ruderman, "Learning Lie groups for invariant visual perception" (1999), for learning a
        transformation from its infinitesimal generator; Arsigny et al., "A log-Euclidean framework for statistics on
        diffeomorphisms" (2006), for the integration by scaling and squaring.
    """

    # The integration begins with steps of 2 ** -HALVINGS of the time.
    HALVINGS = 7

    def __init__(self, fields: int = 1, degree: int = 5, seed: int = 0, cubic: bool = True, **kwargs: Any):
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.fields, self.degree, self.seed, self.cubic = fields, degree, seed, cubic
        require_positive(self, "fields", "degree")

    def build(self, input_shape: Any) -> None:
        images, times = input_shape
        if len(images) != 4 or None in images[1:] or len(times) != 2 or times[-1] != self.fields:
            raise ValueError(
                f"Input must be images (batch, height, width, channels) and times (batch, {self.fields}). "
                f"Received: shapes {tuple(images)} and {tuple(times)}"
            )
        self.size = tuple(images[1:3])
        # Movements leave the image and return, so the fields are needed around it, too.
        self.margin = math.ceil(0.25 * max(self.size))
        height, width = (side + 2 * self.margin for side in self.size)
        terms = [(i, j) for i in range(self.degree + 1) for j in range(self.degree + 1 - i)]
        self.scales = np.array([1.0 / (1 + i + j) ** 2 for i, j in terms], "float32")
        half = max(self.size) / 2.0
        rows, columns = ((np.arange(side) - (side - 1) / 2.0) / half for side in (height, width))
        # (terms, padded height, padded width)
        self.terms = np.stack(
            [
                np.outer(legendre.legval(rows, np.eye(i + 1)[i]), legendre.legval(columns, np.eye(j + 1)[j]))
                for i, j in terms
            ]
        ).astype("float32")
        self.coefficients = self.add_weight(
            name="coefficients",
            shape=(self.fields, 2, len(terms)),
            initializer=keras.initializers.RandomNormal(stddev=0.1, seed=self.seed),
        )
        self.built = True

    def padded_fields(self) -> Tensor:
        """The fields around the image, too: (fields, height + 2 margin, width + 2 margin, 2)."""
        scaled = self.coefficients * self.scales
        # (fields, 2, terms) x (terms, height, width) -> (fields, height, width, 2)
        return ops.transpose(ops.tensordot(scaled, self.terms, 1), (0, 2, 3, 1))

    def vector_fields(self) -> Tensor:
        """The fields on the image: (fields, height, width, 2), (rows, columns) in pixels per unit of time."""
        inner = slice(self.margin, -self.margin)
        return self.padded_fields()[:, inner, inner]

    def displacements(self, times: Tensor) -> Tensor:
        """phi(p) - p for each pixel p of the image.

        Args:
            times: (batch, fields).

        Returns:
            (batch, height, width, 2), rows and columns in pixels.
        """
        return integrated(self.padded_fields(), ops.cast(times, "float32"), self.HALVINGS, self.margin)

    def move(self, images: Tensor, displacements: Tensor) -> Tensor:
        """The images moved by displacements (batch, height, width, 2), see `displacements`."""
        return displaced(images, displacements, self.cubic)

    def call(self, inputs: Any) -> Tensor:
        images, times = (ops.cast(each, "float32") for each in inputs)
        tensors = (images, self.padded_fields(), times)
        return xla.compiled_with_gradient(_moved, tensors, self.HALVINGS, self.margin, self.cubic)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        own = {"fields": self.fields, "degree": self.degree, "seed": self.seed, "cubic": self.cubic}
        return {**super().get_config(), **own}
