"""The sections of a report, in Markdown. A section says so where the folder lacks what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_sched.audit import AuditReport
from hf_sched.finetune.evaluation.metrics import describe_difference, share
from hf_sched.finetune.reports.panels import CURVES, window
from hf_sched.finetune.reports.rendering import code, table, text
from hf_sched.finetune.reports.run_folder import RunFolder

_ABSENT = "(none)"
# Names and places, which do not distinguish two runs.
_PLACES = ("output_dir", "logging_dir", "run_name", "config", "hub_model_id", "resume_from_checkpoint")
_EXAMPLES = 5
_MORE_CURVES = ("mean_token_accuracy", "eval_mean_token_accuracy", "kl", "num_tokens")
# Of the record at the end of a training: the key, its name, and how it is shown.
_SPEED = {
    "train_runtime": ("training time", "{:,.1f} s"),
    "train_steps_per_second": ("steps per second", "{:.4g}"),
    "train_mem_gpu_peaked_delta": ("GPU memory, peak above the start, in bytes", "{:,.0f}"),
}


def describe_run(run: RunFolder, pictures: Sequence[str]) -> list[str]:
    """All sections of a run except its evaluation; `pictures` are lines that show its pictures."""
    words = []
    made, planned = run.steps
    if made < planned:
        words.append(f"It made {made} of {planned} steps: not finished, or stopped early.")
    if (saved := int(run.state.get("global_step", 0))) < made:
        words.append(f"Logged values are known up to step {saved}, its last checkpoint.")
    return [
        *(f"## {text(run.name)}", "", *words, "", *pictures),
        *("### Schedule", "", *_describe_schedule(run)),
        *("### Learning", "", *_describe_learning(run)),
        *("### Configuration", "", *_describe_configuration(run)),
        *("### Versions", "", *_describe_versions(run)),
    ]


def _describe_schedule(run: RunFolder) -> list[str]:
    if isinstance(run.audit, str):
        return [f"Planned and actual learning rates cannot be compared: {text(run.audit)}", ""]
    report, record = run.audit, run.audit.record
    rows = []
    for plan in record.plans:
        since = f", from step {plan.first + 1} on" if plan.first else ""
        rows.append((f"planned{since}", text(plan)))
        if plan.schedule is not None:
            rows.append(("phases, in optimizer steps", text(plan.schedule)))
    known = f"over {len(report.comparisons[0].steps)} of {record.steps_made} steps ({text(record.source)})"
    rows.append(("planned and actual", f"largest difference {report.deviation:.3g}, {known}"))
    rows += [("resumed at step", ", ".join(map(str, run.resumes)))] if run.resumes else []
    rows += [("**wrong**", text(finding)) for finding in report.findings]
    rows += [("note", text(note)) for note in report.notes if not note.startswith("resumed at")]
    return table(("", ""), rows)


def _describe_learning(run: RunFolder) -> list[str]:
    rows = []
    for key in (*CURVES, *run.rewards, *_MORE_CURVES):
        if key in run.curves:
            steps, values = run.curves[key]
            mean = window(values)
            ends = [f"{part.mean():.4g}" for part in (values[:mean], values[-mean:])]
            extremes = [f"{values[at]:.4g} (step {steps[at] + 1:.0f})" for at in (np.argmin(values), np.argmax(values))]
            rows.append((code(key), *ends, *extremes, str(mean)))
    head = ("logged", "first", "last", "smallest", "largest", "first, last: mean of")
    speed = (
        []
        if run.resumes
        else [  # the Trainer divides all steps by the time since the resume
            (name, shown.format(run.curves[key][1][-1])) for key, (name, shown) in _SPEED.items() if key in run.curves
        ]
    )
    logged = table(head, rows) or ["The run logged no loss: train with `logging_steps: 1`.", ""]
    return [*logged, *table(("", ""), speed)]


def _describe_configuration(run: RunFolder) -> list[str]:
    known = "As given." if run.sessions else "The Trainer's arguments (`training_args.bin`) that differ from defaults."
    rows = [(code(key), code(value)) for key, value in run.requested.items()]
    return [known, "", *table(("argument", "value"), rows)] if rows else ["Nothing says what was requested.", ""]


def _describe_versions(run: RunFolder) -> list[str]:
    if not run.sessions:
        return ["Unknown: the run has no `run.json`, which the recipes write.", ""]
    lines = []
    shown: list[tuple[str, str]] = []
    for session in run.sessions:
        rows = [
            ("started", text(session.get("started"))),
            ("command", code(session.get("command"))),
            ("git commit", commit_of(session)),
            ("Python", text(session.get("python"))),
            *((text(name), text(value)) for name, value in (session.get("versions") or {}).items()),
            ("processes", text(f"{session.get('processes')} ({session.get('distributed_type')})")),
            ("devices", text(", ".join(map(str, session.get("devices") or [])))),
            ("system", text(session.get("platform"))),
        ]
        if session["step"]:
            lines += [f"Resumed at step {session['step']}; unchanged entries are omitted:", ""]
        lines += table(("", ""), [row for row in rows if row not in shown])
        shown += rows
    return lines


def commit_of(session: Mapping[str, Any], digits: int | None = None) -> str:
    """The git commit of a session."""
    git = session.get("git")
    if not isinstance(git, dict):
        return "not in a git checkout"
    return code(str(git.get("commit"))[:digits]) + (", with uncommitted changes" if git.get("dirty") else "")


def describe_evaluation(results: Mapping[str, Any], heading: str = "##") -> list[str]:
    """Exact match and pass@k of every model, the differences, how they were measured, and the first answers."""
    ks = list(dict.fromkeys(k for result in results.values() for k in result.get("sampled", {}).get("pass_at", {})))
    rows, differences = [], []
    for model, result in results.items():
        sampled = result.get("sampled", {}).get("pass_at", {})
        shares = [share(result["exact_match"], result["interval"])]
        shares += [share(sampled[k]["value"], sampled[k]["interval"]) if k in sampled else "" for k in ks]
        rows.append((text(model), f"{result['right']} of {result['problems']}", *shares, f"{result['cut_off']}"))
        if compared := result.get("compared"):
            pair = f"{text(model)} compared with {text(compared['with'])}"
            differences.append(f"- {pair}: {describe_difference(compared)}")
            for k, one in compared.get("pass_at", {}).items():
                differences.append(f"  - pass@{k}: {describe_difference(one)}")
    head = ("model", "right, greedy", "exact match", *(f"pass@{k}" for k in ks), "cut off")
    return [
        *(f"{heading} Exact match on held-out problems", "", *table(head, rows), *differences, ""),
        *(_describe_methods(list(results.values())[-1]), ""),
        *_describe_examples(results),
    ]


def _describe_examples(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for answers in list(zip(*(result["completions"] for result in results.values()), strict=False))[:_EXAMPLES]:
        prompt = answers[0]["prompt"]
        completions = [f"{text(row['completion']) or '(nothing)'} {'✓' if row['right'] else '✗'}" for row in answers]
        shown = text(prompt if isinstance(prompt, str) else prompt[-1]["content"])
        rows.append((shown, text(answers[0]["answer"]), *completions))
    return [f"The first {len(rows)} problems:", "", *table(("problem", "answer", *map(text, results)), rows)]


def _describe_methods(result: Mapping[str, Any]) -> str:
    methods = [f"Exact match: {result['interval_method']}"]
    if sampled := result.get("sampled"):
        settings = sampled["settings"]
        drawn = f"{sampled['samples']} samples at temperature {settings['temperature']}, top_p {settings['top_p']}"
        methods.append(f"Pass@k: {drawn}; {sampled['estimator']}; {sampled['interval_method']}")
    if compared := result.get("compared"):
        methods.append(f"Differences of exact match: {compared['interval_method']}")
    return f"Measured {describe_measured(result)}. Intervals are in parentheses. {text('. '.join(methods))}."


def describe_measured(result: Mapping[str, Any]) -> str:
    """The metric and the data of a result."""
    measured = result["measured"]
    data = " ".join(str(measured[key]) for key in ("data", "config") if measured[key])
    return f"by {code(measured['metric'])} on {result['problems']} problems of {code(data)} ({text(measured['split'])})"


def describe_comparison(runs: Sequence[RunFolder], results: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    """The section; `results` are those of a common evaluation, and `pictures` lines that show the pictures."""
    head = ("", *(text(run.name) for run in runs))
    return [
        *("## Side by side", "", *pictures, *table(head, outcomes(runs, results))),
        *("### Arguments and versions that differ", ""),
        *(table(head, _differences(runs)) or ["None that the folders record.", ""]),
    ]


def outcomes(runs: Sequence[RunFolder], results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each outcome that a run has."""
    columns = [_outcome(run, run.result(results)) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[text(name), *(column.get(name, _ABSENT) for column in columns)] for name in names]


def _outcome(run: RunFolder, result: Mapping[str, Any] | None) -> dict[str, str]:
    made, planned = run.steps
    shown = {"steps": f"{made} of {planned or 'an unknown number'}"}
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


def _differences(runs: Sequence[RunFolder]) -> list[list[str]]:
    """The arguments that a run was given, and the versions; other runs may have the defaults of the arguments."""
    names = dict.fromkeys(name for run in runs for name in run.requested if name not in _PLACES)
    if all(run.versions for run in runs):
        names |= dict.fromkeys(name for run in runs for name in run.versions)
    columns = [{**run.requested, **run.settings, **run.versions} for run in runs]
    rows = [[code(column[name]) if name in column else _ABSENT for column in columns] for name in names]
    return [[code(name), *values] for name, values in zip(names, rows, strict=True) if len(set(values)) > 1]
