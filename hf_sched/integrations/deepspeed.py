"""Reads DeepSpeed's configuration: a `scheduler` block in it silently overrides `lr_scheduler_type`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def check_no_scheduler_block(args: Any, name: str) -> None:
    """Raise a ValueError if DeepSpeed's configuration has a `scheduler` block; `name` is a schedule of hf_sched."""
    kind = scheduler_type(args)
    if kind is not None:
        raise ValueError(
            f"`lr_scheduler_type` is {name!r}, but the DeepSpeed configuration has a `scheduler` block ({kind!r}), "
            "which overrides it; delete that block"
        )


def scheduler_type(args: Any) -> str | None:
    """The type in the `scheduler` block of the DeepSpeed configuration of training arguments, or None."""
    return next((str(config["scheduler"].get("type")) for config in _configs(args) if config.get("scheduler")), None)


def has_optimizer_block(args: Any) -> bool:
    """Whether DeepSpeed makes the optimizer, from the `optimizer` block of its configuration."""
    return any(config.get("optimizer") for config in _configs(args))


def _configs(args: Any) -> Iterator[Mapping[str, Any]]:
    # `deepspeed:` in the arguments, or `deepspeed_config_file` in the configuration of `accelerate launch`.
    plugin = getattr(args, "deepspeed_plugin", None)
    for holder in (getattr(args, "hf_deepspeed_config", None), getattr(plugin, "hf_ds_config", None)):
        config = getattr(holder, "config", None)
        if isinstance(config, Mapping):
            yield config
