"""Reads the phase language: a schedule as text.

    "warmup 5% | hold | decay 20% 1-sqrt to 0.1"

`GRAMMAR` is the whole language. Words are separated by blanks (`0.5 + 1 floor`); `%` follows its number directly. The
text is parsed and never evaluated. The same schedule as a list of mappings, one per phase:

    [{"warmup": "5%"}, "hold", {"decay": "20%", "shape": "1-sqrt", "to": 0.1}]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_sched.schedules import phases
from hf_sched.schedules.horizon import HorizonReader
from hf_sched.schedules.phases import KINDS, Phase, ScheduleSpec
from hf_sched.schedules.shapes import DECAY_SHAPES, WARMUP_SHAPES
from hf_sched.schedules.validation import (
    UNIT_PATTERN,
    ArgumentError,
    NotGiven,
    Number,
    Reader,
    suggest,
    unknown_argument,
)

GRAMMAR = """\
schedule = phase { "|" phase } { ";" setting }
setting  = ( "floor" | "min_lr" ) NUMBER | "horizon" ( STEPS | NUMBER "x" | amount )
phase    = "warmup" duration [ shape ] { "from" level | "to" level | "lars" NUMBER }
         | "hold" [ duration ] [ "at" level ]
         | "decay" [ duration ] [ shape ] { "from" level | "to" level | "every" duration }
         | "restart" [ duration ] [ shape ] { "from" level | "to" level }
duration = STEPS | SHARE | NUMBER "%" | amount
amount   = NUMBER "ep" | NUMBER [ "k" | "M" | "B" | "T" ] ( "samples" | "tok" )
shape    = "linear" | "cosine" | "sqrt" | "1-sqrt" | "rex" | "geometric"
         | "polynomial" POWER | "exponential" [ RATE ] | "inverse_sqrt" LENGTH
level    = term { "+" term }
term     = NUMBER | [ NUMBER ] ( "peak" | "floor" )
"""

# The options of each kind of phase, in the words of the grammar. Python calls `from` `start`.
_OPTIONS = {
    "warmup": ("shape", "from", "to", "lars"),
    "hold": ("at",),
    "decay": ("shape", "from", "to", "every"),
    "restart": ("shape", "from", "to"),
}
# `re` compiles them when text is parsed first.
_NUMBER = rf"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(%|[eE][pP]|[kMBT]?({UNIT_PATTERN})?)"
_SETTINGS: dict[str, tuple[str, Reader]] = {
    "floor": ("floor_ratio", Number(0)),
    "min_lr": ("min_lr", Number(0)),
    "horizon": ("horizon", HorizonReader()),
}
"""What may follow a `;`, with its name in Python."""


class PhasesReader(Reader):
    """Text in the phase language, or a list of mappings, texts and phases, as a `ScheduleSpec`."""

    allowed = 'text ("warmup 5% | hold | decay 20%") or a list of phases'

    def __call__(self, name: str, value: object) -> ScheduleSpec:
        if isinstance(value, ScheduleSpec):
            return value
        if isinstance(value, str):
            return parse(value, name)
        if not isinstance(value, (list, tuple)) or not value:
            raise ArgumentError(name, self.allowed, value)
        return ScheduleSpec(_read_phases(name, value))


def parse(text: str, name: str = "phases") -> ScheduleSpec:
    """Read text in the phase language; `name` is the argument that holds it, for messages."""
    written, *settings = text.split(";")
    found, given = _read_phases(name, written.split("|")), {}
    for setting in settings:
        word, *value = setting.split(maxsplit=1) or [""]
        if word not in _SETTINGS or not value or "|" in setting:
            raise ArgumentError(
                name, rule=f"must have 'floor', 'min_lr' or 'horizon' and one value after the ';', not {setting!r}"
            )
        argument, reader = _SETTINGS[word]
        if argument in given:
            raise ArgumentError(name, rule=f"has {word!r} twice after a ';'")
        given[argument] = reader(argument, value[0].strip())
    return ScheduleSpec(found, **given)


def _read_phases(name: str, items: Sequence[object]) -> tuple[Phase, ...]:
    found = []
    for i, item in enumerate(items, 1):
        try:
            found.append(_read_phase(item))
        except ArgumentError as error:
            shown = " ".join(item.split()) if isinstance(item, str) else item
            raise ArgumentError(name, rule=f"is invalid in phase {i} ({shown!r}): {error}") from None
    return tuple(found)


def _read_phase(item: object) -> Phase:
    if isinstance(item, Phase):
        return item
    if isinstance(item, Mapping):
        kinds = [key for key in item if key in KINDS]
        if len(kinds) != 1:
            raise ArgumentError("phase", f"a mapping with exactly one of the keys {', '.join(KINDS)}")
        kind = kinds[0]
        values = {key: value for key, value in item.items() if key != kind and value is not None}
        values["duration"] = item[kind]
    elif isinstance(item, str):
        kind, values = _sort_words(item.split())
    else:
        raise ArgumentError("phase", "text or a mapping")
    for key, value in values.items():
        if key not in ("duration", *_OPTIONS[kind]):
            raise unknown_argument(key, value, _OPTIONS[kind], kind)
    phase: Phase = getattr(phases, kind)(**{"start" if key == "from" else key: value for key, value in values.items()})
    return phase


def _sort_words(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The kind of a phase, and the texts of its arguments by their words in the grammar."""
    kind = words.pop(0) if words else ""
    if kind not in KINDS:
        raise ArgumentError("phase", f"one of {', '.join(KINDS)}", kind, suggest(kind, KINDS))
    values: dict[str, Any] = {"duration": words.pop(0) if words and re.fullmatch(_NUMBER, words[0]) else None}
    if values["duration"] and words and re.fullmatch(UNIT_PATTERN, words[0]):
        values["duration"] += words.pop(0)
    shapes = {"warmup": WARMUP_SHAPES, "hold": ()}.get(kind, DECAY_SHAPES)
    if words and words[0] in shapes:
        has_number = len(words) > 1 and re.fullmatch(_NUMBER, words[1])
        values["shape"] = " ".join(words[: 2 if has_number else 1])
        words = words[2 if has_number else 1 :]
    options = [option for option in _OPTIONS[kind] if option != "shape"]
    while words:
        option, *words = words
        if option not in options:
            raise unknown_argument(option, NotGiven, [*shapes, *options], kind)
        if option in values:
            raise ArgumentError(option, rule="is given twice")
        stop = next((i for i, word in enumerate(words) if word in options), len(words))
        values[option] = " ".join(words[:stop])
        words = words[stop:]
    return kind, values
