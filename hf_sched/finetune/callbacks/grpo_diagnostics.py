"""Warns if a GRPO run shows signs that it learns nothing, with a remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)

WINDOW = 10  # log records whose median is checked: any run has single steps that look bad
CLIPPED = 0.5  # share of completions that are cut off
EQUAL_GROUPS = 0.8  # share of groups with equal rewards; in a good run, more and more groups are entirely right
COLLAPSED = 0.1  # share of the initial entropy at which nearly every token has only one likely value

Record = Mapping[str, Any]
Sign = Callable[[Sequence[Record], Sequence[Record], Any], str | None]
"""Returns what is wrong, given the last records, the first records and the training arguments."""


class GRPODiagnostics(TrainerCallback):
    """Logs a warning on the main process when a sign appears, and again only if it disappeared in between."""

    def __init__(self) -> None:
        self._records = 0
        self._last_seen: dict[Sign, int] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or "reward" not in (logs or {}):
            return
        self._records += 1
        last = list(islice(_records(reversed(state.log_history)), WINDOW))[::-1]
        first = list(islice(_records(state.log_history), WINDOW))
        if len(last) < WINDOW:
            return
        for sign in SIGNS:
            found = sign(last, first, args)
            if found is not None:
                # A sign that hovers around its threshold has not disappeared.
                if self._records - self._last_seen.get(sign, -WINDOW) > WINDOW:
                    logger.warning(f"step {state.global_step}: {found}")
                self._last_seen[sign] = self._records


def zero_reward(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Return a warning if a reward is 0 for every completion."""
    names = _zero_rewards(last)
    if not names:
        return None
    return (
        f"the reward{'s' * (len(names) > 1)} {', '.join(map(repr, names))} gave 0 to every completion of the last "
        f"{WINDOW} records. Look at some completions (`log_completions: true`). Either the model writes the answer in "
        "another form than the reward expects (`reward_funcs`, `--dry_run`), or the task is too hard: use easier "
        "prompts, SFT first, or more `num_generations`"
    )


def equal_rewards(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Return a warning if all completions of a group get the same reward in most groups."""
    share = _typical(last, "frac_reward_zero_std")
    if share is None or share <= EQUAL_GROUPS or _zero_rewards(last) == _rewards(last):  # that has its own warning
        return None
    return (
        f"in {share:.0%} of the groups all completions got the same reward, so they teach nothing (reward "
        f"{_typical(last, 'reward'):.3g}, over {WINDOW} records). If that is the highest possible reward, the task is "
        f"solved: stop, or use harder prompts. Otherwise raise `num_generations` ({args.num_generations}) or "
        f"`temperature` ({args.temperature:g}), or add a reward to `reward_funcs` that grades more finely"
    )


def clipped(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Return a warning if most completions are cut off."""
    share = _typical(last, "completions/clipped_ratio")
    if share is None or share <= CLIPPED:
        return None
    return (
        f"{share:.0%} of the completions were cut off at `max_completion_length` ({args.max_completion_length}), most "
        f"before their answer (over {WINDOW} records). Raise it. If completions never end, the model has not learned "
        "to stop: run SFT first, with a trained stop token (`hf-sched sft --dry_run` reports it). "
        "`mask_truncated_completions: true` keeps them out of the loss"
    )


def collapsed(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Return a warning if completions hardly vary any more."""
    now, start = _typical(last, "entropy"), _typical(first, "entropy")
    if now is None or not start or now >= COLLAPSED * start:
        return None
    return (
        f"the entropy of the tokens has fallen from {start:.3g} to {now:.3g}: completions hardly differ, so the model "
        f"explores nothing new. If the reward ({_typical(last, 'reward'):.3g}) is as high as possible, stop. Otherwise "
        f"resume an earlier checkpoint with a lower `learning_rate` ({args.learning_rate:g}), a higher `temperature` "
        f"({args.temperature:g}), `beta` above {args.beta:g} or `epsilon_high: 0.28`"
    )


SIGNS: tuple[Sign, ...] = (zero_reward, equal_rewards, clipped, collapsed)


def _records(history: Iterable[Record]) -> Iterator[Record]:
    return (row for row in history if "reward" in row and "loss" in row)


def _typical(rows: Sequence[Record], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return median(values) if values else None


def _rewards(rows: Sequence[Record]) -> list[str]:
    """Return the names of the rewards except penalties, whose highest value is 0."""
    names = [key.split("/")[1] for key in rows[-1] if key.startswith("rewards/") and key.endswith("/mean")]
    return [name for name in names if "penalty" not in name and "punish" not in name]


def _zero_rewards(rows: Sequence[Record]) -> list[str]:
    def is_zero(name: str) -> bool:
        return all(row.get(f"rewards/{name}/{figure}") == 0 for row in rows for figure in ("mean", "std"))

    return [name for name in _rewards(rows) if is_zero(name)]
