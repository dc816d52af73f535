"""Phases: the words that schedules of one's own are written in, and how they are laid on a run."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from hf_sched import FLOOR, PEAK, Level, Phase, Schedule, decay, hold, restart, warmup


def curve(*phases: Phase, steps: int, peak: float = 1.0, **floor: float) -> np.ndarray:
    return Schedule.lay(phases, num_training_steps=steps, **floor).curve(peak=peak)


def test_a_level_is_shares_of_peak_and_floor():
    assert Level(0.5, 2.0).at(10.0, 3.0) == 11.0
    assert (PEAK.at(10.0, 3.0), FLOOR.at(10.0, 3.0), Level().at(10.0, 3.0)) == (10.0, 3.0, 0.0)
    assert [str(level) for level in (PEAK, FLOOR, Level(0.5), Level(0.5, 1.0))] == [
        "peak",
        "floor",
        "0.5",
        "0.5 + 1.0 floor",
    ]


def test_a_levels_numbers_may_come_as_text_like_all_others():
    assert Level("0.5", "2").at(10.0, 3.0) == 11.0


@pytest.mark.parametrize("level", [(-1.0, 0.0), (0.0, -1.0)])
def test_a_level_is_never_negative(level):
    # `Level` says that both factors are 0 or more; a negative one trains at a negative learning rate.
    with pytest.raises(ValueError, match=r"0 or more, received -1\.0"):
        curve(decay(to=Level(*level)), steps=5, floor_ratio=0.1)


def test_warmup_hold_decay_is_its_closed_form():
    ours = curve(warmup("10%"), hold(), decay("20%", "1-sqrt"), steps=100, peak=3e-4, floor_ratio=0.1)
    rising = [(k + 1) / 10 for k in range(10)]
    falling = [0.1 + 0.9 * (1 - math.sqrt((j + 1) / 20)) for j in range(20)]
    np.testing.assert_allclose(ours, 3e-4 * np.array([*rising, *[1.0] * 70, *falling]), rtol=1e-12)


def test_a_phase_goes_on_from_where_the_one_before_ended():
    ours = curve(decay(5, to=0.5), hold(3), decay(4), steps=12)
    np.testing.assert_allclose(ours, [1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5, 0.375, 0.25, 0.125, 0], rtol=1e-12)


def test_a_warmup_may_start_where_the_phase_before_ended():
    ours = curve(decay(3, to=0.2), warmup(4, start_ratio=None, peak_ratio=0.6), decay(), steps=9)
    np.testing.assert_allclose(ours, [1, 0.6, 0.2, 0.3, 0.4, 0.5, 0.6, 0.3, 0.0], rtol=1e-12)


def test_a_restart_trains_its_first_step_at_its_own_peak_and_its_last_at_the_floor():
    ours = curve(decay(4), restart(5, peak_ratio=0.5), restart(3, "linear", to=0.25), steps=12, floor_ratio=0.1)
    assert (ours[3], ours[4], ours[8]) == (pytest.approx(0.1), 0.5, pytest.approx(0.1))
    np.testing.assert_allclose(ours[4:9], 0.3 + 0.2 * np.cos(np.pi * np.arange(5) / 4), rtol=1e-12)
    assert ours[9:].tolist() == [1.0, 0.625, 0.25]


def test_a_single_step_that_starts_with_a_jump_keeps_its_start():
    assert curve(decay(1), restart(1, peak_ratio=0.5), steps=2).tolist() == [1.0, 0.5]
    # But one that goes on from the step before it is a step on the way: its last.
    assert curve(hold(1), decay(1), steps=2).tolist() == [1.0, 0.0]


def test_a_hold_at_the_start_is_at_the_peak():
    assert curve(hold(), steps=3, peak=0.3).tolist() == [0.3, 0.3, 0.3]


def test_a_phase_of_no_steps_leaves_no_trace():
    assert curve(warmup(0), hold("0%"), decay(), steps=7).tolist() == curve(decay(), steps=7).tolist()


@pytest.mark.parametrize(
    ("given", "kept"),
    [(500, 500), ("500", 500), (500.0, 500), (0.05, Fraction(1, 20)), ("5%", Fraction(1, 20)), (1, 1), ("100%", 1)],
)
def test_a_duration_is_kept_as_steps_or_as_an_exact_share(given, kept):
    for phase in (warmup(given), hold(given), decay(given), restart(given)):
        assert phase.duration == kept
        assert type(phase.duration) is (Fraction if given in (0.05, "5%", "100%") else int)


def test_a_share_of_all_and_one_step_are_not_the_same():
    assert curve(hold("100%"), steps=3).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="hold 1 = 1 steps, but the run has `num_training_steps` = 3"):
        curve(hold(1), steps=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: warmup("soon"), r"`duration` must be a number of steps \(500\) or a share .* received \'soon\'"),
        (lambda: warmup(None), "`duration` must be a number of steps .* received None"),
        (lambda: hold(-1), "`duration` must be .* received -1"),
        (lambda: decay(True), "`duration` must be .* received True"),
        (lambda: decay(math.nan), "`duration` must be .* received nan"),
        (lambda: decay(1.5), "`duration` must be .* received 1.5"),
        (lambda: warmup(5, "cosin"), r"`shape` must be one of linear, .*received 'cosin'; did you mean 'cosine'\?"),
        (lambda: decay(5, "sqrt"), r"`shape` must be one of linear, cosine, 1-sqrt, received 'sqrt'"),
        (lambda: restart(5, None), "`shape` must be one of .* received None"),
        (lambda: warmup(5, "geometric"), "`start_ratio` must be above 0 and below the end .* received 0.0"),
        (lambda: warmup(5, "geometric", start_ratio=None), "`start_ratio` must be above 0 .* received None"),
        (lambda: warmup(5, "geometric", start_ratio=1), "`start_ratio` must be above 0 and below .* received 1"),
        (lambda: warmup(5, start_ratio=-0.1), "`start_ratio` must be a finite number, 0 or more, received -0.1"),
        (lambda: warmup(5, peak_ratio=math.inf), "`peak_ratio` must be a finite number, 0 or more, received inf"),
        (lambda: restart(5, peak_ratio="high"), "`peak_ratio` must be a finite number, 0 or more, received 'high'"),
        (lambda: decay(5, to=-1), "`to` must be a finite number, 0 or more, received -1"),
        (lambda: decay(5, to=True), "`to` must be a finite number, 0 or more, received True"),
    ],
)
def test_a_wrong_word_is_named_with_what_to_write_instead(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        ({"floor_ratio": 2.0}, r"`floor_ratio` .*2\.0"),
        ({"floor_ratio": "much"}, r"`floor_ratio` must be .*received 'much'"),
        ({"min_lr": -1.0}, r"`min_lr` must be .*received -1\.0"),
        ({"min_lr": "low"}, r"`min_lr` must be .*received 'low'"),
    ],
)
def test_a_wrong_floor_is_refused_where_phases_are_laid_by_hand_too(floor, message):
    # `Schedule.lay` is public: a `min_lr` of -1 there would train at negative learning rates.
    with pytest.raises(ValueError, match=message):
        curve(hold(2), decay(), steps=5, **floor)
