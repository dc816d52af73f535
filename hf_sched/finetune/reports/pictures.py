"""The pictures of a report: each panel for itself on a page, in rows of three beside a Markdown file."""

from __future__ import annotations

import io
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

# What is drawn, where it was logged: the key, and the panel's title.
CURVES = {
    "loss": "loss",
    "eval_loss": "loss on the evaluation split",
    "reward": "reward and its parts",
    "completions/mean_length": "completion length (tokens)",
    "completions/clipped_ratio": "share of completions cut off",
    "frac_reward_zero_std": "share of groups without a spread of reward",
    "entropy": "entropy of the tokens",
}
IN_A_ROW = 3
_WINDOW = 10


@dataclass(frozen=True)
class Panel:
    """One axes."""

    title: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Picture:
    """A row of panels, a file beside the Markdown."""

    name: str
    panels: Sequence[Panel]

    @property
    def alt(self) -> str:
        """What it shows."""
        return ", ".join(panel.title for panel in self.panels)

    def png(self) -> bytes:
        """All panels side by side."""
        return _png(self.panels)

    def pngs(self) -> list[tuple[str, bytes]]:
        """Each panel for itself, under its title."""
        return [(panel.title, _png([panel])) for panel in self.panels]


def pictures_of_run(run: RunFolder) -> list[Picture]:
    """The learning rate, planned and actual, and all that was logged of CURVES."""
    panels = []
    if isinstance(run.audit, AuditReport) or "learning_rate" in run.keys:
        panels.append(Panel("learning rate", lambda ax: _draw_learning_rate(ax, run)))
    for key, title in CURVES.items():
        if key in run.keys:
            title = "reward" if key == "reward" and len(run.rewards) < 2 else title
            panels.append(Panel(title, lambda ax, key=key: _draw_logged(ax, run, key)))  # type: ignore[misc]
    return _in_rows(panels, run.name)


def pictures_of_comparison(runs: Sequence[RunFolder]) -> list[Picture]:
    """The curves of all runs over each other."""
    panels = [Panel("learning rate", lambda ax: _overlay(ax, {run.name: _learning_rate(run) for run in runs}, 0))]
    # A loss of GRPO and one of SFT have nothing but the name in common.
    for key, title in CURVES.items() if len({run.is_rl for run in runs}) == 1 else []:
        curves = {run.name: _smooth(*run.logged(key)) for run in runs}
        # Of one run alone it is in its own section.
        if sum(len(steps) > 0 for steps, _ in curves.values()) > 1:
            title = "reward" if key == "reward" else title
            panels.append(Panel(title, lambda ax, curves=curves: _overlay(ax, curves)))  # type: ignore[misc]
    return _in_rows(panels, "comparison")


def _in_rows(panels: Sequence[Panel], name: str) -> list[Picture]:
    stem = re.sub(r"[^\w.-]+", "_", name)
    rows = [panels[start : start + IN_A_ROW] for start in range(0, len(panels), IN_A_ROW)]
    return [Picture(f"{stem}{f'_{number}' if number > 1 else ''}.png", row) for number, row in enumerate(rows, start=1)]


def _png(panels: Sequence[Panel]) -> bytes:
    figure, axes = plotting.new_figure(len(panels))
    for ax, panel in zip(axes, panels, strict=True):
        panel.draw(ax)
        ax.set_title(panel.title)
        ax.set_xlabel("optimizer step")
        ax.xaxis.get_major_locator().set_params(integer=True)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_learning_rate(ax: Any, run: RunFolder) -> None:
    steps, rates = _learning_rate(run)
    planned = _planned(run)
    if planned is not None:
        plotting.draw_planned_and_actual(ax, planned, steps, rates, name=_name(run))
    else:
        ax.plot(steps, rates, ".", color=plotting.COLORS[1], markersize=3, label="actual")
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    _mark_changes(ax, run)
    _legend(ax, _shade_phases(ax, run))


def _draw_logged(ax: Any, run: RunFolder, key: str) -> None:
    steps, values = run.logged(key)
    ax.plot(steps, values, color=plotting.COLORS[0], linewidth=0.8, alpha=0.4, marker="." if len(steps) < 20 else "")
    smooth = _smooth(steps, values)
    label = "reward" if key == "reward" and len(run.rewards) > 1 else f"mean of {_window(values)}"
    ax.plot(*smooth, color=plotting.COLORS[0], linewidth=1.8, label=label)
    if key == "reward" and len(run.rewards) > 1:
        for number, part in enumerate(run.rewards):
            name = part.removeprefix("rewards/").removesuffix("/mean")
            color = plotting.COLORS[1 + number % (len(plotting.COLORS) - 1)]
            ax.plot(*_smooth(*run.logged(part)), color=color, linewidth=1.2, label=_short(name))
    if values.min() >= 0 and key != "loss" and key != "eval_loss":
        ax.set_ylim(bottom=0, top=None if values.max() > 0 else 1)
    _mark_changes(ax, run)
    _legend(ax)


def _overlay(ax: Any, curves: Mapping[str, tuple[Array, Array]], bottom: float | None = None) -> None:
    for number, (name, (steps, values)) in enumerate(curves.items()):
        color = plotting.COLORS[number % len(plotting.COLORS)]
        # More runs than colours: dashed, then dotted.
        line = ("-", "--", ":")[number // len(plotting.COLORS) % 3]
        ax.plot(steps, values, line, color=color, linewidth=1.5, label=_short(name))
    ax.set_ylim(bottom=bottom)
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    _legend(ax)


def _mark_changes(ax: Any, run: RunFolder) -> None:
    """Where it was resumed or told to cool down, and where it leaves the plan: what else changes may come from that."""
    for number, step in enumerate(run.resumes):
        label = "resumed" if number == 0 else None
        ax.axvline(step - 0.5, color="0.35", linewidth=1.2, linestyle=(0, (4, 3)), label=label)
    if not isinstance(run.audit, AuditReport):
        return
    for step in {plan.cooldown.step for plan in run.audit.record.plans if plan.cooldown}:
        ax.axvline(step - 0.5, color="0.35", linewidth=1.2, linestyle="-.", label="told to cool down")
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
    ax.legend(handles=[*ax.get_legend_handles_labels()[0], *more], frameon=False, fontsize=9)


def _learning_rate(run: RunFolder) -> tuple[Array, Array]:
    """By the audit, which knows every step where the run wrote them down; else what was logged."""
    if isinstance(run.audit, AuditReport) and run.audit.comparisons:
        seen = run.audit.comparisons[0]
        return seen.steps.astype(np.float64), seen.actual
    return run.logged("learning_rate")


def _planned(run: RunFolder) -> Array | None:
    try:
        return run.audit.curve() if isinstance(run.audit, AuditReport) else None
    except ValueError:  # it follows a metric
        return None


def _name(run: RunFolder) -> str:
    assert isinstance(run.audit, AuditReport)
    return run.audit.record.plans[-1].name


def _window(values: Array) -> int:
    return max(1, min(_WINDOW, len(values) // 2))


def _smooth(steps: Array, values: Array) -> tuple[Array, Array]:
    """The mean of each and its neighbours."""
    if not len(values):
        return steps, values
    window = _window(values)
    first = (window - 1) // 2
    means = np.convolve(values, np.ones(window) / window, mode="valid")
    return steps[first : first + len(means)], means


def _short(name: str) -> str:
    shown = name.replace("$", r"\$")  # which matplotlib would read as a formula
    return f"...{shown[-29:]}" if len(shown) > 32 else shown
