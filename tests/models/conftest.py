"""Fixtures that tests of the models share."""

import keras
import pytest

from invariance.optimizers import CompiledUpdate


@pytest.fixture
def plain_updates(monkeypatch):
    """Updates that are not compiled, which takes a second for each optimiser. (They agree: test_optimizers.)"""
    monkeypatch.setattr(
        CompiledUpdate, "apply", lambda self, *arguments: keras.optimizers.Optimizer.apply(self, *arguments)
    )
