"""Matplotlib figures of schedules. Requires the `plot` extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from hf_sched.schedules.schedule import Schedule

# Distinguishable with color blindness (Okabe and Ito 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINE_STYLES = ("-", "--", ":", "-.")  # for more curves than colors
PHASE_COLORS = {"warmup": "#E69F00", "hold": "#999999", "decay": "#56B4E9", "restart": "#009E73"}


def new_figure(panels: int, size: tuple[float, float] | None = None) -> tuple[Any, list[Any]]:
    """Create a figure with `panels` axes side by side, without a screen or pyplot state.

    Args:
        panels: The number of axes.
        size: Width and height in inches; by default it depends on `panels`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size or (5.2 * panels, 3.6), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False).flatten())
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure, axes


def draw_curves(ax: Axes, curves: Mapping[str, npt.ArrayLike]) -> None:
    """Draw labeled learning rates of shape (num_training_steps,) over the optimizer steps from 0."""
    for number, (label, curve) in enumerate(curves.items()):
        style = LINE_STYLES[number // len(COLORS) % len(LINE_STYLES)]
        ax.plot(curve, label=label, color=COLORS[number % len(COLORS)], linestyle=style, linewidth=1.8)
    _finish_learning_rate(ax)


def draw_planned_and_actual(
    ax: Axes,
    planned: npt.ArrayLike,
    steps: npt.ArrayLike,
    actual: npt.ArrayLike,
    *,
    name: str,
    ylabel: str = "learning rate",
) -> None:
    """Draw the planned value of every step as a band, and the logged ones at `steps` (from 0) as dots."""
    ax.plot(planned, label=f"planned: {name}", color=COLORS[5], linewidth=5, alpha=0.55, solid_capstyle="round")
    ax.plot(steps, actual, ".", label="actual", color=COLORS[1], markersize=3)
    _finish_learning_rate(ax, ylabel)


def shade_phases(ax: Axes, schedule: Schedule) -> list[Artist]:
    """Shade the phases of a schedule; returns the handles of a legend."""
    from matplotlib.patches import Patch

    for segment in schedule.segments_in_run:
        first, stop = segment.first - 0.5, segment.first + segment.steps - 0.5
        ax.axvspan(first, stop, color=PHASE_COLORS[segment.kind], alpha=0.22, linewidth=0)
        if segment.first:
            ax.axvline(segment.first, color="0.55", linewidth=0.6)
    kinds = dict.fromkeys(segment.kind for segment in schedule.segments_in_run)
    return [Patch(color=PHASE_COLORS[kind], alpha=0.35, linewidth=0, label=kind) for kind in kinds]


def save_schedules(
    panels: Mapping[str, Mapping[str, npt.ArrayLike]], schedules: Sequence[Schedule | None], path: str | Path
) -> None:
    """Write a picture of learning rates and other values; that of a single schedule shows its phases.

    Args:
        panels: By what the values are ("learning rate"), curves of shape (num_training_steps,) by label; their lengths
            may differ.
        schedules: The schedules of the first panel, None for one without phases.
        path: A PNG, SVG or PDF file.
    """
    figure, axes = new_figure(len(panels), (8.0, 4.4) if len(panels) == 1 else (5.2 * len(panels), 4.4))
    for ax, (ylabel, curves) in zip(axes, panels.items(), strict=True):
        draw_curves(ax, curves)
        ax.set_ylabel(ylabel)
        handles = ax.get_legend_handles_labels()[0]
        if len(schedules) == 1 and schedules[0]:
            handles += shade_phases(ax, schedules[0])
            schedules = ()
        ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)
    figure.savefig(path)


def _finish_learning_rate(ax: Axes, ylabel: str = "learning rate") -> None:
    ax.set_xlabel("optimizer step")
    ax.set_ylabel(ylabel)
    ax.set_ylim(bottom=0)
    ax.margins(x=0.02)
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    ax.legend(frameon=False)
