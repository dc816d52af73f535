"""Compare schedules over seeds: each at its own best peak, paired with a baseline, with intervals and a t test.

The peak is chosen as a user would choose it, by the mean of the other seeds. So a seed never influences the peak at
which it is judged, and no schedule gains by its luckiest run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy import stats

from benchmarks.common.intervals import LEVEL, Interval

Values = Mapping[float, Mapping[int, float]]
"""Values of a schedule by peak learning rate and seed; a training that failed is missing."""


@dataclass(frozen=True)
class Compared:
    """A schedule minus the baseline, each at its own best peak, over the seeds that both have."""

    difference: Interval
    p: float
    """Two-sided p value of the paired t test."""
    adjusted_p: float
    """The p value adjusted by Holm's method for the number of schedules."""
    higher: bool
    """Whether higher is better."""

    @property
    def verdict(self) -> str:
        """What the test shows, and no more."""
        if not self.adjusted_p < 1 - LEVEL:
            return "no difference shown"
        return "better" if (self.difference.center > 0) == self.higher else "worse"


def best_peak(values: Values, higher: bool, without: int | None = None) -> float | None:
    """Return the peak with the best mean over the seeds (optionally without one); None if no peak has all seeds.

    A peak at which a training failed is excluded, since its mean would cover only the lucky seeds.
    """
    seeds = {seed for of_peak in values.values() for seed in of_peak} - {without}
    means = {
        peak: fmean(of_peak[seed] for seed in seeds)
        for peak, of_peak in values.items()
        if seeds and seeds <= set(of_peak)
    }
    return (max if higher else min)(means, key=lambda peak: means[peak], default=None)


def tuned(values: Values, higher: bool) -> dict[int, float]:
    """Return by seed the value at the peak that is best for the other seeds; a single seed uses its own best peak."""
    seeds = sorted({seed for of_peak in values.values() for seed in of_peak})
    chosen = {seed: best_peak(values, higher, seed if len(seeds) > 1 else None) for seed in seeds}
    return {seed: values[peak][seed] for seed, peak in chosen.items() if peak is not None and seed in values[peak]}


def compare(of_each: Mapping[str, Values], baseline: str, higher: bool) -> dict[str, Compared]:
    """Compare every other schedule with the baseline; schedules with fewer than two common seeds are left out."""
    base = tuned(of_each[baseline], higher)
    differences = {}
    for name, values in of_each.items():
        mine = tuned(values, higher)
        common = sorted(set(mine) & set(base))
        if name != baseline and len(common) > 1:
            differences[name] = [mine[seed] - base[seed] for seed in common]
    ps = {name: paired_t(each) for name, each in differences.items()}
    adjusted = holm(ps)
    return {
        name: Compared(Interval.of_mean(each), ps[name], adjusted[name], higher) for name, each in differences.items()
    }


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Adjust p values so that any false finding has probability below 5% (Holm, Scand. J. Statistics 1979)."""
    adjusted, largest = {}, 0.0
    for number, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        largest = max(largest, min(1.0, (len(ps) - number) * ps[name]))
        adjusted[name] = largest
    return adjusted


def paired_t(differences: Sequence[float]) -> float:
    """Return the two-sided p value of the t test that paired values do not differ."""
    if len(set(differences)) == 1:  # no variance: the same training twice
        return 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
