"""How images change along vector fields."""

from __future__ import annotations

import keras
from keras import ops

from invariance import xla
from invariance.layers.flow import Flow, displaced, integrated
from invariance.typing import Shape, Tensor


def _tangents(images: Tensor, fields: Tensor, halvings: int, margin: int, cubic: bool) -> Tensor:
    units = ops.eye(fields.shape[0], dtype=fields.dtype)
    # The same for all images: (fields, height, width, 2)
    after, before = (integrated(fields, times, halvings, margin) for times in (units, -units))

    def moved(displacements: Tensor) -> Tensor:
        return displaced(images, displacements[None], cubic)

    return ops.stack([moved(after[each]) - moved(before[each]) for each in range(fields.shape[0])], 1)


@keras.saving.register_keras_serializable(package="invariance")
class FlowTangents(Flow):
    """The tangents at an image of its movements along each field: gradient of the image . field.

    Computed as differences of the images that are moved for a unit of time either way.

    Args: as for `Flow`.

    Input: images (batch, height, width, channels).
    Output: (batch, fields, height, width, channels) float32.
    """

    def build(self, input_shape: Shape) -> None:
        super().build([input_shape, (None, self.fields)])

    def call(self, inputs: Tensor) -> Tensor:
        tensors = ops.cast(inputs, "float32"), self.padded_fields()
        return xla.compiled_with_gradient(_tangents, tensors, self.HALVINGS, self.margin, self.cubic)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.fields, *input_shape[1:])
