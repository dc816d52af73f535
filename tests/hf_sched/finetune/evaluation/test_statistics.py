"""Intervals and tests compared with brute force and scipy, and by how often they are right."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from hf_sched.finetune.evaluation.statistics import (
    bootstrap,
    difference,
    pass_at_k,
    wilson,
)


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample():
    for samples in range(1, 8):
        for right, k in product(range(samples + 1), range(1, samples + 1)):
            draws = list(combinations([True] * right + [False] * (samples - right), k))
            assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)
    assert pass_at_k(2000, 1, 1000) == pytest.approx(0.5)


def test_wilson_of_no_right_answer_reaches_above_zero():
    assert wilson(0, 60) == (0.0, pytest.approx(0.0602, abs=1e-4))


def test_correlated_answers_narrow_the_interval():
    first, second = [1.0] * 50 + [0.0] * 50, [1.0] * 60 + [0.0] * 40
    spans = wilson(50, 100), wilson(60, 100)
    low, high = difference(first, second, *spans)
    unpaired_low, unpaired_high = difference(first, second[::2] + second[1::2], *spans)
    assert high - low < 0.7 * (unpaired_high - unpaired_low)
    assert low > 0 > unpaired_low


@pytest.mark.parametrize(("total", "before", "after"), [(30, 0.1, 0.2), (100, 0.9, 0.95), (400, 0.5, 0.55)])
def test_interval_of_a_difference_covers_95_percent(total: int, before: float, after: float):
    rng, held = np.random.default_rng(0), 0
    for _ in range(500):
        luck = rng.random(total)
        first = luck < before
        second = np.where(rng.random(total) < 0.8, luck, rng.random(total)) < after
        low, high = difference(first, second, wilson(first.sum(), total), wilson(second.sum(), total))
        held += low <= after - before <= high
    assert 0.93 <= held / 500 <= 1


def test_bootstrap_of_pass_at_k_covers_95_percent():
    rng, held = np.random.default_rng(0), np.zeros(2)
    truth = np.mean(1 - (1 - rng.beta(0.5, 0.5, 1_000_000)) ** 4)
    for _ in range(150):
        chances = rng.beta(0.5, 0.5, 100)  # most problems are nearly always or nearly never right
        first, second = ([pass_at_k(8, int(c), 4) for c in rng.binomial(8, chances)] for _ in range(2))
        span = bootstrap(first)
        by = difference(first, second, span, bootstrap(second))
        held += [span[0] <= truth <= span[1], by[0] <= 0 <= by[1]]
    assert (held / 150 >= 0.9).all() and (held / 150 < 1).all()


def test_bootstrap_equals_scipy():
    values = np.random.default_rng(0).beta(2, 5, 80)
    expected = stats.bootstrap([values], np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    np.testing.assert_allclose(bootstrap(values), expected, atol=0.003)
    assert bootstrap(values) == bootstrap(list(values)[::-1]), "neither order nor chance decides it"


def test_bootstrap_of_equal_shares_is_wilson():
    assert bootstrap([1.0] * 20) == wilson(20, 20)
    assert bootstrap([0.3] * 25) == (wilson(7, 25)[0], wilson(8, 25)[1])
    assert bootstrap([-2.0] * 25) == (-2.0, -2.0)
    assert difference([1, 0] * 4, [1, 0] * 4, wilson(4, 8), wilson(4, 8))[0] < 0, "eight problems do not show equality"
    same = difference([0.0] * 20, [0.0] * 20, bootstrap([0.0] * 20), bootstrap([0.0] * 20))
    assert same == (-wilson(0, 20)[1], wilson(0, 20)[1])
