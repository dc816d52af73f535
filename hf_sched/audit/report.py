"""The audit of a run: its learning rates compared with the plan.

A run that was killed is audited up to its last recorded step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_sched.audit.causes import Departure, cause_of
from hf_sched.audit.planned import Array, in_force, peak_under, planned_rates
from hf_sched.audit.run_record import Comparison, Record, read_run


@dataclass(frozen=True)
class AuditReport:
    """The result of an audit."""

    folder: Path
    record: Record
    findings: list[str]
    """Each difference with its likely cause; empty if the rates are the planned ones."""

    @property
    def comparisons(self) -> list[Comparison]:
        """One for each name and peak of parameter groups."""
        return self.record.comparisons

    @property
    def ok(self) -> bool:
        """Whether the run trained as planned up to its last recorded step."""
        return not self.findings

    @property
    def deviation(self) -> float:
        """The largest difference between an actual and a planned learning rate."""
        return max(float(one.differences.max(initial=0.0)) for one in self.comparisons)

    @property
    def departs(self) -> int | None:
        """The first optimizer step, from 0, that is off the plan in any group."""
        return min((int(one.steps[one.is_off][0]) for one in self.comparisons if one.is_off.any()), default=None)

    @property
    def notes(self) -> list[str]:
        """What the audit could not compare, and what changed during the run."""
        record = self.record
        plan = record.plans[-1]
        notes = []
        if start := record.plans[0].first:
            notes.append(f"the run started at step {start}, from a checkpoint: earlier steps are not audited")
        if record.steps_made < plan.total:
            notes.append(f"the run ends after {record.steps_made} of {plan.total} steps: it is audited up to there")
        if all(np.isnan(one.planned).all() for one in self.comparisons):
            notes.append(f"{plan.name!r} follows a metric: there is no curve to compare with")
        elif any(np.isnan(one.planned).any() for one in self.comparisons):
            notes.append("a warmup by trust ratios is not compared: its rates depend on the gradients")
        notes += dict.fromkeys(str(plan.cooldown) for plan in record.plans if plan.cooldown)
        return notes + [f"resumed at step {step}" for step in record.resumes]

    def curve(self, label: str | None = None) -> Array:
        """The planned learning rate of every step of the run, float64 of shape (num_training_steps,).

        Args:
            label: The groups; the first by default.

        Raises:
            ValueError: The schedule follows a metric.
        """
        plans = self.record.plans
        groups = next(one for one in self.comparisons if label in (None, one.label))
        planned = planned_rates(plans, np.arange(plans[-1].total), groups.group, groups.peak)
        if np.isnan(planned).any():
            raise ValueError(f"{plans[-1].name!r} has no planned curve: it follows a metric")
        return planned

    @property
    def lines(self) -> list[str]:
        """The report as text."""
        record = self.record
        rows = [("run", str(self.folder))]
        for plan in record.plans:
            since = f"from step {plan.first + 1} on: " if plan.first else ""
            rows.append(("planned", f"{since}{plan} ({plan.source})"))
        known = f"{len(self.comparisons[0].steps)} of {record.steps_made} steps"
        rows.append(("compared", f"{known}, of a run of {record.plans[-1].total} ({record.source})"))
        rows.append(("largest deviation", f"{self.deviation:.3g}"))
        lines = [f"{name:17}  {value}" for name, value in rows] + [f"note: {note}" for note in self.notes]
        return lines + ([f"- {finding}" for finding in self.findings] or ["The learning rates are the planned ones."])

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values. Steps are numbered from 1, as in the log."""
        return {
            "run": str(self.folder),
            "ok": self.ok,
            "planned": [str(plan) for plan in self.record.plans],
            "source": self.record.source,
            "steps_made": self.record.steps_made,
            "num_training_steps": self.record.plans[-1].total,
            "deviation": self.deviation,
            "departs": None if self.departs is None else self.departs + 1,
            "findings": self.findings,
            "notes": self.notes,
        }

    def picture(self, path: str | Path) -> None:
        """Draw planned and actual rates, one panel for each name and peak of groups (four at most)."""
        from hf_sched.plots import figures as plotting

        shown, name = self.comparisons[:4], self.record.plans[-1].name
        figure, axes = plotting.new_figure(len(shown))
        for ax, one in zip(axes, shown, strict=True):
            plotting.draw_planned_and_actual(ax, self.curve(one.label), one.steps, one.actual, name=name)
            ax.set_title(one.label)
        figure.savefig(path)


def audit(run_dir: str | Path, config: str | Path | None = None) -> AuditReport:
    """Compare the learning rates of a run with the plan.

    Args:
        run_dir: The `output_dir` of a Trainer, finished or not, or one of its checkpoints.
        config: The run's YAML file, if it is to say what was requested instead of the files in the folder.

    Raises:
        ValueError: The folder holds no run, a file in it is damaged, or it does not say what was planned.

    Example:
        >>> print("\\n".join(audit("runs/sft").lines))
    """
    record = read_run(Path(run_dir), Path(config) if config else None)
    findings: list[str] = []
    causes: set[str] = set()
    for compared in record.comparisons:
        findings += _findings(record, compared, causes)
    if len(findings) > 4 and len(record.comparisons) > 4:
        findings = [*findings[:4], f"and {len(findings) - 4} more of other parameter groups"]
    return AuditReport(Path(run_dir), record, findings)


def _findings(record: Record, compared: Comparison, known: set[str]) -> list[str]:
    """A finding for each plan that was not followed. A cause in `known` is not repeated; new ones are added to it."""
    findings = []
    steps = compared.steps
    for number, plan in enumerate(record.plans):
        here = np.flatnonzero(in_force(record.plans, number, steps))
        off = here[compared.is_off[here]]
        if not len(off):
            continue
        here = here[: np.searchsorted(here, off[-1]) + 1]
        first, last = int(steps[off[0]]), int(steps[off[-1]])
        before = int(steps[off[0] - 1]) if off[0] else -1
        cause = cause_of(
            Departure(
                plan=plan,
                group=compared.group,
                peak=peak_under(plan, record.plans[0], compared.peak),
                steps=steps[here],
                actual=compared.actual[here],
                start=int(np.searchsorted(here, off[0])),
                resumed_at=next((step for step in record.resumes if before < step <= first), None),
                other_plans=[other for other in record.plans if other != plan],
            )
        )
        why = "No known cause fits: another component set the learning rate."
        if cause:
            why = f"Likely cause: {'the same' if cause in known else cause}."
            known.add(cause)
        worst = off[np.argmax(compared.differences[off])]
        where = f"at step {first + 1}" if first == last else f"from step {first + 1} to {last + 1}"
        findings.append(
            f"{compared.label}: off the plan {where}, at most by {compared.differences[worst]:.3g} (step "
            f"{steps[worst] + 1}: planned {compared.planned[worst]:.6g}, actual {compared.actual[worst]:.6g}). {why}"
        )
    return findings
