"""After which optimizer steps the Trainer saves a checkpoint and evaluates: the callback that decides it is requested."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hf_sched.plan.run_length import RunLength
from hf_sched.plan.training_config import RunConfig
from hf_sched.schedules.validation import Number, OneOf, Reader


@dataclass(frozen=True)
class Events:
    """Optimizer steps, counted from 1 as the names of checkpoints are; None where they cannot be known."""

    checkpoints: tuple[int, ...] | None
    evaluations: tuple[int, ...] | None
    """0 is before the first step."""

    def after(self, trained: int) -> Events:
        """Those of a run that goes on from a checkpoint after so many steps."""
        if not trained:
            return self
        left = (
            steps and tuple(step for step in steps if step > trained) for steps in (self.checkpoints, self.evaluations)
        )
        return Events(*left)


class _Strategy(Reader):
    def __init__(self, *others: str) -> None:
        self.words = ("no", "steps", "epoch", *others)

    def __call__(self, name: str, value: object) -> str:
        word = getattr(value, "value", value)
        if word is False:
            raise ValueError(f'`{name}` must be text, received False, which YAML reads `no` as: write "no" in quotes')
        return OneOf(self.words)(name, word)


def events(config: RunConfig, length: RunLength) -> Events:
    """What the run writes and evaluates, and when.

    Raises:
        ValueError: A strategy, or its number of steps, is none.
    """
    from transformers.trainer_callback import DefaultFlowCallback, TrainerControl, TrainerState

    args = _arguments(config)
    state, control, flow = TrainerState(), TrainerControl(), DefaultFlowCallback()
    total = state.max_steps = length.num_training_steps
    state.compute_steps(args, total)
    saved: list[int] = []
    evaluated: list[int] = [0] if config.get("eval_on_start") else []
    for step in range(1, total + 1):
        state.global_step = step
        state.epoch = length.epoch_after(step) or 0.0
        flow.on_step_end(args, state, control)
        if step == total or (length.steps_per_epoch and step % length.steps_per_epoch == 0):
            flow.on_epoch_end(args, state, control)
        if control.should_save:
            saved.append(step)
        if control.should_evaluate:
            evaluated.append(step)
        control.should_save = control.should_evaluate = False
    no_epochs = length.steps_per_epoch is None
    return Events(
        None if args.save_strategy == "best" or (no_epochs and args.save_strategy == "epoch") else tuple(saved),
        None if no_epochs and args.eval_strategy == "epoch" else tuple(evaluated),
    )


def _arguments(config: RunConfig) -> Any:
    args = SimpleNamespace(
        logging_strategy="no",
        logging_steps=config.read_value("logging_steps", Number(0)),
        logging_first_step=False,
        save_strategy=config.read_value("save_strategy", _Strategy("best")),
        save_steps=config.read_value("save_steps", Number(0)),
        eval_strategy=config.read_value("eval_strategy", _Strategy()),
        eval_steps=config.get("eval_steps", Number(0)),
        eval_delay=config.read_value("eval_delay", Number(0)),
    )
    # As TrainingArguments do.
    if args.eval_strategy == "steps" and not args.eval_steps:
        args.eval_steps = args.logging_steps
    if args.eval_strategy == "steps" and not args.eval_steps:
        raise ValueError("`eval_steps` must be above 0 where `eval_strategy` is steps, received 0")
    return args
