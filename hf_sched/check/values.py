"""Values of the wrong type, by the type hints of the dataclasses."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hf_sched.check.choices import check_choice, choices
from hf_sched.check.finding import Finding, Severity
from hf_sched.check.keys import similar
from hf_sched.check.renamed import as_yaml
from hf_sched.check.subject import Subject

# Types that the code accepts although the hint does not name them.
ALSO_ACCEPTED: dict[str, tuple[type, ...]] = {
    "fsdp": (bool, list),
    "include_for_metrics": (str,),
    "lora_target_modules": (str,),
    "loss_type": (str,),
    "resume_from_checkpoint": (bool,),
    "scale_rewards": (bool,),
}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
_BOOLEAN_WORDS = {"true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0"}


def check_values(subject: Subject) -> Iterator[Finding]:
    """Values that do not fit the type or the choices of their argument."""
    for key, value in subject.given.items():
        argument = subject.arguments.get(key)
        if argument is None or key == "lr_scheduler_type":
            continue
        allowed = choices(key, subject)
        wrong = None
        if not isinstance(value, ALSO_ACCEPTED.get(key, ())):
            wrong = judge(argument.hint, value, subject.converts_text, allowed)
        if entries := list(_check_entries(key, argument.hint, subject)):
            yield from entries
        elif wrong is not None:
            yield subject.find(wrong[0], key, wrong[1])
        else:
            yield from check_choice(key, allowed, subject)


def judge(hint: Any, value: Any, converts_text: bool, words: tuple[str, ...] = ()) -> tuple[Severity, str] | None:
    """The severity and message for a value that does not fit a type hint; None if it fits.

    Args:
        hint: The type hint of the argument.
        value: The value, as YAML or JSON reads it.
        converts_text: Whether the script's parser converts text to numbers and booleans.
        words: The words that the argument accepts, if they are known.
    """
    expected, options = f"must be {_describe(hint)}", typing.get_args(hint)
    if converts_text and set(options) == {str, bool} and isinstance(value, str) and value.lower() not in _BOOLEAN_WORDS:
        return "error", f"must be true or false for TRL's parser, received {value!r}: write true"
    if _fits(hint, value) or (value is None and bool in (hint, *options)):
        return None
    if value is None:
        return "error", f"{expected}, received nothing: leave it out for the default"
    if isinstance(value, bool):
        if not words:
            return "error", f"{expected}, received {as_yaml(value)}"
        word = "yes" if value else "no"
        remedy = f'YAML reads {word} as {as_yaml(value)}, so write "{word}" in quotes'
        received = f"must be one of {', '.join(words)}, received {as_yaml(value)}"
        return "error", f"{received}: {remedy if word in words else 'write one of these words'}"
    if isinstance(value, str):
        if converts_text and types.NoneType in options and value.strip().lower() in ("none", "null"):
            return None
        return _judge_text(hint, expected, value, "warning" if converts_text else "error")
    if isinstance(value, list):
        return "error", _judge_list(hint, expected, value)
    converted = _convert(hint, value)
    if isinstance(converted, str):
        return "warning", f'is a number where text is expected: write "{value}" in quotes'
    if isinstance(converted, bool):
        return "warning", f"is a number: write {as_yaml(converted)}"
    remedy = "" if converted is None else f": write {as_yaml(converted)}"
    return "error", f"{expected}, received {_shorten(as_yaml(value))}{remedy}"


def _judge_text(hint: Any, expected: str, text: str, severity: Severity) -> tuple[Severity, str]:
    converted = _convert(hint, text)
    if isinstance(converted, float) and float in (hint, *typing.get_args(hint)):
        rule = "is text, not a number (YAML requires a point before the e and a sign after it)"
        return severity, f"{rule}: write {as_yaml(converted)}"
    if isinstance(converted, (bool, int)):
        return severity, f"is text: write {as_yaml(converted)} without quotes"
    if _fits(hint, [text]):
        return "error", f"must be a list, received the text {text!r}: write [{text}]"
    return "error", f"{expected}, received the text {text!r}"


def _judge_list(hint: Any, expected: str, value: list[Any]) -> str:
    for option in (hint, *typing.get_args(hint)):
        if typing.get_origin(option) is list:
            (item,) = typing.get_args(option)
            place = next((place for place, entry in enumerate(value, 1) if not _fits(item, entry)), 1)
            return f"item {place} must be {_describe(item)}, received {_shorten(as_yaml(value[place - 1]))}"
    remedy = f": write {as_yaml(value[0])}" if len(value) == 1 and _fits(hint, value[0]) else ""
    return f"{expected}, received a list, {_shorten(as_yaml(value))}{remedy}"


def _fits(hint: Any, value: Any) -> bool:
    try:  # of JSON, strict validation accepts what YAML can express: words of an enum, lists for tuples
        _adapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        return False
    return True


def _convert(hint: Any, value: Any) -> Any:
    """The value that an author probably meant: "1e-5" as a number, 42.0 as 42; None if there is no such value."""
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError:
        return None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    try:
        return TypeAdapter(hint, config=config)
    except Exception:  # pydantic accepts no configuration for a dataclass
        return TypeAdapter(hint)


def _check_entries(key: str, hint: Any, subject: Subject) -> Iterator[Finding]:
    """Text that is not the JSON of a mapping, and unknown keys of mappings whose dataclass is known."""
    value = subject.given[key]
    options = (hint, *typing.get_args(hint))
    is_mapping = any((typing.get_origin(option) or option) is dict for option in options)
    if is_mapping and isinstance(value, str) and key.endswith("_kwargs"):
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            remedy = f"write {key}: {{NAME: VALUE}}"
            yield subject.error(key, f"must be a mapping, or a mapping in JSON, received the text {value!r}: {remedy}")
    if key == "accelerator_config":
        from transformers.trainer_pt_utils import AcceleratorConfig

        yield from _check_fields(key, value, AcceleratorConfig, subject)
    for option in options:
        item = next(iter(typing.get_args(option)), None)
        if typing.get_origin(option) is list and dataclasses.is_dataclass(item):
            for entry in value if isinstance(value, list) else ():
                yield from _check_fields(key, entry, item, subject)


def _check_fields(key: str, entry: Any, cls: Any, subject: Subject) -> Iterator[Finding]:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in entry if isinstance(entry, Mapping) else ():
        if name not in known:
            meant = similar(str(name), known)
            remedy = f"did you mean `{meant}`?" if meant else f"it has {', '.join(known)}"
            yield subject.error(f"{key}.{name}", f"is not an argument of {cls.__name__}: {remedy}")


def _describe(hint: Any) -> str:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin in (list, tuple):
            words.append("a list")
        elif origin in _NAMES and not (origin is int and float in options):
            words.append(_NAMES[origin])
    return " or ".join(dict.fromkeys(words)) or "something else"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
