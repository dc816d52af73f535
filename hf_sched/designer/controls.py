"""The controls of a schedule's arguments, made from their annotations."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gradio as gr
import yaml

from hf_sched.designer.run_form import RunForm
from hf_sched.integrations import builtin_schedules
from hf_sched.reference import examples
from hf_sched.reference.description import Argument, describe
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.shapes import ShapeReader
from hf_sched.schedules.validation import BOOLEAN, TEXT, DurationReader, Number, OneOf

# A typical number for the shapes that need one; it can be edited.
_SHAPES = {"polynomial": "polynomial 2", "inverse_sqrt": "inverse_sqrt 10"}


def control(schedule: str, argument: Argument, value: Any, elem_id: str) -> Any:
    """Create the control of an argument; its description has the limits and units.

    Args:
        schedule: The name of the schedule.
        argument: The argument.
        value: The value to show; None for the default.
        elem_id: The control's id in the page.
    """
    reader, shown = _reader(schedule, argument), argument.default if value is None else value
    info = f"Required: {argument.takes}" if argument.required else argument.takes
    about: dict[str, Any] = {"label": argument.name, "info": info, "elem_id": elem_id, "interactive": True}
    if reader is BOOLEAN:
        return gr.Checkbox(bool(shown), **about)
    if isinstance(reader, OneOf):
        return gr.Dropdown(list(reader.words), value=shown, **about)
    if isinstance(reader, ShapeReader):
        shapes = [_SHAPES.get(name, name) for name in reader.names]
        return gr.Dropdown(shapes, value=f"{shown}", allow_custom_value=True, **about)
    is_share = isinstance(reader, Number) and (reader.low, reader.high) == (0, 1)
    if is_share and argument.default is not None and argument.default == round(argument.default, 2):
        return gr.Slider(0, 1, shown, step=0.01, buttons=[], **about)
    if isinstance(shown, (list, dict)):
        shown = yaml.safe_dump(shown, default_flow_style=True, width=1000).strip()
    hint = "500, 5% or 1ep" if isinstance(reader, DurationReader) else "not set"
    return gr.Textbox("" if shown is None else f"{shown}", placeholder=hint, max_lines=1, **about)


def value_of(schedule: str, argument: Argument, shown: Any) -> Any:
    """The value for `lr_scheduler_kwargs` of what a control shows; None for the default."""
    reader, value = _reader(schedule, argument), shown
    if isinstance(shown, str) and reader is not TEXT and not isinstance(reader, (OneOf, ShapeReader)):
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(shown)
        if isinstance(reader, Number) and isinstance(value, str):  # YAML reads 1e-7 as text
            with suppress(ValueError):
                value = float(value)
    return None if value in ("", argument.default) else value


def first_arguments(schedule: str, form: RunForm) -> dict[str, Any]:
    """The arguments that a schedule starts with: none, or those of its example if it needs some."""
    try:
        form.plan(NamedSchedule(schedule))
    except ValueError:
        return examples.kwargs(describe(schedule))
    return {}


def _reader(schedule: str, argument: Argument) -> Any:
    if schedule in registry.available():
        return registry.entry(schedule).reader(argument.name)
    return builtin_schedules.readers(schedule)[argument.name]
