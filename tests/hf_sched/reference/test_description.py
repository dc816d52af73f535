"""What is said about a schedule: read from docstrings of any kind, and from annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest

import hf_sched
from hf_sched.reference import description as reference
from hf_sched.reference.description import Argument, ComingFrom
from hf_sched.schedules import registry
from hf_sched.schedules.catalog import ADecayShape, Factor
from hf_sched.schedules.phase_parser import PhasesReader
from hf_sched.schedules.phases import LevelReader
from hf_sched.schedules.validation import Keywords, ListOf, Number, OneOf, Reader, Whole

FLOOR_RATIO = Argument("floor_ratio", "a share of the peak from 0 to 1", False, 0.0)
MIN_LR = Argument("min_lr", "a learning rate, 0 or more", False, None)


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., reference.Reference]:
    """The reference of a function that is a schedule for this test only."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_listeners", [])

    def describe(function: Callable[..., Any], **options: Any) -> reference.Reference:
        hf_sched.register(function.__name__, **options)(function)
        return reference.describe(function.__name__)

    return describe


def test_without_a_docstring_there_are_only_arguments(describe):
    def bare(steps: int, *, share=0.5):
        return [hf_sched.hold()]

    of = describe(bare)
    assert (of.name, of.summary, of.formula, of.text, of.source, of.example) == ("bare", "", "", "", "", "")
    assert of.coming_from == ()
    assert of.arguments == (
        Argument("steps", "a whole number, 0 or more", True, None),
        Argument("share", "anything", False, 0.5),
        FLOOR_RATIO,
        MIN_LR,
    )


def test_a_summary_may_be_all_there_is_and_go_over_two_lines(describe):
    def brief():
        """Hold the peak,
        and no more.
        """
        return [hf_sched.hold()]

    of = describe(brief)
    assert (of.summary, of.text) == ("Hold the peak, and no more.", "")


def test_a_docstring_of_another_format_is_text(describe):
    def google():
        """Hold the peak.

        From there on: nothing.

        Args:
            nothing: At all.

        Returns:
            list: Phases.
        """
        return [hf_sched.hold()]

    of = describe(google)
    assert of.summary == "Hold the peak."
    assert of.text == "From there on: nothing.\n\nArgs:\n    nothing: At all.\n\nReturns:\n    list: Phases."
    assert of.coming_from == ()


def test_fields_go_on_in_indented_lines_and_stand_anywhere(describe):
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
    assert of.summary == "Hold the peak."
    assert of.formula == "peak at first;\nthen peak"
    assert of.text == "What it does.\n\nReally."
    assert of.source == "A book, page 2"
    assert of.example == '{phases: "hold", floor_ratio: 0.1}'
    assert of.coming_from == (
        ComingFrom("torch", "ConstantLR(1.0)", "{}"),
        ComingFrom("pytorch-gradual-warmup-lr", "Warm(a, b)", "{a: 1}"),
        ComingFrom("optax", "constant_schedule(peak)", ""),
    )


def test_the_floor_is_told_with_its_default(describe):
    def falls():
        return [hf_sched.decay()]

    def falls_by_itself(*, floor_ratio: Factor = 0.5):
        return [hf_sched.decay()]

    assert describe(falls, floor_ratio=0.25).arguments == (replace(FLOOR_RATIO, default=0.25), MIN_LR)
    (argument,) = describe(falls_by_itself).arguments
    assert argument == Argument("floor_ratio", "a share of the peak above 0, 1 at most", False, 0.5)


def test_what_build_fills_in_is_no_argument(describe):
    def of_the_run(num_training_steps: int, num_warmup_steps: int, steps_per_epoch: float | None):
        return [hf_sched.hold()]

    assert describe(of_the_run).arguments == (FLOOR_RATIO, MIN_LR)


class Even(Reader):
    """An even number.

    Or odd.
    """


DURATION = "steps (500), a share of the run (5%) or epochs (1ep)"
SHAPES = (
    "one of linear, cosine, 1-sqrt, polynomial POWER, exponential [RATE], geometric, rex, inverse_sqrt LENGTH",
    "one of linear, cosine, sqrt, exponential [RATE], geometric",
)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float, "a number"),
        (float | None, "a number"),
        (Annotated[float, Number(high=3)], "a number, 3 at most"),
        (hf_sched.Ratio, "a number from 0 to 1"),
        (hf_sched.Rate | None, "a number, 0 or more"),
        (hf_sched.Positive, "a number above 0"),
        (Factor, "a number above 0, 1 at most"),
        (int, "a whole number, 0 or more"),
        (hf_sched.Count, "a whole number, 1 or more"),
        (hf_sched.Duration, DURATION),
        (hf_sched.Period, f"{DURATION}, above 0"),
        (Annotated[list, ListOf(Whole(2))], "a list, each item a whole number, 2 or more"),
        (Annotated[str, OneOf(("up", "down"))], "one of up, down"),
        (str, "text"),
        (bool, "true or false"),
        (Keywords, "a mapping of arguments by name"),
        (ADecayShape, SHAPES[0]),
        (Annotated[str, LevelReader()], "a share of the peak (0.1), peak, floor, or a sum of them"),
        (Annotated[Any, PhasesReader()], "text in the phase language, or a list of mappings"),
        (Annotated[int, Even()], "An even number"),
        (dict, "anything"),
    ],
)
def test_an_annotation_in_words(describe, annotation, words):
    def takes(it):
        return [hf_sched.hold()]

    takes.__annotations__["it"] = annotation
    assert describe(takes).arguments[0] == Argument("it", words, True, None)


def test_every_reader_has_words():
    ours = {reader for reader in all_subclasses(Reader) if reader.__module__.startswith("hf_sched.")}
    known = {reader for reader in ours if not reader.__name__.startswith("_")}  # those are for no schedule's arguments
    source = reference.in_words.__code__.co_names
    assert {reader.__name__ for reader in known} <= set(source)


def all_subclasses(cls: type) -> set[type]:
    return {cls, *(each for child in cls.__subclasses__() for each in all_subclasses(child))}


def test_an_unknown_name_is_an_error_that_suggests_one():
    with pytest.raises(ValueError, match="did you mean 'cosine_floor'"):
        reference.describe("cosine_flor")
