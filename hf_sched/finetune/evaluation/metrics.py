"""Computes figures from completions: the share of right answers, pass@k, and differences on the same problems.

An answer is right if the metric gives 1 or more. A metric that also gives other scores than 0 and 1 is reported as a
mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from hf_sched.finetune.evaluation.generation_cache import Completion
from hf_sched.finetune.evaluation.statistics import bootstrap, difference, pass_at_k, wilson
from hf_sched.finetune.rewards import Reward

Problem = dict[str, Any]
Result = dict[str, Any]
NO_DIFFERENCE = "no difference shown"
SCORED_AT_ONCE = 100  # completions in one call of the metric, which has a time limit


def _scores(completions: Sequence[str], problems: Sequence[Problem], metric: Reward) -> list[float | None]:
    """The metric's score of each completion; None is no verdict."""
    chat = not isinstance(problems[0]["prompt"], str)
    scores: list[float | None] = []
    for start in range(0, len(problems), SCORED_AT_ONCE):
        part = problems[start : start + SCORED_AT_ONCE]
        texts = completions[start : start + SCORED_AT_ONCE]
        columns = {name: [problem[name] for problem in part] for name in part[0] if name != "prompt"}
        given = [[{"role": "assistant", "content": text}] if chat else text for text in texts]
        scores += metric(completions=given, prompts=[problem["prompt"] for problem in part], **columns)
    return scores


def _is_right(score: float | None) -> bool:
    return score is not None and score >= 1


def score_greedy(completions: Sequence[Completion], problems: Sequence[Problem], metric: Reward) -> Result:
    """Score an answer to each problem. No verdict counts as wrong, with a score of 0.

    Returns:
        The number of right answers (`right`); their share (`exact_match`) or, of a metric with other scores than 0 and
        1, the `mean`; the interval of the latter, counts, and every completion.
    """
    scores = _scores([completion.text for completion in completions], problems, metric)
    rows = [
        {
            "prompt": problem["prompt"],
            "answer": problem.get("answer"),
            "completion": one.text,
            "score": float(score or 0),
            "right": _is_right(score),
        }
        for problem, one, score in zip(problems, completions, scores, strict=True)
    ]
    counts = {"right": sum(row["right"] for row in rows), "problems": len(rows), **_counts(completions, scores)}
    return _with_figures({**counts, "completions": rows}, is_graded=any(row["score"] not in (0, 1) for row in rows))


def _with_figures(result: Result, *, is_graded: bool) -> Result:
    others = {key: value for key, value in result.items() if key not in ("exact_match", "mean", "interval")}
    if is_graded:
        scores = [row["score"] for row in result["completions"]]
        return {"mean": fmean(scores), "interval": bootstrap(scores), **others}
    right, total = result["right"], result["problems"]
    return {"exact_match": right / total, "interval": wilson(right, total), **others}


def compare_all(results: Mapping[str, Result]) -> dict[str, Result]:
    """Compare each model with the previous one; report all as means if the metric is not 0 or 1 for one of them."""
    is_graded = any("mean" in result for result in results.values())
    compared = {name: _with_figures(result, is_graded=is_graded) for name, result in results.items()}
    for previous, name in pairwise(compared):
        compared[name]["compared"] = compare(compared[previous], compared[name], previous)
    return compared


def score_sampled(
    completions: Sequence[Sequence[Completion]], problems: Sequence[Problem], metric: Reward, ks: Sequence[int]
) -> Result:
    """Compute pass@k with its interval for each k; `completions` holds the samples of each problem."""
    samples = len(completions[0])
    flat = [completion for of_problem in completions for completion in of_problem]
    repeated = [problem for problem in problems for _ in range(samples)]
    scores = _scores([completion.text for completion in flat], repeated, metric)
    right = [sum(map(_is_right, scores[start : start + samples])) for start in range(0, len(flat), samples)]
    each = {str(k): [pass_at_k(samples, one, k) for one in right] for k in ks}
    return {
        "samples": samples,
        "pass_at": {k: {"value": fmean(of_k), "interval": bootstrap(of_k), "each": of_k} for k, of_k in each.items()},
        **_counts(flat, scores),
    }


def compare(before: Result, after: Result, name: str) -> Result:
    """Compare a model, problem by problem, with a previous one called `name`."""
    pairs = list(zip(before["completions"], after["completions"], strict=True))
    compared = {
        "with": name,
        **_change(
            {**before, "each": [old["score"] for old, _ in pairs]},
            {**after, "each": [new["score"] for _, new in pairs]},
            is_share="mean" not in after,
        ),
        "gained": sum(new["right"] and not old["right"] for old, new in pairs),
        "lost": sum(old["right"] and not new["right"] for old, new in pairs),
    }
    if "sampled" in after:
        old, new = before["sampled"]["pass_at"], after["sampled"]["pass_at"]
        compared["pass_at"] = {k: _change(old[k], new[k], is_share=True) for k in new}
    return compared


def describe(name: str, result: Result) -> list[str]:
    """The figures of a model as lines of text."""
    total, (label, figure) = result["problems"], headline(result)
    is_mean = "mean" in result
    shown = f"{label} {figure} on {total} problems" if is_mean else f"{result['right']} of {total} right, {figure}"
    lines = [f"{name}: {shown}{_count_text(result, total)}"]
    if sampled := result.get("sampled"):
        rates = [f"pass@{k} {share(one['value'], one['interval'])}" for k, one in sampled["pass_at"].items()]
        threshold = " (a score of 1 or more passes)" if is_mean else ""
        counts = threshold + _count_text(sampled, total * sampled["samples"])
        lines.append(f"  {sampled['samples']} samples of each problem: {', '.join(rates)}{counts}")
    if compared := result.get("compared"):
        changed = "" if is_mean else f"; {compared['gained']} gained, {compared['lost']} lost"
        lines.append(f"  compared with {compared['with']}: {_describe_change(compared)}{changed}")
        lines += [f"  pass@{k}: {_describe_change(one)}" for k, one in compared.get("pass_at", {}).items()]
    return lines


def headline(result: Mapping[str, Any]) -> tuple[str, str]:
    """The name and the value, with its interval, of the main figure of a model."""
    if "mean" in result:
        low, high = result["interval"]
        return "mean score", f"{result['mean']:.3g} ({low:.3g} to {high:.3g})"
    return "exact match", share(result["exact_match"], result["interval"])


def share(value: float, interval: Sequence[float]) -> str:
    """A share with its interval."""
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def _describe_change(compared: Result) -> str:
    (low, high), value = compared["interval"], compared["difference"]
    if compared["is_share"]:
        shown = f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    else:
        shown = f"{value:+.3g} ({low:+.3g} to {high:+.3g})"
    return f"{compared['verdict']}: {shown}"


def _change(before: Result, after: Result, *, is_share: bool) -> Result:
    """The difference of two means on the same problems. The verdict says whether its interval, as shown, excludes 0."""
    first, second = before["each"], after["each"]
    low, high = difference(first, second, before["interval"], after["interval"])
    if is_share:
        low, high = max(round(low, 3), -1.0), min(round(high, 3), 1.0)
    verdict = "better" if low > 0 else "worse" if high < 0 else NO_DIFFERENCE
    change = fmean(second) - fmean(first)
    return {"difference": change, "interval": (low, high), "verdict": verdict, "is_share": is_share}


def _counts(completions: Sequence[Completion], scores: Sequence[float | None]) -> Result:
    return {"cut_off": sum(not one.ended for one in completions), "no_verdict": sum(one is None for one in scores)}


def _count_text(result: Result, total: int) -> str:
    cut_off = f"; {result['cut_off']} of {total} cut off at max_new_tokens" if result["cut_off"] else ""
    return cut_off + (f"; the metric had no verdict on {result['no_verdict']}" if result["no_verdict"] else "")
