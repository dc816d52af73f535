"""Which schedule to take: advice by task and length, with the evidence for it; `docs/choosing.md` says it at length."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from hf_sched.schedules.validation import OneOf, Whole

Strength: TypeAlias = Literal["strong", "mixed", "thin"]

TASKS = ("pretraining", "sft", "classification", "cnn", "long", "rl")
ALIASES = {"grpo": "rl"}
SHORT = 1000
"""Below so many optimizer steps only schedules of one piece are recommended."""


@dataclass(frozen=True)
class Recommendation:
    """A schedule to take, why, how well that is founded, and what to take instead; `print` shows all of it."""

    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any] = field(hash=False)
    reason: str
    evidence: Strength
    """Of published comparisons: `strong` (they agree), `mixed` (they disagree, or cover a part), `thin` (hardly any are
    in favour)."""
    evidence_reason: str
    """Why `evidence` is that word."""
    sources: tuple[str, ...]
    instead: str
    """The runner-up, as an `lr_scheduler_type`."""
    instead_kwargs: dict[str, Any] = field(hash=False)
    instead_when: str
    """When to take the runner-up: the end of a sentence that begins with `instead`."""
    warmup_steps: int = 0
    """Optimizer steps: less than the run has."""

    def training_arguments(self) -> dict[str, Any]:
        """What to spread into `TrainingArguments`, or to write into a YAML file: plain values only."""
        return {
            "lr_scheduler_type": self.lr_scheduler_type,
            "lr_scheduler_kwargs": dict(self.lr_scheduler_kwargs),
            "warmup_steps": self.warmup_steps,
        }

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.training_arguments().items()]
        kwargs = f" {self.instead_kwargs}" if self.instead_kwargs else ""
        return "\n".join(
            [
                *lines,
                f"Why: {self.reason}",
                f"Evidence: {self.evidence}. {self.evidence_reason}",
                f"Instead: {self.instead}{kwargs}, {self.instead_when}",
                f"Sources: {'; '.join(self.sources)}",
            ]
        )


def recommend(*, task: str, num_training_steps: int | None = None) -> Recommendation:
    """What to take for a task and a length.

    Args:
        task: `pretraining` (of a transformer), `sft` (of an LLM), `classification` (fine-tuning of the BERT or GPT
            kind), `cnn`, `long` (long optimisation of a non-convex problem), `rl` (of an LLM) or `grpo`, which is the
            same.
        num_training_steps: The optimizer steps of the run; None if its length is not known.

    Raises:
        ValueError: There is no such task, or the number of steps is none.
    """
    task = OneOf((*TASKS, *ALIASES))("task", task)
    task = ALIASES.get(task, task)
    if num_training_steps is None:
        # A share of the length that stands in for an unknown one would be as wrong as the length.
        return _handed_out(_LENGTH_UNKNOWN[task], 300 if task == "pretraining" else 100)
    total = Whole(1)("num_training_steps", num_training_steps)
    # In RL the usual advice is a constant, and nothing is simpler.
    advice = _SHORT.get(task, _USUAL[task]) if total < SHORT else _USUAL[task]
    rounded_up = -(-total * _WARMUP_PERCENT[task] // 100)
    return _handed_out(advice, min(rounded_up, total - 1))


def _handed_out(advice: Recommendation, warmup_steps: int) -> Recommendation:
    """The advice with its warmup, and with dicts of its own, which the user may change."""
    return replace(
        advice,
        warmup_steps=warmup_steps,
        lr_scheduler_kwargs=dict(advice.lr_scheduler_kwargs),
        instead_kwargs=dict(advice.instead_kwargs),
    )


# A share of the run, as near as may be to what the sources of each task trained with.
_WARMUP_PERCENT = {"pretraining": 1, "sft": 3, "classification": 6, "cnn": 5, "long": 1, "rl": 2}

_BERGSMA = "Bergsma et al. 2025, arXiv 2502.15938"
_CHEN = "Chen et al. 2021 (REX), arXiv 2107.04197"
_DEFAZIO = "Defazio et al. 2023, arXiv 2310.07831"
_GOTMARE = "Gotmare et al. 2018, arXiv 1810.13243"
_HAEGELE = "Hägele et al. 2024, arXiv 2405.18392"
_HE = "He et al. 2025 (JustRL), arXiv 2512.16649"
_HOFFMANN = "Hoffmann et al. 2022 (Chinchilla), arXiv 2203.15556"
_HU = "Hu et al. 2024 (MiniCPM), arXiv 2404.06395"
_LI = "Li et al. 2019, arXiv 1905.04753"
_LIU = "Liu et al. 2019 (RoBERTa), arXiv 1907.11692"
_LOSHCHILOV = "Loshchilov and Hutter 2016 (SGDR), arXiv 1608.03983"
_MOSBACH = "Mosbach et al. 2020, arXiv 2006.04884"
_PAREJA = "Pareja et al. 2024, arXiv 2412.13337"
_RAFFEL = "Raffel et al. 2019 (T5), arXiv 1910.10683"
_SHAO = "Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300"
_SZEGEDY = "Szegedy et al. 2015 (Inception-v3), arXiv 1512.00567"
_TAN = "Tan and Le 2019 (EfficientNet), arXiv 1905.11946"
_YU = "Yu et al. 2025 (DAPO), arXiv 2503.14476"
_ZHANG = "Zhang et al. 2026, arXiv 2602.01826"

_USUAL = {
    "pretraining": Recommendation(
        "linear_with_warmup",
        {},
        reason="At a known length and a tuned peak, a straight line to 0 ends on a lower loss than a decay to 10% of "
        "the peak, and the longer the training the more so.",
        evidence="strong",
        evidence_reason="A comparison at up to 1.7B parameters says so, and two other studies and theory agree on the "
        "loss; on benchmarks they disagree.",
        sources=(_BERGSMA, _DEFAZIO, _HAEGELE, _HOFFMANN),
        instead="cosine_floor",
        instead_kwargs={"floor_ratio": 0.1},
        instead_when="if benchmarks count more than the loss: at 1B parameters a cosine to 10% did no worse in them; "
        "wsd, if you want to branch off or go on later.",
    ),
    "sft": Recommendation(
        "linear_with_warmup",
        {},
        reason="It is what open recipes of the TULU line use, and the best founded default elsewhere; in fine-tuning "
        "the peak and the batch size matter more than the shape.",
        evidence="thin",
        evidence_reason="The one comparison we know, with a single seed, found a constant rate as good as a cosine; "
        "results from pre-training do not carry over by themselves.",
        sources=(_PAREJA, _DEFAZIO),
        instead="cosine_floor",
        instead_kwargs={"floor_ratio": 0.1},
        instead_when="if the last examples are to count as well: it never trains below a tenth of the peak after the "
        "warmup.",
    ),
    "classification": Recommendation(
        "linear_with_warmup",
        {},
        reason="RoBERTa's fine-tuning and the stable baseline for BERT use a short warmup and a straight line to 0.",
        evidence="thin",
        evidence_reason="It is common practice, but we know of no comparison on this task alone, and T5 fine-tuned at "
        "a constant rate.",
        sources=(_LIU, _MOSBACH, _RAFFEL),
        instead="phases",
        instead_kwargs={"phases": "hold"},
        instead_when="if you train until a validation score stops rising: a constant rate needs no last step.",
    ),
    "cnn": Recommendation(
        "exponential",
        {"floor_ratio": 0.01},
        reason="Inception and EfficientNet were trained with an exponential decay, EfficientNet's down to about 1% of "
        "the peak.",
        evidence="thin",
        evidence_reason="Those are recipes, not comparisons; comparisons on image models put a linear decay ahead.",
        sources=(_SZEGEDY, _TAN, _CHEN, _LI),
        instead="linear_with_warmup",
        instead_kwargs={},
        instead_when="if you repeat no published recipe: among the best of three in 70% of settings, exponential in "
        "11% (arXiv 2107.04197).",
    ),
    "long": Recommendation(
        "cosine_restarts",
        {"num_cycles": 4, "cycle_multiplier": 2.0},
        reason="Each cycle ends on a model that can be used or joined to an ensemble, long before the run ends, and "
        "the rate is high again after it.",
        evidence="mixed",
        evidence_reason="On CIFAR restarts were good early and a little better at the end; when pre-training an LLM a "
        "straight line to 0 beat cycles, and why restarts should help is disputed.",
        sources=(_LOSHCHILOV, _GOTMARE, _BERGSMA),
        instead="cosine_floor",
        instead_kwargs={"floor_ratio": 0.0},
        instead_when="if only the model at the end counts: SGDR's authors found it competitive without restarts, too.",
    ),
    "rl": Recommendation(
        "phases",
        {"phases": "hold"},
        reason="DAPO and JustRL trained at a constant rate, DAPO after a short warmup. This is transformers' "
        "constant_with_warmup without its first step at a rate of 0.",
        evidence="thin",
        evidence_reason="Those are recipes: we know of no comparison with a cosine, and where long runs became "
        "unstable a falling rate helped.",
        sources=(_YU, _HE, _SHAO, _ZHANG),
        instead="cosine_floor",
        instead_kwargs={"floor_ratio": 0.1},
        instead_when="if the run is long and the reward collapses, or answers suddenly grow, late in it.",
    ),
}

_ONE_PIECE = Recommendation(
    "linear_with_warmup",
    {},
    reason=f"Below {SHORT} steps cycles and stages would have only a few steps each: one piece that falls over the "
    "whole run is left.",
    evidence="mixed",
    evidence_reason="With a small budget a linear decay is among the best, but that was shown mostly on images, and "
    "small meant a share of the usual training. When we fine-tuned for 80 steps (docs/benchmarks.md) nothing was "
    "shown to be better, and a cosine to 0, restarts and a constant rate were worse.",
    sources=(_LI, _CHEN),
    instead="cosine_floor",
    instead_kwargs={"floor_ratio": 0.1},
    instead_when="if the last examples are to count as well: it never trains below a tenth of the peak after the "
    "warmup.",
)

_SHORT = {
    **dict.fromkeys((task for task in TASKS if task != "rl"), _ONE_PIECE),
    "pretraining": replace(
        _ONE_PIECE,
        evidence_reason="With a small budget a linear decay is among the best, but that was shown mostly on images, "
        "and small meant a share of the usual training. Where we stopped after 160 steps, with the loss still falling "
        "fast (docs/benchmarks.md), what stays high for longer ended lower: wsd, a constant rate.",
        instead="wsd",
        instead_kwargs={"decay": "20%", "decay_shape": "1-sqrt"},
        instead_when="if the run ends long before the model has learned what it can.",
    ),
}

_WSD = Recommendation(
    "wsd",
    {"decay": "20%", "decay_shape": "1-sqrt"},
    reason="No schedule can be built without a length, so set max_steps higher than you will need: until its decay "
    "wsd is a constant rate. To stop earlier, cool down from a checkpoint, in a run of its own.",
    evidence="thin",
    evidence_reason="That a constant rate with a cooldown keeps up with a decay was shown when pre-training language "
    "models, not for this task.",
    sources=(_HAEGELE, _HU),
    instead="linear_with_warmup",
    instead_kwargs={},
    instead_when="as soon as the length is settled.",
)

_LENGTH_UNKNOWN = {
    **dict.fromkeys(TASKS, _WSD),
    "pretraining": replace(
        _WSD,
        evidence="strong",
        evidence_reason="Two groups found it level with a cosine of the right length, at 36M to 1B parameters and in "
        "a short run at 8B.",
    ),
    "rl": replace(
        _WSD,
        instead="phases",
        instead_kwargs={"phases": "hold"},
        instead_when="if you want no cooldown at all, as DAPO and JustRL had none.",
        sources=(_HAEGELE, _HU, _YU, _HE),
    ),
}
