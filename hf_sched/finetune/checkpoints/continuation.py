"""What a resumed run continues with: found, shown and rejected before the model is loaded.

The scheduler itself rejects another schedule than the checkpoint's, but only after the Trainer has loaded the model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hf_sched
from hf_sched._run_files import RUN, read_trainer_state
from hf_sched.finetune.checkpoints.differences import differences, recorded_session
from hf_sched.finetune.checkpoints.identity import is_own
from hf_sched.finetune.checkpoints.selection import is_in
from hf_sched.finetune.checkpoints.sharding import weights_of
from hf_sched.finetune.provenance import read_provenance
from hf_sched.integrations.transformers_trainer import using
from hf_sched.plan import Plan
from hf_sched.scheduler.builtin_resume import check_next_load
from hf_sched.scheduler.resume import Saved, ScheduleChanged, read_schedule, read_scheduler_state, split_on_resume
from hf_sched.scheduler.schedule_lr import make_scheduler, schedule_of
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

# With any other difference the run has as many steps as the checkpoint's, even where rows are packed or dropped.
_CHANGES_LENGTH = ("batch", "accumulation", "epochs", "max_", "dataset", "packing", "processes", "num_", "steps_per")


class ResumeRejected(ValueError):
    """A resume under another schedule; the message has a table and a line to type for each choice."""


@dataclass(frozen=True)
class Resume:
    """A checkpoint to resume from, compared with the arguments of the run."""

    checkpoint: str
    step: int
    """The optimizer steps that are done."""
    differences: tuple[str, ...]
    """What differs from the arguments of the checkpoint's run, if they are recorded."""
    is_recorded: bool
    state: Mapping[str, Any]
    """The content of `trainer_state.json`."""
    scheduler_state: Mapping[str, Any]

    @classmethod
    def read(cls, checkpoint: str, given: Mapping[str, Any], processes: int) -> Resume:
        """Read a checkpoint, and compare its run's arguments with `given` on this number of processes."""
        state, session = read_trainer_state(Path(checkpoint) / "trainer_state.json"), recorded_session(Path(checkpoint))
        found = differences(session, given, processes) if session else []
        scheduler = read_scheduler_state(Path(checkpoint)) or {}  # `save_only_model` omits it
        return cls(checkpoint, state["global_step"], tuple(found), session is not None, state, scheduler)

    def log(self, output_dir: str, *, is_branch: bool) -> None:
        """Log what the run continues; unless it branches off on purpose, warn if that is another run or not exact."""
        logger.info(f"resuming from {self.checkpoint} after {self.step} optimizer steps")
        if is_branch:
            return
        checkpoint = Path(self.checkpoint)
        if not is_in(output_dir, self.checkpoint) or not is_own(checkpoint, read_provenance(checkpoint.parent / RUN)):
            logger.warning(f"{checkpoint} belongs to another run, which {output_dir} continues as a new run")
        if self.differences:
            changed = ", ".join(self.differences)
            logger.warning(f"{checkpoint} was trained with other arguments; the run is no longer the same: {changed}")

    @property
    def keeps_length(self) -> bool:
        """Whether the run is known to have as many steps as the checkpoint's."""
        return self.is_recorded and not any(word in text for text in self.differences for word in _CHANGES_LENGTH)

    def knows_length(self, args: Any) -> bool:
        """Return whether the length of the run is known before the model is loaded and the rows are tokenized."""
        is_counted = self.is_recorded and not getattr(args, "packing", False)
        return args.max_steps > 0 or self.keeps_length or is_counted

    def apply(self, args: Any, planned: Plan, groups: Sequence[Mapping[str, Any]] | None = None) -> Plan:
        """Return the plan of the resumed run; `groups` are its parameter groups, if they are not the Trainer's.

        Raises:
            ResumeRejected: The schedule has changed, and `on_resume` is not given.
        """
        name, given = read_schedule(args)
        on_resume, arguments = split_on_resume(given)
        saved = Saved.read(self.scheduler_state) if "schedule" in self.scheduler_state else None
        if args.max_steps <= 0 and self.keeps_length:
            before = saved.group_schedule if saved else None
            total = before.requested.num_training_steps if before else None
            planned = replace(planned, num_training_steps=total or self.state["max_steps"])
        peaks, is_ours = self.scheduler_state.get("base_lrs") or [0.0], name in hf_sched.available()
        if not self.scheduler_state or (not is_ours and saved is None):
            return self._remaining(planned, planned.curve)
        had_groups = len(set(peaks)) > 1 or bool(self.scheduler_state.get("own"))
        here = groups or [{}] * (2 if had_groups else len(peaks))  # the Trainer makes two
        parameters = [{**group, "params": [torch.nn.Parameter(torch.zeros(1))]} for group in here]
        with using(planned.units):
            warmup_steps = args.get_warmup_steps(planned.num_training_steps)
        scheduler = make_scheduler(
            name,
            torch.optim.SGD(parameters, lr=args.learning_rate),
            warmup_steps,
            planned.num_training_steps,
            given if is_ours else arguments,
            units=planned.units,
        )
        check_next_load(scheduler, name, on_resume)
        try:
            scheduler.load_state_dict(dict(self.scheduler_state))
        except ScheduleChanged as error:
            raise ResumeRejected(self._message(error)) from None
        ours = schedule_of(scheduler)
        if ours is None:
            return self._remaining(planned, planned.curve)
        now = ours.group_schedule
        total = now.cooldown.end if now.cooldown else planned.num_training_steps
        curve = now.rates(0, total, slice(0, 1))[0]
        if saved is not None and saved.group_schedule is not None:
            curve[: self.step] = saved.group_schedule.rates(0, total, slice(0, 1))[0][: self.step]
        return self._remaining(replace(planned, schedule=now.schedule, num_training_steps=total), curve)

    def _remaining(self, planned: Plan, curve: np.ndarray | None) -> Plan:
        total, left = planned.num_training_steps, planned.num_training_steps - self.step
        rate = "" if curve is None or left <= 0 else f", from a learning rate of {curve[self.step]:.4g}"
        note = f"Resumes from {self.checkpoint}: {self.step} of {total} steps are done, {max(left, 0)} are left{rate}."
        return replace(
            planned,
            curve=curve,
            last_lr=planned.last_lr if curve is None else float(curve[-1]),
            peak_lr=planned.peak_lr if curve is None else float(curve.max()),
            checkpoints=_after(self.step, planned.checkpoints),
            evaluations=_after(self.step, planned.evaluations),
            notes=(*planned.notes, note),
        )

    def _message(self, error: ScheduleChanged) -> str:
        longer = any(name == "steps" and old.isdigit() and int(old) < int(new) for name, old, new in error.changes[1:])
        lines = [f"{self.checkpoint}, at step {self.step}, was trained under another schedule:"]
        lines += _columns([(name, f"{old}  ->  {new}") for name, old, new in error.changes[1:]])
        if self.differences:
            lines += [f"It was also trained with other arguments: {', '.join(self.differences)}"]
        lines += ["To resume, add one of these to the command line (next learning rate, meaning):"]
        lines += _columns(
            [
                (
                    f"--lr_scheduler_kwargs '{json.dumps({'on_resume': choice})}'",
                    rate,
                    meaning + "  <- to train longer" * (longer and choice == "rewarm"),
                )
                for choice, rate, meaning in error.choices
                if rate != "-"
            ]
        )
        lines += ["Or start a new run from its weights, with a new optimizer:"]
        lines += [f"  {weights_of(self.checkpoint)} --resume_from_checkpoint false --output_dir NEW_FOLDER"]
        return "\n".join(lines)


def check_same_weights(checkpoint: str, *, is_peft: bool) -> None:
    """Raise an ArgumentError if a checkpoint holds an adapter and the run trains the whole model, or the reverse."""
    has_adapter = (Path(checkpoint) / "adapter_config.json").is_file()
    if has_adapter != is_peft:
        rule = f"does not fit {checkpoint}, which holds {'an adapter' if has_adapter else 'a whole model'}"
        hint = f"add `--use_peft {str(has_adapter).lower()}`, or start a new run: {weights_of(checkpoint)}"
        raise ArgumentError("use_peft", rule=rule, received=is_peft, hint=hint)


def _after(step: int, steps: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return steps and tuple(one for one in steps if one > step)


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  " + "  ".join([*(f"{text:{width}}" for text, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
