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
        """One for each name and peak of parameter groups, then one for each scheduled hyperparameter."""
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
        record, plan = self.record, self.record.plans[-1]
        notes = []
        if start := record.plans[0].first:
            notes.append(f"the run started at step {start}, from a checkpoint: earlier steps are not audited")
        if record.steps_made < plan.total:
            notes.append(f"the run ends after {record.steps_made} of {plan.total} steps: it is audited up to there")
        rates = [one for one in self.comparisons if not one.is_hyperparameter]
        if all(np.isnan(one.planned).all() for one in rates):
            notes.append(f"{plan.name!r} follows a metric: there is no curve to compare with")
        elif any(np.isnan(one.planned).any() for one in rates):
            notes.append("a warmup by trust ratios is not compared: its rates depend on the gradients")
        notes += dict.fromkeys(str(plan.cooldown) for plan in record.plans if plan.cooldown)
        return notes + [f"resumed at step {step}" for step in record.resumes]

    def curve(self) -> Array:
        """The planned learning rate of the first groups at every step, float64 of shape (num_training_steps,).

        Raises:
            ValueError: The schedule follows a metric.
        """
        plans, groups = self.record.plans, self.comparisons[0]
        planned = planned_rates(plans, np.arange(plans[-1].total), groups.group, groups.peak)
        if np.isnan(planned).any():
            raise ValueError(f"{plans[-1].name!r} has no planned curve: it follows a metric")
        return planned

    @property
    def lines(self) -> list[str]:
        """The report as text."""
        record = self.record
        lines = [f"run                {self.folder}"]
        for plan in record.plans:
            since = f"from step {plan.first + 1} on: " if plan.first else ""
            lines.append(f"planned            {since}{plan} ({plan.source})")
        known = f"{len(self.comparisons[0].steps)} of {record.steps_made} steps"
        return [
            *lines,
            f"compared           {known}, of a run of {record.plans[-1].total} ({record.source})",
            f"largest deviation  {self.deviation:.3g}",
            *(f"note: {note}" for note in self.notes),
            *([f"- {finding}" for finding in self.findings] or ["The learning rates are the planned ones."]),
        ]

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
    findings = [finding for compared in record.comparisons for finding in _findings(record, compared)]
    return AuditReport(Path(run_dir), record, findings)


def _findings(record: Record, compared: Comparison) -> list[str]:
    """A finding for each plan that was not followed."""
    findings = []
    steps = compared.steps
    if compared.is_hyperparameter:
        off = steps[compared.is_off]
        rest = f"off its schedule at {len(off)} steps, the first of them step {off[0] + 1}" if len(off) else ""
        return [f"{compared.label}: {rest}. Likely cause: another component sets it."] if rest else []
    for number, plan in enumerate(record.plans):
        here = np.flatnonzero(in_force(record.plans, number, steps))
        off = here[compared.is_off[here]]
        if not len(off):
            continue
        here = here[: np.searchsorted(here, off[-1]) + 1]
        cause = cause_of(
            Departure(
                plan=plan,
                group=compared.group,
                peak=peak_under(plan, record.plans[0], compared.peak),
                steps=steps[here],
                actual=compared.actual[here],
                start=int(np.searchsorted(here, off[0])),
                other_plans=[other for other in record.plans if other != plan],
            )
        )
        why = f"Likely cause: {cause}" if cause else "No known cause fits: another component set the learning rate"
        worst = off[np.argmax(compared.differences[off])]
        findings.append(
            f"{compared.label}: off the plan from step {steps[off[0]] + 1} to {steps[off[-1]] + 1}, at most by "
            f"{compared.differences[worst]:.3g} (at step {steps[worst] + 1}, with {compared.actual[worst]:.6g} instead "
            f"of {compared.planned[worst]:.6g}). {why}."
        )
    return findings
