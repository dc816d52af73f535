"""Evaluates the model before and after a run, with the recipe's keys `evaluate_on`, `evaluate_metric` and so on.

Both models are evaluated after training, from disk, by the main process in a subprocess: a sharded model cannot
generate on one rank, other ranks that wait at a barrier would time out, and the memory of the trainer is free again.
The metric and the problems are loaded before training, so that mistakes show at once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache

from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.evaluation.arguments import EvaluationArguments, flag_of
from hf_sched.finetune.evaluation.evaluate import load_metric, load_problems

logger = logging.getLogger(__name__)

# Variables that a launcher sets for its processes; the evaluation is not one of them.
_OF_A_LAUNCHER = (
    *("ACCELERATE_", "FSDP_", "GROUP_", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_", "RANK", "ROLE_"),
    *("TORCHELASTIC_", "WORLD_SIZE"),
)


def check_evaluation(arguments: EvaluationArguments, columns: ColumnArguments) -> None:
    """Check before training the data and the metric that the evaluation after training uses."""
    if arguments.evaluate_on is None:
        return
    problems = load_problems(_with_columns(arguments, columns), columns.instruction, columns.system_prompt)
    load_metric(arguments.evaluate_metric, problems)


def evaluate_before_and_after(
    arguments: EvaluationArguments, columns: ColumnArguments, training_args: Any, model_args: Any
) -> None:
    """Evaluate the model that the run started from and the one it saved; if it fails, exit with the saved model."""
    if arguments.evaluate_on is None or training_args.process_index != 0:
        return
    clear_device_cache(garbage_collection=True)
    command = command_for(arguments, columns, training_args, model_args)
    logger.info("evaluating before and after the training on %s", arguments.evaluate_on)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_LAUNCHER)}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"the evaluation failed; the model is saved in {training_args.output_dir}")


def command_for(
    arguments: EvaluationArguments, columns: ColumnArguments, training_args: Any, model_args: Any
) -> list[str]:
    """The evaluation as an `hf-sched evaluate` command."""
    # The dtype of the run's computations, for both models: weights are often saved in another than the base's.
    half = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else None
    given = {flag_of(name): value for name, value in asdict(_with_columns(arguments, columns)).items()}
    given |= {
        "--instruction": columns.instruction,
        "--system-prompt": columns.system_prompt,
        "--dtype": half or str(model_args.dtype or "auto"),
        "--device": "cpu" if training_args.use_cpu or not torch.cuda.is_available() else "cuda",
        "--revision": model_args.model_revision,
        "--output": Path(training_args.output_dir) / "evaluation.json",
    }
    flags = []
    for flag, value in given.items():
        if value is not None:
            flags += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    flags += ["--trust-remote-code"] if training_args.trust_remote_code else []
    models = [model_args.model_name_or_path, training_args.output_dir]
    return [sys.executable, "-m", "hf_sched", "evaluate", *models, *flags]


def _with_columns(arguments: EvaluationArguments, columns: ColumnArguments) -> EvaluationArguments:
    is_given = arguments.evaluate_columns is not None
    return arguments if is_given else replace(arguments, evaluate_columns=columns.columns)
