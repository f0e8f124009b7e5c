"""Keras layers. They own weights and shapes; the mathematics of capsules is in `invariance.routing`."""

# `invariance._register` runs as soon as Keras is loaded, and must not find a module of this package half imported.
import keras  # noqa: F401
