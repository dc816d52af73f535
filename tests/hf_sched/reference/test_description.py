"""References of schedules: read from docstrings of any format and from annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any

import pytest

import hf_sched
from hf_sched.reference import description as reference
from hf_sched.reference.description import Argument, ComingFrom
from hf_sched.schedules.catalog import Factor
from hf_sched.schedules.horizon import HorizonReader
from hf_sched.schedules.validation import ListOf, Whole
from tests.helpers.catalog import temporary_registrations

FLOOR_RATIO = Argument("floor_ratio", "a share of the peak from 0 to 1", False, 0.0)
MIN_LR = Argument("min_lr", "a learning rate, 0 or more", False, None)
HORIZON = Argument("horizon", HorizonReader.allowed, False, None)


@pytest.fixture
def describe() -> Iterator[Callable[..., reference.Reference]]:
    """The reference of a function that is a schedule for this test only."""

    def describe(function: Callable[..., Any], **options: Any) -> reference.Reference:
        hf_sched.register(function.__name__, **options)(function)
        return reference.describe(function.__name__)

    with temporary_registrations():
        yield describe


def test_without_a_docstring_there_are_only_arguments(describe):
    def bare(steps: Annotated[list, ListOf(Whole(2))], num_training_steps: int, *, share=0.5):
        return [hf_sched.hold()]

    of = describe(bare)
    assert (of.name, of.summary, of.formula, of.text, of.source, of.example) == ("bare", "", "", "", "", "")
    assert of.coming_from == ()
    steps = Argument("steps", "a list of one or more, each a whole number, 2 or more", True, None)
    assert of.arguments == (steps, Argument("share", "anything", False, 0.5), FLOOR_RATIO, MIN_LR, HORIZON)


def test_a_docstring_in_another_format_is_text(describe):
    def google():
        """Hold the peak,
        and no more.

        Returns:
            list: Phases.
        """
        return [hf_sched.hold()]

    of = describe(google)
    assert (of.summary, of.text) == ("Hold the peak, and no more.", "Returns:\n    list: Phases.")


def test_fields_continue_on_indented_lines(describe):
    def full():
        """Hold the peak.
        Source: A book,
            page 2

        Formula: peak at first;
            then peak

        What it does.

        Example: {phases: "hold",
            floor_ratio: 0.1}
        From torch: ConstantLR(1.0) ->
            {}
        Really.
        From pytorch-gradual-warmup-lr: Warm(a,
            b) -> {a: 1}
        From optax: constant_schedule(peak)
        """
        return [hf_sched.hold()]

    of = describe(full)
    assert (of.summary, of.text) == ("Hold the peak.", "What it does.\n\nReally.")
    assert (of.formula, of.source) == ("peak at first;\nthen peak", "A book, page 2")
    assert of.example == '{phases: "hold", floor_ratio: 0.1}'
    assert of.coming_from == (
        ComingFrom("torch", "ConstantLR(1.0)", "{}"),
        ComingFrom("pytorch-gradual-warmup-lr", "Warm(a, b)", "{a: 1}"),
        ComingFrom("optax", "constant_schedule(peak)", ""),
    )


def test_a_floor_is_an_argument_with_its_default(describe):
    def falls():
        return [hf_sched.decay()]

    def falls_by_itself(*, floor_ratio: Factor = 0.5):
        return [hf_sched.decay()]

    assert describe(falls, floor_ratio=0.25).arguments == (replace(FLOOR_RATIO, default=0.25), MIN_LR, HORIZON)
    argument, horizon = describe(falls_by_itself).arguments
    assert horizon == HORIZON
    assert argument == Argument("floor_ratio", "a number above 0, 1 at most", False, 0.5)
