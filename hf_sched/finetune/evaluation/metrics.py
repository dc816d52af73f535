"""Computes figures from completions: the share of right answers, pass@k, and differences on the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from hf_sched.finetune.evaluation.generation_cache import Completion
from hf_sched.finetune.evaluation.statistics import LEVEL, bootstrap, difference, mcnemar, pass_at_k, wilson
from hf_sched.finetune.rewards import Reward

Problem = dict[str, Any]
Result = dict[str, Any]
NO_DIFFERENCE = "no difference shown"


def _judge(completions: Sequence[str], problems: Sequence[Problem], metric: Reward) -> list[bool | None]:
    """Whether each completion is right (the metric gives 1 or more). None, no verdict, counts as wrong."""
    columns = {name: [problem[name] for problem in problems] for name in problems[0] if name != "prompt"}
    chat = not isinstance(problems[0]["prompt"], str)
    given = [[{"role": "assistant", "content": text}] if chat else text for text in completions]
    prompts = [problem["prompt"] for problem in problems]
    scores = metric(completions=given, prompts=prompts, **columns)
    return [None if score is None else score >= 1 for score in scores]


def score_greedy(completions: Sequence[Completion], problems: Sequence[Problem], metric: Reward) -> Result:
    """Compute the share of right answers with its interval; the result also holds every completion."""
    verdicts = _judge([completion.text for completion in completions], problems, metric)
    rows = [
        {"prompt": problem["prompt"], "answer": problem.get("answer"), "completion": one.text, "right": bool(verdict)}
        for problem, one, verdict in zip(problems, completions, verdicts, strict=True)
    ]
    right = sum(row["right"] for row in rows)
    return {
        "exact_match": right / len(rows),
        "right": right,
        "problems": len(rows),
        "interval": wilson(right, len(rows)),
        **_counts(completions, verdicts),
        "completions": rows,
    }


def score_sampled(
    completions: Sequence[Sequence[Completion]], problems: Sequence[Problem], metric: Reward, ks: Sequence[int]
) -> Result:
    """Compute pass@k with its interval for each k; `completions` holds the samples of each problem."""
    samples = len(completions[0])
    flat = [completion for of_problem in completions for completion in of_problem]
    repeated = [problem for problem in problems for _ in range(samples)]
    verdicts = _judge([completion.text for completion in flat], repeated, metric)
    right = [sum(map(bool, verdicts[start : start + samples])) for start in range(0, len(flat), samples)]
    each = {str(k): [pass_at_k(samples, one, k) for one in right] for k in ks}
    return {
        "samples": samples,
        "pass_at": {k: {"value": fmean(of_k), "interval": bootstrap(of_k), "each": of_k} for k, of_k in each.items()},
        **_counts(flat, verdicts),
    }


def compare(before: Result, after: Result, name: str) -> Result:
    """Compare a model, problem by problem, with a previous one called `name`."""
    first, second = ([row["right"] for row in result["completions"]] for result in (before, after))
    gained = sum(new and not old for old, new in zip(first, second, strict=True))
    lost = sum(old and not new for old, new in zip(first, second, strict=True))
    compared = {
        "with": name,
        **_change({**before, "each": first}, {**after, "each": second}),
        "gained": gained,
        "lost": lost,
        "mcnemar_p": mcnemar(gained, lost),
    }
    if compared["mcnemar_p"] >= 1 - LEVEL:
        compared["verdict"] = NO_DIFFERENCE
    if "sampled" in after:
        old, new = before["sampled"]["pass_at"], after["sampled"]["pass_at"]
        compared["pass_at"] = {k: _change(old[k], new[k]) for k in new}
    return compared


def describe(name: str, result: Result) -> list[str]:
    """The figures of a model as lines of text."""
    total, exact = result["problems"], share(result["exact_match"], result["interval"])
    lines = [f"{name}: {result['right']} of {total} right, {exact}{_count_text(result, total)}"]
    if sampled := result.get("sampled"):
        rates = [f"pass@{k} {share(one['value'], one['interval'])}" for k, one in sampled["pass_at"].items()]
        counts = _count_text(sampled, total * sampled["samples"])
        lines.append(f"  {sampled['samples']} samples of each problem: {', '.join(rates)}{counts}")
    if compared := result.get("compared"):
        lines.append(f"  compared with {compared['with']}: {_describe_difference(compared)}")
        lines += [f"  pass@{k}: {_describe_difference(one)}" for k, one in compared.get("pass_at", {}).items()]
    return lines


def share(value: float, interval: Sequence[float]) -> str:
    """A share with its interval."""
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def _describe_difference(compared: Result) -> str:
    low, high = compared["interval"]
    shown = f"{100 * compared['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    if "mcnemar_p" in compared:
        shown += f"; {compared['gained']} gained, {compared['lost']} lost, McNemar p = {compared['mcnemar_p']:.2g}"
    return f"{shown}: {compared['verdict']}"


def _change(before: Result, after: Result) -> Result:
    first, second = before["each"], after["each"]
    low, high = difference(first, second, before["interval"], after["interval"])
    verdict = "better" if low > 0 else "worse" if high < 0 else NO_DIFFERENCE
    return {"difference": fmean(second) - fmean(first), "interval": (low, high), "verdict": verdict}


def _counts(completions: Sequence[Completion], verdicts: Sequence[bool | None]) -> Result:
    return {"cut_off": sum(not one.ended for one in completions), "no_verdict": sum(one is None for one in verdicts)}


def _count_text(result: Result, total: int) -> str:
    cut_off = f"; {result['cut_off']} of {total} cut off at max_new_tokens" if result["cut_off"] else ""
    return cut_off + (f"; the metric had no verdict on {result['no_verdict']}" if result["no_verdict"] else "")
