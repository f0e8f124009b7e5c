"""Keras layers. They own weights and shapes; the mathematics of capsules is in `invariance.routing`."""

# `invariance._register` runs as soon as Keras is loaded. It must find none of these modules half imported.
import keras  # noqa: F401
