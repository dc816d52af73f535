"""The section that compares runs: outcomes, evaluations on the same problems, differing arguments and versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_sched.audit import AuditReport
from hf_sched.finetune.evaluation.metrics import compare
from hf_sched.finetune.evaluation.statistics import Interval
from hf_sched.finetune.reports.markdown import code, table, text
from hf_sched.finetune.reports.run_folder import PLACES, RunFolder
from hf_sched.finetune.reports.sections import commit_of, describe_measured, describe_pair, last_mean, share, throughput

_ABSENT = "(none)"


def describe_comparison(runs: Sequence[RunFolder], results: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    """The section; `results` are those of a common evaluation, and `pictures` lines that show the pictures."""
    head = ("", *(text(run.name) for run in runs))
    # Arguments that a run was given; other runs may have their defaults.
    names = [name for run in runs for name in run.requested if name not in PLACES]
    arguments = _differences([run.comparable for run in runs], names)
    versions = [_versions(run) for run in runs]
    other = _differences(versions, [name for one in versions for name in one]) if all(versions) else []
    pairs = _compare_pairs(runs, results)
    return [
        *("## Side by side", "", *pictures, *table(head, outcomes(runs, results))),
        *(["### Exact match, on the same problems", "", *pairs, ""] if pairs else []),
        *("### Arguments that differ", "", *(table(head, arguments) or ["None that the folders record.", ""])),
        *(["### Versions that differ", "", *table(head, other)] if other else []),
    ]


def outcomes(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each outcome. A row that only some runs have follows the row before it in these runs."""
    columns = [_outcome(run, run.result(results)) for run in runs]
    names: list[str] = []
    for column in columns:
        place = 0
        for name in column:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return [[text(name), *(column.get(name, _ABSENT) for column in columns)] for name in names]


def _outcome(run: RunFolder, result: Mapping[str, Any] | None) -> dict[str, str]:
    shown = {"steps": f"{run.steps_made}" + (f" of {run.steps_planned}" if run.steps_planned else "")}
    if run.resumes:
        shown["resumed at step"] = ", ".join(map(str, run.resumes))
    if isinstance(run.audit, AuditReport):
        shown["learning rates as planned"] = "yes" if run.audit.ok else "**no**"
    for key in ("loss", "eval_loss", "reward"):
        steps, values = run.logged(key)
        if len(values):
            best = int(np.argmax(values) if key == "reward" else np.argmin(values))
            shown[f"{key}, last (mean of up to 10)"] = f"{last_mean(values):.4g}"
            shown[f"{key}, best"] = f"{values[best]:.4g} (step {int(steps[best]) + 1})"
    shown |= throughput(run)
    if result:
        shown["exact match, greedy"] = share(result["exact_match"], result["interval"])
        for k, one in result.get("sampled", {}).get("pass_at", {}).items():
            shown[f"pass@{k}"] = share(one["value"], one["interval"])
        if measured := describe_measured(result):
            shown["measured"] = measured
    if run.sessions:
        shown["git commit"] = commit_of(run.sessions[-1], digits=12)
    return shown


def _versions(run: RunFolder) -> dict[str, Any]:
    return {"Python": run.sessions[-1].get("python"), **run.sessions[-1]["versions"]} if run.sessions else {}


def _compare_pairs(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[str]:
    """Compare each evaluated run with the first one, problem by problem."""
    found = [(run.name, result) for run in runs if (result := run.result(results))]
    lines = []
    for name, result in found[1:]:
        first, before = found[0]
        differing = [key for key, value in _method(before).items() if value != _method(result)[key]]
        if differing and differing != ["samples"]:
            lines.append(f"- {text(name)} compared with {text(first)}: not possible, {differing[0]} differs")
            continue
        kept = [{key: one[key] for key in one if key != "sampled" or not differing} for one in (before, result)]
        one, other = ({**kept_one, "interval": Interval(*kept_one["interval"])} for kept_one in kept)
        lines += describe_pair(name, first, compare(one, other, first))
    return lines


def _method(result: Mapping[str, Any]) -> dict[str, Any]:
    """How a result was measured. Only results by equal methods can be compared, and samples if they are drawn alike."""
    sampled = result.get("sampled") or {}
    settings = sampled.get("settings", {})
    return {
        "the data": [(row["prompt"], row["answer"]) for row in result["completions"]],
        "the metric": result.get("measured", {}).get("metric"),
        "`max_new_tokens`": result.get("settings", {}).get("max_new_tokens"),
        "samples": [sampled.get("samples"), settings.get("temperature"), settings.get("top_p")],
    }


def _differences(columns: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys(names):
        values = [code(column[name]) if name in column else _ABSENT for column in columns]
        if len(set(values)) > 1:
            rows.append([code(name), *values])
    return rows
