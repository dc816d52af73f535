"""While a GRPO run goes on: signs that it learns nothing, each told of once, with what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any

from transformers import TrainerCallback

from hf_sched.finetune.callbacks.progress import warn

# Records of the log that are looked at, by their median: some steps of any run have a sign.
WINDOW = 10
# Most of the groups, of the completions: what is typical of the run, no longer an exception.
MOST = 0.5
# Of the groups: a run that learns well has more and more groups that are all right, and goes on learning from the rest.
NEARLY_ALL = 0.8
# Of the entropy at the start: with a tenth of it nearly every token is the only one to be drawn.
COLLAPSED = 0.1

Record = Mapping[str, Any]
Sign = Callable[[Sequence[Record], Sequence[Record], Any], str | None]
"""What is wrong, given the last records, the first ones and the training arguments; None if nothing is."""


class Advice(TrainerCallback):
    """Prints a warning on the main process when a sign appears, and again only if it had gone in between."""

    def __init__(self) -> None:
        self._records = 0
        self._last_seen: dict[Sign, int] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Look at the last records, those of before a resume among them."""
        if not state.is_world_process_zero or "reward" not in (logs or {}):
            return
        self._records += 1
        last = list(islice(_records(reversed(state.log_history)), WINDOW))[::-1]
        first = list(islice(_records(state.log_history), WINDOW))
        if len(last) < WINDOW:
            return
        for sign in SIGNS:
            found = sign(last, first, args)
            if found is None:
                continue
            before = self._last_seen.get(sign)
            self._last_seen[sign] = self._records
            # A sign that comes and goes about its threshold has not gone.
            if before is None or self._records - before > WINDOW:
                warn(f"step {state.global_step}: {found}")


def zero_reward(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """A reward that every completion gets 0 from."""
    stuck = _zero_rewards(last)
    if not stuck:
        return None
    return (
        f"the reward{'s' * (len(stuck) > 1)} {', '.join(map(repr, stuck))} gave 0 to every completion of the last "
        f"{WINDOW} records. Look at some (`log_completions: true`): either the form the answer is looked for in is not "
        "the one that is written (`reward_funcs`, `--dry_run`), or the task is too hard: easier prompts, SFT first, or "
        "more `num_generations`"
    )


def no_spread(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Groups whose completions all get the same reward."""
    share = _typical(last, "frac_reward_zero_std")
    if share is None or share <= NEARLY_ALL or _zero_rewards(last) == _rewards(last):  # it has its own
        return None
    return (
        f"in {share:.0%} of the groups all completions got the same reward, so that they teach nothing (reward "
        f"{_typical(last, 'reward'):.3g}, over {WINDOW} records). If that is the most there is, the task is solved: "
        f"stop, or take harder prompts. Otherwise raise `num_generations` ({args.num_generations}) or `temperature` "
        f"({args.temperature:g}), or name a reward in `reward_funcs` that tells better from worse"
    )


def clipped(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Completions that are cut off."""
    share = _typical(last, "completions/clipped_ratio")
    if share is None or share <= MOST:
        return None
    return (
        f"{share:.0%} of the completions were cut off at `max_completion_length` ({args.max_completion_length}), most "
        f"before their answer (over {WINDOW} records). Raise it; if they never end, the model has not learned to stop: "
        "SFT first, with its stop token trained (`--dry_run` of recipes/sft.py tells). "
        "`mask_truncated_completions: true` keeps them out of the loss"
    )


def collapsed(last: Sequence[Record], first: Sequence[Record], args: Any) -> str | None:
    """Completions that hardly vary any more."""
    now, start = _typical(last, "entropy"), _typical(first, "entropy")
    if now is None or not start or now >= COLLAPSED * start:
        return None
    return (
        f"the entropy of the tokens has fallen from {start:.3g} to {now:.3g}: completions hardly differ, and nothing "
        f"new is found. If the reward ({_typical(last, 'reward'):.3g}) is as high as it can be, stop; otherwise go "
        f"back to an earlier checkpoint with a lower `learning_rate` ({args.learning_rate:g}), a higher `temperature` "
        f"({args.temperature:g}), `beta` above {args.beta:g} or `epsilon_high: 0.28`"
    )


SIGNS: tuple[Sign, ...] = (zero_reward, no_spread, clipped, collapsed)


def _records(history: Any) -> Any:
    return (row for row in history if "reward" in row and "loss" in row)


def _typical(rows: Sequence[Record], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return median(values) if values else None


def _rewards(rows: Sequence[Record]) -> list[str]:
    """The names of the rewards, but for penalties, whose best is 0."""
    names = [key.split("/")[1] for key in rows[-1] if key.startswith("rewards/") and key.endswith("/mean")]
    return [name for name in names if "penalty" not in name and "punish" not in name]


def _zero_rewards(rows: Sequence[Record]) -> list[str]:
    def is_zero(name: str) -> bool:
        return all(row.get(f"rewards/{name}/{figure}") == 0 for row in rows for figure in ("mean", "std"))

    return [name for name in _rewards(rows) if is_zero(name)]
