"""Compare schedules over seeds: each at its own best peak, paired with a baseline, with intervals and a t test.

The peak is chosen as a user would choose it, by the mean of the other seeds. So a seed never influences the peak at
which it is judged, and no schedule gains by its luckiest run. The values of a schedule are a table with a row for each
seed and a column for each peak learning rate; a training that failed is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from scipy import stats

from benchmarks.common.intervals import LEVEL, Interval


class Compared(NamedTuple):
    """A schedule minus the baseline, each at its own best peak, over the seeds that both have."""

    difference: Interval
    p: float
    """Two-sided p value of the paired t test."""
    adjusted_p: float
    """The p value adjusted by Holm's method for the number of schedules."""
    verdict: str
    """What the test shows, and no more."""


def best_peak(values: pd.DataFrame, higher: bool) -> float | None:
    """Return the peak with the best mean over the seeds; None if no peak has all seeds.

    A peak at which a training failed is excluded, since its mean would cover only the lucky seeds.
    """
    means = values.dropna(axis="columns").mean()
    if means.empty:
        return None
    return float(means.idxmax() if higher else means.idxmin())


def tuned(values: pd.DataFrame, higher: bool) -> pd.Series:
    """Return by seed the value at the peak that is best for the other seeds; a single seed uses its own best peak."""
    complete = values.dropna(axis="columns")
    if complete.empty:
        return pd.Series(dtype=float)
    found = complete.to_numpy()
    of_others = found.sum(axis=0) - found if len(found) > 1 else found
    best = of_others.argmax(axis=1) if higher else of_others.argmin(axis=1)
    return pd.Series(found[range(len(found)), best], complete.index)


def compare(of_each: Mapping[str, pd.DataFrame], baseline: str, higher: bool) -> dict[str, Compared]:
    """Compare every other schedule with the baseline; schedules with fewer than two common seeds are left out."""
    base = tuned(of_each[baseline], higher)
    differences = {}
    for name, values in of_each.items():
        each = (tuned(values, higher) - base).dropna()
        if name != baseline and len(each) > 1:
            differences[name] = each
    ps = {name: paired_t(each) for name, each in differences.items()}
    adjusted = holm(ps)
    found = {}
    for name, each in differences.items():
        shown = "better" if (each.mean() > 0) == higher else "worse"
        verdict = shown if adjusted[name] < 1 - LEVEL else "no difference shown"
        found[name] = Compared(Interval.of_mean(each.tolist()), ps[name], adjusted[name], verdict)
    return found


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Adjust p values so that any false finding has probability below 5% (Holm, Scand. J. Statistics 1979)."""
    ascending = pd.Series(ps, dtype=float).sort_values()
    return dict((ascending * np.arange(len(ps), 0, -1)).cummax().clip(upper=1.0))


def paired_t(differences: pd.Series) -> float:
    """Return the two-sided p value of the t test that paired values do not differ."""
    if differences.nunique() == 1:  # no variance: the same training twice
        return 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
