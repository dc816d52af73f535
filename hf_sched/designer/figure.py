"""The plot: curves over a common axis, the phases of the selected schedule, and the ends of transformers' curves."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from hf_sched.designer.curves import AXES, Curve
from hf_sched.plots.figures import COLORS, PHASE_COLORS

_GRAY = "#7a8290"  # readable on a white and on a black page
_DASHES = {"transformers": "dash", "resume": "dot"}
# A phase narrower than this share of the run has no label.
_NARROW = 0.06


def draw(curves: Sequence[Curve], axis: str, selected: Curve | None = None, *, logarithmic: bool = False) -> go.Figure:
    """Draw curves over the steps, epochs, tokens or hours of their runs.

    Args:
        curves: The curves. Their colors follow their order.
        axis: One of `AXES`.
        selected: The curve whose phases are shaded.
        logarithmic: Whether the learning rate has a logarithmic axis.
    """
    figure = go.Figure()
    for number, curve in enumerate(curves):
        _add_curve(figure, curve, COLORS[number % len(COLORS)], axis)
    if selected is not None:
        _shade_phases(figure, selected, axis)
    lines = {"showgrid": True, "gridcolor": "rgba(128,128,128,0.18)", "zeroline": False, "ticks": "outside"}
    lines |= {"linecolor": _GRAY, "tickcolor": _GRAY, "automargin": True}
    figure.update_layout(
        template="none",
        height=440,
        margin={"l": 8, "r": 16, "t": 16, "b": 8},
        font={"color": _GRAY, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
        hovermode="x unified",
        xaxis={**lines, "title": {"text": AXES[axis], "font": {"size": 13}}, "exponentformat": "SI"},
        yaxis={
            **lines,
            "title": {"text": "learning rate", "font": {"size": 13}},
            "exponentformat": "e",
            "rangemode": "tozero",
            "type": "log" if logarithmic else "linear",
        },
    )
    return figure


def _add_curve(figure: go.Figure, curve: Curve, color: str, axis: str) -> None:
    x = curve.scale.positions(curve.steps, axis)
    style = {"color": color, "width": 2.2, "dash": _DASHES.get(curve.source, "solid")}
    recorded = curve.source == "run"
    figure.add_scatter(
        x=x,
        y=curve.rates,
        name=curve.label,
        mode="markers" if recorded else "lines",
        line=style,
        marker={"color": color, "size": 4},
        hovertemplate="%{y:.6g}",
    )
    if curve.source == "transformers":
        ends = [0, -1]
        figure.add_scatter(
            x=x[ends],
            y=curve.rates[ends],
            mode="markers+text",
            marker={"color": color, "size": 10, "symbol": "circle-open", "line": {"width": 2}},
            text=[f"step 0: {curve.rates[0]:.3g}", f"end: {curve.rates[-1]:.3g}"],
            textposition=["top right", "top left"],
            textfont={"color": color, "size": 11},
            hoverinfo="skip",
            showlegend=False,
            cliponaxis=False,
        )


def _shade_phases(figure: go.Figure, curve: Curve, axis: str) -> None:
    schedule = curve.plan and curve.plan.schedule
    for segment in schedule.segments if schedule else ():
        first, stop = curve.scale.positions(curve.steps[:1] * 0 + [segment.first, segment.first + segment.steps], axis)
        is_wide = segment.steps > _NARROW * schedule.num_training_steps
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
            label=label if is_wide else None,
        )
