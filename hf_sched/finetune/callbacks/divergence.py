"""Stops a run that diverges before a number that is not finite reaches its weights or a checkpoint.

The Trainer continues: with `logging_nan_inf_filter`, its default, it even replaces a loss of NaN in the log by the mean
of earlier losses. So this callback checks the gradients before each step and the weights before each save.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from hf_sched.finetune.checkpoints.selection import last_complete
from hf_sched.integrations.trackers import send_alert

# A gradient scaler (fp16) finds its scale by skipping steps, and halves it each time. It starts at 2^16, so after 20
# skipped steps in a row it is 1/16, and gradients that are still infinite are infinite without the scaler.
SKIPS_IN_A_ROW = 20


class DivergenceStop(TrainerCallback):
    """Stops the run on every process at the first gradient or weight that is not finite.

    That step changes nothing (ZeRO skips it; DeepSpeed's stage 0 does apply it). No checkpoint is written afterwards,
    so no earlier one is deleted. A gradient scaler skips such steps itself; then only several in a row stop the run.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.reason: str | None = None
        """What was not finite, once the run is stopped."""
        self.step = 0
        """The optimizer step at which it was found."""
        self._skips = 0
        self._scale: float | None = None
        self._norm: Any = None
        self._clip = trainer.accelerator.clip_grad_norm_
        trainer.accelerator.clip_grad_norm_ = self._clip_and_record

    def _clip_and_record(self, *args: Any, **kwargs: Any) -> Any:
        self._norm = self._clip(*args, **kwargs)
        return self._norm

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Check the gradients; drop them if they are not finite."""
        norm, self._norm = self._norm, None
        self._scale = _scale(optimizer)
        if self._may_skip_steps():
            return
        gradients = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        # A finite norm is proof; one that is not may only have overflowed, and a DTensor's may cover only this shard.
        is_proof = norm is not None and not hasattr(norm, "to_local") and math.isfinite(float(norm))
        if on_any_process(args.device, not (is_proof or _all_finite(gradients)))[0]:
            optimizer.zero_grad()
            self._stop(state.global_step + 1, "the gradients were not finite")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Count the steps that a gradient scaler skips."""
        engine = getattr(self.trainer, "deepspeed", None)
        if engine is None:
            # AcceleratedOptimizer does not notice the skip of a fused optimizer, so compare the scale.
            scale = _scale(optimizer)
            skipped = scale is not None and self._scale is not None and scale < self._scale
        else:
            skipped = optimizer.step_was_skipped
            norm = engine.get_global_grad_norm()  # ZeRO reports -1 for one that is not finite
            overflowed = norm is not None and not 0 <= float(norm) < math.inf
            # ZeRO skips such a step even without fp16 and its scaler, and would skip all following ones.
            if not engine.fp16_enabled() and (skipped or overflowed):
                self._stop(state.global_step + 1, "the gradients were not finite")
        self._skips = self._skips + 1 if skipped else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the run if needed; check the weights before they are saved or evaluated."""
        self._check(args, state, control, is_last=state.global_step >= state.max_steps, counts=self._may_skip_steps())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check(args, state, control)  # some runs save here

    def _may_skip_steps(self) -> bool:
        """Whether a gradient scaler or DeepSpeed handles gradients that are not finite, on all processes alike."""
        return self._scale is not None or getattr(self.trainer, "deepspeed", None) is not None

    def _check(self, args: Any, state: Any, control: Any, *, is_last: bool = False, counts: bool = False) -> None:
        """Check the weights before they are used, and the skipped steps if they count, in one collective operation."""
        is_used = is_last or control.should_save or control.should_evaluate
        if self.reason is None and (is_used or counts):
            weights = self.trainer.model.parameters() if is_used else ()
            trained = [getattr(p, "ds_tensor", p) for p in weights if p.requires_grad]
            has_skipped, is_spoiled = on_any_process(
                args.device, self._skips >= SKIPS_IN_A_ROW, not _all_finite(trained)
            )
            if has_skipped:
                self._stop(state.global_step, f"{self._skips} optimizer steps in a row had infinite gradients")
            elif is_spoiled:
                self._stop(state.global_step, "the weights were not finite")
        if self.reason is not None:
            control.should_training_stop = True
            control.should_save = control.should_evaluate = False

    def _stop(self, step: int, reason: str) -> None:
        self.step, self.reason = step, reason
        if self.trainer.is_world_process_zero():  # here, since a tracker closes at the end of the training
            send_alert(self.trainer.args, "training diverged", self.message())

    def message(self) -> str:
        """Return what happened, the last good checkpoint, and what to try."""
        args = self.trainer.args
        norm = args.max_grad_norm
        clipping = f"a lower `max_grad_norm` than {norm:g}" if norm else "`max_grad_norm: 1.0`, which was off"
        precision = "; `bf16: true` instead of `fp16`" if args.fp16 else ""
        kept = last_complete(args.output_dir, up_to=self.step - 1)
        checkpoint = (
            f"The last good checkpoint is {kept} (if the loss had already risen by then, use an earlier one). To "
            f"continue from it, set `resume_from_checkpoint: {kept}` and `on_resume: replace` in `lr_scheduler_kwargs`"
            if kept
            else "No checkpoint has been written: lower `save_steps`"
        )
        return (
            f"step {self.step} of {self.trainer.state.max_steps}: {self.reason}. The run was stopped there; its model "
            f"is not saved.\n{checkpoint}.\nTry a lower `learning_rate` than {args.learning_rate:g} (a third of it); a "
            f"longer `warmup_steps`; {clipping}{precision}."
        )


def on_any_process(device: torch.device, *flags: bool) -> list[bool]:
    """Return whether each flag is set on any process; all of them must call this together."""
    if not (dist.is_available() and dist.is_initialized()):
        return [*flags]
    of_any = torch.tensor(flags, dtype=torch.float32, device=device)
    dist.all_reduce(of_any, dist.ReduceOp.MAX)
    return [flag > 0 for flag in of_any.tolist()]


def _scale(optimizer: Any) -> float | None:
    scaler = getattr(optimizer, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def _all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether all numbers in this process's shards are finite."""
    parts = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    parts = [part.detach() for part in parts if part.numel()]
    # Minimum and maximum do not overflow as a sum may, and are ten times as fast as `isfinite` (on a CPU).
    ends = [end for part in parts for end in torch.aminmax(part)]
    return not ends or bool(torch.stack([end.to(ends[0].device) for end in ends]).isfinite().all())
