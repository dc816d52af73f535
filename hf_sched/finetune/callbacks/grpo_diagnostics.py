"""Warns if a GRPO run shows signs that it learns nothing, with a remedy."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)

WINDOW = 10  # log records whose median is checked: any run has single steps that look bad
CLIPPED = 0.5  # share of completions that are cut off
EQUAL_GROUPS = 0.8  # share of groups with equal rewards; in a good run, more and more groups are entirely right

Record = Mapping[str, Any]


class GRPODiagnostics(TrainerCallback):
    """Logs a warning on the main process when a sign appears, once for each sign."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or "reward" not in (logs or {}):
            return
        records = (record for record in reversed(state.log_history) if "reward" in record and "loss" in record)
        last = list(islice(records, WINDOW))
        for sign, warning in signs(last, args) if len(last) == WINDOW else ():
            if sign not in self._reported:
                logger.warning(f"step {state.global_step}: {warning}")
                self._reported.add(sign)


def signs(last: Sequence[Record], args: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the warning of each sign, from the last records and the training arguments."""
    named = [key.split("/")[1] for key in last[-1] if key.startswith("rewards/") and key.endswith("/mean")]
    rewards = [name for name in named if "penalty" not in name]  # the highest value of a penalty is 0
    zero = [name for name in rewards if not any(row[f"rewards/{name}/{of}"] for row in last for of in ("mean", "std"))]
    reward, equal = _typical(last, "reward"), _typical(last, "frac_reward_zero_std")
    if zero:
        yield (
            "zero rewards",
            f"the reward{'s' * (len(zero) > 1)} {', '.join(map(repr, zero))} gave 0 to every completion of the last "
            f"{WINDOW} records. Look at some completions (`log_completions: true`). Either the model writes the answer "
            "in another form than the reward expects (`reward_funcs`, `--dry_run`), or the task is too hard: use "
            "easier prompts, SFT first, or more `num_generations`",
        )
    if equal > EQUAL_GROUPS and zero != rewards:
        yield (
            "equal rewards",
            f"in {equal:.0%} of the groups all completions got the same reward, so they teach nothing (reward "
            f"{reward:.3g}, over {WINDOW} records). If that is the highest possible reward, the task is solved: stop, "
            f"or use harder prompts. Otherwise raise `num_generations` ({args.num_generations}) or `temperature` "
            f"({args.temperature:g}), or add a reward to `reward_funcs` that grades more finely",
        )
    clipped = _typical(last, "completions/clipped_ratio")
    if clipped > CLIPPED:
        yield (
            "clipped completions",
            f"{clipped:.0%} of the completions were cut off at `max_completion_length` ({args.max_completion_length}), "
            f"most before their answer (over {WINDOW} records). Raise it. If completions never end, the model has not "
            "learned to stop: run SFT first, with a trained stop token (`hf-sched sft --dry_run` reports it)",
        )


def _typical(rows: Sequence[Record], key: str) -> float:
    """Return the median of a figure; 0 if it was not logged, which is no sign of anything."""
    return median([row[key] for row in rows if row.get(key) is not None] or [0.0])
