"""The controls of the schedules' arguments follow the annotations."""

from __future__ import annotations

import gradio as gr
import pytest

from hf_sched.designer.controls import control, value_of
from hf_sched.designer.run_form import RunForm
from hf_sched.reference.description import describe
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry
from tests.helpers.catalog import CATALOGUE, example


def controls_of(name, **values):
    """The arguments of a schedule and their controls, by name."""
    return {one.name: (one, control(one, values.get(one.name), one.name)) for one in describe(name).arguments}


@pytest.mark.parametrize("name", [*CATALOGUE, *registry.BUILTIN_NAMES])
def test_each_argument_has_a_control_that_names_its_limits_and_default(name):
    for argument, made in controls_of(name).values():
        assert made.label == argument.name and argument.takes in made.info
        if not argument.required:
            assert value_of(argument, made.value) is None


@pytest.mark.parametrize("name", sorted({*CATALOGUE} - {"phases"}))  # phases have a field of their own
def test_values_of_an_example_survive_their_controls(name):
    arguments, form = example(name), RunForm(warmup_steps=0)
    shown = {key: value_of(argument, made.value) for key, (argument, made) in controls_of(name, **arguments).items()}
    read = {key: value for key, value in shown.items() if value is not None}
    assert form.plan(NamedSchedule(name, read)).schedule == form.plan(NamedSchedule(name, arguments)).schedule


def test_kinds_of_controls():
    wsd = {key: made for key, (_, made) in controls_of("wsd").items()}
    slider = wsd["floor_ratio"]
    assert isinstance(slider, gr.Slider) and (slider.minimum, slider.maximum) == (0, 1)
    assert isinstance(wsd["decay_shape"], gr.Dropdown) and ("cosine", "cosine") in wsd["decay_shape"].choices
    assert wsd["decay"].placeholder == "500, 5% or 1ep" and wsd["decay"].value == "20%"
    assert isinstance(controls_of("one_cycle")["final_ratio"][1], gr.Textbox)  # no slider reaches 0.0001
    assert isinstance(controls_of("greedy")["smooth"][1], gr.Checkbox)


@pytest.mark.parametrize(
    "name, argument, text, value",
    [
        ("wsd", "decay", "10%", "10%"),
        ("wsd", "decay", "500", 500),
        ("wsd", "decay", "[", "["),
        ("wsd", "min_lr", "1e-7", 1e-7),
        ("wsd", "min_lr", "", None),
        ("wsd", "decay_shape", "polynomial 2", "polynomial 2"),
        ("multistep", "milestones", "[50%, 75%]", ["50%", "75%"]),
        ("gradual_warmup", "after_kwargs", "{decay: 10%}", {"decay": "10%"}),
    ],
)
def test_text_becomes_the_value_in_yaml(name, argument, text, value):
    assert value_of(controls_of(name)[argument][0], text) == value
