"""What `budgets.py` found: the models of each budget side by side, and the steps that both ways took."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from learning_report import format_estimate, where, write_csv
from paired_seeds import LEVEL, holm, mean_interval, paired_t
from trials import Outcome

if TYPE_CHECKING:
    from budgets import Budget

COSINE, WSD = "cosine", "wsd"


def write_report(
    outcomes: Sequence[Outcome],
    folder: Path,
    budgets: Sequence[Budget],
    *,
    metric: str,
    command: Sequence[str],
    left: int,
) -> None:
    """Write report.md and runs.csv; `left` is how many trainings have not been done.

    Raises:
        ValueError: No seed has been done with every training.
    """
    write_csv(outcomes, folder / "runs.csv", metric, more=("budget", "trained"))
    values = {(one.facts["schedule"], one.facts["budget"], one.facts["seed"]): one.value for one in outcomes}
    wanted = [(name, one.steps) for name in (COSINE, WSD) for one in budgets]
    seeds = sorted({seed for *_, seed in values})
    seeds = [seed for seed in seeds if all(values.get((*each, seed)) is not None for each in wanted)]
    if not seeds:
        raise ValueError("no seed has been done with every training: give a larger `--budget_minutes`")

    def of(name: str, steps: int) -> list[float]:
        return [values[name, steps, seed] or 0.0 for seed in seeds]

    differences = {
        str(one.steps): [b - a for a, b in zip(of(COSINE, one.steps), of(WSD, one.steps), strict=True)]
        for one in budgets
    }
    ps = {name: paired_t(each) if len(seeds) > 1 else float("nan") for name, each in differences.items()}
    adjusted = holm(ps)
    rows = [
        f"| steps of the model | cosine, a run of its own ({LEVEL:.0%}) | wsd, a cooldown of its own ({LEVEL:.0%}) "
        f"| difference ({LEVEL:.0%}) | p | p by Holm |",
        "|---|---|---|---|---|---|",
    ]
    for one in budgets:
        name = str(one.steps)
        cells = [mean_interval(of(COSINE, one.steps)), mean_interval(of(WSD, one.steps))]
        by = format_estimate(mean_interval(differences[name]), sign="+")
        told = " | ".join(map(format_estimate, cells))
        rows.append(f"| {name} | {told} | {by} | {ps[name]:.2g} | {adjusted[name]:.2g} |")
    cosine, wsd = (
        sum(one.facts["trained"] for one in outcomes if one.facts["schedule"] == name and one.facts["seed"] == seeds[0])
        for name in (COSINE, WSD)
    )
    whole = budgets[-1]
    lines = [
        f"# {metric} of three budgets",
        "",
        *([f"**{left} trainings have not been done yet.**", ""] if left else []),
        *rows,
        "",
        f"Optimizer steps for the three models: {wsd} by one `wsd` run and two branches, {cosine} by three cosine "
        f"runs: {wsd / cosine:.1%}. A cooldown is {whole.cooldown / whole.steps:.0%} of its budget. Seeds "
        f"{', '.join(map(str, seeds))}; intervals are Student's t, tests paired by seed, two-sided, adjusted by Holm's "
        "method.",
        "",
        f"{date.today()}; {where()}.",
        "",
        "```",
        "python " + shlex.join(command),
        "```",
    ]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
