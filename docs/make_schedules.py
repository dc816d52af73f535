"""Write docs/schedules.md with its pictures, docs/coming-from.md, and the picture in the README.

python docs/make_schedules.py

The text comes from the templates in docs/ and the docstrings and annotations in hf_sched/schedules/catalog.py.
"""

from __future__ import annotations

import hashlib
import re
import string
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import hf_sched
from hf_sched.plots import figures as plotting
from hf_sched.reference import description as reference
from hf_sched.reference import examples
from hf_sched.reference.description import Argument, Reference
from hf_sched.schedules import registry
from hf_sched.schedules.shapes import DECAY_SHAPES, FORMS, WARMUP_SHAPES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parent
PAGE = DOCS / "schedules.md"
TRANSLATIONS = DOCS / "coming-from.md"
PICTURES = DOCS / "schedules"
README_PICTURE = DOCS / "schedules.png"

README_STEPS, README_WARMUP, README_PEAK = 100, 10, 3e-4
README_PAST_THE_END = 15
# A schedule of hf_sched and its arguments, and the closest built-in one and its arguments.
README_PAIRS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("cosine_floor", {"floor_ratio": 0.1}, "cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("warmup_cosine", {"warmup_shape": "exponential"}, "cosine", {}),
    ("cosine_restarts", {"num_cycles": 3, "peak_multiplier": 0.7}, "cosine_with_restarts", {"num_cycles": 3}),
]

Panels = Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
"""The contents of a picture: learning rates by label, by the title of their panel."""


def main() -> None:
    """Write the pages and the pictures."""
    PAGE.write_text(page(), encoding="utf-8")
    TRANSLATIONS.write_text(translations(), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name in catalogue():
        draw_schedule(examples.schedule(reference.describe(name)), PICTURES / f"{name}.svg")
    draw_shapes(PICTURES / "shapes.svg")
    draw_readme(README_PICTURE)


def page() -> str:
    """The text of docs/schedules.md."""
    references = [reference.describe(name) for name in catalogue()]
    return _template(PAGE).substitute(
        contents="\n".join(f"- [{of.name}](#{of.name}): {of.summary}" for of in references),
        steps=f"{examples.STEPS:,}",
        warmup=examples.WARMUP,
        grammar=hf_sched.GRAMMAR.rstrip(),
        sections="\n\n".join(map(section, references)),
    )


def translations() -> str:
    """The text of docs/coming-from.md."""
    rows: dict[str, list[list[str]]] = {"torch": [], "timm": [], "optax": [], "transformers": []}
    for name in catalogue():
        for row in reference.describe(name).coming_from:
            rows[row.library].append([f"`{row.there}`", f"[{name}](schedules.md#{name})", f"`{row.here}`"])
    head = ["instead of", "schedule", "`lr_scheduler_kwargs`"]
    tables = {library: _table(head, sorted(found)) for library, found in rows.items()}
    return _template(TRANSLATIONS).substitute(tables)


def _template(page: Path) -> string.Template:
    return string.Template(page.with_suffix(".template.md").read_text(encoding="utf-8"))


def catalogue() -> list[str]:
    """The names of the catalogue, in the order of its functions."""
    functions: dict[str, Any] = {name: registry.entry(name).build_phases for name in hf_sched.available()}
    lines = {
        name: f.__code__.co_firstlineno for name, f in functions.items() if f.__module__ == "hf_sched.schedules.catalog"
    }
    return sorted(lines, key=lines.__getitem__)


def section(of: Reference) -> str:
    """The section of one schedule."""
    parts = [
        f"## {of.name}",
        of.summary,
        f"![{of.name}](schedules/{of.name}.svg)",
        f"```text\n{of.formula}\n```",
        of.text,
        _table(["argument", "takes", "default"], (_argument_row(argument) for argument in of.arguments)),
        f"```yaml\n{examples.yaml_text(of)}\n```",
        f"The same in phases, for {examples.STEPS:,} steps:",
        f"```text\n{examples.schedule(of)}\n```",
        f"Source: {_with_links(of.source)}",
    ]
    return "\n\n".join(filter(None, parts))


def _argument_row(argument: Argument) -> list[str]:
    default = "optional" if argument.default is None else f"`{argument.default}`"
    return [f"`{argument.name}`", argument.takes, "required" if argument.required else default]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in [head, *cells]]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]]) if cells else ""


def _with_links(source: str) -> str:
    return re.sub(r"\b\d{4}\.\d{5}\b", r"[\g<0>](https://arxiv.org/abs/\g<0>)", source)


def draw_schedule(schedule: hf_sched.Schedule, path: Path) -> None:
    """Draw the learning rate over the steps with colored phases."""
    figure, (ax,) = plotting.new_figure(1, (7.0, 2.7))
    curve = schedule.curve(peak=1.0)
    legend = plotting.shade_phases(ax, schedule)
    ax.plot(curve, color="0.1", linewidth=1.8)
    if floor := schedule.floor(1.0):
        legend.append(ax.axhline(floor, color=plotting.COLORS[1], linewidth=1.0, linestyle="--", label="floor"))
    ax.legend(handles=legend, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(legend), frameon=False, fontsize=9)
    ax.set_xlim(0, len(curve))
    ax.set_ylim(0, 1.06 * curve.max())
    ax.set_xlabel("optimizer step")
    ax.set_ylabel("learning rate / peak")
    _save(figure, path, schedule_panels(schedule))


def schedule_panels(schedule: hf_sched.Schedule) -> Panels:
    """The contents of the picture of a schedule. The text has its phases and its floor."""
    return {"": {str(schedule): schedule.curve(peak=1.0)}}


def draw_shapes(path: Path) -> None:
    """Draw all shapes, the rising ones beside the falling ones."""
    panels = shape_panels()
    figure, axes = plotting.new_figure(len(panels), (9.0, 3.2))
    legend = {}
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for label, curve in curves.items():
            number = list(FORMS).index(label.split()[0])  # the same color and dashes in both panels
            color = plotting.COLORS[number % len(plotting.COLORS)]
            dashes = "-" if number < len(plotting.COLORS) else "--"
            p = np.linspace(0, 1, len(curve))
            (legend[label],) = ax.plot(p, curve, label=label, color=color, linestyle=dashes, linewidth=1.6)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("p, progress within the phase")
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1])
        ax.set_ylim(0, 1.02)
    axes[0].set_ylabel("learning rate / peak")
    figure.legend(handles=legend.values(), loc="outside center right", frameon=False, fontsize=9)
    _save(figure, path, panels)


def shape_panels() -> Panels:
    """Every shape between the peak and a tenth of it, with an example number if it needs one."""
    numbers = {"polynomial": "polynomial 2", "inverse_sqrt": "inverse_sqrt 10"}
    # A warmup never trains at its start level, so that is prepended. A first decay does.
    rising = {shape: np.insert(_curve(f"warmup 500 {shape} from 0.1 | hold 1")[:-1], 0, 0.1) for shape in WARMUP_SHAPES}
    falling = {shape: _curve(f"decay 501 {shape} to 0.1") for shape in (numbers.get(s, s) for s in DECAY_SHAPES)}
    return {"warmup": rising, "decay": falling}


def _curve(text: str) -> npt.NDArray[np.float64]:
    return hf_sched.Schedule.parse(text).curve(peak=1.0)


def draw_readme(path: Path) -> None:
    """Draw three schedules and the closest built-in ones."""
    panels = readme_panels()
    figure, axes = plotting.new_figure(len(panels))
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        plotting.draw_curves(ax, curves)
        ax.set_ylim(0, 1.35 * README_PEAK)  # room for the legend
        ax.axvline(README_STEPS - 1, color="0.6", linewidth=0.8, linestyle=":")
        ax.text(README_STEPS - 2, 0.6 * README_PEAK, "last step", ha="right", color="0.4", fontsize=8)
        ax.set_title(title, fontsize=9)
    _save(figure, path, panels)


def readme_panels() -> Panels:
    """The contents of the picture in the README."""
    return {
        ", ".join([ours, *(f"{key}={value}" for key, value in our_kwargs.items())]): {
            ours: _trained(ours, our_kwargs),
            f"built-in {theirs}": _trained(theirs, their_kwargs),
        }
        for ours, our_kwargs, theirs, their_kwargs in README_PAIRS
    }


def _trained(name: str, kwargs: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The learning rates that a torch optimizer trains with, also after the end of the run."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=README_PEAK)
    scheduler = hf_sched.get_scheduler(name, optimizer, README_WARMUP, README_STEPS, dict(kwargs))
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the schedule is stepped after its end on purpose
        for _ in range(README_STEPS + README_PAST_THE_END):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return np.array(rates)


def digest(panels: Panels) -> str:
    """A short hash of the contents of a picture, to six digits, so that it does not depend on the machine."""
    shown = "\n".join(
        f"{title}: {label}: {' '.join(f'{rate:.5e}' for rate in curve)}"
        for title, curves in panels.items()
        for label, curve in curves.items()
    )
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def _save(figure: Figure, path: Path, panels: Panels) -> None:
    """Write a reproducible picture that contains the digest of its contents."""
    import matplotlib

    metadata: dict[str, str | None] = {"Description": f"curves {digest(panels)}"}
    if path.suffix == ".svg":
        metadata |= {"Date": None, "Creator": None}
    # Text instead of outlines makes the file a third as large.
    with matplotlib.rc_context({"svg.hashsalt": "hf_sched", "svg.fonttype": "none"}):
        figure.savefig(path, metadata=metadata)


if __name__ == "__main__":
    main()
