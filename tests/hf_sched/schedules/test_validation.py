"""Wrong arguments: an error names the argument, shows the value and says what is allowed; no nonsense is accepted."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched.schedules.validation import (
    DurationReader,
    Epochs,
    EpochsUnknown,
    Flag,
    ListOf,
    MappingReader,
    Number,
    OneOf,
    TextReader,
    Whole,
    as_steps,
    did_you_mean,
)

HALF = Fraction(1, 2)

pytestmark = pytest.mark.filterwarnings("ignore:cosine_restarts:UserWarning")


def build(name: str = "cosine_floor", num_training_steps: object = 100, **kwargs: object) -> hf_sched.Schedule:
    return hf_sched.build(name, num_training_steps=num_training_steps, **kwargs)


def test_numbers_may_come_as_text():
    assert build(min_lr="1e-7") == build(min_lr=1e-7)
    assert build(floor_ratio=" 0.1 ") == build(floor_ratio=0.1)
    assert build(num_training_steps="100", num_warmup_steps=10.0) == build(num_warmup_steps=np.int64(10))
    assert build("cosine_restarts", num_cycles="3") == build("cosine_restarts", num_cycles=3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"floor_ratio": "1e-x"}, "`floor_ratio` must be a number from 0 to 1, received '1e-x'"),
        ({"floor_ratio": 1.5}, "`floor_ratio` must be a number from 0 to 1, received 1.5"),
        ({"floor_ratio": True}, "`floor_ratio` must be a number from 0 to 1, received True"),
        ({"floor_ratio": math.nan}, "`floor_ratio` must be a number from 0 to 1, received nan"),
        ({"min_lr": -1e-5}, "`min_lr` must be a finite number, 0 or more, received -1e-05"),
        ({"min_lr": math.inf}, "`min_lr` must be a finite number, 0 or more, received inf"),
        ({"min_lr": [1]}, r"`min_lr` must be a finite number, 0 or more, received \[1\]"),
        ({"floor_ratio": 0.1, "min_lr": 1e-5}, "the floor is given twice: give either `floor_ratio` or `min_lr`"),
        ({"flor_ratio": 0.1}, r"no argument `flor_ratio` \(received 0.1\); did you mean 'floor_ratio'\?"),
        ({"power": 2}, r"no argument `power` \(received 2\)\. It takes floor_ratio, min_lr\."),
        ({"num_warmup_steps": 100}, r"`num_warmup_steps` must be less than `num_training_steps` \(100\), received 100"),
        ({"num_warmup_steps": -1}, "`num_warmup_steps` must be a whole number, 0 or more, received -1"),
        ({"num_training_steps": 0}, "`num_training_steps` must be a whole number, 1 or more, received 0"),
        ({"num_training_steps": 10.5}, "`num_training_steps` must be a whole number, 1 or more, received 10.5"),
        ({"num_training_steps": None}, "`num_training_steps` must be a whole number, 1 or more, received None"),
        ({"num_training_steps": math.nan}, "`num_training_steps` must be a whole number, 1 or more, received nan"),
        (
            {"name": "warmup_cosine", "warmup": "5%", "num_warmup_steps": 3},
            r"the warmup is given twice: .*`warmup` \('5%'\)",
        ),
        ({"name": "warmup_cosine", "warmup": "100%"}, "`warmup` must be shorter than the run of 100 steps"),
        ({"name": "warmup_cosine", "warmup": 1.5}, "`warmup` must be a number of steps .* received 1.5"),
        ({"name": "warmup_cosine", "warmup": "-5%"}, "`warmup` must be a number of steps .* received '-5%'"),
        (
            {"name": "warmup_cosine", "warmup_shape": "lineer"},
            "`warmup_shape` must be one of .*; did you mean 'linear'",
        ),
        (
            {"name": "warmup_cosine", "warmup_shape": "geometric"},
            "`warmup_start_ratio` must be above 0 .* received 0.0",
        ),
        ({"name": "cosine_restarts", "num_cycles": 0}, "`num_cycles` must be a whole number, 1 or more, received 0"),
        ({"name": "cosine_restarts", "num_cycles": 3, "first_cycle": 9}, "either `num_cycles` or `first_cycle`"),
        ({"name": "cosine_restarts", "first_cycle": 101}, "`first_cycle` must be 2 steps or more and at most the 100"),
        ({"name": "cosine_restarts", "first_cycle": 9, "cycle_multiplier": 0.5}, "`cycle_multiplier` 0.5 shrinks"),
        (
            {"name": "cosine_restarts", "cycle_multiplier": 0},
            "`cycle_multiplier` must be a finite number above 0, received 0",
        ),
        ({"name": "cosine_restarts", "peak_multiplier": 1e300}, r"`peak_multiplier` 1e\+300 grows beyond all numbers"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_write_instead(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 200),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["5%", "-5%", "500%", "%", "1e-7", "nan", "inf", "linear", "geometric", "1e999", "0x10"]),
    st.sampled_from(["1ep", "0.5ep", "0ep", "-1ep", "ep", "nanep", Epochs(HALF), Fraction(1, 20), Fraction(-1, 2)]),
    st.lists(st.integers(), max_size=2),
    st.just(10**400),
)
ARGUMENTS = {
    "cosine_floor": ["floor_ratio", "min_lr"],
    "warmup_cosine": ["warmup", "warmup_shape", "warmup_start_ratio", "floor_ratio", "min_lr"],
    "cosine_restarts": [
        "num_cycles",
        "first_cycle",
        "cycle_multiplier",
        "peak_multiplier",
        "rewarmup",
        "floor_ratio",
        "min_lr",
    ],
}


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_any_argument_makes_a_schedule_or_an_error_that_names_it(data):
    name = data.draw(st.sampled_from(sorted(ARGUMENTS)))
    given_arguments = data.draw(st.dictionaries(st.sampled_from(ARGUMENTS[name]), anything, max_size=3))
    run = {"num_training_steps": data.draw(st.one_of(st.integers(1, 60), anything))}
    run["num_warmup_steps"] = data.draw(st.one_of(st.integers(0, 20), anything))
    run["steps_per_epoch"] = data.draw(st.one_of(st.none(), st.integers(1, 60), anything))
    try:
        schedule = hf_sched.build(name, **run, **given_arguments)
        curve = schedule.curve(peak=1.0) if schedule.num_training_steps < 10_000 else np.array([0.0])
    except ValueError as error:
        # The peak of 1.0 is an argument, too: `min_lr` may be above it.
        assert re.search("|".join(f"`{argument}`" for argument in [*given_arguments, *run]), str(error)), error
    else:
        assert np.isfinite(curve).all()
        assert (curve >= 0).all()
        for argument in ("floor_ratio", "min_lr"):
            assert not isinstance(given_arguments.get(argument), bool)


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_one_wrong_argument_in_a_right_run_is_the_one_that_is_named(data):
    name = data.draw(st.sampled_from(sorted(ARGUMENTS)))
    argument = data.draw(st.sampled_from(ARGUMENTS[name]))
    value = data.draw(anything)
    try:
        schedule = build(name, **{argument: value})
        schedule.lr(0, peak=1.0)
    except ValueError as error:
        assert argument in str(error), error
    else:
        assert schedule.num_training_steps == 100
        assert not isinstance(value, bool)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *((steps, 500) for steps in (500, "500", 500.0, " 500 ", np.int64(500), np.float64(500))),
        *((share, Fraction(1, 20)) for share in (0.05, "0.05", "5%", " 5 % ", Fraction(1, 20))),
        *((epoch, Epochs(HALF)) for epoch in ("0.5ep", ".5ep", " 5e-1 ep ", Epochs(HALF))),
        ("1ep", Epochs(Fraction(1))),
        ("0.1ep", Epochs(Fraction(1, 10))),
        # A whole number counts steps; all of the run is 100%.
        (1, 1),
        (1.0, 1),
        ("100%", Fraction(1)),
        (0, 0),
        ("0%", Fraction(0)),
        ("0ep", Epochs(Fraction(0))),
    ],
)
def test_a_duration_has_one_form(value, kept):
    read = DurationReader()("warmup", value)
    assert (type(read), read) == (type(kept), kept)
    assert DurationReader()("warmup", read) == kept


IS_NO_DURATION = [
    *(None, True, "", "soon", -1, "-1", 1.5, "1.5", math.nan, "nan", math.inf, 10**400, [5], 5j),
    *("-5%", "101%", "%", "nan%", "5%%", "-1ep", "ep", "nanep", "infep", "1 epoch", "1eps", "1EP", "5%ep"),
    *(Fraction(-1, 2), Fraction(3, 2), Epochs(Fraction(-1))),
]


@pytest.mark.parametrize("value", IS_NO_DURATION, ids=repr)
def test_what_is_no_duration_is_refused_with_all_that_one_may_write(value):
    message = '`warmup` must be a number of steps (500), a share of the run (0.05 or "5%") or epochs ("1ep"), 0 or more'
    with pytest.raises(ValueError, match=re.escape(f"{message}, received {value!r}")):
        DurationReader()("warmup", value)


@pytest.mark.parametrize("nothing", [0, "0", 0.0, "0%", "0ep", "0.0 ep", Fraction(0), Epochs(Fraction(0))], ids=repr)
def test_nothing_is_a_duration_only_where_it_may_be(nothing):
    assert as_steps(DurationReader()("warmup", nothing), 100, 10) == 0
    with pytest.raises(ValueError, match=r"`decay` must be a number of steps .*, above 0, received "):
        DurationReader(above_zero=True)("decay", nothing)
    assert DurationReader(above_zero=True)("decay", "1%") == Fraction(1, 100)


@pytest.mark.parametrize(
    ("value", "steps"),
    [(7, 7), ("7", 7), (0.07, 7), ("7%", 7), (0.005, 1), (0.0049, 0), (0, 0), ("0.5%", 1), (" 5 % ", 5), (1.0, 1)],
)
def test_a_duration_of_100_steps(value, steps):
    assert as_steps(value, 100) == steps


@pytest.mark.parametrize(
    ("value", "steps_per_epoch", "steps"),
    [("1ep", 7, 7), ("0.5ep", 7, 4), ("0.49ep", 7, 3), ("3ep", 2.5, 8), ("0.1ep", 30, 3), (Epochs(HALF), "7", 4)],
)
def test_a_duration_in_epochs_is_rounded_to_steps_half_a_step_upwards(value, steps_per_epoch, steps):
    assert as_steps(value, 1000, steps_per_epoch) == steps


@given(hundredths=st.integers(0, 100), steps=st.integers(1, 10**6), per_epoch=st.integers(1, 10**6))
def test_shares_and_epochs_are_exact(hundredths, steps, per_epoch):
    # In whole numbers: hundredths * steps / 100, half a step upwards.
    assert as_steps(f"{hundredths}%", steps) == (2 * hundredths * steps + 100) // 200
    in_epochs = (2 * hundredths * per_epoch + 100) // 200
    assert as_steps(f"{hundredths / 100}ep", steps, per_epoch) == max(in_epochs, min(hundredths, 1))


def test_epochs_of_unknown_length_are_an_error_of_their_own_that_says_what_to_write():
    with pytest.raises(EpochsUnknown, match=r"`duration` is in epochs \(0\.5ep\), but nobody said .*`steps_per_epoch`"):
        as_steps("0.5ep", 100)
    with pytest.raises(
        EpochsUnknown, match=r"`warmup` is in epochs \(1ep\).* or write steps \(500\) or a share .* \(5%\)"
    ):
        build("warmup_cosine", warmup="1ep")
    assert issubclass(EpochsUnknown, ValueError)
    assert as_steps(5, 100) == 5  # but who needs no epochs needs not know


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, "many", True])
def test_a_wrong_length_of_an_epoch_is_named(wrong):
    message = f"`steps_per_epoch` must be a finite number above 0, received {wrong!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        as_steps("1ep", 100, wrong)
    with pytest.raises(ValueError, match=re.escape(message)):
        build("warmup_cosine", warmup="1ep", steps_per_epoch=wrong)


def test_an_argument_in_epochs_is_one_in_steps():
    assert build("warmup_cosine", warmup="1.5ep", steps_per_epoch=9) == build("warmup_cosine", warmup=14)


@pytest.mark.parametrize(
    ("reader", "value", "read"),
    [
        (Number(), "1e-7", 1e-7),
        (Number(0, 1), np.float32(0.5), 0.5),
        (Whole(), "500.0", 500),
        (Whole(), 2**53, 2**53),
        (OneOf(("up", "down")), "up", "up"),
        (TextReader(), "", ""),
        (TextReader(), "5", "5"),
        (Flag(), True, True),
        (Flag(), False, False),
        (MappingReader(), {}, {}),
        (MappingReader(), {"power": 2}, {"power": 2}),
        (ListOf(Whole()), ["3", 5.0], (3, 5)),
        (ListOf(DurationReader()), ("1ep", "5%", 7), (Epochs(Fraction(1)), Fraction(1, 20), 7)),
    ],
)
def test_a_reader_gives_back_the_one_form(reader, value, read):
    result = reader("argument", value)
    assert (type(result), result) == (type(read), read)


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        (Number(), None, "`argument` must be a finite number, received None"),
        (Number(0, 1), "", "`argument` must be a number from 0 to 1, received ''"),
        (Number(0), -0.1, "`argument` must be a finite number, 0 or more, received -0.1"),
        (Number(0, above_low=True), 0, "`argument` must be a finite number above 0, received 0"),
        (Number(0, 1, above_low=True), 0, "`argument` must be a number above 0, 1 at most, received 0"),
        (Whole(1), 0, "`argument` must be a whole number, 1 or more, received 0"),
        (Whole(), 2**53 + 1, "`argument` must be a whole number from 0 to 9007199254740992, received 9007199254740993"),
        (Whole(), True, "`argument` must be a whole number, 0 or more, received True"),
        (OneOf(("up", "down")), "dwn", r"`argument` must be one of up, down, received 'dwn'; did you mean 'down'\?"),
        (OneOf(("up", "down")), None, r"`argument` must be one of up, down, received None\."),
        (TextReader(), 5, "`argument` must be text, received 5"),
        (TextReader(), None, "`argument` must be text, received None"),
        (Flag(), 1, "`argument` must be true or false, received 1"),
        (Flag(), "true", "`argument` must be true or false, received 'true'"),
        (MappingReader(), [("power", 2)], r"`argument` must be a mapping of arguments by name, received \["),
        (MappingReader(), {1: 2}, r"`argument` must be a mapping of arguments by name, received {1: 2}"),
        (ListOf(Whole()), [], r"`argument` must be a list of one or more, received \[\]"),
        (ListOf(TextReader()), "text", "`argument` must be a list of one or more, received 'text'"),
        (ListOf(Whole()), [1, "x"], r"`argument\[1\]` must be a whole number, 0 or more, received 'x'"),
    ],
)
def test_a_reader_names_what_it_refuses_and_says_what_it_takes(reader, value, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        reader("argument", value)


def test_a_mapping_that_was_read_is_ones_own():
    given_arguments = {"power": 2}
    read = MappingReader()("after_kwargs", given_arguments)
    read["power"] = 3
    assert given_arguments == {"power": 2}


def test_a_word_far_from_all_known_ones_gets_no_suggestion():
    assert did_you_mean("zzz", ["linear", "cosine"]) == "."
    assert did_you_mean("linaer", ["linear", "cosine"]) == "; did you mean 'linear'?"
