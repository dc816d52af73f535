"""Pictures of schedules. Needs matplotlib, which `pip install hf_sched[plot]` brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distinct also to the colour-blind (Okabe and Ito 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def new_figure(panels: int) -> tuple[Any, list[Any]]:
    """A figure with `panels` axes side by side, that needs no screen and no pyplot state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels, 3.6), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure, list(axes)


def draw_curves(ax: Axes, curves: Mapping[str, npt.ArrayLike]) -> None:
    """Draw learning rates of shape (num_training_steps,), each under its label, over the optimizer steps from 0."""
    for number, (label, curve) in enumerate(curves.items()):
        ax.plot(curve, label=label, color=COLORS[number % len(COLORS)], linewidth=1.8)
    _finish_learning_rate(ax)


def draw_planned_and_actual(
    ax: Axes, planned: npt.ArrayLike, steps: npt.ArrayLike, actual: npt.ArrayLike, *, name: str
) -> None:
    """Draw the planned learning rate of every step as a band, and what was logged at `steps` (from 0) as dots on it."""
    ax.plot(planned, label=f"planned: {name}", color=COLORS[5], linewidth=5, alpha=0.55, solid_capstyle="round")
    ax.plot(steps, actual, ".", label="actual", color=COLORS[1], markersize=3)
    _finish_learning_rate(ax)


def save_curves(curves: Mapping[str, npt.ArrayLike], path: str | Path, *, title: str = "") -> None:
    """Write a picture of learning rates of shape (num_training_steps,), by their labels, to a PNG file."""
    figure, (ax,) = new_figure(1)
    draw_curves(ax, curves)
    ax.set_title(title)
    figure.savefig(path)


def _finish_learning_rate(ax: Axes) -> None:
    ax.set_xlabel("optimizer step")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.02)
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    ax.legend(frameon=False)
