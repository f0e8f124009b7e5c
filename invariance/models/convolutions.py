"""Convolutions before, and transposed ones behind, a map at a quarter of the images' size. Keras is imported on use."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from invariance.typing import Shape

KERNEL = 5


def quarter(output_shape: Shape) -> tuple[int, int]:
    """Height and width of the map that `deconvolutions` draws ``output_shape`` from."""
    height, width = (-(-side // 4) for side in output_shape[:2])
    return height, width


def deconvolutions(x: Any, filters: int, output_shape: Shape) -> Any:
    """Two transposed convolutions (5 x 5, stride 2): ``filters`` channels and ReLU, then the pixels and tanh.

    Args:
        x: symbolic map (batch, *quarter(output_shape), channels).
        filters: number of channels between the two.
        output_shape: (height, width, channels) of the canvas. If its sides are not multiples of four, it is cropped
            from the next larger one that has such sides.

    Returns:
        (batch, *output_shape) float32 in [-1, 1].
    """
    from keras import layers

    *canvas, channels = output_shape
    excess = [4 * small - side for small, side in zip(quarter(output_shape), canvas, strict=True)]
    x = layers.Conv2DTranspose(filters, KERNEL, 2, "same", activation="relu", name="deconv_1")(x)
    x = layers.Conv2DTranspose(channels, KERNEL, 2, "same", name="deconv_2")(x)
    if any(excess):
        x = layers.Cropping2D([(pixels // 2, pixels - pixels // 2) for pixels in excess])(x)
    return layers.Activation("tanh", dtype="float32", name="tanh")(x)


def deconvolution_flops(channels: int, filters: int, output_shape: Shape) -> Iterator[float]:
    """Operations of each layer of `deconvolutions`, for a map with a number of channels."""
    cells = prod(quarter(output_shape))
    yield 2.0 * cells * KERNEL**2 * channels * filters
    yield 2.0 * 4 * cells * KERNEL**2 * filters * output_shape[-1]


def convolutions(x: Any, filters: tuple[int, ...], activations: tuple[str, ...], name: str = "conv") -> Any:
    """Convolutions (5 x 5, stride 2) of a symbolic map; layers are named after ``name``."""
    from keras import layers

    for number, (count, activation) in enumerate(zip(filters, activations, strict=True), 1):
        x = layers.Conv2D(count, KERNEL, 2, "same", activation=activation, name=f"{name}_{number}")(x)
    return x


def convolution_flops(input_shape: Shape, filters: tuple[int, ...]) -> Iterator[float]:
    """Operations of each layer of `convolutions`."""
    *size, channels = input_shape
    for count in filters:
        size = [-(-side // 2) for side in size]
        yield 2.0 * prod(size) * KERNEL**2 * channels * count
        channels = count
