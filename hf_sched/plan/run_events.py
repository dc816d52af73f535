"""The optimizer steps after which the Trainer saves a checkpoint or evaluates, by simulating its own callback."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hf_sched.plan.run_length import RunLength
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError, Number, OneOf


@dataclass(frozen=True)
class Events:
    """Optimizer steps, counted from 1 like the names of checkpoints. None if they are unknown."""

    checkpoints: tuple[int, ...] | None
    evaluations: tuple[int, ...] | None
    """0 is the evaluation before the first step."""


def find_events(config: TrainingConfig, length: RunLength, trained: int = 0) -> Events:
    """The checkpoints and evaluations of a run.

    Args:
        config: The arguments of the run.
        length: Its length.
        trained: Steps that the checkpoint has which the run continues; their events are left out.

    Raises:
        ArgumentError: A strategy or its number of steps is wrong.
    """
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
    unknown = ("epoch",) if length.steps_per_epoch is None else ()
    return Events(
        None if args.save_strategy in ("best", *unknown) else tuple(saved),
        None if args.eval_strategy in unknown else tuple(evaluated),
    )


def _arguments(config: TrainingConfig) -> Any:
    args = SimpleNamespace(
        logging_strategy="no",
        logging_steps=config.read_value("logging_steps", Number(0)),
        logging_first_step=False,
        save_strategy=_strategy(config, "save_strategy", "best"),
        save_steps=config.read_value("save_steps", Number(0)),
        eval_strategy=_strategy(config, "eval_strategy"),
        eval_steps=config.get("eval_steps", Number(0)),
        eval_delay=config.read_value("eval_delay", Number(0)),
    )
    if args.eval_strategy == "steps" and not args.eval_steps:
        args.eval_steps = args.logging_steps  # as in TrainingArguments
        if not args.eval_steps:
            raise ArgumentError("eval_steps", "above 0 if `eval_strategy` is steps", 0)
    return args


def _strategy(config: TrainingConfig, name: str, *more: str) -> str:
    value = config.value(name)
    if value is False:
        raise ArgumentError(name, "text", False, 'YAML reads no as false, so write "no" in quotes')
    word: str = OneOf(("no", "steps", "epoch", *more))(name, getattr(value, "value", value))
    return word
