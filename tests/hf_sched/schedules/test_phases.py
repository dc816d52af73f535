"""Phases: their levels, durations and shapes, and how they are placed on the steps of a run."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sched import ArgumentError, Phase, Schedule, decay, hold, restart, warmup
from hf_sched.schedules.phases import FLOOR, PEAK, Level
from hf_sched.schedules.validation import DurationUnknown


def from_phases(*phases: Phase, steps: int, **given: object) -> Schedule:
    return Schedule.from_phases(phases, num_training_steps=steps, **given)


def curve(*phases: Phase, steps: int, peak: float = 1.0, **given: object) -> np.ndarray:
    return from_phases(*phases, steps=steps, **given).curve(peak=peak)


def lengths(*phases: Phase, steps: int, **given: object) -> list[tuple[str, int]]:
    return [(segment.kind, segment.steps) for segment in from_phases(*phases, steps=steps, **given).segments]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        *(
            ("peak", PEAK),
            ("floor", FLOOR),
            ("0.0", Level()),
            ("0.5", Level(0.5)),
            ("0.5 + 1.0 floor", Level(0.5, 1.0)),
        ),
        *(
            ("1.0 + 1.0 floor", Level(1.0, 1.0)),
            ("0.25 floor", Level(0, 0.25)),
            ("1e-07 + 2.0 floor", Level(1e-7, 2.0)),
        ),
    ],
)
def test_a_level_is_written_as_it_is_read(text, level):
    assert str(level) == text
    assert level.at(10.0, 3.0) == 10 * level.peak + 3 * level.floor
    for phase in (warmup(5, start=text, to=text), decay(5, start=text, to=text), restart(5, start=text, to=text)):
        assert (phase.start, phase.end) == (level, level)
    assert (hold(5, at=text).start, hold(5, at=level).start) == (level, level)


def test_a_level_may_be_spelt_in_other_ways():
    spelt = {"1": PEAK, 1: PEAK, " 0.5  peak ": Level(0.5), "floor + peak": Level(1, 1), 0: Level()}
    for text, level in (spelt | {"0.25 + 0.25 peak + 3 floor": Level(0.5, 3)}).items():
        assert decay(5, to=text).end == level


def test_scaling_multiplies_the_peak_and_leaves_the_floor():
    assert Level(0.5, 2.0).scaled(3.0) == Level(1.5, 2.0)
    phase = decay("20%", "polynomial 2", start=Level(1.0, 1.0), to=0.1, every=3)
    assert phase.scaled(2.0) == decay("20%", "polynomial 2", start=Level(2.0, 1.0), to=0.2, every=3)
    assert warmup(5, lars=0.1).scaled(2.0) == warmup(5, to=2.0, lars=0.1)
    assert hold(5).scaled(2.0) == hold(5)  # its level is that of the phase before it


def test_a_phase_goes_on_from_where_the_one_before_ended():
    ours = curve(decay(5, to=0.5), hold(3), decay(4), steps=12)
    np.testing.assert_allclose(ours, [1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5, 0.375, 0.25, 0.125, 0], rtol=1e-12)


def test_a_warmup_starts_from_0_or_the_previous_level_or_its_own():
    assert curve(warmup(4), hold(), steps=5).tolist() == [0.25, 0.5, 0.75, 1, 1]
    assert curve(warmup(4, start=0.5), hold(), steps=5).tolist() == [0.625, 0.75, 0.875, 1, 1]
    ours = curve(decay(3, to=0.2), warmup(4, to=0.6), decay(), steps=9)
    np.testing.assert_allclose(ours, [1, 0.6, 0.2, 0.3, 0.4, 0.5, 0.6, 0.3, 0.0], rtol=1e-12)
    assert curve(decay(3), warmup(4, start="floor"), hold(), steps=8, floor_ratio=0.5)[3:7].tolist() == [
        *(0.625, 0.75, 0.875, 1)
    ]


def test_a_hold_may_jump_to_another_level():
    ours = curve(hold(2), hold(2, at=0.25), hold(1), hold(1, at="floor"), decay(2), steps=8, floor_ratio=0.125)
    assert ours.tolist() == [1, 1, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125]


def test_a_restart_trains_its_first_step_at_its_own_peak_and_its_last_at_the_floor():
    ours = curve(decay(4), restart(5, start=0.5), restart(3, "linear", to=0.25), steps=12, floor_ratio=0.1)
    assert (ours[3], ours[4], ours[8]) == (pytest.approx(0.1), 0.5, pytest.approx(0.1))
    np.testing.assert_allclose(ours[4:9], 0.3 + 0.2 * np.cos(np.pi * np.arange(5) / 4), rtol=1e-12)
    assert ours[9:].tolist() == [1.0, 0.625, 0.25]


def test_a_single_step_that_starts_with_a_jump_keeps_its_start():
    assert curve(decay(1), restart(1, start=0.5), steps=2).tolist() == [1.0, 0.5]
    # One that continues from the previous step is at its end.
    assert curve(hold(1), decay(1), steps=2).tolist() == [1.0, 0.0]


def test_only_a_first_decay_starts_at_any_level():
    assert curve(decay(start="peak + floor"), steps=3, floor_ratio=0.5).tolist() == [1.5, 1, 0.5]
    assert curve(hold(1, at=0.5), decay(start=0.5), steps=3).tolist() == [0.5, 0.25, 0]
    message = r"`start` is wrong in phase 2 \(decay\): the previous phase ended at 0\.5, and only a restart .* 'peak'"
    with pytest.raises(ArgumentError, match=message):
        curve(hold(1, at=0.5), decay(start=1), steps=3)
    assert curve(hold(1, at=0.5), restart(2, start=1), steps=3).tolist() == [0.5, 1, 0]


# Stairs.


def test_stairs_fall_once_per_stair():
    # The first step of a first phase is at the start. A later phase continues from the previous step.
    assert curve(decay(every=2), steps=9).tolist() == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0]
    assert curve(hold(1), decay(every=2), steps=9).tolist() == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0]
    # A last stair may be cut off; it is the end level.
    assert curve(decay(every=3), steps=8).tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 0, 0]
    assert curve(decay(every=1), steps=9).tolist() == curve(decay(), steps=9).tolist()


@pytest.mark.parametrize(("every", "as_steps"), [("10%", 10), ("0.5ep", 6), ("1%", 1), ("0.1%", 1)])
def test_stairs_may_be_shares_and_epochs(every, as_steps):
    ours = from_phases(decay(every=every), steps=101, steps_per_epoch=12)
    assert ours == from_phases(decay(every=as_steps), steps=101)
    assert ours.segments[0].every == as_steps


def test_a_stair_longer_than_its_phase_falls_on_the_last_step():
    for every in (5, 6, 100):
        assert curve(hold(6), decay(5, every=every), steps=11).tolist() == [1] * 10 + [0]
    assert curve(decay(every=5), steps=5).tolist() == [1, 1, 1, 1, 0]


# Geometric.


def test_geometric_has_a_constant_ratio_up_and_down():
    up = curve(warmup(5, "geometric", start=1 / 32), hold(), steps=6)
    np.testing.assert_allclose(up, [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1], rtol=1e-12)
    down = curve(decay(6, "geometric", to=1 / 32), steps=6)
    np.testing.assert_allclose(down, [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32], rtol=1e-12)
    to_the_floor = curve(hold(1), decay(5, "geometric"), steps=6, peak=3e-4, floor_ratio=1 / 32)
    np.testing.assert_allclose(to_the_floor, 3e-4 * down, rtol=1e-12)
    all_numbers = curve(decay(3, "geometric", start=1e200, to=1e-200), steps=3)
    np.testing.assert_allclose(all_numbers, [1e200, 1, 1e-200], rtol=1e-9)
    absolute_floor_elsewhere = curve(decay(3, "geometric", to=0.25), decay(), steps=5, min_lr=0.125)
    assert absolute_floor_elsewhere.tolist() == pytest.approx([1, 0.5, 0.25, 0.1875, 0.125], rel=1e-12)


@pytest.mark.parametrize(
    ("phases", "floor", "message"),
    [
        ([decay(shape="geometric")], {}, r"above 0 that differ, in phase 1 \(decay\), received 'peak to floor'.*0\.0"),
        ([decay(shape="geometric")], {"floor_ratio": 1}, r"above 0 that differ, in phase 1"),
        ([hold(2), decay(shape="geometric")], {"min_lr": 1e-5}, r"in proportion .* in phase 2 .*give `floor_ratio`"),
        ([warmup(2, "geometric"), hold()], {}, r"above 0 .* in phase 1 \(warmup\), received '0\.0 to peak'.*`start`"),
        ([warmup(2, "geometric", start=1), hold()], {}, r"that differ, .* received 'peak to peak'"),
    ],
)
def test_geometric_needs_levels_that_have_a_ratio(phases, floor, message):
    with pytest.raises(ArgumentError, match=message):
        curve(*phases, steps=5, **floor)


# Directions.


@pytest.mark.parametrize(
    ("phases", "given", "name", "part"),
    [
        ([decay(to=1.5)], {}, "phases", "the decay of 5 steps from step 0 on rises from 1.0 to 1.5 at a peak of 1.0"),
        ([hold(2), decay(to=2)], {}, "phases", "the decay of 3 steps from step 2 on rises"),
        ([hold(2), restart(3, start=0.1)], {"floor_ratio": 0.2}, "floor_ratio", "rises from 0.1 to 0.2"),
        ([warmup(2, start=0.5, to=0.1), hold()], {}, "phases", "the warmup of 2 steps from step 0 on falls from 0.5"),
        ([hold(1), warmup(2, to=0.5), hold()], {}, "phases", "the warmup of 2 steps from step 1 on falls from 1.0"),
        ([warmup(2, start="floor", to=0.1), hold()], {"floor_ratio": 0.2}, "floor_ratio", "falls from 0.2 to 0.1"),
    ],
)
def test_a_phase_in_the_wrong_direction_is_named_or_its_floor_is(phases, given, name, part):
    with pytest.raises(ArgumentError) as caught:
        from_phases(*phases, steps=5, **given)
    assert caught.value.name == name
    assert part in str(caught.value)


def test_with_an_absolute_floor_the_direction_depends_on_the_peak():
    schedule = from_phases(hold(2), restart(3, start=0.1), steps=5, min_lr=0.2)
    assert schedule.floor(4.0) == 0.2
    with pytest.raises(ArgumentError, match=r"`min_lr` turns .* the restart .* 0\.1 to 0\.2 at a peak of 1\.0"):
        schedule.floor(1.0)


# Durations.


def test_phases_may_last_epochs():
    phases = [warmup("1ep"), hold(), decay("0.5ep")]
    assert lengths(*phases, steps=20, steps_per_epoch=7) == [("warmup", 7), ("hold", 9), ("decay", 4)]
    with pytest.raises(DurationUnknown, match=r"`duration` is in epochs \(1ep\)"):
        from_phases(*phases, steps=20)
    with pytest.raises(DurationUnknown, match=r"`every` is in epochs \(2ep\)"):
        from_phases(decay(every="2ep"), steps=20)


@given(shares=st.lists(st.integers(1, 50), min_size=1, max_size=6), steps=st.integers(1, 500))
def test_shares_fill_the_run_they_add_up_to(shares, steps):
    # Rounded where phases meet, so that nothing is left over.
    phases = [hold(Fraction(share, sum(shares)), at=1 / (i + 1)) for i, share in enumerate(shares)]
    segments = from_phases(*phases, steps=steps).segments
    assert sum(segment.steps for segment in segments) == steps
    for segment in segments:
        share = Fraction(shares[round(1 / segment.start.peak) - 1], sum(shares))
        assert abs(segment.steps - share * steps) <= 1


@pytest.mark.parametrize(
    ("phases", "steps", "expected"),
    [
        # The last share is too small for a step; the longest phase gives it one.
        ([warmup(3), hold(), decay("1%")], 10, [("warmup", 3), ("hold", 6), ("decay", 1)]),
        ([decay("99%"), decay("1%")], 10, [("decay", 9), ("decay", 1)]),
        # A run of one step has none to give.
        ([hold(), decay("1%")], 1, [("hold", 1)]),
        # A phase that is not the last one, or that lasts 0 steps, gets none.
        ([warmup("1%"), hold(), decay(2)], 10, [("hold", 8), ("decay", 2)]),
        ([hold(), decay("0%")], 10, [("hold", 10)]),
        ([hold(), decay(0)], 10, [("hold", 10)]),
    ],
)
def test_a_last_share_that_rounds_to_no_step_gets_one(phases, steps, expected):
    assert lengths(*phases, steps=steps) == expected


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], r"`phases` take nothing = 0 steps, but the run has 10 \(`num_training_steps` or `horizon`\)"),
        ([decay(4), hold(5)], r"`phases` take decay 4 \+ hold 5 = 9 steps, but the run has 10"),
        ([decay(4), hold(), decay("70%")], r"`phases` take decay 4 \+ decay 7 = 11 steps, but"),
        ([hold(), decay()], "`phases` may omit one duration only, and 2 of them do"),
        ([warmup(10)], "`warmup` must be shorter than the run of 10 steps, received 10"),
    ],
)
def test_phases_that_do_not_fit_the_run_are_wrong(phases, message):
    with pytest.raises(ArgumentError, match=message):
        from_phases(*phases, steps=10)
