"""Writes a report on one or more runs, as Markdown with pictures beside it, as an HTML page, or as both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_sched.finetune.reports.panels import draw_panels, panels_of_comparison, panels_of_run
from hf_sched.finetune.reports.rendering import to_html
from hf_sched.finetune.reports.run_folder import load_runs, read_evaluation
from hf_sched.finetune.reports.sections import describe_comparison, describe_evaluation, describe_run
from hf_sched.schedules.validation import ArgumentError


def report(
    runs: Sequence[Path], evaluation: Path | None, output: Path | None, *, html: bool
) -> tuple[list[Path], dict[str, Any]]:
    """Write a report; the arguments are those of `hf-sched report`.

    Returns:
        The files that hold the report, and the results of `evaluation` by model.

    Raises:
        ValueError: An argument is wrong, or a folder holds no run.
    """
    output = output or runs[0] / "report.md"
    if output.suffix not in (".md", ".html"):
        raise ArgumentError("--output", "a file that ends in .md or .html", str(output))
    loaded = load_runs(runs)
    results = read_evaluation(evaluation) if evaluation else {}
    pictures: dict[str, bytes] = {}
    lines = ["# Report", "", *(describe_evaluation(results) if results else [])]
    if len(loaded) > 1:
        lines += describe_comparison(loaded, results, draw_panels(panels_of_comparison(loaded), "comparison", pictures))
    for run in loaded:
        lines += describe_run(run, draw_panels(panels_of_run(run), run.name, pictures))
        if run.evaluation and not results:
            lines += describe_evaluation(run.evaluation, "###")
    markdown = "\n".join(lines)
    output.parent.mkdir(parents=True, exist_ok=True)
    written = [output]
    if output.suffix == ".md":
        for file, png in pictures.items():
            (output.parent / file).write_bytes(png)
        output.write_text(markdown, encoding="utf-8")
        written += [output.with_suffix(".html")] if html else []
    if written[-1].suffix == ".html":
        title = f"Report: {', '.join(run.name for run in loaded)}"
        written[-1].write_text(to_html(markdown, pictures, title), encoding="utf-8")
    return written, results
