"""Resuming: what a checkpoint records about the learning rate, and which one the next step has.

Another schedule than the checkpoint's is an error that shows every choice, unless `on_resume` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.schedules import schedule_text
from hf_sched.schedules.validation import Amount, ArgumentError, DurationReader, OneOf, as_steps

Row: TypeAlias = tuple[str, str, str]

CHOICES = {
    "keep": "continue on the checkpoint's curve and peaks",
    "replace": "use the new curve from this step on",
    "continue": "go from the current rate along the rest of the new curve to its end",
    "rewarm": "go from the current rate to the new curve within {steps}",
}


class ScheduleChanged(ValueError):
    """The checkpoint was trained under another schedule, and no possible `on_resume` is given.

    Args:
        message: The whole report.
        changes: What differs, as rows of name, checkpoint, this run; the first row is the header.
        choices: The choices of `on_resume`, as rows of name, next learning rate ("-" if impossible), meaning.
    """

    def __init__(self, message: str, changes: Sequence[Row], choices: Sequence[Row]) -> None:
        super().__init__(message)
        self.changes, self.choices = changes, choices


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

    @classmethod
    def load(cls, checkpoint: Path) -> Saved:
        """Read the `scheduler.pt` of a checkpoint; a ValueError says that it is damaged."""
        return cls.read(read_scheduler_state(checkpoint) or {}, str(checkpoint / "scheduler.pt"))

    @classmethod
    def read(cls, state: Mapping[str, Any], source: str = "the scheduler's state in the checkpoint") -> Saved:
        """Read the state of our scheduler and, as far as possible, of any other (the content of `scheduler.pt`).

        `source` names it in the error.

        Raises:
            ValueError: The state is damaged.
        """
        try:
            step = int(state["last_epoch"])
            if is_own_state(state):
                group_schedule = GroupSchedule.from_state(state)
                return cls(str(state["name"]), step, group_schedule.at(step), group_schedule.peaks, group_schedule)
            rates = tuple(map(float, state["_last_lr"]))
            peaks = tuple(map(float, state.get("base_lrs", rates)))
            return cls("a schedule outside hf_sched", step, rates, peaks, None)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"{source} is damaged ({why}): resume from another checkpoint") from None


def read_scheduler_state(checkpoint: Path) -> dict[str, Any] | None:
    """The content of `scheduler.pt` in a checkpoint folder; None if there is no such file.

    Raises:
        ValueError: The file is damaged or cannot be read.
    """
    path = checkpoint / "scheduler.pt"
    if not path.is_file():
        return None
    import torch  # takes seconds

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except Exception as error:  # a damaged file may fail anywhere in the unpickler
        why = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__  # the rest misleads
        raise ValueError(f"{path} is damaged ({why}): resume from another checkpoint") from None
    return state


def is_own_state(state: Mapping[str, Any]) -> bool:
    """Whether a `ScheduleLR` wrote the state."""
    return "schedule" in state


@dataclass(frozen=True)
class OnResume:
    """What to do if a checkpoint was trained under another schedule."""

    choice: str
    duration: int | Fraction | Amount = Fraction(2, 100)
    """The duration of `rewarm`."""

    @classmethod
    def parse(cls, value: object) -> OnResume:
        """Read `keep`, `replace`, `continue`, `rewarm`, or `rewarm 50` (or another duration)."""
        choice, _, duration = value.strip().partition(" ") if isinstance(value, str) else ("", "", "")
        if choice == "rewarm" and duration:
            return cls(choice, DurationReader(above_zero=True)("on_resume", duration))
        return cls(OneOf(tuple(CHOICES))("on_resume", value))


def read_schedule(args: Any) -> tuple[str, dict[str, Any]]:
    """The name of the schedule that `TrainingArguments` request, and its arguments with `on_resume`."""
    return schedule_text.read(args.lr_scheduler_type, args.lr_scheduler_kwargs)


def split_on_resume(kwargs: Mapping[str, Any] | None) -> tuple[OnResume | None, dict[str, Any]]:
    """Split `lr_scheduler_kwargs` into the choice and the arguments of the schedule."""
    others = dict(kwargs or {})
    choice = others.pop("on_resume", None)
    return (None if choice is None else OnResume.parse(choice)), others


def resumed(saved: Saved, requested: GroupSchedule, name: str, on_resume: OnResume | None) -> GroupSchedule:
    """The learning rates to continue with.

    Raises:
        ScheduleChanged: The schedule has changed, and `on_resume` is not given.
        ArgumentError: `on_resume` is not possible.
    """
    before = saved.group_schedule
    if before is not None and before.requests_same(requested):
        return before.in_run(requested.schedule.num_training_steps)  # including its transition or cooldown
    if on_resume is None:
        choices = [_row_of(choice, saved, requested) for choice in CHOICES]
        changes = _changes(saved, requested, name)
        raise ScheduleChanged(
            f"the checkpoint, at step {saved.step}, was trained under another schedule.\n"
            f"{_table(changes)}\n"
            f"The learning rate of the next step for each `on_resume` in `lr_scheduler_kwargs`:\n{_table(choices)}\n"
            "Or start a new run from the checkpoint's weights, without `resume_from_checkpoint`.",
            changes,
            choices,
        )
    chosen = _choose(saved, requested, on_resume)
    if isinstance(chosen, str):
        rule, hint = f"cannot be {on_resume.choice!r}: {chosen}", f"choose another of {', '.join(CHOICES)}"
        raise ArgumentError("on_resume", rule=rule, hint=hint)
    return chosen


def _choose(saved: Saved, requested: GroupSchedule, on_resume: OnResume) -> GroupSchedule | str:
    """The learning rates under a choice, or the reason why it is not possible."""
    choice, step, total = on_resume.choice, saved.step, requested.schedule.num_training_steps
    if choice == "replace":
        return requested
    if len(saved.rates) != len(requested.peaks):
        return f"the checkpoint has {len(saved.rates)} parameter group(s), this run {len(requested.peaks)}"
    if choice == "keep":
        return saved.group_schedule or f"the checkpoint does not hold the curve of {saved.name}"
    if total is not None and step >= total:
        return f"the run has {total} steps, all of which are done"
    if choice == "rewarm":
        if total is None and isinstance(on_resume.duration, Fraction):
            return "its duration is a share of a run whose length is unknown; write steps (`rewarm 50`)"
        steps = max(as_steps(on_resume.duration, total, name="on_resume"), 1)
        steps = steps if total is None else min(steps, total - step)
        return replace(requested, transition=ResumeTransition("rewarm", step, saved.rates, steps))
    if total is None:
        return "the run has no known end"
    schedules = [requested.schedule, *filter(None, requested.own)]
    for segment in [one for schedule in schedules for one in schedule.segments_in_run]:
        last = segment.first + segment.steps - 1
        if (segment.kind == "warmup" and last > step) or (segment.kind == "restart" and segment.first > step):
            return f"the new curve rises again in the {segment.kind} from step {max(segment.first, step)} on"
    return replace(requested, transition=ResumeTransition("continue", step, saved.rates, total - step))


def _row_of(choice: str, saved: Saved, requested: GroupSchedule) -> Row:
    chosen = _choose(saved, requested, OnResume(choice))
    if isinstance(chosen, str):
        return choice, "-", chosen
    steps = chosen.transition.steps if chosen.transition else 0
    meaning = CHOICES[choice].format(steps=f"{steps} step{'s' * (steps != 1)}")
    return choice, numbers_text(chosen.at(saved.step)), meaning


def _changes(saved: Saved, requested: GroupSchedule, name: str) -> list[Row]:
    old, new = saved.group_schedule and saved.group_schedule.schedule, requested.schedule
    rows = [
        ("", "checkpoint", "this run"),
        ("schedule", saved.name, name),
        ("curve", str(old or "not recorded"), str(new)),
        ("own curves", _own_text(saved.group_schedule), _own_text(requested)),
        ("peak learning rate", numbers_text(saved.peaks), numbers_text(requested.peaks)),
        ("parameter groups", str(len(saved.peaks)), str(len(requested.peaks))),
        ("steps", str(old.num_training_steps or "unknown") if old else "?", str(new.num_training_steps or "unknown")),
    ]
    return [row for row in rows if row[1] != row[2]]


def _own_text(group_schedule: GroupSchedule | None) -> str:
    own = group_schedule.own if group_schedule else ()
    return ", ".join(f"group {number}: {one}" for number, one in enumerate(own) if one) or "none"


def numbers_text(numbers: Sequence[float]) -> str:
    """The learning rates of the groups: one number if all are equal, and at most four."""
    texts = [f"{number:.6g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _table(rows: Sequence[Row]) -> str:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"  {a:{first}}  {b:{second}}  {c}" for a, b, c in rows)
