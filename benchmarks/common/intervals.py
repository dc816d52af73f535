"""Means and medians with their 95% confidence intervals, and what an interval says about a bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean or median and the ends of its interval, which are NaN if there are too few values."""

    center: float
    low: float
    high: float

    @classmethod
    def of_median(cls, values: Sequence[float]) -> Interval:
        """Estimate by ranks, without an assumption about the distribution; it takes 6 values or more."""
        interval = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
        return cls(median(values), float(interval.low), float(interval.high))

    @classmethod
    def of_mean(cls, values: Sequence[float]) -> Interval:
        """Estimate by Student's t, which assumes a normal distribution."""
        mean, count = fmean(values), len(values)
        half_width = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * stats.sem(values)) if count > 1 else math.nan
        return cls(mean, mean - half_width, mean + half_width)

    def verdict(self, *, at_least: float = -math.inf, at_most: float = math.inf) -> str:
        """Return whether the value keeps a bound, as far as the interval shows."""
        if math.isnan(self.low) or math.isnan(self.high):
            return "too few rounds to tell"
        if at_least <= self.low and self.high <= at_most:
            return "met"
        return "MISSED" if self.high < at_least or self.low > at_most else "not shown: too noisy"

    def __format__(self, sign: str) -> str:
        interval = "" if math.isnan(self.low) else f" ({self.low:{sign}.4g} to {self.high:{sign}.4g})"
        return f"{self.center:{sign}.4g}{interval}"
