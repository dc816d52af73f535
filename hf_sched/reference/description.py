"""What a schedule is, in words: read from the docstring and the annotations of its function.

The first paragraph of the docstring is the summary. Other paragraphs say what it does. A line that begins with one of
these words is a field, and goes on in the indented lines below it:

    Formula: floor + (peak - floor) * (1 - t / T)
    Source: Devlin et al. 2018 (arXiv 1810.04805)
    Example: {floor_ratio: 0.1}
    From torch: LinearLR(1.0, 0.1, total_iters=T) -> {floor_ratio: 0.1}

`Example` and what stands behind the arrow are `lr_scheduler_kwargs`, as a YAML mapping in one line. A user's own
schedule may leave out any of it: what is not there is empty.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_sched.integrations import builtin_schedules
from hf_sched.integrations.builtin_schedules import BUILTIN
from hf_sched.schedules import registry
from hf_sched.schedules.phase_parser import PhasesReader
from hf_sched.schedules.phases import LevelReader
from hf_sched.schedules.shapes import FORMS, ShapeReader
from hf_sched.schedules.validation import (
    DurationReader,
    Flag,
    ListOf,
    MappingReader,
    Number,
    OneOf,
    Reader,
    TextReader,
    Whole,
)

_FIELD = re.compile(r"(?P<field>Formula|Source|Example|From (?P<library>[\w.-]+)): *(?P<value>.*)")
# What these numbers are measured in; no annotation says so.
_UNITS = {"floor_ratio": "a share of the peak", "min_lr": "a learning rate"}


@dataclass(frozen=True)
class Argument:
    """One of the names that `lr_scheduler_kwargs` may have."""

    name: str
    takes: str
    """What it may be, in words with units: `a number from 0 to 1`."""
    required: bool
    default: Any
    """None: there is none, and the argument may be left out unless it is required."""


@dataclass(frozen=True)
class ComingFrom:
    """What to write here for a schedule of another library."""

    library: str
    there: str
    here: str
    """`lr_scheduler_kwargs` as a YAML mapping, or a sentence."""


@dataclass(frozen=True)
class Reference:
    """What there is to say about a schedule; a text that its docstring lacks is empty."""

    name: str
    summary: str
    formula: str
    text: str
    """Paragraphs with an empty line between them."""
    source: str
    example: str
    """`lr_scheduler_kwargs` as a YAML mapping."""
    coming_from: tuple[ComingFrom, ...]
    arguments: tuple[Argument, ...]


def describe(name: str) -> Reference:
    """The reference of a schedule by its name, ours or transformers' own.

    Raises:
        ValueError: Nothing is registered under the name.
    """
    if name in BUILTIN:
        docstring, readers = BUILTIN[name], builtin_schedules.readers(name)
        parameters = builtin_schedules.parameters(name)
        arguments = tuple(_describe_argument(parameter, readers[key]) for key, parameter in parameters.items())
    else:
        entry = registry.entry(name)
        docstring = inspect.getdoc(entry.build_phases) or ""
        arguments = tuple(_describe_entrys(entry, argument) for argument in entry.arguments)
    fields, coming_from, text = _read(docstring)
    first, _, text = text.partition("\n\n")
    return Reference(
        name=name,
        summary=" ".join(first.split()),
        formula=fields.get("Formula", ""),
        text=text,
        source=" ".join(fields.get("Source", "").split()),
        example=" ".join(fields.get("Example", "").split()),
        coming_from=coming_from,
        arguments=arguments,
    )


def summary(name: str) -> str:
    """The first paragraph of a schedule's description; unlike `describe` it never imports transformers."""
    docstring = BUILTIN.get(name) or inspect.getdoc(registry.entry(name).build_phases) or ""
    return " ".join(_read(docstring)[2].partition("\n\n")[0].split())


def in_words(reader: Callable[[str, Any], Any], number: str = "a number") -> str:
    """What a reader allows; `number` is what it calls a number."""
    match reader:
        case Number():
            return _bounded(reader, number)
        case Whole():
            return f"a whole number, {reader.low} or more"
        case DurationReader():
            return f"steps (500), a share of the run (5%) or epochs (1ep){', above 0' if reader.above_zero else ''}"
        case OneOf():
            return f"one of {', '.join(reader.words)}"
        case ShapeReader():
            return f"one of {', '.join(_with_number(shape) for shape in reader.names)}"
        case ListOf():
            return f"a list, each item {in_words(reader.reader, number)}"
        case LevelReader():
            return "a share of the peak (0.1), peak, floor, or a sum of them"
        case PhasesReader():
            return "text in the phase language, or a list of mappings"
        case MappingReader():
            return "a mapping of arguments by name"
        case TextReader():
            return "text"
        case Flag():
            return "true or false"
        case Reader():  # of a user's own
            return (inspect.getdoc(type(reader)) or "anything").partition("\n")[0].rstrip(".")
        case _:
            return "anything"


def _read(docstring: str) -> tuple[dict[str, str], tuple[ComingFrom, ...], str]:
    """The fields by name, those about other libraries, and what is left: summary and paragraphs."""
    fields: list[tuple[re.Match[str], list[str]]] = []
    text: list[str] = []
    within_field = False
    for line in docstring.splitlines():
        if begins := _FIELD.fullmatch(line):
            fields.append((begins, [begins["value"]]))
            within_field = True
        elif within_field and line.startswith(" "):
            fields[-1][1].append(line.strip())
        else:
            text.append(line)
            within_field = False
    coming_from = []
    for begins, lines in fields:
        if begins["library"]:
            there, _, here = " ".join(lines).partition("->")
            coming_from.append(ComingFrom(begins["library"], there.strip(), here.strip()))
    by_name = {begins["field"]: "\n".join(lines) for begins, lines in fields if not begins["library"]}
    return by_name, tuple(coming_from), re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip()


def _describe_entrys(entry: registry.Entry, name: str) -> Argument:
    reader = entry.reader(name)
    if name in entry.parameters:
        return _describe_argument(entry.parameters[name], reader)
    # a floor, which the registry adds
    return Argument(name, in_words(reader, _UNITS[name]), False, entry.floor_ratio if name == "floor_ratio" else None)


def _describe_argument(parameter: inspect.Parameter, reader: Callable[[str, Any], Any]) -> Argument:
    required = parameter.default is inspect.Parameter.empty
    takes = in_words(reader, _UNITS.get(parameter.name, "a number"))
    return Argument(parameter.name, takes, required, None if required else parameter.default)


def _bounded(reader: Number, number: str) -> str:
    if reader.above_low:
        return f"{number} above {reader.low:g}" + (f", {reader.high:g} at most" if reader.high < float("inf") else "")
    if reader.low > -float("inf"):
        bounded = reader.high < float("inf")
        return f"{number} from {reader.low:g} to {reader.high:g}" if bounded else f"{number}, {reader.low:g} or more"
    return number if reader.high == float("inf") else f"{number}, {reader.high:g} at most"


def _with_number(shape: str) -> str:
    """A shape with its number as the grammar writes them: `exponential [RATE]`."""
    form = FORMS[shape]
    if form.number is None:
        return shape
    return f"{shape} {form.number.upper()}" if form.default is None else f"{shape} [{form.number.upper()}]"
