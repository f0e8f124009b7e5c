"""Moved to `fused_batch_normalization` and `large_dense`."""

from invariance.layers.fused_batch_normalization import FusedBatchNormalization  # noqa: F401
from invariance.layers.large_dense import LargeDense  # noqa: F401
