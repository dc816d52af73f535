"""Reads a pasted configuration of transformers, TRL, LLaMA-Factory or axolotl as the arguments of its Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_sched.check import CheckReport, check
from hf_sched.plan import Plan, plan
from hf_sched.plan.training_config import TrainingConfig, arguments_of, read_arguments
from hf_sched.schedules.validation import ArgumentError

# Keys that identify a program's files: all keys of one set.
_LLAMA_FACTORY = ({"stage", "finetuning_type"}, {"stage", "template"})
_AXOLOTL = ({"base_model", "datasets"}, {"base_model", "micro_batch_size"})
_NAMES_OF_AXOLOTL = {
    "micro_batch_size": "per_device_train_batch_size",
    "num_epochs": "num_train_epochs",
    "lr_scheduler": "lr_scheduler_type",
}
# Schedules of axolotl's own code, which neither transformers nor hf_sched has.
_OWN_OF_AXOLOTL = ("one_cycle", "rex", "log_sweep")


@dataclass(frozen=True, eq=False)
class Pasted:
    """A configuration, what its Trainer will do, and what is wrong with it."""

    program: str
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
        dataset_size: Training samples, if they cannot be counted.
        num_processes: Processes; None for those in the file, or 1.
        extra: Dataclasses of a script's further arguments, as in `TrainingConfig`.

    Raises:
        ValueError: The text is not a mapping of arguments, or a schedule of the program is unknown here.
    """
    about: dict[str, Any] = {"dataset_size": dataset_size, "num_processes": num_processes}
    with TemporaryDirectory() as place:
        path = Path(place, "configuration.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            given = read_arguments(path)
            program = _program(given)
            if program:
                config = TrainingConfig("trainer", given, str(path))
                config = replace(config, given=_translated(program, config, about))
            else:
                config = TrainingConfig.read(path, extra=extra)
            report = check(config, **about)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{path}: ", "")) from None
    planned, problem = None, ""
    try:
        planned = plan(config, **about)
    except ValueError as error:
        problem = str(error)
    return Pasted(program or config.kind, config, planned, problem, report)


def _program(given: Mapping[str, Any]) -> str:
    """LLaMA-Factory or axolotl; empty for a file of transformers or TRL."""
    for program, signs in (("LLaMA-Factory", _LLAMA_FACTORY), ("axolotl", _AXOLOTL)):
        if any(sign <= given.keys() for sign in signs):
            return program
    return ""


def _translated(program: str, config: TrainingConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a program passes to its Trainer, as far as they concern the learning rate."""
    known = arguments_of("trainer")
    names = _NAMES_OF_AXOLOTL if program == "axolotl" else {}
    renamed = {names.get(key, key): value for key, value in config.given.items() if value is not None}
    given = {key: value for key, value in renamed.items() if key in known and key != "deepspeed"}
    ratio = config.given.get("warmup_ratio")
    if program == "LLaMA-Factory":
        if ratio and not given.get("warmup_steps"):
            given["warmup_steps"] = ratio  # below 1 it is a share of the run
        if given.get("lr_scheduler_type") == "warmup_stable_decay":
            given["lr_scheduler_kwargs"] = _stable_and_decay_steps(config, given, about)
        return given
    given["lr_scheduler_type"] = _schedule_of_axolotl(config.given, given)
    if "warmup_steps" not in given:
        total = _total_steps(config, given, about)
        given["warmup_steps"] = min(int(0.03 * total), 100) if ratio is None else int(ratio * total)
    if given["warmup_steps"] == 1:
        given["warmup_steps"] = 2
    return given


def _schedule_of_axolotl(theirs: Mapping[str, Any], given: dict[str, Any]) -> str:
    """`lr_scheduler_type`; also sets the arguments of axolotl's cosine with a floor."""
    name = str(given.get("lr_scheduler_type", "cosine"))
    unknown = {"lr_scheduler": name} if name in _OWN_OF_AXOLOTL else {}
    unknown |= {key: theirs[key] for key in ("lr_quadratic_warmup", "cosine_constant_lr_ratio") if theirs.get(key)}
    for key, value in unknown.items():
        raise ArgumentError(key, received=value, rule="selects a schedule of axolotl's own, whose curve is unknown here")
    if name == "cosine" and theirs.get("cosine_min_lr_ratio"):
        given["lr_scheduler_kwargs"] = {"min_lr_rate": theirs["cosine_min_lr_ratio"]}
        return "cosine_with_min_lr"
    return name


def _stable_and_decay_steps(
    config: TrainingConfig, given: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """LLaMA-Factory holds the peak for a third of the steps after the warmup and decays over the rest."""
    total = _total_steps(config, given, about)
    warmup = given.get("warmup_steps", 0)
    remaining = total - (-int(-total * warmup // 1) if warmup < 1 else int(warmup))
    defaults = {"num_stable_steps": remaining // 3, "num_decay_steps": remaining - remaining // 3}
    return {**defaults, **(given.get("lr_scheduler_kwargs") or {})}


def _total_steps(config: TrainingConfig, given: Mapping[str, Any], about: Mapping[str, Any]) -> int:
    others = {key: value for key, value in given.items() if not key.startswith(("lr_scheduler", "warmup"))}
    constant = replace(config, given={**others, "lr_scheduler_type": "constant"})
    return plan(constant, **about).num_training_steps
