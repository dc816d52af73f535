"""Writes an estimate: as a table, in a line, and with what would fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_sched.finetune.memory.alternatives import Alternative
from hf_sched.finetune.memory.estimate import ASSUMPTIONS, GIB, Estimate

CLOSE = 0.9  # of the device; above it an estimate is too close to call


def show_table(found: Estimate, device_bytes: int | None, console: Console) -> None:
    """All parts at each moment, and what was assumed."""
    settings = found.settings
    console.print(
        f"[bold]Memory of each process[/], an estimate: {settings.model}, {settings.kind}, {settings.spread}, "
        f"{settings.batch} x {settings.length} tokens"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("GiB")
    for moment in found.moments:
        table.add_column(moment.name, justify="right")
    for part in dict.fromkeys(name for moment in found.moments for name in moment.parts):
        sizes = [moment.parts.get(part, 0) for moment in found.moments]
        table.add_row(part, *(_gib(size) if size else "-" for size in sizes))
    table.add_row("together", *(_gib(moment.total) for moment in found.moments), style="bold")
    console.print(table)
    console.print(f"{found.parameters:,} parameters, {found.trained:,} of them trained")
    console.print(verdict(found, device_bytes))
    for assumption in ASSUMPTIONS:
        console.print(f"- {assumption}", style="dim")


def in_a_line(found: Estimate, device_bytes: int, device: str) -> str:
    """The estimate beside what there is."""
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in found.peak.parts.items() if size >= 0.05 * found.total)
    return f"memory: about {_gib(found.total)} of {_gib(device_bytes)} GiB {device}, in the {found.peak.name} ({parts})"


def verdict(found: Estimate, device_bytes: int | None) -> str:
    """Whether it fits."""
    if device_bytes is None:
        return f"about {_gib(found.total)} GiB, in the {found.peak.name}; `--gpu_memory 80GB` says whether it fits"
    share = found.total / device_bytes
    told = f"about {_gib(found.total)} of {_gib(device_bytes)} GiB, in the {found.peak.name}: "
    return told + ("it will not fit" if share > 1 else "it may not fit" if share > CLOSE else "it fits")


def what_fits(others: Sequence[Alternative]) -> str:
    """A sentence of what would fit instead."""
    if not others:
        return "nothing that was tried would fit: take a smaller model, larger GPUs, or more of them"
    return "this would: " + "; or ".join(f"{other.text} ({_gib(other.estimate.total)} GiB)" for other in others)


def as_dict(found: Estimate, device_bytes: int | None, others: Sequence[Alternative]) -> dict[str, Any]:
    """All of it as plain values, in bytes, for JSON."""
    return {
        "total": found.total,
        "peak": found.peak.name,
        "parameters": found.parameters,
        "trained": found.trained,
        "moments": {moment.name: moment.parts for moment in found.moments},
        "device": device_bytes,
        "fits": None if device_bytes is None else found.total <= device_bytes,
        "alternatives": [{"change": other.text, "total": other.estimate.total} for other in others],
        "assumptions": list(ASSUMPTIONS),
    }


def _gib(size: float) -> str:
    value = size / GIB
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
