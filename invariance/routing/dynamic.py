"""Dynamic routing: routing by agreement.

Reference: Sabour, Frosst and Hinton, "Dynamic Routing Between Capsules" (2017). Equations are numbered as in the paper.
"""

from __future__ import annotations

from keras import backend, ops

from invariance.errors import is_positive_integer
from invariance.typing import Tensor

EPSILON = 1e-7


def length(vectors: Tensor, keepdims: bool = False) -> Tensor:
    """Length of vectors, with a finite gradient at zero (where the value is sqrt(1e-7)).

    Input shape: (..., dim). Output shape: (...), or (..., 1) with ``keepdims``.
    """
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=keepdims) + EPSILON)


def squash(vectors: Tensor) -> Tensor:
    """Shrinks vectors to lengths below 1 and keeps their directions: eq. 1, |s| s / (1 + |s|^2).

    Input and output shape: (..., dim). Finite value and gradient at zero.
    """
    norm = length(vectors, keepdims=True)
    return vectors * norm / (1.0 + ops.square(norm))


def route(votes: Tensor, iterations: int = 3) -> tuple[Tensor, Tensor]:
    """Routing by agreement (procedure 1); the gradient flows through all iterations.

    Args:
        votes: (batch, in_capsules, out_capsules, out_dim), what each input capsule predicts for each output capsule.
        iterations: a positive integer.

    Returns:
        Output capsules (batch, out_capsules, out_dim), and the coupling coefficients of the last iteration
        (batch, in_capsules, out_capsules), which sum to one over the output capsules. Both are at least float32.

    Raises:
        ValueError: if ``iterations`` is not a positive integer.
    """
    _require_iterations(iterations)
    votes = _at_least_float32(votes)
    logits = ops.zeros_like(votes[..., 0])
    for iteration in range(iterations):
        couplings = ops.softmax(logits, axis=-1)
        outputs = squash(ops.einsum("bij,bijd->bjd", couplings, votes))
        if iteration < iterations - 1:
            logits = logits + ops.einsum("bijd,bjd->bij", votes, outputs)
    return outputs, couplings


def transform_and_route(capsules: Tensor, weights: Tensor, iterations: int = 3) -> tuple[Tensor, Tensor]:
    """`route` for votes that are linear in the input capsules (eq. 2), without computing the votes.

    The votes W_ij u_i would be the network's largest tensor, read twice in each iteration. They only enter through sums
    over the input capsules and through products with the outputs of earlier iterations. Both are matrix products with
    the weights: sum_i c_ij W_ij u_i, and b_ij = u_i . W_ij^T (sum of the earlier v_j).

    Args:
        capsules: (batch, in_capsules, in_dim).
        weights: (in_capsules, out_capsules, out_dim, in_dim).
        iterations: a positive integer.

    Returns:
        As `route`.

    Raises:
        ValueError: if ``iterations`` is not a positive integer.
    """
    _require_iterations(iterations)
    capsules, weights = _at_least_float32(capsules), _at_least_float32(weights)
    inputs, outs, out_dim, in_dim = weights.shape
    # (out_capsules, in_capsules * in_dim, out_dim)
    matrices = ops.reshape(ops.transpose(weights, (1, 0, 3, 2)), (outs, inputs * in_dim, out_dim))
    flat = ops.reshape(capsules, (-1, inputs * in_dim))
    # The first couplings are all equal, so the first iteration needs no softmax and one product for all outputs.
    couplings = ops.repeat(ops.full_like(capsules[None, :, :, 0], 1.0 / outs), outs, axis=0)
    sums = ops.matmul(flat / outs, matrices)  # (out_capsules, batch, out_dim)
    outputs = squash(sums)
    total = outputs
    for _ in range(iterations - 1):
        # (out_capsules, batch, in_capsules, in_dim): W_ij^T v_j, summed over the earlier iterations
        back = ops.reshape(ops.matmul(total, ops.transpose(matrices, (0, 2, 1))), (outs, -1, inputs, in_dim))
        couplings = ops.softmax(ops.sum(back * capsules, axis=-1), axis=0)
        coupled = ops.reshape(couplings[..., None] * capsules, (outs, -1, inputs * in_dim))
        outputs = squash(ops.matmul(coupled, matrices))
        total = total + outputs
    return ops.transpose(outputs, (1, 0, 2)), ops.transpose(couplings, (1, 2, 0))


def _require_iterations(iterations: object) -> None:
    if not is_positive_integer(iterations):
        raise ValueError(f"Argument `iterations` must be a positive integer. Received: iterations={iterations!r}")


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Casts lower precisions up: in bfloat16 agreements of 0.999 and 1 are the same number."""
    tensor = ops.convert_to_tensor(tensor)
    return tensor if backend.standardize_dtype(tensor.dtype) == "float64" else ops.cast(tensor, "float32")
