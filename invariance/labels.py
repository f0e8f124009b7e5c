"""Labels in any of their usual forms, as one number for each class. Keras is imported on use."""

from __future__ import annotations

from typing import Any

import numpy as np

from invariance.typing import Shape, Tensor

# Up to this many classes, labels that Keras has cast to a short floating-point type are still exact.
_EXACT = {"bfloat16": 2**8, "float16": 2**11}


def indicators(labels: Tensor, like: Tensor, fewest: int = 0, most: int | None = None) -> Tensor:
    """T_k for each image and class: 1 if the image shows the class, 0 if not.

    The shape tells the form of labels: (batch,) or (batch, 1) are class numbers, (batch, classes) is T itself, one-hot
    or, for several classes in an image, multi-hot.

    Values are checked where they are known. In a compiled function they are not: there all numbers of a malformed row
    become NaN, and with them whatever is computed from it.

    Args:
        labels: as described.
        like: (batch, classes), any tensor whose shape and dtype the result has.
        fewest, most: how many classes a given row of T may name; None for any number.

    Returns:
        (batch, classes).

    Raises:
        ValueError: if the shape is none of these, or does not tell the form; if a label is not a class number, or a row
            of T is not of zeros and ones, or names too few or too many classes.
    """
    from keras import backend, ops

    labels = ops.convert_to_tensor(labels)
    classes, dtype = like.shape[-1], backend.standardize_dtype(labels.dtype)
    # TensorFlow's shapes may be of unknown length.
    shape = None if getattr(labels.shape, "rank", 0) is None else tuple(labels.shape)
    numbers, given = is_class_numbers(shape), shape is not None and len(shape) == 2 and shape[1] == classes
    fits = shape and (None in (shape[0], like.shape[0]) or shape[0] == like.shape[0])
    if not (numbers or given) or classes in (None, 1) or not fits:
        raise ValueError(
            "Labels must have the shape (batch,) or (batch, 1), class numbers, or (batch, classes), one-hot or "
            f"multi-hot, for at least two classes. Received: labels of shape {shape} for predictions of shape "
            f"{tuple(like.shape)}"
        )
    if numbers:
        if classes > _EXACT.get(dtype, 2**24):
            raise ValueError(f"Labels of dtype {dtype} do not tell {classes} classes apart. Use float32 or integers")
        rows = ops.reshape(labels, (-1, 1))
        table = ops.equal(rows, ops.cast(ops.arange(classes, dtype="int32"), rows.dtype))
        right, expected = ops.any(table, axis=-1, keepdims=True), f"class numbers from 0 to {classes - 1}"
    else:
        rows, table = labels, ops.equal(labels, 1)
        count = ops.sum(ops.cast(table, "int32"), axis=-1, keepdims=True)
        right = ops.all(table | ops.equal(labels, 0), axis=-1, keepdims=True)
        right = right & (count >= fewest) & (count <= (classes if most is None else most))
        expected = "zeros and ones, " + (f"with {fewest} one" if fewest == most else f"with at least {fewest} ones")
        expected = "rows of " + expected + " in each"
    sizes = ops.shape(labels)[0], ops.shape(like)[0]
    if not all(isinstance(size, int) for size in sizes):
        # One label would otherwise do for a whole batch.
        right = right & ops.equal(*sizes)
    known = _value(right)
    if known is not None and not known.all():
        wrong = _value(rows)[~known.ravel()][0].tolist()
        raise ValueError(f"Labels must be {expected}. Received: {wrong[0] if len(wrong) == 1 else wrong}")
    return ops.where(right, ops.cast(table, like.dtype), ops.cast(float("nan"), like.dtype))


def is_class_numbers(shape: Shape | None) -> bool:
    """Whether labels of this shape are class numbers: (batch,) or (batch, 1)."""
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def _value(tensor: Tensor) -> Any:
    """The tensor as an array, or None while a function is traced."""
    from keras import ops

    try:
        return np.asarray(ops.convert_to_numpy(tensor))
    except Exception:  # each backend has its own error for tensors without values
        return None
