"""Statistics of runs that differ only in their seed. Imports neither TensorFlow nor, until it is needed, SciPy."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def aggregate(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation between runs (None for a single one)."""
    values = [float(value) for value in values]
    average = sum(values) / len(values)
    if len(values) == 1:
        return average, None
    return average, math.sqrt(sum((value - average) ** 2 for value in values) / (len(values) - 1))


def mean(values: Sequence[Any]) -> Any:
    """Numbers averaged over runs, inside dictionaries too; of anything else that of the first run.

    Of dictionaries, the keys that all of them have.
    """
    first = values[0]
    if all(isinstance(value, Mapping) for value in values):
        return {key: mean([value[key] for value in values]) for key in first if all(key in each for each in values)}
    if all(isinstance(value, (int, float)) for value in values):
        return aggregate(values)[0]
    return first


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The pooled standard deviation within groups, and the least significant difference (95 %) of two single values.

    The groups' variances are taken to be equal; the difference follows Student's t.

    Args:
        groups: each at least one value, one of them at least two.
    """
    import numpy as np
    from scipy.stats import t

    freedom = sum(map(len, groups)) - len(groups)
    deviation = np.sqrt(sum(np.var(values) * len(values) for values in groups) / freedom)
    return float(deviation), float(t.ppf(0.975, freedom) * np.sqrt(2) * deviation)


def permutation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of the first minus mean of the second, and the p-value of a two-sided permutation test."""
    import numpy as np
    from scipy.stats import permutation_test

    test = permutation_test(
        [first, second], lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis), vectorized=True, rng=0
    )
    return float(test.statistic), float(test.pvalue)


def least_p(first: int, second: int) -> float:
    """The smallest p-value a two-sided permutation test can have with groups of these sizes."""
    # Twice the one-sided value, which counts at least the observed split.
    return 2 / math.comb(first + second, first)


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % interval by Student's t (None for a single value)."""
    average, deviation = aggregate(values)
    if deviation is None:
        return average, None
    from scipy.stats import t

    return average, float(t.ppf(0.975, len(values) - 1) * deviation / math.sqrt(len(values)))
