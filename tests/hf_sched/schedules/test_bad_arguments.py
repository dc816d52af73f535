"""Wrong arguments of every schedule of the catalogue: an error of ours that names the argument, or a sound schedule.

The arguments that a schedule is tried with otherwise are those of the example in its docstring, so that a new one is
tested here at once. Each of the 120 arguments meets all of `NONSENSE` and `EXTREMES` (11,400 cases), and `EXAMPLES`
values of any kind by Hypothesis (7,300 cases in all, with the phase language; `--hypothesis-show-statistics` counts).
"""

from __future__ import annotations

import inspect
import math
import re
import traceback
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched import Epochs, Schedule, ScheduleSpec
from hf_sched.schedules import registry
from hf_sched.schedules.phase_parser import PhasesReader, parse
from hf_sched.schedules.phases import KINDS
from hf_sched.schedules.shapes import FORMS, Shape, ShapeReader
from hf_sched.schedules.validation import DurationReader, ListOf, MappingReader, TextReader

EXAMPLES = 40
STEPS = 100
CATALOGUE = [
    name
    for name in hf_sched.available()
    if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog"
]
OF_THE_RUN = ("num_training_steps", "num_warmup_steps", "steps_per_epoch")
# Of arguments that exclude each other one is given.
EXCLUSIVE = [
    {"num_cycles", "first_cycle"},
    {"gamma", "decay_rate", "floor_ratio"},
    {"floor_ratio", "min_lr"},
    {"warmup", "num_warmup_steps"},
]
EACH_ARGUMENT = [
    pytest.param(name, argument, id=f"{name}-{argument}")
    for name in CATALOGUE
    for argument in (*registry.entry(name).arguments, *OF_THE_RUN)
]

pytestmark = pytest.mark.filterwarnings("ignore:cosine_(restarts|cyclic):UserWarning")
often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def usual(name: str, *others: str) -> dict[str, Any]:
    """The arguments of a schedule's example, without those that exclude others."""
    written = re.search(r"Example: (\{.*\})", inspect.getdoc(registry.entry(name).build_phases) or "")
    assert written, f"the docstring of {name} has no example"
    arguments = {"num_training_steps": STEPS, **yaml.safe_load(written[1])}
    for group in EXCLUSIVE:
        for argument in arguments.keys() & group if group & {*others} else ():
            del arguments[argument]
    return arguments


def refused(name: str, **arguments: object) -> Exception | None:
    """The error that a schedule's arguments raise: one of ours, and of the kinds that we raise."""
    try:
        check(hf_sched.build(name, **usual(name, *arguments) | arguments))
    except (ValueError, TypeError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        assert raised_in.parent == Path(hf_sched.__file__).parent, f"raised in {raised_in}: {error}"
        return error
    return None


def check(schedule: Schedule) -> None:
    """A schedule is sound: finite, not negative, not far above the peak."""
    peak, last = 1.0, schedule.num_training_steps - 1
    if last < 1000:
        rates = schedule.curve(peak=peak)
    else:
        rates = np.array([schedule.lr(step, peak=peak) for step in (0, 1, last // 2, last - 1, last, last + 1)])
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()


def names(error: Exception, argument: str) -> bool:
    """Whether an error names an argument; `milestones[2]`, say, names `milestones`."""
    if argument == "after_kwargs" and str(error).startswith("`after` ("):
        return True  # and then the argument of the schedule that comes after
    if re.match(r"(the phases take|phase \d+|only one phase) ", str(error)):
        return True  # phases that do not go together are named by what they are and how long
    if argument == "num_warmup_steps" and "`warmup_steps`" in str(error):
        return True  # as the Trainer calls it
    return re.search(rf"`{re.escape(argument)}[`\[]", str(error)) is not None


NONSENSE = [
    *(True, False, np.True_, -1, -0.5, 1e-400 - 1, 5j, Decimal(2), 10**400, -(10**400)),
    *(math.nan, math.inf, -math.inf, np.float32("nan"), np.array([0.1, 0.2]), Fraction(-1, 2)),
    *(
        "",
        " ",
        "much",
        "yes",
        "True",
        "None",
        "nan",
        "inf",
        "-inf",
        "-1",
        "-5%",
        "-1ep",
        "1e400",
        "0.1.2",
        "5 %%",
        "\0",
    ),
    *("0x10", "1/2", "1,5", "[1]", "{}", "1e-x", "1 2", "%", "ep", "1eps", "lambda: 1", "__import__('os')"),
    *(
        b"",
        b"5%",
        bytearray(b"1"),
        [],
        [[]],
        [[1]],
        [None],
        ["much"],
        [True],
        [math.nan],
        (),
        (-1,),
        {1, 2},
        frozenset(),
    ),
    *({1: 2}, {"much": 1}, {"": None}, object, len, slice(1), range(3), Ellipsis, NotImplemented),
]


@pytest.mark.parametrize(("name", "argument"), EACH_ARGUMENT)
def test_nonsense_is_refused_for_every_argument_by_its_name_and_shown(name, argument):
    for value in NONSENSE:
        error = refused(name, **{argument: value})
        assert error is not None, f"{name} takes {value!r} for `{argument}`"
        assert names(error, argument), f"{value!r} for `{argument}`: {error}"
        shown = value[0] if isinstance(value, (list, tuple)) and value else value
        assert repr(shown) in str(error) or argument in ("phases", "after_kwargs"), f"not shown: {value!r} in {error}"


@pytest.mark.parametrize(("name", "argument"), EACH_ARGUMENT)
def test_nothing_stands_for_the_default_and_is_refused_where_there_is_none(name, argument):
    entry = registry.entry(name)
    error = refused(name, **{argument: None})
    parameter = entry.parameters.get(argument)
    if argument in ("num_training_steps", "num_warmup_steps"):
        assert str(error).startswith(f"`{argument}` must be a whole number")
    elif parameter and parameter.default is inspect.Parameter.empty:
        assert str(error) == f"{name} needs the argument `{argument}`"
    elif argument in ("gamma", "decay_rate", "floor_ratio") and name == "exponential":
        assert "exactly one of `gamma`, `decay_rate` and `floor_ratio`, received none of them" in str(error)
    elif argument == "timescale":
        assert "`timescale` must be 1 step or more" in str(error)  # there is no warmup to take its length from
    elif argument == "after":
        assert error is None or "`after` must name a schedule for the arguments" in str(error)
    else:
        assert error is None


EXTREMES = [0, 1, 5e-324, 1e-300, 0.5, 1 - 1e-16, 1.0, 2, STEPS - 1, STEPS, STEPS + 1, 2**53, 1e300, 1.7e308]


@pytest.mark.parametrize(("name", "argument"), EACH_ARGUMENT)
def test_the_smallest_and_the_largest_numbers_make_a_sound_schedule_or_are_refused_by_name(name, argument):
    for value in EXTREMES:
        as_text = value if argument == "phases" else repr(value)
        errors = [refused(name, **{argument: value}), refused(name, **{argument: as_text})]
        assert (errors[0] is None) == (errors[1] is None)  # a number in text is that number
        for error in filter(None, errors):
            others = registry.entry(name).arguments if argument in OF_THE_RUN else []
            assert any(names(error, other) for other in [argument, *others]), f"{value!r} for `{argument}`: {error}"


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 200),
        st.integers(),
        st.sampled_from([10**400, 2**53, 2**53 + 1, -(10**400), 1e308, 5e-324, -0.0]),
        st.floats(),
        st.floats(0, 1),
        st.text(max_size=8),
        st.integers(-10, 200).map(str),
        st.floats().map(repr),
        st.tuples(st.integers(-10, 120) | st.floats(0, 100), st.sampled_from(["%", "ep", " %", " 5", "%%"])).map(
            lambda both: f"{both[0]}{both[1]}"
        ),
        st.sampled_from([*FORMS, *CATALOGUE, "cosin", "polynomial", "polynomial 2", "inverse_sqrt 1e400", "rex 2"]),
        st.sampled_from(["hold", "warmup 5% | decay", "decay 10 | hold | restart 5", "hold | | decay", "decay;"]),
        st.fractions(),
        st.decimals(),
        st.complex_numbers(),
        st.binary(max_size=4),
        st.fractions(0, 3).map(Epochs),
        st.sampled_from([np.float64(0.1), np.int64(7), np.bool_(True), np.array(3), np.array([1.0]), Shape("cosine")]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["floor_ratio", "decay", "hold", "shape"]), inner, max_size=2
        ),
        st.tuples(inner),
    ),
    max_leaves=4,
)


def may_be(reader: object, value: object) -> bool:
    """Whether a value is of a kind that a reader may take, worked out anew: a number, say, or text that is one."""
    match reader:
        case ListOf(reader=inner):
            return isinstance(value, (list, tuple)) and bool(value) and all(may_be(inner, item) for item in value)
        case MappingReader():
            return isinstance(value, Mapping)
        case TextReader():
            return value in hf_sched.available()
        case PhasesReader():
            return isinstance(value, (str, list, tuple))
        case ShapeReader():
            return str(value).split()[:1] and str(value).split()[0] in FORMS and isinstance(value, (str, Shape))
        case DurationReader() if isinstance(value, (Epochs, Fraction)):
            return True
        case DurationReader() if isinstance(value, str):
            value = re.sub(r"(%|ep)\s*$", "", value)
    if isinstance(value, (bool, complex, bytes, Decimal)):
        return False
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def reader_of(name: str, argument: str) -> object:
    return None if argument in OF_THE_RUN else registry.entry(name).reader(argument)


@pytest.mark.parametrize(("name", "argument"), EACH_ARGUMENT)
@often
@given(value=anything)
def test_any_value_makes_a_sound_schedule_or_an_error_that_names_the_argument(name, argument, value):
    error = refused(name, **{argument: value})
    event("refused" if error else "a schedule")
    if error and value is not None:
        # In a run too short for another argument that may be the one that is named.
        others = registry.entry(name).arguments if argument in OF_THE_RUN else []
        assert any(names(error, other) for other in [argument, *others]), error
    if not error:
        assert value is None or may_be(reader_of(name, argument), value), f"{name} takes {value!r} for `{argument}`"


@pytest.mark.parametrize("name", CATALOGUE)
@often
@given(data=st.data())
def test_any_values_make_a_sound_schedule_or_an_error_that_names_an_argument(name, data):
    known = [*registry.entry(name).arguments, *OF_THE_RUN]
    arguments = data.draw(st.dictionaries(st.sampled_from(known), anything, min_size=2, max_size=4))
    error = refused(name, **arguments)
    event("refused" if error else "a schedule")
    assert error is None or any(names(error, argument) for argument in known), error


@pytest.mark.parametrize(("name", "argument"), EACH_ARGUMENT)
def test_a_misspelt_argument_is_answered_with_the_right_one(name, argument):
    if argument in OF_THE_RUN:
        return
    for wrong in (argument[:-1], argument[1:], argument + "s", argument.replace("_", "") + "_", argument.upper()):
        error = refused(name, **{wrong: 1})
        assert f"{name} has no argument `{wrong}` (received 1)" in str(error)
        if wrong.lower() != wrong:
            continue
        assert f"; did you mean '{argument}'? It takes " in str(error)


A_DURATION = 'a number of steps (500), a share of the run (0.05 or "5%") or epochs ("1ep")'
A_DECAY = "one of linear, cosine, 1-sqrt, polynomial, exponential, geometric, rex, inverse_sqrt"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cosine_floor", {"floor_ratio": 1.5}, "`floor_ratio` must be a number from 0 to 1, received 1.5"),
        ("cosine_floor", {"floor_ratio": "10%"}, "`floor_ratio` must be a number from 0 to 1, received '10%'"),
        ("cosine_floor", {"min_lr": "1e-x"}, "`min_lr` must be a finite number, 0 or more, received '1e-x'"),
        (
            "cosine_floor",
            {"floor_ratio": 0.1, "min_lr": 1e-5},
            "the floor is given twice: give either `floor_ratio` or `min_lr`, received 0.1 and 1e-05",
        ),
        (
            "cosine_floor",
            {"min_lr_rate": 0.1},  # as transformers calls it
            "cosine_floor has no argument `min_lr_rate` (received 0.1); did you mean 'min_lr'? "
            "It takes floor_ratio, min_lr.",
        ),
        (
            "cosine_floor",
            {"num_warmup_steps": 100},
            "`num_warmup_steps` must be less than `num_training_steps` (100), received 100 (from `warmup_steps`, in a "
            "Trainer): shorten the warmup or lengthen the run",
        ),
        (
            "cosine_floor",
            {"num_warmup_steps": 0.1},
            "`num_warmup_steps` must be a whole number, 0 or more, received 0.1",
        ),
        (
            "cosine_floor",
            {"num_training_steps": -1},
            "`num_training_steps` must be a whole number, 1 or more, received -1",
        ),
        ("warmup_cosine", {"warmup": 1.5}, f"`warmup` must be {A_DURATION}, 0 or more, received 1.5"),
        ("warmup_cosine", {"warmup": "5 %%"}, f"`warmup` must be {A_DURATION}, 0 or more, received '5 %%'"),
        ("warmup_cosine", {"warmup": "100%"}, "`warmup` must be shorter than the run of 100 steps, received 100 steps"),
        (
            "warmup_cosine",
            {"warmup": "5%", "num_warmup_steps": 5},
            "the warmup is given twice: give either `warmup` ('5%') or the Trainer's `warmup_steps` "
            "(num_warmup_steps = 5)",
        ),
        (
            "warmup_cosine",
            {"warmup_shape": "lineer"},
            "`warmup_shape` must be one of linear, cosine, sqrt, exponential, geometric, received 'lineer'; did "
            "you mean 'linear'?",
        ),
        (
            "warmup_cosine",
            {"warmup": "1ep"},
            "`warmup` is in epochs (1ep), but nobody said how many steps an epoch has: a Trainer knows it while it "
            "trains; elsewhere give `steps_per_epoch`, or write steps (500) or a share of the run (5%)",
        ),
        (
            "cosine_restarts",
            {"num_cycles": 3, "first_cycle": 10},
            "the cycles are given twice: give either `num_cycles` or `first_cycle`, received 3 and 10",
        ),
        ("cosine_restarts", {"num_cycles": 2.5}, "`num_cycles` must be a whole number, 1 or more, received 2.5"),
        ("cosine_restarts", {"cycle_multiplier": 0}, "`cycle_multiplier` must be a finite number above 0, received 0"),
        ("cosine_cyclic", {"half_period": None}, "cosine_cyclic needs the argument `half_period`"),
        ("cosine_cyclic", {"half_period": 0}, f"`half_period` must be {A_DURATION}, above 0, received 0"),
        (
            "exponential",
            {"gamma": 0.9, "decay_rate": 1},
            "exponential takes exactly one of `gamma`, `decay_rate` and `floor_ratio`, received gamma: 0.9, "
            "decay_rate: 1.0",
        ),
        (
            "exponential",
            {"min_lr": 1e-5},
            "exponential has no argument `min_lr` (received 1e-05). It takes gamma, decay_rate, floor_ratio.",
        ),
        ("step", {"step_size": None}, "step needs the argument `step_size`"),
        ("step", {"floor_ratio": 0.1}, "step has no argument `floor_ratio` (received 0.1). It takes step_size, gamma."),
        ("multistep", {"milestones": "50%"}, "`milestones` must be a list of one or more, received '50%'"),
        ("multistep", {"milestones": ["5%", "x"]}, f"`milestones[1]` must be {A_DURATION}, above 0, received 'x'"),
        (
            "multistep",
            {"milestones": [50, 40]},
            "`milestones` must rise, after the 0 steps of warmup and before the end of the run (100 steps), received "
            "40 (step 40) behind step 50",
        ),
        ("polynomial_floor", {"power": "square"}, "`power` must be a finite number above 0, received 'square'"),
        ("wsd", {"decay": 0}, f"`decay` must be {A_DURATION}, above 0, received 0"),
        ("wsd", {"decay_shape": "sqrt"}, f"`decay_shape` must be {A_DECAY}, received 'sqrt'; did you mean '1-sqrt'?"),
        (
            "wsd",
            {"decay_shape": "polynomial"},
            "`decay_shape` must be 'polynomial' and one number, its power ('polynomial 2'), received 'polynomial'",
        ),
        (
            "inverse_sqrt_cooldown",
            {"timescale": None},
            "`timescale` must be 1 step or more, received None; it is the warmup's length where there is one",
        ),
        ("cosine_constant", {"constant_ratio": 2}, "`constant_ratio` must be a number from 0 to 1, received 2"),
        ("one_cycle", {"start_ratio": -0.1}, "`start_ratio` must be a number from 0 to 1, received -0.1"),
        (
            "one_cycle",
            {"min_lr": 1e-6},
            "one_cycle has no argument `min_lr` (received 1e-06). It takes warmup, start_ratio, final_ratio.",
        ),
        ("gradual_warmup", {"multiplier": 0.5}, "`multiplier` must be a finite number, 1 or more, received 0.5"),
        (
            "gradual_warmup",
            {"after": "step", "after_kwargs": {"step_sise": 5}},
            "`after` (step): step has no argument `step_sise` (received 5); did you mean 'step_size'? It takes "
            "step_size, gamma.",
        ),
        (
            "gradual_warmup",
            {"after": None, "after_kwargs": {"power": 2}},
            "`after` must name a schedule for the arguments {'power': 2}, received None",
        ),
        (
            "gradual_warmup",
            {"warmup": 0, "multiplier": 2},
            "`warmup` must have a step or more to reach `multiplier` 2.0, received 0",
        ),
        ("lars_warmup", {"trust_coefficient": 0}, "`trust_coefficient` must be a finite number above 0, received 0"),
        ("lars_warmup", {"warmup": 0}, "`warmup` must have a step or more for lars_warmup to act in, received 0"),
        ("phases", {"phases": None}, "phases needs the argument `phases`"),
        (
            "phases",
            {"phases": "warmup 5 | hold | decy 20%"},
            "`phases`: 'decy' is no phase; did you mean 'decay'?\n"
            "    warmup 5 | hold | decy 20%\n"
            "                      ^^^^",
        ),
        (
            "phases",
            {"phases": "decay; floor 0.1", "min_lr": 1e-5},
            "the floor is given twice: in `phases` and as `min_lr` ({'min_lr': 1e-05})",
        ),
        (
            "phases",
            {"phases": "warmup 5 | hold", "floor_ratio": 0.1},
            "the curve of `phases` has no floor, so `floor_ratio` would change nothing: leave it out",
        ),
        (
            "phases",
            {"phases": "warmup 60% | decay 60%"},
            "the phases take warmup 60 + decay 60 = 120 steps, but the run has `num_training_steps` = 100",
        ),
        # Shares in the form they are written in.
        (
            "gradual_warmup",
            {"warmup": "100%", "num_warmup_steps": 0},
            "`warmup` must be shorter than the run of 100 steps, received '100%' (100 steps)",
        ),
        (
            "multistep",
            {"milestones": ["50%", 0.2]},
            "`milestones` must rise, after the 0 steps of warmup and before the end of the run (100 steps), received "
            "'20%' (step 20) behind step 50",
        ),
        (
            "cosine_restarts",
            {"num_cycles": 2, "first_cycle": "20%"},
            "the cycles are given twice: give either `num_cycles` or `first_cycle`, received 2 and '20%'",
        ),
        (
            "phases",
            {"phases": [{"decy": 5}]},
            "`phases[0]` must be a mapping with exactly one of the keys warmup, hold, decay, restart, received "
            "{'decy': 5}",
        ),
    ],
)
def test_a_common_mistake_is_answered_in_these_words(name, arguments, message):
    assert str(refused(name, **arguments)) == message


# The phase language.


def read(text: str) -> None:
    """Parse a text: it is an spec, or an error that shows it with a mark below."""
    try:
        spec = parse(text)
    except ValueError as error:
        event("refused")
        message, shown, marks = str(error).rsplit("\n", 2)
        assert message.startswith("`phases`: ")
        assert shown == "    " + re.sub(r"\s", " ", text)
        assert re.fullmatch(r" {4,}\^+", marks)
        assert len(marks) <= len(shown) + 1  # one behind the text, where something is missing
        return
    event("an spec")
    assert isinstance(spec, ScheduleSpec)
    try:
        check(Schedule.parse(text, num_training_steps=STEPS, steps_per_epoch=7))
    except ValueError as error:
        event("does not fit the run")
        assert Path(traceback.extract_tb(error.__traceback__)[-1].filename).parent == Path(hf_sched.__file__).parent


TEXTS = [
    "warmup 5% | hold | decay 20% 1-sqrt to 0.1",
    "warmup 10 sqrt from 0.1 lars 0.001 | hold 2ep at 0.5 | decay 30 polynomial 1.5 to floor; floor 0.05",
    "decay 10 exponential 2 to 0.5 peak + 0.5 floor every 3 | restart geometric from 0.25 to 0.1; min_lr 1e-5",
    "decay 33 inverse_sqrt 2 to 0.5 | hold | restart 7 rex from peak",
]


@settings(max_examples=600, deadline=None)
@given(st.text(max_size=30) | st.text("warmupholdecystfi 0123456789.%|;+-e\t\n", max_size=40))
def test_any_text_is_an_outline_or_an_error_with_a_mark(text):
    read(text)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(TEXTS), st.data())
def test_a_text_with_slips_is_an_outline_or_an_error_with_a_mark(text, data):
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        slip = st.sampled_from(
            ["", "", *" |;+-0159.%xe", " | ", " floor", " 1e400", " nan", " decay", "\n", "\x1c", "é"]
        )
        text = text[:at] + data.draw(slip) + text[at + data.draw(st.integers(0, 3)) :]
    read(text)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from([*KINDS, "shape", "from", "to", "at", "every", "lars"]), anything, max_size=3)
        | st.sampled_from(TEXTS[:2])
        | anything,
        min_size=1,
        max_size=3,
    )
)
def test_any_list_is_an_outline_or_an_error_that_names_the_item(items):
    try:
        spec = PhasesReader()("phases", items)
    except ValueError as error:
        event("refused")
        assert re.match(r"`phases\[\d\]`", str(error))
    else:
        event("an spec")
        assert len(spec.phases) == len(items)


@pytest.mark.parametrize("name", ["gradual_warmup", "lars_warmup"])
@pytest.mark.parametrize(
    ("after", "meant"), [("cosine", "cosine_floor"), ("linear", "linear_with_warmup"), ("wsdd", "wsd")]
)
def test_what_cannot_follow_a_warmup_is_answered_with_what_can(name, after, meant):
    message = str(refused(name, after=after))
    assert message.startswith("`after` must be the name of a schedule of hf_sched, since only those can follow a")
    assert f"received {after!r}; did you mean {meant!r}? There are " in message
