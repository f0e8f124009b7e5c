"""Convolution with large kernels by a discrete Fourier transform of the whole image."""

from functools import lru_cache
from math import ceil

import keras
import numpy as np
from keras import ops

from invariance import xla


@lru_cache
def _bilinear(height: int, width: int, kernel_height: int, kernel_width: int):
    """The real matrices B, G, A with which correlation is ``A ((B x) * (G w))``, x and w flattened.

    B and G go to the frequencies of a two-dimensional transform of size (height, width), A comes back from them and
    keeps the positions at which the kernel lies inside the image. Of two conjugate frequencies one is enough. The
    product of two complex numbers takes three real ones (Karatsuba's way), so a complex frequency has three rows.
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
                y = 2 * y  # for the mirror's part
                image += [x.real + x.imag, x.real, x.imag]
                kernel += [w.real, w.imag - w.real, w.real + w.imag]
                output += [y.real - y.imag, -y.imag, -y.real]
    return tuple(np.array(matrix, "float32") for matrix in (image, kernel, np.transpose(output)))


def fourier_correlation(images, kernel, stride: int = 1):
    """What a 'valid' convolutional layer computes, by Fourier transform: the same to rounding (relative 2e-6).

    A stride s splits image and kernel into s x s phases, whose correlations add up; the sum is taken among the
    frequencies. A 9 x 9 kernel of stride 2 on 20 x 20 pixels takes a fifth of the direct way's multiplications, and
    the transforms cost less than they save as soon as there are many channels and images.

    Args:
        images: (batch, height, width, channels).
        kernel: (kernel height, kernel width, channels, filters).
        stride: in both directions.

    Returns:
        (batch, ceil((height - kernel height + 1) / stride), the same of the width, filters).
    """
    height, width, channels = images.shape[1:]
    kernel_height, kernel_width, _, filters = kernel.shape
    out_height, out_width = (ceil((a - b + 1) / stride) for a, b in ((height, kernel_height), (width, kernel_width)))
    tall, wide = ceil(height / stride), ceil(width / stride)
    kernel_tall, kernel_wide = ceil(kernel_height / stride), ceil(kernel_width / stride)
    to_image, to_kernel, back = _bilinear(tall, wide, kernel_tall, kernel_wide)
    frequencies, phases = len(to_image), stride * stride * channels

    def split(x, before, rows, columns, after):
        """(*before, rows * stride, columns * stride, *after) -> (rows * columns, -1), the phases behind `before`."""
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
    """`keras.layers.Conv2D` that takes the way over frequencies where that is faster.

    That is inside a TensorFlow function on a CPU, in float32, for 'valid' padding, kernels of 5 x 5 and more, images of
    up to 16 x 16 positions a stride, 32 channels and filters or more, and 16 images or more at once (or a number not
    known when it is traced); everywhere else it is Keras' own layer, whose weights and arguments it has.

    Args, input shape, output shape: as `keras.layers.Conv2D`.
    """

    _SMALLEST_KERNEL, _MOST_POSITIONS, _FEWEST_IMAGES, _FEWEST_CHANNELS = 5, 16, 16, 32

    def call(self, inputs):
        if not self._by_frequency(inputs):
            return super().call(inputs)
        import tensorflow as tf

        outputs = _compiled()(inputs, tf.convert_to_tensor(self.kernel), self.strides[0])
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs) if self.activation is not None else outputs

    def _by_frequency(self, inputs) -> bool:
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
def _compiled():
    """`fourier_correlation`, compiled by XLA: twice as fast as operation by operation."""
    return xla.compiled(fourier_correlation)
