"""The pictures of a report, one panel each: the learning rate, and each quantity that was logged."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.audit import AuditReport
from hf_sched.finetune.reports.run_folder import RunFolder
from hf_sched.plots import figures as plotting

Array = npt.NDArray[np.float64]
Curve = tuple[Array, Array]
"""Optimizer steps, and values at these steps."""

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


@dataclass(frozen=True)
class Panel:
    """A picture with one pair of axes."""

    name: str
    title: str
    draw: Callable[[Any], None]

    def png(self) -> bytes:
        """Draw the picture."""
        figure, (ax,) = plotting.new_figure(1)
        self.draw(ax)
        ax.set_title(self.title)
        ax.set_xlabel("optimizer step")
        ax.xaxis.get_major_locator().set_params(integer=True)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()


def panels_of_run(run: RunFolder) -> list[Panel]:
    """The learning rate, planned and actual, and every logged quantity of `CURVES`."""
    panels = []
    if isinstance(run.audit, AuditReport) or "learning_rate" in run.keys:
        panels.append(_panel("learning rate", lambda ax: _draw_learning_rate(ax, run)))
    for key, title in CURVES.items():
        if key in run.keys:
            title = "reward" if key == "reward" and len(run.rewards) < 2 else title
            panels.append(_panel(title, lambda ax, key=key: _draw_logged(ax, run, key)))  # type: ignore[misc]
    return panels


def panels_of_comparison(runs: Sequence[RunFolder]) -> list[Panel]:
    """The curves of all runs on shared axes."""
    panels = [_panel("learning rate", lambda ax: _draw_runs(ax, {run.name: _rates(run) for run in runs}, 0))]
    # The losses of GRPO and SFT have only the name in common.
    for key, title in CURVES.items() if len({run.is_rl for run in runs}) == 1 else []:
        curves = {run.name: _smooth(*run.logged(key)) for run in runs}
        if sum(len(steps) > 0 for steps, _ in curves.values()) > 1:
            title = "reward" if key == "reward" else title
            panels.append(_panel(title, lambda ax, curves=curves: _draw_runs(ax, curves)))  # type: ignore[misc]
    return panels


def _panel(title: str, draw: Callable[[Any], None]) -> Panel:
    return Panel(re.sub(r"\W+", "_", title).strip("_"), title, draw)


def _draw_learning_rate(ax: Any, run: RunFolder) -> None:
    steps, rates = _thin(*_rates(run))
    planned = _planned(run)
    if planned is not None and isinstance(run.audit, AuditReport):
        plotting.draw_planned_and_actual(ax, planned, steps, rates, name=run.audit.record.plans[-1].name)
    else:
        ax.plot(steps, rates, ".", color=plotting.COLORS[1], markersize=3, label="actual")
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    _mark_changes(ax, run)
    _legend(ax, _shade_phases(ax, run))


def _draw_logged(ax: Any, run: RunFolder, key: str) -> None:
    steps, values = run.logged(key)
    marker = "." if len(steps) < 20 else ""
    ax.plot(*_thin(steps, values), color=plotting.COLORS[0], linewidth=0.8, alpha=0.4, marker=marker)
    with_parts = key == "reward" and len(run.rewards) > 1
    label = "reward" if with_parts else f"mean of {_window(values)}"
    ax.plot(*_thin(*_smooth(steps, values)), color=plotting.COLORS[0], linewidth=1.8, label=label)
    for number, part in enumerate(run.rewards if with_parts else []):
        name = part.removeprefix("rewards/").removesuffix("/mean")
        color = plotting.COLORS[1 + number % (len(plotting.COLORS) - 1)]
        ax.plot(*_thin(*_smooth(*run.logged(part))), color=color, linewidth=1.2, label=_short(name))
    if values.min() >= 0 and key != "loss" and key != "eval_loss":
        ax.set_ylim(bottom=0, top=None if values.max() > 0 else 1)
    _mark_changes(ax, run)
    _legend(ax)


def _draw_runs(ax: Any, curves: Mapping[str, Curve], bottom: float | None = None) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        color = plotting.COLORS[number % len(plotting.COLORS)]
        line = ("-", "--", ":")[number // len(plotting.COLORS) % 3]  # once all colors are used
        ax.plot(*_thin(*curve), line, color=color, linewidth=1.5, label=_short(name))
    ax.set_ylim(bottom=bottom)
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    _legend(ax)


def _mark_changes(ax: Any, run: RunFolder) -> None:
    """Mark resumes, cooldown requests and the departure from the plan: other changes may come from these."""
    for number, step in enumerate(run.resumes):
        label = "resumed" if number == 0 else None
        ax.axvline(step - 0.5, color="0.35", linewidth=1.2, linestyle=(0, (4, 3)), label=label)
    if not isinstance(run.audit, AuditReport):
        return
    for step in {plan.cooldown.step for plan in run.audit.record.plans if plan.cooldown}:
        ax.axvline(step - 0.5, color="0.35", linewidth=1.2, linestyle="-.", label="cooldown requested")
    if run.audit.departs is not None:
        label = f"off the plan from step {run.audit.departs + 1}"
        ax.axvline(run.audit.departs - 0.5, color="#C00000", linewidth=1.2, linestyle=":", label=label)


def _shade_phases(ax: Any, run: RunFolder) -> list[Any]:
    plans = run.audit.record.plans if isinstance(run.audit, AuditReport) else []
    schedule = plans[0].schedule if len(plans) == 1 else None
    if schedule is None:
        return []
    limits = ax.get_xlim()
    shaded = plotting.shade_phases(ax, schedule)
    ax.set_xlim(limits)
    return shaded


def _legend(ax: Any, more: Sequence[Any] = ()) -> None:
    # Matplotlib compares the best place with every point of every line, which takes seconds on a long run.
    place = "best" if sum(len(line.get_xdata()) for line in ax.lines) < 20_000 else "upper right"
    ax.legend(handles=[*ax.get_legend_handles_labels()[0], *more], frameon=False, fontsize=9, loc=place)


def _rates(run: RunFolder) -> Curve:
    """The learning rates of the audit, which knows every step if the run recorded them; else the logged ones."""
    if isinstance(run.audit, AuditReport) and run.audit.comparisons:
        compared = run.audit.comparisons[0]
        return compared.steps.astype(np.float64), compared.actual
    return run.logged("learning_rate")


def _planned(run: RunFolder) -> Array | None:
    try:
        return run.audit.curve() if isinstance(run.audit, AuditReport) else None
    except ValueError:  # the schedule follows a metric
        return None


def _window(values: Array) -> int:
    return max(1, min(_WINDOW, len(values) // 2))


def _smooth(steps: Array, values: Array) -> Curve:
    """The moving average."""
    if not len(values):
        return steps, values
    window = _window(values)
    first = (window - 1) // 2
    means = np.convolve(values, np.ones(window) / window, mode="valid")
    return steps[first : first + len(means)], means


def _thin(steps: Array, values: Array) -> Curve:
    """At most 2,000 points: the smallest and the largest value of each part of a longer curve."""
    if len(steps) <= 2 * _MOST_BINS:
        return steps, values
    edges = np.linspace(0, len(steps), _MOST_BINS + 1).astype(int)
    parts = [slice(first, stop) for first, stop in itertools.pairwise(edges)]
    extremes = {part.start + int(find(values[part])) for part in parts for find in (np.argmin, np.argmax)}
    kept = np.array(sorted(extremes))
    return steps[kept], values[kept]


def _short(name: str) -> str:
    shown = name.replace("$", r"\$")  # Matplotlib would read it as a formula
    return f"...{shown[-29:]}" if len(shown) > 32 else shown
