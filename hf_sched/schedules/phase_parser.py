"""Reads the phase language: a schedule as text.

    "warmup 5% | hold | decay 20% 1-sqrt to 0.1"

`GRAMMAR` is the whole language. Words are separated by blanks (`0.5 + 1 floor`), a unit is not (`5%`). The text is
parsed and never evaluated. The same schedule as a list of mappings, one per phase:

    [{"warmup": "5%"}, "hold", {"decay": "20%", "shape": "1-sqrt", "to": 0.1}]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hf_sched.schedules import phases
from hf_sched.schedules.phases import KINDS, LevelReader, Phase, ScheduleSpec
from hf_sched.schedules.shapes import DECAY_SHAPES, FORMS, WARMUP_SHAPES, ShapeReader
from hf_sched.schedules.validation import ArgumentError, DurationReader, Number, Reader, suggest

GRAMMAR = """\
schedule = phase { "|" phase } [ ";" ( "floor" | "min_lr" ) NUMBER ]
phase    = "warmup" duration [ shape ] { "from" level | "to" level | "lars" NUMBER }
         | "hold" [ duration ] [ "at" level ]
         | "decay" [ duration ] [ shape ] { "from" level | "to" level | "every" duration }
         | "restart" [ duration ] [ shape ] { "from" level | "to" level }
duration = STEPS | SHARE | NUMBER "%" | NUMBER "ep"
shape    = "linear" | "cosine" | "sqrt" | "1-sqrt" | "rex" | "geometric"
         | "polynomial" POWER | "exponential" [ RATE ] | "inverse_sqrt" LENGTH
level    = term { "+" term }
term     = NUMBER | [ NUMBER ] ( "peak" | "floor" )
"""

_FROM_TO = {"from": LevelReader(), "to": LevelReader()}
# The options of each kind of phase and their readers, with the words of the grammar. Python calls `from` `start`.
_OPTIONS: dict[str, dict[str, Reader]] = {
    "warmup": {"shape": ShapeReader(WARMUP_SHAPES), **_FROM_TO, "lars": Number(0, above_low=True)},
    "hold": {"at": LevelReader()},
    "decay": {"shape": ShapeReader(DECAY_SHAPES), **_FROM_TO, "every": DurationReader(above_zero=True)},
    "restart": {"shape": ShapeReader(DECAY_SHAPES), **_FROM_TO},
}
_FLOORS: dict[str, tuple[str, Reader]] = {"floor": ("floor_ratio", Number(0, 1)), "min_lr": ("min_lr", Number(0))}
_WORD = re.compile(r"\S+")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(%|[eE][pP])?"  # `re` compiles it when text is parsed first

Words = list[re.Match[str]]


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
        return ScheduleSpec(tuple(_read_item(name, f"phase {i}", item) for i, item in enumerate(value, 1)))


def parse(text: str, name: str = "phases") -> ScheduleSpec:
    """Read text in the phase language.

    Args:
        text: `"warmup 5% | hold | decay 20%; floor 0.1"`.
        name: The argument that holds the text, for messages.

    Raises:
        ArgumentError: The text does not parse. The message shows it and marks the wrong words.
    """
    if not isinstance(text, str):
        raise ArgumentError(name, "text in the phase language", text)
    source = _Source(text, name)
    found, start = [], 0
    for chunk in text.partition(";")[0].split("|"):
        found.append(_parse_phase(source, start, start + len(chunk)))
        start += len(chunk) + 1
    return ScheduleSpec(tuple(found), **(_parse_floor(source, start) if start <= len(text) else {}))


def _read_item(name: str, where: str, item: object) -> Phase:
    """One item of a list of phases."""
    if isinstance(item, Phase):
        return item
    if isinstance(item, str):
        spec = parse(item, name)
        if len(spec.phases) != 1 or spec.sets_floor:
            raise ArgumentError(name, "a list of single phases", item)
        return spec.phases[0]
    if not isinstance(item, Mapping):
        raise ArgumentError(name, "a list of phases, each text or a mapping", item)
    kinds = [key for key in item if key in KINDS]
    if len(kinds) != 1:
        raise ArgumentError(name, f"mappings with exactly one of the keys {', '.join(KINDS)}", dict(item))
    kind = kinds[0]
    readers = {kind: DurationReader(), **_OPTIONS[kind]}
    values = {key: value for key, value in item.items() if value is not None or key == "warmup"}
    for key, value in values.items():
        if key not in readers:
            options = list(readers)[1:]
            hint = " ".join(filter(None, [suggest(key, options), f"{kind} takes {', '.join(options)}"]))
            raise ArgumentError(name, received=value, hint=hint, rule=f"has an unknown key {key!r} in {where} ({kind})")
    try:
        return _make_phase(kind, {key: readers[key](key, value) for key, value in values.items()})
    except ArgumentError as error:
        raise ArgumentError(name, rule=f"is invalid in {where}: {error}") from None


def _make_phase(kind: str, values: dict[str, Any]) -> Phase:
    """The phase with these values by the words of the grammar."""
    arguments = {kind: "duration", "from": "start"}
    phase: Phase = getattr(phases, kind)(**{arguments.get(key, key): value for key, value in values.items()})
    return phase


class _Source(NamedTuple):
    """The text being parsed, for messages that point into it."""

    text: str
    name: str

    def words(self, start: int, stop: int) -> Words:
        return list(_WORD.finditer(self.text, start, stop))

    def error(self, message: str, start: int, stop: int) -> ArgumentError:
        # YAML may have folded line breaks into the text. On a single line the marks are under the words.
        shown = re.sub(r"\s", " ", self.text)
        marks = f"{' ' * start}{'^' * max(stop - start, 1)}"
        return ArgumentError(self.name, rule=f"is invalid: {message}\n    {shown}\n    {marks}")

    def unexpected(self, word: re.Match[str], rule: str, known: Iterable[str]) -> ArgumentError:
        hint = suggest(word.group(), known)
        return self.error(f"{word.group()!r} {rule}{'; ' if hint else ''}{hint}", *word.span())


def _parse_phase(source: _Source, start: int, stop: int) -> Phase:
    words = source.words(start, stop)
    if not words:
        raise source.error(f"expected a phase ({', '.join(KINDS)})", start, stop)
    kind, *others = words
    if kind.group() not in KINDS:
        raise source.unexpected(kind, "is not a phase", KINDS)
    readers = {"duration": DurationReader(), **_OPTIONS[kind.group()]}
    values: dict[str, Any] = {}
    for name, found in _sort_words(source, kind, others).items():
        try:
            values[name] = readers[name](name, " ".join(word.group() for word in found))
        except ArgumentError as error:
            wrong = found[-1:] if name == "shape" and found[0].group() in FORMS else found
            raise source.error(str(error), wrong[0].start(), wrong[-1].end()) from None
    if kind.group() == "warmup" and "duration" not in values:
        raise source.error("expected the duration of the warmup (500, 5% or 1ep)", *kind.span())
    return _make_phase(kind.group(), values)


def _sort_words(source: _Source, kind: re.Match[str], others: Words) -> dict[str, Words]:
    """The words after the name of a phase, grouped by the argument they belong to."""
    options = [option for option in _OPTIONS[kind.group()] if option != "shape"]
    found: dict[str, Words] = {}
    option: re.Match[str] | None = None
    for word in others:
        text = word.group()
        if text in options:
            if text in found:
                raise source.error(f"{text!r} is given twice", *word.span())
            option, found[text] = word, []
        elif option is not None:
            found[option.group()].append(word)
        elif not found and re.fullmatch(_NUMBER, text):
            found["duration"] = [word]
        elif kind.group() != "hold" and "shape" not in found:
            if text not in FORMS:
                rule = f"is not a shape and not an option of {kind.group()}"
                raise source.unexpected(word, rule, [*FORMS, *options])
            found["shape"] = [word]
        elif "shape" in found and re.fullmatch(_NUMBER, text) and len(found["shape"]) == 1:
            found["shape"].append(word)
        else:
            raise source.unexpected(word, f"is not an option of {kind.group()}", options)
    for word in others:
        if found.get(word.group()) == []:
            raise source.error(f"expected a value after {word.group()!r}", *word.span())
    return found


def _parse_floor(source: _Source, start: int) -> dict[str, Any]:
    words = source.words(start, len(source.text))
    if not words:
        raise source.error("expected 'floor' or 'min_lr' after ';'", start, start)
    kind, *numbers = words
    if kind.group() not in _FLOORS:
        raise source.unexpected(kind, "is not a floor", _FLOORS)
    if not numbers:
        raise source.error(f"expected a number after {kind.group()!r}", *kind.span())
    if len(numbers) > 1:
        raise source.error(f"expected the end after the floor, not {numbers[1].group()!r}", *numbers[1].span())
    argument, reader = _FLOORS[kind.group()]
    try:
        return {argument: reader(argument, numbers[0].group())}
    except ArgumentError as error:
        raise source.error(str(error), *numbers[0].span()) from None
