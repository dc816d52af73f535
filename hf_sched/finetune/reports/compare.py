"""Two or more runs side by side: what was requested differently, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_sched.audit import AuditReport
from hf_sched.finetune.evaluation.metrics import compare, describe_difference, describe_points
from hf_sched.finetune.evaluation.statistics import Interval
from hf_sched.finetune.reports.markdown import code, table, text
from hf_sched.finetune.reports.pictures import pictures_of_comparison
from hf_sched.finetune.reports.run_folder import NOT_HOW, RunFolder
from hf_sched.finetune.reports.sections import commit_of, describe_measured, share, throughput

_ABSENT = "(none)"


def describe_comparison(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[str]:
    """The section; `results` are those of an evaluation of these runs, beside their own."""
    head = ("", *(text(run.name) for run in runs))
    arguments, versions = [run.comparable for run in runs], [_versions(run) for run in runs]
    # What one of them was given; of the others it is the default then.
    requested = [name for run in runs for name in run.requested if name not in NOT_HOW]
    other = _differences(versions, [name for one in versions for name in one]) if all(versions) else []
    return [
        "## Side by side",
        "",
        *(line for one in pictures_of_comparison(runs) for line in (f"![{text(one.alt)}]({one.name})", "")),
        *table(head, _outcomes(runs, results)),
        *_paired(runs, results),
        "### Arguments that differ",
        "",
        *(table(head, _differences(arguments, requested)) or ["None that the folders tell of.", ""]),
        *(["### Versions that differ", "", *table(head, other)] if other else []),
    ]


def _outcomes(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[list[str]]:
    columns = [_outcome(run, run.result(results)) for run in runs]
    names: list[str] = []
    for column in columns:
        # What only this one has comes behind what is before it there.
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
            mean = max(1, min(10, len(values) // 2))
            best = int(np.argmax(values) if key == "reward" else np.argmin(values))
            shown[f"{key}, last (mean of up to 10)"] = f"{values[-mean:].mean():.4g}"
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


def _paired(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[str]:
    """Each run against the first that was evaluated, problem by problem."""
    found = [(run.name, result) for run in runs if (result := run.result(results))]
    lines = []
    for name, result in found[1:]:
        first, before = found[0]
        pair = f"- {text(name)} against {text(first)}"
        if why := _not_alike(before, result):
            lines.append(f"{pair}: not compared, since they were evaluated {why}")
            continue
        one, other = _loaded(before, result)
        compared = compare(one, other, first)
        unknown = " (not all of them say by which metric they were evaluated)" * (_metric(before) != _metric(result))
        lines.append(f"{pair}: {describe_difference(compared)}{unknown}")
        lines += [f"  - pass@{k}: {describe_points(one)}" for k, one in compared.get("pass_at", {}).items()]
    return ["### Exact match, on the same problems", "", *lines, ""] if lines else []


def _not_alike(before: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    """Why two results say nothing of a difference between two models."""
    if _problems(before) != _problems(result):
        return "on different problems"
    metrics = _metric(before), _metric(result)
    if None not in metrics and metrics[0] != metrics[1]:
        return f"by different metrics, {code(metrics[0])} and {code(metrics[1])}"
    lengths = [one.get("settings", {}).get("max_new_tokens") for one in (before, result)]
    if lengths[0] != lengths[1]:
        return f"with different `max_new_tokens`, {lengths[0]} and {lengths[1]}"
    return None


def _problems(result: Mapping[str, Any]) -> list[Any]:
    return [(row["prompt"], row["answer"]) for row in result["completions"]]


def _metric(result: Mapping[str, Any]) -> Any:
    """None in the files of before it was written down."""
    return result.get("measured", {}).get("metric")


def _loaded(*results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Results as they were before they were written down; without samples if they were not drawn alike in each."""
    alike = _drawn(results[0]) == _drawn(results[1])
    kept = [{key: value for key, value in one.items() if key != "sampled" or alike} for one in results]
    return [{**one, "interval": Interval(*one["interval"])} for one in kept]


def _drawn(result: Mapping[str, Any]) -> list[Any]:
    sampled = result.get("sampled") or {}
    settings = sampled.get("settings", {})
    return [sampled.get("samples"), *(settings.get(key) for key in ("temperature", "top_p", "max_new_tokens"))]


def _differences(columns: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys(names):
        values = [code(column[name]) if name in column else _ABSENT for column in columns]
        if len(set(values)) > 1:
            rows.append([code(name), *values])
    return rows
