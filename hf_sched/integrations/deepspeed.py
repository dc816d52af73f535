"""Reads DeepSpeed's configuration: a `scheduler` block in it silently overrides `lr_scheduler_type`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def check_no_scheduler_block(args: Any, name: str) -> None:
    """Raise a ValueError if DeepSpeed's configuration has a `scheduler` block; `name` is a schedule of hf_sched."""
    block = scheduler_block(args)
    if block is None:
        return
    given = getattr(args, "deepspeed", None) or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    is_file = isinstance(given, str) and given != "none" and not given.lstrip().startswith("{")  # JSON
    place = repr(given) if is_file else "(`deepspeed`)"
    kind = block.get("type") if isinstance(block, Mapping) else block
    raise ValueError(
        f"`lr_scheduler_type` is {name!r}, but the DeepSpeed configuration {place} "
        f"has a `scheduler` block ({kind!r}), which overrides it; delete that block"
    )


def scheduler_block(args: Any) -> Any:
    """The `scheduler` block in the DeepSpeed configuration of training arguments, or None."""
    # `deepspeed:` in the arguments, or `deepspeed_config_file` in the configuration of `accelerate launch`.
    plugin = getattr(args, "deepspeed_plugin", None)
    for holder in (getattr(args, "hf_deepspeed_config", None), getattr(plugin, "hf_ds_config", None)):
        config = getattr(holder, "config", None)
        if isinstance(config, Mapping) and config.get("scheduler") is not None:
            return config["scheduler"]
    return None
