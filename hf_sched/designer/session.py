"""The state of one browser page, and everything that the page shows for it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from hf_sched.designer.curves import Curve, Figures, Scale
from hf_sched.designer.figure import draw
from hf_sched.designer.other_programs import Pasted
from hf_sched.designer.past_run import Resume, actual_curve, resumes
from hf_sched.designer.run_form import RunForm
from hf_sched.designer.snippets import as_flags, as_phases, as_python, as_yaml
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule

Design = dict[str, Any]
"""A schedule on the page: its `id`, its `name` and its `arguments`. Gradio detects changes of plain values only."""


@dataclass(frozen=True)
class View:
    """What the page shows."""

    figure: go.Figure
    facts: str
    """The run in one line of Markdown."""
    problems: str
    """What is wrong, as Markdown; empty if nothing is."""
    table: str
    """The figures of all curves, as HTML."""
    phases: str | None
    """The selected schedule in the phase language; empty for transformers' own, None if it consists of its text."""
    snippets: dict[str, str]
    """The selected schedule as `yaml`, `flags`, `python` and `phases`."""
    resumes: str
    """What a resume does under each policy, as Markdown."""


@dataclass
class _Problems:
    lines: list[str] = field(default_factory=list)

    def add(self, where: str, what: object) -> None:
        text = str(what)
        line = f"**{where}**: {text}" if "\n" not in text else f"**{where}**:\n```\n{text}\n```"
        if line not in self.lines:
            self.lines.append(line)


def named(design: Design) -> NamedSchedule:
    """The schedule of a design."""
    return NamedSchedule(design["name"], design["arguments"])


def labels_of(designs: Sequence[Design]) -> list[str]:
    """The label of each design, such as `wsd:decay=10%`. Equal ones are numbered."""
    found: list[str] = []
    for design in designs:
        arguments = ",".join(f"{key}={value}" for key, value in design["arguments"].items())
        label = f"{design['name']}:{arguments}" if arguments else design["name"]
        if design["name"] == "phases":
            label = str(design["arguments"].get("phases"))
        label = label if len(label) <= 48 else f"{label[:47]}…"
        count = sum(other.partition(" (")[0] == label for other in found)
        found.append(f"{label} ({count + 1})" if count else label)
    return found


def view(
    designs: Sequence[Design],
    form: RunForm,
    *,
    selected: int | None = None,
    axis: str = "Steps",
    logarithmic: bool = False,
    pasted: Pasted | None = None,
    run: Path | None = None,
    checkpoint: str | None = None,
) -> View:
    """Compute what the page shows.

    Args:
        designs: The schedules on the page.
        form: Their run.
        selected: The id of the design whose phases are shaded and which is copied; None for the first one.
        axis: One of `hf_sched.designer.curves.AXES`.
        logarithmic: Whether the learning rate has a logarithmic axis.
        pasted: A configuration to draw beside them.
        run: The folder of a past run to draw.
        checkpoint: The name of a checkpoint of this run, to draw what a resume of it would do.
    """
    problems, curves = _Problems(), []
    chosen = next((design for design in designs if design["id"] == selected), designs[0] if designs else None)
    chosen_curve: Curve | None = None
    for design, label in zip(designs, labels_of(designs), strict=True):
        curve = _planned(label, named(design), form, problems)
        if curve is not None:
            curves.append(curve)
            chosen_curve = curve if design is chosen else chosen_curve
    if pasted is not None and pasted.plan is not None:
        with _reported(problems, "configuration"):
            curves.append(Curve.planned(f"configuration ({pasted.program})", "configuration", pasted.plan, form))
    plan = chosen_curve.plan if chosen_curve else None
    policies: list[Resume] = []
    if run is not None:
        with _reported(problems, str(run)):
            scale = Scale.of(plan, form) if plan else Scale()
            curves.append(actual_curve(run, scale))
            if checkpoint and plan:
                policies = resumes(run / checkpoint, plan.schedule_name, plan, form.learning_rate, scale)
                curves += [policy.curve for policy in policies if policy.curve]
    figure = go.Figure()
    try:
        figure = draw(curves, axis, chosen_curve, logarithmic=logarithmic)
    except ValueError as error:
        problems.add("axis", error)
        figure = draw(curves, "Steps", chosen_curve, logarithmic=logarithmic)
    phases, snippets = _texts(chosen, plan, form)
    return View(
        figure,
        _facts(plan, form) if plan else "",
        "\n\n".join(problems.lines),
        _table([curve for curve in curves if curve.plan]),
        phases,
        snippets,
        _policies(policies, checkpoint),
    )


class _reported(suppress):
    """Turns a ValueError in its block into a problem."""

    def __init__(self, problems: _Problems, where: str) -> None:
        super().__init__(ValueError)
        self._problems, self._where = problems, where

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        if isinstance(error, ValueError):
            self._problems.add(self._where, error)
        return super().__exit__(kind, error, traceback)


def _planned(label: str, schedule: NamedSchedule, form: RunForm, problems: _Problems) -> Curve | None:
    with _reported(problems, label), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = form.plan(schedule)
        for warning in caught:
            if warning.category is UserWarning:
                problems.add(label, warning.message)
        return Curve.planned(label, "hf_sched" if schedule.is_ours else "transformers", plan, form)
    return None


def _texts(design: Design | None, plan: Plan | None, form: RunForm) -> tuple[str | None, dict[str, str]]:
    if design is None:
        return "", {}
    schedule = named(design)
    phases = plan and as_phases(schedule, plan)
    snippets = {
        "yaml": as_yaml(form, schedule),
        "flags": as_flags(form, schedule),
        "python": as_python(form, schedule),
        "phases": phases or "",
    }
    # What somebody is typing stays as it is.
    return None if schedule.name == "phases" else phases or "", snippets


def _facts(plan: Plan, form: RunForm) -> str:
    facts = [f"{plan.num_training_steps:,} optimizer steps", f"{plan.effective_batch:,} samples per step"]
    if plan.epochs is not None and plan.steps_per_epoch:
        facts.append(f"{plan.epochs:.3g} epochs of {plan.steps_per_epoch:,} steps")
    if form.tokens_per_sample:
        facts.append(f"{form.tokens_per_sample * plan.effective_batch * plan.num_training_steps:.3g} tokens")
    if form.seconds_per_step:
        facts.append(f"{form.seconds_per_step * plan.num_training_steps / 3600:.3g} hours")
    return " · ".join(facts)


_COLUMNS = {
    "curve": "",
    "steps": "Optimizer steps, and how many of them are the Trainer's warmup",
    "first step": "The learning rate that step 0 trains at",
    "peak": "The highest learning rate",
    "last step": "The learning rate that the last step trains at",
    "area": "The sum of the learning rates of all steps",
    "mean / peak": "The mean learning rate as a share of the peak",
    "samples below 10%": "The share of the training samples that are trained below 10% of the peak",
}


def _table(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    head = "".join(f'<th title="{escape(title)}">{name}</th>' for name, title in _COLUMNS.items())
    rows = []
    for curve in curves:
        plan = curve.plan
        assert plan is not None
        figures = Figures.of(plan)
        rates = [f'<td title="{rate!r}">{rate:.4g}</td>' for rate in (plan.first_lr, plan.peak_lr, plan.last_lr)]
        warmup = f" ({plan.num_warmup_steps:,} warmup)" if plan.num_warmup_steps else ""
        cells = [
            f"<td>{escape(curve.label)}</td><td>{plan.num_training_steps:,}{warmup}</td>",
            *rates,
            f'<td title="{figures.area!r}">{figures.area:.4g}</td>',
            f"<td>{figures.mean_share:.1%}</td><td>{figures.share_below_tenth:.1%}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _policies(policies: Sequence[Resume], checkpoint: str | None) -> str:
    if not policies:
        return ""
    rows = [f"After a resume of `{checkpoint}` under the selected schedule:\n"]
    rows += ["| `on_resume` | next learning rate | then |", "|---|---|---|"]
    for policy in policies:
        rate = f"{policy.curve.rates[0]:.6g}" if policy.curve else "not possible"
        rows.append(f"| `{policy.policy}` | {rate} | {policy.outcome.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)
