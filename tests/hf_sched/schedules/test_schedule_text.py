"""A schedule in one text: a name with arguments, phases, or the path of a function."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Any

import pytest

import hf_sched
from hf_sched import ArgumentError
from hf_sched.schedules import registry, schedule_text
from tests.helpers.catalog import build, temporary_registrations


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("wsd", "wsd", {}),
        ("cosine_floor:floor_ratio=0.2", "cosine_floor", {"floor_ratio": 0.2}),
        (" wsd : decay = 30%, decay_shape=linear, ", "wsd", {"decay": "30%", "decay_shape": "linear"}),
        ("multistep:milestones=[30, 60],gamma=0.5", "multistep", {"milestones": [30, 60], "gamma": 0.5}),
        ('wsd:{"decay": 100, "floor_ratio": 0.1}', "wsd", {"decay": 100, "floor_ratio": 0.1}),
        ("cosine_with_min_lr:min_lr=1e-6", "cosine_with_min_lr", {"min_lr": 1e-6}),
        ("gradual_warmup:after_kwargs={decay=30%}", "gradual_warmup", {"after_kwargs": {"decay": "30%"}}),
        ("warmup 5% | hold", "phases", {"phases": "warmup 5% | hold"}),
        ("hold", "phases", {"phases": "hold"}),
        ("phases:phases='hold | decay',min_lr=0.1", "phases", {"phases": "hold | decay", "min_lr": 0.1}),
        (Enum("Names", {"WSD": "wsd:decay=3"}).WSD, "wsd", {"decay": 3}),
    ],
)
def test_text_has_a_name_and_arguments(text: object, name: str, arguments: dict[str, Any]) -> None:
    assert schedule_text.read(text) == (name, arguments)
    assert schedule_text.read(text, {"on_resume": "keep"}) == (name, {"on_resume": "keep", **arguments})


@pytest.mark.parametrize("text", ["wsd:decay", "wsd:{decay", "wsd:[1]", "multistep:milestones=30,60"])
def test_arguments_that_do_not_parse_are_an_error(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"must be a name with arguments .* received .* lists need brackets"):
        schedule_text.read(text)


@pytest.mark.parametrize("value", [None, 3, ["hold", "decay 20%"], {"wsd": {"decay": "30%"}}])
def test_anything_but_text_is_an_error_of_the_argument(value: Any) -> None:
    for read, argument in ((schedule_text.read, "lr_scheduler_type"), (build, "name")):
        with pytest.raises(ArgumentError, match=rf"`{argument}` must be text: a name, .* or phases .* received"):
            read(value)


@pytest.mark.parametrize(
    ("text", "kwargs", "message"),
    [
        (
            "wsd:decay=30%,floor_ratio=0.1,decay=20%",
            {},
            "`decay` is given twice in 'wsd:decay=30%,floor_ratio=0.1,decay",
        ),
        ("wsd:decay=30%", {"decay": 20}, "`decay` is given twice: 'wsd:decay=30%' has `decay` '30%' already, received"),
        ("wsd:decay=30%", {"decay": "30%"}, "`decay` is given twice"),
        ("decay cosine", {"phases": "hold"}, "`phases` is given twice"),
        ("wsd:floor_ratio=0.1", {"min_lr": 1e-5}, "`min_lr` is a second floor"),
        ("decay; floor 0.1", {"floor_ratio": 0.2}, "`floor_ratio` is a second floor"),
        ("WSD", {}, "`lr_scheduler_type` must be the name of a schedule, received 'WSD'; did you mean 'wsd'?"),
        ("wsd:DECAY=30%", {}, "`DECAY` is not an argument of wsd, received '30%'; did you mean 'decay'?"),
        (
            "Hold | decay",
            {},
            "`phases` is invalid in phase 1 ('Hold'): `phase` must be one of warmup, hold, decay, restart",
        ),
        ("wsd:dekay=30%", {}, "`dekay` is not an argument of wsd, received '30%'; did you mean 'decay'?"),
        ("wds:decay=30%", {}, "`lr_scheduler_type` must be the name of a schedule, received 'wds'; did you mean 'wsd'"),
        (
            "wsd decay=0.3",
            {},
            "`lr_scheduler_type` must be the name of a schedule, received 'wsd decay=0.3'; did you mean 'wsd'?",
        ),
        (
            "cosine:num_cycles=1",
            {},
            "`name` must be the name of a schedule of hf_sched, received 'cosine'; transformers",
        ),
        ("holdd | decay", {}, "`phases` is invalid in phase 1 ('holdd')"),
    ],
)
def test_a_second_value_or_a_typo_is_an_error(text: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        build(text, **kwargs)
    assert str(caught.value).startswith(message)


def test_build_and_after_accept_text() -> None:
    assert build("wsd:decay=30%", 10, floor_ratio=0.1) == build("wsd", 10, decay="30%", floor_ratio=0.1)
    assert build("decay cosine; floor 0.1", 10) == build("cosine_floor", 10)
    nested = build("gradual_warmup:multiplier=2,after='wsd:decay=30%'", 10, after_kwargs={"floor_ratio": 0.1})
    kwargs = {"decay": "30%", "floor_ratio": 0.1}
    assert nested == build("gradual_warmup", 10, multiplier=2, after="wsd", after_kwargs=kwargs)


def test_a_path_names_a_function_in_the_working_directory(tmp_path, monkeypatch) -> None:
    (tmp_path / "shapes_of_a_test.py").write_text(
        "import hf_sched\n"
        "def plain(*, cooldown='20%'):\n    return [hf_sched.hold(), hf_sched.decay(cooldown)]\n"
        "@hf_sched.register('with_floor', floor_ratio=0.5)\n"
        "def with_floor():\n    return [hf_sched.decay()]\n"
        "number = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    with temporary_registrations():
        schedule = build("shapes_of_a_test.plain:cooldown=30%", 10, floor_ratio=0.1)
        assert schedule == build("phases", 10, phases="hold | decay 30%", floor_ratio=0.1)
        assert build("shapes_of_a_test.with_floor").lr(99, peak=1.0) == 0.5
        assert "shapes_of_a_test.plain" in hf_sched.available()
        for path, reason in (
            ("shapes_of_a_test.plan", "has no attribute 'plan'"),
            ("shapes_of_a_test.number", "1 is not a function that returns phases"),
            ("no_such_module.plain", "No module named 'no_such_module'"),
        ):
            with pytest.raises(ArgumentError, match=r"the path of a function \(my_schedules.trapezoid\)") as caught:
                build(path)
            assert reason in str(caught.value)


def test_an_unknown_name_says_how_to_name_a_function() -> None:
    with pytest.raises(ArgumentError, match=r"name your own function by its path, my_schedules\.trapezoid"):
        registry.entry("trapezoid")
    with pytest.raises(ArgumentError, match=r"write arguments after a colon, wsd:decay=20%,floor_ratio=0\.1"):
        registry.entry("trapezoid(cooldown=20%)")
