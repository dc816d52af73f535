"""Resuming under another schedule: which learning rate the next step has.

By default a changed schedule is an error that shows every choice; `on_resume` in `lr_scheduler_kwargs` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.schedules.schedule import Segment
from hf_sched.schedules.validation import ArgumentError, DurationReader, Epochs, OneOf, as_steps, epochs_as_steps

CHOICES = {
    "keep": "continue on the checkpoint's curve and peaks",
    "replace": "use the new curve from this step on",
    "continue": "go from the current rate along the rest of the new curve to its end",
    "rewarm": "go from the current rate to the new curve within {steps}",
}
# The default duration of `rewarm`, as a fraction of the run.
_REWARM = Fraction(2, 100)


@dataclass(frozen=True)
class OnResume:
    """What to do if a checkpoint was trained under another schedule."""

    choice: str
    duration: int | Fraction | Epochs = _REWARM
    """Of `rewarm`."""

    @classmethod
    def parse(cls, value: object) -> OnResume:
        """Read `keep`, `replace`, `continue`, `rewarm`, or `rewarm 50` (or another duration).

        Raises:
            ArgumentError: The value is none of these.
        """
        choice, *duration = (value.split() if isinstance(value, str) else []) or [""]
        if choice == "rewarm" and len(duration) == 1:
            return cls(choice, DurationReader(above_zero=True)("on_resume", duration[0]))
        return cls(OneOf(tuple(CHOICES))("on_resume", value))

    def in_steps(self, steps_per_epoch: float | None) -> OnResume:
        """Convert a duration in epochs to steps.

        Raises:
            EpochsUnknown: The duration is in epochs and `steps_per_epoch` is None.
        """
        if not isinstance(self.duration, Epochs):
            return self
        return OnResume(self.choice, epochs_as_steps("on_resume", self.duration, steps_per_epoch))


def split_on_resume(kwargs: Mapping[str, Any] | None) -> tuple[OnResume | None, dict[str, Any]]:
    """Split `lr_scheduler_kwargs` into the choice and the arguments of the schedule."""
    others = dict(kwargs or {})
    choice = others.pop("on_resume", None)
    return (None if choice is None else OnResume.parse(choice)), others


@dataclass(frozen=True)
class Saved:
    """What a checkpoint records about the learning rate."""

    name: str
    step: int
    """The next optimizer step."""
    rates: tuple[float, ...]
    """Each group's learning rate at that step."""
    peaks: tuple[float, ...]
    group_schedule: GroupSchedule | None
    """None if the scheduler does not save its curve, as transformers' own schedulers."""


def resumed(saved: Saved, requested: GroupSchedule, name: str, on_resume: OnResume | None) -> GroupSchedule:
    """The learning rates to continue with.

    Raises:
        ValueError: The schedule has changed, and `on_resume` is not given or not possible.
    """
    before = saved.group_schedule
    if before is not None and (before.requested, before.peaks) == (requested.schedule, requested.peaks):
        return before  # including its transition or cooldown
    if on_resume is None:
        raise ValueError(_report(saved, requested, name))
    obstacle = _obstacle(saved, requested, on_resume.choice)
    if obstacle:
        raise ArgumentError(
            "on_resume",
            rule=f"cannot be {on_resume.choice!r}: {obstacle}",
            hint=f"choose another of {', '.join(CHOICES)}",
        )
    return _apply(saved, requested, on_resume)


def check_groups(saved: Saved, requested: GroupSchedule, name: str) -> None:
    """Reject a checkpoint with another number of parameter groups, whose state the optimizer cannot load.

    Raises:
        ValueError: The number differs; the message shows what changed.
    """
    if len(saved.peaks) != len(requested.peaks):
        raise ValueError(
            f"{_group_counts(saved, requested)}; the optimizer cannot load the checkpoint's state, whatever "
            f"`on_resume` is. What changed:\n{_table(_changes(saved, requested, name))}\nGroup parameters as in the "
            "checkpoint's run (groups come from `weight_decay`, the model, `optimizers=` or `create_optimizer`), or "
            "start a new run from its weights, without `resume_from_checkpoint`."
        )


def _obstacle(saved: Saved, requested: GroupSchedule, choice: str) -> str:
    """Why a choice is not possible; empty if it is."""
    schedule = requested.schedule
    if choice == "replace":
        return ""
    if choice == "keep" and saved.group_schedule is None:
        return f"the checkpoint does not hold the curve of {saved.name}"
    if len(saved.rates) != len(requested.peaks):
        return _group_counts(saved, requested)
    if choice != "keep" and saved.step >= schedule.num_training_steps:
        return f"the run has {schedule.num_training_steps} steps, all of which are done"
    rising = next((s for s in schedule.segments if _rises_after(s, saved.step)), None)
    if choice == "continue" and rising is not None:
        return f"the new curve rises again in the {rising.kind} from step {max(rising.first, saved.step)} on"
    return ""


def _apply(saved: Saved, requested: GroupSchedule, on_resume: OnResume) -> GroupSchedule:
    if on_resume.choice == "keep":
        assert saved.group_schedule is not None
        return saved.group_schedule
    if on_resume.choice == "replace":
        return requested
    total = requested.schedule.num_training_steps
    steps = total - saved.step
    if on_resume.choice == "rewarm":
        steps = min(max(as_steps(on_resume.duration, total, name="on_resume"), 1), steps)
    transition = ResumeTransition(on_resume.choice, saved.step, saved.rates, steps)  # type: ignore[arg-type]
    return GroupSchedule(requested.schedule, requested.peaks, transition)


def _rises_after(segment: Segment, step: int) -> bool:
    return (
        segment.kind in ("warmup", "restart")
        and segment.first + segment.steps - 1 > step
        and (segment.kind == "warmup" or segment.first > step)
    )


def _group_counts(saved: Saved, requested: GroupSchedule) -> str:
    return f"the checkpoint has {len(saved.rates)} parameter group(s), this run {len(requested.peaks)}"


def _report(saved: Saved, requested: GroupSchedule, name: str) -> str:
    """What changed, and the next learning rate under each choice, as two small tables."""
    choices = []
    for choice, meaning in CHOICES.items():
        obstacle = _obstacle(saved, requested, choice)
        if obstacle:
            choices.append((choice, "-", obstacle))
            continue
        group_schedule = _apply(saved, requested, OnResume(choice))
        rate = _numbers(group_schedule.rates(saved.step, saved.step + 1)[:, 0].tolist())
        steps = group_schedule.transition.steps if group_schedule.transition else 0
        choices.append((choice, rate, meaning.format(steps=f"{steps} step{'s' * (steps != 1)}")))
    return (
        f"the checkpoint, at step {saved.step}, was trained under another schedule.\n"
        f"{_table(_changes(saved, requested, name))}\n"
        f"The learning rate of the next step for each `on_resume` in `lr_scheduler_kwargs`:\n{_table(choices)}\n"
        "Or start a new run from the checkpoint's weights, without `resume_from_checkpoint`."
    )


def _changes(saved: Saved, requested: GroupSchedule, name: str) -> list[tuple[str, str, str]]:
    before = saved.group_schedule
    rows = [
        ("", "checkpoint", "this run"),
        ("schedule", saved.name, name),
        ("curve", str(before.schedule) if before else "not recorded", str(requested.schedule)),
        ("peak learning rate", _numbers(saved.peaks), _numbers(requested.peaks)),
        ("parameter groups", str(len(saved.peaks)), str(len(requested.peaks))),
        (
            "steps",
            str(before.schedule.num_training_steps) if before else "?",
            str(requested.schedule.num_training_steps),
        ),
    ]
    return [row for row in rows if row[1] != row[2]]


def _numbers(numbers: Sequence[float]) -> str:
    texts = [f"{number:.6g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
