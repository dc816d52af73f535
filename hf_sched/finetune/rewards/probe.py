"""Scores right, wrong and empty answers before a run, to see whether the rewards can tell them apart."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import TrainerState

from hf_sched.finetune.rewards.safe_reward import Reward, SafeReward

# Ways in which a model may be meant to write its answer.
RENDERINGS = ("{}", "The answer is {}.", "#### {}", r"\boxed{{{}}}", "<think>.</think>\n<answer>{}</answer>")
GOLD = ("answer", "solution", "ground_truth", "target")
_OPPOSITES = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


@dataclass(frozen=True)
class Probe:
    """Scores of one reward; None for no reward."""

    name: str
    right_answer: str
    wrong_answer: str
    checks_answer: bool  # whether the function names the column of the right answer
    gold: float | None = None  # the highest score of the right answer, over `RENDERINGS`
    rendering: str = ""  # the rendering with the highest score
    wrong: float | None = None  # the score of the wrong answer in the same rendering
    empty: float | None = None  # the score of an empty completion
    error: str = ""  # why the reward failed

    @property
    def warning(self) -> str:
        """What is wrong with the reward; empty if nothing is."""
        if self.error:
            return f"on answers to the first problem, {self.error}"
        if (self.gold is None or self.gold <= 0) and "penalty" not in self.name:
            given = "no reward" if self.gold is None else f"{self.gold:g}"
            return f"the reward {self.name!r} gives {given} to the right answer, however it is written"
        if self.checks_answer and self.gold == self.wrong:
            answers = f"the right answer {self.right_answer!r} and the wrong answer {self.wrong_answer!r}"
            return f"the reward {self.name!r} gives {self.gold:g} to both {answers}"
        return ""


def probe(
    rewards: Sequence[Reward | str],
    row: Mapping[str, Any],
    tokenizer: Any = None,
    others: Iterable[Mapping[str, Any]] = (),
) -> list[Probe]:
    """Score a right, a wrong and an empty answer to the prompt of `row`, if one of its columns holds a right answer.

    The wrong answer is that of one of the `others`, if one differs. Reward models and async rewards are left out.
    """
    column = next((name for name in GOLD if row.get(name) not in (None, "")), None)
    if column is None:
        return []
    gold = str(row[column])
    different = (str(other[column]) for other in others if str(other[column]) not in (gold, "None", ""))
    another = next(different, None) or _another(gold)
    right, wrong = ([form.format(answer) for form in RENDERINGS] for answer in (gold, another))
    probes = []
    for reward in rewards:
        if not isinstance(reward, SafeReward):
            continue
        one = Probe(reward.name, gold, another, column in inspect.signature(reward.function).parameters)
        try:
            # A copy: failures and successes here must not count as those of the training.
            scores = _scores(replace(reward, has_worked=False), [*right, *wrong, ""], row, tokenizer)
        except Exception as error:
            probes.append(replace(one, error=str(error)))
            continue
        known = [float("-inf") if score is None else score for score in scores[: len(right)]]
        best = known.index(max(known))
        shown, of_wrong = RENDERINGS[best].format("..."), scores[len(right) + best]
        probes.append(replace(one, gold=scores[best], rendering=shown, wrong=of_wrong, empty=scores[-1]))
    return probes


def _scores(reward: Reward, texts: list[str], row: Mapping[str, Any], tokenizer: Any) -> list[float | None]:
    is_chat = not isinstance(row.get("prompt"), str)
    columns: dict[str, Any] = {name: [value] * len(texts) for name, value in row.items() if name != "prompt"}
    columns["prompts"] = [row.get("prompt")] * len(texts)
    columns["completions"] = [[{"role": "assistant", "content": text}] if is_chat else text for text in texts]
    columns["completion_ids"] = [tokenizer(text)["input_ids"] if tokenizer else list(text.encode()) for text in texts]
    columns |= {"trainer_state": TrainerState(), "log_extra": _log_nothing, "log_metric": _log_nothing}
    return list(reward(**columns))


def _log_nothing(*_: Any) -> None:
    """Take the place of TRL's functions for rewards that log."""


def _another(gold: str) -> str:
    """Make a wrong answer of the same kind: the opposite, the next letter, or the last number plus one."""
    if opposite := _OPPOSITES.get(gold.lower()):
        return opposite.capitalize() if gold[0].isupper() else opposite
    if re.fullmatch(r"\(?[A-Ia-i]\)?", gold):
        return re.sub(r"\w", lambda letter: chr(ord(letter[0]) + 1), gold)
    *_, last = [None, *re.finditer(r"\d+", gold)]
    if last is None:
        return f"{gold[::-1]} {gold[::-1]}"
    return gold[: last.start()] + str(int(last[0]) + 1).zfill(len(last[0])) + gold[last.end() :]
