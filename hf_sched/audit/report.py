"""The audit of a run: the learning rates it was to have, against those it had.

    report = audit(Path("runs/sft"))
    print("\\n".join(report.lines))

What was planned is read from the run's folder, as is what was done (`run_plan`); where the two part, the likely cause
is looked for (`causes`). A run that was killed is audited as far as it went.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.audit.causes import Departure, cause_of
from hf_sched.audit.run_plan import Plan, Record, Series, read_run, trusted

Array = npt.NDArray[np.float64]

# Of the peak: what counts as no deviation. Two ways of computing one formula differ by 1e-16 of it.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Plan and run of one kind of parameter groups."""

    label: str
    steps: npt.NDArray[np.int64]
    """The optimizer steps, from 0, whose rates are known."""
    planned: Array
    """Their rates by the plan; NaN where it has none."""
    actual: Array
    """Their rates in the run."""

    @property
    def differences(self) -> Array:
        """How far each is off the plan, in size; 0 where there is none."""
        return np.nan_to_num(np.abs(self.actual - self.planned))

    @property
    def close(self) -> float:
        """The difference that counts as none."""
        return float(_TOLERANCE * np.nanmax(np.abs(np.append(self.planned, 0.0))))

    @property
    def departs(self) -> int | None:
        """The first optimizer step, from 0, that is off the plan."""
        off = np.flatnonzero(self.differences > self.close)
        return int(self.steps[off[0]]) if len(off) else None


@dataclass(frozen=True)
class AuditReport:
    """What an audit found."""

    folder: Path
    record: Record
    comparisons: list[Comparison]
    """One for each kind of parameter groups."""
    findings: list[str]
    """What is wrong, and why; empty if nothing is."""
    notes: list[str]
    """What else there is to know."""

    @property
    def ok(self) -> bool:
        """Whether the run trained as planned, as far as it went."""
        return not self.findings

    @property
    def deviation(self) -> float:
        """The largest difference between a learning rate and the plan's."""
        return max((float(one.differences.max(initial=0.0)) for one in self.comparisons), default=0.0)

    @property
    def relative_deviation(self) -> float:
        """The same as a share of the peak of its groups."""
        shares = []
        for one in self.comparisons:
            peak = float(np.nanmax(np.append(one.planned, 0.0)))
            worst = float(one.differences.max(initial=0.0))
            shares.append(worst / peak if peak else float(worst > 0))
        return max(shares, default=0.0)

    @property
    def departs(self) -> int | None:
        """The first optimizer step, from 0, that is off the plan, in any group."""
        found = [one.departs for one in self.comparisons if one.departs is not None]
        return min(found) if found else None

    def curve(self, label: str | None = None) -> Array:
        """The planned learning rate of every step of the run, float64 of shape (num_training_steps,).

        Args:
            label: Of the groups; by default the first.

        Raises:
            ValueError: The schedule follows a metric, or cannot be made.
        """
        series = next(one for one in self.record.series if label in (None, one.label))
        planned = _planned(self.record, series, np.arange(self.record.plans[-1].total))
        if np.isnan(planned).any():
            raise ValueError(f"{self.record.plans[-1].name!r} has no planned curve: it follows a metric")
        return planned

    @property
    def table(self) -> list[tuple[str, str]]:
        """The figures, by their names."""
        record = self.record
        known = sum(len(one.steps) for one in self.comparisons[:1])
        rows = [("run", str(self.folder))]
        for plan in record.plans:
            since = f"from step {plan.first + 1} on: " if plan.first else ""
            rows.append(("planned", f"{since}{plan} ({plan.known_from})"))
        rows.append(
            (
                "compared",
                f"{known} of {record.steps_made} steps, of a run of {record.plans[-1].total} ({record.source})",
            )
        )
        if len(self.comparisons) > 1:
            rows.append(("groups", ", ".join(one.label for one in self.comparisons)))
        rows.append(("largest deviation", f"{self.deviation:.3g}, which is {self.relative_deviation:.2g} of the peak"))
        if self.departs is not None:
            rows.append(("departs at", f"step {self.departs + 1}"))
        return rows

    @property
    def lines(self) -> list[str]:
        """All of it as text."""
        width = max(len(name) for name, _ in self.table)
        lines = [f"{name.ljust(width)}  {value}" for name, value in self.table]
        lines += [f"note: {note}" for note in self.notes]
        return lines + ([f"- {finding}" for finding in self.findings] or ["The learning rates are the planned ones."])

    def as_dict(self) -> dict[str, Any]:
        """The same for machines; steps are numbered as in the log, from 1."""
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
        """Write a picture of plan and run, a panel for each kind of parameter groups (four at most)."""
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
        config: The YAML file it was started with, if that is to say what was planned, and not what the run left behind.

    Raises:
        ValueError: It is no such folder, a file in it is damaged, or nothing in it says what was planned.
    """
    folder = Path(run_dir)
    record = read_run(folder, Path(config) if config else None)
    comparisons, findings, causes = [], [], set[str]()
    for series in record.series:
        planned = _planned(record, series, series.steps)
        most, least = np.abs(series.rates - planned), np.abs(series.least - planned)
        actual = np.where(least > most, series.least, series.rates)
        comparison = Comparison(series.label, series.steps, planned, actual)
        comparisons.append(comparison)
        findings += _findings(record, series, comparison, causes)
    notes = [*record.notes, *_notes(record, comparisons)]
    return AuditReport(folder, record, comparisons, _of_all_groups(findings, comparisons), notes)


def _planned(record: Record, series: Series, steps: npt.NDArray[np.int64]) -> Array:
    """The rates of a kind of groups by the plans in force at the steps; NaN where a curve does not tell."""
    planned = np.full(len(steps), np.nan)
    for number, plan in enumerate(record.plans):
        until = record.plans[number + 1].first if number + 1 < len(record.plans) else np.inf
        here = (steps < until) & ((steps >= plan.first) | (number == 0))
        if not here.any():
            continue
        rates = plan.rates(steps[here], group=series.group, peak=record.peak(series, plan))
        if rates is None:
            continue
        if plan.schedule is not None:
            rates = np.where(trusted(plan.schedule, steps[here]), rates, np.nan)
        planned[here] = rates
    return planned


def _findings(record: Record, series: Series, compared: Comparison, told: set[str]) -> list[str]:
    """A sentence or two for each stretch of steps that is off the plan; a cause that was told is not told again."""
    findings = []
    off = compared.differences > compared.close
    for plan, here in _stretches(record, compared, off):
        first, last = int(compared.steps[here[0]]), int(compared.steps[here[-1]])
        before = compared.steps[: here[0]]
        after = int(before[-1]) if len(before) else -1
        at = Departure(
            plan=plan,
            group=series.group,
            peak=record.peak(series, plan),
            steps=compared.steps[here],
            actual=compared.actual[here],
            first=first,
            after=after,
            begun=plan.first,
            resumed_at=next((step for step in record.resumes if after < step <= first), None),
            other_plans=[other for other in record.plans if other is not plan and not other.same(plan)],
        )
        cause = cause_of(at)
        findings.append(_sentence(compared, here, first, last, "the same" if cause in told else cause, at.resumed_at))
        told |= {cause} if cause else set()
    return findings


def _stretches(record: Record, compared: Comparison, off: npt.NDArray[np.bool_]) -> list[tuple[Plan, Any]]:
    """For each plan the steps between the first and the last one that is off it."""
    plans = [record.plan_at(int(step)) if wrong else None for step, wrong in zip(compared.steps, off, strict=True)]
    stretches = []
    for plan in record.plans:
        here = [number for number, other in enumerate(plans) if other is plan]
        if here:
            stretches.append((plan, np.arange(here[0], here[-1] + 1)))
    return stretches


def _sentence(compared: Comparison, here: Any, first: int, last: int, cause: str | None, resumed_at: int | None) -> str:
    worst = here[np.argmax(compared.differences[here])]
    planned, actual = compared.planned[worst], compared.actual[worst]
    where = f"at step {first + 1}" if first == last else f"from step {first + 1} to {last + 1}"
    resumed = f" (at step {resumed_at} there is a checkpoint)" if resumed_at else ""
    why = f"Likely cause: {cause}." if cause else f"No known cause fits{resumed}: something else set the learning rate."
    return (
        f"{compared.label}: off the plan {where}, at most by {compared.differences[worst]:.3g} (step "
        f"{compared.steps[worst] + 1}: planned {planned:.6g}, actual {actual:.6g}). {why}"
    )


def _of_all_groups(findings: list[str], comparisons: list[Comparison]) -> list[str]:
    """The findings, those of more than four kinds of groups cut short."""
    if len(findings) <= 4 or len(comparisons) <= 4:
        return findings
    return [*findings[:4], f"and {len(findings) - 4} more of other parameter groups"]


def _notes(record: Record, comparisons: list[Comparison]) -> list[str]:
    notes = []
    total = record.plans[-1].total
    if record.steps_made < total:
        notes.append(f"the run ends after {record.steps_made} of {total} steps: it is audited up to there")
    blind = sum(int(np.isnan(one.planned).sum()) for one in comparisons)
    if blind and all(np.isnan(one.planned).all() for one in comparisons):
        notes.append(f"{record.plans[-1].name!r} follows a metric: there is no curve to compare with")
    elif blind:
        notes.append("a warmup by trust ratios is not compared: its rates depend on the gradients")
    notes += dict.fromkeys(str(plan.cooldown) for plan in record.plans if plan.cooldown)
    for step in record.resumes if record.source != "trainer_state.json" else []:
        notes.append(f"resumed at step {step}")
    return notes
