"""Everything that the page shows, computed from the schedules and the run on it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import plotly.graph_objects as go

from hf_sched.audit.run_record import read_run
from hf_sched.designer.figure import Curve, Steps, draw, drawn_steps, step_size
from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import CHOICES, OnResume, Saved, resumed
from hf_sched.schedules import registry
from hf_sched.schedules.validation import ArgumentError

Design: TypeAlias = tuple[str, dict[str, Any]]
"""The name and the arguments of a schedule. Gradio notices changes of plain values only."""
Designs: TypeAlias = dict[int, Design]
"""The schedules on the page by their ids."""


@dataclass
class Page:
    """The contents of the page. Its texts are Markdown, and empty if there is nothing to say."""

    designs: Designs
    form: RunForm
    selected: int | None = None
    """The id of the design whose phases are shaded and that is copied; by default the first one."""
    axis: str = "Steps"
    run: Path | None = None
    """The folder of a past run to draw."""
    checkpoint: str | None = None
    """The name of a checkpoint of this run, to draw what a resume of it does."""
    schedule: NamedSchedule | None = field(init=False, default=None)
    """The selected schedule."""
    plan: Plan | None = field(init=False, default=None)
    """Its plan; None if the schedule is wrong."""
    curves: list[Curve] = field(init=False, default_factory=list)
    figure: go.Figure = field(init=False)
    problems: list[str] = field(init=False, default_factory=list)
    policies: list[tuple[str, str, str]] = field(init=False, default_factory=list)
    """Rows about a resume: `on_resume`, the next learning rate, and what it does."""

    def __post_init__(self) -> None:
        if self.selected not in self.designs:
            self.selected = next(iter(self.designs), None)
        for key, design in self.designs.items():
            schedule, label, plan = NamedSchedule(*design), label_of(*design), None
            with self._reported(label):
                plan = self._plan_of(schedule, label)
            if key == self.selected:
                self.schedule, self.plan = schedule, plan
        if self.plan:
            self._add_others(self.plan)
        if self.run and self.plan:
            with self._reported(f"{self.run}"):
                recorded = read_run(self.run).comparisons[0]
                label = f"{self.run.name} (actual)"
                self.curves.append(Curve(label, "run", recorded.steps, recorded.actual, self.plan))
                if self.checkpoint:
                    self._add_resumes(self.run / self.checkpoint, self.plan)
        for axis in (self.axis, "Steps"):
            with self._reported("axis"):
                self.figure = draw(self.curves, self.form, axis, self.plan)
                break

    @contextmanager
    def _reported(self, where: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.problems.append(f"**{where}**: {error}")

    def _plan_of(self, schedule: NamedSchedule, label: str) -> Plan:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plan = self.form.plan(schedule)
        self.problems += [f"**{label}**: {one.message}" for one in caught if one.category is UserWarning]
        if plan.curve is None:
            raise ArgumentError("learning_rate", rule=f"is unknown before the run: {schedule.name} follows a metric")
        steps = _steps_of(plan)
        self.curves.append(Curve(label, "plan" if plan.schedule else "transformers", steps, plan.curve[steps], plan))
        return plan

    def _add_others(self, plan: Plan) -> None:
        """Add the parameter groups and the other hyperparameters of a plan."""
        steps = _steps_of(plan)
        for group in plan.groups:
            if group.curve is not None:
                self.curves.append(Curve(group.pattern, "group", steps, group.curve[steps], plan))
        for name, values in plan.hyperparameter_curves.items():
            self.curves.append(Curve(name, "hyperparameter", steps, values[steps], plan))

    def _add_resumes(self, checkpoint: Path, plan: Plan) -> None:
        """Add what a resume of the checkpoint does under each `on_resume`. Groups keep their ratio to group 0."""
        if plan.schedule is None:
            rule = f"is drawn for schedules of hf_sched only, and {plan.schedule_name} is one of transformers"
            raise ArgumentError("on_resume", rule=rule)
        saved = Saved.load(checkpoint)
        peaks = tuple(peak * (self.form.learning_rate / saved.peaks[0]) for peak in saved.peaks)
        steps = drawn_steps(saved.step, max(plan.num_training_steps, saved.step + 1))
        for policy, meaning in CHOICES.items():
            try:
                chosen = resumed(saved, GroupSchedule(plan.schedule, peaks), plan.schedule_name, OnResume(policy))
            except ValueError as error:
                self.policies.append((f"`{policy}`", "not possible", f"{error}"))
                continue
            rates = chosen.rates(saved.step, int(steps[-1]) + 1, slice(1))[0][steps - saved.step]
            duration = chosen.transition.steps if chosen.transition else 0
            self.curves.append(Curve(f"on_resume: {policy}", "resume", steps, rates, plan))
            self.policies.append((f"`{policy}`", f"{rates[0]:.6g}", meaning.format(steps=f"{duration} steps")))

    @property
    def facts(self) -> str:
        """The run in one line."""
        if self.plan is None:
            return ""
        steps = self.plan.num_training_steps
        facts = [f"{steps:,} optimizer steps of {self.plan.effective_batch:,} samples"]
        for axis in ("Epochs", "Tokens", "Hours"):
            with suppress(ArgumentError):
                facts.append(f"{steps * step_size(axis, self.plan, self.form):.3g} {axis.lower()}")
        return " · ".join(facts)

    @property
    def table(self) -> str:
        """The figures of the planned curves."""
        rows = []
        for curve in self.curves:
            rates = curve.plan.curve
            if curve.kind in ("plan", "transformers") and rates is not None:
                peak = rates.max()
                numbers = (f"{number:.4g}" for number in (rates[0], peak, rates[-1], rates.sum()))
                shares = (f"{share:.1%}" for share in (rates.mean() / (peak or 1), (rates < 0.1 * peak).mean()))
                rows.append((curve.label, f"{len(rates):,}", *numbers, *shares))
        return table(
            ("curve", "steps", "step 0", "peak", "last step", "area", "mean / peak", "samples below 10%"), rows
        )

    @property
    def phases(self) -> str:
        """The selected schedule in the phase language, warmup included; empty for one of transformers."""
        if self.schedule is None or self.plan is None or self.plan.schedule is None:
            return ""
        run = self.plan.num_training_steps, self.plan.num_warmup_steps, dict(self.schedule.arguments)
        spec = registry.entry(self.schedule.name).spec(*run, self.plan.units)
        return re.sub(r"(\d)\.0(?=%|ep)", r"\1", str(spec))

    @property
    def snippets(self) -> str:
        """The selected schedule to copy: as YAML, flags and Python."""
        if self.schedule is None:
            return ""
        form, schedule = self.form, self.schedule
        texts = {"yaml": form.as_yaml(schedule), "bash": form.as_flags(schedule), "python": form.as_python(schedule)}
        return "\n\n".join(f"```{language}\n{text}\n```" for language, text in texts.items())


def _steps_of(plan: Plan) -> Steps:
    return drawn_steps(
        0, plan.num_training_steps, [one.first for one in plan.schedule.segments_in_run] if plan.schedule else []
    )


def requested(folder: Path) -> tuple[RunForm, Design]:
    """The run and the schedule that a past run last requested; raises a ValueError if the folder is not a run."""
    plan = read_run(folder).plans[-1]
    form = RunForm(learning_rate=plan.learning_rate, max_steps=plan.total, warmup_steps=plan.warmup)
    return form, (plan.name, dict(plan.arguments))


def label_of(name: str, arguments: Mapping[str, Any]) -> str:
    """The label of a design, such as `wsd:decay=10%`."""
    label = f"{name}:{','.join(f'{key}={value}' for key, value in arguments.items())}".removesuffix(":")
    if name == "phases":
        label = f"{arguments.get('phases')}"
    return label if len(label) <= 48 else f"{label[:47]}…"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; empty if it has no rows."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *cells)]
    return "\n".join(lines) if cells else ""
