"""Which schedule to use, by task and length of the run, with the evidence for it.

This file is the table behind `recommend()`. `docs/choosing.md` explains it, and a test compares the two.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hf_sched.schedules.peak_range import PeakRange, peak_range
from hf_sched.schedules.validation import OneOf, Whole

TASKS = ("pretraining", "sft", "classification", "cnn", "long", "rl")
ALIASES = {"grpo": "rl", "dpo": "sft"}
"""Tasks that are trained with the schedule of another one."""
SHORT = 1000
"""Below this number of optimizer steps, only schedules of one piece are recommended."""


@dataclass(frozen=True)
class Recommendation:
    """A schedule, the reason for it, and an alternative. `print` shows all of it."""

    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any] = field(hash=False)
    evidence: Literal["strong", "mixed", "thin"]
    """Published comparisons are `strong` (they agree), `mixed` (they disagree or cover a part) or `thin` (rare)."""
    sources: tuple[str, ...]
    """Identifiers on arXiv."""
    reason: str
    instead: str
    """The alternative, and when to use it."""
    warmup_steps: int = 0
    """Optimizer steps, fewer than the run has."""
    peak: PeakRange | None = None
    """Usual peak learning rates; None if nothing is published for the task."""

    def training_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `TrainingArguments`, or keys for a YAML file, without the peak."""
        return {
            "lr_scheduler_type": self.lr_scheduler_type,
            "lr_scheduler_kwargs": dict(self.lr_scheduler_kwargs),
            "warmup_steps": self.warmup_steps,
        }

    def __str__(self) -> str:
        lines = [
            *(f"{name}: {value}" for name, value in self.training_arguments().items()),
            f"Why: {self.reason}",
            f"Evidence: {self.evidence} (arXiv {', '.join(self.sources)})",
            f"Instead: {self.instead}",
        ]
        if self.peak:
            lines += [
                f"learning_rate: {self.peak.start:.0e}, to start a search {self.peak}",
                f"Why: {self.peak.reason}",
                f"Sources: {', '.join(self.peak.sources)}",
            ]
        return "\n".join(lines)


def recommend(*, task: str, num_training_steps: int | None = None, **run: Any) -> Recommendation:
    """Recommend a schedule, and where to start the search for its peak, for a task and a length of the run.

    Args:
        task: `pretraining` (of a transformer), `sft` (of an LLM), `classification` (fine-tuning of a BERT-like model),
            `cnn`, `long` (long optimization of a non-convex problem), `rl` or `grpo` (of an LLM), or `dpo`, which has
            the schedule of `sft`.
        num_training_steps: The optimizer steps of the run; None if they are unknown.
        **run: What the peak depends on, if it is known: `width`, `layers`, `lora_r`, `lora_alpha`, `use_rslora`,
            `batch_size` and `optimizer`, as in `hf_sched.schedules.peak_range.peak_range`.

    Raises:
        ArgumentError: The task is unknown, the number of steps is not a whole number above 0, or a value of `run` is
            wrong.

    Examples:
        >>> recommend(task="sft", num_training_steps=2000).training_arguments()
        {'lr_scheduler_type': 'linear_with_warmup', 'lr_scheduler_kwargs': {}, 'warmup_steps': 60}
        >>> recommend(task="sft", width=4096, lora_r=16).peak.start
        0.0001
    """
    task = OneOf((*TASKS, *ALIASES))("task", task)
    peak = None
    with suppress(LookupError):
        peak = peak_range("rl" if task == "grpo" else task, **run)
    task = ALIASES.get(task, task)
    if num_training_steps is None:
        # A fraction of an unknown length would be a guess, so the warmup is a number of steps.
        row, warmup_steps = "length unknown", 300 if task == "pretraining" else 100
    else:
        total = Whole(1)("num_training_steps", num_training_steps)
        row = "short" if total < SHORT else task
        warmup_steps = min(-(-total * _WARMUP_PERCENT[task] // 100), total - 1)  # rounded up, as a Trainer does
    row = "rl" if task == "rl" else row  # a constant rate suits every length
    return replace(_TABLE[row], warmup_steps=warmup_steps, peak=peak)


# Close to what the sources of each task trained with.
_WARMUP_PERCENT = {"pretraining": 1, "sft": 3, "classification": 6, "cnn": 5, "long": 1, "rl": 2}

_LAST_EXAMPLES = "cosine_floor, if the last examples should count: it never decays below a tenth of the peak."

_TABLE = {
    "pretraining": Recommendation(
        "linear_with_warmup",
        {},
        "strong",
        ("2502.15938", "2310.07831", "2405.18392", "2203.15556"),
        "At a known length, a linear decay to 0 ends on a lower loss than one to 10% of the peak.",
        "cosine_floor, if benchmarks count more than the loss. Use wsd to branch off or continue later.",
    ),
    "sft": Recommendation(
        "linear_with_warmup",
        {},
        "thin",
        ("2412.13337", "2310.07831"),
        "Open recipes of the TULU line use it. In fine-tuning, peak and batch size matter more than the shape.",
        _LAST_EXAMPLES,
    ),
    "classification": Recommendation(
        "linear_with_warmup",
        {},
        "thin",
        ("1907.11692", "2006.04884", "1910.10683"),
        "RoBERTa's fine-tuning and the stable baseline for BERT use a short warmup and a linear decay to 0.",
        "phases with {'phases': 'hold'}, if you train until a validation score stops improving.",
    ),
    "cnn": Recommendation(
        "exponential",
        {"floor_ratio": 0.01},
        "thin",
        ("1512.00567", "1905.11946", "2107.04197", "1905.04753"),
        "Inception and EfficientNet were trained with it, EfficientNet down to about 1% of the peak.",
        "linear_with_warmup, unless you repeat a recipe: it was among the best three in 70% of settings, this in 11%.",
    ),
    "long": Recommendation(
        "cosine_restarts",
        {"num_cycles": 4, "cycle_multiplier": 2.0},
        "mixed",
        ("1608.03983", "1810.13243", "2502.15938"),
        "Each cycle ends with a usable model, also for an ensemble, long before the end of the run.",
        "cosine_floor with {'floor_ratio': 0.0}, if only the final model counts.",
    ),
    "rl": Recommendation(
        "phases",
        {"phases": "hold"},
        "thin",
        ("2503.14476", "2512.16649", "2402.03300", "2602.01826"),
        "DAPO and JustRL trained at a constant rate, DAPO after a short warmup.",
        "cosine_floor, if the run is long and late in it the reward collapses or answers suddenly grow.",
    ),
    "short": Recommendation(
        "linear_with_warmup",
        {},
        "mixed",
        ("1905.04753", "2107.04197"),
        f"Below {SHORT} steps, cycles and stages would last only a few steps each, so this is a single decay.",
        _LAST_EXAMPLES,
    ),
    "length unknown": Recommendation(
        "wsd",
        {},
        "mixed",
        ("2405.18392", "2404.06395"),
        "Set max_steps higher than you will need: until its decay wsd is a constant rate. To stop earlier, start a "
        "cooldown from a checkpoint.",
        "linear_with_warmup, as soon as the length is known.",
    ),
}
