"""Reports of the learning benchmarks: Markdown tables and a picture.

`runs` is the table in runs.csv, a row for each training: schedule, learning_rate (its peak), seed, metric, value (on
held-out data; missing if the training failed, for example by diverging), steps, seconds, deviation (the largest one of
a learning rate from the plan, over all optimizer steps) and error.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
from matplotlib.figure import Figure

from benchmarks.common.intervals import Interval
from benchmarks.common.reporting import installed_versions, table
from benchmarks.learning.paired_seeds import Compared, best_peak, compare, holm, paired_t, tuned

COSINE, WSD = "cosine", "wsd"
BUDGETS = {100: 18, 200: 36, 400: 72}
"""Steps of each cooldown by the steps of its model."""


def write_sweep(runs: pd.DataFrame, folder: Path) -> None:
    """Write report.md, learning.png and runs.csv; the baseline is the first schedule."""
    metric, baseline = runs.loc[0, ["metric", "schedule"]]
    higher = "loss" not in metric
    values = values_of(runs)
    compared = compare(values, baseline, higher)
    draw(values, compared, folder / "learning.png", metric, baseline)
    lines = [
        *sweep_table(values, compared, baseline, higher),
        "",
        *peak_table(values, higher),
        "",
        "Each seed uses the peak that is best for the other seeds; `best peak` is the best for all seeds. If it is at "
        "the edge of the peaks tried, a better one may lie beyond.",
        "",
        "![Metric by peak learning rate, and differences to the baseline](learning.png)",
    ]
    write(runs, folder, f"{metric}, {'higher' if higher else 'lower'} is better", lines)


def write(runs: pd.DataFrame, folder: Path, title: str, lines: list[str]) -> None:
    """Write runs.csv, and the lines into report.md with a title and what they depend on."""
    runs.to_csv(folder / "runs.csv", index=False)
    failed = [
        f"{one.schedule} at {one.learning_rate:g}, seed {one.seed} ({one.error})"
        for one in runs[runs["value"].isna()].itertuples()
    ]
    versions = installed_versions("hf_sched", "torch", "transformers", "trl", "accelerate")
    paragraphs = [
        f"# {title}",
        "\n".join(lines),
        "Intervals (95%) are Student's t over seeds. Tests are paired by seed and two-sided, with Holm's adjustment.",
        f"Largest deviation of a learning rate from its plan: {runs['deviation'].max():.2g}.",
        *([f"Failed, so their peak is excluded: {'; '.join(failed)}."] if failed else []),
        f"{date.today()}; {', '.join(map(' '.join, versions.items()))}.",
        f"```\npython {shlex.join(sys.argv)}\n```\n",
    ]
    (folder / "report.md").write_text("\n\n".join(paragraphs), encoding="utf-8")


def values_of(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table of the metric for each schedule, with a row for each seed and a column for each peak."""
    return {
        name: of_schedule.pivot(index="seed", columns="learning_rate", values="value").dropna(how="all")
        for name, of_schedule in runs.groupby("schedule", sort=False)
    }


def sweep_table(
    values: Mapping[str, pd.DataFrame], compared: Mapping[str, Compared], baseline: str, higher: bool
) -> list[str]:
    """Return a row for each schedule."""
    rows = []
    for name, of_schedule in values.items():
        peak = best_peak(of_schedule, higher)
        if peak is None:
            rows.append([_code(name), "no peak at which all seeds finished", *[""] * 5])
            continue
        peaks = of_schedule.columns
        is_edge = len(peaks) > 1 and peak in (peaks.min(), peaks.max())
        cells = [
            _code(name),
            f"{peak:g}{' (edge)' if is_edge else ''}",
            f"{Interval.of_mean(tuned(of_schedule, higher).tolist())}",
        ]
        if name in compared:
            one = compared[name]
            cells += [f"{one.difference:+}", f"{one.p:.2g}", f"{one.adjusted_p:.2g}", one.verdict]
        else:
            cells += ["the baseline" if name == baseline else "too few seeds", "", "", ""]
        rows.append(cells)
    columns = ("schedule", "best peak", "mean (95%)", f"against {baseline} (95%)", "p", "p by Holm", "verdict")
    return table(columns, rows)


def peak_table(values: Mapping[str, pd.DataFrame], higher: bool) -> list[str]:
    """Return the mean over the seeds at every peak."""
    peaks = sorted({peak for of_schedule in values.values() for peak in of_schedule})
    rows = []
    for name, of_schedule in values.items():
        cells = {peak: f"{mean:.4g}" for peak, mean in of_schedule.mean().dropna().items()}
        if (best := best_peak(of_schedule, higher)) is not None:
            cells[best] = f"**{cells[best]}**"
        rows.append([_code(name), *(cells.get(peak, "-") for peak in peaks)])
    return table(["mean at a peak of", *(f"{peak:g}" for peak in peaks)], rows)


def budget_table(runs: pd.DataFrame, budgets: Mapping[int, int] = BUDGETS) -> list[str]:
    """Return a row for each budget, over the seeds whose trainings all succeeded, and the steps of both ways."""
    succeeded = runs.dropna(subset="value")
    values = succeeded.pivot(index="seed", columns=["schedule", "steps"], values="value").dropna()
    differences = {budget: values[WSD, budget] - values[COSINE, budget] for budget in budgets}
    ps = {str(budget): paired_t(each) for budget, each in differences.items()}
    adjusted = holm(ps)
    rows = []
    for budget, each in differences.items():
        means = (f"{Interval.of_mean(values[name, budget].tolist())}" for name in (COSINE, WSD))
        tests = (f"{every[str(budget)]:.2g}" for every in (ps, adjusted))
        rows.append([budget, *means, f"{Interval.of_mean(each.tolist()):+}", *tests])
    cosine, wsd = sum(budgets), max(budgets) + sum(budgets.values()) - budgets[max(budgets)]
    ways = ("cosine, a separate run (95%)", "wsd, a branch with a cooldown (95%)")
    return [
        *table(["steps of the model", *ways, "difference (95%)", "p", "p by Holm"], rows),
        "",
        f"Optimizer steps for the three models: {wsd} by one `wsd` run and two branches, {cosine} by three cosine "
        f"runs: {wsd / cosine:.1%}. Seeds {', '.join(map(str, values.index))}.",
    ]


def draw(
    values: Mapping[str, pd.DataFrame], compared: dict[str, Compared], file: Path, metric: str, baseline: str
) -> None:
    """Draw the mean at every peak (left) and the differences to the baseline with their intervals (right)."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    means = pd.DataFrame({name: of_schedule.mean() for name, of_schedule in values.items()})
    means.plot(ax=left, style="o-", logx=True, xlabel="peak learning rate", ylabel=metric, legend=False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    for name, one in reversed(compared.items()):
        error = [[one.difference.center - one.difference.low], [one.difference.high - one.difference.center]]
        color = {"better": "C2", "worse": "C3"}.get(one.verdict, "0.4")
        right.errorbar(one.difference.center, name, xerr=error, fmt="o", capsize=3, color=color)
    right.axvline(0, color="black", linewidth=1)
    right.set(xlabel=f"{metric} minus that of {baseline} (95%)")
    figure.savefig(file, dpi=150)


def _code(name: str) -> str:
    # A phase text contains bars, which would end the cell.
    return "`" + name.replace("|", "\\|") + "`"
