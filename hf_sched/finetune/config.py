"""Reads the arguments of a recipe from its YAML file and the command line, strictly, before anything is loaded."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml
from trl import TrlParser

from hf_sched.check import CheckReport, Finding, check
from hf_sched.check.values import as_parsed
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.finetune.check import check_data, check_recipe
from hf_sched.plan.training_config import TrainingConfig, read_arguments
from hf_sched.schedules.validation import ArgumentError

KWARGS = "lr_scheduler_kwargs"


class _Parser(TrlParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)  # argparse would print the whole usage first


def parse(*dataclass_types: type, args: Sequence[str]) -> tuple[Any, ...]:
    """Parse `--config FILE.yaml` and the flags after it, which override the file, into an instance of each dataclass.

    `check_arguments` finds what is wrong before. A key that only a launcher knows raises an ArgumentError.
    """
    parser = _Parser(dataclass_types)
    parser.register("type", Any, str)  # of `reward_funcs`: argparse cannot call `Any`
    parser.allow_abbrev = False  # `--learning_rat 1` is a typo, not a learning rate
    known = {field.name: field for cls in dataclass_types for field in dataclasses.fields(cls)}
    # TRL sets `gradient_checkpointing` by default; transformers 5 has renamed it and warns.
    is_given = {"activation_checkpointing", "gradient_checkpointing"} & set(given_arguments(args))
    if "activation_checkpointing" in known and not is_given:
        parser.set_defaults(activation_checkpointing=known["gradient_checkpointing"].default)
    *parsed, unknown = parser.parse_args_and_config(args=args, return_remaining_strings=True)
    if unknown:  # what `check_arguments` accepts: a key of the launcher
        raise ArgumentError(unknown[0].lstrip("-"), rule="is not an argument of the recipe", hint="leave it out")
    merged = given_arguments(args).get(KWARGS)
    for part in parsed:
        if isinstance(merged, dict) and hasattr(part, KWARGS):
            part.lr_scheduler_kwargs = {**merged, **part.lr_scheduler_kwargs}
    return tuple(parsed)


def _needed(report: CheckReport) -> list[Finding]:
    """The findings that stop a run: errors, and what a check, which may run elsewhere, only warns of."""
    found = report.findings
    return [one for one in found if one.severity == "error" or one.key in ("model_name_or_path", "report_to")]


class WrongArguments(ValueError):
    """All mistakes in the arguments of a recipe, one a line."""


def check_arguments(kind: str, args: Sequence[str]) -> list[str]:
    """Check the arguments of a recipe as `hf-sched check` does, before they are parsed; return the warnings.

    Raises:
        WrongArguments: There are errors, or the model or a package is not on this machine.
    """
    if {"-h", "--help"} & {*args}:
        return []
    flags = {word[2:].partition("=")[0].replace("-", "_") for word in args if word.startswith("--")}
    written = given_arguments(args)
    config = TrainingConfig(kind, written, str(written.pop("config", "")), extra=RECIPE_ARGUMENTS)
    # The parser converts flags, and text in the file.
    of_text = {key for key, value in written.items() if isinstance(value, str)} | flags
    given = {key: as_parsed(config, key, value) if key in of_text else value for key, value in written.items()}
    config = dataclasses.replace(config, given=given)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    report = check(config, num_processes=processes, more=(check_recipe,))
    if _needed(report):  # otherwise the recipe checks the data as it loads them
        report = check(config, num_processes=processes, more=(check_recipe, check_data))
    needed = _needed(report)
    texts = []
    for found in needed or report.findings:
        place = f" ({config.source}, line {found.line})" if found.line and found.key.split(".")[0] not in flags else ""
        texts.append(f"`{found.key}` {found.message}{place}" if found.key else found.message)
    if needed:
        raise WrongArguments("\n".join(texts))
    return texts


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
    """Return the value of a flag as YAML reads it: `60` is a number, and no word means true.

    Other than in YAML, `18:00` is no number to the base of 60.
    """
    if len(words) > 1:
        return [_flag_value([word]) for word in words]
    try:
        value = yaml.safe_load(words[0]) if words else True
    except yaml.YAMLError:
        return words[0]
    return words[0] if isinstance(value, (int, float)) and ":" in "".join(words) else value
