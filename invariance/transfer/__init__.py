"""Transformations that are learnt from some classes, and used to train a network on all."""
