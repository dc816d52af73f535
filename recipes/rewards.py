"""Rewards for GRPO that check an answer: each gives 1.0 to a right completion and 0.0 to any other.

A recipe names them in `reward_funcs`: one of this file, one of `trl.rewards`, or a dotted path to a function of one's
own. A reward takes `completions` (text, or chat messages) and the data's other columns by name, each a list, and
returns a list of floats.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Completion = str | list[dict[str, str]]
Reward = Callable[..., list[Any]]

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MARKED = re.compile(r"####\s*([^\n]+)|\\boxed\{([^{}]*)\}")


def exact_answer(completions: Sequence[Completion], answer: Sequence[str], **_: Any) -> list[float]:
    """1.0 where the whole completion is the answer, but for surrounding blanks."""
    return [float(text_of(c).strip() == right.strip()) for c, right in zip(completions, answer, strict=True)]


def final_number(completions: Sequence[Completion], answer: Sequence[str], **_: Any) -> list[float]:
    r"""1.0 where the final number is right: the one after the last `####` or in the last `\boxed{}`, else the last."""
    return [float(_same_number(text_of(c), right)) for c, right in zip(completions, answer, strict=True)]


def text_of(completion: Completion) -> str:
    """The text of a completion, which comes as text or as chat messages."""
    return completion if isinstance(completion, str) else completion[-1]["content"] or ""


def load_rewards(names: Sequence[str] | str | None) -> list[Reward]:
    """The reward functions of these names, in order.

    Raises:
        ValueError: There is none by such a name, or none is named at all.
    """
    if not names:
        raise ValueError(f"`reward_funcs` must name at least one reward, for example [{', '.join(_own())}]")
    return [_load(name) for name in ([names] if isinstance(names, str) else names)]


def _load(name: str) -> Reward:
    if name in _own():
        return _own()[name]
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        module_name = "trl.rewards"
    elif str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a file of the user's own, beside where the recipe was started
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"`reward_funcs` must be names from rewards.py ({', '.join(_own())}), names from trl.rewards, or dotted "
            f"paths to a function (my_rewards.my_function), received {name!r}: {error}"
        ) from None
    if not callable(found):
        raise ValueError(f"`reward_funcs` must name functions, but {name!r} is {found!r}")
    return found


def _own() -> dict[str, Reward]:
    return {"exact_answer": exact_answer, "final_number": final_number}


def _same_number(text: str, right: str) -> bool:
    ours, theirs = _final_number(text), _final_number(right)
    return ours is not None and ours == theirs


def _final_number(text: str) -> float | None:
    marked = MARKED.findall(text)
    where = "".join(marked[-1]) if marked else text
    numbers = NUMBER.findall(where)
    return float(numbers[-1].replace(",", "")) if numbers else None
