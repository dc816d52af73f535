"""Warns if a GRPO run shows signs that it learns nothing, with a remedy."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from transformers import TrainerCallback

from hf_sched.integrations.trackers import send_alert

logger = logging.getLogger(__name__)

WINDOW = 10  # log records whose median is checked: any run has single steps that look bad

Record = Mapping[str, Any]


class Sign(NamedTuple):
    """A figure that TRL logs, or how far one has fallen, and the share from which on it is a sign."""

    title: str
    figure: str
    limit: float
    warning: str


# In a good run, more and more groups are entirely right.
DEAD_REWARDS = Sign(
    "dead rewards",
    "frac_reward_zero_std",
    0.8,
    "in {share:.0%} of the groups all completions got the same reward, so they teach nothing (reward {reward:.3g}, "
    "over {window} records). If that is the lowest reward, look at some completions (`log_completions: true`): "
    "either the model writes the answer in another form than `reward_funcs` expect (`--dry_run`), or the task is "
    "too hard, so use easier prompts or SFT first. If it is the highest, the task is solved. Otherwise raise "
    "`num_generations` ({args.num_generations}) or `temperature` ({args.temperature:g})",
)
CLIPPED_COMPLETIONS = Sign(
    "completions cut off",
    "completions/clipped_ratio",
    0.5,
    "{share:.0%} of the completions were cut off at `max_completion_length` ({args.max_completion_length}), most "
    "before their answer (over {window} records). Raise it. If completions never end, the model has not learned to "
    "stop: run SFT first, with a trained stop token (`hf-sched sft --dry_run` reports it)",
)
# Below a tenth of the initial entropy nearly every token has only one likely value.
ENTROPY_COLLAPSE = Sign(
    "entropy collapse",
    "entropy",
    0.9,
    "the entropy of the tokens has fallen by {share:.0%} since the start (over {window} records): completions hardly "
    "differ, so the model explores nothing new. If the reward ({reward:.3g}) is as high as possible, stop. Otherwise "
    "resume an earlier checkpoint with a lower `learning_rate` ({args.learning_rate:g}), a higher `temperature` "
    "({args.temperature:g}), `beta` above {args.beta:g} or `epsilon_high: 0.28`",
)


class GRPODiagnostics(TrainerCallback):
    """Logs a warning on the main process when a sign appears, once for each sign, and sends it to the trackers."""

    def __init__(self) -> None:
        self._reported: set[Sign] = set()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or "reward" not in (logs or {}):
            return
        first, last = _first_records(state.log_history), _first_records(reversed(state.log_history))
        if len(last) < WINDOW:
            return
        initial, reward = _median(first, "entropy"), _median(last, "reward")
        shares = {sign: _median(last, sign.figure) for sign in (DEAD_REWARDS, CLIPPED_COMPLETIONS)}
        shares[ENTROPY_COLLAPSE] = 1 - _median(last, "entropy") / initial if initial else 0.0
        for sign, share in shares.items():
            if share > sign.limit and sign not in self._reported:
                self._reported.add(sign)
                text = sign.warning.format(share=share, reward=reward, window=WINDOW, args=args)
                logger.warning(f"step {state.global_step}: {text}")
                send_alert(args, sign.title, text, "WARN")


def _first_records(history: Iterable[Record]) -> list[Record]:
    return list(islice((record for record in history if "reward" in record and "loss" in record), WINDOW))


def _median(records: Sequence[Record], figure: str) -> float:
    return median(record.get(figure, 0.0) for record in records)
