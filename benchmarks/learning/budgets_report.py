"""What `budgets.py` found: the models of each budget side by side, and the steps that both ways took."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from benchmarks.learning.comparison import LEVEL, holm, mean_interval, paired_t
from benchmarks.learning.report import footer, format_estimate, write_csv
from benchmarks.learning.trials import Outcome

COSINE, WSD = "cosine", "wsd"
MORE = ("budget", "trained")
"""Facts of a training beside those that all benchmarks have, in optimizer steps."""


def write_report(
    outcomes: Sequence[Outcome], folder: Path, cooldown: Fraction, *, metric: str, command: Sequence[str], left: int
) -> None:
    """Write report.md and runs.csv; `left` is how many trainings have not been done.

    Raises:
        ValueError: No seed has been done with every training.
    """
    write_csv(outcomes, folder / "runs.csv", metric, MORE)
    lines = [
        f"# {metric} of three budgets",
        "",
        *([f"**{left} trainings have not been done yet.**", ""] if left else []),
        *table(outcomes),
        "",
        f"A cooldown is {float(cooldown):.0%} of its budget. Intervals are Student's t over seeds, tests paired by "
        "seed, two-sided, adjusted by Holm's method.",
        "",
        *footer(command),
    ]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """A row for each budget, over the seeds that have been done with all of them; and the steps of both ways."""
    values = {(one.facts["schedule"], one.facts["budget"], one.facts["seed"]): one.value for one in outcomes}
    budgets = sorted({budget for _, budget, _ in values})
    seeds = [
        seed
        for seed in sorted({seed for *_, seed in values})
        if all(values.get((name, budget, seed)) is not None for name in (COSINE, WSD) for budget in budgets)
    ]
    if not seeds:
        raise ValueError("no seed has been done with every training: give a larger `--budget_minutes`")

    def of(name: str, budget: int) -> list[float]:
        return [values[name, budget, seed] or 0.0 for seed in seeds]

    differences = {
        budget: [b - a for a, b in zip(of(COSINE, budget), of(WSD, budget), strict=True)] for budget in budgets
    }
    ps = {str(budget): paired_t(each) if len(seeds) > 1 else 1.0 for budget, each in differences.items()}
    adjusted = holm(ps)
    rows = [
        f"| steps of the model | cosine, a run of its own ({LEVEL:.0%}) | wsd, a cooldown of its own ({LEVEL:.0%}) "
        f"| difference ({LEVEL:.0%}) | p | p by Holm |",
        "|---|---|---|---|---|---|",
    ]
    for budget, each in differences.items():
        means = " | ".join(format_estimate(mean_interval(of(name, budget))) for name in (COSINE, WSD))
        by = format_estimate(mean_interval(each), sign="+")
        rows.append(f"| {budget} | {means} | {by} | {ps[str(budget)]:.2g} | {adjusted[str(budget)]:.2g} |")
    cosine, wsd = (
        sum(one.facts["trained"] for one in outcomes if (one.facts["schedule"], one.facts["seed"]) == (name, seeds[0]))
        for name in (COSINE, WSD)
    )
    steps = (
        f"Optimizer steps for the three models: {wsd} by one `wsd` run and two branches, {cosine} by three cosine "
        f"runs: {wsd / cosine:.1%}. Seeds {', '.join(map(str, seeds))}."
    )
    return [*rows, "", steps]
