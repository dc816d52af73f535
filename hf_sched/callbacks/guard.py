"""The guard in the Trainer: training uses the learning rates of the requested schedule, or stops and says why."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import TrainerCallback

from hf_sched.callbacks.hyperparameter_schedules import HyperparameterSchedules
from hf_sched.integrations.deepspeed import check_no_scheduler_block
from hf_sched.integrations.trackers import send_alert
from hf_sched.integrations.transformers_trainer import step_units
from hf_sched.scheduler.builtin_resume import restore_rates
from hf_sched.scheduler.param_groups import is_deepspeed, label_of, unwrap
from hf_sched.scheduler.resume import numbers_text, read_schedule, split_on_resume
from hf_sched.scheduler.schedule_lr import ScheduleLR
from hf_sched.schedules import registry
from hf_sched.schedules.validation import DurationUnknown, OneOf

logger = logging.getLogger(__name__)

GUARD = "HF_SCHED_GUARD"
"""Environment variable: `error` (default), `warn` (log each kind of problem once) or `off`."""


class LearningRateGuard(TrainerCallback):
    """Checks at every optimizer step that all learning rates are those of the schedule.

    Before the first step it checks that the schedule reaches every trainable parameter, and during training that no
    other optimizer updates one. hf_sched adds it to every Trainer. It does nothing unless `lr_scheduler_type` is a name
    of hf_sched. The environment variable `HF_SCHED_GUARD` selects what happens if a check fails: `error`, `warn` or
    `off`.

    Raises:
        ValueError: Another component sets or changes the learning rate, an optimizer updates parameters but is not
            scheduled, the scheduler is stepped the wrong number of times, or ranks disagree.
        ArgumentError: `HF_SCHED_GUARD` has another value.
    """

    def __init__(self) -> None:
        self.scheduler: ScheduleLR | None = None
        self.hyperparameters: list[HyperparameterSchedules] = []
        """Set by hf_sched when training begins."""
        self._mode = "error"
        self._warned: set[str] = set()
        self._stepped_by_deepspeed = self._checks_at_begin = False
        self._skipped = 0
        """Optimizer steps that a gradient scaler skipped, including those before a resume."""
        self._hook: Any = None
        self._known: set[Any] = set()
        """Optimizers that are scheduled, or that train nothing of the model."""
        self._parameters: set[int] = set()

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Check that the scheduler is the requested one, on all processes, and that it schedules every parameter."""
        self.close()
        self.scheduler, self._warned = None, set()
        self._mode = OneOf(("error", "warn", "off"))(GUARD, os.environ.get(GUARD, "error"))
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)  # Accelerate may have wrapped it
        planned_steps, (name, arguments) = state.max_steps, read_schedule(args)
        # Two parts of a resume that no earlier event allows; they do not depend on the mode.
        if state.global_step:
            restore_rates(scheduler, split_on_resume(arguments)[0])
        if isinstance(scheduler, ScheduleLR) and scheduler.group_schedule.cooldown is not None:
            state.max_steps = min(planned_steps, scheduler.group_schedule.cooldown.end)
        if self._mode == "off" or name not in registry.available():
            return
        try:
            self.scheduler = _require_requested_scheduler(scheduler, name, planned_steps, args, state)
        except ValueError as error:
            if self._mode == "error":
                raise
            self._fail("scheduler", str(error))
            return
        self._stepped_by_deepspeed = type(lr_scheduler).__name__ == "DeepSpeedSchedulerWrapper"
        self._checks_at_begin = self._stepped_by_deepspeed or bool(self.scheduler.optimizers.facades)
        self._skipped = max(state.global_step - self.scheduler.last_epoch, 0)
        # SetFit passes its own model, which is no module.
        if isinstance(model, torch.nn.Module) and not is_deepspeed(optimizer, args):
            self._check_parameters(self.scheduler, model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # DeepSpeed steps optimizer and scheduler in `backward`, and hooks step layer-wise optimizers there.
        if self._checks_at_begin:
            self._check(args, state)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._stepped_by_deepspeed:
            self._check(args, state)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        if getattr(optimizer, "step_was_skipped", False):
            self._skipped += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Warn if skipped steps kept the schedule from reaching its end."""
        self.close()
        scheduler, self.scheduler = self.scheduler, None
        if scheduler is None or state.global_step < state.max_steps or not state.is_world_process_zero:
            return
        made = scheduler.last_epoch
        missed = min(state.global_step - made, self._skipped)
        # Steps that were skipped before a live cooldown do not shorten it.
        if missed > 0 and made < (scheduler.schedule.num_training_steps or state.max_steps):
            ended, planned = (scheduler.group_schedule.at(step - 1)[0] for step in (made, state.max_steps))
            logger.warning(
                "a gradient scaler skipped %d of %d optimizer steps, so the schedule %r did not reach its end: the "
                "last learning rate was %.6g, not %.6g",
                *(missed, state.max_steps, scheduler.name, ended, planned),
            )

    def close(self) -> None:
        """Stop looking at the steps of all optimizers; hf_sched calls this when training ends or fails."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._known, self._parameters = None, set(), set()

    def _check_parameters(self, scheduler: ScheduleLR, model: Any) -> None:
        """Check that the schedule reaches every trainable parameter, and look out for other optimizers."""
        scheduler.find_groups()
        of_model = {id(parameter): parameter for parameter in model.parameters()}
        held = {id(p): p for group in scheduler.groups for p in group["params"]}
        missing = {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) not in held}
        # Some optimizers hold copies of the parameters, such as those that keep them in main memory or in float32.
        copies = sum(p.numel() for number, p in held.items() if number not in of_model)
        if sum(p.numel() for p in missing.values()) > copies:
            names = ", ".join([*missing][:3]) + ", ..." * (len(missing) > 3)
            where = f"{len(missing)} trainable parameters ({names}) are in no parameter group of the optimizer"
            updaters = [type(one) for one in scheduler.optimizers.every if not _updates_only_its_groups(one)]
            if updaters or not held.keys() & of_model.keys():
                name = (updaters or [type(unwrap(scheduler.optimizer))])[0].__name__
                self._fail(
                    "parameters",
                    f"{where}, so the schedule {scheduler.name!r} does not reach them, but {name} may update them. "
                    "Add them to a group, keep the optimizer that updates them in an attribute, list or dict of the "
                    "Trainer's optimizer, or freeze them with `requires_grad_(False)`",
                )
            else:
                logger.warning("%s: they are not trained unless a group is added for them", where)
        self._known, self._parameters = set(scheduler.optimizers.every), set(of_model)
        self._hook = register_optimizer_step_pre_hook(self._before_any_step)

    def _before_any_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Called before each step of every torch optimizer of the process."""
        if optimizer in self._known or self.scheduler is None:
            return
        rates = [float(g["lr"]) for g in optimizer.param_groups if self._parameters & set(map(id, g["params"]))]
        if not rates:
            self._known.add(optimizer)
            return
        self._fail(
            "optimizer",
            f"{type(optimizer).__name__} is about to update parameters of the model at a learning rate of "
            f"{numbers_text(rates)}, which the schedule {self.scheduler.name!r} does not set, because the Trainer's "
            "optimizer does not hold it. Keep it in an attribute, list or dict of the Trainer's optimizer "
            "(`optimizers=`): then it follows the schedule from its own peak",
        )

    def _check(self, args: Any, state: Any) -> None:
        for hyperparameters in self.hyperparameters if self._mode != "off" else ():
            if changed_value := hyperparameters.find_changed(state.global_step):
                self._fail("hyperparameter", changed_value)
        scheduler = self.scheduler
        if scheduler is None:
            return
        step, made = state.global_step, scheduler.last_epoch
        if not step - self._skipped <= made <= step:
            cause = "prevents its steps, or replaced or reset it" if made < step else "steps it too"
            self._alert_and_fail(
                args,
                state,
                cause,
                f"after {step} optimizer steps, of which a gradient scaler skipped {self._skipped}, the scheduler "
                f"{scheduler.name!r} has made {made}: another component {cause} (`accelerator.prepare(scheduler)`, a "
                "callback, a subclass with its own `training_step` or training loop)",
            )
        changed = scheduler.find_changed_group()
        if changed is not None:
            number, rate = changed
            group = scheduler.groups[number]
            self._alert_and_fail(
                args,
                state,
                "learning rate",
                f"optimizer step {step}: parameter group {label_of(group, number)} is about to train at a learning "
                f"rate of {float(group['lr'])!r}, but the schedule {scheduler.name!r} has {rate!r} there: another "
                "component sets it (another scheduler, a callback, the optimizer itself)",
            )

    def _alert_and_fail(self, args: Any, state: Any, kind: str, message: str) -> None:
        """Fail, after an alert in the run's trackers, which exist once the training has begun."""
        if state.is_world_process_zero and kind not in self._warned:
            send_alert(args, "learning rate off schedule", message)
        self._fail(kind, message)

    def _fail(self, kind: str, message: str) -> None:
        if self._mode == "error":
            raise ValueError(message)
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s", message)


def _updates_only_its_groups(optimizer: Any) -> bool:
    """Whether the class's `step` is one of a library whose optimizers update the parameters in their groups alone."""
    step = getattr(type(optimizer), "step", None)
    return getattr(step, "__module__", "").partition(".")[0] in ("torch", "accelerate", "transformers")


def _require_requested_scheduler(scheduler: Any, name: str, planned_steps: int, args: Any, state: Any) -> ScheduleLR:
    """The scheduler if it is the requested one; otherwise raise a ValueError that says why it is not."""
    check_no_scheduler_block(args, name)
    if not isinstance(scheduler, ScheduleLR):
        raise ValueError(
            f"`lr_scheduler_type` requests {name!r}, but a {type(scheduler).__name__} sets the learning rate: remove "
            "what makes it, `optimizers=` or a subclass (`create_scheduler`), or request its schedule"
        )
    if state.global_step and not scheduler.resumed:
        raise ValueError(
            f"the run continues at step {state.global_step}, but the schedule {name!r} would start again from step 0: "
            "the checkpoint has no `scheduler.pt` or no `optimizer.pt` (`save_only_model: true`). Resume from a whole "
            "checkpoint, or start a new run from its weights, without `resume_from_checkpoint`"
        )
    _, arguments = split_on_resume(read_schedule(args)[1])
    with suppress(DurationUnknown):
        warmup_steps, units = args.get_warmup_steps(planned_steps), step_units.get()
        requested = registry.entry(name).build(planned_steps, warmup_steps, arguments, units)
        if not requested.has_same_curve(scheduler.requested.schedule):
            raise ValueError(
                f"`lr_scheduler_type` {name!r} requests the curve\n    {requested}\nbut the scheduler has\n"
                f"    {scheduler.requested.schedule}\nIt was made by a subclass or passed as `optimizers=`: remove it"
            )
    _check_ranks_agree(scheduler)
    return scheduler


def _check_ranks_agree(scheduler: ScheduleLR) -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    of_ranks: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(of_ranks, (scheduler.group_schedule, scheduler.last_epoch))
    differing = [rank for rank, theirs in enumerate(of_ranks) if theirs != of_ranks[0]]
    lines = [f"rank {n} is at step {of_ranks[n][1]} of\n    {of_ranks[n][0].schedule}" for n in (0, *differing[:1])]
    if differing:
        raise ValueError("\n".join(["ranks have different learning rates:", *lines, "Give all the same arguments"]))
