"""The statistics say what the trainings support: no more, no less."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.learning.comparison import best_peak, compare, holm, mean_interval, paired_t, tuned

SEEDS = range(5)


def flat(value: float, seeds: range = SEEDS) -> dict[int, float]:
    return {seed: value + 0.01 * seed for seed in seeds}


def test_the_interval_is_students():
    values = [0.31, 0.35, 0.33, 0.40, 0.29]
    ours = mean_interval(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert ours.mean == pytest.approx(np.mean(values)) and ours.seeds == 5


def test_one_seed_has_no_interval():
    assert math.isnan(mean_interval([0.3]).low)


def test_nine_in_ten_intervals_of_90_percent_would_miss_too_often():
    """The mean of normal values lies in about 95% of its intervals."""
    rng = np.random.default_rng(0)
    intervals = [mean_interval(list(rng.normal(size=5))) for _ in range(4000)]
    assert 0.94 < np.mean([one.low <= 0 <= one.high for one in intervals]) < 0.96


def test_the_best_peak_is_that_of_the_mean_in_the_wanted_direction():
    values = {1e-3: flat(0.5), 2e-3: flat(0.3), 4e-3: flat(0.4)}
    assert best_peak(values, higher=False) == 2e-3
    assert best_peak(values, higher=True) == 1e-3


def test_a_peak_at_which_a_training_failed_is_out():
    values = {1e-3: flat(0.5), 2e-3: {0: 0.1, 1: 0.1}}
    assert best_peak(values, higher=False) == 1e-3
    assert best_peak({1e-3: {0: 0.1}, 2e-3: {1: 0.1}}, higher=False) is None


def test_a_seed_has_no_say_in_the_peak_it_is_judged_at():
    """One lucky training at a bad peak: choosing by all seeds would pick it, and report its luck."""
    values = {1e-3: {0: 0.30, 1: 0.30, 2: 0.30}, 2e-3: {0: 0.0, 1: 0.40, 2: 0.40}}
    assert best_peak(values, higher=False) == 2e-3
    assert tuned(values, higher=False) == {0: 0.30, 1: 0.40, 2: 0.40}


def test_with_one_seed_its_own_best_peak_is_all_there_is():
    assert tuned({1e-3: {0: 0.3}, 2e-3: {0: 0.2}}, higher=False) == {0: 0.2}


def test_the_same_values_show_no_difference():
    same = {1e-3: flat(0.3)}
    assert compare({"a": same, "b": same}, "a", higher=False)["b"].verdict == "no difference shown"


def test_noise_alone_is_called_a_difference_in_a_twentieth_of_all_families_at_most():
    rng = np.random.default_rng(1)
    wrong, families = 0, 400
    for _ in range(families):
        of_each = {name: {1e-3: dict(enumerate(rng.normal(size=5)))} for name in "abcdefgh"}
        wrong += any(one.verdict != "no difference shown" for one in compare(of_each, "a", higher=False).values())
    assert wrong / families < 0.075  # 5%, and three standard errors of 400 draws would be 8.3%


@pytest.mark.parametrize(("higher", "verdict"), [(False, "better"), (True, "worse")])
def test_a_steady_gain_is_shown(higher: bool, verdict: str):
    rng = np.random.default_rng(2)
    base = dict(enumerate(rng.normal(size=5)))
    gains = {seed: value - 0.5 + 0.01 * rng.normal() for seed, value in base.items()}
    compared = compare({"base": {1e-3: base}, "new": {1e-3: gains}}, "base", higher=higher)
    assert compared["new"].verdict == verdict
    assert compared["new"].p == pytest.approx(stats.ttest_rel(list(gains.values()), list(base.values())).pvalue)


def test_holms_adjustment():
    # Holm 1979, by hand: 4 x 0.01, then 3 x 0.02 = 0.06, 2 x 0.03 lifted to 0.06, 1 x 0.04 lifted to 0.06.
    assert holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.02}) == pytest.approx(
        {"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == pytest.approx({"a": 1.0, "b": 1.0})


def test_equal_differences_are_not_a_certainty():
    assert paired_t([0.1, 0.1, 0.1]) == 1.0
