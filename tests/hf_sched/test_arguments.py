"""Wrong arguments: an error names the argument, shows the value and says what is allowed; no nonsense is accepted."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched.arguments import as_steps, did_you_mean

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
    ("value", "steps"),
    [(7, 7), ("7", 7), (0.07, 7), ("7%", 7), (0.005, 1), (0.0049, 0), (0, 0), ("0.5%", 1), (" 5 % ", 5), (1.0, 1)],
)
def test_a_duration_of_100_steps(value, steps):
    assert as_steps(value, 100) == steps


def test_a_word_far_from_all_known_ones_gets_no_suggestion():
    assert did_you_mean("zzz", ["linear", "cosine"]) == "."
    assert did_you_mean("linaer", ["linear", "cosine"]) == "; did you mean 'linear'?"
