"""The parameter groups that train, also those of optimizers inside other optimizers, and their learning rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer


def set_rate(group: dict[str, Any], rate: float | Tensor, name: str = "lr") -> None:
    """Set a group's learning rate, or its peak (`initial_lr`).

    A tensor is filled in place because compiled steps and CUDA graphs hold on to it.
    """
    value = group.get(name)
    if isinstance(value, Tensor):
        value.fill_(rate)
    else:
        group[name] = rate


def peak_of(group: Mapping[str, Any]) -> float:
    """A group's peak, or its learning rate if no scheduler has recorded a peak."""
    peak = group.get("initial_lr", group["lr"])
    if peak is None:
        hint = "an optimizer that sets its own (Adafactor with `relative_step`) cannot follow a schedule"
        raise ValueError(f"the learning rate of a parameter group must be a number, received None: {hint}")
    return float(peak)


def label_of(group: Mapping[str, Any], number: int) -> str:
    """A group's number, and its name if it has one."""
    return f"{number} ({group['name']})" if group.get("name") else str(number)


def unwrap(optimizer: Any) -> Any:
    """The torch optimizer inside Accelerate's wrapper."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def is_deepspeed(optimizer: Any, args: Any) -> bool:
    """Whether DeepSpeed steps the optimizer, on its own copies of the parameters."""
    return type(optimizer).__name__.startswith("DeepSpeed") or bool(getattr(args, "deepspeed", None))


class Optimizers(NamedTuple):
    """An optimizer and all optimizers that it holds, however deep."""

    every: list[Any]
    training: list[Any]
    """Those that have groups. Accelerate's wrapper has none: its groups are those of the optimizer inside."""
    facades: list[Any]
    """Those whose parameters are trained by optimizers that they hold, such as transformers' layer-wise dummy."""


def find_optimizers(optimizer: Any) -> Optimizers:
    """Find the optimizers in the attributes of an optimizer, and in the lists and dicts there."""
    found = Optimizers([], [], [])
    _find(optimizer, found)
    return found


def _find(optimizer: Any, found: Optimizers) -> None:
    place, own = len(found.every), len(found.training)
    found.every.append(optimizer)
    # DeepSpeed keeps copies of groups, and optimizers that it uses for single parts of a step.
    if not type(optimizer).__module__.startswith("deepspeed"):
        for name, value in getattr(optimizer, "__dict__", {}).items():
            if name not in ("state", "param_groups", "defaults"):
                for inner in _optimizers_in(value, set()):
                    if not any(inner is one for one in found.every):
                        _find(inner, found)
    inside = found.every[place + 1 :]
    if not inside:
        found.training.append(optimizer)
    elif getattr(optimizer, "shares_its_groups", False):
        found.training[own:] = [optimizer]
    elif "param_groups" in vars(optimizer):
        trained = {id(p) for one in inside for group in one.param_groups for p in group["params"]}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if all(id(p) in trained or not p.requires_grad for p in parameters):
            found.facades.append(optimizer)
        else:
            found.training.insert(own, optimizer)


def _optimizers_in(value: Any, seen: set[int]) -> Iterator[Any]:
    if isinstance(value, Optimizer) or (hasattr(value, "param_groups") and callable(getattr(value, "step", None))):
        yield value
    elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
        seen.add(id(value))
        for element in value.values() if isinstance(value, Mapping) else value:
            yield from _optimizers_in(element, seen)
