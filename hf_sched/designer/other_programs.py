"""Reads a configuration of transformers, TRL, LLaMA-Factory or axolotl as the arguments of its Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_sched.check import check
from hf_sched.designer.page import Design, table
from hf_sched.designer.run_form import RunForm
from hf_sched.plan import plan
from hf_sched.plan.training_config import TrainingConfig, arguments_of, read_arguments
from hf_sched.scheduler.resume import split_on_resume
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
_SCHEDULES_OF_AXOLOTL = ("one_cycle", "rex", "log_sweep")


class NoPlanError(ValueError):
    """A configuration cannot be planned; `findings` is what `hf-sched check` finds, as Markdown."""

    def __init__(self, error: ValueError, findings: str) -> None:
        super().__init__(f"{error}")
        self.findings = findings


def read_pasted(
    text: str, dataset_size: int | None = None, num_processes: int | None = None, extra: tuple[type, ...] = ()
) -> tuple[str, RunForm, Design]:
    """Read and check the text of a YAML or JSON file.

    Args:
        text: The text.
        dataset_size: Training samples; None to count them if possible.
        num_processes: Processes; None for those in the file, or 1.
        extra: Dataclasses of a script's further arguments, as in `TrainingConfig`.

    Returns:
        The program and what `hf-sched check` finds, as Markdown; the run; and its schedule.

    Raises:
        NoPlanError: The run cannot be planned.
        ValueError: The text is not a mapping of arguments.
    """
    run: dict[str, Any] = {"dataset_size": dataset_size, "num_processes": num_processes}
    with TemporaryDirectory() as folder:  # findings have the lines of a file
        path = Path(folder, "configuration.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            given = read_arguments(path)
        except ValueError as error:
            raise ValueError(f"{error}".removeprefix(f"{path}: ")) from None
        program = next((name for name, sets in _PROGRAMS.items() if any(keys <= given.keys() for keys in sets)), "")
        if program:
            translate = _of_llama_factory if program == "LLaMA-Factory" else _of_axolotl
            config = TrainingConfig("trainer", translate(given, run), f"{path}")
        else:
            config = TrainingConfig.read(path, extra=extra)
        report = check(config, **run)
        counts = f"{len(report.errors) or 'no'} errors, {len(report.findings) - len(report.errors) or 'no'} warnings"
        rows = [(f"{f.line or ''}", f.severity, f"`{f.key or '-'}`", f.message) for f in report.findings]
        about = f"Read as **{program or config.kind}**: {counts}."
        findings = "\n\n".join([about, table(("line", "", "key", ""), rows), *report.not_judged])
        try:
            planned = plan(config, **run)
        except ValueError as error:
            raise NoPlanError(error, findings) from None
    design = planned.schedule_name, split_on_resume(config.mapping("lr_scheduler_kwargs"))[1]
    return "\n\n".join([findings, *planned.notes]), RunForm.of_config(config, planned), design


def _of_llama_factory(theirs: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    given = _arguments_of_trainer(theirs)
    if not given.get("warmup_steps") and theirs.get("warmup_ratio"):
        given["warmup_steps"] = theirs["warmup_ratio"]  # below 1 it is a share of the run
    if given.get("lr_scheduler_type") == "warmup_stable_decay":
        # It holds the peak for a third of the steps after the warmup and decays over the rest.
        total, warmup = _total_steps(given, run), given.get("warmup_steps", 0)
        remaining = total - (math.ceil(total * warmup) if warmup < 1 else warmup)
        defaults = {"num_stable_steps": remaining // 3, "num_decay_steps": remaining - remaining // 3}
        given["lr_scheduler_kwargs"] = {**defaults, **(given.get("lr_scheduler_kwargs") or {})}
    return given


def _of_axolotl(theirs: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("lr_scheduler", "lr_quadratic_warmup", "cosine_constant_lr_ratio"):
        value = theirs.get(key)
        if value and (key != "lr_scheduler" or value in _SCHEDULES_OF_AXOLOTL):
            rule = "selects a schedule of axolotl's own, whose curve is unknown here"
            raise ArgumentError(key, received=value, rule=rule)
    given = _arguments_of_trainer({_NAMES_OF_AXOLOTL.get(key, key): value for key, value in theirs.items()})
    name = given.setdefault("lr_scheduler_type", "cosine")
    if name == "cosine" and theirs.get("cosine_min_lr_ratio"):
        given["lr_scheduler_type"] = "cosine_with_min_lr"
        given["lr_scheduler_kwargs"] = {"min_lr_rate": theirs["cosine_min_lr_ratio"]}
    if "warmup_steps" not in given:
        total, ratio = _total_steps(given, run), theirs.get("warmup_ratio")
        given["warmup_steps"] = min(int(0.03 * total), 100) if ratio is None else int(ratio * total)
    if given["warmup_steps"] == 1:
        given["warmup_steps"] = 2
    return given


def _arguments_of_trainer(given: Mapping[str, Any]) -> dict[str, Any]:
    known = arguments_of("trainer").keys() - {"deepspeed"}
    return {key: value for key, value in given.items() if key in known and value is not None}


def _total_steps(given: Mapping[str, Any], run: Mapping[str, Any]) -> int:
    others = {key: value for key, value in given.items() if not key.startswith(("lr_scheduler", "warmup"))}
    config = TrainingConfig("trainer", {**others, "lr_scheduler_type": "constant"})
    return plan(config, **run).num_training_steps
