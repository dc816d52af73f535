"""Scores right, wrong and empty answers before a run, to see whether the rewards can tell them apart."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_sched.finetune.rewards.safe_reward import Reward

# Ways in which a model may be meant to write its answer.
RENDERINGS = ("{}", "The answer is {}.", "#### {}", r"\boxed{{{}}}", "<think>.</think>\n<answer>{}</answer>")
GOLD = ("answer", "solution", "ground_truth", "target")


@dataclass(frozen=True)
class Probe:
    """Scores of one reward."""

    name: str
    gold: float  # the highest score of the right answer, over `RENDERINGS`
    rendering: str  # the rendering with the highest score
    wrong: float  # of a wrong answer in the same rendering
    empty: float  # of an empty completion
    least: float  # the lowest score, including that of a very long repetitive text

    @property
    def is_penalty(self) -> bool:
        """Whether the reward is never positive and sometimes negative."""
        return self.gold <= 0 and self.least < 0


def probe(
    rewards: Sequence[Reward | str],
    row: Mapping[str, Any],
    weights: Sequence[float] | None = None,
    tokenizer: Any = None,
) -> tuple[list[Probe], float] | None:
    """Score a right, a wrong and an empty answer to the prompt of `row`.

    Reward models and async rewards are left out.

    Returns:
        A probe per reward and the highest weighted sum for the right answer; None if no column holds a right answer.
    """
    gold = next((str(row[name]) for name in GOLD if row.get(name) not in (None, "")), None)
    if gold is None:
        return None
    right, wrong = ([form.format(answer) for form in RENDERINGS] for answer in (gold, _another(gold)))
    texts = [*right, *wrong, f"{gold} " * 10_000, ""]
    probes, totals = [], [0.0] * len(right)
    for weight, reward in zip(weights or [1.0] * len(rewards), rewards, strict=True):
        if not callable(reward) or inspect.iscoroutinefunction(reward):
            continue
        scores = _scores(reward, texts, row, tokenizer)
        best = max(range(len(right)), key=scores.__getitem__)
        shown = RENDERINGS[best].format("...")
        probes.append(Probe(reward.__name__, scores[best], shown, scores[len(right) + best], scores[-1], min(scores)))
        totals = [total + weight * score for total, score in zip(totals, scores, strict=False)]
    return probes, max(totals)


def _scores(reward: Reward, texts: list[str], row: Mapping[str, Any], tokenizer: Any) -> list[float]:
    is_chat = not isinstance(row.get("prompt"), str)
    columns: dict[str, Any] = {name: [value] * len(texts) for name, value in row.items() if name != "prompt"}
    columns["prompts"] = [row.get("prompt")] * len(texts)
    columns["completions"] = [[{"role": "assistant", "content": text}] if is_chat else text for text in texts]
    columns["completion_ids"] = [tokenizer(text)["input_ids"] if tokenizer else list(text.encode()) for text in texts]
    return [score or 0.0 for score in reward(**columns)]


def _another(gold: str) -> str:
    """Make a wrong answer of the same kind: increment the last number or append a letter."""
    changed = re.sub(r"(\d+)(?!.*\d)", lambda number: str(int(number[1]) + 1), gold, flags=re.DOTALL)
    return changed if changed != gold else f"{gold}x"
