"""The audit of a run: its learning rates compared with the plan.

    report = audit("runs/sft")
    print("\\n".join(report.lines))

The plan and the rates are read from the run's folder (`run_record`). Where they differ, the audit looks for the likely
cause (`causes`). A run that was killed is audited up to its last recorded step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.audit.causes import Departure, cause_of
from hf_sched.audit.planned import Array, Steps
from hf_sched.audit.run_record import Record, Series, read_run

# A share of the peak. Two ways to compute one formula differ by about 1e-16 of it.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Planned and actual learning rates of the parameter groups of one name and peak."""

    label: str
    steps: Steps
    """The optimizer steps, from 0, whose rates are known."""
    planned: Array
    """NaN where the plan has no rate."""
    actual: Array

    @cached_property
    def differences(self) -> Array:
        """The absolute differences; 0 where the plan has no rate."""
        return np.nan_to_num(np.abs(self.actual - self.planned))

    @cached_property
    def highest(self) -> float:
        """The highest planned rate."""
        return float(np.nanmax(np.abs(np.append(self.planned, 0.0))))

    @cached_property
    def is_off(self) -> npt.NDArray[np.bool_]:
        """Which steps are off the plan."""
        return self.differences > _TOLERANCE * self.highest

    @property
    def departs(self) -> int | None:
        """The first optimizer step, from 0, that is off the plan."""
        off = np.flatnonzero(self.is_off)
        return int(self.steps[off[0]]) if len(off) else None


@dataclass(frozen=True)
class AuditReport:
    """The result of an audit."""

    folder: Path
    record: Record
    comparisons: list[Comparison]
    """One for each name and peak of parameter groups."""
    findings: list[str]
    """Each difference with its likely cause; empty if the rates are the planned ones."""
    notes: list[str]

    @property
    def ok(self) -> bool:
        """Whether the run trained as planned up to its last recorded step."""
        return not self.findings

    @property
    def deviation(self) -> float:
        """The largest difference between an actual and a planned learning rate."""
        return max((float(one.differences.max(initial=0.0)) for one in self.comparisons), default=0.0)

    @property
    def relative_deviation(self) -> float:
        """The largest difference as a share of the groups' highest planned rate."""
        worst = [(float(one.differences.max(initial=0.0)), one.highest) for one in self.comparisons]
        return max((most / highest if highest else float(most > 0) for most, highest in worst), default=0.0)

    @property
    def departs(self) -> int | None:
        """The first optimizer step, from 0, that is off the plan in any group."""
        return min((one.departs for one in self.comparisons if one.departs is not None), default=None)

    def curve(self, label: str | None = None) -> Array:
        """The planned learning rate of every step of the run, float64 of shape (num_training_steps,).

        Args:
            label: The groups; the first by default.

        Raises:
            ValueError: The schedule follows a metric.
        """
        series = next(one for one in self.record.series if label in (None, one.label))
        planned = _planned(self.record, series, np.arange(self.record.plans[-1].total))
        if np.isnan(planned).any():
            raise ValueError(f"{self.record.plans[-1].name!r} has no planned curve: it follows a metric")
        return planned

    @property
    def lines(self) -> list[str]:
        """The report as text."""
        record = self.record
        of_run = f"of a run of {record.plans[-1].total} ({record.source})"
        rows = [("run", str(self.folder))]
        for plan in record.plans:
            since = f"from step {plan.first + 1} on: " if plan.first else ""
            rows.append(("planned", f"{since}{plan} ({plan.source})"))
        rows.append(("compared", f"{len(self.comparisons[0].steps)} of {record.steps_made} steps, {of_run}"))
        if len(self.comparisons) > 1:
            rows.append(("groups", ", ".join(one.label for one in self.comparisons)))
        rows.append(("largest deviation", f"{self.deviation:.3g}, which is {self.relative_deviation:.2g} of the peak"))
        if self.departs is not None:
            rows.append(("departs at", f"step {self.departs + 1}"))
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
            "relative_deviation": self.relative_deviation,
            "departs": None if self.departs is None else self.departs + 1,
            "findings": self.findings,
            "notes": self.notes,
        }

    def picture(self, path: str | Path) -> None:
        """Draw planned and actual rates, one panel for each name and peak of groups (four at most)."""
        from hf_sched.plots import figures as plotting

        shown = self.comparisons[:4]
        figure, axes = plotting.new_figure(len(shown))
        for ax, one in zip(axes, shown, strict=True):
            plotting.draw_planned_and_actual(
                ax, self.curve(one.label), one.steps, one.actual, name=self.record.plans[-1].name
            )
            ax.set_title(one.label)
        figure.savefig(path)


def audit(run_dir: str | Path, config: str | Path | None = None) -> AuditReport:
    """Compare the learning rates of a run with the plan.

    Args:
        run_dir: The `output_dir` of a Trainer, finished or not, or one of its checkpoints.
        config: The run's YAML file, if it is to say what was requested instead of the files in the folder.

    Raises:
        ValueError: The folder holds no run, a file in it is damaged, or nothing in it says what was requested.
    """
    record = read_run(Path(run_dir), Path(config) if config else None)
    comparisons: list[Comparison] = []
    findings: list[str] = []
    causes: set[str] = set()
    for series in record.series:
        planned = _planned(record, series, series.steps)
        is_least = np.abs(series.least - planned) > np.abs(series.rates - planned)
        actual = np.where(is_least, series.least, series.rates)
        comparisons.append(Comparison(series.label, series.steps, planned, actual))
        findings += _findings(record, series, comparisons[-1], causes)
    if len(findings) > 4 and len(comparisons) > 4:
        findings = [*findings[:4], f"and {len(findings) - 4} more of other parameter groups"]
    return AuditReport(Path(run_dir), record, comparisons, findings, _notes(record, comparisons))


def _planned(record: Record, series: Series, steps: Steps) -> Array:
    """The rates of the plans in force at the steps; NaN where a plan has none."""
    planned = np.full(len(steps), np.nan)
    for number, plan in enumerate(record.plans):
        here = record.in_force(number, steps)
        rates = plan.rates(steps[here], group=series.group, peak=record.peak(series, plan)) if here.any() else None
        if rates is not None:
            planned[here] = rates
            for segment in plan.schedule.segments if plan.schedule else ():
                if segment.trust_coefficient is not None:  # trust ratios depend on the gradients
                    planned[here & (steps >= segment.first) & (steps < segment.first + segment.steps)] = np.nan
    return planned


def _findings(record: Record, series: Series, compared: Comparison, known: set[str]) -> list[str]:
    """A finding for each plan that was not followed. A cause in `known` is not repeated; new ones are added to it."""
    findings = []
    for number, plan in enumerate(record.plans):
        here = np.flatnonzero(record.in_force(number, compared.steps))
        off = here[compared.is_off[here]]
        if not len(off):
            continue
        here = here[: np.searchsorted(here, off[-1]) + 1]
        first, last = int(compared.steps[off[0]]), int(compared.steps[off[-1]])
        after = int(compared.steps[off[0] - 1]) if off[0] else -1
        at = Departure(
            plan=plan,
            group=series.group,
            peak=record.peak(series, plan),
            steps=compared.steps[here],
            actual=compared.actual[here],
            start=int(np.searchsorted(here, off[0])),
            resumed_at=next((step for step in record.resumes if after < step <= first), None),
            other_plans=[other for other in record.plans if other != plan],
        )
        cause = cause_of(at)
        checkpoint = f" (at step {at.resumed_at} there is a checkpoint)" if at.resumed_at else ""
        why = f"No known cause fits{checkpoint}: another component set the learning rate."
        if cause:
            why = f"Likely cause: {'the same' if cause in known else cause}."
            known.add(cause)
        worst = off[np.argmax(compared.differences[off])]
        where = f"at step {first + 1}" if first == last else f"from step {first + 1} to {last + 1}"
        findings.append(
            f"{compared.label}: off the plan {where}, at most by {compared.differences[worst]:.3g} "
            f"(step {compared.steps[worst] + 1}: planned "
            f"{compared.planned[worst]:.6g}, actual {compared.actual[worst]:.6g}). {why}"
        )
    return findings


def _notes(record: Record, comparisons: list[Comparison]) -> list[str]:
    notes = list(record.notes)
    plan = record.plans[-1]
    if record.steps_made < plan.total:
        notes.append(f"the run ends after {record.steps_made} of {plan.total} steps: it is audited up to there")
    if all(np.isnan(one.planned).all() for one in comparisons):
        notes.append(f"{plan.name!r} follows a metric: there is no curve to compare with")
    elif any(np.isnan(one.planned).any() for one in comparisons):
        notes.append("a warmup by trust ratios is not compared: its rates depend on the gradients")
    notes += dict.fromkeys(str(plan.cooldown) for plan in record.plans if plan.cooldown)
    if record.source != "trainer_state.json":
        notes += [f"resumed at step {step}" for step in record.resumes]
    return notes
