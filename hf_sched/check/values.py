"""Values of the wrong type, judged by the types that the dataclasses declare and by what the parsers make of them."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from hf_sched.check.choices import check_choice, choices
from hf_sched.check.finding import Finding, Severity
from hf_sched.check.keys import near
from hf_sched.check.renamed import written
from hf_sched.check.subject import Subject

# Taken by the code although the declared type says otherwise.
ALSO_TAKEN: dict[str, tuple[type, ...]] = {
    "fsdp": (bool, list),
    "include_for_metrics": (str,),
    "lora_target_modules": (str,),
    "loss_type": (str,),
    "resume_from_checkpoint": (bool,),
    "scale_rewards": (bool,),
}
_TRUTH = {"true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0"}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}


@dataclasses.dataclass(frozen=True)
class Complaint:
    """What is wrong with a value."""

    message: str
    severity: Severity = "error"


def check_values(subject: Subject) -> Iterator[Finding]:
    """Values whose type or choice does not fit their argument."""
    for key, value in subject.given.items():
        argument = subject.arguments.get(key)
        if argument is None or key == "lr_scheduler_type":
            continue
        allowed = choices(key, subject)
        taken = isinstance(value, ALSO_TAKEN.get(key, ())) or (key == "reward_funcs" and _are_rewards(value))
        complaint = None if taken else judge(argument.hint, value, subject.converts_text, allowed)
        if complaint is not None:
            yield subject.find(complaint.severity, key, complaint.message)
        else:
            yield from check_choice(key, allowed, subject)
        yield from _check_entries(key, argument.hint, subject)


def _are_rewards(value: Any) -> bool:
    """Whether these are names and, as recipes/grpo.py takes them, mappings of a name and parameters."""
    return isinstance(value, list) and all(
        isinstance(item.get("name") if isinstance(item, Mapping) else item, str) for item in value
    )


def judge(hint: Any, value: Any, converts_text: bool, allowed: tuple[str, ...] = ()) -> Complaint | None:
    """What is wrong with a value for a type: None if nothing is.

    `converts_text`: whether the parser makes numbers and truth values of text.
    """
    options = _options(hint)
    if converts_text and set(options) == {str, bool} and isinstance(value, str) and value.lower() not in _TRUTH:
        return Complaint(f"must be true or false for TRL's parser, received {value!r}: write true")
    if any(_fits(option, value) for option in options):
        return None
    if value is None:
        return (
            None
            if bool in options
            else Complaint(f"must be {_describe(options)}, received nothing: leave it out for the default")
        )
    if isinstance(value, bool) and allowed:
        word = next((word for word in allowed if word == ("no" if value is False else "yes")), None)
        instead = (
            f'YAML reads {word} as {str(value).lower()}: write "{word}" in quotes'
            if word
            else f"write one of {', '.join(allowed)}"
        )
        return Complaint(f"must be one of {', '.join(allowed)}, received {written(value)}: {instead}")
    if isinstance(value, str):
        return _of_text(options, value, converts_text)
    if isinstance(value, bool):
        return Complaint(f"must be {_describe(options)}, received {written(value)}")
    if isinstance(value, (int, float)):
        return _of_number(options, value)
    if isinstance(value, list):
        return _of_list(options, value, converts_text)
    return Complaint(f"must be {_describe(options)}, received {_short(value)}")


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type; an enum that may be given as text counts as text."""
    origin = typing.get_origin(hint)
    options = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    return tuple(str if isinstance(option, type) and issubclass(option, Enum) else option for option in options)


def _fits(option: Any, value: Any) -> bool:
    origin = typing.get_origin(option) or option
    if origin is typing.Literal:
        return any(
            value is choice or (value == choice and type(value) is type(choice)) for choice in typing.get_args(option)
        )
    if origin is types.NoneType:
        return value is None
    if origin is bool:
        return isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is list:
        items = typing.get_args(option) or (Any,)
        return isinstance(value, list) and all(_fits(items[0], item) for item in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(typing.get_args(option))
    if origin is dict:
        return isinstance(value, Mapping)
    if dataclasses.is_dataclass(origin):
        return isinstance(value, Mapping)
    return origin is Any or (isinstance(origin, type) and isinstance(value, origin))


def _of_text(options: tuple[Any, ...], text: str, converts_text: bool) -> Complaint | None:
    """Text where none is wanted."""
    word = text.strip()
    if types.NoneType in options and word.lower() in ("none", "null") and converts_text:
        return None
    severity: Severity = "warning" if converts_text else "error"
    if bool in options and word.lower() in _TRUTH:
        meant = "true" if word.lower() in ("true", "t", "yes", "y", "on", "1") else "false"
        return Complaint(f"is text: write {meant} without quotes", severity)
    if int in options and _is_whole(word):
        return Complaint(f"is text: write {int(word)} without quotes", severity)
    number = _as_number(word)
    if float in options and number is not None:
        return Complaint(
            f"is text, not a number (YAML wants a point before the e and a sign behind it): write {scientific(number)}",
            severity,
        )
    if int in options and number is not None and number.is_integer():
        return Complaint(f"must be a whole number, received the text {text!r}: write {int(number)}")
    item = next((typing.get_args(option) for option in options if typing.get_origin(option) is list), None)
    if item:
        return Complaint(f"must be a list, received the text {text!r}: write [{text}]")
    return Complaint(f"must be {_describe(options)}, received the text {text!r}")


def _of_number(options: tuple[Any, ...], value: float) -> Complaint:
    if int in options and isinstance(value, float):
        near_by = f": write {round(value)}" if value == round(value) else ""
        return Complaint(f"must be a whole number, received {value!r}{near_by}")
    if bool in options and value in (0, 1):
        return Complaint(f"is a number: write {'true' if value else 'false'}", "warning")
    if str in options:
        return Complaint(f'is a number where text is meant: write "{value}" in quotes', "warning")
    return Complaint(f"must be {_describe(options)}, received {value!r}")


def _of_list(options: tuple[Any, ...], value: list[Any], converts_text: bool) -> Complaint:
    items = next((typing.get_args(option) for option in options if typing.get_origin(option) is list), None)
    for place, item in enumerate(value if items else (), 1):
        complaint = judge(items[0], item, converts_text=False)  # type: ignore[index]
        if complaint:
            return Complaint(f"item {place} {complaint.message}")
    instead = f": write {written(value[0])}" if len(value) == 1 else ""
    return Complaint(f"must be {_describe(options)}, received a list, {_short(value)}{instead}")


def _check_entries(key: str, hint: Any, subject: Subject) -> Iterator[Finding]:
    """Mappings: JSON that cannot be read, and unknown keys where a dataclass says which there are."""
    value = subject.given[key]
    options = _options(hint)
    takes_mapping = any((typing.get_origin(option) or option) is dict for option in options)
    if takes_mapping and isinstance(value, str) and key.endswith("_kwargs"):
        yield from _check_json(key, value, subject)
    if key == "accelerator_config" and isinstance(value, Mapping):
        from transformers.trainer_pt_utils import AcceleratorConfig

        yield from _check_fields(key, value, AcceleratorConfig, subject)
    for option in options:
        item = next(iter(typing.get_args(option)), None)
        if typing.get_origin(option) is list and dataclasses.is_dataclass(item) and isinstance(value, list):
            for entry in value:
                if isinstance(entry, Mapping):
                    yield from _check_fields(key, entry, item, subject)


def _check_json(key: str, text: str, subject: Subject) -> Iterator[Finding]:
    try:
        is_mapping = isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        is_mapping = False
    if not is_mapping:
        yield subject.error(
            key, f"must be a mapping, or one in JSON, received the text {text!r}: write {key}: {{NAME: VALUE}}"
        )


def _check_fields(key: str, entry: Mapping[str, Any], cls: Any, subject: Subject) -> Iterator[Finding]:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in entry:
        if name not in known:
            meant = near(str(name), known)
            instead = f"did you mean `{meant}`?" if meant else f"it takes {', '.join(known)}"
            yield subject.error(f"{key}.{name}", f"is not an argument of {cls.__name__}: {instead}")


def _describe(options: tuple[Any, ...]) -> str:
    words = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin in (list, tuple):
            words.append("a list")
        elif origin in _NAMES and not (origin is int and float in options):
            words.append(_NAMES[origin])
    return " or ".join(dict.fromkeys(words)) or "something else"


def scientific(number: float) -> str:
    """A number as YAML reads it: `1.0e-07`, with a point."""
    mantissa, _, exponent = repr(number).partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}" if exponent else repr(number)


def _short(value: Any) -> str:
    text = written(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _is_whole(word: str) -> bool:
    try:
        int(word)
    except ValueError:
        return False
    return True
