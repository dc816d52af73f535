"""The phase language: a schedule as text, read and written.

    "warmup 5% | hold | decay 20% 1-sqrt to 0.1"

`GRAMMAR` is all of it; words stand apart from each other (`0.5 + 1 floor`), a unit does not (`5%`). Text is parsed by
this grammar and never evaluated. The same as a list of mappings, one a phase:

    [{"warmup": "5%"}, "hold", {"decay": "20%", "shape": "1-sqrt", "to": 0.1}]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hf_sched.schedules import phases
from hf_sched.schedules.phases import FLOOR, KINDS, PEAK, Level, Phase, ScheduleSpec
from hf_sched.schedules.shapes import FORMS, Shape
from hf_sched.schedules.validation import ArgumentError, Epochs, Number, Reader, did_you_mean

if TYPE_CHECKING:
    from hf_sched.schedules.schedule import Schedule, Segment

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

# What may stand behind each kind of phase, and the argument of its function that it is.
_OPTIONS: dict[str, dict[str, str]] = {
    "warmup": {"from": "start", "to": "to", "lars": "lars"},
    "hold": {"at": "at"},
    "decay": {"from": "start", "to": "to", "every": "every"},
    "restart": {"from": "start", "to": "to"},
}
_FLOORS: dict[str, tuple[str, Number]] = {"floor": ("floor_ratio", Number(0, 1)), "min_lr": ("min_lr", Number(0))}
_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?(%|ep)?", re.IGNORECASE)


def parse(text: str, name: str = "phases") -> ScheduleSpec:
    """Read text in the phase language.

    Raises:
        ValueError: It is none; the message shows the text with the wrong words marked. `name` is what it calls the
            text.
    """
    if not isinstance(text, str):
        raise ArgumentError(name, "text in the phase language", text)
    source = _Source(text, name)
    body = text.partition(";")[0]
    laid, start = [], 0
    for chunk in body.split("|"):
        laid.append(_parse_phase(source, start, start + len(chunk)))
        start += len(chunk) + 1
    return ScheduleSpec(tuple(laid), **(_parse_floor(source, start) if start <= len(text) else {}))


def write(schedule: Schedule) -> str:
    """A schedule as text; `parse`, laid on as many steps, gives an equal one."""
    ends: list[Level | None] = [None, *(segment.end for segment in schedule.segments)]
    text = " | ".join(_write_segment(segment, ends[i]) for i, segment in enumerate(schedule.segments))
    if schedule.min_lr is not None:
        return f"{text}; min_lr {schedule.min_lr!r}"
    return f"{text}; floor {schedule.floor_ratio!r}" if schedule.floor_ratio else text


def write_phase(phase: Phase) -> str:
    """A phase as text; what is so by default is left out."""
    words: list[str] = [phase.kind]
    if phase.duration is not None:
        words.append(_write_duration(phase.duration))
    if phase.kind == "hold":
        return " ".join(words if phase.start is None else [*words, f"at {phase.start}"])
    if phase.shape != Shape("cosine" if phase.kind == "restart" else "linear"):
        words.append(str(phase.shape))
    if phase.start not in (None, PEAK if phase.kind == "restart" else None):
        words.append(f"from {phase.start}")
    if phase.end not in (None, PEAK if phase.kind == "warmup" else FLOOR):
        words.append(f"to {phase.end}")
    if phase.every != 1:
        words.append(f"every {_write_duration(phase.every)}")
    if phase.trust_coefficient is not None:
        words.append(f"lars {phase.trust_coefficient!r}")
    return " ".join(words)


def _write_duration(duration: int | Fraction | Epochs) -> str:
    if isinstance(duration, int):
        return str(duration)
    if isinstance(duration, Epochs):
        return f"{float(duration.number)!r}ep"
    return f"{float(duration * 100)!r}%"


class PhasesReader(Reader):
    """Text in the phase language, or a list of mappings, texts and phases, as an `ScheduleSpec`."""

    def __call__(self, name: str, value: object) -> ScheduleSpec:
        if isinstance(value, ScheduleSpec):
            return value
        if isinstance(value, str):
            return parse(value, name)
        if not isinstance(value, (list, tuple)) or not value:
            raise ArgumentError(name, 'text ("warmup 5% | hold | decay 20%") or a list of phases', value)
        return ScheduleSpec(tuple(_read_item(f"{name}[{i}]", item) for i, item in enumerate(value)))


def _read_item(name: str, item: object) -> Phase:
    if isinstance(item, Phase):
        return item
    if isinstance(item, str):
        spec = parse(item, name)
        if len(spec.phases) != 1 or spec != ScheduleSpec(spec.phases):
            raise ArgumentError(name, "a single phase", item)
        return spec.phases[0]
    if not isinstance(item, Mapping):
        raise ArgumentError(name, "a phase, as text or as a mapping", item)
    kinds = [key for key in item if key in KINDS]
    if len(kinds) != 1:
        raise ArgumentError(name, f"a mapping with exactly one of the keys {', '.join(KINDS)}", dict(item))
    kind = kinds[0]
    options = _OPTIONS[kind] if kind == "hold" else {"shape": "shape", **_OPTIONS[kind]}
    arguments: dict[str, Any] = {}
    for key, value in item.items():
        if key != kind and key not in options:
            raise ValueError(
                f"`{name}`: {kind} has no key {key!r} (received {value!r}){did_you_mean(key, options)} "
                f"It takes {', '.join(options)}."
            )
        if key != kind and value is not None:
            arguments[options[key]] = value
    try:
        return _function(kind)(item[kind], **arguments)
    except ValueError as error:
        raise ValueError(f"`{name}`: {_as_written(error)}") from None


def _as_written(error: ValueError) -> str:
    """An error of a phase's function in the words of the language, where `from` is what Python has to call `start`."""
    return str(error).replace("`start`", "`from`")


@dataclass(frozen=True)
class _Source:
    """The text that is read, for messages that point into it."""

    text: str
    name: str

    def words(self, start: int, stop: int) -> list[re.Match[str]]:
        return list(_WORD.finditer(self.text, start, stop))

    def error(self, message: object, start: int, stop: int) -> ValueError:
        # One line, whatever line breaks a YAML file folded in: the marks below must stand under the words.
        shown = re.sub(r"\s", " ", self.text)
        return ValueError(f"`{self.name}`: {message}\n    {shown}\n    {' ' * start}{'^' * max(stop - start, 1)}")


def _parse_phase(source: _Source, start: int, stop: int) -> Phase:
    words = source.words(start, stop)
    if not words:
        raise source.error(f"expected a phase ({', '.join(KINDS)})", start, stop)
    kind, *others = words
    if kind.group() not in KINDS:
        raise source.error(f"{kind.group()!r} is no phase{did_you_mean(kind.group(), KINDS)}", *kind.span())
    arguments = _sort_words(source, kind, others)
    values = {name: " ".join(word.group() for word in of) for name, of in arguments.items()}
    make = _function(kind.group())
    for name, of in arguments.items():
        try:
            make(**{"duration": 1, name: values[name]})
        except ValueError as error:
            wrong = of[-1:] if name == "shape" and of[0].group() in FORMS else of
            raise source.error(_as_written(error), wrong[0].start(), wrong[-1].end()) from None
    if kind.group() == "warmup" and "duration" not in values:
        raise source.error("expected how long the warmup lasts (500, 5% or 1ep)", *kind.span())
    return make(**values)


def _sort_words(source: _Source, kind: re.Match[str], others: list[re.Match[str]]) -> dict[str, list[re.Match[str]]]:
    """The words behind a phase's name by the argument that they are."""
    options = _OPTIONS[kind.group()]
    arguments: dict[str, list[re.Match[str]]] = {}
    option: re.Match[str] | None = None
    for word in others:
        text = word.group()
        if text in options:
            if options[text] in arguments:
                raise source.error(f"{text!r} is there twice", *word.span())
            option, arguments[options[text]] = word, []
        elif option is not None:
            arguments[options[option.group()]].append(word)
        elif not arguments and _NUMBER.fullmatch(text):
            arguments["duration"] = [word]
        elif kind.group() != "hold" and "shape" not in arguments:
            if text not in FORMS:
                known = did_you_mean(text, [*FORMS, *options])
                raise source.error(f"{text!r} is no shape and no option of {kind.group()}{known}", *word.span())
            arguments["shape"] = [word]
        elif "shape" in arguments and _NUMBER.fullmatch(text) and len(arguments["shape"]) == 1:
            arguments["shape"].append(word)
        else:
            raise source.error(f"{text!r} is no option of {kind.group()}{did_you_mean(text, options)}", *word.span())
    for word in others:
        if arguments.get(options.get(word.group(), ""), word) == []:
            raise source.error(f"expected a value behind {word.group()!r}", *word.span())
    return arguments


def _parse_floor(source: _Source, start: int) -> dict[str, float]:
    words = source.words(start, len(source.text))
    if not words:
        raise source.error("expected 'floor' or 'min_lr' behind ';'", start, start)
    kind, *numbers = words
    if kind.group() not in _FLOORS:
        raise source.error(f"{kind.group()!r} is no floor{did_you_mean(kind.group(), _FLOORS)}", *kind.span())
    if not numbers:
        raise source.error(f"expected a number behind {kind.group()!r}", *kind.span())
    if len(numbers) > 1:
        raise source.error(f"expected the end behind the floor, not {numbers[1].group()!r}", *numbers[1].span())
    argument, reader = _FLOORS[kind.group()]
    try:
        return {argument: reader(argument, numbers[0].group())}
    except ValueError as error:
        raise source.error(error, *numbers[0].span()) from None


def _function(kind: str) -> Callable[..., Phase]:
    return getattr(phases, kind)  # type: ignore[no-any-return]


def _write_segment(segment: Segment, before: Level | None) -> str:
    """A phase that is laid; `before` is where the one before it ended."""
    usual = before or (Level() if segment.kind == "warmup" else PEAK)
    start = None if segment.start == usual and segment.kind != "restart" else segment.start
    return write_phase(
        Phase(segment.kind, segment.steps, segment.shape, start, segment.end, segment.every, segment.trust_coefficient)
    )
