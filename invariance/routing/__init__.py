"""Routing between capsules: pure functions on tensors, without weights."""

# `invariance._register` runs as soon as Keras is loaded. It must find none of these modules half imported.
import keras  # noqa: F401
