"""Types that signatures share."""

from typing import Any

# A tensor of Keras' backend, or anything that `keras.ops` accepts in its place.
Tensor = Any

# The shape of a tensor. The batch, or a size that is not known yet, is None.
Shape = tuple[Any, ...]
