"""The analyses of the article's numbers and of the models' order, on cases with known results."""

import re

import numpy as np
import pytest

from experiments.article import committed, model_order, published, unrotated_images


def drawn(probabilities, drawings=4000):
    """Mean and variance of the accuracy over simulated drawings."""
    numbers = np.random.default_rng(0).random((drawings, len(probabilities)))
    shares = np.mean(numbers < probabilities, axis=1)
    return shares.mean(), shares.var()


def test_mean_square_follows_from_mean_and_variance():
    probabilities = np.random.default_rng(1).beta(0.1, 2, 500)
    mean, variance = drawn(probabilities)
    # The variance's relative error is sqrt(2 / 4000), 2.2 %, and 500 variance is below the mean, which is .05.
    assert unrotated_images.mean_square(mean, variance, 500) == pytest.approx(np.mean(probabilities**2), abs=0.005)
    # It separates the two kinds of networks by more than that, which the mean alone does not.
    assert unrotated_images.mean_square(*drawn(np.full(500, 0.04)), 500) < 0.005
    assert unrotated_images.mean_square(*drawn(np.arange(500) < 20), 500) == pytest.approx(0.04, abs=1e-9)


def test_unrotated_images_are_taken_out(monkeypatch):
    # 1920 images with .22 and .003, and 72 that are recognised as those in range.
    numbers = {"p_test": 0.99, "p_in": 0.995}
    for key, share in (("p_out", 0.22), ("p_inv", 0.003)):
        numbers[key] = (1920 * share + 72 * numbers["p_in"]) / 1992
    monkeypatch.setitem(published.RECOGNITION_ROTATION, "one", numbers)
    assert unrotated_images.without_unrotated("one") == pytest.approx({"p_out": 0.22, "p_inv": 0.003}, rel=1e-12)
    # Without variances nothing is known about it.
    assert unrotated_images.rotated_only("one") == numbers


def test_networks_with_dropout_have_the_constant_and_the_others_do_not():
    for model in published.RECOGNITION_DRAWINGS:
        plain = re.fullmatch(r"cnn_\d\d", model)
        assert unrotated_images.affected(model) != bool(plain), model
        if not plain:
            # Without it they are where the plain networks are, .0018 to .0076.
            assert 0.001 < unrotated_images.rotated_only(model)["p_inv"] < 0.011


def test_analysis_of_variance():
    # Means 2, 5 and 9 of (1, 2, 3), (4, 6) and (9,): within 2 + 2 with 3 degrees of freedom, deviation root of 4 / 3.
    # Between: grand mean 25 / 6; 3 * 4.6944 + 2 * .6944 + 23.3611 = 38.8333, by 2: F = 19.41667 / 1.33333 = 14.5625.
    # With two degrees of freedom above, p = (1 + 2 F / 3) ** -1.5 = .0285. The 97.5 % quantile of t is 3.18245.
    deviation, least, p = model_order.variance_analysis([(1, 2, 3), (4, 6), (9,)])
    assert deviation == pytest.approx((4 / 3) ** 0.5)
    assert least == pytest.approx(3.18245 * (8 / 3) ** 0.5, rel=1e-5)  # the quantile's six digits
    assert p == pytest.approx((1 + 2 * 14.5625 / 3) ** -1.5)


def test_groups_without_several_seeds_have_no_order():
    assert model_order.orders(run for run in committed.runs() if run.metrics["seed"] == 0) == []
    assert model_order.table([]).count("\n") == 1
