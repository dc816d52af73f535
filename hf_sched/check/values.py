"""Values of the wrong type, by the type hints of the dataclasses, words out of a few, and numbers out of range."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from hf_sched.check.finding import Finding, Severity, as_yaml
from hf_sched.check.subject import Subject
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError, Number, Whole, percentage_as_fraction, suggest

# Types that the code accepts although the hint does not name them.
ALSO_ACCEPTED: dict[str, tuple[type, ...]] = {
    "fsdp": (bool, list),
    "include_for_metrics": (str,),
    "lora_target_modules": (str,),
    "loss_type": (str,),
    "resume_from_checkpoint": (bool,),
    "scale_rewards": (bool,),
}
# Declared as text. TRL compares them with words only when the first batch arrives, so the words are read from its code.
_COMPARED_IN_CODE = (
    *("loss_type", "importance_sampling_level", "scale_rewards", "multi_objective_aggregation"),
    *("vllm_importance_sampling_mode", "f_divergence_type"),
)
_BOUNDS = (
    (Number(0), "learning_rate num_train_epochs warmup_steps eval_steps weight_decay adam_epsilon max_grad_norm"),
    (Number(0, above_low=True), "save_steps temperature"),
    (Number(0, 1), "adam_beta1 adam_beta2 label_smoothing_factor lora_dropout"),
    (Number(0, 1, above_low=True), "top_p vllm_gpu_memory_utilization"),
    (Whole(1), "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps"),
    (Whole(1), "max_length max_completion_length vllm_tensor_parallel_size lora_r"),
    (Whole(1), "num_generations_eval num_iterations steps_per_generation generation_batch_size"),
    (Whole(2), "num_generations"),
)
BOUNDS = {key: reader for reader, keys in _BOUNDS for key in keys.split()}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}


def check_values(subject: Subject) -> Iterator[Finding]:
    """Find values that do not fit the type or the choices of their argument."""
    for key in filter(subject.config.fields.__contains__, subject.config.given):
        if key.endswith("_kwargs"):
            try:
                subject.typed[key] = subject.config.mapping(key) or None
            except ArgumentError as error:
                yield subject.rejected(error)
        else:
            yield from _check_value(subject, key)


def as_parsed(config: TrainingConfig, key: str, value: Any) -> Any:
    """The value that a script's parser makes of a flag or of text; unchanged if it cannot convert it."""
    if key not in config.fields or key.endswith("_kwargs"):
        return value
    hint = config.fields[key].hint
    meant = None if _fits(hint, value) else _meant(hint, value, _choices(key, config))
    return value if meant is None else meant


def check_bounds(subject: Subject) -> Iterator[Finding]:
    """Find numbers out of range."""
    for key, value in subject.usable.given.items():
        try:
            if key in BOUNDS and value is not None:
                BOUNDS[key](key, value)
        except ArgumentError as error:
            yield subject.rejected(error)


def _check_value(subject: Subject, key: str) -> Iterator[Finding]:
    value, hint = subject.config.given[key], subject.config.fields[key].hint
    subject.typed[key] = value
    options, words = (hint, *typing.get_args(hint)), _choices(key, subject.config)
    converts_text = subject.config.kind != "trainer"  # TRL's parser converts text, the parser of transformers does not
    if _fits(hint, value) or isinstance(value, ALSO_ACCEPTED.get(key, ())):
        for word in value if isinstance(value, list) else [value]:
            # The check of the schedule reports a wrong name with more advice.
            if words and isinstance(word, str) and word not in words and key != "lr_scheduler_type":
                yield subject.rejected(ArgumentError(key, f"one of {', '.join(words)}", word, suggest(word, words)))
    elif types.NoneType in options and converts_text and str(value).strip().lower() in ("none", "null"):
        subject.typed[key] = None
    elif value is not None or bool not in options:
        subject.typed[key] = _meant(hint, value, words)
        severity, message = _judge(hint, value, subject.typed[key], converts_text, words)
        yield subject.find(severity, key, message)


def _judge(hint: Any, value: Any, meant: Any, converts_text: bool, words: tuple[str, ...]) -> tuple[Severity, str]:
    """The severity and message for a value that does not fit a type hint."""
    remedy = "" if meant is None else f"write {as_yaml(meant)}"
    if isinstance(value, str) and isinstance(meant, (bool, int, float)):
        reason = ", not a number (YAML requires a point before the e and a sign after it)"
        rule = f"is text{reason if isinstance(meant, float) else ''}"
        return "warning" if converts_text else "error", f"{rule}: {remedy} without quotes"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isinstance(meant, (str, bool)):
        return "warning", f"is a number: {remedy}"
    if isinstance(value, bool) and remedy:
        remedy = f'YAML reads {meant} as {as_yaml(value)}, so write "{meant}" in quotes'
    share = percentage_as_fraction(value)
    if share is not value and _fits(hint, share):
        remedy = f"write {as_yaml(share)}"
    expected = f"one of {', '.join(words)}" if words and isinstance(value, bool) else _describe(hint)
    received = "nothing" if value is None else f"the text {value!r}" if isinstance(value, str) else as_yaml(value)
    received = received if len(received) <= 60 else received[:57] + "..."
    remedy = "leave it out for the default" if value is None else remedy
    return "error", f"must be {expected or 'something else'}, received {received}{remedy and f': {remedy}'}"


def _meant(hint: Any, value: Any, words: tuple[str, ...]) -> Any:
    """The value that an author probably meant: "1e-5" as a number, 42.0 as 42, a word in a list; None if unknown."""
    if isinstance(value, bool):
        word = "yes" if value else "no"
        return word if word in words else None
    try:
        converted = _adapter(hint).validate_python(value)
    except ValueError:
        converted = None
    for meant in (converted, [value], value[0] if isinstance(value, list) and len(value) == 1 else None):
        if meant is not None and _fits(hint, meant):
            return meant
    return None


def _fits(hint: Any, value: Any) -> bool:
    try:  # of JSON, strict validation accepts what YAML can express: words of an enum, lists for tuples
        _adapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValueError:
        return False
    return True


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    try:
        return TypeAdapter(hint, config=config)
    except Exception:  # pydantic accepts no configuration for a dataclass
        return TypeAdapter(hint)


def _describe(hint: Any) -> str:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin in (list, tuple):
            item = _describe(next(iter(typing.get_args(option)), None))
            words.append(f"a list (each item {item})" if item else "a list")
        elif origin in _NAMES and not (origin is int and float in options):
            words.append(_NAMES[origin])
    return " or ".join(dict.fromkeys(words))


def _choices(key: str, config: TrainingConfig) -> tuple[str, ...]:
    """The words that an argument accepts; empty if it accepts any, or if they are unknown."""
    if key == "report_to":
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        return ("all", "none", *INTEGRATION_TO_CALLBACK)
    argument = config.fields[key]
    if argument.choices:
        return tuple(map(str, argument.choices))
    for option in (argument.hint, *typing.get_args(argument.hint)):
        if isinstance(option, type) and issubclass(option, Enum) and issubclass(option, str):
            return tuple(str(member.value) for member in option)
    return _words_compared(config.kind, key) if key in _COMPARED_IN_CODE else ()


@cache
def _words_compared(kind: str, name: str) -> tuple[str, ...]:
    """The words that TRL's trainer of this kind compares an argument with."""
    found = find_spec(f"trl.trainer.{kind}_trainer")
    source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    compared = re.findall(rf'\b{name} (?:==|in) (".*?"|[\[(].*?[\])])', source, re.DOTALL)
    return tuple(dict.fromkeys(re.findall(r'"(\w+)"', " ".join(compared))))
