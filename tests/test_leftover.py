"""The constant in the published numbers: the arithmetic, against drawings whose probabilities are known."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments import leftover, published

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def drawn(probabilities, drawings=4000):
    """Mean and variance of the share recognised, over simulated drawings."""
    numbers = np.random.default_rng(0).random((drawings, len(probabilities)))
    shares = np.mean(numbers < probabilities, axis=1)
    return shares.mean(), shares.var()


def test_mean_square_is_found_from_mean_and_variance():
    probabilities = np.random.default_rng(1).beta(0.1, 2, 500)
    mean, variance = drawn(probabilities)
    # The variance's relative error is sqrt(2 / 4000), 2.2 %, and 500 variance is below the mean, which is .05.
    found = leftover.mean_square(mean, variance, 500)
    assert found == pytest.approx(np.mean(probabilities**2), abs=0.005)
    # The two kinds of networks differ by more than that: the mean alone does not tell them apart.
    assert leftover.mean_square(*drawn(np.full(500, 0.04)), 500) < 0.005
    assert leftover.mean_square(*drawn(np.arange(500) < 20), 500) == pytest.approx(0.04, abs=1e-9)


def test_without_the_images_left_over(monkeypatch):
    # 1920 images with .22 and .003, and 72 that are recognised as those in range.
    four = {"p_test": 0.99, "p_in": 0.995}
    for key, share in (("p_out", 0.22), ("p_inv", 0.003)):
        four[key] = (1920 * share + 72 * four["p_in"]) / 1992
    monkeypatch.setitem(published.RECOGNITION_ROTATION, "one", four)
    assert leftover.without("one") == pytest.approx({"p_out": 0.22, "p_inv": 0.003}, rel=1e-12)
    # No variances: nothing is known of it.
    assert leftover.turned("one") == four


def test_networks_with_dropout_have_the_constant_and_the_others_have_not():
    for model in published.RECOGNITION_DRAWINGS:
        plain = re.fullmatch(r"cnn_\d\d", model)
        assert leftover.affected(model) != bool(plain), model
        if not plain:
            # Without it they are where the plain networks are, .0018 to .0076.
            assert 0.001 < leftover.without(model)["p_inv"] < 0.011


def test_table_in_the_readme_is_the_commands():
    assert leftover.table() in README
