"""Reads a configuration of transformers, TRL, LLaMA-Factory or axolotl as the arguments of its Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_sched.check import CheckReport, check
from hf_sched.plan import Plan, plan
from hf_sched.plan.training_config import TrainingConfig, arguments_of, read_arguments
from hf_sched.schedules.validation import ArgumentError

# The keys that identify a program's files: all keys of one set.
_PROGRAMS = {
    "LLaMA-Factory": ({"stage", "finetuning_type"}, {"stage", "template"}),
    "axolotl": ({"base_model", "datasets"}, {"base_model", "micro_batch_size"}),
}
_NAMES_OF_AXOLOTL = {
    "micro_batch_size": "per_device_train_batch_size",
    "num_epochs": "num_train_epochs",
    "lr_scheduler": "lr_scheduler_type",
}
# Keys and values that select a schedule which only axolotl has.
_OWN_SCHEDULES = ("one_cycle", "rex", "log_sweep")
_OWN_KEYS = ("lr_quadratic_warmup", "cosine_constant_lr_ratio")


@dataclass(frozen=True, eq=False)
class Pasted:
    """A configuration, what its Trainer will do, and what is wrong with it."""

    program: str
    """The program, or the kind of trainer."""
    config: TrainingConfig
    plan: Plan | None
    """None if the configuration cannot be planned."""
    problem: str
    """Why there is no plan."""
    report: CheckReport


def read_pasted(
    text: str,
    *,
    dataset_size: int | None = None,
    num_processes: int | None = None,
    extra: tuple[type, ...] = (),
) -> Pasted:
    """Plan and check the text of a YAML or JSON file.

    Args:
        text: The text.
        dataset_size: Training samples; None to count them if possible.
        num_processes: Processes; None for those in the file, or 1.
        extra: Dataclasses of a script's further arguments, as in `TrainingConfig`.

    Raises:
        ValueError: The text is not a mapping of arguments, or the program's schedule is unknown here.
    """
    about: dict[str, Any] = {"dataset_size": dataset_size, "num_processes": num_processes}
    with TemporaryDirectory() as folder:
        path = Path(folder, "configuration.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            given = read_arguments(path)
        except ValueError as error:
            raise ValueError(f"{error}".removeprefix(f"{path}: ")) from None
        found = [name for name, signs in _PROGRAMS.items() if any(sign <= given.keys() for sign in signs)]
        if found:
            config = TrainingConfig("trainer", given, f"{path}")
            translate = _of_llama_factory if found == ["LLaMA-Factory"] else _of_axolotl
            config = replace(config, given=translate(config, about))
        else:
            config = TrainingConfig.read(path, extra=extra)
        report = check(config, **about)
    planned, problem = None, ""
    try:
        planned = plan(config, **about)
    except ValueError as error:
        problem = f"{error}"
    return Pasted(found[0] if found else config.kind, config, planned, problem, report)


def _of_llama_factory(config: TrainingConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    given = _arguments_of_trainer(config.given)
    if not given.get("warmup_steps") and config.given.get("warmup_ratio"):
        given["warmup_steps"] = config.given["warmup_ratio"]  # below 1 it is a share of the run
    if given.get("lr_scheduler_type") == "warmup_stable_decay":
        # It holds the peak for a third of the steps after the warmup and decays over the rest.
        total, warmup = _total_steps(config, given, about), given.get("warmup_steps", 0)
        remaining = total - (math.ceil(total * warmup) if warmup < 1 else warmup)
        defaults = {"num_stable_steps": remaining // 3, "num_decay_steps": remaining - remaining // 3}
        given["lr_scheduler_kwargs"] = {**defaults, **(given.get("lr_scheduler_kwargs") or {})}
    return given


def _of_axolotl(config: TrainingConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    theirs = config.given
    given = _arguments_of_trainer({_NAMES_OF_AXOLOTL.get(key, key): value for key, value in theirs.items()})
    name = given.setdefault("lr_scheduler_type", "cosine")
    own = {key: theirs[key] for key in _OWN_KEYS if theirs.get(key)}
    own |= {"lr_scheduler": name} if name in _OWN_SCHEDULES else {}
    for key, value in own.items():
        rule = "selects a schedule of axolotl's own, whose curve is unknown here"
        raise ArgumentError(key, received=value, rule=rule)
    if name == "cosine" and theirs.get("cosine_min_lr_ratio"):
        given["lr_scheduler_type"] = "cosine_with_min_lr"
        given["lr_scheduler_kwargs"] = {"min_lr_rate": theirs["cosine_min_lr_ratio"]}
    if "warmup_steps" not in given:
        total, ratio = _total_steps(config, given, about), theirs.get("warmup_ratio")
        given["warmup_steps"] = min(int(0.03 * total), 100) if ratio is None else int(ratio * total)
    if given["warmup_steps"] == 1:
        given["warmup_steps"] = 2
    return given


def _arguments_of_trainer(given: Mapping[str, Any]) -> dict[str, Any]:
    known = arguments_of("trainer").keys() - {"deepspeed"}
    return {key: value for key, value in given.items() if key in known and value is not None}


def _total_steps(config: TrainingConfig, given: Mapping[str, Any], about: Mapping[str, Any]) -> int:
    others = {key: value for key, value in given.items() if not key.startswith(("lr_scheduler", "warmup"))}
    return plan(replace(config, given={**others, "lr_scheduler_type": "constant"}), **about).num_training_steps
