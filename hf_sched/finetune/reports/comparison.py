"""The section that compares runs: outcomes, evaluations on the same problems, differing arguments and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_sched.audit import AuditReport
from hf_sched.finetune.evaluation.metrics import compare
from hf_sched.finetune.reports.panels import window
from hf_sched.finetune.reports.rendering import code, table, text
from hf_sched.finetune.reports.run_folder import RunFolder
from hf_sched.finetune.reports.sections import commit_of, describe_measured, describe_pair, share

_ABSENT = "(none)"
# Names and places, which do not distinguish two runs.
_PLACES = ("output_dir", "logging_dir", "run_name", "config", "hub_model_id", "resume_from_checkpoint")


def describe_comparison(runs: Sequence[RunFolder], results: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    """The section; `results` are those of a common evaluation, and `pictures` lines that show the pictures."""
    head = ("", *(text(run.name) for run in runs))
    pairs = _compare_pairs(runs, results)
    return [
        *("## Side by side", "", *pictures, *table(head, outcomes(runs, results))),
        *(["### Exact match, on the same problems", "", *pairs, ""] if pairs else []),
        *("### Arguments and versions that differ", ""),
        *(table(head, _differences(runs)) or ["None that the folders record.", ""]),
    ]


def outcomes(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each outcome that a run has."""
    columns = [_outcome(run, run.result(results)) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[text(name), *(column.get(name, _ABSENT) for column in columns)] for name in names]


def _outcome(run: RunFolder, result: Mapping[str, Any] | None) -> dict[str, str]:
    shown = {"steps": f"{run.steps_made}" + (f" of {run.steps_planned}" if run.steps_planned else "")}
    if run.resumes:
        shown["resumed at step"] = ", ".join(map(str, run.resumes))
    if isinstance(run.audit, AuditReport):
        shown["learning rates as planned"] = "yes" if run.audit.ok else "**no**"
    if run.sessions:
        shown["git commit"] = commit_of(run.sessions[-1], digits=12)
    if result:
        shown["exact match, greedy"] = share(result["exact_match"], result["interval"])
        for k, one in result.get("sampled", {}).get("pass_at", {}).items():
            shown[f"pass@{k}"] = share(one["value"], one["interval"])
        shown["measured"] = describe_measured(result)
    for key in ("loss", "eval_loss", "reward"):
        if key in run.curves:
            values = run.curves[key][1]
            shown[f"{key}, last (mean of up to 10)"] = f"{values[-window(values) :].mean():.4g}"
    return shown


def _compare_pairs(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[str]:
    """Compare each evaluated run with the first one, problem by problem."""
    found = [(run.name, result) for run in runs if (result := run.result(results))]
    lines = []
    for name, result in found[1:]:
        first, before = found[0]
        differing = [key for key, value in _method(before).items() if value != _method(result)[key]]
        if differing:
            lines.append(f"- {text(name)} compared with {text(first)}: not possible, {differing[0]} differs")
            continue
        # Samples may have been drawn in different ways.
        lines += describe_pair(name, first, compare({**before, "sampled": None}, result, first))
    return lines


def _method(result: Mapping[str, Any]) -> dict[str, Any]:
    """How a result was measured. Only results by equal methods can be compared."""
    return {
        "the data": [(row["prompt"], row["answer"]) for row in result["completions"]],
        "the metric": result.get("measured", {}).get("metric"),
        "`max_new_tokens`": result.get("settings", {}).get("max_new_tokens"),
    }


def _differences(runs: Sequence[RunFolder]) -> list[list[str]]:
    """The arguments that a run was given, and the versions; other runs may have the defaults of the arguments."""
    names = dict.fromkeys(name for run in runs for name in run.requested if name not in _PLACES)
    if all(run.versions for run in runs):
        names |= dict.fromkeys(name for run in runs for name in run.versions)
    columns = [{**run.requested, **run.settings, **run.versions} for run in runs]
    rows = [[code(column[name]) if name in column else _ABSENT for column in columns] for name in names]
    return [[code(name), *values] for name, values in zip(names, rows, strict=True) if len(set(values)) > 1]
