"""Wrong arguments of every schedule of the catalogue: an `ArgumentError` with the argument's name, or a valid schedule.

The other arguments are those of the example in the schedule's docstring, so a new schedule is tested here at once.
"""

from __future__ import annotations

import inspect
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched import ArgumentError, Schedule
from hf_sched.schedules import registry
from hf_sched.schedules.phases import KINDS
from hf_sched.schedules.shapes import FORMS, Shape
from hf_sched.schedules.validation import Amount
from tests.helpers.catalog import CATALOGUE, EXCLUSIVE, example

STEPS = 100
OF_THE_RUN = (
    *("num_training_steps", "num_warmup_steps"),
    *("steps_per_epoch", "samples_per_step", "tokens_per_step"),
)
each_argument = pytest.mark.parametrize(
    ("name", "argument"),
    [
        pytest.param(name, argument, id=f"{name}-{argument}")
        for name in CATALOGUE
        for argument in (*registry.entry(name).arguments, *OF_THE_RUN)
    ],
)
# Arguments that must fit together, so that an error may name another one of the group.
FIT_TOGETHER = (
    {"gamma", "decay_rate", "floor_ratio"},
    {"num_cycles", "cycle_multiplier", "rewarmup"},
    {"decay", "anneal"},
    {"after", "after_kwargs"},
)
pytestmark = pytest.mark.filterwarnings("ignore:cosine_(restarts|cyclic):UserWarning")
often = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def usual(name: str, *others: str) -> dict[str, Any]:
    """The arguments of a schedule's example, without those that exclude others."""
    arguments = {"num_training_steps": STEPS, **example(name)}
    for group in EXCLUSIVE:
        for argument in arguments.keys() & group if group & {*others} else ():
            del arguments[argument]
    return arguments


def error_of(name: str, **arguments: object) -> ArgumentError | None:
    """The error that the arguments of a schedule raise. Without one, the schedule is checked."""
    try:
        check(hf_sched.build(name, **usual(name, *arguments) | arguments))
    except ArgumentError as error:
        assert str(error).startswith(f"`{error.name}` ")
        return error
    return None


def check(schedule: Schedule) -> None:
    """The learning rates are finite and not negative."""
    last = schedule.num_training_steps - 1
    if last < 1000:
        rates = schedule.curve(peak=1.0)
    else:
        rates = np.array([schedule.lr(step, peak=1.0) for step in (0, 1, last // 2, last - 1, last, last + 1)])
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()


def may_be_named(argument: str, name: str) -> set[str]:
    """The arguments that an error may name if `argument` is wrong."""
    if argument in (*OF_THE_RUN, "horizon"):  # another argument may not fit into the run
        return {argument, *registry.entry(name).arguments}
    return {argument}.union(*(group for group in FIT_TOGETHER if argument in group))


# fmt: off
NONSENSE = [
    True, False, np.True_, -1, -0.5, 1e-400 - 1, 5j, Decimal(2), 10**400, -(10**400), Fraction(-1, 2),
    math.nan, math.inf, -math.inf, np.float32("nan"), np.array([0.1, 0.2]), "", " ", "\0", b"", b"5%", bytearray(b"1"),
    "much", "yes", "True", "None", "nan", "inf", "-inf", "-1", "-5%", "-1ep", "1e400", "0.1.2", "5 %%", "0x10", "1/2",
    "1,5", "[1]", "{}", "1e-x", "1 2", "%", "ep", "1eps",
    "lambda: 1", "__import__('os')", [], [[]], [[1]], [None], ["much"], [True], [math.nan], (), (-1,), {1, 2},
    frozenset(), {1: 2}, {"much": 1}, {"": None}, object, len, slice(1), range(3), Ellipsis, NotImplemented,
]
# fmt: on


@each_argument
def test_nonsense_is_an_error_that_names_the_argument_and_shows_the_value(name, argument):
    for value in NONSENSE:
        error = error_of(name, **{argument: value})
        assert error is not None, f"{name} takes {value!r} for `{argument}`"
        assert error.name == argument, f"{value!r} for `{argument}`: {error}"
        shown = value[0] if isinstance(value, (list, tuple)) and value else value
        shown = "-50%" if isinstance(value, Fraction) else shown
        assert repr(shown) in str(error) or argument in ("phases", "after_kwargs"), f"{value!r} is not shown: {error}"


@each_argument
def test_none_means_the_default_and_is_an_error_if_there_is_none(name, argument):
    error = error_of(name, **{argument: None})
    parameter = registry.entry(name).parameters.get(argument)
    required = parameter is not None and parameter.default is inspect.Parameter.empty
    # `timescale` has no warmup to take its length from, and exponential needs one of its arguments.
    required |= argument == "timescale" or (name == "exponential" and argument == "floor_ratio")
    if required or argument in ("num_training_steps", "num_warmup_steps"):
        assert error is not None and error.name == argument
    elif argument == "after":
        assert error is None or error.name == "after"
    else:
        assert error is None or name == "exponential"


EXTREMES = [0, 1, 5e-324, 1e-300, 0.5, 1 - 1e-16, 1.0, 2, STEPS - 1, STEPS, STEPS + 1, 2**53, 1e300, 1.7e308]


@each_argument
def test_extreme_numbers_make_a_valid_schedule_or_an_error_that_names_the_argument(name, argument):
    for value in EXTREMES:
        as_text = value if argument == "phases" else repr(value)
        errors = [error_of(name, **{argument: value}), error_of(name, **{argument: as_text})]
        assert (errors[0] is None) == (errors[1] is None)  # numbers may be text
        for error in filter(None, errors):
            assert error.name in may_be_named(argument, name), f"{value!r} for `{argument}`: {error}"


phase_texts = ["hold", "warmup 5% | decay", "decay 10 | hold | restart 5", "hold | | decay", "decay;", "polynomial 2"]
with_units = st.tuples(st.integers(-10, 120) | st.floats(0, 100), st.sampled_from(["%", "ep", " %", " 5", "%%"]))
durations = with_units.map(lambda both: f"{both[0]}{both[1]}")
anything = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-5, 200),
        st.integers(),
        st.floats(),
        st.floats(0, 1),
        st.integers(-10, 200).map(str),
        st.floats().map(repr),
        st.text(max_size=8),
        durations,
        st.fractions(),
        st.fractions(0, 3).map(Amount),
        st.sampled_from([*NONSENSE, *EXTREMES, *FORMS, *CATALOGUE, *phase_texts]),
        st.sampled_from([np.float64(0.1), np.int64(7), np.bool_(True), np.array(3), Shape("cosine"), -(10**400)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["", "floor_ratio", "decay", "hold", "shape"]), inner, max_size=2),
        st.tuples(inner),
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("name", CATALOGUE)
@often
@given(data=st.data())
def test_any_values_make_a_valid_schedule_or_an_error_that_names_an_argument(name, data):
    known = [*registry.entry(name).arguments, *OF_THE_RUN]
    arguments = data.draw(st.dictionaries(st.sampled_from(known), anything, min_size=1, max_size=4))
    error = error_of(name, **arguments)
    assert error is None or error.name in known, error


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cosine_floor", {"floor_ratio": "110%"}, "`floor_ratio` must be a share of the peak from 0 to 1, received '1"),
        ("cosine_floor", {"num_warmup_steps": 100},
         "`num_warmup_steps` must be less than `num_training_steps` (100), received 100; shorten the warmup (a Traine"),
        ("warmup_cosine", {"warmup": "100%"}, "`warmup` must be shorter than the run of 100 steps, received 100"),
        ("warmup_cosine", {"warmup": "5%", "num_warmup_steps": 5},
         "`warmup` sets a second warmup beside the Trainer's `warmup_steps` 5, received '5%'; give one of them"),
        ("warmup_cosine", {"warmup_shape": "geometric"},
         "`warmup_shape` cannot be used here: `shape` 'geometric' needs levels above 0 that differ, in phase 1 (warmu"),
        ("cosine_restarts", {"num_cycles": 2, "first_cycle": "20%"},
         "`first_cycle` cannot be combined with `num_cycles` 2, received '20%'; give one of them"),
        ("cosine_restarts", {"num_cycles": 60},
         "`num_cycles` must leave each of the cycles in 100 steps 2 steps or more, received 60; use fewer"),
        ("cosine_cyclic", {"half_period": "2ep", "steps_per_epoch": 100},
         "`half_period` must be 1 step or more and at most the 100 steps after the warmup, received 200"),
        ("exponential", {"gamma": 0.9, "decay_rate": 1},
         "`gamma` must be the only one of `gamma`, `decay_rate` and `floor_ratio`, received gamma: 0.9, decay_rate: 1"),
        ("step", {"step_size": None}, "`step_size` is required by step"),
        # What transformers' schedules call it.
        ("cosine_floor", {"min_lr_rate": 0.1},
         "`min_lr_rate` is not an argument of cosine_floor, received 0.1; did you mean 'floor_ratio'?"),
        ("wsd", {"min_lr_ratio": 0.1},
         "`min_lr_ratio` is not an argument of wsd, received 0.1; did you mean 'floor_ratio'?"),
        ("step", {"stepsize": 5}, "`stepsize` is not an argument of step, received 5; did you mean 'step_size'? step"),
        ("multistep", {"milestones": "50%"}, "`milestones` must be a list of one or more, each steps (500), a share"),
        ("wsd", {"decay": 200},
         "`decay` cannot be used here: `phases` take decay 200 = 200 steps, but the run has 100"),
        ("wsd", {"decay_shape": "geometric"}, "`decay_shape` cannot be used here: `shape` 'geometric' needs levels ab"),
        ("inverse_sqrt_cooldown", {"timescale": None}, "`timescale` must be 1 step or more, received None; the defaul"),
        ("inverse_sqrt_cooldown", {"cooldown": 91, "num_warmup_steps": 10},
         "`cooldown` must be at most the 90 steps after the warmup, received 91; that is 91 steps"),
        ("gradual_warmup", {"after": "cosine"},
         "`after` must be a schedule of hf_sched without a special warmup, received 'cosine'; did you mean 'cosine_fl"),
        ("lars_warmup", {"after": "step"},
         "`after_kwargs` cannot be used for `after` 'step': `power` is not an argument of step, received 2.0; step ta"),
        ("gradual_warmup", {"after": "warmup_cosine", "after_kwargs": {"warmup": 5}},
         "`after_kwargs` cannot be used for `after` 'warmup_cosine': `warmup` sets a second warmup beside the Trainer"),
        ("gradual_warmup", {"after": None, "after_kwargs": {"power": 2}},
         "`after` must be the name of the schedule that takes {'power': 2}, received None"),
        ("gradual_warmup", {"after": "rex", "after_kwargs": {"floor_ratio": 0.1}, "floor_ratio": 0.2},
         "`floor_ratio` is given twice: `after_kwargs` has `floor_ratio` 0.1, received 0.2; give one of them"),
        ("lars_warmup", {"after": "rex", "after_kwargs": {"min_lr": 1e-5}, "min_lr": 1e-5}, "`min_lr` is given twice"),
        ("lars_warmup", {"after": "rex", "after_kwargs": {"floor_ratio": 0.1}, "min_lr": 1e-5},
         "`min_lr` cannot be used for `after` 'rex': `min_lr` is a second floor beside `floor_ratio` 0.1"),
        ("gradual_warmup", {"after": "multistep", "after_kwargs": {"milestones": [50]}, "min_lr": 1e-5},
         "`min_lr` cannot be used for `after` 'multistep': `min_lr` is not an argument of multistep"),
        ("gradual_warmup", {"warmup": "0.1%"}, "`warmup` must be 1 step or more to reach `multiplier` 2.0"),
        ("lars_warmup", {"warmup": "100%"}, "`warmup` cannot be used for `after` 'polynomial_floor': `num_warmup_"),
    ],
)  # fmt: skip
def test_a_common_mistake_has_this_message(name, arguments, message):
    error = error_of(name, **arguments)
    assert str(error).startswith(message)


# The phase language.

TEXTS = [
    "warmup 10 sqrt from 0.1 lars 0.001 | hold 2ep at 0.5 | decay 30 polynomial 1.5 to floor; floor 0.05",
    "decay 10 exponential 2 to 0.5 peak + 0.5 floor every 3 | restart geometric from 0.25 to 0.1; min_lr 1e-5",
    "decay 33 inverse_sqrt 2 to 0.5 | hold | restart 7 rex from peak",
]
words = st.sampled_from([*KINDS, *FORMS, "shape", "from", "to", "at", "every", "lars"])
typos = st.sampled_from(["", "", *" |;+-0159.%xe", " | ", " floor", " 1e400", " nan", " decay", "\n", "\x1c", "é"])
edits = st.lists(st.tuples(st.integers(0, 80), typos, st.integers(0, 3)), max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.lists(words | durations, max_size=9).map(" ".join) | st.sampled_from(TEXTS), edits)
def test_any_text_makes_a_valid_schedule_or_an_error(text, edits):
    for at, typo, length in edits:
        text = text[:at] + typo + text[at + length :]
    error = error_of("phases", phases=text, steps_per_epoch=7)
    event("error" if error else "schedule")
    assert error is None or error.name in ("phases", "floor_ratio", "min_lr"), error


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(words, anything, max_size=3) | st.sampled_from(TEXTS) | anything, max_size=3))
def test_any_list_of_phases_makes_a_valid_schedule_or_an_error_that_names_it(items):
    error = error_of("phases", phases=items, steps_per_epoch=7)
    assert error is None or error.name == "phases", error
