"""Checks of what the recipes add to the arguments of TRL, for `hf-sched check` and for the recipes themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_sched.check import Finding
from hf_sched.check.subject import Subject
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.finetune.data.load import data_fault
from hf_sched.finetune.rewards import load_rewards
from hf_sched.schedules.validation import ArgumentError

KINDS = ("sft", "grpo", "dpo")


def check_recipe(subject: Subject) -> Iterator[Finding]:
    """Find wrong arguments of a recipe: rewards and their parameters, evaluation, paths of model and data."""
    if subject.config.kind not in KINDS:
        return
    given = subject.usable.given
    for cls in RECIPE_ARGUMENTS:
        own = {field.name: given[field.name] for field in dataclasses.fields(cls) if field.name in given}
        try:
            cls(**own)
        except ArgumentError as error:
            yield subject.rejected(error)
    if subject.config.kind == "grpo" and given.get("reward_funcs"):
        yield from map(subject.rejected, _wrong_rewards(given["reward_funcs"], given.get("reward_weights")))
    for name in ("dataset_name", "model_name_or_path"):
        if is_missing_path(given.get(name)):
            missing = ArgumentError(name, "a hub name or a path that exists", given[name])
            # A model may be the result of a run that comes first.
            yield subject.rejected(missing) if name == "dataset_name" else subject.warning(name, missing.detail)


def check_data(subject: Subject) -> Iterator[Finding]:
    """Find data of a recipe that cannot be read, lack columns, or have a row that is unusable."""
    if subject.config.kind not in KINDS or "dataset_name" in subject.wrong:
        return
    if error := data_fault(subject.config.kind, subject.usable.given):
        is_argument = error.name in subject.config.fields
        yield subject.rejected(error) if is_argument else subject.error("dataset_name", f"has rows whose {error}")


def is_missing_path(name: Any) -> bool:
    """Whether a name must be a path, and nothing is there. A hub name has at most one slash."""
    is_path = isinstance(name, str) and (name.count("/") > 1 or name.startswith((".", "/", "~")))
    return is_path and not Path(name).expanduser().exists()


def _wrong_rewards(named: Any, weights: list[float] | None) -> Iterator[ArgumentError]:
    """The error of each reward, or else that of the weights."""
    wrong = False
    for item in named if isinstance(named, list) else [named]:
        try:
            load_rewards([item])
        except ArgumentError as error:
            wrong = True
            yield error
    if not wrong:
        try:
            load_rewards(named, weights)
        except ArgumentError as error:
            yield error
