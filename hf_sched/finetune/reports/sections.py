"""The sections of a report, in Markdown. A section says so where the folder lacks what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_sched.audit import AuditReport
from hf_sched.finetune.evaluation.metrics import describe, headline, share
from hf_sched.finetune.reports.panels import CURVES, window
from hf_sched.finetune.reports.rendering import block, code, table, text
from hf_sched.finetune.reports.run_folder import RunFolder


def describe_run(run: RunFolder, pictures: Sequence[str]) -> list[str]:
    """All sections of a run except its evaluation; `pictures` are lines that show its pictures."""
    words = []
    made, planned = run.steps
    if made < planned:
        words.append(f"It made {made} of {planned} steps: not finished, or stopped early.")
    if (saved := int(run.state.get("global_step", 0))) < made:
        words.append(f"Logged values are known up to step {saved}, its last checkpoint.")
    audit = run.audit.lines if isinstance(run.audit, AuditReport) else [f"not comparable with a plan: {run.audit}"]
    return [
        *(f"## {text(run.name)}", "", *words, "", *pictures),
        *("### Schedule", "", *block(audit)),
        *("### Learning", "", *_describe_learning(run)),
        *("### Provenance", "", *_describe_provenance(run)),
    ]


def _describe_learning(run: RunFolder) -> list[str]:
    rows = []
    for key in (*CURVES, *run.rewards):
        if key in run.curves:
            steps, values = run.curves[key]
            mean = window(values)
            ends = [f"{part.mean():.4g}" for part in (values[:mean], values[-mean:])]
            extremes = [f"{values[at]:.4g} (step {steps[at] + 1:.0f})" for at in (np.argmin(values), np.argmax(values))]
            rows.append((code(key), *ends, *extremes))
    head = ("logged", "first (mean of up to 10)", "last (mean of up to 10)", "smallest", "largest")
    lines = table(head, rows) or ["The run logged no loss: train with `logging_steps: 1`.", ""]
    # After a resume, the Trainer divides all steps by the time since the resume.
    if "train_runtime" in run.curves and not run.resumes:
        seconds, speed = (run.curves[key][1][-1] for key in ("train_runtime", "train_steps_per_second"))
        lines += [f"Training took {seconds:,.1f} s: {speed:.4g} steps per second.", ""]
    return lines


def _describe_provenance(run: RunFolder) -> list[str]:
    if not run.sessions:
        return ["Unknown: the run has no `run.json`, which the recipes write.", ""]
    lines = []
    previous: list[tuple[str, str]] = []
    for session in run.sessions:
        rows = [
            ("started", text(session["started"])),
            ("command", code(session["command"])),
            ("git commit", _commit_of(session)),
            *((code(name), code(value)) for name, value in session["arguments"].items()),
            ("Python", text(session["python"])),
            *((text(name), text(value)) for name, value in session["versions"].items()),
            ("processes", text(f"{session['processes']} ({session['distributed_type']})")),
            ("devices", text(", ".join(map(str, session["devices"])))),
            ("system", text(session["platform"])),
        ]
        if session["step"]:
            lines += [f"Resumed at step {session['step']}; unchanged entries are omitted:", ""]
        lines += table(("", ""), [row for row in rows if row not in previous])
        previous = rows
    return lines


def _commit_of(session: Mapping[str, Any]) -> str:
    git = session["git"]
    if git is None:
        return "not in a git checkout"
    return code(git["commit"]) + (", with uncommitted changes" if git["dirty"] else "")


def describe_evaluation(results: Mapping[str, Any], heading: str = "##") -> list[str]:
    """The figures of every model and the differences, how they were measured, and the first answers."""
    rows = []
    label, _ = headline(next(iter(results.values())))
    for answers in list(zip(*(result["completions"] for result in results.values()), strict=False))[:5]:
        prompt = answers[0]["prompt"]
        completions = [f"{text(row['completion']) or '(nothing)'} {_mark(row, label)}" for row in answers]
        shown = text(prompt if isinstance(prompt, str) else prompt[-1]["content"])
        rows.append((shown, text(answers[0]["answer"]), *completions))
    return [
        *(f"{heading} {label.capitalize()} on held-out problems", ""),
        *block(line for model, result in results.items() for line in describe(model, result)),
        f"Measured {_describe_measured(list(results.values())[-1])}. 95% intervals are in parentheses: Wilson score "
        "for shares, a bootstrap over problems for means and pass@k, and Newcombe's method 10 for differences.",
        "",
        *(f"The first {len(rows)} problems:", "", *table(("problem", "answer", *map(text, results)), rows)),
    ]


def _mark(row: Mapping[str, Any], label: str) -> str:
    if label == "mean score":
        return f"({row['score']:.3g})"
    return "✓" if row["right"] else "✗"


def _describe_measured(result: Mapping[str, Any]) -> str:
    settings = result["settings"]
    data = " ".join(settings[key] for key in ("on", "config") if settings[key])
    return f"by {code(settings['metric'])} on {result['problems']} problems of {code(data)} ({text(settings['split'])})"


def describe_comparison(runs: Sequence[RunFolder], results: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    """The section; `results` are those of a common evaluation, and `pictures` lines that show the pictures."""
    head = ("", *(text(run.name) for run in runs))
    given = [{**run.sessions[-1]["arguments"], **run.sessions[-1]["versions"]} if run.sessions else {} for run in runs]
    shown = [{code(name): code(value) for name, value in one.items()} for one in given]
    differing = [row for row in _side_by_side(shown) if len(set(row[1:])) > 1]
    return [
        *("## Side by side", "", *pictures),
        *table(head, _side_by_side([_outcome(run, run.result(results)) for run in runs])),
        *("### Arguments and versions that differ", ""),
        *(table(head, differing) or ["None that the folders record.", ""]),
    ]


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> list[list[str]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, "(none)") for column in columns)] for name in names]


def _outcome(run: RunFolder, result: Mapping[str, Any] | None) -> dict[str, str]:
    made, planned = run.steps
    shown = {"steps": f"{made} of {planned or 'an unknown number'}"}
    if isinstance(run.audit, AuditReport):
        shown["learning rates as planned"] = "yes" if run.audit.ok else "**no**"
    if run.sessions:
        shown["git commit"] = _commit_of(run.sessions[-1])
    if result:
        label, figure = headline(result)
        shown[f"{label}, greedy"] = figure
        for k, one in result.get("sampled", {}).get("pass_at", {}).items():
            shown[f"pass@{k}"] = share(one["value"], one["interval"])
        shown["measured"] = _describe_measured(result)
    for key in ("loss", "eval_loss", "reward"):
        if key in run.curves:
            values = run.curves[key][1]
            shown[f"{key}, last (mean of up to 10)"] = f"{values[-window(values) :].mean():.4g}"
    return shown
