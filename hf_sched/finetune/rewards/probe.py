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


def probe(rewards: Sequence[Reward | str], row: Mapping[str, Any], tokenizer: Any = None) -> list[Probe]:
    """Score a right, a wrong and an empty answer to the prompt of `row`, if one of its columns holds a right answer.

    Reward models and async rewards are left out.
    """
    gold = next((str(row[name]) for name in GOLD if row.get(name) not in (None, "")), None)
    probes = []
    for reward in rewards if gold else ():
        if not callable(reward) or inspect.iscoroutinefunction(reward):
            continue
        right, wrong = ([form.format(answer) for form in RENDERINGS] for answer in (gold, _another(str(gold))))
        scores = _scores(reward, [*right, *wrong, ""], row, tokenizer)
        best = max(range(len(right)), key=scores.__getitem__)
        shown = RENDERINGS[best].format("...")
        probes.append(Probe(reward.__name__, scores[best], shown, scores[len(right) + best], scores[-1]))
    return probes


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
