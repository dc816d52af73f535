"""Confidence intervals of a share, of a mean, and of a difference on the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, comb, floor, sqrt

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000

Interval = tuple[float, float]


def wilson(right: int, total: int) -> Interval:
    """Wilson's score interval of a share (JASA 1927). It also holds for few problems and for shares near 0 and 1."""
    found = stats.binomtest(int(right), int(total)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased probability that one of `k` samples is right, given `right` of `samples` (Chen et al. 2021)."""
    return 1 - comb(samples - right, k) / comb(samples, k)


def bootstrap(values: Sequence[float]) -> Interval:
    """Percentile bootstrap interval of the mean of one value for each problem.

    Where all values are equal, resampling shows no variation. For a value between 0 and 1 it is then Wilson's interval,
    which is conservative.
    """
    # Drawing problems is the same as drawing how often each distinct value occurs, which needs few numbers.
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if len(distinct) == 1 and 0 <= distinct[0] <= 1:
        right = float(np.sum(values))
        fewest, most = floor(right + 1e-9), ceil(right - 1e-9)
        return wilson(fewest, len(values))[0], wilson(most, len(values))[1]
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=RESAMPLES)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(before: Sequence[float], after: Sequence[float], of_before: Interval, of_after: Interval) -> Interval:
    """Interval of the difference of two means on the same problems, from the interval of each and their correlation.

    With Wilson's intervals this is Newcombe's method 10 (Statistics in Medicine 1998, 17:2635); Zou and Donner (2008,
    27:1693) show that other intervals may be used, such as those of `bootstrap`.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    covariance = float(((first - first.mean()) * (second - second.mean())).mean())
    if covariance > 0:
        covariance = max(covariance - 1 / (2 * len(first)), 0.0)  # the continuity correction, which widens
    deviations = float(first.std() * second.std())
    correlation = covariance / deviations if deviations else 0.0
    one, other, change = float(first.mean()), float(second.mean()), float(second.mean() - first.mean())

    def distance(of_second: float, of_first: float) -> float:
        return sqrt(max(of_second**2 - 2 * correlation * of_second * of_first + of_first**2, 0.0))

    low = change - distance(other - of_after[0], of_before[1] - one)
    high = change + distance(of_after[1] - other, one - of_before[0])
    return low, high
