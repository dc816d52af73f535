"""The optimizer steps after which the Trainer saves a checkpoint or evaluates, by simulating its own callback."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, TypeAlias

from hf_sched.plan.run_length import RunLength
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError, Number, OneOf

Steps: TypeAlias = tuple[int, ...] | None
"""Optimizer steps, counted from 1 like the names of checkpoints (0 is before the first step); None if unknown."""


def find_events(config: TrainingConfig, length: RunLength, trained: int = 0) -> tuple[Steps, Steps]:
    """The checkpoints and evaluations of a run, after the steps `trained` of the checkpoint that it continues."""
    from transformers.trainer_callback import DefaultFlowCallback, TrainerControl, TrainerState

    args = _arguments(config)
    state, control, flow = TrainerState(), TrainerControl(), DefaultFlowCallback()
    total = state.max_steps = length.num_training_steps
    state.compute_steps(args, total)
    saved: list[int] = []
    evaluated: list[int] = [0] if config.get("eval_on_start") and not trained else []
    for step in range(1, total + 1):
        state.global_step = step
        state.epoch = length.epoch_after(step) or 0.0
        flow.on_step_end(args, state, control)
        if step == total or (length.steps_per_epoch and step % length.steps_per_epoch == 0):
            flow.on_epoch_end(args, state, control)
        if control.should_save and step > trained:
            saved.append(step)
        if control.should_evaluate and step > trained:
            evaluated.append(step)
        control.should_save = control.should_evaluate = False
    unknown = ("epoch", "best") if length.steps_per_epoch is None else ("best",)
    checkpoints = None if args.save_strategy in unknown else tuple(saved)
    return checkpoints, None if args.eval_strategy in unknown else tuple(evaluated)


def _arguments(config: TrainingConfig) -> Any:
    args = SimpleNamespace(logging_strategy="no", logging_first_step=False)
    for name, more in (("save_strategy", ("best",)), ("eval_strategy", ())):
        word = config.value(name)
        if word is False:
            raise ArgumentError(name, "text", False, 'YAML reads no as false, so write "no" in quotes')
        setattr(args, name, OneOf(("no", "steps", "epoch", *more))(name, getattr(word, "value", word)))
    for name in ("logging_steps", "save_steps", "eval_steps", "eval_delay"):
        setattr(args, name, config.get(name, Number(0)))
    if args.eval_strategy == "steps" and not args.eval_steps:
        args.eval_steps = args.logging_steps  # as in TrainingArguments
        if not args.eval_steps:
            raise ArgumentError("eval_steps", "above 0 if `eval_strategy` is steps", 0)
    return args
