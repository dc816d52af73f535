"""Reports of the learning benchmarks: Markdown tables, a picture, and one CSV line per training."""

from __future__ import annotations

import csv
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

import hf_sched
from benchmarks.common.intervals import LEVEL, Interval
from benchmarks.common.reporting import installed_versions
from benchmarks.learning.paired_seeds import Compared, Values, best_peak, compare, holm, paired_t, tuned
from benchmarks.learning.trials import Outcome

COSINE, WSD = "cosine", "wsd"
BUDGET_FACTS = ("budget", "trained")
"""More facts of a training in `budgets.py`, in optimizer steps."""


def is_higher_better(metric: str) -> bool:
    """Return whether a metric is better the higher it is: all but losses are."""
    return "loss" not in metric


def write_sweep(outcomes: Sequence[Outcome], folder: Path, metric: str, baseline: str) -> None:
    """Write report.md, learning.png and runs.csv."""
    higher = is_higher_better(metric)
    write_csv(outcomes, folder / "runs.csv", metric)
    values = values_of(outcomes)
    compared = compare(values, baseline, higher)
    draw(values, compared, folder / "learning.png", metric, baseline)
    lines = [
        f"# {metric}, {'higher' if higher else 'lower'} is better",
        "",
        *sweep_table(values, compared, baseline, higher),
        "",
        *peak_table(values, higher),
        "",
        *_notes(outcomes, values, higher),
        "",
        "![Metric by peak learning rate, and differences to the baseline](learning.png)",
    ]
    _write(folder, lines)


def write_budgets(outcomes: Sequence[Outcome], folder: Path, metric: str, cooldown: float) -> None:
    """Write report.md and runs.csv of `budgets.py`."""
    write_csv(outcomes, folder / "runs.csv", metric, BUDGET_FACTS)
    note = f"A cooldown takes {cooldown:.0%} of its budget. Intervals are Student's t over seeds. Tests are paired by "
    note += "seed and two-sided, with Holm's adjustment."
    _write(folder, [f"# {metric} of three budgets", "", *budget_table(outcomes), "", note])


def _write(folder: Path, lines: Sequence[str]) -> None:
    import torch

    cores = f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cores
    versions = {**installed_versions("torch", "transformers", "trl", "accelerate"), "hf_sched": hf_sched.__version__}
    where = ", ".join([device, *map(" ".join, versions.items())])
    footer = ["", f"{date.today()}; {where}.", "", "```", "python " + shlex.join(sys.argv), "```", ""]
    (folder / "report.md").write_text("\n".join([*lines, *footer]), encoding="utf-8")


def values_of(outcomes: Sequence[Outcome]) -> dict[str, Values]:
    """Return the values by schedule, peak and seed; the peak of a failed training stays, without the value."""
    values: dict[str, dict[float, dict[int, float]]] = {}
    for one in outcomes:
        of_peak = values.setdefault(one.facts["schedule"], {}).setdefault(one.facts["learning_rate"], {})
        if one.value is not None:
            of_peak[one.facts["seed"]] = one.value
    return dict(values)


def sweep_table(
    values: Mapping[str, Values], compared: Mapping[str, Compared], baseline: str, higher: bool
) -> list[str]:
    """Return a row for each schedule."""
    rows = [
        f"| schedule | best peak | mean ({LEVEL:.0%}) | against {baseline} ({LEVEL:.0%}) | p | p by Holm | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_schedule in values.items():
        peak, mine = best_peak(of_schedule, higher), list(tuned(of_schedule, higher).values())
        if peak is None or not mine:
            rows.append(f"| {_code(name)} | no peak at which all seeds finished | | | | | |")
            continue
        edge = " (edge)" if _is_edge(of_schedule, peak) else ""
        row = f"| {_code(name)} | {peak:g}{edge} | {Interval.of_mean(mine)} "
        if name in compared:
            one = compared[name]
            rows.append(row + f"| {one.difference:+} | {one.p:.2g} | {one.adjusted_p:.2g} | {one.verdict} |")
        else:
            rows.append(row + f"| {'the baseline' if name == baseline else 'too few seeds'} | | | |")
    return rows


def peak_table(values: Mapping[str, Values], higher: bool) -> list[str]:
    """Return the mean over the seeds at every peak."""
    peaks = sorted({peak for of_schedule in values.values() for peak in of_schedule})
    rows = [f"| mean at a peak of | {' | '.join(f'{peak:g}' for peak in peaks)} |", "|---" * (len(peaks) + 1) + "|"]
    for name, of_schedule in values.items():
        best = best_peak(of_schedule, higher)
        cells = []
        for peak in peaks:
            found = list(of_schedule.get(peak, {}).values())
            mean = f"{fmean(found):.4g}" if found else "-"
            cells.append(f"**{mean}**" if peak == best else mean)
        rows.append(f"| {_code(name)} | {' | '.join(cells)} |")
    return rows


def budget_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a row for each budget, over the seeds whose trainings all succeeded, and the steps of both ways.

    Raises:
        ValueError: There is no such seed.
    """
    values = {(one.facts["schedule"], one.facts["budget"], one.facts["seed"]): one.value for one in outcomes}
    budgets = sorted({budget for _, budget, _ in values})
    seeds = [
        seed
        for seed in sorted({seed for *_, seed in values})
        if all(values.get((name, budget, seed)) is not None for name in (COSINE, WSD) for budget in budgets)
    ]
    if not seeds:
        raise ValueError("a training of every seed failed; see runs.csv")

    def of(name: str, budget: int) -> list[float]:
        return [values[name, budget, seed] or 0.0 for seed in seeds]

    differences = {
        budget: [b - a for a, b in zip(of(COSINE, budget), of(WSD, budget), strict=True)] for budget in budgets
    }
    ps = {str(budget): paired_t(each) if len(seeds) > 1 else 1.0 for budget, each in differences.items()}
    adjusted = holm(ps)
    rows = [
        f"| steps of the model | cosine, a separate run ({LEVEL:.0%}) | wsd, a branch with a cooldown ({LEVEL:.0%}) "
        f"| difference ({LEVEL:.0%}) | p | p by Holm |",
        "|---|---|---|---|---|---|",
    ]
    for budget, each in differences.items():
        means = " | ".join(f"{Interval.of_mean(of(name, budget))}" for name in (COSINE, WSD))
        p, adjusted_p = ps[str(budget)], adjusted[str(budget)]
        rows.append(f"| {budget} | {means} | {Interval.of_mean(each):+} | {p:.2g} | {adjusted_p:.2g} |")
    cosine, wsd = (
        sum(one.facts["trained"] for one in outcomes if (one.facts["schedule"], one.facts["seed"]) == (name, seeds[0]))
        for name in (COSINE, WSD)
    )
    steps = (
        f"Optimizer steps for the three models: {wsd} by one `wsd` run and two branches, {cosine} by three cosine "
        f"runs: {wsd / cosine:.1%}. Seeds {', '.join(map(str, seeds))}."
    )
    return [*rows, "", steps]


def _notes(outcomes: Sequence[Outcome], values: Mapping[str, Values], higher: bool) -> list[str]:
    """Return the method, and what limits the conclusions."""
    deviations = [one.deviation for one in outcomes if one.deviation is not None]
    seeds = sorted({one.facts["seed"] for one in outcomes})
    lines = [
        f"Seeds {', '.join(map(str, seeds))}. Each seed uses the peak that is best for the other seeds; `best peak` is "
        "the best for all seeds. Intervals are Student's t over seeds. Tests are paired by seed and two-sided, with "
        "Holm's adjustment for the number of schedules.",
        "",
        f"Largest deviation of a learning rate from its plan: {max(deviations, default=float('nan')):.2g}, over "
        f"{sum(one.steps for one in outcomes):,} optimizer steps.",
    ]
    best = {name: best_peak(each, higher) for name, each in values.items()}
    edge = [name for name, peak in best.items() if peak is not None and _is_edge(values[name], peak)]
    if edge:
        names = ", ".join(map(_code, edge))
        lines += ["", f"The best peak is at the edge of the peaks tried, so a better one may lie beyond: {names}."]
    failed = [
        f"{one.facts['schedule']} at {one.facts['learning_rate']:g}, seed {one.facts['seed']} ({one.error})"
        for one in outcomes
        if one.value is None
    ]
    if failed:
        lines += ["", f"Failed, so their peak is excluded: {'; '.join(failed)}."]
    return lines


def write_csv(outcomes: Sequence[Outcome], file: Path, metric: str, more: Sequence[str] = ()) -> None:
    """Write one line per training; `more` names further facts."""
    names = ("schedule", *more, "learning_rate", "seed")
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow((*names, "metric", "value", "steps", "seconds", "deviation", "error"))
        for one in outcomes:
            facts = [one.facts[name] for name in names]
            writer.writerow([*facts, metric, one.value, one.steps, round(one.seconds, 1), one.deviation, one.error])


def read_csv(file: Path, more: Sequence[str] = ()) -> list[Outcome]:
    """Read what `write_csv` wrote, so that anybody can compute the tables again."""
    kinds = {"schedule": str, "learning_rate": float, "seed": int, **dict.fromkeys(more, int)}
    with file.open(newline="", encoding="utf-8") as rows:
        return [
            Outcome(
                {name: kind(row[name]) for name, kind in kinds.items()},
                float(row["value"]) if row["value"] else None,
                int(row["steps"]),
                float(row["seconds"]),
                float(row["deviation"]) if row["deviation"] else None,
                row["error"],
            )
            for row in csv.DictReader(rows)
        ]


def draw(
    values: Mapping[str, Values], compared: Mapping[str, Compared], file: Path, metric: str, baseline: str
) -> None:
    """Draw the mean at every peak (left) and the differences to the baseline with their intervals (right)."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, of_schedule) in enumerate(values.items()):
        peaks = sorted(peak for peak, found in of_schedule.items() if found)
        means = [fmean(of_schedule[peak].values()) for peak in peaks]
        color, width = ("black", 2) if name == baseline else (f"C{number % 10}", 1)
        left.plot(peaks, means, marker="o", markersize=4, label=name, color=color, linewidth=width)
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
    right.set(xlabel=f"{metric} minus that of {baseline} ({LEVEL:.0%}); {better} is better")
    right.margins(y=0.1)
    figure.savefig(file, dpi=150)


def _is_edge(values: Values, peak: float) -> bool:
    return len(values) > 1 and peak in (min(values), max(values))


def _code(name: str) -> str:
    # A phase text contains bars, which would end the cell.
    return "`" + name.replace("|", "\\|") + "`"
