"""The statistics of the benchmarks state what the measurements support, and no more."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.common.intervals import Interval
from benchmarks.learning.paired_seeds import best_peak, compare, holm, tuned


def test_interval_of_a_mean_is_students_t_and_that_of_a_median_uses_ranks():
    values = [0.31, 0.35, 0.33, 0.40, 0.29]
    ours = Interval.of_mean(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.center, ours.high) == pytest.approx((theirs.low, np.mean(values), theirs.high), rel=1e-12)
    assert math.isnan(Interval.of_mean([0.3]).low)
    assert Interval.of_median([3, 1, 2, 6, 5, 4]) == Interval(3.5, 1, 6)
    assert Interval.of_median(range(9)) == Interval(4, 1, 7)


@pytest.mark.parametrize(
    ("values", "most", "least"),
    [
        ([1.0] * 6, "met", "met"),
        ([0.9] * 6, "met", "MISSED"),
        ([1.1] * 6, "MISSED", "met"),
        ([0.9, 1.1] * 3, "not shown: too noisy", "not shown: too noisy"),
        ([0.5] * 5, "too few rounds to tell", "too few rounds to tell"),
    ],
)
def test_bound_is_met_only_if_the_whole_interval_says_so(values, most, least):
    interval = Interval.of_median(values)
    assert (interval.verdict(at_most=1.0), interval.verdict(at_least=1.0)) == (most, least)


def test_best_peak_has_the_best_mean_of_all_seeds():
    values = pd.DataFrame({1e-3: [0.5, 0.5], 2e-3: [0.3, 0.1], 4e-3: [0.2, 0.3]})
    assert best_peak(values, higher=False) == 2e-3
    assert best_peak(values, higher=True) == 1e-3
    # A peak at which a training failed is excluded.
    values.loc[1, 2e-3] = math.nan
    assert best_peak(values, higher=False) == 4e-3
    assert best_peak(values[[2e-3]], higher=False) is None


def test_seed_does_not_choose_the_peak_at_which_it_is_judged():
    # One lucky training at a bad peak: choosing by all seeds would pick it and report its luck.
    values = pd.DataFrame({1e-3: [0.30, 0.30, 0.30], 2e-3: [0.0, 0.40, 0.40]})
    assert best_peak(values, higher=False) == 2e-3
    assert dict(tuned(values, higher=False)) == {0: 0.30, 1: 0.40, 2: 0.40}
    assert dict(tuned(values.head(1), higher=False)) == {0: 0.0}  # a single seed


def test_noise_alone_rarely_shows_a_difference():
    rng = np.random.default_rng(1)
    wrong, families = 0, 400
    for _ in range(families):
        of_each = {name: pd.DataFrame({1e-3: rng.normal(size=5)}) for name in "abcd"}
        wrong += any(one.verdict != "no difference shown" for one in compare(of_each, "a", higher=False).values())
    assert wrong / families < 0.075  # 5%, and three standard errors of 400 draws would be 8.3%


@pytest.mark.parametrize(("higher", "verdict"), [(False, "better"), (True, "worse")])
def test_steady_gain_is_shown(higher: bool, verdict: str):
    rng = np.random.default_rng(2)
    base = rng.normal(size=5)
    gains = base - 0.5 + 0.01 * rng.normal(size=5)
    of_each = {"base": pd.DataFrame({1e-3: base}), "new": pd.DataFrame({1e-3: gains})}
    compared = compare({**of_each, "same": of_each["base"]}, "base", higher=higher)
    assert compared["new"].verdict == verdict
    assert compared["new"].p == pytest.approx(stats.ttest_rel(gains, base).pvalue)
    assert (compared["same"].p, compared["same"].verdict) == (1.0, "no difference shown")


def test_holm_adjustment_matches_hand_calculation():
    # Holm 1979: 4 x 0.01, then 3 x 0.02 = 0.06, 2 x 0.03 raised to 0.06, 1 x 0.04 raised to 0.06.
    assert holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.02}) == pytest.approx(
        {"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == pytest.approx({"a": 1.0, "b": 1.0})
