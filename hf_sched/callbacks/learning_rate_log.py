"""Logs the learning rate of every parameter group: in the Trainer's log, and step by step in a file.

The Trainer's own `learning_rate` is what the scheduler reports for group 0. Here the rates of all groups are read from
the optimizer when it makes its step, so that an audit or a report can compare them with the plan.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from torch.optim import Optimizer
from transformers import TrainerCallback

from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from hf_sched.integrations.deepspeed import scheduler_block
from hf_sched.scheduler.checkpoint_state import plain
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.param_groups import unwrap
from hf_sched.scheduler.schedule_lr import schedule_of
from hf_sched.schedules import registry

logger = logging.getLogger(__name__)

# With more kinds of groups the log shows only the minimum and the maximum; the file has all.
_MAX_LOGGED = 16


class LearningRateLog(TrainerCallback):
    """Logs the learning rate of every parameter group at every optimizer step.

    Each log record with `learning_rate` also gets `learning_rate/NAME`, so that every tracker of `report_to` and
    `trainer_state.json` have it. Groups with the same name and peak share one entry. NAME is their name
    (`param_groups[i]["name"]`), else `group_0` with the number of the first of them. If their rates differ (trust
    ratios), the entry is the maximum, and `learning_rate/NAME_min` the minimum. With more than 16 kinds of groups only
    `learning_rate/min` and `learning_rate/max` are logged.

    `learning_rates.jsonl` in `output_dir` has every optimizer step, whatever `logging_steps` is: a line with the plan
    when training begins or a live cooldown changes it, and a line per step, numbered from 1 as in the log. Rank 0
    writes the lines when the Trainer logs or saves; a resume continues the file. If the file cannot be written, one
    warning says so and training continues.

    Args:
        every_step: Whether to write the file.

    Examples:
        >>> Trainer(model, args, train_dataset=data, callbacks=[hf_sched.LearningRateLog()])
    """

    def __init__(self, every_step: bool = True) -> None:
        self.every_step = every_step
        self._kinds: dict[str, list[int]] = {}
        self._rates: list[float] = []
        self._hook: Any = None
        self._file: TextIO | None = None
        self._read_before_step = False
        self._group_schedule: GroupSchedule | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """Look at the groups; start the file or continue it."""
        self._close()
        self._rates = []
        self._kinds = _kinds(optimizer.param_groups)
        # DeepSpeed steps the optimizer, and then its scheduler, within `backward`.
        self._read_before_step = bool(getattr(args, "deepspeed", None)) or type(optimizer).__name__.startswith(
            "DeepSpeed"
        )
        inner = unwrap(optimizer)
        if isinstance(inner, Optimizer) and not self._read_before_step:
            # Trust ratios are set in a hook just before the step, after all callbacks.
            self._hook = inner.register_step_post_hook(lambda stepped, *_: self._read(stepped.param_groups))
        if self.every_step and state.is_world_process_zero:
            self._group_schedule = _group_schedule_of(lr_scheduler)
            try:
                self._file = _open(Path(args.output_dir) / LEARNING_RATES, state.global_step)
            except OSError as error:
                _warn_not_written(error)
            self._write({"session": self._session(args, state, optimizer, lr_scheduler)})
            self._write()

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Read the rates if the step is made within `backward`."""
        if self._read_before_step:
            self._read(optimizer.param_groups)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Read the rates for the case that no hook is called (a skipped step, or an optimizer without hooks)."""
        if not self._read_before_step:
            self._read(optimizer.param_groups)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """Add the line of the step; before it the new plan, if a live cooldown has just changed it."""
        if self._file is None:
            return
        group_schedule = _group_schedule_of(lr_scheduler)
        if group_schedule is not self._group_schedule:
            self._group_schedule = group_schedule
            self._write({"session": {**self._session(args, state, optimizer, lr_scheduler), "is_cooldown": True}})
        rates = [low if low == high else [low, high] for low, high in self._spans().values()]
        self._write({"step": state.global_step + 1, "rates": rates})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the lines before the Trainer logs or saves, so that no checkpoint is ahead of the file."""
        if control.should_log or control.should_save:
            self._write()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the lines if a later callback requested the checkpoint."""
        self._write()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file."""
        self._close()

    def add_to(self, logs: dict[str, Any]) -> None:
        """Add the rates of the last step to a log record of the Trainer; hf_sched calls this before it is logged."""
        if "learning_rate" not in logs or not self._rates:
            return
        spans = self._spans()
        if len(spans) > _MAX_LOGGED:
            spans = {"max": (max(self._rates),) * 2, "min": (min(self._rates),) * 2}
        for name, (low, high) in spans.items():
            logs[f"learning_rate/{name}"] = high
            if low != high:
                logs[f"learning_rate/{name}_min"] = low

    def _read(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self._rates = [float(group["lr"]) for group in groups]

    def _spans(self) -> dict[str, tuple[float, float]]:
        """The minimum and maximum rate of each kind of groups."""
        if len(self._rates) != sum(map(len, self._kinds.values())):  # a group was added
            self._kinds = {f"group_{number}": [number] for number in range(len(self._rates))}
        of_kinds = {name: [self._rates[number] for number in members] for name, members in self._kinds.items()}
        return {name: (min(rates), max(rates)) for name, rates in of_kinds.items()}

    def _session(self, args: Any, state: Any, optimizer: Any, lr_scheduler: Any) -> dict[str, Any]:
        """The plan from this step on, up to the next resume or live cooldown."""
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)  # Accelerate may have wrapped it
        name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
        # Our schedule was requested by name, or kept on a resume; otherwise user code passed it in.
        is_requested = name in registry.available() or "on_resume" in (args.lr_scheduler_kwargs or {})
        group_schedule = _group_schedule_of(lr_scheduler)
        has_cooldown = group_schedule is not None and group_schedule.cooldown is not None
        planned_steps = (
            group_schedule.requested.num_training_steps if group_schedule and has_cooldown else state.max_steps
        )
        return {
            "step": state.global_step,
            "kinds": self._kinds,
            "peaks": [_peak(optimizer.param_groups[members[0]]) for members in self._kinds.values()],
            "learning_rate": float(args.learning_rate),
            "lr_scheduler_type": name,
            "lr_scheduler_kwargs": plain(args.lr_scheduler_kwargs or {}),
            "num_training_steps": state.max_steps,
            "num_warmup_steps": args.get_warmup_steps(planned_steps),
            "scheduler": type(scheduler).__name__,
            "facts": _facts(args),
            # The exact curve, including resumes and durations in epochs.
            "group_schedule": group_schedule.state() if group_schedule and is_requested else None,
        }

    def _write(self, row: dict[str, Any] | None = None, close: bool = False) -> None:
        """Add a row; without one, write all rows to the disk. A failure ends the file, not the training."""
        if self._file is None:
            return
        try:
            if row is not None:
                self._file.write(json.dumps(row) + "\n")
            elif close:
                file, self._file = self._file, None
                file.close()
            else:
                self._file.flush()
        except OSError as error:
            self._file = None
            _warn_not_written(error)

    def _close(self) -> None:
        if self._hook:
            self._hook.remove()
            self._hook = None
        self._write(close=True)


def _warn_not_written(error: OSError) -> None:
    logger.warning("%s is not written any further: %s; training continues", LEARNING_RATES, error)


def _facts(args: Any) -> dict[str, Any]:
    """What may explain a deviation from the plan."""
    block = scheduler_block(args)
    return {
        "accumulation": args.gradient_accumulation_steps,
        "processes": args.world_size,
        "deepspeed": block.get("type") if isinstance(block, dict) else None,
    }


def _group_schedule_of(lr_scheduler: Any) -> GroupSchedule | None:
    scheduler = schedule_of(lr_scheduler)
    return scheduler.group_schedule if scheduler else None


def _peak(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


def _kinds(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The numbers of the groups with the same name and peak, under a unique name."""
    members: dict[tuple[str, float], list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault((str(group.get("name") or ""), _peak(group)), []).append(number)
    kinds: dict[str, list[int]] = {}
    for (name, _), numbers in members.items():
        key = re.sub(r"[^\w.-]", "_", name) or f"group_{numbers[0]}"
        kinds[key if key not in kinds else f"{key}_{numbers[0]}"] = numbers
    return kinds


def _open(path: Path, step: int) -> TextIO:
    """Open the file for appending; of an existing one keep the lines up to `step`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: list[dict[str, Any]] = []
    if step and path.is_file():
        try:
            rows = read_learning_rates(path)
            kept = [row for row in rows if (row["session"]["step"] < step if "session" in row else row["step"] <= step)]
        except (ValueError, TypeError, KeyError) as error:
            logger.warning("%s is damaged and starts anew: %s", path, error)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(temporary, path)  # a crash in between leaves the old file
    return path.open("a", encoding="utf-8", buffering=1 << 16)
