"""Reports of the learning benchmarks: Markdown tables, a picture, and one CSV line per training."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common.intervals import Interval
from benchmarks.common.reporting import installed_versions, read_csv, table_head, table_row, write_csv
from benchmarks.learning.paired_seeds import Compared, Values, best_peak, compare, holm, paired_t, tuned
from benchmarks.learning.trials import Outcome

COSINE, WSD = "cosine", "wsd"
BUDGETS = {100: 18, 200: 36, 400: 72}
"""Steps of each cooldown by the steps of its model."""
METHOD = "Intervals (95%) are Student's t over seeds. Tests are paired by seed and two-sided, with Holm's adjustment."


def is_higher_better(metric: str) -> bool:
    """Return whether a metric is better the higher it is: all but losses are."""
    return "loss" not in metric


def write_sweep(outcomes: Sequence[Outcome], folder: Path, baseline: str) -> None:
    """Write report.md, learning.png and runs.csv."""
    metric = outcomes[0].metric
    higher = is_higher_better(metric)
    values = values_of(outcomes)
    compared = compare(values, baseline, higher)
    draw(values, compared, folder / "learning.png", metric, baseline)
    lines = [
        f"# {metric}, {'higher' if higher else 'lower'} is better",
        *sweep_table(values, compared, baseline, higher),
        "",
        *peak_table(values, higher),
        "",
        "Each seed uses the peak that is best for the other seeds; `best peak` is the best for all seeds. If it is at "
        "the edge of the peaks tried, a better one may lie beyond.",
        "",
        "![Metric by peak learning rate, and differences to the baseline](learning.png)",
    ]
    _write(outcomes, folder, lines)


def write_budgets(outcomes: Sequence[Outcome], folder: Path, budgets: Mapping[int, int]) -> None:
    """Write report.md and runs.csv."""
    _write(outcomes, folder, [f"# {outcomes[0].metric} of {len(budgets)} budgets", *budget_table(outcomes, budgets)])


def _write(outcomes: Sequence[Outcome], folder: Path, lines: list[str]) -> None:
    write_csv(folder / "runs.csv", [asdict(outcome) for outcome in outcomes])
    lines.insert(1, "")
    deviations = [one.deviation for one in outcomes if one.deviation is not None]
    lines += [
        "",
        METHOD,
        "",
        f"Largest deviation of a learning rate from its plan: {max(deviations, default=0.0):.2g}.",
    ]
    failed = [
        f"{one.schedule} at {one.learning_rate:g}, seed {one.seed} ({one.error})" for one in outcomes if one.error
    ]
    if failed:
        lines += ["", f"Failed, so their peak is excluded: {'; '.join(failed)}."]
    versions = installed_versions("hf_sched", "torch", "transformers", "trl", "accelerate")
    where = f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
    lines += ["", f"{date.today()}; {', '.join([where, *map(' '.join, versions.items())])}."]
    lines += ["", "```", "python " + shlex.join(sys.argv), "```", ""]
    (folder / "report.md").write_text("\n".join(lines), encoding="utf-8")


def read_outcomes(file: Path) -> list[Outcome]:
    """Read runs.csv, so that anybody can compute the tables again."""
    kinds = {"learning_rate": float, "seed": int, "value": float, "steps": int, "seconds": float, "deviation": float}
    outcomes = []
    for row in read_csv(file):
        numbers: dict[str, Any] = {key: kind(row[key]) if row[key] else None for key, kind in kinds.items()}
        outcomes.append(Outcome(row["schedule"], metric=row["metric"], error=row["error"], **numbers))
    return outcomes


def values_of(outcomes: Sequence[Outcome]) -> dict[str, Values]:
    """Return the values by schedule, peak and seed; the peak of a failed training stays, without the value."""
    values: dict[str, dict[float, dict[int, float]]] = {}
    for one in outcomes:
        of_peak = values.setdefault(one.schedule, {}).setdefault(one.learning_rate, {})
        if one.value is not None:
            of_peak[one.seed] = one.value
    return dict(values)


def sweep_table(
    values: Mapping[str, Values], compared: Mapping[str, Compared], baseline: str, higher: bool
) -> list[str]:
    """Return a row for each schedule."""
    lines = table_head(
        *("schedule", "best peak", "mean (95%)", f"against {baseline} (95%)", "p", "p by Holm", "verdict")
    )
    for name, of_schedule in values.items():
        peak, mine = best_peak(of_schedule, higher), list(tuned(of_schedule, higher).values())
        if peak is None or not mine:
            lines.append(table_row(_code(name), "no peak at which all seeds finished", *[""] * 5))
            continue
        is_edge = len(of_schedule) > 1 and peak in (min(of_schedule), max(of_schedule))
        cells = [_code(name), f"{peak:g}{' (edge)' if is_edge else ''}", f"{Interval.of_mean(mine)}"]
        if name in compared:
            one = compared[name]
            cells += [f"{one.difference:+}", f"{one.p:.2g}", f"{one.adjusted_p:.2g}", one.verdict]
        else:
            cells += ["the baseline" if name == baseline else "too few seeds", "", "", ""]
        lines.append(table_row(*cells))
    return lines


def peak_table(values: Mapping[str, Values], higher: bool) -> list[str]:
    """Return the mean over the seeds at every peak."""
    peaks = sorted({peak for of_schedule in values.values() for peak in of_schedule})
    lines = table_head("mean at a peak of", *(f"{peak:g}" for peak in peaks))
    for name, of_schedule in values.items():
        found = {peak: fmean(of_peak.values()) for peak, of_peak in of_schedule.items() if of_peak}
        cells = {peak: f"{mean:.4g}" for peak, mean in found.items()}
        if (best := best_peak(of_schedule, higher)) is not None:
            cells[best] = f"**{cells[best]}**"
        lines.append(table_row(_code(name), *(cells.get(peak, "-") for peak in peaks)))
    return lines


def budget_table(outcomes: Sequence[Outcome], budgets: Mapping[int, int] = BUDGETS) -> list[str]:
    """Return a row for each budget, over the seeds whose trainings all succeeded, and the steps of both ways.

    Raises:
        ValueError: There is no such seed.
    """
    values = {(one.schedule, one.steps, one.seed): one.value for one in outcomes if one.value is not None}
    seeds = [
        seed
        for seed in sorted({seed for *_, seed in values})
        if all((name, budget, seed) in values for name in (COSINE, WSD) for budget in budgets)
    ]
    if not seeds:
        raise ValueError("a training of every seed failed; see the folder of the runs")
    of_way = {(name, budget): [values[name, budget, seed] for seed in seeds] for name, budget, _ in values}
    differences = {
        budget: [b - a for a, b in zip(of_way[COSINE, budget], of_way[WSD, budget], strict=True)] for budget in budgets
    }
    ps = {str(budget): paired_t(each) if len(seeds) > 1 else 1.0 for budget, each in differences.items()}
    adjusted = holm(ps)
    ways = ("cosine, a separate run (95%)", "wsd, a branch with a cooldown (95%)")
    lines = table_head("steps of the model", *ways, "difference (95%)", "p", "p by Holm")
    for budget, each in differences.items():
        means = (f"{Interval.of_mean(of_way[name, budget])}" for name in (COSINE, WSD))
        tests = (f"{every[str(budget)]:.2g}" for every in (ps, adjusted))
        lines.append(table_row(str(budget), *means, f"{Interval.of_mean(each):+}", *tests))
    cosine, wsd = sum(budgets), max(budgets) + sum(budgets.values()) - budgets[max(budgets)]
    steps = (
        f"Optimizer steps for the three models: {wsd} by one `wsd` run and two branches, {cosine} by three cosine "
        f"runs: {wsd / cosine:.1%}. Seeds {', '.join(map(str, seeds))}."
    )
    return [*lines, "", steps]


def draw(
    values: Mapping[str, Values], compared: Mapping[str, Compared], file: Path, metric: str, baseline: str
) -> None:
    """Draw the mean at every peak (left) and the differences to the baseline with their intervals (right)."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, of_schedule) in enumerate(values.items()):
        means = {peak: fmean(found.values()) for peak, found in sorted(of_schedule.items()) if found}
        color, width = ("black", 2) if name == baseline else (f"C{number % 10}", 1)
        left.plot(list(means), list(means.values()), "o-", markersize=4, label=name, color=color, linewidth=width)
    left.set(xscale="log", xlabel="peak learning rate", ylabel=f"{metric}, mean over seeds")
    ticks = sorted({peak for of_schedule in values.values() for peak in of_schedule})
    left.set_xticks(ticks, [f"{peak:g}" for peak in ticks], minor=False)
    left.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    names = list(compared)[::-1]
    for row, name in enumerate(names):
        one, color = compared[name].difference, {"better": "C2", "worse": "C3"}.get(compared[name].verdict, "0.4")
        error = [[one.center - one.low], [one.high - one.center]]
        right.errorbar(one.center, row, xerr=error, fmt="o", capsize=3, color=color)
    right.axvline(0, color="black", linewidth=1)
    right.set_yticks(range(len(names)), names)
    better = "right" if is_higher_better(metric) else "left"
    right.set(xlabel=f"{metric} minus that of {baseline} (95%); {better} is better")
    right.margins(y=0.1)
    figure.savefig(file, dpi=150)


def _code(name: str) -> str:
    # A phase text contains bars, which would end the cell.
    return "`" + name.replace("|", "\\|") + "`"
