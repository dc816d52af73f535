"""What a DeepSpeed configuration says of the learning rate: a `scheduler` block in it wins over `lr_scheduler_type`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def check_no_scheduler_block(args: Any, name: str) -> None:
    """Refuse training arguments that ask for a schedule of ours where DeepSpeed's configuration has another.

    Raises:
        ValueError: It has; the message names the file and the block.
    """
    # `deepspeed:` in the arguments, or `deepspeed_config_file` in what `accelerate launch` was given.
    configs = (getattr(args, "hf_deepspeed_config", None), _of_plugin(getattr(args, "deepspeed_plugin", None)))
    for config in (getattr(config, "config", None) for config in configs):
        block = config.get("scheduler") if isinstance(config, Mapping) else None
        if block is not None:
            kind = block.get("type") if isinstance(block, Mapping) else block
            raise ValueError(
                f"`lr_scheduler_type` asks for {name!r}, but {_source(args)} has a `scheduler` block of its own "
                f"({kind!r}), which wins: delete that block"
            )


def _of_plugin(plugin: Any) -> Any:
    # Several plugins stand in a dict by their names; the arguments have one.
    return getattr(plugin, "hf_ds_config", None)


def _source(args: Any) -> str:
    given = getattr(args, "deepspeed", None)
    file = given if isinstance(given, str) else None if given else os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if file is None or file == "none" or file.lstrip().startswith("{"):  # or JSON on the command line
        return "the DeepSpeed configuration (`deepspeed`)"
    return f"the DeepSpeed configuration {file!r}"
