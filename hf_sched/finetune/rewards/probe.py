"""Whether the rewards can tell a right answer from a wrong one, tried on a few rows before a run is spent on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_sched.finetune.rewards.safe_reward import Reward

# The ways in which a model may be meant to give its answer.
RENDERINGS = ("{}", "The answer is {}.", "#### {}", r"\boxed{{{}}}", "<think>.</think>\n<answer>{}</answer>")
GOLD = ("answer", "solution", "ground_truth", "target")


@dataclass(frozen=True)
class Probe:
    """What a reward gave."""

    name: str
    gold: float
    """The most for the right answer, over `RENDERINGS`."""
    rendering: str
    """The one that it gave the most for."""
    wrong: float
    """For a wrong answer written the same way."""
    empty: float
    """For nothing at all."""
    least: float
    """The least of all, also for a text that repeats itself for very long."""

    @property
    def is_penalty(self) -> bool:
        """Whether it takes away and never gives."""
        return self.gold <= 0 and self.least < 0


def probe(
    rewards: Sequence[Reward | str],
    row: Mapping[str, Any],
    weights: Sequence[float] | None = None,
    tokenizer: Any = None,
) -> tuple[list[Probe], float] | None:
    """What each reward gives to a right answer, a wrong one and none, and all together to the right one at best.

    Reward models, and rewards that TRL awaits, are left out. None if the row has no column with a right answer.
    """
    gold = next((str(row[name]) for name in GOLD if row.get(name) not in (None, "")), None)
    if gold is None:
        return None
    right = [form.format(gold) for form in RENDERINGS]
    if isinstance(row.get("completion"), str):
        right.append(row["completion"])
    wrong = [form.format(_another(gold)) for form in RENDERINGS]
    texts = [*right, *wrong, f"{gold} " * 10_000, ""]
    called = [reward for reward in rewards if callable(reward)]
    scores = [_score(reward, texts, row, tokenizer) for reward in called]
    probes = []
    for reward, score in zip(called, scores, strict=True):
        best = max(range(len(right)), key=score.__getitem__)
        as_wrong = len(right) + min(best, len(wrong) - 1)
        shown = RENDERINGS[best].format("...") if best < len(RENDERINGS) else "the row's completion"
        probes.append(Probe(reward.__name__, score[best], shown, score[as_wrong], score[-1], min(score)))
    factors = list(weights) if weights else [1.0] * len(rewards)
    used = [factor for factor, reward in zip(factors, rewards, strict=True) if callable(reward)]
    totals = [sum(f * score[place] for f, score in zip(used, scores, strict=True)) for place in range(len(right))]
    return probes, max(totals, default=0.0)


def _score(reward: Reward, texts: list[str], row: Mapping[str, Any], tokenizer: Any) -> list[float]:
    chat = not isinstance(row.get("prompt"), str)
    completions = [[{"role": "assistant", "content": text}] if chat else text for text in texts]
    columns: dict[str, Any] = {f"{name}": [value] * len(texts) for name, value in row.items() if name != "prompt"}
    columns["prompts"] = [row.get("prompt")] * len(texts)
    columns["completion_ids"] = [tokenizer(text)["input_ids"] if tokenizer else list(text.encode()) for text in texts]
    return [0.0 if given is None else given for given in reward(completions=completions, **columns)]


def _another(gold: str) -> str:
    """A wrong answer of the same kind: the last number one higher, or a letter more."""
    changed = re.sub(r"(\d+)(?!.*\d)", lambda number: str(int(number[1]) + 1), gold, flags=re.DOTALL)
    return changed if changed != gold else f"{gold}x"
