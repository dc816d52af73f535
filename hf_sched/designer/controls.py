"""The controls of a schedule's arguments, made from their annotations."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gradio as gr

from hf_sched.check.finding import as_yaml
from hf_sched.reference.description import Argument
from hf_sched.schedules import schedule_text
from hf_sched.schedules.shapes import ShapeReader
from hf_sched.schedules.validation import BOOLEAN, DurationReader, Number, OneOf

# A typical number for the shapes that need one; it can be edited.
_SHAPES = {"polynomial": "polynomial 2", "inverse_sqrt": "inverse_sqrt 10"}


def control(argument: Argument, value: Any, elem_id: str) -> Any:
    """Create the control of an argument, described by limits and units; `value` is None for the default."""
    reader, shown = argument.reader, argument.default if value is None else value
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
    text = "" if shown is None else shown if isinstance(shown, str) else as_yaml(shown)
    hint = "500, 5% or 1ep" if isinstance(reader, DurationReader) else "not set"
    return gr.Textbox(text, placeholder=hint, max_lines=1, **about)


def value_of(argument: Argument, shown: Any) -> Any:
    """The value for `lr_scheduler_kwargs` of what a control shows; None for the default."""
    value = shown
    if isinstance(shown, str) and shown:
        with suppress(ValueError):  # the plan of the run reports it
            value = schedule_text.read(f"schedule:{argument.name}={shown}")[1][argument.name]
    return None if value in ("", argument.default) else value
