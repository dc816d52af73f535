"""The reference of a schedule, read from the docstring and the annotations of its function.

The first paragraph of the docstring is the summary, other paragraphs are the description. A line that starts with one
of these words is a field, which continues on the indented lines below it:

    Formula: floor + (peak - floor) * (1 - t / T)
    Source: Devlin et al. 2018 (arXiv 1810.04805)
    Example: {floor_ratio: 0.1}
    From torch: LinearLR(1.0, 0.1, total_iters=T) -> {floor_ratio: 0.1}

`Example` and the part after the arrow are `lr_scheduler_kwargs`, a YAML mapping on one line. All of it is optional for
a user's own schedule; a missing field is empty.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

from hf_sched.integrations import builtin_schedules
from hf_sched.integrations.builtin_schedules import BUILTIN
from hf_sched.schedules import registry
from hf_sched.schedules.validation import Reader

_FIELD = re.compile(
    r"^(?P<field>Formula|Source|Example|From (?P<library>[\w.-]+)): *(?P<value>.*(?:\n +.*)*)\n?", re.MULTILINE
)


@dataclass(frozen=True)
class Argument:
    """A key that `lr_scheduler_kwargs` may have."""

    name: str
    takes: str
    """The allowed values in words with units: `a number from 0 to 1`."""
    required: bool
    default: Any
    """None if there is no default."""
    reader: object = field(default=None, compare=False, repr=False)
    """Its reader, which is a `Reader` if it has limits or units."""


@dataclass(frozen=True)
class ComingFrom:
    """The translation of another library's schedule."""

    library: str
    there: str
    here: str
    """`lr_scheduler_kwargs` as a YAML mapping, or a sentence."""


@dataclass(frozen=True)
class Reference:
    """The reference of a schedule. Texts that its docstring lacks are empty."""

    name: str
    summary: str
    formula: str
    text: str
    """Paragraphs, separated by empty lines."""
    source: str
    example: str
    """`lr_scheduler_kwargs` as a YAML mapping."""
    coming_from: tuple[ComingFrom, ...]
    arguments: tuple[Argument, ...]


def describe(name: str) -> Reference:
    """The reference of a schedule by its name, ours or transformers' own.

    Raises:
        ArgumentError: The name is unknown.
    """
    if name in BUILTIN:
        docstring, readers = BUILTIN[name], builtin_schedules.readers(name)
        parameters = builtin_schedules.parameters(name).values()
        arguments = [_argument(p.name, readers[p.name], p.default) for p in parameters]
    else:
        entry = registry.entry(name)
        docstring = inspect.getdoc(entry.build_phases) or ""
        defaults = {"floor_ratio": entry.floor_ratio, "min_lr": None, "horizon": None}
        defaults |= {argument: parameter.default for argument, parameter in entry.parameters.items()}
        arguments = [_argument(argument, entry.reader(argument), defaults[argument]) for argument in entry.arguments]
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
        arguments=tuple(arguments),
    )


def summary(name: str) -> str:
    """The summary of a schedule. Unlike `describe` it never imports transformers."""
    docstring = BUILTIN.get(name) or inspect.getdoc(registry.entry(name).build_phases) or ""
    return " ".join(_read(docstring)[2].partition("\n\n")[0].split())


def _argument(name: str, reader: object, default: Any) -> Argument:
    required = default is inspect.Parameter.empty
    allowed = reader.allowed if isinstance(reader, Reader) else "anything"
    return Argument(name, allowed, required, None if required else default, reader)


def _read(docstring: str) -> tuple[dict[str, str], tuple[ComingFrom, ...], str]:
    """The fields by name, those about other libraries, and the other paragraphs."""
    fields: dict[str, str] = {}
    coming_from = []
    for found in _FIELD.finditer(docstring):
        lines = [line.strip() for line in found["value"].splitlines()]
        if found["library"]:
            there, _, here = " ".join(lines).partition("->")
            coming_from.append(ComingFrom(found["library"], there.strip(), here.strip()))
        else:
            fields[found["field"]] = "\n".join(lines)
    return fields, tuple(coming_from), re.sub(r"\n{3,}", "\n\n", _FIELD.sub("", docstring)).strip()
