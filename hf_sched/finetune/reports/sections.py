"""The sections of a report on a run, in Markdown. A section says so where the folder lacks what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_sched.finetune.evaluation.metrics import describe_difference, describe_points
from hf_sched.finetune.reports.markdown import code, table, text
from hf_sched.finetune.reports.panels import CURVES
from hf_sched.finetune.reports.run_folder import RunFolder

_EXAMPLES = 5
_MORE_CURVES = ("mean_token_accuracy", "eval_mean_token_accuracy", "kl")


def describe_run(run: RunFolder, pictures: Sequence[str]) -> list[str]:
    """All sections of a run except its evaluation; `pictures` are lines that show its pictures."""
    return [
        f"## {text(run.name)}",
        "",
        *_describe_progress(run),
        *pictures,
        *_describe_schedule(run),
        *_describe_learning(run),
        *table_section("Throughput", throughput(run).items()),
        *_describe_configuration(run),
        *_describe_versions(run),
    ]


def table_section(title: str, rows: Any) -> list[str]:
    """A heading and a table of two columns; nothing without rows."""
    lines = table(("", ""), list(rows))
    return [f"### {title}", "", *lines] if lines else []


def _describe_progress(run: RunFolder) -> list[str]:
    words = []
    saved = int(run.state.get("global_step", 0))
    if run.steps_planned and run.steps_made < run.steps_planned:
        words.append(f"It made {run.steps_made} of {run.steps_planned} steps: not finished, or stopped early.")
    if saved < run.steps_made:
        words.append(f"Logged values are known up to step {saved}, its last checkpoint.")
    return [" ".join(words), ""] if words else []


def _describe_schedule(run: RunFolder) -> list[str]:
    if isinstance(run.audit, str):
        lines = [f"Planned and actual learning rates cannot be compared: {text(run.audit)}", ""]
        return ["### Schedule", "", *lines]
    report, record = run.audit, run.audit.record
    rows = []
    for plan in record.plans:
        since = f", from step {plan.first + 1} on" if plan.first else ""
        rows.append((f"planned{since}", text(plan)))
        if plan.schedule is not None:
            rows.append(("phases, in optimizer steps", text(plan.schedule)))
    compared = report.comparisons[0]
    rates, last = compared.actual, compared.steps[-1] + 1
    ends = f"{rates[0]:.4g} at step {compared.steps[0] + 1}, {rates.max():.4g} at most, {rates[-1]:.4g} at step {last}"
    known = f"over {len(compared.steps)} of {record.steps_made} steps ({text(record.source)})"
    rows.append(("learning rate", ends))
    rows.append(("planned and actual", f"largest difference {report.deviation:.3g}, {known}"))
    rows += [("resumed at step", ", ".join(map(str, run.resumes)))] if run.resumes else []
    rows += [("**wrong**", text(finding)) for finding in report.findings]
    rows += [("note", text(note)) for note in report.notes if not note.startswith("resumed at")]
    return table_section("Schedule", rows)


def _describe_learning(run: RunFolder) -> list[str]:
    keys = [key for key in (*CURVES, *_MORE_CURVES) if key in run.keys]
    if "reward" in keys and len(run.rewards) > 1:
        keys[keys.index("reward") + 1 : keys.index("reward") + 1] = run.rewards
    if not keys:
        return ["### Learning", "", "The run logged no loss: train with `logging_steps: 1`.", ""]
    rows = []
    for key in keys:
        steps, values = run.logged(key)
        mean = _records_to_average(values)
        ends = [f"{part.mean():.4g}" for part in (values[:mean], values[-mean:])]
        extremes = [f"{values[at]:.4g} (step {int(steps[at]) + 1})" for at in (np.argmin(values), np.argmax(values))]
        rows.append((code(key), *ends, *extremes, str(mean)))
    head = ("logged", "first", "last", "smallest", "largest", "first, last: mean of")
    return ["### Learning", "", *table(head, rows)]


def last_mean(values: Any) -> float:
    """The mean of the last ten values, or of fewer if there are few: one alone is noise."""
    return float(values[-_records_to_average(values) :].mean())


def _records_to_average(values: Any) -> int:
    return max(1, min(10, len(values) // 2))


def throughput(run: RunFolder) -> dict[str, str]:
    """Time, steps and tokens by name, as far as they were logged."""
    shown = {}
    runtime, speed, samples, memory = (
        _last(run, f"train_{key}")
        for key in ("runtime", "steps_per_second", "samples_per_second", "mem_gpu_peaked_delta")
    )
    tokens = _last(run, "num_tokens")
    step_time = run.logged("step_time")[1]
    if runtime:
        shown["training time"] = f"{runtime:,.1f} s{', since the last resume' if run.resumes else ''}"
        if run.resumes:  # the Trainer also counts the steps before the resume
            speed = (run.steps_made - run.resumes[-1]) / runtime
    if speed:
        shown["steps per second"] = f"{speed:.4g}"
    if samples and not run.resumes:
        shown["samples per second"] = f"{samples:.4g}"
    if len(step_time):
        shown["seconds per step, median"] = f"{np.median(step_time):.4g}"
    if tokens:
        shown["tokens, last logged"] = f"{tokens:,.0f}"
        if runtime and not run.resumes:
            shown["tokens per second"] = f"{tokens / runtime:,.0f}"
    return shown | ({"GPU memory, peak above the start": f"{memory / 2**30:.1f} GiB"} if memory else {})


def _describe_configuration(run: RunFolder) -> list[str]:
    known = "As given." if run.sessions else "The Trainer's arguments (`training_args.bin`) that differ from defaults."
    if not run.requested:
        known = "Nothing in the folder says what was requested."
    rows = [(code(key), code(value)) for key, value in run.requested.items()]
    return ["### Configuration", "", known, "", *table(("argument", "value"), rows)]


def _describe_versions(run: RunFolder) -> list[str]:
    if not run.sessions:
        return ["### Versions", "", "Unknown: the run has no `run.json`, which the recipes write.", ""]
    lines = ["### Versions", ""]
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
    rows = []
    for model, result in results.items():
        sampled = result.get("sampled", {}).get("pass_at", {})
        shares = [share(result["exact_match"], result["interval"])]
        shares += [share(sampled[k]["value"], sampled[k]["interval"]) if k in sampled else "" for k in ks]
        rows.append((text(model), f"{result['right']} of {result['problems']}", *shares, f"{result['cut_off']}"))
    head = ("model", "right, greedy", "exact match", *(f"pass@{k}" for k in ks), "cut off")
    lines = [f"{heading} Exact match on held-out problems", "", *table(head, rows)]
    differences = []
    for model, result in results.items():
        if compared := result.get("compared"):
            differences += describe_pair(model, compared["with"], compared)
    lines += [*differences, ""] if differences else []
    return [*lines, *_describe_methods(list(results.values())[-1]), "", *_describe_examples(results)]


def describe_pair(model: str, other: str, compared: Mapping[str, Any]) -> list[str]:
    """The differences between two models as list items."""
    lines = [f"- {text(model)} compared with {text(other)}: {describe_difference(dict(compared))}"]
    return lines + [f"  - pass@{k}: {describe_points(one)}" for k, one in compared.get("pass_at", {}).items()]


def _describe_examples(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for answers in list(zip(*(result["completions"] for result in results.values()), strict=False))[:_EXAMPLES]:
        prompt = answers[0]["prompt"]
        completions = [f"{text(row['completion']) or '(nothing)'} {'✓' if row['right'] else '✗'}" for row in answers]
        shown = text(prompt if isinstance(prompt, str) else prompt[-1]["content"])
        rows.append((shown, text(answers[0]["answer"]), *completions))
    head = ("problem", "answer", *(text(model) for model in results))
    return [f"The first {len(rows)} problems:", "", *table(head, rows)] if rows else []


def _describe_methods(result: Mapping[str, Any]) -> list[str]:
    methods = [f"Exact match: {result['interval_method']}"]
    if sampled := result.get("sampled"):
        settings = sampled["settings"]
        drawn = f"{sampled['samples']} samples at temperature {settings['temperature']}, top_p {settings['top_p']}"
        methods.append(f"Pass@k: {drawn}; {sampled['estimator']}; {sampled['interval_method']}")
    if compared := result.get("compared"):
        methods.append(f"Differences of exact match: {compared['interval_method']}")
    measured = describe_measured(result)
    start = f"Measured {measured}. " if measured else ""
    return [f"{start}Confidence intervals are in parentheses. {text('. '.join(methods))}."]


def describe_measured(result: Mapping[str, Any]) -> str | None:
    """The metric and the data of a result; None if the file does not say."""
    if not (measured := result.get("measured")):
        return None
    data = " ".join(str(measured[key]) for key in ("data", "config") if measured[key])
    return f"by {code(measured['metric'])} on {result['problems']} problems of {code(data)} ({text(measured['split'])})"


def share(value: float, interval: Sequence[float]) -> str:
    """A share with its interval."""
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def _last(run: RunFolder, key: str) -> float | None:
    values = run.logged(key)[1]
    return float(values[-1]) if len(values) else None
