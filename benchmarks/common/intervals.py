"""The median of measured rounds with its confidence interval, and what the interval says about a bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The median of the rounds and its interval, which is NaN if there are too few rounds (fewer than 6)."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate from ranks alone, without an assumption about the distribution."""
        interval = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
        return cls(median(values), float(interval.low), float(interval.high))

    def at_most(self, bound: float) -> str:
        """Return whether the median is at most the bound, as far as the interval shows."""
        return self._verdict(met=self.high <= bound, missed=self.low > bound)

    def at_least(self, bound: float) -> str:
        """Return whether the median is at least the bound, as far as the interval shows."""
        return self._verdict(met=self.low >= bound, missed=self.high < bound)

    def _verdict(self, met: bool, missed: bool) -> str:
        if math.isnan(self.low) or math.isnan(self.high):
            return "too few rounds to tell"
        return "met" if met else "MISSED" if missed else "not shown: too noisy"

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g})"
