"""The precision in which routing is computed."""

from __future__ import annotations

import keras


def routing_dtype(layer: keras.layers.Layer) -> str:
    """float64 for a layer that computes in float64; otherwise float32.

    In fewer bits agreements of 0.999 and 1 are the same number, and variances vanish.
    """
    return "float64" if layer.compute_dtype == "float64" else "float32"
