"""Resuming: is the schedule still the one of the checkpoint, and if not, which learning rate is the next step to have?

By default a change is an error that shows every possible answer; `on_resume` in `lr_scheduler_kwargs` gives one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.schedules.schedule import Segment
from hf_sched.schedules.validation import ArgumentError, DurationReader, Epochs, as_steps, did_you_mean, epochs_as_steps

CHOICES = {
    "keep": "the checkpoint's curve and peaks go on",
    "replace": "the new curve, from this step on",
    "continue": "from the present rate along the rest of the new curve, to its end",
    "rewarm": "from the present rate onto the new curve within {steps}",
}
# Of the run: how long `rewarm` takes where nobody says.
_REWARM = Fraction(2, 100)


@dataclass(frozen=True)
class OnResume:
    """What to do where a checkpoint was trained under another schedule."""

    choice: str
    duration: int | Fraction | Epochs = _REWARM
    """Of `rewarm`."""

    @classmethod
    def parse(cls, value: object) -> OnResume:
        """From text: `keep`, `replace`, `continue`, `rewarm`, or `rewarm 50` (or another duration)."""
        choice, *duration = (value.split() if isinstance(value, str) else []) or [""]
        if choice not in CHOICES or len(duration) > (choice == "rewarm"):
            raise ValueError(
                f"{ArgumentError('on_resume', 'one of ' + ', '.join(CHOICES), value)}{did_you_mean(value, CHOICES)}"
            )
        if not duration:
            return cls(choice)
        return cls(choice, DurationReader(above_zero=True)("on_resume", duration[0]))

    def in_steps(self, steps_per_epoch: float | None) -> OnResume:
        """The same with a duration in epochs turned into steps.

        Raises:
            EpochsUnknown: The duration is in epochs and `steps_per_epoch` is None.
        """
        if not isinstance(self.duration, Epochs):
            return self
        return OnResume(self.choice, epochs_as_steps("on_resume", self.duration, steps_per_epoch))


def split_on_resume(kwargs: Mapping[str, Any] | None) -> tuple[OnResume | None, dict[str, Any]]:
    """The choice in `lr_scheduler_kwargs`, and the other arguments, which are the schedule's."""
    others = dict(kwargs or {})
    choice = others.pop("on_resume", None)
    return (None if choice is None else OnResume.parse(choice)), others


@dataclass(frozen=True)
class Saved:
    """What a checkpoint knows of the learning rate."""

    name: str
    step: int
    """The optimizer step that comes next."""
    rates: tuple[float, ...]
    """Each group's learning rate at that step."""
    peaks: tuple[float, ...]
    group_schedule: GroupSchedule | None
    """None: it was a schedule that writes down no curve, one of transformers' own."""


def resumed(saved: Saved, requested: GroupSchedule, name: str, on_resume: OnResume | None) -> GroupSchedule:
    """The group_schedule to go on with.

    Raises:
        ValueError: The schedule is another one, and nobody chose what to do; or what was chosen cannot be done.
    """
    if saved.group_schedule is not None and (saved.group_schedule.requested, saved.group_schedule.peaks) == (
        requested.schedule,
        requested.peaks,
    ):
        return saved.group_schedule  # with its transition or its cooldown, if it has one
    if on_resume is None:
        raise ValueError(_report(saved, requested, name))
    return _joined(saved, requested, on_resume)


def check_groups(saved: Saved, requested: GroupSchedule, name: str) -> None:
    """Refuse a checkpoint of another number of parameter groups: the optimizer cannot load its state at all.

    Raises:
        ValueError: It has; the message shows what changed.
    """
    if len(saved.peaks) != len(requested.peaks):
        raise ValueError(
            f"{_other_groups(saved, requested)}, so that the optimizer cannot load the checkpoint's state, whatever "
            f"`on_resume` says. What changed:\n{_table(_changes(saved, requested, name))}\nGroup the parameters as the "
            "checkpoint's run did (they come from `weight_decay`, the model, `optimizers=` or `create_optimizer`), or "
            "start a new run from its weights, without `resume_from_checkpoint`."
        )


def _joined(saved: Saved, requested: GroupSchedule, on_resume: OnResume) -> GroupSchedule:
    if on_resume.choice == "keep":
        if saved.group_schedule is None:
            raise _impossible("keep", f"the checkpoint does not hold the curve of {saved.name}")
        if len(saved.peaks) != len(requested.peaks):
            raise _impossible("keep", _other_groups(saved, requested))
        return saved.group_schedule
    if on_resume.choice == "replace":
        return requested
    if len(saved.rates) != len(requested.peaks):
        raise _impossible(on_resume.choice, _other_groups(saved, requested))
    left = requested.schedule.num_training_steps - saved.step
    if left < 1:
        raise _impossible(
            on_resume.choice, f"the run has {requested.schedule.num_training_steps} steps, all of them done"
        )
    if on_resume.choice == "rewarm":
        steps = max(as_steps(on_resume.duration, requested.schedule.num_training_steps, name="on_resume"), 1)
        return GroupSchedule(
            requested.schedule, requested.peaks, ResumeTransition("rewarm", saved.step, saved.rates, min(steps, left))
        )
    rising = next((s for s in requested.schedule.segments if _rises_after(s, saved.step)), None)
    if rising is not None:
        raise _impossible(
            "continue", f"the new curve rises again in the {rising.kind} from step {max(rising.first, saved.step)} on"
        )
    return GroupSchedule(
        requested.schedule, requested.peaks, ResumeTransition("continue", saved.step, saved.rates, left)
    )


def _rises_after(segment: Segment, step: int) -> bool:
    return (
        segment.kind in ("warmup", "restart")
        and segment.first + segment.steps - 1 > step
        and (segment.kind == "warmup" or segment.first > step)
    )


def _other_groups(saved: Saved, requested: GroupSchedule) -> str:
    return f"the checkpoint has {len(saved.rates)} parameter group(s), this run {len(requested.peaks)}"


def _impossible(choice: str, why: str) -> ValueError:
    return ValueError(f"`on_resume: {choice}` cannot be: {why}. Choose another of {', '.join(CHOICES)}")


def _report(saved: Saved, requested: GroupSchedule, name: str) -> str:
    """What changed, and the next learning rate under each choice, as two small tables."""
    choices = []
    for choice, meaning in CHOICES.items():
        try:
            group_schedule = _joined(saved, requested, OnResume(choice))
            rate = _numbers(group_schedule.rates(saved.step, saved.step + 1)[:, 0].tolist())
            steps = group_schedule.transition.steps if group_schedule.transition else 0
            choices.append((choice, rate, meaning.format(steps=f"{steps} step{'s' * (steps != 1)}")))
        except ValueError as error:
            choices.append((choice, "-", str(error).split(" cannot be: ")[-1].split(". Choose")[0]))
    return (
        f"the checkpoint, at step {saved.step}, was trained under another schedule.\n"
        f"{_table(_changes(saved, requested, name))}\n"
        f"The learning rate of the next step, by what `on_resume` in `lr_scheduler_kwargs` says:\n{_table(choices)}\n"
        "Or start a new run from the checkpoint's weights, without `resume_from_checkpoint`."
    )


def _changes(saved: Saved, requested: GroupSchedule, name: str) -> list[tuple[str, str, str]]:
    was = saved.group_schedule
    facts = [
        ("", "the checkpoint", "this run"),
        ("schedule", saved.name, name),
        ("curve", str(was.schedule) if was else "not written down", str(requested.schedule)),
        ("peak learning rate", _numbers(saved.peaks), _numbers(requested.peaks)),
        ("parameter groups", str(len(saved.peaks)), str(len(requested.peaks))),
        ("steps", str(was.schedule.num_training_steps) if was else "?", str(requested.schedule.num_training_steps)),
    ]
    return [fact for fact in facts if fact[1] != fact[2]]


def _numbers(numbers: tuple[float, ...] | list[float]) -> str:
    texts = [f"{number:.6g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
