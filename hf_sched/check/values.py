"""Values of the wrong type, by the type hints of the dataclasses, and numbers outside of their meaningful range."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hf_sched.check.choices import check_choice, choices
from hf_sched.check.context import Subject
from hf_sched.check.finding import Severity
from hf_sched.check.keys import similar
from hf_sched.check.renamed import as_yaml
from hf_sched.schedules.validation import ArgumentError, Number, Whole

# Types that the code accepts although the hint does not name them.
ALSO_ACCEPTED: dict[str, tuple[type, ...]] = {
    "fsdp": (bool, list),
    "include_for_metrics": (str,),
    "lora_target_modules": (str,),
    "loss_type": (str,),
    "resume_from_checkpoint": (bool,),
    "scale_rewards": (bool,),
}
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


def check_values(subject: Subject) -> None:
    """Find values that do not fit the type or the choices of their argument."""
    for key, value in subject.given.items():
        argument = subject.arguments.get(key)
        if argument is None or key == "lr_scheduler_type":
            continue
        allowed = choices(key, subject)
        converts_text = subject.kind != "trainer"  # TRL's parser converts text, the parser of transformers does not
        wrong = judge(argument.hint, value, converts_text, allowed)
        if key.endswith("_kwargs"):
            try:
                subject.config.mapping(key)
            except ArgumentError as error:
                subject.rejected(error)
        elif wrong is not None and not isinstance(value, ALSO_ACCEPTED.get(key, ())):
            subject.find(wrong[0], key, wrong[1])
        else:
            check_choice(key, allowed, subject)
    _check_accelerator_config(subject)


def check_bounds(subject: Subject) -> None:
    """Find numbers out of range."""
    for key, reader in BOUNDS.items():
        has_type = key in subject.arguments and key not in subject.wrong and subject.number(key) is not None
        if key in subject.given and has_type:
            try:
                reader(key, subject.given[key])
            except ArgumentError as error:
                subject.rejected(error)


def judge(hint: Any, value: Any, converts_text: bool, words: tuple[str, ...] = ()) -> tuple[Severity, str] | None:
    """The severity and message for a value that does not fit a type hint; None if it fits.

    `converts_text` is whether the script's parser converts text; `words` are those that the argument accepts.
    """
    options = typing.get_args(hint)
    is_none = value is None or (converts_text and str(value).strip().lower() in ("none", "null"))
    if _fits(hint, value) or (is_none and types.NoneType in options) or (value is None and bool in (hint, *options)):
        return None
    converted = _convert(hint, value)
    is_number = isinstance(converted, (bool, int)) or (isinstance(converted, float) and float in (hint, *options))
    if isinstance(value, str) and is_number:
        rule = "is text, not a number (YAML requires a point before the e and a sign after it)"
        rule = rule if isinstance(converted, float) else "is text"
        return "warning" if converts_text else "error", f"{rule}: write {as_yaml(converted)} without quotes"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isinstance(converted, (str, bool)):
        remedy = f'"{value}" in quotes' if isinstance(converted, str) else as_yaml(converted)
        return "warning", f"is a number: write {remedy}"
    expected = f"one of {', '.join(words)}" if words and isinstance(value, bool) else _describe(hint)
    received = "nothing" if value is None else f"the text {value!r}" if isinstance(value, str) else as_yaml(value)
    received = received if len(received) <= 60 else received[:57] + "..."
    remedy = _remedy(hint, value, converted, words)
    return "error", f"must be {expected}, received {received}{remedy and f': {remedy}'}"


def _remedy(hint: Any, value: Any, converted: Any, words: tuple[str, ...]) -> str:
    if value is None:
        return "leave it out for the default"
    if isinstance(value, bool):
        word = "yes" if value else "no"
        return f'YAML reads {word} as {as_yaml(value)}, so write "{word}" in quotes' if word in words else ""
    if isinstance(value, list):
        return f"write {as_yaml(value[0])}" if len(value) == 1 and _fits(hint, value[0]) else ""
    if isinstance(value, str):
        return f"write [{value}]" if _fits(hint, [value]) else ""
    return "" if converted is None else f"write {as_yaml(converted)}"


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


def _check_accelerator_config(subject: Subject) -> None:
    from transformers.trainer_pt_utils import AcceleratorConfig

    given = subject.given.get("accelerator_config")
    known = [field.name for field in dataclasses.fields(AcceleratorConfig)]
    for name in given if isinstance(given, Mapping) else ():
        if name not in known:
            meant = similar(str(name), known)
            remedy = f"did you mean `{meant}`?" if meant else f"it has {', '.join(known)}"
            subject.error(f"accelerator_config.{name}", f"is not an argument of AcceleratorConfig: {remedy}")


def _describe(hint: Any) -> str:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = []
    for option in options:
        origin = typing.get_origin(option) or option
        if origin in (list, tuple):
            item = next((_NAMES[item] for item in typing.get_args(option) if item in _NAMES), "")
            words.append(f"a list (each item {item})" if item else "a list")
        elif origin in _NAMES and not (origin is int and float in options):
            words.append(_NAMES[origin])
    return " or ".join(dict.fromkeys(words)) or "something else"
