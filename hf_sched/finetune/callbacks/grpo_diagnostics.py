"""Warns if a GRPO run shows signs that it learns nothing, with a remedy."""

from __future__ import annotations

import logging
from itertools import islice
from statistics import median
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)

WINDOW = 10  # log records whose median is checked: any run has single steps that look bad

# Figures that TRL logs, the share from which on they are a sign, and the warning.
SIGNS = {
    # In a good run, more and more groups are entirely right.
    "frac_reward_zero_std": (
        0.8,
        "in {share:.0%} of the groups all completions got the same reward, so they teach nothing (reward {reward:.3g}, "
        "over {window} records). If that is the lowest reward, look at some completions (`log_completions: true`): "
        "either the model writes the answer in another form than `reward_funcs` expect (`--dry_run`), or the task is "
        "too hard, so use easier prompts or SFT first. If it is the highest, the task is solved. Otherwise raise "
        "`num_generations` ({args.num_generations}) or `temperature` ({args.temperature:g})",
    ),
    "completions/clipped_ratio": (
        0.5,
        "{share:.0%} of the completions were cut off at `max_completion_length` ({args.max_completion_length}), most "
        "before their answer (over {window} records). Raise it. If completions never end, the model has not learned to "
        "stop: run SFT first, with a trained stop token (`hf-sched sft --dry_run` reports it)",
    ),
}


class GRPODiagnostics(TrainerCallback):
    """Logs a warning on the main process when a sign appears, once for each sign."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or "reward" not in (logs or {}):
            return
        records = (record for record in reversed(state.log_history) if "reward" in record and "loss" in record)
        last = list(islice(records, WINDOW))
        for figure, (limit, warning) in SIGNS.items():
            share, reward = (median(record.get(name, 0) for record in last or [{}]) for name in (figure, "reward"))
            if len(last) == WINDOW and share > limit and figure not in self._reported:
                self._reported.add(figure)
                text = warning.format(share=share, reward=reward, window=WINDOW, args=args)
                logger.warning(f"step {state.global_step}: {text}")
