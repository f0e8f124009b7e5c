"""Keras layers: they own weights and shapes; the mathematics lies in `invariance.routing`."""
