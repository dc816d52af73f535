"""The registry: names, registration, and the arguments that a registered function receives."""

from __future__ import annotations

import ast
import doctest
import inspect
import textwrap
from fractions import Fraction

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import SchedulerType, TrainingArguments

import hf_sched
from hf_sched import ArgumentError
from hf_sched.schedules import recommend, registry, schedule
from hf_sched.schedules.phases import ScheduleSpec
from hf_sched.schedules.validation import DurationUnknown
from tests.helpers.catalog import temporary_registrations


@pytest.fixture
def clean_registry():
    with temporary_registrations():
        yield


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)


def test_the_builtin_names_are_those_of_the_installed_transformers():
    # As written in its source, since the enum at hand may hold what other tests registered.
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(SchedulerType))).body
    written = {ast.literal_eval(line.value) for line in cls.body if isinstance(line, ast.Assign)}
    assert "linear" in written
    assert written <= set(registry.BUILTIN_NAMES)
    # An older transformers lacks some of them; the newest that we know has them all.
    if Version(transformers.__version__) >= Version("5.23"):
        assert written == set(registry.BUILTIN_NAMES)


def test_a_registered_function_is_a_schedule_everywhere(clean_registry, tmp_path):
    # transformers is imported already.
    @hf_sched.register("stairs")
    def stairs(*, low: hf_sched.Ratio = 0.5):
        return [hf_sched.hold("50%"), hf_sched.decay(to=low)]

    for get in (hf_sched.get_scheduler, transformers.get_scheduler):
        scheduler = get("stairs", sgd(), 2, 12, {"low": "0.25"})
        assert isinstance(scheduler, hf_sched.ScheduleLR)
        assert scheduler.schedule == hf_sched.build("stairs", num_training_steps=12, num_warmup_steps=2, low=0.25)
        assert scheduler.schedule.lr(11, peak=0.5) == 0.125
    assert (
        TrainingArguments(str(tmp_path), lr_scheduler_type="stairs", use_cpu=True).lr_scheduler_type.value == "stairs"
    )
    with pytest.raises(ArgumentError, match=r"`low` must be a number from 0 to 1, received 'x'"):
        TrainingArguments(str(tmp_path), lr_scheduler_type="stairs", lr_scheduler_kwargs={"low": "x"}, use_cpu=True)


def test_a_name_may_be_registered_again_only_from_the_same_place(clean_registry):
    def make(steps: int):
        @hf_sched.register("again")
        def again():
            return [hf_sched.hold(steps), hf_sched.decay()]

        return again

    make(3)
    make(5)  # as a notebook cell that is run again
    assert hf_sched.build("again", num_training_steps=9).segments[0].steps == 5
    for taken, by in (("again", "another"), ("cosine_floor", "another"), ("cosine", "transformers")):
        with pytest.raises(ArgumentError, match=f"`name` is taken by {by}.*, received '{taken}'"):
            hf_sched.register(taken)(lambda: [hf_sched.decay()])


@pytest.mark.parametrize("name", ["Upper", "with space", "", "1st", 5, "a-b"])
def test_a_name_is_lower_case_letters(name):
    with pytest.raises(ArgumentError, match="`name` must be lower-case letters"):
        hf_sched.register(name)


@pytest.mark.parametrize(
    "ask",
    [
        lambda name, folder: hf_sched.build(name, num_training_steps=10),
        lambda name, folder: hf_sched.get_scheduler(name, sgd(), 0, 10),
        lambda name, folder: transformers.get_scheduler(name, sgd(), 0, 10),
        lambda name, folder: TrainingArguments(folder, lr_scheduler_type=name, use_cpu=True),
        lambda name, folder: TrainingArguments(folder, use_cpu=True).set_lr_scheduler(name),
    ],
    ids=["build", "our get_scheduler", "transformers' get_scheduler", "TrainingArguments", "set_lr_scheduler"],
)
@pytest.mark.parametrize(("wrong", "meant"), [("warmup_cosin", "warmup_cosine"), ("inverse_sqr", "inverse_sqrt")])
def test_every_entry_point_suggests_a_similar_name(ask, wrong, meant, tmp_path):
    with pytest.raises(ValueError, match=rf"'{wrong}'.*; did you mean '{meant}'\?") as error:
        ask(wrong, str(tmp_path))
    ours, theirs = str(error.value).split("transformers has")
    assert f"hf_sched has {', '.join(hf_sched.available())}; " in ours
    assert "linear, cosine, cosine_with_restarts" in theirs
    assert "cosine_floor" not in theirs


@pytest.mark.parametrize("returned", [None, 5, ["decay"]], ids=["nothing", "a number", "text"])
def test_a_function_must_return_phases(clean_registry, returned):
    hf_sched.register("wrong")(lambda: returned)
    with pytest.raises(TypeError, match=r"function of 'wrong' must return phases .* received"):
        hf_sched.build("wrong", num_training_steps=5)


# Floors: added by the registry, taken by the function, or set by it.


def test_a_function_may_take_the_floors(clean_registry):
    seen = []

    @hf_sched.register("own_floor")
    def own_floor(*, floor_ratio: hf_sched.Ratio = 0.25, min_lr=None):
        seen.append((floor_ratio, min_lr))
        yield hf_sched.decay()  # phases may be generated

    for given in ({}, {"floor_ratio": "0.5"}, {"min_lr": "1e-3"}, {"floor_ratio": None, "min_lr": 0}):
        hf_sched.build("own_floor", num_training_steps=5, **given)
    # None means the default.
    assert seen == [(0.25, None), (0.5, None), (0.25, 1e-3), (0.25, 0.0)]
    # A floor that the function takes is also that of the schedule.
    assert hf_sched.build("own_floor", num_training_steps=10, floor_ratio=0.125).curve(peak=1.0)[-1] == 0.125


def test_a_function_may_return_a_spec_with_its_floor(clean_registry):
    @hf_sched.register("own_spec", floor_ratio=0.5)
    def own_spec(*, low: hf_sched.Ratio | None = None):
        return ScheduleSpec((hf_sched.decay(),), floor_ratio=low)

    assert hf_sched.build("own_spec", num_training_steps=5, low=0.25).floor_ratio == 0.25
    assert hf_sched.build("own_spec", num_training_steps=5).floor_ratio == 0.5
    with pytest.raises(ArgumentError, match="`min_lr` is a second floor: own_spec has one already"):
        hf_sched.build("own_spec", num_training_steps=5, low=0.25, min_lr=0.125)


# Annotations.


@pytest.mark.parametrize(
    ("annotation", "value", "expected", "wrong"),
    [
        (float, "0.5", 0.5, "x"),
        (int | None, 5.0, 5, True),
        (str | None, "5", "5", True),
        (bool, True, True, "true"),
        (hf_sched.Ratio, "1", 1.0, 2),
        (hf_sched.Count | None, 1, 1, 0),
        (hf_sched.Positive, 1, 1.0, 0),
        (hf_sched.Rate, 0, 0.0, -1),
        (hf_sched.Duration, "7", 7, -1),
        (hf_sched.Period, "7", 7, 0),
        ("NotImported", [1], [1], None),  # checks nothing
    ],
)
def test_an_annotation_chooses_the_reader_of_an_argument(clean_registry, annotation, value, expected, wrong):
    seen = []

    def annotated(*, argument):
        seen.append(argument)
        return [hf_sched.decay()]

    annotated.__annotations__["argument"] = annotation
    hf_sched.register("annotated")(annotated)
    hf_sched.build("annotated", num_training_steps=5, argument=value)
    assert (type(seen[0]), seen) == (type(expected), [expected])
    with pytest.raises(ArgumentError, match="`argument`"):
        hf_sched.build("annotated", num_training_steps=5, argument=wrong)


# The arguments of the run.


def test_a_function_receives_the_arguments_that_it_names(clean_registry):
    seen = []

    @hf_sched.register("curious")
    def curious(*, num_training_steps, num_warmup_steps, steps_per_epoch, needed, cooldown: hf_sched.Duration = "20%"):
        seen.append((num_training_steps, num_warmup_steps, steps_per_epoch, needed, cooldown))
        return [hf_sched.hold(), hf_sched.decay(cooldown)]

    run = {"num_training_steps": 20, "num_warmup_steps": 2, "needed": "x"}
    schedule = hf_sched.build("curious", **run, steps_per_epoch=8, cooldown="0.5ep")
    hf_sched.build("curious", **run)
    # Amount are steps before the function sees them.
    assert seen == [(20, 2, 8, "x", 4), (20, 2, None, "x", Fraction(1, 5))]
    assert str(schedule) == "warmup 2 | hold 14 | decay 4"
    assert registry.entry("curious").arguments == ["needed", "cooldown", "floor_ratio", "min_lr", "horizon"]
    with pytest.raises(DurationUnknown, match=r"`cooldown` is in epochs \(1ep\)"):
        hf_sched.build("curious", **run, cooldown="1ep")
    with pytest.raises(ArgumentError, match="`needed` is required by curious"):
        hf_sched.build("curious", num_training_steps=9)
    with pytest.raises(ArgumentError, match="`steps_per_epoch` is not an argument of curious"):
        registry.entry("curious").read({"steps_per_epoch": 5})


# Warmup.


def test_the_trainers_warmup_goes_to_where_the_schedule_starts(clean_registry):
    hf_sched.register("low")(lambda: [hf_sched.hold(at=0.5)])
    schedule = hf_sched.build("low", num_training_steps=6, num_warmup_steps=2)
    assert schedule.curve(peak=1.0).tolist() == [0.25, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_a_warmup_as_first_phase_and_the_trainers_are_one_too_many(clean_registry):
    hf_sched.register("warm")(lambda: [hf_sched.warmup(2), hf_sched.decay()])
    message = "`lr_scheduler_type` sets a second warmup beside the Trainer's `warmup_steps` 3, received 'warm'"
    with pytest.raises(ArgumentError, match=message):
        hf_sched.build("warm", num_training_steps=6, num_warmup_steps=3)


def test_the_trainers_warmup_replaces_the_argument_warmup(clean_registry):
    hf_sched.register("warm")(lambda *, warmup=1: [hf_sched.warmup(warmup, "sqrt"), hf_sched.hold()])
    for given, steps in (({}, 1), ({"warmup": 2}, 2), ({"num_warmup_steps": 3}, 3)):
        (rise, _) = hf_sched.build("warm", num_training_steps=6, **given).segments
        assert (rise.steps, rise.shape.name) == (steps, "sqrt")


@pytest.mark.parametrize("module", [schedule, registry, recommend])
def test_the_examples_in_docstrings_run(clean_registry, module):
    assert doctest.testmod(module, extraglobs={"hf_sched": hf_sched}).failed == 0
