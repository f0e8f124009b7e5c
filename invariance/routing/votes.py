"""Votes of matrix capsules: poses times transformation matrices, gathered from the neighbourhood of each position.

Poses have the shape (batch, height, width, capsules, 4, 4), activations (batch, height, width, capsules). Votes have
the shape (in_capsules, batch * positions, pose, out_capsules) that `routing.em` expects.

Reference: Hinton, Sabour and Frosst, "Matrix Capsules with EM Routing" (2018).
"""

from __future__ import annotations

from keras import ops

from invariance.typing import Tensor

SIDE = 4
POSE = SIDE * SIDE


def patches(values: Tensor, kernel_size: int, strides: int) -> Tensor:
    """The k x k neighbourhoods of a map, with 'valid' padding.

    Args:
        values: (batch, height, width, ...).
        kernel_size, strides: in positions.

    Returns:
        (kernel_size^2, batch, out_height, out_width, ...), the neighbours in row-major order.
    """
    height, width = values.shape[1:3]
    rows, columns = (size - kernel_size + 1 for size in (height, width))
    return ops.stack(
        [
            values[:, row : row + rows : strides, column : column + columns : strides]
            for row in range(kernel_size)
            for column in range(kernel_size)
        ]
    )


def gather(values: Tensor, kernel_size: int, strides: int, padded: bool = False) -> Tensor:
    """The input capsules of each position.

    Args:
        values: poses or activations, (batch, height, width, capsules, ...).
        kernel_size, strides: in positions.
        padded: whether to append a row of zeros. The routing reads the votes of 24 input capsules at a time; with 16
            output capsules and an even number of rows, these would lie multiples of 2 KiB apart in memory and evict
            each other from the processor's first-level cache, at up to half the speed. The caller decides, once for
            poses and activations: a compiled function need not see the batch size that another one sees.

    Returns:
        (in_capsules, batch * positions (+ 1), ...), with in_capsules = kernel_size^2 * capsules.
    """
    near = patches(values, kernel_size, strides)
    near = ops.transpose(near, (0, 4, 1, 2, 3, *range(5, len(near.shape))))
    near = ops.reshape(near, (near.shape[0] * near.shape[1], -1, *near.shape[5:]))
    return ops.pad(near, [(0, 0), (0, 1), *[(0, 0)] * (len(near.shape) - 2)]) if padded else near


def votes(poses: Tensor, weights: Tensor) -> Tensor:
    """M_i W_ij: each input pose times its matrix to each output capsule.

    Args:
        poses: (in_capsules, batch, 4, 4).
        weights: (in_capsules, out_capsules, 4, 4).

    Returns:
        (in_capsules, batch, 16, out_capsules), the entries of a vote in row-major order.
    """
    inputs, outputs = weights.shape[:2]
    # (in_capsules, 4, 4 * out_capsules): one product gives the rows of M_i W_ij for all outputs, side by side.
    matrices = ops.reshape(ops.transpose(weights, (0, 2, 3, 1)), (inputs, SIDE, SIDE * outputs))
    product = ops.matmul(ops.reshape(poses, (inputs, -1, SIDE)), matrices)
    return ops.reshape(product, (inputs, -1, POSE, outputs))


def neighbourhood_votes(poses: Tensor, weights: Tensor, kernel_size: int, strides: int, padded: bool = False) -> Tensor:
    """`votes` of the input capsules that `gather` finds for each position."""
    return votes(gather(poses, kernel_size, strides, padded), weights)


def votes_with_coordinates(
    poses: Tensor, weights: Tensor, start: tuple[float, float], step: tuple[float, float], groups: int
) -> Tensor:
    """Votes cast with the same weights at all positions, followed by the coordinates of their position.

    Args:
        poses: (batch, height, width, in_capsules, 4, 4).
        weights: (in_capsules, classes, 4, 4).
        start, step: (row, column) coordinates of the first position, and steps to the next.
        groups: height * width to route each position separately, 1 to route all of them together.

    Returns:
        (in_capsules * positions / groups, groups * batch, 18, classes).
    """
    height, width, inputs = poses.shape[1:4]
    count, classes = height * width, weights.shape[1]
    # (in_capsules, positions * batch, 4, 4)
    flat = ops.reshape(ops.transpose(poses, (3, 1, 2, 0, 4, 5)), (inputs, -1, SIDE, SIDE))
    cast = ops.reshape(votes(flat, weights), (inputs, count, -1, POSE, classes))
    places = [
        [start[0] + row * step[0], start[1] + column * step[1]] for row in range(height) for column in range(width)
    ]
    coordinates = ops.reshape(ops.convert_to_tensor(places, cast.dtype), (1, count, 1, 2, 1))
    cast = ops.concatenate([cast, coordinates + ops.zeros_like(cast[:, :, :, :2])], axis=3)
    return ops.reshape(cast, (inputs * count // groups, -1, POSE + 2, classes))
