"""Builders of the networks under test."""
