"""Intervals and tests against brute force, against scipy, and by how often they are right."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from hf_sched.finetune.evaluation.statistics import (
    Interval,
    bootstrap,
    bootstrap_difference,
    difference,
    mcnemar,
    pass_at_k,
    wilson,
)


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample():
    for samples in range(1, 8):
        for right, k in product(range(samples + 1), range(1, samples + 1)):
            draws = list(combinations([True] * right + [False] * (samples - right), k))
            assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)
    assert pass_at_k(2000, 1, 1000) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 5])
def test_k_is_at_most_the_number_of_samples(k: int):
    with pytest.raises(ValueError, match=rf"`k` must be between 1 and the number of samples, 4, received {k}"):
        pass_at_k(4, 1, k)


def test_wilson_is_the_score_test_turned_round():
    stats = pytest.importorskip("scipy.stats")
    for total in (1, 7, 100, 1319):
        for right in {0, 1, total // 3, total - 1, total}:
            expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
            np.testing.assert_allclose(wilson(right, total), (expected.low, expected.high), atol=1e-12)
    assert wilson(0, 60) == (0.0, pytest.approx(0.0602, abs=1e-4))
    with pytest.raises(ValueError, match=r"received 3 of 2"):
        wilson(3, 2)


def test_mcnemar_counts_the_splits_that_are_as_uneven():
    for gained, lost in product(range(7), repeat=2):
        changed = gained + lost
        splits = [sum(split) for split in product((0, 1), repeat=changed)]
        uneven = sum(abs(2 * split - changed) >= abs(gained - lost) for split in splits)
        assert mcnemar(gained, lost) == pytest.approx(uneven / len(splits))
    assert 0 < mcnemar(1000, 100) < 1e-150


def test_a_difference_turned_round_changes_its_sign():
    first, second = [1, 1, 0, 0, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1, 1]
    spans = wilson(5, 8), wilson(7, 8)
    low, high = difference(first, second, *spans)
    assert difference(second, first, *reversed(spans)) == pytest.approx((-high, -low))
    assert low < 0.25 < high
    same = difference(first, first, spans[0], spans[0])
    assert same.low < 0 < same.high, "eight problems do not show that two models are equal"


def test_answers_that_agree_make_a_difference_surer():
    first, second = [1.0] * 50 + [0.0] * 50, [1.0] * 60 + [0.0] * 40
    spans = wilson(50, 100), wilson(60, 100)
    paired = difference(first, second, *spans)
    unpaired = difference(first, second[::2] + second[1::2], *spans)
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)
    assert paired.low > 0 > unpaired.low


@pytest.mark.parametrize(("total", "before", "after"), [(30, 0.1, 0.2), (100, 0.9, 0.95), (400, 0.5, 0.55)])
def test_an_interval_of_a_difference_holds_it_95_times_in_100(total: int, before: float, after: float):
    rng, held = np.random.default_rng(0), 0
    for _ in range(500):
        luck = rng.random(total)
        first = luck < before
        second = np.where(rng.random(total) < 0.8, luck, rng.random(total)) < after
        span = difference(first, second, wilson(first.sum(), total), wilson(second.sum(), total))
        held += span.low <= after - before <= span.high
    assert 0.93 <= held / 500 <= 1


def test_the_bootstrap_holds_pass_at_k_95_times_in_100():
    rng, held = np.random.default_rng(0), np.zeros(2)
    truth = np.mean(1 - (1 - rng.beta(0.5, 0.5, 1_000_000)) ** 4)
    for _ in range(150):
        chances = rng.beta(0.5, 0.5, 100)  # most problems are nearly always or nearly never right
        first, second = ([pass_at_k(8, int(c), 4) for c in rng.binomial(8, chances)] for _ in range(2))
        span, by = bootstrap(first), bootstrap_difference(first, second)
        held += [span.low <= truth <= span.high, by.low <= 0 <= by.high]
    assert (held / 150 >= 0.9).all() and (held / 150 < 1).all()


def test_the_bootstrap_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).beta(2, 5, 80)
    expected = stats.bootstrap([values], np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    np.testing.assert_allclose(bootstrap(values), expected, atol=0.003)
    assert bootstrap(values) == bootstrap(list(values)[::-1]), "neither order nor chance decides it"


def test_where_all_problems_agree_the_bootstrap_is_not_sure_of_it():
    assert bootstrap([1.0] * 20) == wilson(20, 20)
    assert bootstrap_difference([0.0] * 20, [0.0] * 20) == Interval(-wilson(0, 20).high, wilson(0, 20).high)
