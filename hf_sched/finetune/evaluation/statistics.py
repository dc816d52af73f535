"""Confidence intervals of a share and of a difference on the same problems, and an exact test."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, comb, floor, sqrt
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def wilson(right: int, total: int) -> Interval:
    """Wilson's score interval of a share (JASA 1927). It also holds for few problems and for shares near 0 and 1."""
    found = stats.binomtest(int(right), int(total)).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high))


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p-value: the probability that chance splits the changed answers as unevenly."""
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The unbiased probability that one of `k` samples is right, given `right` of `samples` (Chen et al. 2021)."""
    if not 1 <= k <= samples:
        raise ValueError(f"`k` must be between 1 and the number of samples, {samples}, received {k}")
    return 1 - comb(samples - right, k) / comb(samples, k)


def bootstrap(values: Sequence[float]) -> Interval:
    """Percentile bootstrap interval of the mean of values between 0 and 1, one value for each problem.

    Where all values are equal, resampling shows no variation; then it is Wilson's interval, which is conservative.
    """
    right = float(np.sum(values))
    if (found := _resampled(values)) is not None:
        return found
    return Interval(wilson(floor(right + 1e-9), len(values)).low, wilson(ceil(right - 1e-9), len(values)).high)


def bootstrap_difference(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Percentile bootstrap interval of the difference of two means on the same problems; problems are resampled.

    Where all problems differ by the same amount, it is the interval of `difference`.
    """
    found = _resampled(np.subtract(after, before).tolist())
    return found or difference(before, after, bootstrap(before), bootstrap(after))


def difference(before: Sequence[float], after: Sequence[float], of_before: Interval, of_after: Interval) -> Interval:
    """Interval of the difference of two means on the same problems, from the interval of each and their correlation.

    With Wilson's intervals this is Newcombe's method 10 (Statistics in Medicine 1998, 17:2635); Zou and Donner (2008,
    27:1693) show that other intervals may be used.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    covariance = float(((first - first.mean()) * (second - second.mean())).mean())
    if covariance > 0:
        covariance = max(covariance - 1 / (2 * len(first)), 0.0)  # the continuity correction, which widens
    deviations = float(first.std() * second.std())
    correlation = covariance / deviations if deviations else 0.0
    mean_before, mean_after = float(first.mean()), float(second.mean())

    def distance(one: float, other: float) -> float:
        return sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    change = mean_after - mean_before
    return Interval(
        max(change - distance(mean_after - of_after.low, of_before.high - mean_before), -1.0),
        min(change + distance(of_after.high - mean_after, mean_before - of_before.low), 1.0),
    )


def _resampled(values: Sequence[float]) -> Interval | None:
    # Drawing problems is the same as drawing how often each distinct value occurs, which needs few numbers.
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if len(distinct) == 1:
        return None
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=RESAMPLES)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
