"""Routing between capsules: pure functions on tensors, without weights."""

# `invariance._register` runs as soon as Keras is loaded, and must not find a module of this package half imported.
import keras  # noqa: F401
