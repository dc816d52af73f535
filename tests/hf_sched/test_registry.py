"""Names: ours, the user's own, and transformers' own, which must never go stale."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import SchedulerType, TrainingArguments

import hf_sched
from hf_sched import registry


@pytest.fixture
def clean_registry():
    """Take back what a test registers."""
    yield
    for name in set(hf_sched.available()) - {"cosine_floor", "cosine_restarts", "warmup_cosine"}:
        del registry._entries[name]


def test_available_lists_the_names():
    assert hf_sched.available() == ["cosine_floor", "cosine_restarts", "warmup_cosine"]


def test_the_builtin_names_are_those_of_the_installed_transformers():
    # As written in its source, since the enum at hand may hold what other tests registered.
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(SchedulerType))).body
    written = {ast.literal_eval(line.value) for line in cls.body if isinstance(line, ast.Assign)}
    assert "linear" in written
    assert written <= set(registry.BUILTIN_NAMES)
    # An older transformers lacks some of them; the newest that we know has them all.
    if Version(transformers.__version__) >= Version("5.23"):
        assert written == set(registry.BUILTIN_NAMES)


def test_a_wrong_name_is_answered_with_all_names_and_the_nearest():
    with pytest.raises(ValueError, match=r"'cosin_flor' .*did you mean 'cosine_floor'\?") as wrong:
        hf_sched.build("cosin_flor", num_training_steps=10)
    for name in [*hf_sched.available(), *registry.BUILTIN_NAMES]:
        assert re.search(rf"\b{name}\b", str(wrong.value))


def test_a_schedule_of_ones_own_takes_five_lines(clean_registry, tmp_path):
    @hf_sched.register("trapezoid", floor_ratio=0.1)
    def trapezoid(*, cooldown: hf_sched.Duration = "20%"):
        """Hold the peak, then a straight line to the floor."""
        return [hf_sched.hold(), hf_sched.decay(cooldown)]

    schedule = hf_sched.build("trapezoid", num_training_steps=100, num_warmup_steps=10, cooldown="0.3")
    assert [(segment.kind, segment.steps) for segment in schedule.segments] == [
        ("warmup", 10),
        ("hold", 60),
        ("decay", 30),
    ]
    assert schedule.curve(peak=1.0)[-1] == pytest.approx(0.1, rel=1e-12)
    args = TrainingArguments(str(tmp_path), lr_scheduler_type="trapezoid", use_cpu=True)
    assert args.lr_scheduler_type.value == "trapezoid"
    with pytest.raises(ValueError, match=r"`cooldown` must be a number of steps .* received 'late'"):
        TrainingArguments(
            str(tmp_path), lr_scheduler_type="trapezoid", lr_scheduler_kwargs={"cooldown": "late"}, use_cpu=True
        )


def test_what_a_function_asks_for_by_name_it_gets(clean_registry):
    seen = {}

    @hf_sched.register("curious")
    def curious(*, num_training_steps, num_warmup_steps, needed, number: float = 1.0):
        seen.update(steps=num_training_steps, warmup=num_warmup_steps, needed=needed, number=number)
        return [hf_sched.decay()]

    hf_sched.build("curious", num_training_steps=9, num_warmup_steps=2, needed="x", number="2.5")
    assert seen == {"steps": 9, "warmup": 2, "needed": "x", "number": 2.5}
    with pytest.raises(ValueError, match="curious needs the argument `needed`"):
        hf_sched.build("curious", num_training_steps=9)


def test_a_name_is_replaced_only_from_where_it_came(clean_registry):
    def make(steps: int):
        @hf_sched.register("again")
        def again():
            return [hf_sched.hold(steps), hf_sched.decay()]

        return again

    make(3)
    make(5)  # as a notebook cell that is run again
    assert hf_sched.build("again", num_training_steps=9).segments[0].steps == 5
    for taken, by in (("again", "hf_sched"), ("cosine_floor", "hf_sched"), ("cosine", "transformers")):
        with pytest.raises(ValueError, match=f"`name` '{taken}' is taken by {by}"):
            hf_sched.register(taken)(lambda: [hf_sched.decay()])


@pytest.mark.parametrize("name", ["Upper", "with space", "", "1st", 5, "a-b"])
def test_a_name_is_lower_case_letters(name):
    with pytest.raises(ValueError, match="`name` must be lower-case letters"):
        hf_sched.register(name)


def test_a_function_that_cannot_be_a_schedule_is_refused(clean_registry):
    with pytest.raises(ValueError, match=r"must name its arguments, received `\*\*kwargs`"):
        hf_sched.register("bad")(lambda **kwargs: [])
    with pytest.raises(ValueError, match="must not take `floor_ratio`"):
        hf_sched.register("bad")(lambda floor_ratio=0: [])
    hf_sched.register("wrong")(lambda: ["decay"])
    with pytest.raises(TypeError, match="function of 'wrong' must return phases"):
        hf_sched.build("wrong", num_training_steps=5)


def test_a_floor_that_would_change_nothing_is_refused(clean_registry):
    hf_sched.register("flat")(lambda: [hf_sched.hold()])
    with pytest.raises(ValueError, match="flat has no floor, so `floor_ratio` would change nothing"):
        hf_sched.build("flat", num_training_steps=5, floor_ratio=0.1)


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)


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
def test_every_way_in_answers_a_wrong_name_alike(ask, wrong, meant, tmp_path):
    with pytest.raises(ValueError, match=f"'{wrong}' is not the name of a schedule; did you mean '{meant}'") as error:
        ask(wrong, str(tmp_path))
    ours, theirs = str(error.value).split("transformers has")
    assert "cosine_floor, cosine_restarts, warmup_cosine" in ours
    assert "linear, cosine, cosine_with_restarts" in theirs
    assert "cosine_floor" not in theirs


def test_a_schedule_of_ones_own_is_known_to_both_get_scheduler_at_once(clean_registry):
    # transformers has long been imported here.
    @hf_sched.register("stairs")
    def stairs(*, low: hf_sched.Ratio = 0.5):
        return [hf_sched.hold("50%"), hf_sched.decay(to=low)]

    for get in (hf_sched.get_scheduler, transformers.get_scheduler):
        scheduler = get("stairs", sgd(), 2, 12, {"low": "0.25"})
        assert isinstance(scheduler, hf_sched.ScheduleLR)
        assert scheduler.schedule == hf_sched.build("stairs", num_training_steps=12, num_warmup_steps=2, low=0.25)
        assert scheduler.schedule.lr(11, peak=0.5) == 0.125


def test_the_same_function_name_in_another_module_is_another_place(clean_registry):
    def make(module: str):
        def again():
            return [hf_sched.decay()]

        again.__module__ = module
        return again

    hf_sched.register("again")(make("here"))
    hf_sched.register("again")(make("here"))
    with pytest.raises(ValueError, match="`name` 'again' is taken by hf_sched"):
        hf_sched.register("again")(make("there"))


@pytest.mark.parametrize(
    "returned", [None, 5, hf_sched.decay(), ["decay"]], ids=["nothing", "a number", "one phase", "text"]
)
def test_a_function_that_returns_no_phases_is_told_so(clean_registry, returned):
    # A forgotten `return`, or forgotten brackets around a single phase, are the likely slips.
    hf_sched.register("wrong")(lambda: returned)
    with pytest.raises(TypeError, match=r"function of 'wrong' must return phases .* received"):
        hf_sched.build("wrong", num_training_steps=5)


def test_phases_may_be_generated(clean_registry):
    @hf_sched.register("generated")
    def generated():
        yield hf_sched.hold(2)
        yield hf_sched.decay()

    assert hf_sched.build("generated", num_training_steps=5).curve(peak=1.0)[:2].tolist() == [1.0, 1.0]
