"""Branching: a cooldown from any checkpoint of a run at a constant learning rate.

One long run at a constant rate gives models for many budgets: each is the run up to a checkpoint, followed by its own
cooldown (Hu et al. 2024, arXiv 2404.06395; Hägele et al. 2024, arXiv 2405.18392). The long run itself is only read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from hf_sched._run_files import read_trainer_state
from hf_sched.scheduler.resume import Saved
from hf_sched.schedules.shapes import DECAY_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import Amount, ArgumentError, Duration, DurationReader, round_half_up


def anneal_from(
    checkpoint: str | Path,
    duration: Duration = "20%",
    shape: str | Shape = "1-sqrt",
    *,
    floor_ratio: float | None = None,
    min_lr: float | None = None,
) -> dict[str, Any]:
    """Return `TrainingArguments` for a run that resumes a checkpoint and cools down.

    Merge them into the arguments of the checkpoint's run, and give the new run its own `output_dir`. Optimizer state
    and data order continue.

    Args:
        checkpoint: A checkpoint folder of the Trainer, saved while the learning rate was constant (`wsd`, `phases`, or
            a constant schedule).
        duration: Length of the cooldown, in steps or as a fraction of the new run: 20% from checkpoint-600 ends a run
            of 750 steps.
        shape: Shape of the decay, as in `hf_sched.decay`.
        floor_ratio: Where the decay ends, as a fraction of the peak; 0 by default.
        min_lr: The same as a learning rate.

    Raises:
        ArgumentError: `checkpoint` is not a checkpoint with a constant learning rate, or another argument is invalid.

    Examples:
        >>> cooldown = hf_sched.anneal_from("runs/long/checkpoint-600")
        >>> args = SFTConfig(**{**arguments, **cooldown, "output_dir": "runs/at-600"})
        >>> SFTTrainer(model, args, ...).train(resume_from_checkpoint=args.resume_from_checkpoint)
    """
    from transformers import TrainingArguments  # slow to import

    folder = Path(checkpoint)
    missing = [name for name in ("trainer_state.json", "scheduler.pt") if not os.path.isfile(folder / name)]
    if missing:
        raise ArgumentError("checkpoint", f"a checkpoint folder with {' and '.join(missing)}", str(checkpoint))
    saved, state = Saved.load(folder), read_trainer_state(folder / "trainer_state.json")
    step = state["global_step"]
    level = next((rate / peak for rate, peak in zip(saved.rates, saved.peaks, strict=True) if peak), 1.0)
    if not _is_constant(saved, state, step):
        rates = ", ".join(f"{rate:g}" for rate in saved.rates)
        hint = f"its learning rate, {rates}, is rising or falling, so take one between the warmup and the decay"
        raise ArgumentError("checkpoint", "a checkpoint at a constant learning rate", str(checkpoint), hint)
    steps, phase = cooldown_phase(duration, shape, step)
    kwargs = {"floor_ratio": floor_ratio, "min_lr": min_lr}
    return {
        "resume_from_checkpoint": str(checkpoint),
        "max_steps": step + steps,
        "learning_rate": saved.peaks[0],
        "warmup_steps": 0,
        # Up to transformers 5.14, `warmup_steps: 0` does not override a `warmup_ratio`.
        **({"warmup_ratio": 0.0} if "warmup_ratio" in TrainingArguments.__dataclass_fields__ else {}),
        "lr_scheduler_type": "phases",
        "lr_scheduler_kwargs": {
            "phases": f"hold {step}{'' if level == 1.0 else f' at {level!r}'} | {phase}",
            **{name: value for name, value in kwargs.items() if value is not None},
            "on_resume": "replace",
        },
    }


def _is_constant(saved: Saved, state: Mapping[str, Any], step: int) -> bool:
    """Whether all groups are at the same fraction of their peaks, which the next step does not change."""
    levels = {rate / peak for rate, peak in zip(saved.rates, saved.peaks, strict=True) if peak}
    if saved.group_schedule is None:  # no curve is recorded: a constant one is at its peak, and was when it last logged
        logged = [row["learning_rate"] for row in state.get("log_history", []) if "learning_rate" in row]
        return levels == {1.0} and set(logged[-2:]) <= {saved.rates[0]}
    before, here = saved.group_schedule.at(step - 1), saved.group_schedule.at(step)
    total = saved.group_schedule.schedule.num_training_steps
    return len(levels) == 1 and before == here and (total is None or step < total)


def cooldown_phase(duration: Duration, shape: str | Shape, step: int) -> tuple[int, str]:
    """The optimizer steps of a cooldown that begins at `step`, and its phase as text."""
    length = DurationReader(above_zero=True)("duration", duration)
    if isinstance(length, Amount):
        allowed = "a number of steps (200) or a fraction of the shortened run (20%)"
        raise ArgumentError("duration", allowed, str(duration))
    if isinstance(length, Fraction):
        if length == 1:
            raise ArgumentError("duration", "less than the whole run", str(duration))
        length = max(round_half_up(length / (1 - length) * step), 1)  # a fraction of `step` and the cooldown together
    return length, f"decay {length} {ShapeReader(DECAY_SHAPES)('shape', shape)}"
