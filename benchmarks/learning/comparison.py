"""Schedules compared over seeds: each at its own best peak, paired with a baseline, with intervals and a proper test.

The peak is chosen as a user would who tunes it: by the mean of the other seeds. A seed thus never has a say in the peak
that it is judged at, and a schedule gains nothing by the luckiest of its runs being picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

LEVEL = 0.95

Values = Mapping[float, Mapping[int, float]]
"""Of a schedule: by peak learning rate and seed. A training that failed has none."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    low: float
    high: float
    """The ends of the t interval; NaN for a single seed."""
    seeds: int


@dataclass(frozen=True)
class Compared:
    """A schedule against the baseline, each at its own best peak, over the seeds that both have."""

    difference: Estimate
    """Its mean less the baseline's."""
    p: float
    """Of the paired t test, two-sided."""
    adjusted_p: float
    """By Holm's method, for as many schedules as are compared."""
    better: bool
    """Whether the difference is towards what is wanted."""

    @property
    def verdict(self) -> str:
        """In words; never more than the test shows."""
        if not self.adjusted_p < 1 - LEVEL:
            return "no difference shown"
        return "better" if self.better else "worse"


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean and Student's t interval, which takes the values to be drawn from a normal distribution."""
    mean, count = fmean(values), len(values)
    error = float(np.std(values, ddof=1)) / count**0.5 if count > 1 else float("nan")
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) if count > 1 else float("nan")
    return Estimate(mean, mean - reach, mean + reach, count)


def best_peak(values: Values, higher: bool, without: int | None = None) -> float | None:
    """The peak with the best mean over the seeds (but for one); None if no peak has them all.

    A peak at which a training failed is out, since its mean would be that of the lucky ones.
    """
    seeds = {seed for of_peak in values.values() for seed in of_peak} - {without}
    whole = {peak: of_peak for peak, of_peak in values.items() if seeds and seeds <= set(of_peak)}
    if not whole:
        return None
    means = {peak: fmean(of_peak[seed] for seed in seeds) for peak, of_peak in whole.items()}
    return (max if higher else min)(means, key=lambda peak: means[peak])


def tuned(values: Values, higher: bool) -> dict[int, float]:
    """By seed, the value at the peak that is best for the other seeds; with a single seed, its own best."""
    seeds = sorted({seed for of_peak in values.values() for seed in of_peak})
    chosen = {seed: best_peak(values, higher, seed if len(seeds) > 1 else None) for seed in seeds}
    return {seed: values[peak][seed] for seed, peak in chosen.items() if peak is not None and seed in values[peak]}


def compare(of_each: Mapping[str, Values], baseline: str, higher: bool) -> dict[str, Compared]:
    """Every schedule but the baseline against it; those with fewer than two seeds in common are left out."""
    base = tuned(of_each[baseline], higher)
    differences = {}
    for name, values in of_each.items():
        mine = tuned(values, higher)
        common = sorted(set(mine) & set(base))
        if name != baseline and len(common) > 1:
            differences[name] = [mine[seed] - base[seed] for seed in common]
    ps = {name: paired_t(each) for name, each in differences.items()}
    adjusted = holm(ps)
    compared = {}
    for name, each in differences.items():
        estimate = mean_interval(each)
        compared[name] = Compared(estimate, ps[name], adjusted[name], (estimate.mean > 0) == higher)
    return compared


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p values (Holm, Scandinavian Journal of Statistics 1979): that any is wrong by chance stays below 5%."""
    adjusted, largest = {}, 0.0
    for number, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        largest = max(largest, min(1.0, (len(ps) - number) * ps[name]))
        adjusted[name] = largest
    return adjusted


def paired_t(differences: Sequence[float]) -> float:
    """The p value of the t test that paired values do not differ, two-sided."""
    if len(set(differences)) == 1:  # no spread to judge by: the same training twice, or nothing to tell it from
        return 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
