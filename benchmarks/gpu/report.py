"""The Markdown report of the GPU benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.common.intervals import Interval
from benchmarks.common.programs import BARE, RECIPE
from benchmarks.common.reporting import table_head, table_row
from benchmarks.gpu.matrix_rate import ModelCost
from benchmarks.gpu.speed import DEFAULTS, SHIPPED, ratios

SAME, FASTER = 0.99, 1.5


def report(results: Mapping[str, Any]) -> str:
    """Return the report of the results in gpu.json."""
    note = ["Tiny models: this only shows that the benchmark runs.", ""] if results["tiny"] else []
    rate, published = results["matrix_rate"], results["published_rate"]
    lines = [f"## Figures of a GPU: {results['device']}", "", *note]
    sheet = f"; its data sheet says {published / 1e12:.0f}" if published else ""
    lines += [f"Measured bf16 matrix rate: {rate / 1e12:.3g} TFLOP/s{sheet}.", ""]
    for key, found in results["speed"].items():
        lines += [*_speed_table(key, found, rate), ""]
    lines += [
        "Tokens are without padding; in GRPO, prompts and completions. The share of the matrix rate counts what the "
        "forward and backward pass need (6 FLOPs per weight and token, and attention), but not GRPO's generation. "
        "Figures are medians of the rounds; ratios have their interval by ranks.",
        "",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return "\n".join([*lines, f"Measured on {results['date']} by `{results['command']}` with {versions}."])


def _speed_table(key: str, found: Mapping[str, Any] | str, rate: float) -> list[str]:
    if isinstance(found, str):
        return [f"### {key}", "", f"Failed: {found.splitlines()[-1]}"]
    runs, cost = found["runs"], ModelCost(**found["cost"])
    lines = [f"### {key}, {found['parameters'] / 1e6:.0f}M parameters", ""]
    lines += table_head("training", "tokens/s", "a step", "peak memory", "share of the matrix rate", "times as fast")
    # The length of a single sequence also counts for packed rows, whose sequences do not attend to each other.
    length = _median(next((of_rounds for name, of_rounds in runs.items() if "packing" not in name), []), "length")
    above = DEFAULTS
    for name, of_rounds in runs.items():
        references = {SHIPPED[BARE] if name in SHIPPED.values() else DEFAULTS, above if name.startswith("+") else name}
        times = [
            f"{Interval.of_median(ratios(of_rounds, runs[other]))} of {other}"
            for other in runs
            if other in references and other != name
        ]
        above = name
        tokens, step, peak = (_median(of_rounds, what) for what in ("tokens", "step", "peak_bytes"))
        share = f"{tokens * cost.training(length) / rate:.1%}"
        cells = (f"{tokens:,.0f}", f"{step:.3g} s", f"{peak / 2**30:.2f} GiB", share, "; ".join(times))
        lines.append(table_row(name, *cells))
    lines += [table_row(name, "not measured:", why, "", "", "") for name, why in found["failed"].items()]
    return [*lines, "", *_verdicts(runs)]


def _median(of_rounds: Sequence[Mapping[str, Any]], what: str) -> float:
    return float(median([one[what] for one in of_rounds] or [math.nan]))


def _verdicts(runs: Mapping[str, Any]) -> list[str]:
    lines = []
    ours, theirs = (runs.get(SHIPPED[script]) for script in (RECIPE, BARE))
    if ours and theirs:
        verdict = Interval.of_median(ratios(ours, theirs)).at_least(SAME)
        same = "the same" if ours[0]["losses"] == theirs[0]["losses"] else "NOT the same"
        lines.append(f"- At least {SAME} times as fast as TRL's script: {verdict}; the losses are {same}, bit for bit.")
    added = [name for name in runs if name.startswith("+")]
    if added and DEFAULTS in runs:
        best = max(added, key=lambda name: _median(runs[name], "tokens"))
        verdict = Interval.of_median(ratios(runs[best], runs[DEFAULTS])).at_least(FASTER)
        lines.append(f'- At least {FASTER} times TRL\'s defaults, with all settings up to "{best}": {verdict}.')
    return lines
