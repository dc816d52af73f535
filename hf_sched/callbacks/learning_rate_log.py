"""The learning rates that every optimizer step was made with: in each tracker's log, and step by step in a file.

The Trainer's own `learning_rate` is what the scheduler says of group 0. Here every group's is read off the optimizer,
as the step is made, so that a report or `hf-sched check` can hold it against the plan.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from torch.optim import Optimizer
from transformers import TrainerCallback

from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from hf_sched.scheduler.checkpoint_state import plain
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.schedule_lr import schedule_of
from hf_sched.schedules import registry

# More would drown a tracker's page: then only the least and the greatest are shown, and the file has them all.
_SHOWN = 16


class LearningRateLog(TrainerCallback):
    """Logs the learning rate of every parameter group at every optimizer step. For `Trainer(callbacks=[...])`.

    What the Trainer logs with `learning_rate` also gets `learning_rate/NAME`, in the same record, so every tracker of
    `report_to` and `trainer_state.json` have it. Groups of one peak share a number, since a schedule gives them one
    rate; NAME is their name where they have one (`param_groups[i]["name"]`), else `group_0`, after the first of them.
    Where their rates do differ, as with trust ratios, that is the greatest, and `learning_rate/NAME_min` the least.
    Of more than 16 kinds of groups only `learning_rate/min` and `learning_rate/max` are logged.

    `learning_rates.jsonl` in `output_dir` has every step, whatever `logging_steps` is: a line when training begins,
    which says what was planned, another if the run is told to cool down, and one a step, numbered as in the log (from
    1). The first process writes it; a resume goes on in it, from the step of the checkpoint.

    Args:
        every_step: Whether to write the file.
    """

    def __init__(self, every_step: bool = True) -> None:
        self.every_step = every_step
        self._kinds: dict[str, list[int]] = {}
        self._rates: list[float] = []
        self._hook: Any = None
        self._file: TextIO | None = None
        self._early = False
        self._course: GroupSchedule | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """Look at the groups; begin the file, or go on in it."""
        self._close()
        self._rates = []
        self._kinds = _kinds(optimizer.param_groups)
        # DeepSpeed makes the step within `backward`, and after it the one of its own scheduler, if it has one.
        self._early = bool(getattr(args, "deepspeed", None)) or type(optimizer).__name__.startswith("DeepSpeed")
        inner = optimizer
        while isinstance(wrapped := getattr(inner, "optimizer", None), Optimizer):  # Accelerate wraps it
            inner = wrapped
        if isinstance(inner, Optimizer) and not self._early:
            # Trust ratios are set by a hook before the step, so that nothing earlier sees them.
            self._hook = inner.register_step_post_hook(lambda made, *_: self._take(made.param_groups))
        if self.every_step and state.is_world_process_zero:
            self._file = _go_on(Path(args.output_dir) / LEARNING_RATES, state.global_step)
            self._course = _course_of(lr_scheduler)
            self._write({"session": self._session(args, state, optimizer, lr_scheduler)})

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Read the rates, where the step is made before the Trainer says so."""
        if self._early:
            self._take(optimizer.param_groups)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Read the rates, should the optimizer call no hook (a gradient scaler skips the step, it is not torch's)."""
        if not self._early:
            self._take(optimizer.param_groups)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """Write the step down; before it the new plan, where the run has just been told to cool down."""
        if self._file:
            if (group_schedule := _course_of(lr_scheduler)) is not self._course:
                self._course = group_schedule
                self._write({"session": {**self._session(args, state, optimizer, lr_scheduler), "told": True}})
            rates = [least if least == most else [least, most] for least, most in self._spans().values()]
            self._write({"step": state.global_step + 1, "rates": rates})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file."""
        self._close()

    def add_to(self, logs: dict[str, Any]) -> None:
        """Add the rates of the step just made to what the Trainer is about to log of it (hf_sched calls this)."""
        if "learning_rate" not in logs or not self._rates:
            return
        spans = self._spans()
        if len(spans) > _SHOWN:
            spans = {"max": (max(self._rates),) * 2, "min": (min(self._rates),) * 2}
        for name, (least, most) in spans.items():
            logs[f"learning_rate/{name}"] = most
            if least != most:
                logs[f"learning_rate/{name}_min"] = least

    def _take(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self._rates = [float(group["lr"]) for group in groups]

    def _spans(self) -> dict[str, tuple[float, float]]:
        """The least and the greatest rate of each kind of groups."""
        if len(self._rates) != sum(map(len, self._kinds.values())):  # a group was added meanwhile
            self._kinds = {f"group_{number}": [number] for number in range(len(self._rates))}
        of_kinds = {name: [self._rates[number] for number in members] for name, members in self._kinds.items()}
        return {name: (min(rates), max(rates)) for name, rates in of_kinds.items()}

    def _session(self, args: Any, state: Any, optimizer: Any, lr_scheduler: Any) -> dict[str, Any]:
        """What this part of the run, up to its end or the next resume, is to train on."""
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)  # Accelerate may have wrapped it
        name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
        # NamedSchedule for by its name, or kept on a resume under a built-in one; else somebody has put it there.
        requested = name in registry.available() or "on_resume" in (args.lr_scheduler_kwargs or {})
        group_schedule = _course_of(lr_scheduler)
        told = group_schedule if group_schedule and group_schedule.cooldown else None
        return {
            "step": state.global_step,
            "kinds": self._kinds,
            "peaks": [_peak(optimizer.param_groups[members[0]]) for members in self._kinds.values()],
            "learning_rate": float(args.learning_rate),
            "lr_scheduler_type": name,
            "lr_scheduler_kwargs": plain(args.lr_scheduler_kwargs or {}),
            "num_training_steps": state.max_steps,
            "num_warmup_steps": args.get_warmup_steps(told.requested.num_training_steps if told else state.max_steps),
            "scheduler": type(scheduler).__name__,
            "facts": _facts(args),
            # Of a schedule of ours all is known, resumes and epochs too.
            "group_schedule": group_schedule.state() if group_schedule and requested else None,
        }

    def _write(self, row: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(row) + "\n")

    def _close(self) -> None:
        if self._hook:
            self._hook.remove()
        if self._file:
            self._file.close()
        self._hook = self._file = None


def _facts(args: Any) -> dict[str, Any]:
    """What may explain a deviation from the plan."""
    config = getattr(getattr(args, "hf_deepspeed_config", None), "config", None) or {}
    return {
        "accumulation": args.gradient_accumulation_steps,
        "processes": args.world_size,
        "deepspeed": config["scheduler"].get("type") if isinstance(config.get("scheduler"), dict) else None,
    }


def _course_of(lr_scheduler: Any) -> GroupSchedule | None:
    scheduler = schedule_of(lr_scheduler)
    return scheduler.group_schedule if scheduler else None


def _peak(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


def _kinds(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The groups of one name and peak, under one name."""
    members: dict[tuple[str, float], list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault((str(group.get("name") or ""), _peak(group)), []).append(number)
    kinds: dict[str, list[int]] = {}
    for (name, _), numbers in members.items():
        key = re.sub(r"[^\w.-]", "_", name) or f"group_{numbers[0]}"
        kinds[key if key not in kinds else f"{key}_{numbers[0]}"] = numbers
    return kinds


def _go_on(path: Path, step: int) -> TextIO:
    """The file, with what it holds of the steps up to `step`, open for the next ones; a line is written at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = read_learning_rates(path) if step and path.is_file() else []
    kept = [row for row in kept if (row["session"]["step"] < step if "session" in row else row["step"] <= step)]
    whole = path.with_suffix(".tmp")
    whole.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(whole, path)  # a kill meanwhile leaves the old file
    return path.open("a", encoding="utf-8", buffering=1)
