"""The sections of a report on a run, in Markdown; what the run's folder does not tell is left out, with a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hf_sched.finetune.evaluation.metrics import describe_difference, describe_points
from hf_sched.finetune.reports.markdown import code, table, text
from hf_sched.finetune.reports.pictures import CURVES, pictures_of_run
from hf_sched.finetune.reports.run_folder import RunFolder

SAMPLES = 5
# Of these the mean of so many records is given: one alone is noise.
_MEAN_OF = 10
_MORE_CURVES = ("mean_token_accuracy", "eval_mean_token_accuracy", "kl", "grad_norm")


def describe_run(run: RunFolder) -> list[str]:
    """All of a run but its evaluation."""
    return [
        f"## {text(run.name)}",
        "",
        *how_far(run),
        *(line for picture in pictures_of_run(run) for line in (f"![{text(picture.alt)}]({picture.name})", "")),
        *describe_schedule(run),
        *describe_learning(run),
        *describe_throughput(run),
        *describe_configuration(run),
        *describe_versions(run),
    ]


def how_far(run: RunFolder) -> list[str]:
    """A line for a run that is not finished, or that left little."""
    words = []
    saved = int(run.state.get("global_step", 0))
    if run.steps_planned and run.steps_made < run.steps_planned:
        words.append(f"It made {run.steps_made} of {run.steps_planned} steps: not finished, or stopped early.")
    if saved < run.steps_made:
        words.append(f"What was logged is known up to step {saved}, its last checkpoint.")
    return [" ".join(words), ""] if words else []


def describe_schedule(run: RunFolder) -> list[str]:
    """The learning rate planned and actual, resumes, and what the audit finds wrong."""
    head = ["### Schedule", ""]
    if isinstance(run.audit, str):
        return [*head, f"Planned and actual learning rates cannot be compared: {text(run.audit)}", ""]
    report, record = run.audit, run.audit.record
    rows = []
    for plan in record.plans:
        since = f", from step {plan.first + 1} on" if plan.first else ""
        rows.append((f"planned{since}", text(str(plan))))
        if plan.schedule is not None:
            rows.append(("its phases, in optimizer steps", text(str(plan.schedule))))
    compared = report.comparisons[0]
    rates = compared.actual
    rows.append(
        (
            "learning rate",
            f"{rates[0]:.4g} at step {compared.steps[0] + 1}, {rates.max():.4g} at most, {rates[-1]:.4g} at step "
            f"{compared.steps[-1] + 1}",
        )
    )
    rows.append(
        (
            "planned against actual",
            f"largest difference {report.deviation:.3g}, over {len(compared.steps)} of {record.steps_made} steps "
            f"({text(record.source)})",
        )
    )
    rows += [("resumed at step", ", ".join(map(str, run.resumes)))] if run.resumes else []
    rows += [("**wrong**", text(finding)) for finding in report.findings]
    rows += [("note", text(note)) for note in report.notes if not note.startswith("resumed at")]
    return [*head, *table(("", ""), rows)]


def describe_learning(run: RunFolder) -> list[str]:
    """What was logged: at the start, at the end, the least and the greatest."""
    keys = [key for key in (*CURVES, *_MORE_CURVES) if key in run.keys]
    if "reward" in keys and len(run.rewards) > 1:
        keys[keys.index("reward") + 1 : keys.index("reward") + 1] = run.rewards
    rows = []
    for key in keys:
        steps, values = run.logged(key)
        mean = max(1, min(_MEAN_OF, len(values) // 2))
        ends = (values[:mean].mean(), values[-mean:].mean())
        extremes = [f"{values[at]:.4g} (step {int(steps[at]) + 1})" for at in (np.argmin(values), np.argmax(values))]
        rows.append((code(key), *(f"{end:.4g}" for end in ends), *extremes, str(mean)))
    if not rows:
        return ["### Learning", "", "The run logged no loss: train with `logging_steps: 1`.", ""]
    return ["### Learning", "", *table(("logged", "first", "last", "least", "greatest", "first, last: mean of"), rows)]


def describe_throughput(run: RunFolder) -> list[str]:
    """Time, steps and tokens."""
    rows = [(name, value) for name, value in throughput(run).items()]
    return ["### Throughput", "", *table(("", ""), rows)] if rows else []


def throughput(run: RunFolder) -> dict[str, str]:
    """Time, steps and tokens, as far as they were logged, by their names."""
    shown = {}
    runtime, speed, samples = (
        _last(run, f"train_{key}") for key in ("runtime", "steps_per_second", "samples_per_second")
    )
    tokens, tokens_since = _tokens(run)
    step_time = run.logged("step_time")[1]
    made = run.steps_made - (run.resumes[-1] if run.resumes else 0)
    if runtime:
        shown["training time"] = f"{runtime:,.1f} s{', since the last resume' if run.resumes else ''}"
        # The Trainer's own counts the steps of before a resume as made since.
        speed = made / runtime if run.resumes else speed
    if speed:
        shown["steps a second"] = f"{speed:.4g}"
    if samples and not run.resumes:
        shown["samples a second"] = f"{samples:.4g}"
    if len(step_time):
        shown["seconds a step, median"] = f"{np.median(step_time):.4g}"
    if tokens:
        shown["tokens"] = f"{tokens:,.0f}"
        if runtime:
            shown["tokens a second"] = f"{tokens_since / runtime:,.0f}"
    memory = _last(run, "train_mem_gpu_peaked_delta")
    return shown | ({"GPU memory, peak over the start": f"{memory / 2**30:.1f} GiB"} if memory else {})


def describe_configuration(run: RunFolder) -> list[str]:
    """What was requested."""
    if not run.requested:
        return ["### Configuration", "", "Nothing in the folder says what was requested.", ""]
    known = (
        "As given." if run.sessions else "Of the Trainer's arguments (`training_args.bin`), those not at their default."
    )
    rows = [(code(key), code(value)) for key, value in run.requested.items()]
    return ["### Configuration", "", known, "", *table(("argument", "value"), rows)]


def describe_versions(run: RunFolder) -> list[str]:
    """Where each part of the run was made, and with what."""
    if not run.sessions:
        return ["### Versions", "", "Not known: the run has no `run.json`, which the recipes write.", ""]
    lines = ["### Versions", ""]
    told: list[tuple[str, str]] = []
    for session in run.sessions:
        versions = session.get("versions") or {}
        rows = [
            ("started", text(session.get("started"))),
            ("command", code(session.get("command"))),
            ("git commit", commit_of(session)),
            ("Python", text(session.get("python"))),
            *((text(name), text(value)) for name, value in versions.items()),
            ("processes", text(f"{session.get('processes')} ({session.get('distributed_type')})")),
            ("devices", text(", ".join(map(str, session.get("devices") or [])))),
            ("system", text(session.get("platform"))),
        ]
        if session["step"]:
            lines += [f"Resumed at step {session['step']}, with what was as before left out:", ""]
        lines += table(("", ""), [row for row in rows if row not in told])
        told += rows
    return lines


def commit_of(session: dict[str, Any], digits: int | None = None) -> str:
    """The commit of a session, in a cell."""
    git = session.get("git")
    if not isinstance(git, dict):
        return "not in a git checkout"
    return code(str(git.get("commit"))[:digits]) + (", with changes that are not in it" if git.get("dirty") else "")


def describe_evaluation(results: dict[str, Any], heading: str = "##") -> list[str]:
    """The tables of exact match and of differences, and the first answers of every model."""
    ks = list(dict.fromkeys(k for result in results.values() for k in result.get("sampled", {}).get("pass_at", {})))
    rows = []
    for model, result in results.items():
        sampled = result.get("sampled", {}).get("pass_at", {})
        shares = [share(result["exact_match"], result["interval"])]
        shares += [share(sampled[k]["value"], sampled[k]["interval"]) if k in sampled else "" for k in ks]
        rows.append((text(model), f"{result['right']} of {result['problems']}", *shares, f"{result['cut_off']}"))
    head = ("model", "right, greedy", "exact match", *(f"pass@{k}" for k in ks), "cut off")
    lines = [f"{heading} Exact match on held-out problems", "", *table(head, rows)]
    return [*lines, *describe_comparisons(results), *describe_methods(results), "", *describe_samples(results)]


def describe_samples(results: dict[str, Any]) -> list[str]:
    """The first answers of every model."""
    rows = []
    for answers in list(zip(*(result["completions"] for result in results.values()), strict=False))[:SAMPLES]:
        completions = [f"{text(row['completion']) or '(nothing)'} {'✓' if row['right'] else '✗'}" for row in answers]
        rows.append((text(_prompt_text(answers[0]["prompt"])), text(answers[0]["answer"]), *completions))
    head = ("problem", "answer", *(text(model) for model in results))
    return [f"The first {len(rows)} of them, answer by answer:", "", *table(head, rows)] if rows else []


def describe_comparisons(results: dict[str, Any]) -> list[str]:
    """What changed from one model to the next, on the same problems."""
    lines = []
    for model, result in results.items():
        if compared := result.get("compared"):
            lines.append(f"- {text(model)} against {text(compared['with'])}: {describe_difference(compared)}")
            lines += [f"  - pass@{k}: {describe_points(one)}" for k, one in compared.get("pass_at", {}).items()]
    return [*lines, ""] if lines else []


def describe_methods(results: dict[str, Any]) -> list[str]:
    """How the intervals were made."""
    *_, last = results.values()
    methods = [f"exact match: {last['interval_method']}"]
    if sampled := last.get("sampled"):
        settings = sampled["settings"]
        drawn = f"{sampled['samples']} samples at temperature {settings['temperature']}, top_p {settings['top_p']}"
        methods.append(f"pass@k: {drawn}; {sampled['estimator']}; {sampled['interval_method']}")
    if compared := last.get("compared"):
        methods.append(f"differences of exact match: {compared['interval_method']}")
    told = ". ".join(one[0].upper() + one[1:] for one in methods)
    measured = describe_measured(last)
    return [f"{f'Measured {measured}. ' if measured else ''}In brackets are confidence intervals. {text(told)}."]


def describe_measured(result: Mapping[str, Any]) -> str | None:
    """By which metric, and on what; None if the file does not say, as those of before did not."""
    if not (measured := result.get("measured")):
        return None
    data = " ".join(str(measured[key]) for key in ("data", "data_config") if measured[key])
    return f"by {code(measured['metric'])} on {result['problems']} problems of {code(data)} ({text(measured['split'])})"


def share(value: float, interval: list[float]) -> str:
    """A share with its interval."""
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def _tokens(run: RunFolder) -> tuple[float, float]:
    """How many it trained on, and how many of them since the last resume, at which TRL counts from 0 again."""
    steps, counts = run.logged("num_tokens")
    if not len(counts):
        return 0.0, 0.0
    since = run.resumes[-1] if run.resumes else 0
    before = counts[steps < since]
    again = np.flatnonzero(np.diff(counts) < 0)
    total = counts[-1] + counts[again].sum()
    restarted = bool(len(before)) and counts[-1] != total
    return float(total), float(counts[-1] - (before[-1] if len(before) and not restarted else 0))


def _last(run: RunFolder, key: str) -> float | None:
    values = run.logged(key)[1]
    return float(values[-1]) if len(values) else None


def _prompt_text(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
