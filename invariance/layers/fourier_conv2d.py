"""Convolution with large kernels by a discrete Fourier transform of the whole image."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil

import keras
import numpy as np
from keras import ops

from invariance import xla
from invariance.typing import Tensor


@lru_cache
def _bilinear(height: int, width: int, kernel_height: int, kernel_width: int) -> tuple[np.ndarray, ...]:
    """The real matrices B, G, A with which correlation is ``A ((B x) * (G w))``, for flattened x and w.

    B and G transform image and kernel to the frequencies of a two-dimensional transform of size (height, width). A
    transforms back and keeps the positions at which the kernel lies inside the image. Of two conjugate frequencies one
    is enough. A product of complex numbers takes three real ones (Karatsuba), so a complex frequency has three rows.
    """

    def transform(size, samples):
        return np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(samples)) / size)

    rows, columns = transform(height, height), transform(width, width)
    out_height, out_width = height - kernel_height + 1, width - kernel_width + 1
    image, kernel, output, seen = [], [], [], set()
    for p in range(height):
        for q in range(width):
            mirror = (-p % height, -q % width)
            if mirror in seen:
                continue
            seen.add((p, q))
            x = np.outer(rows[p], columns[q]).ravel()
            # Correlation, not convolution: the kernel's transform is conjugated.
            w = np.outer(rows[p, :kernel_height], columns[q, :kernel_width]).conj().ravel()
            y = np.outer(rows[p, :out_height], columns[q, :out_width]).conj().ravel() / (height * width)
            if mirror == (p, q):
                image.append(x.real)
                kernel.append(w.real)
                output.append(y.real)
            else:
                y = 2 * y  # the conjugate frequency contributes the same
                image += [x.real + x.imag, x.real, x.imag]
                kernel += [w.real, w.imag - w.real, w.real + w.imag]
                output += [y.real - y.imag, -y.imag, -y.real]
    return tuple(np.array(matrix, "float32") for matrix in (image, kernel, np.transpose(output)))


def fourier_correlation(images: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """A 'valid' convolution of images, computed by Fourier transform: equal to rounding (relative 2e-6).

    A stride s splits image and kernel into s x s phases, whose correlations are summed in the frequency domain. A 9 x 9
    kernel with stride 2 on 20 x 20 pixels takes a fifth of the multiplications of direct convolution. With many
    channels and images the transforms cost less than that saves.

    Args:
        images: (batch, height, width, channels).
        kernel: (kernel_height, kernel_width, channels, filters).
        stride: in both directions, in pixels.

    Returns:
        (batch, out_height, out_width, filters), where out_height = ceil((height - kernel_height + 1) / stride), and
        likewise for the width.
    """
    height, width, channels = images.shape[1:]
    kernel_height, kernel_width, _, filters = kernel.shape
    out_height, out_width = (ceil((a - b + 1) / stride) for a, b in ((height, kernel_height), (width, kernel_width)))
    tall, wide = ceil(height / stride), ceil(width / stride)
    kernel_tall, kernel_wide = ceil(kernel_height / stride), ceil(kernel_width / stride)
    to_image, to_kernel, back = _bilinear(tall, wide, kernel_tall, kernel_wide)
    frequencies, phases = len(to_image), stride * stride * channels

    def split(x, before, rows, columns, after):
        """(*before, rows * stride, columns * stride, *after) -> (rows * columns, -1), the phases after ``before``."""
        n = len(before)
        x = ops.reshape(x, (*before, rows, stride, columns, stride, *after))
        return ops.reshape(
            ops.transpose(x, (n, n + 2, *range(n), n + 1, n + 3, *range(n + 4, n + 4 + len(after)))),
            (rows * columns, -1),
        )

    images = ops.pad(images, ((0, 0), (0, tall * stride - height), (0, wide * stride - width), (0, 0)))
    kernel = ops.pad(
        kernel, ((0, kernel_tall * stride - kernel_height), (0, kernel_wide * stride - kernel_width), (0, 0), (0, 0))
    )
    # (frequencies, batch, phases * channels) and (frequencies, phases * channels, filters)
    x = ops.matmul(to_image, split(images, (-1,), tall, wide, (channels,)))
    w = ops.matmul(to_kernel, split(kernel, (), kernel_tall, kernel_wide, (channels, filters)))
    y = ops.matmul(ops.reshape(x, (frequencies, -1, phases)), ops.reshape(w, (frequencies, phases, filters)))
    y = ops.matmul(back, ops.reshape(y, (frequencies, -1)))
    y = ops.reshape(y, (tall - kernel_tall + 1, wide - kernel_wide + 1, -1, filters))
    return ops.transpose(y, (2, 0, 1, 3))[:, :out_height, :out_width]


@keras.saving.register_keras_serializable(package="invariance")
class FourierConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that convolves in the frequency domain where that is faster.

    It is faster inside TensorFlow functions on a CPU, in float32, for 'valid' padding, kernels of at least 5 x 5
    pixels, images of at most 16 x 16 strides, at least 32 channels and filters, and batches of at least 16 images (or
    of unknown size when traced). Everywhere else this is Keras' layer, whose weights and arguments it shares.

    Args, input shape, output shape: as `keras.layers.Conv2D`.
    """

    _SMALLEST_KERNEL, _MOST_POSITIONS, _FEWEST_IMAGES, _FEWEST_CHANNELS = 5, 16, 16, 32

    def call(self, inputs: Tensor) -> Tensor:
        if not self._in_frequency_domain(inputs):
            return super().call(inputs)
        import tensorflow as tf

        outputs = _compiled()(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs) if self.activation is not None else outputs

    def _in_frequency_domain(self, inputs: Tensor) -> bool:
        if not xla.tracing(inputs):
            return False
        batch, *positions, channels = inputs.shape
        return (
            not xla.on_gpu()
            and self.padding == "valid"
            and self.data_format == "channels_last"
            and self.groups == 1
            and self.dilation_rate == (1, 1)
            and self.strides[0] == self.strides[1]
            and self.compute_dtype == "float32"
            and min(self.kernel_size) >= self._SMALLEST_KERNEL
            and None not in (*positions, channels)
            and max(positions) <= self._MOST_POSITIONS * self.strides[0]
            and (batch is None or batch >= self._FEWEST_IMAGES)
            and min(channels, self.filters) >= self._FEWEST_CHANNELS
        )


@lru_cache
def _compiled() -> Callable[[Tensor, Tensor, int], Tensor]:
    """`fourier_correlation`, compiled by XLA: twice as fast as operation by operation."""
    return xla.compiled(fourier_correlation)
