"""The actual learning rates of a past run, and what a resume of it would do under each `on_resume`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hf_sched.audit.run_record import read_run
from hf_sched.designer.curves import Curve, drawn_steps
from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import CHOICES, OnResume, Saved, resumed


@dataclass(frozen=True)
class Resume:
    """A resume under one policy: `keep`, `replace`, `continue` or `rewarm`."""

    policy: str
    curve: Curve | None
    """The learning rates of group 0 from the checkpoint on; None if the policy is not possible."""
    outcome: str
    """What the policy does, or why it is not possible."""


def actual_curve(folder: Path, plan: Plan) -> Curve:
    """The actual learning rates of group 0; raises a ValueError if the folder is not a run that recorded them."""
    recorded = read_run(folder).comparisons[0]
    return Curve(f"{folder.name} (actual)", "run", recorded.steps, recorded.actual, plan)


def requested(folder: Path) -> tuple[RunForm, NamedSchedule]:
    """The run and the schedule that a past run last requested; raises a ValueError if the folder is not a run."""
    plan = read_run(folder).plans[-1]
    form = replace(RunForm(), learning_rate=plan.learning_rate, max_steps=plan.total, warmup_steps=plan.warmup)
    return form, NamedSchedule(plan.name, plan.arguments)


def checkpoints(folder: Path) -> list[str]:
    """The names of the checkpoints that hold a scheduler, in the order of their steps."""
    found = [path.parent.name for path in folder.glob("checkpoint-*/scheduler.pt")]
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]))


def resumes(checkpoint: Path, plan: Plan, learning_rate: float) -> list[Resume]:
    """What a resume of a checkpoint under a new plan does, for each policy.

    Args:
        checkpoint: A folder with `scheduler.pt`.
        plan: The plan of the new run.
        learning_rate: The new `learning_rate`. The other groups keep their ratio to group 0.
    """
    import torch

    saved = Saved.read(torch.load(checkpoint / "scheduler.pt", map_location="cpu", weights_only=True))
    if plan.schedule is None:
        return [Resume(policy, None, "needs a schedule of hf_sched in the new run") for policy in CHOICES]
    peaks = tuple(peak * (learning_rate / saved.peaks[0]) for peak in saved.peaks)
    steps = drawn_steps(saved.step, max(plan.num_training_steps, saved.step + 1))
    found = []
    for policy, meaning in CHOICES.items():
        try:
            chosen = resumed(saved, GroupSchedule(plan.schedule, peaks), plan.schedule_name, OnResume(policy))
        except ValueError as error:
            found.append(Resume(policy, None, f"{error}"))
            continue
        rates = chosen.rates(saved.step, int(steps[-1]) + 1, slice(1))[0][steps - saved.step]
        duration = chosen.transition.steps if chosen.transition else 0
        curve = Curve(f"on_resume: {policy}", "resume", steps, rates, plan)
        found.append(Resume(policy, curve, meaning.format(steps=f"{duration} steps")))
    return found
