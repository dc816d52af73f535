"""Everything that the page shows, computed from the schedules and the run on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from hf_sched.designer import curves as figures
from hf_sched.designer.curves import Curve
from hf_sched.designer.figure import draw
from hf_sched.designer.other_programs import Pasted
from hf_sched.designer.past_run import Resume, actual_curve, resumes
from hf_sched.designer.run_form import RunForm
from hf_sched.designer.snippets import as_phases
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule

Design = dict[str, Any]
"""A schedule on the page: its `id`, its `name` and its `arguments`. Gradio notices changes of plain values only."""


@dataclass
class Page:
    """The contents of the page. Its texts are Markdown, and empty if there is nothing to say."""

    designs: Sequence[Design]
    form: RunForm
    selected: int | None = None
    """The id of the design whose phases are shaded and that is copied; by default that of the first one."""
    axis: str = "Steps"
    """One of `hf_sched.designer.curves.AXES`."""
    logarithmic: bool = False
    """Whether the learning rate has a logarithmic axis."""
    pasted: Pasted | None = None
    """A configuration to draw beside the designs."""
    run: Path | None = None
    """The folder of a past run to draw."""
    checkpoint: str | None = None
    """The name of a checkpoint of this run, to draw what a resume of it does."""
    figure: go.Figure = field(init=False)
    curves: list[Curve] = field(init=False, default_factory=list)
    problems: list[str] = field(init=False, default_factory=list)
    plan: Plan | None = field(init=False, default=None)
    """The plan of the selected design; None if it is wrong."""
    policies: list[Resume] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        chosen = find_design(self.designs, self.selected)
        selected_curve: Curve | None = None
        for design, label in zip(self.designs, labels_of(self.designs), strict=True):
            with self._reported(label):
                curve = self._planned(label, named(design))
                self.curves.append(curve)
                selected_curve = curve if design is chosen else selected_curve
        self.plan = selected_curve.plan if selected_curve else None
        if self.pasted and self.pasted.plan:
            with self._reported("configuration"):
                label = f"configuration ({self.pasted.program})"
                self.curves.append(Curve.planned(label, "configuration", self.pasted.plan))
        if self.run and self.plan:
            with self._reported(f"{self.run}"):
                self.curves.append(actual_curve(self.run, self.plan))
                if self.checkpoint:
                    self.policies = resumes(self.run / self.checkpoint, self.plan, self.form.learning_rate)
                    self.curves += [policy.curve for policy in self.policies if policy.curve]
        for axis in (self.axis, "Steps"):
            with self._reported("axis"):
                self.figure = draw(self.curves, self.form, axis, selected_curve, logarithmic=self.logarithmic)
                break

    def _planned(self, label: str, schedule: NamedSchedule) -> Curve:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plan = self.form.plan(schedule)
        self.problems += [f"**{label}**: {one.message}" for one in caught if one.category is UserWarning]
        return Curve.planned(label, "hf_sched" if plan.schedule else "transformers", plan)

    @contextmanager
    def _reported(self, where: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            text = f"{error}"
            self.problems.append(f"**{where}**: {text}" if "\n" not in text else f"**{where}**:\n```\n{text}\n```")

    @property
    def facts(self) -> str:
        """The run in one line."""
        if self.plan is None:
            return ""
        steps, batch = self.plan.num_training_steps, self.plan.effective_batch
        facts = [f"{steps:,} optimizer steps", f"{batch:,} samples per step"]
        if self.plan.epochs is not None:
            facts.append(f"{self.plan.epochs:.3g} epochs of {self.plan.steps_per_epoch:,} steps")
        if self.form.tokens_per_sample:
            facts.append(f"{self.form.tokens_per_sample * batch * steps:.3g} tokens")
        if self.form.seconds_per_step:
            facts.append(f"{self.form.seconds_per_step * steps / 3600:.3g} hours")
        return " · ".join(facts)

    @property
    def table(self) -> str:
        """The figures of the planned curves."""
        rows = []
        for curve in self.curves:
            plan = curve.plan
            if curve.source not in ("run", "resume"):
                rates = (f"{rate:.4g}" for rate in (plan.first_lr, plan.peak_lr, plan.last_lr, figures.area(plan)))
                mean = figures.area(plan) / plan.num_training_steps / plan.peak_lr if plan.peak_lr else 0
                shares = f"{mean:.1%}", f"{figures.share_below_tenth(plan):.1%}"
                rows.append((_escaped(curve.label), f"{plan.num_training_steps:,}", *rates, *shares))
        headers = ("curve", "steps", "step 0", "peak", "last step", "area", "mean / peak", "samples below 10%")
        return _table(headers, rows)

    @property
    def policies_table(self) -> str:
        """What a resume does under each policy."""
        rows = []
        for one in self.policies:
            rate = f"{one.curve.rates[0]:.6g}" if one.curve else "not possible"
            rows.append((f"`{one.policy}`", rate, _escaped(one.outcome)))
        return _table(("on_resume", "next learning rate", ""), rows)

    @property
    def phases(self) -> str:
        """The selected design in the phase language; empty for transformers' own schedules."""
        chosen = find_design(self.designs, self.selected)
        return (as_phases(named(chosen), self.plan) or "") if chosen and self.plan else ""


def named(design: Design) -> NamedSchedule:
    """The schedule of a design."""
    return NamedSchedule(design["name"], design["arguments"])


def find_design(designs: Sequence[Design], selected: int | None) -> Design | None:
    """The design with an id, else the first one, if there is any."""
    return next((one for one in designs if one["id"] == selected), next(iter(designs), None))


def labels_of(designs: Sequence[Design]) -> list[str]:
    """The label of each design, such as `wsd:decay=10%`. Equal ones are numbered."""
    found: list[str] = []
    for design in designs:
        arguments = ",".join(f"{key}={value}" for key, value in design["arguments"].items())
        label = f"{design['name']}:{arguments}" if arguments else design["name"]
        if design["name"] == "phases":
            label = f"{design['arguments'].get('phases')}"
        label = label if len(label) <= 48 else f"{label[:47]}…"
        count = sum(other.partition(" (")[0] == label for other in found)
        found.append(f"{label} ({count + 1})" if count else label)
    return found


def findings_text(pasted: Pasted) -> str:
    """What `hf-sched check` finds in a configuration."""
    report = pasted.report
    rows = [(f"{f.line or ''}", f.severity, f"`{f.key or '-'}`", _escaped(f.message)) for f in report.findings]
    notes = [*report.not_judged, *(pasted.plan.notes if pasted.plan else ())]
    counts = f"{len(report.errors) or 'no'} errors, {len(report.findings) - len(report.errors) or 'no'} warnings"
    paragraphs = [f"Read as **{pasted.program}**: {counts}.", _table(("line", "", "key", ""), rows), *notes]
    if pasted.problem:
        paragraphs.insert(1, f"There is no curve: {pasted.problem}.")
    return "\n\n".join(filter(None, paragraphs))


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *rows)]
    return "\n".join(lines) if len(lines) > 2 else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
