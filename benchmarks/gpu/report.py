"""The Markdown report of the GPU benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.common.intervals import Interval
from benchmarks.common.programs import BARE, RECIPE
from benchmarks.common.reporting import table_head, table_row
from benchmarks.gpu.speed import DEFAULTS, SHIPPED

SAME = 0.99
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def report(results: Mapping[str, Any]) -> str:
    """Return the report of the results in gpu.json."""
    rate, parameters = results["matrix_rate"], results["parameters"]
    lines = [f"## {parameters / 1e6:.0f}M parameters on one {results['device']}", ""]
    if results["tiny"]:
        lines += ["Tiny models: this only shows that the benchmark runs.", ""]
    lines += [f"Measured bf16 matrix rate: {rate / 1e12:.3g} TFLOP/s.", ""]
    for kind, found in results["kinds"].items():
        lines += [f"### {kind.upper()}", "", *_speed_table(found["runs"], parameters / rate)]
        lines += [table_row(name, "not measured:", why, "", "", "") for name, why in found["failed"].items()]
        lines += ["", *_verdict(found["runs"])]
    lines += [
        "Tokens are without padding; in GRPO, prompts and completions. The share of the matrix rate counts what the "
        "forward and backward pass need (6 FLOPs per weight and token), but neither attention nor GRPO's generation. "
        "Figures are medians of the rounds; ratios have their interval by ranks.",
        "",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return "\n".join([*lines, f"Measured on {results['date']} by `{results['command']}` with {versions}."])


def _speed_table(runs: Runs, parameters_per_rate: float) -> list[str]:
    lines = table_head("training", "tokens/s", "a step", "peak memory", "share of the matrix rate", "times as fast")
    above = DEFAULTS
    for name, of_rounds in runs.items():
        references = [SHIPPED[BARE]] if name == SHIPPED[RECIPE] else []
        if name.startswith("+"):
            references = list(dict.fromkeys([DEFAULTS, above]))
        times = [f"{_ratio(runs, name, other)} of {other}" for other in references if other in runs]
        above = name
        tokens, step, peak = (_median(of_rounds, what) for what in ("tokens_per_second", "step", "peak_bytes"))
        share = f"{6 * tokens * parameters_per_rate:.1%}"
        cells = (f"{tokens:,.0f}", f"{step:.3g} s", f"{peak / 2**30:.2f} GiB", share, "; ".join(times))
        lines.append(table_row(name, *cells))
    return lines


def _verdict(runs: Runs) -> list[str]:
    if not {SHIPPED[RECIPE], SHIPPED[BARE]} <= set(runs):
        return []
    ours, theirs = (runs[SHIPPED[script]][0]["losses"] for script in (RECIPE, BARE))
    verdict = _ratio(runs, SHIPPED[RECIPE], SHIPPED[BARE]).at_least(SAME)
    same = "the same" if ours == theirs else "NOT the same"
    return [f"At least {SAME} times as fast as TRL's script: {verdict}; the losses are {same}, bit for bit.", ""]


def _median(of_rounds: Sequence[Mapping[str, Any]], what: str) -> float:
    return float(median([one[what] for one in of_rounds]))


def _ratio(runs: Runs, name: str, other: str) -> Interval:
    """Compare tokens per second within each round."""
    pairs = zip(runs[name], runs[other], strict=True)
    return Interval.of_median([one["tokens_per_second"] / reference["tokens_per_second"] for one, reference in pairs])
