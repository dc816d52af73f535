"""The plot: curves over a common axis, the phases of the selected one, and the ends of transformers' curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from hf_sched.designer.curves import AXES, Curve
from hf_sched.designer.run_form import RunForm
from hf_sched.plots.figures import COLORS, PHASE_COLORS

_GRAY = "#7a8290"  # readable on a white and on a black page
_DASHES = {"transformers": "dash", "resume": "dot"}
# A phase narrower than this share of the run has no label.
_NARROW = 0.12


def draw(
    curves: Sequence[Curve], form: RunForm, axis: str, selected: Curve | None = None, *, logarithmic: bool = False
) -> go.Figure:
    """Draw curves over the steps, epochs, tokens or hours of their runs.

    Args:
        curves: The curves. Their colors follow their order.
        form: The run.
        axis: One of `AXES`.
        selected: The curve whose phases are shaded.
        logarithmic: Whether the learning rate has a logarithmic axis.

    Raises:
        ArgumentError: The form lacks what the axis needs.
    """
    figure = go.Figure()
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        x = curve.positions(curve.steps, axis, form)
        figure.add_scatter(
            x=x,
            y=curve.rates,
            name=curve.label,
            mode="markers" if curve.source == "run" else "lines",
            line={"color": color, "width": 2.2, "dash": _DASHES.get(curve.source, "solid")},
            marker={"color": color, "size": 4},
            hovertemplate="%{y:.6g}",
        )
        if curve.source == "transformers":
            _mark_ends(figure, x[[0, -1]], curve.rates[[0, -1]], color)
    if selected is not None:
        _shade_phases(figure, selected, form, axis)
    lines = {"gridcolor": "rgba(128,128,128,0.18)", "zeroline": False, "ticks": "outside", "automargin": True}
    lines |= {"linecolor": _GRAY, "tickcolor": _GRAY, "title_font_size": 13}
    scale = {"type": "log", "dtick": "D2"} if logarithmic else {"rangemode": "tozero"}
    figure.update_layout(
        template="none",
        height=440,
        margin={"l": 8, "r": 16, "t": 16, "b": 8},
        font={"color": _GRAY, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
        hovermode="x unified",
        xaxis={**lines, "title_text": AXES[axis], "exponentformat": "SI"},
        yaxis={**lines, "title_text": "learning rate", "tickformat": ".2~e", **scale},
    )
    return figure


def _mark_ends(figure: go.Figure, x: np.ndarray, rates: np.ndarray, color: str) -> None:
    figure.add_scatter(
        x=x,
        y=rates,
        mode="markers+text",
        marker={"color": color, "size": 10, "symbol": "circle-open", "line": {"width": 2}},
        text=[f"step 0: {rates[0]:.3g}", f"end: {rates[1]:.3g}"],
        textposition=["top right", "top left"],
        textfont={"color": color, "size": 11},
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )


def _shade_phases(figure: go.Figure, curve: Curve, form: RunForm, axis: str) -> None:
    schedule = curve.plan.schedule
    for segment in schedule.segments if schedule else ():
        ends = np.array([segment.first, segment.first + segment.steps])
        first, stop = curve.positions(ends, axis, form)
        label = {"text": segment.kind, "textposition": "top center", "font": {"size": 11, "color": _GRAY}}
        figure.add_shape(
            type="rect",
            x0=first,
            x1=stop,
            y0=0,
            y1=1,
            yref="paper",
            layer="below",
            line_width=0,
            fillcolor=PHASE_COLORS[segment.kind],
            opacity=0.13,
            label=label if segment.steps > _NARROW * curve.plan.num_training_steps else None,
        )
