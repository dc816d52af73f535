"""The pictures of a report, one panel each: the learning rate, and each quantity that was logged."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import rc_context

from hf_sched.audit import AuditReport
from hf_sched.audit.run_record import Comparison
from hf_sched.finetune.reports.run_folder import Array, Curve, RunFolder
from hf_sched.plots import figures as plotting

Panels = dict[str, Callable[[Any], None]]
"""By title, the functions that draw on a pair of axes."""

_MOST_GROUPS = 6

# What is drawn if it was logged: the key, and the panel's title.
CURVES = {
    "loss": "loss",
    "eval_loss": "loss on the evaluation split",
    "reward": "reward",
    "completions/mean_length": "completion length (tokens)",
    "completions/clipped_ratio": "share of truncated completions",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "entropy": "entropy of the tokens",
    "grad_norm": "gradient norm",
}


def draw_panels(panels: Panels, name: str, pictures: dict[str, bytes]) -> list[str]:
    """Draw each panel into `pictures`, as a PNG by the name of its file; returns lines that show them."""
    lines = []
    for title, draw in panels.items():
        figure, (ax,) = plotting.new_figure(1)
        draw(ax)
        ax.set_title(title)
        ax.set_xlabel("optimizer step")
        ax.xaxis.get_major_locator().set_params(integer=True)
        # Matplotlib compares the best place with every point of every line, which takes seconds on a long run.
        place = "best" if sum(len(line.get_xdata()) for line in ax.lines) < 20_000 else "upper right"
        ax.legend(frameon=False, fontsize=9, loc=place)
        content = io.BytesIO()
        with rc_context({"agg.path.chunksize": 10_000, "path.simplify_threshold": 1.0}):  # 10 times as fast
            figure.savefig(content, format="png")
        file = re.sub(r"[^\w.-]+", "_", f"{name}_{title}").strip("_") + ".png"
        pictures[file] = content.getvalue()
        lines.append(f"![{title}]({file})")
    return [*lines, ""]


def panels_of_run(run: RunFolder) -> Panels:
    """The learning rate, planned and actual, and every logged quantity of `CURVES`."""
    panels: Panels = {"learning rate": partial(_draw_learning_rate, run=run)} if len(_rates(run)[0]) else {}
    for one in run.audit.comparisons if isinstance(run.audit, AuditReport) else ():
        if one.is_hyperparameter:
            panels[one.label.rpartition("/")[2]] = partial(_draw_hyperparameter, compared=one)
    for key, title in CURVES.items():
        if key in run.curves:
            keys = [key, *run.rewards] if key == "reward" else [key]
            panels[title] = partial(_draw_logged, run=run, keys=keys)
    return panels


def panels_of_comparison(runs: Sequence[RunFolder]) -> Panels:
    """The curves of all runs on shared axes."""
    panels: Panels = {"learning rate": partial(_draw_curves, curves={run.name: _rates(run) for run in runs})}
    # The losses of GRPO and SFT have only the name in common.
    for key, title in CURVES.items() if len({"reward" in run.curves for run in runs}) == 1 else ():
        curves = {run.name: _smooth(*run.curves[key]) for run in runs if key in run.curves}
        if len(curves) > 1:
            panels[title] = partial(_draw_curves, curves=curves)
    return panels


def _draw_learning_rate(ax: Any, run: RunFolder) -> None:
    # Without a plan, or under a schedule that follows a metric, there is nothing to compare with.
    if isinstance(run.audit, AuditReport) and not np.isnan(run.audit.comparisons[0].planned).any():
        name = run.audit.record.plans[-1].name
        plotting.draw_planned_and_actual(ax, run.audit.curve(), *_rates(run), name=name)
        others = [one for one in run.audit.comparisons[1:] if not one.is_hyperparameter]
        for one, color in zip(others[:_MOST_GROUPS], itertools.cycle(plotting.COLORS[2:5]), strict=False):
            ax.plot(one.steps, one.actual, color=color, linewidth=1.2, label=one.label)
        ax.legend(frameon=False)
    else:
        _draw_curves(ax, {"actual": _rates(run)})
    _mark_changes(ax, run)


def _draw_logged(ax: Any, run: RunFolder, keys: Sequence[str]) -> None:
    ax.plot(*run.curves[keys[0]], color=plotting.COLORS[0], linewidth=0.8, alpha=0.4)
    _draw_curves(ax, {key.removeprefix("rewards/").removesuffix("/mean"): _smooth(*run.curves[key]) for key in keys})
    _mark_changes(ax, run)


def _draw_hyperparameter(ax: Any, compared: Comparison) -> None:
    planned = np.full(compared.steps[-1] + 1, np.nan)
    planned[compared.steps] = compared.planned
    name = compared.label.rpartition("/")[2]
    plotting.draw_planned_and_actual(ax, planned, compared.steps, compared.actual, name=name, ylabel="value")


def _draw_curves(ax: Any, curves: Mapping[str, Curve]) -> None:
    for (name, (steps, values)), color in zip(curves.items(), itertools.cycle(plotting.COLORS), strict=False):
        label = name.replace("$", r"\$")  # Matplotlib would read it as a formula
        label = f"...{label[-29:]}" if len(label) > 32 else label
        marker = "." if len(steps) < 20 else ""
        ax.plot(steps, values, color=color, linewidth=1.5, marker=marker, label=label)
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))


def _mark_changes(ax: Any, run: RunFolder) -> None:
    """Mark resumes, live cooldowns and the departure from the plan: other changes may come from these."""
    marks = [(step, "resumed", "0.35", "--") for step in run.resumes]
    if isinstance(run.audit, AuditReport):
        cooldowns = {plan.cooldown.step for plan in run.audit.record.plans if plan.cooldown}
        marks += [(step, "live cooldown", "0.35", "-.") for step in cooldowns]
        if (step := run.audit.departs) is not None:
            marks.append((step, f"off the plan from step {step + 1}", "#C00000", ":"))
    for step, label, color, line in marks:
        known = ax.get_legend_handles_labels()[1]
        ax.axvline(step - 0.5, color=color, linewidth=1.2, linestyle=line, label=None if label in known else label)


def _rates(run: RunFolder) -> Curve:
    """The learning rates of the audit, which knows every step if the run recorded them; else the logged ones."""
    if isinstance(run.audit, AuditReport):
        compared = run.audit.comparisons[0]
        return compared.steps.astype(np.float64), compared.actual
    return run.curves.get("learning_rate", (np.empty(0), np.empty(0)))


def window(values: Array) -> int:
    """How many values are averaged, because one alone is noise: ten, or fewer if there are few."""
    return max(1, min(10, len(values) // 2))


def _smooth(steps: Array, values: Array) -> Curve:
    width = window(values)
    first = (width - 1) // 2
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    return steps[first : first + len(means)], means
