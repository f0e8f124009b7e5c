"""Convolutions over translations and quarter turns, and pooling over the turns."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from invariance.errors import require_positive
from invariance.typing import Shape, Tensor

# The quarter turns of the group p4.
TURNS = 4


@keras.saving.register_keras_serializable(package="invariance")
class GroupConvolution2D(layers.Layer):
    """Convolution over the group p4: translations and the four quarter turns.

    Feature maps have a value at each position p and in each orientation s, s quarter turns counter-clockwise. With
    the rotation R by a quarter turn, filters w are matched at each position in each orientation:

        y(p, s) = b + sum_q sum_r w(R^-s q, r - s) x(p + q, r)

    Images are feature maps without orientations: there, the sum over r and the filters' second argument are missing.

    Equivariant exactly: if an image is rotated by a quarter turn, or a feature map is rotated and its orientations are
    shifted by one, then so are the outputs, up to rounding. This requires that the positions at which filters are
    matched lie symmetrically about the centre. Sizes with which they do not are refused.

    Four rotated copies of the filters form one ordinary convolution.

    Args:
        filters: number of filters; each has an output in every orientation.
        kernel_size: side of the square filters, in pixels.
        strides: in both directions, in pixels.
        padding: "same" or "valid", as in Keras.
        use_bias: whether to add a bias, one for each filter.
        kernel_initializer: of the filters.

    Input shape: images (batch, height, width, channels) or feature maps (batch, height, width, 4, channels).
    Output shape: (batch, out_height, out_width, 4, filters).

    Raises:
        ValueError: if an argument is malformed, the input has another shape, or its size breaks the symmetry.

    Reference: Cohen and Welling, "Group equivariant convolutional networks" (2016).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        require_positive(self, "filters", "kernel_size", "strides")
        if padding not in ("same", "valid"):
            raise ValueError(f"Argument `padding` must be 'same' or 'valid'. Received: {padding!r}")
        self.padding, self.use_bias = padding, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)
        turns = input_shape[3] if len(input_shape) == 5 else 1
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, turns, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.built = True

    def bank(self) -> Tensor:
        """The filters in all orientations, as an ordinary convolution's kernel: (side, side, 4 channels, 4 filters)."""
        kernel = ops.convert_to_tensor(self.kernel)
        # The filter's value for orientation r of the input is w(., r - s): w shifted by s along r.
        copies = [ops.rot90(ops.roll(kernel, turn, axis=2), turn) for turn in range(TURNS)]
        return ops.reshape(ops.stack(copies, axis=-2), (*kernel.shape[:2], -1, TURNS * self.filters))

    def call(self, inputs: Tensor) -> Tensor:
        _, *size, turns, filters = self.compute_output_shape(tuple(inputs.shape))
        side = self.kernel_size
        if self.padding == "valid" and inputs.shape[1:3] == (side, side):
            x = self._product(inputs)
        else:
            x = ops.reshape(inputs, (-1, *inputs.shape[1:3], self.kernel.shape[2] * self.kernel.shape[3]))
            # The padding is symmetric: `compute_output_shape` has refused all others.
            x = ops.conv(x, self.bank(), self.strides, self.padding, "channels_last")
        x = ops.reshape(x, (-1, *size, turns, filters))
        return x + ops.cast(self.bias, x.dtype) if self.use_bias else x

    def _product(self, inputs: Tensor) -> Tensor:
        """Filters as large as the image: (batch * 4, filters).

        Here the images are rotated backwards. A batch of them is smaller than the copies of such filters, which would
        be made anew at every step: a training step of a whole network takes a quarter less.
        """
        x = ops.reshape(inputs, (-1, *inputs.shape[1:3], *self.kernel.shape[2:4]))
        copies = [ops.rot90(ops.roll(x, -turn, axis=3), -turn, axes=(1, 2)) for turn in range(TURNS)]
        # (batch, 4, side, side, orientations, channels) -> (batch * 4, side * side * orientations * channels)
        x = ops.reshape(ops.stack(copies, axis=1), (-1, math.prod(self.kernel.shape[:4])))
        return ops.matmul(x, ops.reshape(self.kernel, (-1, self.filters)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if len(shape) not in (4, 5) or None in shape[1:] or (len(shape) == 5 and shape[3] != TURNS):
            raise ValueError(
                "Input must be images (batch, height, width, channels) or feature maps (batch, height, width, "
                f"{TURNS}, channels) of known size. Received: input_shape={shape}"
            )
        return (shape[0], *(self._positions(side, shape) for side in shape[1:3]), TURNS, self.filters)

    def _positions(self, side: int, shape: Shape) -> int:
        """Number of positions along a side; raises ValueError if they are not symmetric about its middle."""
        kernel, stride = self.kernel_size, self.strides
        count = -(-side // stride) if self.padding == "same" else (side - kernel) // stride + 1
        # What the filters cover beyond the side, or fail to cover of it.
        excess = (count - 1) * stride + kernel - side
        if count < 1 or (excess % 2 if excess > 0 and self.padding == "same" else excess):
            raise ValueError(
                f"Filters of side {kernel} with strides {stride} and '{self.padding}' padding are not placed "
                f"symmetrically on a side of {side} pixels, which would break the equivariance. Received: "
                f"input_shape={shape}"
            )
        return count

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="invariance")
class GroupPooling(layers.Layer):
    """The largest value over the orientations: invariant under their shifts.

    Input shape: (batch, height, width, 4, channels).
    Output shape: (batch, height, width, channels).

    Raises:
        ValueError: if the input has another shape.
    """

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 5 or input_shape[3] != TURNS:
            raise ValueError(
                f"Input must be feature maps (batch, height, width, {TURNS}, channels). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return ops.max(inputs, axis=3)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:3], input_shape[4])
