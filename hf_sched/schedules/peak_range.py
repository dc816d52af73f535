"""Where to start the search for the peak learning rate, with the evidence for it.

`docs/choosing.md` explains the numbers, and a test compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hf_sched.schedules.validation import Number, OneOf, Whole

LORA_FACTOR = 10
WIDTH, BATCH, ALPHA = 2048, 64, 32
"""The width, effective batch size and `lora_alpha` of the table."""
PARAMETERS = 1e9
"""Parameters outside the embeddings, of the table's row for pretraining."""
WIDTHS = (256, 16384)
"""The widths that are possible if it is unknown."""
OPTIMIZERS = {"adamw": (1.0, 1.0), "muon": (1.0, 1.0), "lion": (0.1, 0.33)}
"""Factors of the ends of the range. `muon` is the variant with updates as large as those of AdamW."""


@dataclass(frozen=True)
class PeakRange:
    """A range in which to start the search for the peak, and the reason for it."""

    low: float
    high: float
    evidence: Literal["strong", "mixed", "thin"]
    sources: tuple[str, ...]
    """Identifiers on arXiv, or names."""
    reason: str

    @property
    def start(self) -> float:
        """The middle of the range on a logarithmic scale, with one digit."""
        return _one_digit(math.sqrt(self.low * self.high))

    def times_outside(self, peak: float) -> float:
        """How many times above or below the range a peak is; 1 inside."""
        return max(self.low / peak, peak / self.high, 1.0)

    def __str__(self) -> str:
        return f"from {self.low:.0e} to {self.high:.0e} (evidence: {self.evidence})"


def peak_range(
    task: str,
    *,
    width: int | None = None,
    layers: int | None = None,
    lora_r: int | None = None,
    lora_alpha: float = ALPHA,
    use_rslora: bool = False,
    batch_size: int | None = None,
    optimizer: str = "adamw",
) -> PeakRange:
    """Return the range of usual peaks for a task.

    For fine-tuning, the table's peak is multiplied by `sqrt(2048 / width)`, by `sqrt(batch_size / 64)` (at least 1/2,
    at most 2), and, with LoRA, by `10 * sqrt(32 / lora_alpha)`. The rank has an influence with rsLoRA only. For
    pretraining, it is multiplied by `(1e9 / N) ** 0.4`, where `N = 12 * layers * width ** 2`.

    Args:
        task: One of `hf_sched.schedules.recommend.TASKS`, or `dpo`.
        width: The model's `hidden_size`. None if it is unknown, which makes the range wider.
        layers: The number of layers; used for pretraining only. None for a sixty-fourth of the width.
        lora_r: The rank; None to train all weights.
        lora_alpha: PEFT's `lora_alpha`.
        use_rslora: Whether PEFT divides `lora_alpha` by the square root of the rank, instead of the rank.
        batch_size: Samples (GRPO: completions) per optimizer step. None if it is unknown.
        optimizer: `adamw`, `muon` or `lion`.

    Raises:
        ArgumentError: A number is not above 0, or the optimizer is unknown.
        LookupError: Nothing is published for the task.
    """
    smallest, largest = OPTIMIZERS[OneOf(tuple(OPTIMIZERS))("optimizer", optimizer)]
    width, layers, lora_r, batch_size = (
        value if value is None else Whole(1)(name, value)
        for name, value in (("width", width), ("layers", layers), ("lora_r", lora_r), ("batch_size", batch_size))
    )
    lora_alpha = Number(0, above_low=True)("lora_alpha", lora_alpha)
    peak, spread, evidence, sources, reason = _TABLE[task]
    narrow, wide = (width, width) if width else WIDTHS
    if task == "pretraining":
        low, high = ((PARAMETERS / (12 * (layers or size / 64) * size**2)) ** 0.4 for size in (wide, narrow))
    else:
        low, high = (math.sqrt(WIDTH / size) for size in (wide, narrow))
        peak *= min(max(math.sqrt((batch_size or BATCH) / BATCH), 0.5), 2.0)
    if lora_r:
        peak *= LORA_FACTOR * math.sqrt(ALPHA / (lora_alpha * (math.sqrt(lora_r) if use_rslora else 1)))
        sources += _LORA_SOURCES
    low, high = peak * low / spread * smallest, peak * high * spread * largest
    return PeakRange(_one_digit(low), _one_digit(high), evidence, sources, reason)


def _one_digit(rate: float) -> float:
    return float(f"{rate:.0e}")


_LORA_SOURCES = ("LoRA Without Regret", "2602.06204", "2602.04998")

# The middle and the spread of the range for AdamW and all weights, the evidence, its sources, and the reason.
_TABLE: dict[str, tuple[float, float, Literal["strong", "mixed", "thin"], tuple[str, ...], str]] = {
    "pretraining": (
        4.7e-4,
        4.0,
        "mixed",
        ("2005.14165", "2503.04715"),
        "Between the peaks of GPT-3 and those of a fit to 3,700 trainings.",
    ),
    "sft": (
        1.5e-5,
        7.0,
        "mixed",
        ("2509.20758", "2604.13627", "2205.10287"),
        "Sweeps for the lowest loss point to the upper half. The lower half forgets less of what the model could do.",
    ),
    "dpo": (
        1.5e-6,
        7.0,
        "thin",
        ("TRL", "alignment-handbook", "2205.10287"),
        "Recipes use it; a sweep over sizes is not known.",
    ),
    "rl": (
        1.5e-6,
        7.0,
        "thin",
        ("2503.14476", "2512.16649", "2402.03300", "TRL", "2205.10287"),
        "Recipes use it; a sweep over sizes is not known.",
    ),
}
