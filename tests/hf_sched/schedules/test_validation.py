"""Readers: the canonical form of every value, and a structured error for every wrong one."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hf_sched
from hf_sched.schedules.shapes import DECAY_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import (
    Amount,
    ArgumentError,
    DurationReader,
    DurationUnknown,
    ListOf,
    Number,
    OfType,
    OneOf,
    StepUnits,
    Whole,
    as_steps,
    suggest,
)

HALF = Fraction(1, 2)
UP_OR_DOWN = OneOf(("up", "down"))
SHAPES = ShapeReader(DECAY_SHAPES)
NOT_A_DURATION = (None, "", -1, 1.5, math.nan, 10**400, [5], "101%", "nan%", "-1ep", "ep", "1EP", Fraction(3, 2))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ArgumentError("power", "a number", 5), "`power` must be a number, received 5"),
        (ArgumentError("power", "a number", 5, "use 2"), "`power` must be a number, received 5; use 2"),
        (ArgumentError("power", rule="is required"), "`power` is required"),
        (ArgumentError("power", "a number", Fraction(1, 20)), "`power` must be a number, received '5%'"),
        (DurationUnknown("power", rule="is in epochs", hint="use steps"), "`power` is in epochs; use steps"),
    ],
)
def test_an_argument_error_has_text_and_attributes_and_can_be_pickled(error, text):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and isinstance(copy, ValueError)
    assert str(copy) == str(error) == text == f"`{error.name}` {copy.detail}"
    assert vars(copy) == vars(error)


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        (Number(), "1e-7", 1e-7),
        (Number(0, 1), np.float32(0.5), 0.5),
        (Number(0, 1), " 0.1 ", 0.1),
        (Number(0, 1), "10%", 0.1),
        (Number(0, 1), "7%", 0.07),
        (Whole(), "500.0", 500),
        (Whole(), np.int64(10), 10),
        (Whole(), 2**53, 2**53),
        (UP_OR_DOWN, "up", "up"),
        (OfType(bool, "true or false"), False, False),
        (ListOf(Whole()), ["3", 5.0], (3, 5)),
        (ListOf(DurationReader()), ("1ep", "5%", 7), (Amount(Fraction(1)), Fraction(1, 20), 7)),
        *((DurationReader(), value, 500) for value in (500, "500", 500.0)),
        *((DurationReader(), value, Fraction(1, 20)) for value in (0.05, "0.05", "5%", Fraction(1, 20))),
        *((DurationReader(), value, Amount(HALF)) for value in ("0.5ep", " 0.5 ep ", Amount(HALF))),
        (DurationReader(above_zero=True), 1, 1),
        (DurationReader(), "100%", Fraction(1)),
        (SHAPES, "  1-sqrt ", Shape("1-sqrt")),
        (SHAPES, "exponential", Shape("exponential", math.log(100.0))),
        (SHAPES, "polynomial  2e0", Shape("polynomial", 2.0)),
        (SHAPES, Shape("polynomial", 0.1), Shape("polynomial", 0.1)),
    ],
)
def test_a_reader_returns_the_canonical_form(reader, value, expected):
    result = reader("argument", value)
    assert (type(result), result) == (type(expected), expected)


@pytest.mark.parametrize(
    ("reader", "value", "detail"),
    [
        (Number(), None, "must be a finite number, received None"),
        (Number(), math.nan, "must be a finite number, received nan"),
        (Number(0, 1), "110%", "must be a number from 0 to 1, received '110%'"),
        (Number(0), "10%", "must be a finite number, 0 or more, received '10%'"),
        (Number(0, 1), True, "must be a number from 0 to 1, received True"),
        (Number(0), -0.1, "must be a finite number, 0 or more, received -0.1"),
        (Number(0, unit="a learning rate"), [1], "must be a learning rate, 0 or more, received [1]"),
        (Number(0, above_low=True), 0, "must be a finite number above 0, received 0"),
        (Number(0, 1, above_low=True), 0, "must be a number above 0, 1 at most, received 0"),
        (Whole(1), 0, "must be a whole number, 1 or more, received 0"),
        (Whole(), 2**53 + 2, "must be a whole number, 0 or more, received 9007199254740994"),
        (Whole(), True, "must be a whole number, 0 or more, received True"),
        (UP_OR_DOWN, "dwn", "must be one of up, down, received 'dwn'; did you mean 'down'?"),
        (UP_OR_DOWN, None, "must be one of up, down, received None"),
        (OfType(bool, "true or false"), 1, "must be true or false, received 1"),
        (ListOf(Whole()), [], "must be a list of one or more, each a whole number, 0 or more, received []"),
        (ListOf(Whole()), [1, "x"], "must be a whole number, 0 or more, received 'x'"),
        (SHAPES, "cosine 2", "must be written as 'cosine', received 'cosine 2'"),
        (SHAPES, "cosin", f"must be {SHAPES.allowed}, received 'cosin'; did you mean 'cosine'?"),
        (SHAPES, "polynomial 2 3", "must be written as 'polynomial POWER', received 'polynomial 2 3'"),
        (SHAPES, "polynomial 0", "must be a finite number above 0, received '0'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_an_argument_error_with_what_is_allowed(reader, value, detail):
    with pytest.raises(ArgumentError) as caught:
        reader("argument", value)
    assert (caught.value.name, caught.value.detail) == ("argument", detail)


@pytest.mark.parametrize("value", NOT_A_DURATION)
def test_other_values_are_no_duration(value):
    with pytest.raises(ArgumentError) as caught:
        DurationReader()("decay", value)
    assert caught.value.name == "decay" and caught.value.received is value
    assert caught.value.allowed == (
        "steps (500), a share of the run (5%) or an amount of data (1ep, 9k samples, 5M tok), 0 or more"
    )


@pytest.mark.parametrize("zero", [0, "0", 0.0, "0%", "0ep", "0.0 ep", Fraction(0), Amount(Fraction(0))], ids=repr)
def test_a_period_is_above_zero(zero):
    assert as_steps(zero, 100, StepUnits(10)) == 0
    with pytest.raises(ArgumentError, match=r"`decay` must be .*, above 0, received "):
        DurationReader(above_zero=True)("decay", zero)


@pytest.mark.parametrize(
    ("value", "per_epoch", "steps"),
    [
        *((value, None, 7) for value in (7, "7", 0.07, "7%")),
        *((value, None, steps) for value, steps in ((0.005, 1), (0.0049, 0), ("0.5%", 1), (" 5 % ", 5), (1.0, 1))),
        *(("1ep", 7, 7), ("0.5ep", 7, 4), ("0.49ep", 7, 3), ("3ep", 2.5, 8), ("0.1ep", 3, 1), (Amount(HALF), "7", 4)),
    ],
)
def test_a_duration_is_rounded_to_the_nearest_step_and_half_a_step_upwards(value, per_epoch, steps):
    assert as_steps(value, 100, StepUnits(per_epoch)) == steps


@given(hundredths=st.integers(0, 100), steps=st.integers(1, 10**6), per_epoch=st.integers(1, 10**6))
def test_fractions_and_epochs_are_exact(hundredths, steps, per_epoch):
    # In whole numbers: hundredths * steps / 100, half a step upwards.
    assert as_steps(f"{hundredths}%", steps) == (2 * hundredths * steps + 100) // 200
    in_epochs = (2 * hundredths * per_epoch + 100) // 200
    assert as_steps(f"{hundredths / 100}ep", steps, StepUnits(per_epoch)) == max(in_epochs, min(hundredths, 1))


def test_epochs_need_a_known_and_valid_length():
    with pytest.raises(DurationUnknown, match=r"`warmup` is in epochs \(1ep\), .*`steps_per_epoch`.*\(500\).*\(5%\)"):
        hf_sched.build("warmup_cosine", num_training_steps=100, warmup="1ep")
    for wrong in (0, math.nan, "many"):
        with pytest.raises(ArgumentError, match="`steps_per_epoch` must be a finite number above 0"):
            as_steps("1ep", 100, StepUnits(wrong))


def test_only_a_similar_word_is_suggested():
    assert suggest("zzz", ["linear", "cosine"]) == ""
    assert suggest("linaer", ["linear", "cosine"]) == "did you mean 'linear'?"
