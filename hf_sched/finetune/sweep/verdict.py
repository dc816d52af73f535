"""What the runs of a sweep show: the best point, those not distinguishable from it, and whether the range suffices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from scipy import stats

from hf_sched.finetune.evaluation.statistics import LEVEL
from hf_sched.finetune.sweep.grid import FACTOR, PEAK, Point
from hf_sched.finetune.sweep.halving import Results, Rung, Unit, best_points

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """What is known about a point."""

    point: Point
    steps: int
    """The longest length at which it was trained."""
    values: tuple[float, ...]
    """The metric at this length, by seed; NaN if the run diverged or failed."""
    difference: float | None
    """Mean difference to the best point at the longest length that both have, over the same seeds."""
    interval: Interval | None
    """The 95% interval of the difference by Student's t; None for a single seed."""
    standing: str
    """best, not distinguishable, worse, dropped, or failed."""

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.values)


@dataclass(frozen=True)
class Verdict:
    """The result of a sweep."""

    metric: str
    higher: bool
    best: Point | None
    """None if every point failed."""
    rows: tuple[Row, ...]
    edge: str = ""
    """`lowest` or `highest` if the best peak is at an edge of the range."""

    def sentences(self) -> list[str]:
        """The verdict in words."""
        if self.best is None:
            low = min(row.point.peak for row in self.rows)
            return [f"Every point diverged or failed. Try lower peaks: --learning-rates {low / 64:.3g}..{low / 2:.3g}"]
        best = next(row for row in self.rows if row.standing == "best")
        seeds = f"{len(best.values)} seed{'s' if len(best.values) > 1 else ''}"
        found = [f"Best: {best.point} ({self.metric} {best.mean:.4g} after {best.steps} steps, {seeds})."]
        if similar := [str(row.point) for row in self.rows if row.standing == "not distinguishable"]:
            found.append(f"Not distinguishable from it: {'; '.join(similar)}.")
        if len(best.values) == 1:
            found.append("The longest runs have a single seed, so there is no interval: raise --budget for more.")
        if self.edge:
            peak = self.best.peak
            low, high = (
                (peak / FACTOR**3, peak * FACTOR) if self.edge == "lowest" else (peak / FACTOR, peak * FACTOR**3)
            )
            found.append(
                f"The range is too narrow: the best peak is its {self.edge}. Extend it: "
                f"--learning-rates {low:.6g}..{high:.6g} (finished runs are reused)."
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {
            "metric": self.metric,
            "best": None if self.best is None else {PEAK: self.best.peak, **dict(self.best.others)},
            "edge": self.edge or None,
            "points": [
                {
                    PEAK: row.point.peak,
                    **dict(row.point.others),
                    "steps": row.steps,
                    "values": [None if math.isnan(value) else value for value in row.values],
                    "difference": row.difference,
                    "interval": row.interval,
                    "standing": row.standing,
                }
                for row in self.rows
            ],
            "verdict": self.sentences(),
        }


def judge(points: Sequence[Point], rungs: Sequence[Rung], results: Results, metric: str, *, higher: bool) -> Verdict:
    """Judge the results of a sweep."""
    last = rungs[-1]
    finalists = [point for point in points if all(Unit(point, seed, last.steps) in results for seed in last.seeds)]
    found = best_points(finalists, last, results, 1, higher=higher)
    best = found[0] if found else None
    rows = tuple(_row(point, best, rungs, results, higher=higher) for point in points)
    peaks = sorted(point.peak for point in points if best and point.others == best.others)
    edge = ""
    if best and len(peaks) > 1:
        edge = {peaks[0]: "lowest", peaks[-1]: "highest"}.get(best.peak, "")
    return Verdict(metric, higher, best, rows, edge)


def _row(point: Point, best: Point | None, rungs: Sequence[Rung], results: Results, *, higher: bool) -> Row:
    at = {rung.steps: _values(point, rung, results) for rung in rungs}
    steps = max((steps for steps, values in at.items() if values), default=rungs[0].steps)
    values = tuple(at[steps].values()) or (math.nan,)
    difference, interval = None, None
    if best is not None and point != best:
        for rung in reversed(rungs):
            of_best = _values(best, rung, results)
            pairs = [value - of_best[seed] for seed, value in at[rung.steps].items() if seed in of_best]
            if pairs and not any(map(math.isnan, pairs)):
                difference, interval = fmean(pairs), paired_interval(pairs)
                break
    if point == best:
        standing = "best"
    elif any(map(math.isnan, values)):
        standing = "failed"
    elif interval is not None and interval[0] <= 0 <= interval[1]:
        standing = "not distinguishable"
    elif interval is not None and (interval[0] > 0) != higher:
        standing = "worse"
    else:
        standing = "dropped" if steps < rungs[-1].steps else "worse with one seed"
    return Row(point, steps, values, difference, interval, standing)


def _values(point: Point, rung: Rung, results: Results) -> dict[int, float]:
    units = {seed: Unit(point, seed, rung.steps) for seed in rung.seeds}
    return {seed: results[unit] for seed, unit in units.items() if unit in results}


def paired_interval(differences: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean of paired differences; None for a single one."""
    if len(differences) < 2:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1) * stats.sem(differences))
    return fmean(differences) - half, fmean(differences) + half


def write_best(best: Point, given: Mapping[str, Any], settings: Mapping[str, Any], path: Path, comment: str) -> None:
    """Write the configuration with the best point, ready to run, with a comment on its first line."""
    arguments = {name: value for name, value in given.items() if name != "config"}
    arguments |= {**settings, **dict(best.others), PEAK: best.peak}
    path.write_text(f"# {comment}\n{yaml.safe_dump(arguments, sort_keys=False)}", encoding="utf-8")


def draw(verdict: Verdict, rungs: Sequence[Rung], results: Results, path: Path) -> None:
    """Draw the metric against the peak, with a line for each length; bars are standard errors over seeds."""
    from hf_sched.plots.figures import COLORS, new_figure

    panels = list(dict.fromkeys(row.point.others for row in verdict.rows))
    figure, axes = new_figure(len(panels), (max(4.6 * len(panels), 6.4), 3.8))
    for others, ax in zip(panels, axes, strict=True):
        points = sorted((row.point for row in verdict.rows if row.point.others == others), key=lambda one: one.peak)
        for number, rung in enumerate(rungs):
            found = {point.peak: [*_values(point, rung, results).values()] for point in points}
            found = {peak: values for peak, values in found.items() if values and not any(map(math.isnan, values))}
            errors = [float(stats.sem(values)) if len(values) > 1 else 0.0 for values in found.values()]
            label = f"{rung.steps} steps, {len(rung.seeds)} seed{'s' if len(rung.seeds) > 1 else ''}"
            style = {"fmt": "o-", "capsize": 3, "color": COLORS[number % len(COLORS)]}
            ax.errorbar(list(found), [fmean(values) for values in found.values()], yerr=errors, label=label, **style)
        if verdict.best is not None and verdict.best.others == others:
            ax.axvline(verdict.best.peak, color="0.6", linestyle="--", linewidth=1, label="best")
        ax.set(xscale="log", xlabel="peak learning rate", title=", ".join(f"{name}={value}" for name, value in others))
        rotation = 45 if len(points) > 8 else 0
        ax.set_xticks([point.peak for point in points], [f"{point.peak:g}" for point in points], rotation=rotation)
        ax.minorticks_off()
    axes[0].set_ylabel(verdict.metric)
    axes[-1].legend(frameon=False)
    figure.savefig(path)
