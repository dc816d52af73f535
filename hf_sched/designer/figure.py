"""The plot: curves over a common axis, the phases of the selected one, and the ends of transformers' curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.plots.figures import COLORS, PHASE_COLORS
from hf_sched.schedules.validation import ArgumentError

Array = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]
AXES = {"Steps": "optimizer step", "Epochs": "epoch", "Tokens": "training tokens", "Hours": "hours of training"}
_STYLES = {
    "plan": "solid",
    "transformers": "dash",
    "run": "solid",
    "resume": "dot",
    "group": "dashdot",
    "hyperparameter": "longdashdot",
}
_GRAY = "#7a8290"  # readable on a white and on a black page
_MOST_POINTS = 10_000  # a browser draws them without delay
_NARROW = 0.12  # a phase narrower than this share of the run has no label


@dataclass(frozen=True)
class Curve:
    """Learning rates, or values of another hyperparameter, at optimizer steps, both of shape (steps,)."""

    label: str
    kind: Literal["plan", "transformers", "run", "resume", "group", "hyperparameter"]
    steps: Steps
    rates: Array
    plan: Plan
    """The plan of the curve. For the rates of a run or a resume: the plan whose steps they are compared with."""


def drawn_steps(first: int, stop: int, ends: Sequence[int] = ()) -> Steps:
    """The steps to draw: all of them, or in a long run evenly spaced ones and the `ends` of phases."""
    even = np.arange(first, stop, (stop - first) // _MOST_POINTS + 1)
    return np.union1d(even, [stop - 1, *(step for end in ends for step in (end - 1, end) if step >= first)])


def step_size(axis: str, plan: Plan, form: RunForm) -> float:
    """The size of an optimizer step on an axis, one of `AXES`; an ArgumentError if the form lacks what it needs."""
    sizes: dict[str, tuple[str, float | None]] = {
        "Steps": ("max_steps", 1),
        "Epochs": ("dataset_size", plan.steps_per_epoch and 1 / plan.steps_per_epoch),
        "Tokens": ("tokens_per_sample", (form.tokens_per_sample or 0) * plan.effective_batch),
        "Hours": ("seconds_per_step", (form.seconds_per_step or 0) / 3600),
    }
    name, size = sizes[axis]
    if not size:
        raise ArgumentError(name, rule=f"is required for the axis {axis!r}")
    return size


def draw(curves: Sequence[Curve], form: RunForm, axis: str, selected: Plan | None) -> go.Figure:
    """Draw curves over an axis, one of `AXES`, with the phases of the `selected` plan shaded.

    Raises:
        ArgumentError: The form lacks what the axis needs.
    """
    figure = go.Figure()
    for number, curve in enumerate(curves):
        x, y, color = curve.steps * step_size(axis, curve.plan, form), curve.rates, COLORS[number % len(COLORS)]
        is_rate = curve.kind != "hyperparameter"
        figure.add_scatter(
            x=x,
            y=y if is_rate else y / (y.max() or 1),
            yaxis="y" if is_rate else "y2",
            customdata=y,
            name=curve.label,
            mode="markers" if curve.kind == "run" else "lines",
            line={"color": color, "width": 2.2, "dash": _STYLES[curve.kind]},
            marker={"color": color, "size": 4},
            hovertemplate="%{customdata:.6g}",
        )
        if curve.kind == "transformers":
            figure.add_scatter(
                x=x[[0, -1]],
                y=y[[0, -1]],
                mode="markers+text",
                marker={"color": color, "size": 10, "symbol": "circle-open", "line_width": 2},
                text=[f"step 0: {y[0]:.3g}", f"end: {y[-1]:.3g}"],
                textposition=["top right", "top left"],
                textfont={"color": color, "size": 11},
                hoverinfo="skip",
                showlegend=False,
                cliponaxis=False,
            )
    if selected and selected.schedule:
        size = step_size(axis, selected, form)
        for segment in selected.schedule.segments_in_run:
            is_narrow = segment.steps < _NARROW * selected.num_training_steps
            label = {"text": "" if is_narrow else segment.kind, "textposition": "top center", "font_size": 11}
            area = {"fillcolor": PHASE_COLORS[segment.kind], "opacity": 0.13, "line_width": 0, "layer": "below"}
            figure.add_vrect(segment.first * size, (segment.first + segment.steps) * size, label=label, **area)
    lines = {"gridcolor": "rgba(128,128,128,0.18)", "linecolor": _GRAY, "zeroline": False, "automargin": True}
    lines["title_font_size"] = 13
    figure.update_layout(
        template="none",
        height=440,
        margin={"l": 8, "r": 16, "t": 16, "b": 8},
        font={"color": _GRAY, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
        hovermode="x unified",
        xaxis={**lines, "title_text": AXES[axis]},
        yaxis={**lines, "title_text": "learning rate", "tickformat": ".2~e", "rangemode": "tozero"},
    )
    if any(curve.kind == "hyperparameter" for curve in curves):
        right = {"overlaying": "y", "side": "right", "range": [0, 1.05], "showgrid": False}
        figure.update_layout(yaxis2={**lines, **right, "title_text": "hyperparameter / its largest value"})
    return figure
