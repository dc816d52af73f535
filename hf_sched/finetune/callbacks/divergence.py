"""A run that diverges is stopped before a number that is not finite reaches its weights or a checkpoint.

The Trainer goes on: with `logging_nan_inf_filter`, its default, it even logs a loss of NaN as the mean of those before.
So each step's gradients are looked at before it is made, and the weights before each save.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from hf_sched.finetune.checkpoints.selection import last_whole

# A gradient scaler (fp16) finds its scale by skipping steps, and halves it with each: from 2^16, as it begins, it is
# down to 1/16 after 20 in a row, and what is infinite then is so without it.
SKIPS_IN_A_ROW = 20


class DivergenceStop(TrainerCallback):
    """Stops the run at the first gradient or weight that is not finite, on every process alike.

    Such a step is not made (ZeRO skips it; DeepSpeed's stage 0 does make it), no checkpoint is written from then on,
    and so no earlier one is deleted. Under a gradient scaler, which skips such steps itself, it takes several in a row.

    Args:
        trainer: The trainer it is a callback of.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.found: str | None = None
        """What was not finite, once the run is stopped."""
        self.step = 0
        """The optimizer step it was found at."""
        self._skips = 0
        self._scale: float | None = None
        self._norm: Any = None
        """Of the gradients, if the Trainer has just worked it out."""
        self._listen(trainer.accelerator)

    def _listen(self, accelerator: Any) -> None:
        clip = accelerator.clip_grad_norm_

        @wraps(clip)
        def clip_and_tell(*args: Any, **kwargs: Any) -> Any:
            self._norm = clip(*args, **kwargs)
            return self._norm

        accelerator.clip_grad_norm_ = clip_and_tell

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Look at the gradients; drop them where they are not finite, so that the step changes nothing."""
        self._scale = _scale(optimizer)
        norm, self._norm = self._norm, None
        if self._scale is not None:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # A norm that is finite has told already; one that is not may have overflowed.
        if on_any_process(not (_is_finite(norm) or _finite(gradients)), args.device):
            optimizer.zero_grad()
            self._stop(state.global_step + 1, "the gradients were not finite")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Count what a gradient scaler skips."""
        engine = getattr(self.trainer, "deepspeed", None)
        if engine is not None:
            # ZeRO skips such a step even without fp16 and its scaler, and would go on doing so to the end.
            if not engine.fp16_enabled() and (_norm_overflowed(engine) or optimizer.step_was_skipped):
                self._stop(state.global_step + 1, "the gradients were not finite")
            skipped = optimizer.step_was_skipped
        else:
            # AcceleratedOptimizer does not know of it where the optimizer is fused, and skips by itself.
            scale = _scale(optimizer)
            skipped = scale is not None and self._scale is not None and scale < self._scale
        self._skips = self._skips + 1 if skipped else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop; otherwise look at the weights if they are about to be used."""
        last = state.global_step >= state.max_steps
        if self.found is None and on_any_process(self._skips >= SKIPS_IN_A_ROW, args.device):
            self._stop(state.global_step, f"{self._skips} optimizer steps in a row had infinite gradients")
        self._before_use(args, state, control, used=last)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """As at the end of a step: some runs save here."""
        self._before_use(args, state, control, used=False)

    def message(self) -> str:
        """What happened, which checkpoint is left, and what to try."""
        args, log = self.trainer.args, self.trainer.state.log_history
        kept = last_whole(args.output_dir, up_to=self.step - 1)
        losses = [f"{row['loss']:.4g} (step {row['step']})" for row in log if "loss" in row and row["step"] < self.step]
        logged = f" The losses logged last: {', '.join(losses[-3:])}." if losses else ""
        left = (
            f"The last good checkpoint is {kept} (if the loss had already risen by then, take an earlier one). To go "
            f"on from it: `resume_from_checkpoint: {kept}`, and `on_resume: replace` in `lr_scheduler_kwargs`"
            if kept
            else "No checkpoint had been written: lower `save_steps`"
        )
        return (
            f"step {self.step} of {self.trainer.state.max_steps}: {self.found}. The run was stopped there, and its "
            f"model not saved.{logged}\n{left}.\nTry {'; '.join(_advice(args))}."
        )

    def _before_use(self, args: Any, state: Any, control: Any, *, used: bool) -> None:
        if self.found is None and (used or control.should_save or control.should_evaluate):
            trained = [getattr(p, "ds_tensor", p) for p in self.trainer.model.parameters() if p.requires_grad]
            if on_any_process(not _finite(trained), args.device):
                self._stop(state.global_step, "the weights were not finite")
        if self.found is not None:
            control.should_training_stop = True
            control.should_save = control.should_evaluate = False

    def _stop(self, step: int, found: str) -> None:
        self.step, self.found = step, found


def _norm_overflowed(engine: Any) -> bool:
    norm = engine.get_global_grad_norm()
    return norm is not None and not 0 <= float(norm) < math.inf  # ZeRO writes -1 for one that is not finite


def _is_finite(norm: Any) -> bool:
    # A DTensor's may be that of this process's part alone.
    return norm is not None and not hasattr(norm, "to_local") and math.isfinite(float(norm))


def _scale(optimizer: Any) -> float | None:
    scaler = getattr(optimizer, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def _finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all numbers are, in this process's part of sharded tensors."""
    parts = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    parts = [part.detach() for part in parts if part.numel()]
    # A number that is not finite makes their sum so, too; but sums may also overflow.
    if _all_finite([part.sum() for part in parts]):
        return True
    # Least and greatest: unlike a norm they do not overflow, and they take half the time of AdamW's step (on a CPU; a
    # tenth of that of `isfinite`). A sum takes three quarters of theirs.
    return _all_finite([end for part in parts for end in torch.aminmax(part)])


def _all_finite(numbers: list[torch.Tensor]) -> bool:
    return not numbers or bool(torch.stack([one.to(numbers[0].device) for one in numbers]).isfinite().all())


def on_any_process(here: bool, device: torch.device) -> bool:
    """Whether it is so on this process or any other; all of them have to ask at once."""
    if not (dist.is_available() and dist.is_initialized()):
        return here
    flag = torch.tensor(float(here), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def _advice(args: Any) -> list[str]:
    advice = [f"a lower `learning_rate` than {args.learning_rate:g} (a third of it), or a longer `warmup_steps`"]
    if not args.max_grad_norm:
        advice.append("`max_grad_norm: 1.0`, which was off")
    elif args.max_grad_norm > 1:
        advice.append(f"a lower `max_grad_norm` than {args.max_grad_norm:g}")
    if args.fp16:
        advice.append("`bf16: true` for `fp16`")
    return advice
