"""Statistics of runs that differ only in their seed. Imports neither TensorFlow nor, until it is needed, SciPy."""

import math
from collections.abc import Iterable, Sequence


def aggregate(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation between runs (None for a single one)."""
    values = [float(value) for value in values]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The standard deviation within groups, and the least significant difference (95 %) of one number each of two.

    Groups are taken to vary alike; the difference is that of Student's t.
    """
    import numpy as np
    from scipy.stats import t

    freedom = sum(map(len, groups)) - len(groups)
    deviation = np.sqrt(sum(np.var(values) * len(values) for values in groups) / freedom)
    return float(deviation), float(t.ppf(0.975, freedom) * np.sqrt(2) * deviation)


def permutation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of the first minus mean of the second, and p of a two-sided permutation test."""
    import numpy as np
    from scipy.stats import permutation_test

    test = permutation_test(
        [first, second], lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis), vectorized=True, rng=0
    )
    return float(test.statistic), float(test.pvalue)


def least_p(first: int, second: int) -> float:
    """The smallest p that a two-sided permutation test of so many values each can have."""
    # The observed division and its mirror image are the most extreme there can be.
    return 2 / math.comb(first + second, first)
