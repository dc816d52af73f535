"""Reads DeepSpeed's configuration: a `scheduler` block in it silently overrides `lr_scheduler_type`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def check_no_scheduler_block(args: Any, name: str) -> None:
    """Reject training arguments with a schedule of hf_sched if DeepSpeed's configuration has a `scheduler` block.

    Raises:
        ValueError: It has one; the message names the file and the block.
    """
    block = scheduler_block(args)
    if block is not None:
        kind = block.get("type") if isinstance(block, Mapping) else block
        raise ValueError(
            f"`lr_scheduler_type` is {name!r}, but {_source(args)} has a `scheduler` block ({kind!r}), which "
            "overrides it; delete that block"
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


def _source(args: Any) -> str:
    given = getattr(args, "deepspeed", None)
    file = given if isinstance(given, str) else None if given else os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if file is None or file == "none" or file.lstrip().startswith("{"):  # or JSON on the command line
        return "the DeepSpeed configuration (`deepspeed`)"
    return f"the DeepSpeed configuration {file!r}"
