"""Routing between capsules: pure functions on tensors, without weights."""
