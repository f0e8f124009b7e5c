"""Statistics of runs that differ only in their seed."""

from invariance.report.statistics import aggregate


def test_mean_and_standard_deviation():
    assert aggregate([0.25]) == (0.25, None)
    # Mean 4, squared deviations 4 + 0 + 4 = 8, divided by n - 1 = 2: variance 4. All exact in binary.
    assert aggregate([2, 4, 6]) == (4.0, 2.0)
    assert aggregate([0.5, 0.5]) == (0.5, 0.0)
