"""Branching: a cooldown of its own from any checkpoint of a run at a constant rate.

One long run at a constant rate thus gives models for many budgets: each is that run up to a checkpoint and a cooldown
from there (Hu et al. 2024, arXiv 2404.06395; Hägele et al. 2024, arXiv 2405.18392). The run itself is only read.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from hf_sched.schedules.phases import Lasting
from hf_sched.schedules.shapes import DECAY_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import ArgumentError, DurationReader, Epochs, round_half_up


def anneal_from(
    checkpoint: str | Path,
    duration: Lasting = "20%",
    shape: str | Shape = "1-sqrt",
    *,
    floor_ratio: float | None = None,
    min_lr: float | None = None,
) -> dict[str, Any]:
    """The `TrainingArguments` of a run that goes on from a checkpoint, optimizer and data order too, to cool down.

    Spread them over the arguments that the checkpoint was trained with, and give the run an `output_dir` of its own:

        cooldown = hf_sched.anneal_from("runs/long/checkpoint-600")
        args = SFTConfig(**{**arguments, **cooldown, "output_dir": "runs/at-600"})
        SFTTrainer(model, args, ...).train(resume_from_checkpoint=args.resume_from_checkpoint)

    Args:
        checkpoint: A folder that the Trainer saved, of a run on `wsd` or a constant schedule, while its rate was
            constant.
        duration: Of the cooldown, in steps, or as a share of the run it ends: 20% of 750 steps from checkpoint-600.
        shape: How it falls, as in `hf_sched.decay`.
        floor_ratio: Where it ends, as a share of the peak; 0 by default.
        min_lr: The same as a learning rate, instead.

    Raises:
        ValueError: It is no checkpoint, or its learning rate was not constant, or an argument does not fit.
    """
    import torch  # which takes seconds
    from transformers import TrainingArguments

    from hf_sched.scheduler.checkpoint_state import read_state

    folder = Path(checkpoint)
    missing = [name for name in ("trainer_state.json", "scheduler.pt") if not (folder / name).is_file()]
    if missing:
        raise ArgumentError(
            "checkpoint", f"a folder that the Trainer saved, with {' and '.join(missing)}", str(checkpoint)
        )
    saved = read_state(torch.load(folder / "scheduler.pt", weights_only=True))
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    step = int(state["global_step"])
    shares = {rate / peak for rate, peak in zip(saved.rates, saved.peaks, strict=True)}
    if (
        saved.group_schedule is None
    ):  # it says no curve, but a constant one is at its peak and was there when it was logged
        logged = [row["learning_rate"] for row in state.get("log_history", []) if "learning_rate" in row]
        constant = shares == {1.0} and set(logged[-2:]) <= {saved.rates[0]}
    else:
        before, here = saved.group_schedule.rates(step - 1, step + 1)[0].tolist()
        constant = len(shares) == 1 and before == here and step < saved.group_schedule.schedule.num_training_steps
    if not constant:
        rates = ", ".join(f"{rate:g}" for rate in saved.rates)
        raise ValueError(
            f"`checkpoint` must be of a run at a constant rate, but {str(checkpoint)!r} was at {rates} and on its way "
            "up or down: take one between the warmup and the decay"
        )
    steps, cooldown = decay_of(duration, shape, step)
    kwargs = {"floor_ratio": floor_ratio, "min_lr": min_lr}
    return {
        "resume_from_checkpoint": str(checkpoint),
        "max_steps": step + steps,
        "learning_rate": saved.peaks[0],
        "warmup_steps": 0,
        # Up to transformers 5.14 there is this, too, which a `warmup_steps` of 0 does not put out of force.
        **({"warmup_ratio": 0.0} if "warmup_ratio" in TrainingArguments.__dataclass_fields__ else {}),
        "lr_scheduler_type": "phases",
        "lr_scheduler_kwargs": {
            "phases": f"hold {step}{'' if shares == {1.0} else f' at {shares.pop()!r}'} | {cooldown}",
            **{name: value for name, value in kwargs.items() if value is not None},
            "on_resume": "replace",
        },
    }


def decay_of(duration: Lasting, shape: str | Shape, step: int) -> tuple[int, str]:
    """The optimizer steps of a cooldown from a step on, and its phase as text.

    Raises:
        ValueError: An argument does not fit.
    """
    lasting = DurationReader(above_zero=True)("duration", duration)
    if isinstance(lasting, Epochs):
        raise ArgumentError(
            "duration", "a number of steps (200) or a share of the run that it ends (20%)", str(duration)
        )
    if isinstance(lasting, Fraction) and lasting == 1:
        raise ArgumentError("duration", "less than the whole run", "100%")
    # A share is of the run that it ends, so of more than `step`.
    steps = max(round_half_up(lasting / (1 - lasting) * step), 1) if isinstance(lasting, Fraction) else lasting
    return steps, f"decay {steps} {ShapeReader(DECAY_SHAPES)('shape', shape)}"
