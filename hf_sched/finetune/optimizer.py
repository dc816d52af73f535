"""The optimizer of a recipe: parameter groups by name, and Muon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hf_sched.finetune.arguments import GroupArguments
from hf_sched.integrations.deepspeed import has_optimizer_block
from hf_sched.scheduler.muon import MuonWithAdamW
from hf_sched.scheduler.named_groups import param_groups
from hf_sched.schedules.validation import ArgumentError


def with_groups(trainer_class: Callable[..., Any], given: GroupArguments) -> Callable[..., Any]:
    """Return the trainer class with an optimizer that has the requested groups."""
    if not given.are_given:
        return trainer_class

    class Grouped(trainer_class):  # type: ignore[misc, valid-type]
        def create_optimizer(self, *model: Any) -> Any:
            if self.optimizer is None:
                cls, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
                cls = cls if given.optimizer is None else MuonWithAdamW
                groups = groups_of(self, given, *model)
                self.optimizer_cls_and_kwargs = cls, {**arguments, "params": groups}
            return super().create_optimizer(*model)

    Grouped.__name__ = getattr(trainer_class, "__name__", "Trainer")
    return Grouped


def groups_of(trainer: Any, given: GroupArguments, model: Any = None) -> list[dict[str, Any]]:
    """Return the parameter groups of a trainer's optimizer.

    Raises:
        ArgumentError: A pattern does not fit the model, or the optimizer cannot have groups or Muon.
    """
    args = trainer.args
    _, arguments = trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    optim = str(getattr(args.optim, "value", args.optim))
    has_own_groups = bool({"params", "model", "optimizer_dict"} & {*arguments})
    if has_own_groups or (given.optimizer and not optim.startswith("adamw_torch")):
        name = "optimizer" if given.optimizer else "lr_groups"
        hint = "use `optim: adamw_torch`" if given.optimizer else "use another `optim`"
        raise ArgumentError(name, rule=f"does not work with `optim: {optim}`, which makes its own groups", hint=hint)
    if trainer.is_deepspeed_enabled:
        if given.optimizer:
            rule = "'muon' needs whole matrices, which DeepSpeed flattens"
            raise ArgumentError("optimizer", rule=rule, hint="train with DDP or FSDP2")
        if has_optimizer_block(args):
            rule = "has no effect, because the DeepSpeed configuration has an `optimizer` block"
            raise ArgumentError("lr_groups", rule=rule, hint="delete that block")
    return param_groups(
        trainer.model if model is None else model,
        given.lr_groups,  # type: ignore[arg-type]  # it is no text after `__post_init__`
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        decay_per_layer=given.decay_per_layer,
        loraplus_lr_ratio=given.loraplus_lr_ratio,
        muon_learning_rate=(given.muon_learning_rate or "1x") if given.optimizer else None,
    )
