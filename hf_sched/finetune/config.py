"""Reads the arguments of a recipe from its YAML file and the command line, strictly, before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from trl import TrlParser

import hf_sched
from hf_sched.plan.training_config import read_arguments
from hf_sched.schedules.validation import ArgumentError, suggest

KWARGS = "lr_scheduler_kwargs"


def parse(*dataclass_types: type, args: Sequence[str]) -> tuple[Any, ...]:
    """Parse `--config FILE.yaml` and the flags after it, which override the file, into an instance of each dataclass.

    An argument that is unknown or wrong raises a ValueError. A value that argparse rejects ends the program with
    status 2.
    """
    parser = TrlParser(dataclass_types)
    parser.register("type", Any, str)  # of `reward_funcs`: argparse cannot call `Any`
    parser.allow_abbrev = False  # `--learning_rat 1` is a typo, not a learning rate
    known = {field.name: field for cls in dataclass_types for field in dataclasses.fields(cls)}
    # TRL sets `gradient_checkpointing` by default; transformers 5 has renamed it and warns.
    is_given = {"activation_checkpointing", "gradient_checkpointing"} & set(given_arguments(args))
    if "activation_checkpointing" in known and not is_given:
        parser.set_defaults(activation_checkpointing=known["gradient_checkpointing"].default)
    try:
        *parsed, unknown = parser.parse_args_and_config(args=args, return_remaining_strings=True)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.doc!r} must be JSON, with names and texts in double quotes: {error}") from error
    except TypeError as error:
        raise ValueError(str(error)) from error
    if unknown:
        name = next((word for word in unknown if word.startswith("--")), unknown[0]).lstrip("-")
        hint = suggest(name.replace("-", "_"), known) or "correct it or leave it out"
        raise ArgumentError(name, rule="is not an argument of the recipe", hint=hint)
    merged = given_arguments(args).get(KWARGS)
    for part in parsed:
        if isinstance(merged, dict) and hasattr(part, KWARGS):
            part.lr_scheduler_kwargs = {**merged, **part.lr_scheduler_kwargs}
        _check_whole_numbers(part)
        _check_paths(part)
        _check_schedule(part)
    return tuple(parsed)


def given_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments as they were written: the keys of the YAML file, overridden by the flags.

    `lr_scheduler_kwargs` of both are merged, unless the flags choose another schedule.
    """
    flags: dict[str, list[str]] = {}
    name = None
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags[name] = [value] if equals else []
        elif name is not None:
            flags[name].append(word)
    file = read_arguments(" ".join(flags["config"])) if "config" in flags else {}
    given = {**file, **{key: _flag_value(values) for key, values in flags.items()}}
    is_same_schedule = given.get("lr_scheduler_type") == file.get("lr_scheduler_type")
    of_file, of_flags = file.get(KWARGS), given.get(KWARGS)
    of_file = _flag_value([of_file]) if isinstance(of_file, str) else of_file  # JSON
    if isinstance(of_file, dict) and isinstance(of_flags, dict) and is_same_schedule:
        given[KWARGS] = {**of_file, **of_flags}
    return given


def _flag_value(words: Sequence[str]) -> Any:
    """Return the value of a flag as YAML reads it: `60` is a number, and no word means true."""
    if len(words) > 1:
        return [_flag_value([word]) for word in words]
    try:
        return yaml.safe_load(words[0]) if words else True
    except yaml.YAMLError:
        return words[0]


def _check_whole_numbers(part: Any) -> None:
    # argparse converts only text, so `max_steps: 1.5` in YAML would reach the training loop.
    for field in dataclasses.fields(part):
        value = getattr(part, field.name, None)
        is_number = field.type in (int, int | None) and value is not None
        if is_number and (isinstance(value, bool) or not isinstance(value, int)):
            raise ArgumentError(field.name, "a whole number", value)


def _check_paths(part: Any) -> None:
    for name in ("model_name_or_path", "dataset_name"):
        value = getattr(part, name, None) or ""
        # A hub name has at most one slash; a value with more, or one that starts like a path, is a path.
        is_path = value.count("/") > 1 or value.startswith((".", "/", "~"))
        if is_path and not Path(value).expanduser().exists():
            raise ArgumentError(name, "a hub name or a path that exists", value)


def _check_schedule(part: Any) -> None:
    name = str(getattr(getattr(part, "lr_scheduler_type", None), "value", ""))
    if name in hf_sched.available() and part.max_steps > 0:
        kwargs = {key: value for key, value in (part.lr_scheduler_kwargs or {}).items() if key != "on_resume"}
        warmup_steps = part.get_warmup_steps(part.max_steps)
        # The number of steps in an epoch is known only once the data is loaded.
        with suppress(hf_sched.EpochsUnknown):
            schedule = hf_sched.build(name, num_training_steps=part.max_steps, num_warmup_steps=warmup_steps, **kwargs)
            schedule.floor(part.learning_rate)
