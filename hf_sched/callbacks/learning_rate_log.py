"""Logs the learning rate of every parameter group, as the optimizer uses it: in the Trainer's log and in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from hf_sched._run_files import LEARNING_RATES, read_learning_rates, training_continues, write_text
from hf_sched.callbacks.hyperparameter_schedules import HyperparameterSchedules
from hf_sched.integrations.deepspeed import scheduler_type
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.param_groups import find_optimizers, is_deepspeed, peak_of, unwrap
from hf_sched.scheduler.resume import read_schedule
from hf_sched.scheduler.schedule_lr import ScheduleLR, planned_rates, schedule_of
from hf_sched.schedules import registry


class LearningRateLog(TrainerCallback):
    """Logs the learning rate of every parameter group at every optimizer step.

    Each log record with `learning_rate` also gets `learning_rate/NAME` and, beside it, `learning_rate/planned_NAME`.
    Groups with the same name and peak share one entry; NAME is `param_groups[i]["name"]`, else `group_0` with the
    number of the first of them. If their rates differ (trust ratios), the entry is the maximum, and
    `learning_rate/NAME_min` the minimum. Groups of optimizers inside the Trainer's optimizer count as its own; groups
    that are added during training get entries from then on. `phase_steps_left/PHASE` counts down the optimizer steps
    that are left in the current phase: the phase is in the name because not every tracker accepts text. The file also
    has the values of `HyperparameterSchedules`.

    `learning_rates.jsonl` in `output_dir` has every optimizer step, whatever `logging_steps` is: a line with the plan
    when training begins or the plan or the groups change, and a line per step, numbered from 1 as in the log. Rank 0
    writes the lines when the Trainer logs or saves; a resume continues the file. If that fails, training continues.

    Examples:
        >>> Trainer(model, args, train_dataset=data, callbacks=[hf_sched.LearningRateLog()])
    """

    def __init__(self) -> None:
        self.hyperparameters: list[HyperparameterSchedules] = []
        """Set by hf_sched when training begins."""
        self._kinds: dict[str, list[int]] = {}
        self._rates: list[float] = []
        self._seen_step = 0
        """The optimizer step, from 0, that used the rates."""
        self._lr_scheduler: Any = None
        self._hook: Any = None
        self._path: Path | None = None
        """The file; None on other ranks, and after a failure to write it."""
        self._lines: list[str] = []
        self._size = 0
        self._peaks: list[float] = []
        self._scheduler: ScheduleLR | None = None
        self._group_schedule: GroupSchedule | None = None
        self._trained: list[Any] = []
        """Those that train, if the schedule is not one of hf_sched."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        self.on_train_end(args, state, control)  # of a run that ended in an error
        self._rates, self._lines, self._kinds = [], [], {}
        self._lr_scheduler, self._scheduler = lr_scheduler, schedule_of(lr_scheduler)
        self._trained = find_optimizers(optimizer).training
        self._find_kinds()
        if not is_deepspeed(optimizer, args):
            with suppress(AttributeError):  # not every wrapper has torch's hooks
                # Trust ratios are set in a hook just before the step, after all callbacks.
                self._hook = unwrap(optimizer).register_step_post_hook(lambda *_: self._read())
        if state.is_world_process_zero:
            path = Path(args.output_dir, LEARNING_RATES)
            with training_continues(path):
                _keep_lines(path, state.global_step)
                self._path = path
            self._write_session(args, state)
            self._flush()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the rates here for steps that call no hook: skipped ones, and those of DeepSpeed within `backward`."""
        self._seen_step = state.global_step
        self._read()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the line of the step; before it the new plan, if a live cooldown or new groups have just changed it."""
        has_new_groups = len(self._rates) != self._size
        if has_new_groups:
            self._find_kinds()
        if self._path is None:
            return
        if has_new_groups or (self._scheduler and self._scheduler.group_schedule is not self._group_schedule):
            self._write_session(args, state, is_change=True)
        rates: list[Any] = [low if low == high else [low, high] for low, high in self._spans().values()]
        rates += [value for one in self.hyperparameters for value in one.values().values()]
        self._write({"step": state.global_step + 1, "rates": rates})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the lines before the Trainer logs or saves, so that no checkpoint is ahead of the file."""
        if control.should_log or control.should_save:
            self._flush()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the lines if a later callback requested the checkpoint."""
        self._flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._flush()
        self._path = None
        if self._hook:
            self._hook.remove()
            self._hook = None

    def add_to(self, logs: dict[str, Any]) -> None:
        """Add the rates of the last step to a log record of the Trainer; hf_sched calls this before it is logged."""
        if "learning_rate" not in logs or not self._rates:
            return
        planned = planned_rates(self._lr_scheduler, self._seen_step)
        for name, (low, high) in self._spans().items():
            logs[f"learning_rate/{name}"] = high
            if low != high:
                logs[f"learning_rate/{name}_min"] = low
            if planned is not None and len(planned) == self._size:  # a scheduler may know the outer groups alone
                logs[f"learning_rate/planned_{name}"] = planned[self._kinds[name][0]]
        if self._scheduler:
            phase, left = self._scheduler.group_schedule.phase_at(self._seen_step)
            if left is not None:
                logs[f"phase_steps_left/{phase}"] = left

    def _groups(self) -> Sequence[Mapping[str, Any]]:
        if self._scheduler is not None:
            return self._scheduler.groups
        return [group for optimizer in self._trained for group in optimizer.param_groups]

    def _find_kinds(self) -> None:
        groups = self._groups()
        self._size = len(groups)
        trained = self._scheduler.trained if self._scheduler else range(self._size)
        self._kinds = _kinds({number: groups[number] for number in trained})
        self._peaks = [peak_of(groups[members[0]]) for members in self._kinds.values()]

    def _read(self) -> None:
        self._rates = [float(group["lr"]) for group in self._groups()]

    def _spans(self) -> dict[str, tuple[float, float]]:
        """The minimum and maximum rate of each kind of groups."""
        of_kinds = {name: [self._rates[number] for number in members] for name, members in self._kinds.items()}
        return {name: (min(rates), max(rates)) for name, rates in of_kinds.items()}

    def _write_session(self, args: Any, state: Any, **more: Any) -> None:
        """Write the plan from this step on, up to the next resume, live cooldown or new group."""
        name, kwargs = read_schedule(args)
        self._group_schedule = current = self._scheduler.group_schedule if self._scheduler else None
        planned_steps = current.requested.num_training_steps if current and current.cooldown else None
        # Our schedule was requested by name, or kept on a resume; otherwise user code passed it in.
        is_requested = name in registry.available() or "on_resume" in kwargs
        session = {
            "step": state.global_step,
            "kinds": self._kinds,
            "peaks": self._peaks,
            "learning_rate": float(args.learning_rate),
            "lr_scheduler_type": name,
            "lr_scheduler_kwargs": kwargs,
            "num_training_steps": state.max_steps,
            "num_warmup_steps": args.get_warmup_steps(planned_steps or state.max_steps),
            "facts": {"deepspeed": scheduler_type(args)},  # it may explain a deviation from the plan
            # The exact curve, including resumes and durations in epochs.
            "group_schedule": current.state() if current and is_requested else None,
            "hyperparameters": {name: plan for one in self.hyperparameters for name, plan in one.plans().items()},
        }
        self._write({"session": session | more})

    def _write(self, row: dict[str, Any]) -> None:
        self._lines.append(json.dumps(row, default=str) + "\n")

    def _flush(self) -> None:
        """Append the lines so far. After a failure no more are written, and the training continues."""
        path, self._path = self._path, None
        if path is not None:
            with training_continues(path), path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
                self._path = path
        self._lines.clear()


def _kinds(groups: Mapping[int, Mapping[str, Any]]) -> dict[str, list[int]]:
    """The numbers of the groups with the same name and peak, under a unique name."""
    members: dict[tuple[str, float], list[int]] = {}
    for number, group in groups.items():
        members.setdefault((str(group.get("name") or ""), peak_of(group)), []).append(number)
    kinds: dict[str, list[int]] = {}
    for (name, _), numbers in members.items():
        key = re.sub(r"[^\w.-]", "_", name) or f"group_{numbers[0]}"
        kinds[key if key not in kinds else f"{key}_{numbers[0]}"] = numbers
    return kinds


def _keep_lines(path: Path, step: int) -> None:
    """Begin the file, with the lines up to `step` of an existing one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_learning_rates(path) if step and path.is_file() else []
    kept = [row for row in rows if (row["session"]["step"] < step if "session" in row else row["step"] <= step)]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
