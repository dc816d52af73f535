"""How sure a measured share is, and a difference of two on the same problems: 95% intervals and an exact test."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Interval(NamedTuple):
    """From where to where."""

    low: float
    high: float


def wilson(right: float, total: int) -> Interval:
    """Of a share: Wilson's score interval (JASA 1927), which holds for few problems and near 0 and 1, too."""
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"`right` must be between 0 and `total`, which is above 0, received {right} of {total}")
    share, scale = right / total, 1 + _Z**2 / total
    middle = (share + _Z**2 / (2 * total)) / scale
    reach = _Z / scale * sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    # At 0 and 1 the bound is exact; computed, it is off by a rounding.
    return Interval(max(middle - reach, 0.0) if right > 0 else 0.0, min(middle + reach, 1.0) if right < total else 1.0)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The probability that one of k samples is right, unbiased, from `right` of `samples` (Chen et al. 2021, eq. 1)."""
    if not 1 <= k <= samples:
        raise ValueError(f"`k` must be between 1 and the number of samples, {samples}, received {k}")
    return 1 - comb(samples - right, k) / comb(samples, k)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Of the mean of values between 0 and 1, one a problem: the percentile bootstrap over problems.

    Where all values are the same, resampling knows nothing; it is then Wilson's interval, which is wider than need be.
    """
    return _resampled(values, seed) or wilson(float(np.sum(values)), len(values))


def bootstrap_difference(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Interval:
    """Of the difference of two such means on the same problems, by resampling problems, each with both its values.

    Where every problem differs by the same, it is made of the interval of each, as `difference`.
    """
    by = _resampled([second - first for first, second in zip(before, after, strict=True)], seed)
    return by or difference(before, after, bootstrap(before), bootstrap(after))


def difference(before: Sequence[float], after: Sequence[float], of_before: Interval, of_after: Interval) -> Interval:
    """Of the difference of two means on the same problems, from the interval of each and their correlation.

    With Wilson's intervals of two shares this is Newcombe's (Statistics in Medicine 1998, 17:2635, method 10); Zou and
    Donner (2008, 27:1693) show that other intervals may stand in their place.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    spread = float(first.std() * second.std())
    together = float(((first - first.mean()) * (second - second.mean())).mean())
    if together > 0:
        together = max(together - 1 / (2 * len(first)), 0.0)  # the continuity correction, which widens
    correlation = together / spread if spread else 0.0
    mean_before, mean_after = float(first.mean()), float(second.mean())

    def reach(one: float, other: float) -> float:
        return sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    by = mean_after - mean_before
    return Interval(
        max(by - reach(mean_after - of_after.low, of_before.high - mean_before), -1.0),
        min(by + reach(of_after.high - mean_after, mean_before - of_before.low), 1.0),
    )


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test, two-sided: how probable so uneven a split of the changed answers is by chance alone."""
    changed = gained + lost
    tail: int = sum(comb(changed, number) for number in range(min(gained, lost) + 1))
    return min(1.0, tail / 2 ** (changed - 1)) if changed else 1.0


def _resampled(values: Sequence[float], seed: int) -> Interval | None:
    # Drawing problems is drawing how often each distinct value comes: few numbers, however many problems.
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if len(distinct) == 1:
        return None
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
