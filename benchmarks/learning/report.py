"""What `learning.py` found: a table, a picture and one line a training."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import platform
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from matplotlib.figure import Figure

import hf_sched
from benchmarks.learning.comparison import LEVEL, Compared, Estimate, Values, best_peak, compare, mean_interval, tuned
from benchmarks.learning.trials import Outcome

PACKAGES = ("torch", "transformers", "trl", "accelerate")


def write_report(
    outcomes: Sequence[Outcome],
    folder: Path,
    *,
    metric: str,
    higher: bool,
    baseline: str,
    command: Sequence[str],
    left: int,
) -> None:
    """Write report.md, learning.png and runs.csv; `left` is how many trainings have not been done."""
    write_csv(outcomes, folder / "runs.csv", metric)
    values = values_of(outcomes)
    if not values.get(baseline):
        raise ValueError(f"no training of the baseline {baseline!r} has been done: give a larger `--budget_minutes`")
    compared = compare(values, baseline, higher)
    draw(values, compared, folder / "learning.png", metric=metric, baseline=baseline, higher=higher)
    lines = [
        f"# {metric}, {'higher' if higher else 'lower'} is better",
        "",
        *([f"**{left} trainings have not been done yet.**", ""] if left else []),
        *table(values, compared, baseline, higher),
        "",
        *by_peak(values, higher),
        "",
        *notes(outcomes, values, higher),
        "",
        "![Metric by peak learning rate, and differences to the baseline](learning.png)",
        "",
        *footer(command),
    ]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def values_of(outcomes: Sequence[Outcome]) -> dict[str, Values]:
    """By schedule, peak and seed; of a training that failed nothing but its peak's place."""
    values: dict[str, dict[float, dict[int, float]]] = {}
    for one in outcomes:
        of_peak = values.setdefault(one.facts["schedule"], {}).setdefault(one.facts["learning_rate"], {})
        if one.value is not None:
            of_peak[one.facts["seed"]] = one.value
    return dict(values)


def table(values: dict[str, Values], compared: dict[str, Compared], baseline: str, higher: bool) -> list[str]:
    """A row for each schedule."""
    rows = [
        f"| schedule | best peak | mean ({LEVEL:.0%}) | against {baseline} ({LEVEL:.0%}) | p | p by Holm | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_schedule in values.items():
        peak, mine = best_peak(of_schedule, higher), list(tuned(of_schedule, higher).values())
        if peak is None or not mine:
            rows.append(f"| {_code(name)} | none that all seeds got through | | | | | |")
            continue
        edge = len(of_schedule) > 1 and peak in (min(of_schedule), max(of_schedule))
        row = f"| {_code(name)} | {peak:g}{' (edge)' if edge else ''} | {format_estimate(mean_interval(mine))} "
        if name in compared:
            one = compared[name]
            by = format_estimate(one.difference, sign="+")
            rows.append(row + f"| {by} | {one.p:.2g} | {one.adjusted_p:.2g} | {one.verdict} |")
        else:
            rows.append(row + f"| {'the baseline' if name == baseline else 'too few seeds'} | | | |")
    return rows


def by_peak(values: dict[str, Values], higher: bool) -> list[str]:
    """The mean over the seeds at every peak."""
    peaks = sorted({peak for of_schedule in values.values() for peak in of_schedule})
    rows = [f"| mean at a peak of | {' | '.join(f'{peak:g}' for peak in peaks)} |", "|---" * (len(peaks) + 1) + "|"]
    for name, of_schedule in values.items():
        best = best_peak(of_schedule, higher)
        cells = []
        for peak in peaks:
            found = list(of_schedule.get(peak, {}).values())
            mean = f"{mean_interval(found).mean:.4g}" if found else "-"
            cells.append(f"**{mean}**" if peak == best else mean)
        rows.append(f"| {_code(name)} | {' | '.join(cells)} |")
    return rows


def notes(outcomes: Sequence[Outcome], values: dict[str, Values], higher: bool) -> list[str]:
    """What an honest reader asks next."""
    failed = [one for one in outcomes if one.value is None]
    seeds = sorted({one.facts["seed"] for one in outcomes})
    deviations = [one.deviation for one in outcomes if one.deviation is not None]
    split = [name for name, each in values.items() if len(_choices(each, higher)) > 1]
    lines = [
        f"{len(outcomes)} trainings, seeds {', '.join(map(str, seeds))}. A schedule is judged, at each seed, at the "
        "peak that is best for the other seeds; `best peak` is that for all of them. Intervals are Student's t over "
        "seeds, tests paired by seed and two-sided, adjusted by Holm's method for the number of schedules.",
        "",
        f"Largest deviation of a learning rate from its plan: {max(deviations, default=float('nan')):.2g}, of "
        f"{sum(one.steps for one in outcomes):,} optimizer steps.",
    ]
    if split:
        lines += ["", f"The seeds do not agree on the best peak of {', '.join(map(_code, split))}."]
    edge = [
        name for name, each in values.items() if len(each) > 1 and best_peak(each, higher) in (min(each), max(each))
    ]
    if edge:
        lines += [
            "",
            f"At the edge of the peaks tried, so that a better one may lie beyond: {', '.join(map(_code, edge))}.",
        ]
    if failed:
        told = "; ".join(
            f"{one.facts['schedule']} at {one.facts['learning_rate']:g}, seed {one.facts['seed']} ({one.error})"
            for one in failed
        )
        lines += ["", f"Failed, so that their peak is out: {told}."]
    return lines


def write_csv(outcomes: Sequence[Outcome], file: Path, metric: str, more: Sequence[str] = ()) -> None:
    """One line a training; `more` are facts of it to be told beside those that all have."""
    names = ("schedule", *more, "learning_rate", "seed")
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow((*names, "metric", "value", "steps", "seconds", "deviation", "error"))
        for one in outcomes:
            facts = [one.facts[name] for name in names]
            writer.writerow([*facts, metric, one.value, one.steps, round(one.seconds, 1), one.deviation, one.error])


def read_csv(file: Path, more: Sequence[str] = ()) -> list[Outcome]:
    """What `write_csv` wrote: raw data from which anybody can work out the table again."""
    outcomes = []
    with file.open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            facts = {
                "schedule": row["schedule"],
                "learning_rate": float(row["learning_rate"]),
                "seed": int(row["seed"]),
            }
            outcomes.append(
                Outcome(
                    {**facts, **{name: int(row[name]) for name in more}},
                    float(row["value"]) if row["value"] else None,
                    int(row["steps"]),
                    float(row["seconds"]),
                    float(row["deviation"]) if row["deviation"] else None,
                    row["error"],
                )
            )
    return outcomes


def draw(
    values: dict[str, Values], compared: dict[str, Compared], file: Path, *, metric: str, baseline: str, higher: bool
) -> None:
    """On the left the mean at every peak, on the right the differences to the baseline with their intervals."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, of_schedule) in enumerate(values.items()):
        peaks = sorted(peak for peak, found in of_schedule.items() if found)
        means = [mean_interval(list(of_schedule[peak].values())).mean for peak in peaks]
        style = {"color": "black", "linewidth": 2} if name == baseline else {"color": f"C{number % 10}", "linewidth": 1}
        left.plot(peaks, means, marker="o", markersize=4, label=name, **style)
    left.set(xscale="log", xlabel="peak learning rate", ylabel=f"{metric}, mean over seeds")
    ticks = sorted({peak for of_schedule in values.values() for peak in of_schedule})
    left.set_xticks(ticks, [f"{peak:g}" for peak in ticks], minor=False)
    left.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    names = list(reversed(compared))
    for row, name in enumerate(names):
        one = compared[name].difference
        right.errorbar(
            one.mean,
            row,
            xerr=[[one.mean - one.low], [one.high - one.mean]],
            fmt="o",
            capsize=3,
            color={"better": "C2", "worse": "C3"}.get(compared[name].verdict, "0.4"),
        )
    right.axvline(0, color="black", linewidth=1)
    right.set_yticks(range(len(names)), names)
    better = "right" if higher else "left"
    right.set(xlabel=f"{metric} less that of {baseline} ({LEVEL:.0%}); {better} is better")
    right.margins(y=0.1)
    figure.savefig(file, dpi=150)


def footer(command: Sequence[str]) -> list[str]:
    """When and where it was measured, and by what command."""
    return [f"{date.today()}; {where()}.", "", "```", "python " + shlex.join(command), "```"]


def where() -> str:
    """Hardware and versions."""
    import torch

    cores = f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cores
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"{device}, Python {platform.python_version()}, hf_sched {hf_sched.__version__}, {versions}"


def format_estimate(one: Estimate, sign: str = "") -> str:
    """The mean and its interval, if it has one."""
    span = f" ({one.low:{sign}.4g} to {one.high:{sign}.4g})" if one.seeds > 1 else ""
    return f"{one.mean:{sign}.4g}{span}"


def _choices(values: Values, higher: bool) -> set[float | None]:
    seeds = {seed for of_peak in values.values() for seed in of_peak}
    return {best_peak(values, higher, seed) for seed in seeds} if len(seeds) > 1 else set()


def _code(name: str) -> str:
    # A phase text has bars of its own, which would end the cell.
    return "`" + name.replace("|", "\\|") + "`"
