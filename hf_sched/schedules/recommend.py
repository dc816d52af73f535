"""Which schedule to use, by task and length of the run, with the evidence for it.

This file is the table behind `recommend()`. `docs/choosing.md` explains it, and a test compares the two.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from hf_sched.schedules.validation import OneOf, Whole

Strength: TypeAlias = Literal["strong", "mixed", "thin"]

TASKS = ("pretraining", "sft", "classification", "cnn", "long", "rl")
ALIASES = {"grpo": "rl"}
SHORT = 1000
"""Below this number of optimizer steps, only schedules of one piece are recommended."""


@dataclass(frozen=True)
class Recommendation:
    """A schedule, the reasons for it, and an alternative. `print` shows all of it."""

    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any] = field(hash=False)
    reason: str
    evidence: Strength
    """Published comparisons are `strong` (they agree), `mixed` (they disagree or cover a part) or `thin` (rare)."""
    evidence_reason: str
    """The reason for the value of `evidence`."""
    sources: tuple[str, ...]
    """Identifiers on arXiv."""
    instead: str
    """The alternative, as an `lr_scheduler_type`."""
    instead_kwargs: dict[str, Any] = field(hash=False)
    instead_when: str
    """When to use the alternative; completes the sentence that begins with `instead`."""
    warmup_steps: int = 0
    """Optimizer steps, fewer than the run has."""

    def training_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `TrainingArguments`, or keys for a YAML file."""
        return {
            "lr_scheduler_type": self.lr_scheduler_type,
            "lr_scheduler_kwargs": dict(self.lr_scheduler_kwargs),
            "warmup_steps": self.warmup_steps,
        }

    def __str__(self) -> str:
        kwargs = f" {self.instead_kwargs}" if self.instead_kwargs else ""
        return "\n".join(
            [
                *(f"{name}: {value}" for name, value in self.training_arguments().items()),
                f"Why: {self.reason}",
                f"Evidence: {self.evidence}. {self.evidence_reason}",
                f"Instead: {self.instead}{kwargs}, {self.instead_when}",
                f"Sources: arXiv {', '.join(self.sources)}",
            ]
        )


def recommend(*, task: str, num_training_steps: int | None = None) -> Recommendation:
    """Recommend a schedule for a task and a length of the run.

    Args:
        task: `pretraining` (of a transformer), `sft` (of an LLM), `classification` (fine-tuning of a BERT-like model),
            `cnn`, `long` (long optimization of a non-convex problem), `rl` (of an LLM) or its alias `grpo`.
        num_training_steps: The optimizer steps of the run; None if they are unknown.

    Raises:
        ArgumentError: The task is unknown, or the number of steps is not a whole number above 0.

    Examples:
        >>> recommend(task="sft", num_training_steps=2000).training_arguments()
        {'lr_scheduler_type': 'linear_with_warmup', 'lr_scheduler_kwargs': {}, 'warmup_steps': 60}
    """
    task = OneOf((*TASKS, *ALIASES))("task", task)
    task = ALIASES.get(task, task)
    if num_training_steps is None:
        # A fraction of an unknown length would be a guess, so the warmup is a number of steps.
        table, warmup_steps = _LENGTH_UNKNOWN, 300 if task == "pretraining" else 100
    else:
        total = Whole(1)("num_training_steps", num_training_steps)
        table = _SHORT if total < SHORT and task != "rl" else _USUAL  # a constant rate suits every length
        warmup_steps = min(-(-total * _WARMUP_PERCENT[task] // 100), total - 1)  # rounded up, as a Trainer does
    return replace(copy.deepcopy(table.get(task) or table["any"]), warmup_steps=warmup_steps)


# Close to what the sources of each task trained with.
_WARMUP_PERCENT = {"pretraining": 1, "sft": 3, "classification": 6, "cnn": 5, "long": 1, "rl": 2}

_FLOOR = {"floor_ratio": 0.1}
_CONSTANT = {"phases": "hold"}
_COOLDOWN = {"decay": "20%", "decay_shape": "1-sqrt"}
_LAST_EXAMPLES = "if the last examples should count: after the warmup it never trains below a tenth of the peak."

_USUAL = {
    "pretraining": Recommendation(
        "linear_with_warmup",
        {},
        "At a known length, a linear decay to 0 ends on a lower loss than one to 10% of the peak.",
        "strong",
        "Comparisons at up to 1.7B parameters and theory agree on the loss; on benchmarks they disagree.",
        ("2502.15938", "2310.07831", "2405.18392", "2203.15556"),
        "cosine_floor",
        _FLOOR,
        "if benchmarks count more than the loss. Use wsd to branch off or continue later.",
    ),
    "sft": Recommendation(
        "linear_with_warmup",
        {},
        "Open recipes of the TULU line use it. In fine-tuning, peak and batch size matter more than the shape.",
        "thin",
        "The one comparison we know, with a single seed, found a constant rate as good as a cosine.",
        ("2412.13337", "2310.07831"),
        "cosine_floor",
        _FLOOR,
        _LAST_EXAMPLES,
    ),
    "classification": Recommendation(
        "linear_with_warmup",
        {},
        "RoBERTa's fine-tuning and the stable baseline for BERT use a short warmup and a linear decay to 0.",
        "thin",
        "It is common practice, but we know of no comparison, and T5 was fine-tuned at a constant rate.",
        ("1907.11692", "2006.04884", "1910.10683"),
        "phases",
        _CONSTANT,
        "if you train until a validation score stops improving: a constant rate needs no last step.",
    ),
    "cnn": Recommendation(
        "exponential",
        {"floor_ratio": 0.01},
        "Inception and EfficientNet were trained with it, EfficientNet down to about 1% of the peak.",
        "thin",
        "Those are recipes, not comparisons. Comparisons on image models prefer a linear decay.",
        ("1512.00567", "1905.11946", "2107.04197", "1905.04753"),
        "linear_with_warmup",
        {},
        "unless you repeat a published recipe: it was among the best three in 70% of settings, exponential in 11%.",
    ),
    "long": Recommendation(
        "cosine_restarts",
        {"num_cycles": 4, "cycle_multiplier": 2.0},
        "Each cycle ends with a usable model, also for an ensemble, long before the end of the run.",
        "mixed",
        "On CIFAR restarts were slightly better at the end; in LLM pre-training a linear decay beat cycles.",
        ("1608.03983", "1810.13243", "2502.15938"),
        "cosine_floor",
        {"floor_ratio": 0.0},
        "if only the final model counts: the authors of SGDR found it competitive without restarts.",
    ),
    "rl": Recommendation(
        "phases",
        _CONSTANT,
        "DAPO and JustRL trained at a constant rate, DAPO after a short warmup.",
        "thin",
        "Those are recipes. We know of no comparison, and a decay helped where long runs became unstable.",
        ("2503.14476", "2512.16649", "2402.03300", "2602.01826"),
        "cosine_floor",
        _FLOOR,
        "if the run is long and late in it the reward collapses or answers suddenly grow.",
    ),
}

_SHORT = {
    "any": Recommendation(
        "linear_with_warmup",
        {},
        f"Below {SHORT} steps, cycles and stages would have only a few steps each. A decay of one piece remains.",
        "mixed",
        "It is among the best on images with a small budget, and in our runs of 80 steps (docs/benchmarks.md).",
        ("1905.04753", "2107.04197"),
        "cosine_floor",
        _FLOOR,
        _LAST_EXAMPLES,
    ),
}
_SHORT["pretraining"] = replace(
    _SHORT["any"],
    evidence_reason="It is among the best on images with a small budget. In our runs of 160 steps (docs/benchmarks.md) "
    "with the loss still falling fast, wsd and a constant rate ended lower.",
    instead="wsd",
    instead_kwargs=_COOLDOWN,
    instead_when="if the run ends long before the model has learned what it can.",
)

_LENGTH_UNKNOWN = {
    "any": Recommendation(
        "wsd",
        _COOLDOWN,
        "Set max_steps higher than you will need: until its decay wsd is a constant rate. To stop earlier, start a "
        "cooldown from a checkpoint.",
        "thin",
        "A constant rate with a cooldown matched a decay in language-model pre-training, not in this task.",
        ("2405.18392", "2404.06395"),
        "linear_with_warmup",
        {},
        "as soon as the length is known.",
    ),
}
_LENGTH_UNKNOWN["pretraining"] = replace(
    _LENGTH_UNKNOWN["any"],
    evidence="strong",
    evidence_reason="Two groups found it equal to a cosine of the right length, at 36M to 1B parameters.",
)
_LENGTH_UNKNOWN["rl"] = replace(
    _LENGTH_UNKNOWN["any"],
    sources=("2405.18392", "2404.06395", "2503.14476", "2512.16649"),
    instead="phases",
    instead_kwargs=_CONSTANT,
    instead_when="if you want no cooldown at all, like DAPO and JustRL.",
)
