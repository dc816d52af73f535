"""Ratios of measured rounds: their median, how sure it is, and what that says of a bound."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The median of some rounds' figures, with its interval."""

    median: float
    low: float
    high: float
    level: float
    """How often such an interval holds the true median: at least `LEVEL`, less where there are too few rounds."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """By the ranks of the values alone, which asks nothing of their distribution.

        The median lies below the k-th smallest of n values, or above the k-th greatest, as often as a fair coin falls
        on one side less than k times in n.
        """
        ranked = sorted(values)
        n = len(ranked)

        def level(k: int) -> float:
            return 1 - sum(math.comb(n, i) for i in range(k)) / 2.0 ** (n - 1)

        k = max([k for k in range(1, n // 2 + 1) if level(k) >= LEVEL], default=1)
        return cls(statistics.median(ranked), ranked[k - 1], ranked[n - k], level(k))

    def at_most(self, bound: float) -> str:
        """Whether it is at most a bound, as far as the interval tells."""
        return self._verdict(self.high <= bound, self.low > bound)

    def at_least(self, bound: float) -> str:
        """Whether it is at least a bound, as far as the interval tells."""
        return self._verdict(self.low >= bound, self.high < bound)

    def _verdict(self, met: bool, missed: bool) -> str:
        if self.level < LEVEL:
            return "too few rounds to tell"
        return "met" if met else "MISSED" if missed else "not shown: too noisy"

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g})"
