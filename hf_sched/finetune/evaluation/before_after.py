"""An evaluation of the model before and after a run, from the recipe's YAML: `evaluate_on: openai/gsm8k`.

Both are measured after the training, from what is on disk, by the main process alone and in a process of its own: a
model that is spread over processes cannot generate on one of them, others that wait at a barrier meanwhile run into its
time limit, and what a trainer leaves behind (memory, DeepSpeed's settings) does not matter. The metric and the problems
are loaded before the training, so that a mistake shows at once.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache

from hf_sched.finetune.data.load import ColumnArguments, names_of_columns
from hf_sched.finetune.evaluation.evaluate import HeldOut, Settings

# What a launcher tells its processes; the evaluation is not one of them.
_OF_A_LAUNCHER = (
    "ACCELERATE_",
    "FSDP_",
    "GROUP_",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "RANK",
    "ROLE_",
    "TORCHELASTIC_",
    "WORLD_SIZE",
)


@dataclass
class EvaluationArguments:
    """Exact match on held-out problems, before and after."""

    evaluate_on: str | None = field(
        default=None, metadata={"help": "Held-out problems: hub name, folder or file. Not given: no evaluation."}
    )
    evaluate_config: str | None = field(
        default=None, metadata={"help": "Configuration of a hub data set, such as main."}
    )
    evaluate_split: str = field(default="test", metadata={"help": "Split of the problems."})
    evaluate_columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "As `columns`, of the problems; by default `columns`. {} for none."}
    )
    evaluate_metric: str = field(default="exact_answer", metadata={"help": "A reward of rewards/."})
    evaluate_max_problems: int | None = field(default=None, metadata={"help": "Only the first so many."})
    evaluate_max_new_tokens: int = field(default=256, metadata={"help": "For an answer."})
    evaluate_samples: int = field(default=0, metadata={"help": "For each problem beside the greedy answer: pass@k."})
    evaluate_temperature: float = field(default=1.0, metadata={"help": "Of the samples."})
    evaluate_batch_size: int = field(default=100, metadata={"help": "Prompts at once."})
    evaluate_engine: str = field(default="transformers", metadata={"help": "transformers, vllm or auto."})

    def __post_init__(self) -> None:
        self.evaluate_columns = names_of_columns(self.evaluate_columns, "evaluate_columns")


def check_evaluation(requested: EvaluationArguments, names: ColumnArguments) -> None:
    """Raise a ValueError now for what would stop the evaluation once the training is done."""
    if requested.evaluate_on is None:
        return
    held_out = _held_out(requested, names)
    try:
        held_out.reward(held_out.problems())
    except ValueError as error:
        raise ValueError(_in_its_words(str(error), inherited=requested.evaluate_columns is None)) from None
    Settings(
        max_new_tokens=requested.evaluate_max_new_tokens,
        samples=requested.evaluate_samples,
        temperature=requested.evaluate_temperature,
        engine=requested.evaluate_engine,
        batch_size=requested.evaluate_batch_size,
    )


def evaluate_before_and_after(
    requested: EvaluationArguments, names: ColumnArguments, training_args: Any, model_args: Any
) -> None:
    """Measure the model that the run began with and the one it saved, if asked to, once the trainer is gone.

    Raises:
        SystemExit: The evaluation failed; the model is saved, and the command that was printed can be given again.
    """
    if requested.evaluate_on is None or training_args.process_index != 0:
        return
    clear_device_cache(garbage_collection=True)
    command = command_for(requested, names, training_args, model_args)
    print(f"evaluating before and after: {shlex.join(command)}", flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_LAUNCHER)}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"the evaluation failed; the model is in {training_args.output_dir}")


def command_for(
    requested: EvaluationArguments, names: ColumnArguments, training_args: Any, model_args: Any
) -> list[str]:
    """The evaluation as a command."""
    held_out = asdict(_held_out(requested, names))
    given = {
        **{key: json.dumps(value) if isinstance(value, Mapping) else value for key, value in held_out.items()},
        "max_new_tokens": requested.evaluate_max_new_tokens,
        "samples": requested.evaluate_samples,
        "temperature": requested.evaluate_temperature,
        "batch_size": requested.evaluate_batch_size,
        "engine": requested.evaluate_engine,
        "dtype": _dtype(training_args, model_args),
        "device": "cpu" if training_args.use_cpu or not torch.cuda.is_available() else "cuda",
        "revision": model_args.model_revision,
        "output": Path(training_args.output_dir) / "evaluation.json",
    }
    flags = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    models = [model_args.model_name_or_path, training_args.output_dir]
    trust = ["--trust_remote_code"] if training_args.trust_remote_code else []
    return [sys.executable, str(Path(__file__).with_name("evaluation.py")), "--models", *models, *flags, *trust]


def _in_its_words(told: str, inherited: bool) -> str:
    """What evaluation.py says, by the names of the recipe's arguments."""
    if told.startswith("`columns` says"):
        if inherited:
            return f"`evaluate_on`: {told}. They go for these data, too, unless `evaluate_columns` says otherwise"
        return told.replace("`columns`", "`evaluate_columns`", 1)
    for name in ("data", "split", "metric", "max_problems"):
        told = re.sub(f"^`{name}`", f"`evaluate_{'on' if name == 'data' else name}`", told)
    return told


def _held_out(requested: EvaluationArguments, names: ColumnArguments) -> HeldOut:
    assert requested.evaluate_on is not None
    given = requested.evaluate_columns
    return HeldOut(
        data=requested.evaluate_on,
        data_config=requested.evaluate_config,
        split=requested.evaluate_split,
        columns=names_of_columns(names.columns if given is None else given, "columns"),
        instruction=names.instruction,
        max_problems=requested.evaluate_max_problems,
        metric=requested.evaluate_metric,
    )


def _dtype(training_args: Any, model_args: Any) -> str:
    """The one that the run computed in, for both: weights are often saved in another than the base's."""
    if training_args.bf16 or training_args.fp16:
        return "bfloat16" if training_args.bf16 else "float16"
    return str(model_args.dtype or "auto")
