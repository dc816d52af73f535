"""The actual learning rates of a past run, and what a resume of it would do under each `on_resume`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_sched.audit.run_record import read_run
from hf_sched.designer.curves import Curve, Scale, drawn_steps
from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.scheduler.checkpoint_state import load_state
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import CHOICES, OnResume, resumed


@dataclass(frozen=True)
class Resume:
    """A resume under one policy."""

    policy: str
    """One of `keep`, `replace`, `continue` and `rewarm`."""
    curve: Curve | None
    """The learning rates of group 0 from the checkpoint on; None if the policy is not possible."""
    outcome: str
    """What the policy does, or why it is not possible."""


def actual_curve(folder: Path, scale: Scale) -> Curve:
    """The actual learning rates of group 0.

    Raises:
        ValueError: The folder is not a run, or it recorded no learning rate.
    """
    rates = read_run(folder).comparisons[0]
    return Curve(f"{folder.name} (actual)", "run", rates.steps, rates.actual, scale)


def requested(folder: Path) -> tuple[NamedSchedule, RunForm]:
    """The schedule that a run last requested, and the form for a run like it."""
    plan = read_run(folder).plans[-1]
    form = RunForm(learning_rate=plan.learning_rate, max_steps=plan.total, warmup_steps=plan.warmup)
    return NamedSchedule(plan.name, plan.arguments), form


def checkpoints(folder: Path) -> list[str]:
    """The names of the checkpoints that hold a scheduler, in the order of their steps."""
    found = [path.parent for path in folder.glob("checkpoint-*/scheduler.pt")]
    return [path.name for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))]


def resumes(checkpoint: Path, name: str, plan: Plan, learning_rate: float, scale: Scale) -> list[Resume]:
    """What a resume of a checkpoint under a planned schedule does, for each policy.

    Args:
        checkpoint: A folder with `scheduler.pt`.
        name: The new schedule.
        plan: The plan of the new run.
        learning_rate: The `learning_rate` of the new run. The other groups keep their ratio to group 0.
        scale: The scale of the curves.
    """
    saved = load_state(checkpoint)
    if plan.schedule is None:
        return [Resume(policy, None, f"needs a schedule of hf_sched, not transformers' {name}") for policy in CHOICES]
    factor = learning_rate / saved.peaks[0]
    new = GroupSchedule(plan.schedule, tuple(peak * factor for peak in saved.peaks))
    found = []
    for policy, meaning in CHOICES.items():
        try:
            chosen = resumed(saved, new, name, OnResume.parse(policy))
        except ValueError as error:
            found.append(Resume(policy, None, str(error)))
            continue
        stop = max(plan.num_training_steps, saved.step + 1)
        steps = saved.step + drawn_steps(stop - saved.step)
        rates = chosen.rates(saved.step, stop, slice(1))[0][steps - saved.step]
        lasts = chosen.transition.steps if chosen.transition else 0
        outcome = meaning.format(steps=f"{lasts} steps")
        curve = Curve(f"on_resume: {policy}", "resume", steps.astype(np.int64), rates, scale)
        found.append(Resume(policy, curve, outcome))
    return found
