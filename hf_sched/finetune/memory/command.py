"""How much memory a run needs on each GPU, before its model is loaded; and where it does not fit, what would.

    python -m hf_sched.finetune.memory.command --config recipes/configs/qwen2.5-1.5b_gsm8k_sft.yaml \\
        --accelerate_config accelerate_configs/zero3.yaml --gpu_memory 80GB

Flags of the recipe behind it win over its file (`--per_device_train_batch_size 4`). Of the model only its configuration
is read. On a GPU the recipes say the same by themselves when they start. footprint/ has how it is estimated and what is
assumed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import torch
import yaml
from accelerate.utils.modeling import convert_file_size_to_int
from trl import ModelConfig

from hf_sched.cli.output import console, print_json
from hf_sched.finetune.config import check_no_unknown_arguments, stop
from hf_sched.finetune.memory import Settings, Spread, estimate
from hf_sched.finetune.memory.alternatives import alternatives
from hf_sched.finetune.memory.settings import read_settings
from hf_sched.finetune.memory.show import CLOSE, as_dict, show_table, what_fits
from hf_sched.finetune.memory.spread import read_spread
from hf_sched.plan.training_config import TrainingConfig

PROMPT = 512  # tokens that a prompt is taken to have where nothing says more
_RECIPES = ("sft", "grpo")


def main() -> int:
    """Estimate as the command line says; the exit status: 1 where it does not fit."""
    requested, flags = _parser().parse_known_args()
    try:
        settings = settings_of_file(
            requested.config,
            accelerate_config=requested.accelerate_config,
            num_processes=requested.num_processes,
            length=requested.length,
            prompt=requested.prompt_length,
            flags=flags,
        )
        device_bytes = _read_memory(requested.gpu_memory)
        found = estimate(settings, device_bytes)
        fits = device_bytes is None or found.total <= CLOSE * device_bytes
        others = [] if fits or device_bytes is None else alternatives(settings, device_bytes)
    except (ValueError, OSError) as error:
        stop(error)
    if requested.json:
        print_json(as_dict(found, device_bytes, others))
    else:
        show_table(found, device_bytes, console())
        if not fits:
            console().print(what_fits(others))
    return 0 if device_bytes is None or found.total <= device_bytes else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="The recipe's YAML file.")
    parser.add_argument("--accelerate_config", help="By default that of the launch line at the top of the recipe.")
    parser.add_argument("--num_processes", type=int, help="By default what the accelerate config says.")
    parser.add_argument("--gpu_memory", help="Of one GPU: 80GB, 24GiB; by default that of this machine's.")
    parser.add_argument("--length", type=int, help="Tokens of the longest sample; by default `max_length`.")
    parser.add_argument("--prompt_length", type=int, default=PROMPT, help=f"Of the longest prompt of GRPO ({PROMPT}).")
    parser.add_argument("--json", action="store_true", help="Write a JSON object, in bytes.")
    return parser


def settings_of_file(
    file: str,
    *,
    accelerate_config: str | None = None,
    num_processes: int | None = None,
    length: int | None = None,
    prompt: int = PROMPT,
    flags: Sequence[str] = (),
) -> Settings:
    """The settings of a recipe's file, as the command of the same arguments has them.

    Raises:
        ValueError: A file or an argument is wrong.
    """
    config = TrainingConfig.read(file)
    if config.kind not in _RECIPES:
        raise ValueError(f"`--config` must be a file for recipes/sft.py or recipes/grpo.py, received {file!r}")
    config = dataclasses.replace(config, given={**config.given, **_read_flags(flags, config)})
    launch = accelerate_config or config.given.get("accelerate_config")
    several = num_processes is not None and num_processes > 1
    spread = (
        read_spread(launch, num_processes)
        if launch
        else Spread("DDP" if several else "one process", num_processes or 1)
    )
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    return read_settings(
        config.kind,
        config.get,
        ModelConfig(**{name: value for name, value in config.given.items() if name in known}),
        spread,
        length=length,
        prompt=prompt,
        on_gpu=not config.get("use_cpu"),
    )


def _read_flags(words: Sequence[str], config: TrainingConfig) -> dict[str, Any]:
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise ValueError(f"flags must be pairs such as `--per_device_train_batch_size 4`, received {' '.join(words)!r}")
    check_no_unknown_arguments([f"--{name}" for name in names if name not in config.fields], list(config.fields))
    return {name: yaml.safe_load(value) for name, value in zip(names, words[1::2], strict=True)}


def _read_memory(text: str | None) -> int | None:
    if text is None:
        return int(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else None
    try:
        return int(convert_file_size_to_int(text.replace(" ", "")))
    except ValueError:
        raise ValueError(f"`--gpu_memory` must be a size such as 80GB or 24GiB, received {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
