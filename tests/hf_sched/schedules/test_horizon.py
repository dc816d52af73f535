"""A horizon apart from the length of the run, durations in samples and tokens, and runs without a known length."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import hf_sched
from hf_sched import ArgumentError, DurationUnknown, Schedule, build
from hf_sched.schedules import registry
from hf_sched.schedules.horizon import HorizonReader
from hf_sched.schedules.schedule import OPEN
from hf_sched.schedules.validation import Amount, DurationReader, StepUnits, as_steps
from tests.helpers.catalog import CATALOGUE, example

STEPS, PEAK = 120, 1e-3
pytestmark = pytest.mark.filterwarnings("ignore:cosine_(restarts|cyclic):UserWarning")
every_schedule = pytest.mark.parametrize("name", CATALOGUE)


def laid_out(name: str, steps: int | None, horizon: object = None) -> Schedule:
    return build(name, num_training_steps=steps, **example(name), horizon=horizon)


@every_schedule
@pytest.mark.parametrize("steps", [STEPS // 3, STEPS - 1, STEPS, STEPS + 1, 3 * STEPS])
def test_a_run_of_any_length_follows_the_curve_of_its_horizon_and_then_keeps_the_last_level(name, steps):
    whole, schedule = laid_out(name, STEPS), laid_out(name, steps, STEPS)
    curve, expected = schedule.curve(peak=PEAK), whole.curve(peak=PEAK)
    assert (schedule.horizon, schedule.num_training_steps, len(curve)) == (STEPS, steps, steps)
    assert curve[:STEPS].tolist() == expected[:steps].tolist()
    assert (curve[STEPS:] == expected[-1]).all()
    assert [schedule.lr(step, peak=PEAK) for step in range(steps)] == curve.tolist()
    # The curve is the same value, whatever the run.
    assert schedule == whole and hash(schedule) == hash(whole) and schedule.has_same_curve(whole)
    assert laid_out(name, steps, f"{STEPS / steps!r}x") == whole


@every_schedule
def test_the_text_of_a_schedule_has_its_horizon_if_the_run_has_another_length(name):
    whole, schedule = laid_out(name, STEPS), laid_out(name, 50, STEPS)
    assert str(schedule) == f"{whole}; horizon {STEPS}"
    again = Schedule.parse(str(schedule), num_training_steps=50)
    assert (again, again.num_training_steps, str(again)) == (whole, 50, str(schedule))
    assert again.curve(peak=PEAK).tolist() == schedule.curve(peak=PEAK).tolist()
    assert build("phases", phases=str(schedule), num_training_steps=50) == schedule
    assert Schedule.parse(str(schedule)).num_training_steps is None
    assert laid_out(name, None, STEPS) == whole


def test_a_horizon_lays_out_the_trainers_warmup_and_the_curve_in_any_notation():
    expected = build("wsd", num_training_steps=200, num_warmup_steps=20, decay="30%")
    for text in ("wsd:decay=30%,horizon=200", "wsd:decay=30%,horizon=2x", 'wsd:{"decay": 0.3, "horizon": "2.0 x"}'):
        assert build(text, num_training_steps=100, num_warmup_steps=20) == expected
    for text in ("hold | decay 30% 1-sqrt; horizon 200", "hold|decay 60 1-sqrt;horizon  2x"):
        assert build(text, num_training_steps=100, num_warmup_steps=20) == expected
    units = {"samples_per_step": 10, "tokens_per_step": 640, "steps_per_epoch": 50}
    for horizon in ("2k samples", "128k tok", "4ep", " 200 ", 200.0):
        assert build("wsd:decay=30%", num_training_steps=100, num_warmup_steps=20, horizon=horizon, **units) == expected
    with pytest.raises(ArgumentError, match=r"`num_warmup_steps` must be less than `horizon` \(20\), received 30"):
        build("wsd", num_training_steps=100, num_warmup_steps=30, horizon=20)


@pytest.mark.parametrize("wrong", [0, -5, "0x", "-1x", "x", "two", 1.5, "50%", True, "nanx", "0 tok", [2], "1e30x"])
def test_a_wrong_horizon_is_an_error_that_names_it(wrong):
    with pytest.raises(ArgumentError, match=r"^`horizon` must be ") as caught:
        build("wsd", num_training_steps=100, horizon=wrong)
    assert caught.value.name == "horizon"


def test_a_second_horizon_is_an_error():
    with pytest.raises(ArgumentError, match=r"`horizon` is given twice: the phases have one already, received 5"):
        build("phases", num_training_steps=9, phases="hold; horizon 5", horizon=5)
    with pytest.raises(ArgumentError, match=r"`after_kwargs` has a `horizon` for `after` 'wsd'"):
        build("gradual_warmup", num_training_steps=100, after="wsd", after_kwargs={"horizon": 50})
    with pytest.raises(ArgumentError, match=r"has 'horizon' twice"):
        Schedule.parse("hold; horizon 5; horizon 6")


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        *((text, 100_000, "samples") for text in ("100k samples", "100000 sample", "1e5samples", " 0.1 M samples ")),
        *(
            (text, 500 * 10**6, "tok")
            for text in ("500e6tok", "500M tok", "0.5B tokens", "500000000 token", "5e-4T tok")
        ),
        *((text, Fraction(3, 2), "ep") for text in ("1.5ep", "1.5 ep")),
    ],
)
def test_amounts_of_data_are_exact_in_one_grammar(text, number, unit):
    amount = DurationReader()("decay", text)
    assert amount == Amount(Fraction(number), unit)
    assert DurationReader()("decay", str(amount)) == HorizonReader()("horizon", text) == amount
    units = {"steps_per_epoch": 6, "samples_per_step": 10_000, "tokens_per_step": 50 * 10**6}
    parsed = Schedule.parse(f"{hf_sched.hold(text)} | decay 1", num_training_steps={"ep": 10}.get(unit, 11), **units)
    assert [segment.steps for segment in parsed.segments] == [9 if unit == "ep" else 10, 1]


@pytest.mark.parametrize(
    "wrong", ["100k", "5 k samples tok", "-5 samples", "k tok", "1m tok", "samples", "3 Tok", "nan tok"]
)
def test_other_units_are_errors(wrong):
    with pytest.raises(ArgumentError, match=r"^`decay` must be .*9k samples, 5M tok"):
        build("wsd", num_training_steps=100, decay=wrong)


def test_samples_and_tokens_are_rounded_to_steps_of_the_effective_batch():
    units = StepUnits(samples_per_step=32, tokens_per_step=1000.5)
    assert [as_steps(f"{n} samples", 9, units) for n in (0, 1, 47, 48, 320)] == [0, 1, 1, 2, 10]
    assert [as_steps(f"{n}tok", 9, units) for n in (1, 1000, 2001, 100_050)] == [1, 1, 2, 100]
    run = {"num_training_steps": 50, "samples_per_step": 32, "tokens_per_step": 1000.5}
    built = build("multistep", milestones=["320 samples", "20010 tok"], **run)
    assert [segment.first for segment in built.segments] == [0, 10, 20]


@pytest.mark.parametrize(
    ("duration", "what"),
    [
        ("1ep", "epochs .*`steps_per_epoch`"),
        ("9 samples", "samples .*`samples_per_step`"),
        ("9tok", "tokens .*`tokens_per_step`"),
    ],
)
def test_an_amount_whose_unit_is_unknown_is_an_error_with_a_remedy(duration, what):
    for arguments in ({"decay": duration}, {"horizon": duration}):
        with pytest.raises(DurationUnknown, match=f"`{next(iter(arguments))}` is in {what}"):
            build("wsd", num_training_steps=100, **arguments)


def test_tokens_are_counted_only_if_a_duration_needs_them():
    calls = []

    def count() -> float:
        calls.append(1)
        raise ValueError("the data are streamed: write steps")

    units = StepUnits(count_tokens=count)
    assert as_steps(5, 100, units) == 5 and not calls
    with pytest.raises(
        DurationUnknown, match=r"`decay` is in tokens \(5000tok\), but the data are streamed: write steps"
    ):
        registry.entry("wsd").build(100, 0, {"decay": "5k tok"}, units)
    assert calls


OPEN_ENDED = {
    "warmup 50 | hold": "warmup 50 | hold",
    "hold at 0.5": "hold at 0.5",
    "gradual_warmup:warmup=50": "warmup 50 | hold",
    "multistep:milestones=[50,80]": "hold 50 | hold 30 at 0.1 | hold at 0.010000000000000002",
    "warmup 50 | decay 400 inverse_sqrt 8 to 0.25": "warmup 50 | decay 400 inverse_sqrt 8.0 to 0.25; horizon 450",
    "wsd:horizon=500": "hold 400 | decay 100 1-sqrt; horizon 500",
}


@pytest.mark.parametrize("text", OPEN_ENDED)
def test_a_run_without_a_known_length_has_a_curve_for_any_number_of_steps(text):
    schedule = build(text, num_training_steps=None)
    assert (str(schedule), schedule.num_training_steps) == (OPEN_ENDED[text], None)
    assert Schedule.parse(str(schedule)) == schedule
    known = build(text, num_training_steps=2000) if schedule.horizon is None else schedule.in_run(2000)
    curve = schedule.curve(2000, peak=PEAK)
    assert curve.tolist() == known.curve(2000, peak=PEAK).tolist() == [schedule.lr(n, peak=PEAK) for n in range(2000)]
    assert schedule.has_same_curve(known) and schedule.in_run(70).curve(peak=PEAK).tolist() == curve[:70].tolist()
    assert schedule.lr(10**12, peak=PEAK) == curve[-1]
    with pytest.raises(ArgumentError, match=r"`steps` is required, because the length of the run is unknown"):
        schedule.curve(peak=PEAK)


@pytest.mark.parametrize(
    "text",
    ["wsd", "cosine_floor", "step:step_size=5", "warmup 5% | hold", "hold | decay 20", "decay every 5%", "one_cycle"],
)
def test_a_schedule_that_needs_a_length_names_the_horizon_as_the_remedy(text):
    with pytest.raises(ArgumentError, match=r"^`num_training_steps` is None, but .* depends on it; give `horizon`, "):
        build(text, num_training_steps=None)
    horizon = "; horizon 100" if " " in text else f"{',' if ':' in text else ':'}horizon=100"
    assert build(text + horizon, num_training_steps=None).horizon == 100
    with pytest.raises(ArgumentError, match=r"`horizon` must be in steps .*, received '2.0x'"):
        build(text + horizon.replace("100", "2x"), num_training_steps=None)


def test_a_last_hold_has_no_end_and_equals_a_hold_of_any_length():
    schedule = build("warmup 5 | hold", num_training_steps=None)
    assert (schedule.horizon, schedule.segments[-1].steps) == (None, OPEN)
    assert np.array_equal(schedule.rates(10**9, 10**9 + 3, np.array([0.5]), np.array([0.0])), [[0.5] * 3])
    for steps in (6, 100):
        known = build("warmup 5 | hold", num_training_steps=steps)
        assert known != schedule and known.has_same_curve(schedule)
    for other in ("warmup 5 | hold at 0.9", "warmup 6 | hold", "warmup 5 | hold 90 | decay 5", "hold"):
        assert not build(other, num_training_steps=100).has_same_curve(schedule)
