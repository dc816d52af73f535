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
from hf_sched.schedules.phase_parser import PhasesReader
from hf_sched.schedules.shapes import ShapeReader
from hf_sched.schedules.validation import DurationReader, Flag, ListOf, MappingReader, Number, OneOf, Whole

_STEP_OF_SLIDERS = 0.01


def arguments_of(name: str) -> list[Argument]:
    """The arguments of a schedule that have a control. Phases have a text field of their own."""
    return [argument for argument in describe(name).arguments if not isinstance(_reader(name, argument), PhasesReader)]


def control(name: str, argument: Argument, value: Any, elem_id: str) -> Any:
    """Create the control of an argument. It shows the value, else the default; its limits are those of the reader."""
    reader = _reader(name, argument)
    shown = argument.default if value is None else value
    about: dict[str, Any] = {"label": argument.name, "info": _sentence(argument), "elem_id": elem_id, "interactive": True}
    if isinstance(reader, Flag):
        return gr.Checkbox(bool(shown), **about)
    if isinstance(reader, OneOf):
        return gr.Dropdown(list(reader.words), value=shown, **about)
    if isinstance(reader, ShapeReader):
        return gr.Dropdown(_ready_shapes(reader), value=str(shown), allow_custom_value=True, **about)
    if isinstance(reader, Number) and (reader.low, reader.high) == (0, 1) and _fits_slider(argument.default):
        return gr.Slider(0, 1, shown, step=_STEP_OF_SLIDERS, buttons=[], **about)
    placeholder = "500, 5% or 1ep" if isinstance(reader, DurationReader) else "not set"
    return gr.Textbox("" if shown is None else _text(shown), placeholder=placeholder, max_lines=1, **about)


def value_of(name: str, argument: Argument, raw: Any) -> Any:
    """The value of `lr_scheduler_kwargs` for what a control shows; None for the default."""
    reader = _reader(name, argument)
    value = raw
    if isinstance(raw, str):
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(raw)
        if isinstance(reader, Number) and isinstance(value, str):  # YAML reads 1e-7 as text
            with suppress(ValueError):
                value = float(value)
        if not isinstance(reader, (Number, Whole, DurationReader, ListOf, MappingReader)):
            value = raw.strip() or None
    return None if value == argument.default else value


def first_arguments(name: str, form: RunForm) -> dict[str, Any]:
    """The arguments that a schedule starts with: none, or those of its example if it needs some."""
    try:
        form.plan(NamedSchedule(name))
    except ValueError:
        return examples.kwargs(describe(name))
    return {}


def _reader(name: str, argument: Argument) -> Any:
    if name in registry.available():
        return registry.entry(name).reader(argument.name)
    return builtin_schedules.readers(name)[argument.name]


def _sentence(argument: Argument) -> str:
    """The allowed values with units, and the default where the control does not show it."""
    required = "Required: " if argument.required else ""
    return f"{required}{argument.takes}"


def _fits_slider(default: Any) -> bool:
    return isinstance(default, (int, float)) and abs(round(default, 2) - default) < 1e-12


def _ready_shapes(reader: ShapeReader) -> list[str]:
    """The shapes as a menu; those with a number have a typical one, which can be edited."""
    numbers = {"polynomial": "polynomial 2", "inverse_sqrt": "inverse_sqrt 10"}
    return [numbers.get(name, name) for name in reader.names]


def _text(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return str(value)
