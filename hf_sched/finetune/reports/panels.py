"""The pictures of a report, one panel each: the learning rate, and each quantity that was logged."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from hf_sched.audit import AuditReport
from hf_sched.finetune.reports.run_folder import Array, Curve, RunFolder
from hf_sched.plots import figures as plotting

Panels = dict[str, Callable[[Any], None]]
"""By title, the functions that draw on a pair of axes."""

# What is drawn if it was logged: the key, and the panel's title.
CURVES = {
    "loss": "loss",
    "eval_loss": "loss on the evaluation split",
    "reward": "reward and its parts",
    "completions/mean_length": "completion length (tokens)",
    "completions/clipped_ratio": "share of truncated completions",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "entropy": "entropy of the tokens",
    "grad_norm": "gradient norm",
}
_WINDOW = 10
_MOST_BINS = 1000


def draw_panels(panels: Panels, name: str) -> dict[str, tuple[str, bytes]]:
    """Draw each panel; its title and the PNG file by the name of the file."""
    drawn = {}
    for title, draw in panels.items():
        figure, (ax,) = plotting.new_figure(1)
        draw(ax)
        ax.set_title(title)
        ax.set_xlabel("optimizer step")
        ax.xaxis.get_major_locator().set_params(integer=True)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        drawn[re.sub(r"[^\w.-]+", "_", f"{name}_{title}").strip("_") + ".png"] = title, file.getvalue()
    return drawn


def panels_of_run(run: RunFolder) -> Panels:
    """The learning rate, planned and actual, and every logged quantity of `CURVES`."""
    panels: Panels = {}
    if len(_rates(run)[0]):
        panels["learning rate"] = partial(_draw_learning_rate, run=run)
    return panels | {
        title: partial(_draw_logged, run=run, key=key) for key, title in CURVES.items() if key in run.curves
    }


def panels_of_comparison(runs: Sequence[RunFolder]) -> Panels:
    """The curves of all runs on shared axes."""
    panels: Panels = {"learning rate": partial(_draw_runs, curves={run.name: _rates(run) for run in runs}, bottom=0)}
    # The losses of GRPO and SFT have only the name in common.
    for key, title in CURVES.items() if len({"reward" in run.curves for run in runs}) == 1 else []:
        curves = {run.name: _smooth(*run.curves[key]) for run in runs if key in run.curves}
        if len(curves) > 1:
            panels[title.removesuffix(" and its parts")] = partial(_draw_runs, curves=curves)
    return panels


def _draw_learning_rate(ax: Any, run: RunFolder) -> None:
    steps, rates = _thin(*_rates(run))
    phases = []
    planned = None
    if isinstance(run.audit, AuditReport):
        with suppress(ValueError):  # the schedule follows a metric
            planned = run.audit.curve()
    if planned is not None and isinstance(run.audit, AuditReport):
        plans = run.audit.record.plans
        plotting.draw_planned_and_actual(ax, planned, steps, rates, name=plans[-1].name)
        if len(plans) == 1 and plans[0].schedule:
            limits = ax.get_xlim()
            phases = plotting.shade_phases(ax, plans[0].schedule)
            ax.set_xlim(limits)
    else:
        ax.plot(steps, rates, ".", color=plotting.COLORS[1], markersize=3, label="actual")
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    _mark_changes(ax, run)
    _legend(ax, phases)


def _draw_logged(ax: Any, run: RunFolder, key: str) -> None:
    steps, values = run.curves[key]
    parts = run.rewards if key == "reward" else []
    marker = "." if len(steps) < 20 else ""
    ax.plot(*_thin(steps, values), color=plotting.COLORS[0], linewidth=0.8, alpha=0.4, marker=marker)
    label = "reward" if parts else f"mean of {window(values)}"
    ax.plot(*_thin(*_smooth(steps, values)), color=plotting.COLORS[0], linewidth=1.8, label=label)
    for part, color in zip(parts, itertools.cycle(plotting.COLORS[1:]), strict=False):
        name = part.removeprefix("rewards/").removesuffix("/mean")
        ax.plot(*_thin(*_smooth(*run.curves[part])), color=color, linewidth=1.2, label=_short(name))
    if values.min() >= 0 and key not in ("loss", "eval_loss"):
        ax.set_ylim(bottom=0, top=None if values.max() > 0 else 1)
    _mark_changes(ax, run)
    _legend(ax)


def _draw_runs(ax: Any, curves: Mapping[str, Curve], bottom: float | None = None) -> None:
    styles = itertools.product(("-", "--", ":"), plotting.COLORS)
    for (name, curve), (line, color) in zip(curves.items(), itertools.cycle(styles), strict=False):
        ax.plot(*_thin(*curve), line, color=color, linewidth=1.5, label=_short(name))
    ax.set_ylim(bottom=bottom)
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    _legend(ax)


def _mark_changes(ax: Any, run: RunFolder) -> None:
    """Mark resumes, cooldown requests and the departure from the plan: other changes may come from these."""
    marks = [(step, "resumed", "0.35", "--") for step in run.resumes]
    if isinstance(run.audit, AuditReport):
        cooldowns = {plan.cooldown.step for plan in run.audit.record.plans if plan.cooldown}
        marks += [(step, "cooldown requested", "0.35", "-.") for step in cooldowns]
        if (step := run.audit.departs) is not None:
            marks.append((step, f"off the plan from step {step + 1}", "#C00000", ":"))
    for step, label, color, line in marks:
        known = ax.get_legend_handles_labels()[1]
        ax.axvline(step - 0.5, color=color, linewidth=1.2, linestyle=line, label=None if label in known else label)


def _legend(ax: Any, more: Sequence[Any] = ()) -> None:
    # Matplotlib compares the best place with every point of every line, which takes seconds on a long run.
    place = "best" if sum(len(line.get_xdata()) for line in ax.lines) < 20_000 else "upper right"
    ax.legend(handles=[*ax.get_legend_handles_labels()[0], *more], frameon=False, fontsize=9, loc=place)


def _rates(run: RunFolder) -> Curve:
    """The learning rates of the audit, which knows every step if the run recorded them; else the logged ones."""
    if isinstance(run.audit, AuditReport):
        compared = run.audit.comparisons[0]
        return compared.steps.astype(np.float64), compared.actual
    return run.curves.get("learning_rate", (np.empty(0), np.empty(0)))


def window(values: Array) -> int:
    """How many values are averaged, because one alone is noise: ten, or fewer if there are few."""
    return max(1, min(_WINDOW, len(values) // 2))


def _smooth(steps: Array, values: Array) -> Curve:
    width = window(values)
    first = (width - 1) // 2
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    return steps[first : first + len(means)], means


def _thin(steps: Array, values: Array) -> Curve:
    """At most 2,000 points: the smallest and the largest value of each part of a longer curve."""
    if len(steps) <= 2 * _MOST_BINS:
        return steps, values
    edges = np.linspace(0, len(steps), _MOST_BINS + 1).astype(int)
    parts = [slice(first, stop) for first, stop in itertools.pairwise(edges)]
    kept = np.array(sorted({part.start + int(find(values[part])) for part in parts for find in (np.argmin, np.argmax)}))
    return steps[kept], values[kept]


def _short(name: str) -> str:
    shown = name.replace("$", r"\$")  # Matplotlib would read it as a formula
    return f"...{shown[-29:]}" if len(shown) > 32 else shown
