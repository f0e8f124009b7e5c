"""How images change along vector fields."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from invariance.layers.flow import Flow
from invariance.typing import Shape, Tensor


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
        images = ops.cast(inputs, "float32")
        still = ops.zeros_like(ops.repeat(images[:, 0, 0, :1], self.fields, -1))
        moved = super().call
        units = np.eye(self.fields, dtype="float32")
        return ops.stack([moved([images, still + unit]) - moved([images, still - unit]) for unit in units], 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.fields, *input_shape[1:])
