"""Estimates the vector fields of a `Flow` from pairs of images, by least squares."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from invariance import xla
from invariance.layers.flow import Flow
from invariance.typing import Tensor

# A pair whose difference is explained except for this share counts half as much as one that is fully explained.
_HALF_WEIGHT = 0.1
# Weights of earlier batches fall by this factor with each batch.
_MEMORY = 0.9
# Of the mean eigenvalue of the normal equations.
_RIDGE = 1e-3


def blurred(images: Tensor) -> Tensor:
    """Images blurred by the binomial filter of nine taps in both directions, about as far as gradients must reach."""
    rows, columns = (_blurring(side) for side in images.shape[1:3])
    # As matrix products, which are as fast in XLA as outside; XLA's convolutions are not.
    return tf.einsum("ij,njkc,lk->nilc", rows, images, columns)


def _blurring(side: int) -> np.ndarray:
    """The blur of a line as a matrix, (side, side)."""
    taps = np.poly1d([1.0, 1.0]) ** 8 / 256.0
    return sum(tap * np.eye(side, k=offset) for offset, tap in enumerate(taps.coeffs, -4)).astype("float32")


def squares(images: Tensor) -> Tensor:
    """The sum of squares of each image, (batch,)."""
    return tf.reduce_sum(tf.square(images), (1, 2, 3))


class FlowEstimator(keras.Model):
    """Learns the fields of a flow from pairs of images that differ by a small movement.

    The difference of a pair is b - a = sum_j t_j (gradient of the image) . v_j, to first order. Given the fields v, the
    times t of each pair follow from least squares; given the times, the coefficients of the fields do. A training step
    alternates between the two. The normal equations of the coefficients are running sums over the batches. Pairs that
    the fields do not explain (two drawings of a 0 may be alike at angles far apart) have small weights.

    With ``refine``, differences are taken between images that the present flow moves towards each other, until nothing
    is left for the times to explain. What is then left corrects the fields, also for movements too large for the first
    order.

    Args:
        flow: a built `Flow`.
        nearest: share of the batch's pairs, those that differ least, that are used.
        refine: see above.

    Fields have a root mean square of one pixel per unit of time after each update; see `normalise`.

    ``train_step`` takes ((first, second), anything): images (batch, height, width, channels) in [0, 1]. It logs the
    ``residual``, the mean share of the pairs' differences that is not explained.

    References: Miao and Rao, "Learning the Lie groups of visual invariance" (2007), for alternating between times and
        fields; Lucas and Kanade, "An iterative image registration technique" (1981), for the refinement.
    """

    # Times a step alternates between times and fields.
    ALTERNATIONS = 5
    # Updates of the times in a refinement.
    ITERATIONS = 3
    # Share of a refinement's correction that is applied at once.
    DAMPING = 0.6

    def __init__(self, flow: Flow, nearest: float, *, refine: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.flow, self.nearest, self.refine = flow, nearest, refine
        size = flow.fields * 2 * len(flow.scales)
        self.matrix = self.add_weight(name="matrix", shape=(size, size), initializer="zeros", trainable=False)
        self.right_side = self.add_weight(name="right_side", shape=(size,), initializer="zeros", trainable=False)
        self.residual = keras.metrics.Mean(name="residual")
        # Compiled once, outside any trace.
        self._move = xla.compiled(lambda images, times: flow([images, times]))
        self.built = True
        self.compile()

    def train_step(self, data: Any) -> dict[str, Any]:
        (first, second), _ = data
        first, second = self._nearest(first, second)
        self.residual.update_state(self._refine(first, second) if self.refine else self._update(first, second))
        return {"residual": self.residual.result()}

    @property
    def metrics(self) -> list[Any]:
        return [self.residual]

    def _nearest(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs that differ least, relative to their ink."""
        distances = squares(second - first) / (squares(first) + 1e-6)
        count = max(1, round(self.nearest * first.shape[0]))
        _, chosen = tf.math.top_k(-distances, count)
        return tf.gather(first, chosen), tf.gather(second, chosen)

    def _update(self, first: Tensor, second: Tensor) -> Tensor:
        first, second = blurred(first), blurred(second)
        products, projections = self._equations((first + second) / 2.0, second - first)
        total = squares(second - first)
        earlier, earlier_side = _MEMORY * self.matrix, _MEMORY * self.right_side
        for _ in range(self.ALTERNATIONS):
            times, explained = self._times(products, projections)
            ratios = 1.0 - explained / (total + 1e-9)
            matrix, right_side = self._sums(products, projections, times, self._weights(ratios, total))
            self.matrix.assign(earlier + matrix)
            self.right_side.assign(earlier_side + right_side)
            self._assign(self._solved(self.right_side.value))
        return tf.reduce_mean(ratios)

    def _refine(
        self, first: Tensor, second: Tensor, times: Tensor | None = None, weights: Tensor | float = 1.0
    ) -> Tensor:
        """Corrects the fields by what remains of the difference after moving by ``times``, which are improved first.

        Pairs count by ``weights`` (pairs,), too.
        """
        flow, count = self.flow, first.shape[0]
        both, total = tf.concat([first, second], 0), squares(blurred(second - first))
        times = tf.zeros((count, flow.fields)) if times is None else times
        for _ in range(self.ITERATIONS):
            moved = blurred(self._move(both, tf.concat([times / 2.0, -times / 2.0], 0)))
            left, right = moved[:count], moved[count:]
            products, projections = self._equations((left + right) / 2.0, right - left)
            more, explained = self._times(products, projections)
            times = times + more
        ratios = (squares(right - left) - explained) / (total + 1e-9)
        # What the last update of the times leaves.
        own = tf.reshape(flow.coefficients, (flow.fields, -1))
        projections = projections - tf.einsum("nij,fj,nf->ni", products, own, more)
        matrix, right_side = self._sums(products, projections, times, weights * self._weights(ratios, total))
        self.matrix.assign(_MEMORY * self.matrix + matrix)
        # The matrix has the sum of some 1 / (1 - memory) batches, the right side that of one.
        correction = self._solved(right_side / (1.0 - _MEMORY))
        self._assign(flow.coefficients + self.DAMPING * correction)
        return tf.reduce_mean(ratios)

    def _equations(self, images: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
        """Each pair's normal equations for the coefficients of one field that is passed in unit time.

        Returns:
            (pairs, unknowns, unknowns) and (pairs, unknowns); the unknowns are those of rows and columns, (2, terms).
        """
        flow = self.flow
        inner = slice(flow.margin, -flow.margin)
        terms = tf.constant(flow.terms[:, inner, inner] * flow.scales[:, None, None])
        rows = (tf.roll(images, -1, 1) - tf.roll(images, 1, 1)) / 2.0
        columns = (tf.roll(images, -1, 2) - tf.roll(images, 1, 2)) / 2.0
        # (pairs, height, width, channels, 2) x (terms, height, width) -> (pairs, values, 2 terms)
        design = tf.einsum("nhwcd,khw->nhwcdk", tf.stack([rows, columns], -1), terms)
        design = tf.reshape(design, (images.shape[0], -1, 2 * len(flow.scales)))
        products = tf.matmul(design, design, transpose_a=True)
        return products, tf.einsum("npi,np->ni", design, tf.reshape(differences, (images.shape[0], -1)))

    def _times(self, products: Tensor, projections: Tensor) -> tuple[Tensor, Tensor]:
        """Each pair's times (pairs, fields), and the part of its squared difference that they explain, (pairs,)."""
        fields = self.flow.fields
        own = tf.reshape(self.flow.coefficients, (fields, -1))
        matrix = tf.einsum("fi,nij,gj->nfg", own, products, own)
        matrix += (_RIDGE * tf.linalg.trace(matrix) / fields + 1e-9)[:, None, None] * tf.eye(fields)
        right_side = tf.einsum("fi,ni->nf", own, projections)
        times = tf.linalg.solve(matrix, right_side[..., None])[..., 0]
        return times, 2.0 * tf.reduce_sum(times * right_side, -1) - tf.einsum("nf,nfg,ng->n", times, matrix, times)

    @staticmethod
    def _weights(ratios: Tensor, total: Tensor) -> Tensor:
        # Relative to the pair's own difference; nearly equal images tell nothing.
        return 1.0 / ((ratios + _HALF_WEIGHT) * (total + 1e-3 * tf.reduce_mean(total) + 1e-9))

    def _sums(self, products: Tensor, projections: Tensor, times: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The normal equations for the coefficients of all fields, given the times."""
        size = self.right_side.shape[0]
        matrix = tf.einsum("n,nf,ng,nij->figj", weights, times, times, products)
        right_side = tf.einsum("n,nf,ni->fi", weights, times, projections)
        return tf.reshape(matrix, (size, size)), tf.reshape(right_side, (size,))

    def _solved(self, right_side: Tensor) -> Tensor:
        size = self.right_side.shape[0]
        ridge = _RIDGE * tf.linalg.trace(self.matrix.value) / size + 1e-9
        solved = tf.linalg.solve(self.matrix + ridge * tf.eye(size), right_side[:, None])
        return tf.reshape(solved, self.flow.coefficients.shape)

    def normalise(self) -> None:
        """Scales the fields as every update does."""
        self._assign(self.flow.coefficients.value)

    def _assign(self, coefficients: Tensor) -> None:
        """Sets the fields, scaled to a root mean square of one pixel per unit of time; never to zero."""
        before = self.flow.coefficients.value
        self.flow.coefficients.assign(coefficients)
        sizes = tf.sqrt(tf.reduce_mean(tf.reduce_sum(tf.square(self.flow.vector_fields()), -1), (1, 2)))[:, None, None]
        self.flow.coefficients.assign(tf.where(sizes > 1e-6, coefficients / (sizes + 1e-12), before))
