"""`hf-sched evaluate`: measure models on held-out problems and compare them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from hf_sched.finetune.evaluation.arguments import EvaluationArguments, flag_of
from hf_sched.plots.console import waiting, wrapped
from hf_sched.schedules.validation import ArgumentError


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of `EvaluationArguments`."""
    numbers: dict[str, Any] = {"int": int, "int | None": int, "float": float, "float | None": float}
    for field in reversed(fields(EvaluationArguments)):
        command = click.option(
            flag_of(field.name),
            field.name,
            type=numbers.get(str(field.type), str),
            default=field.default,
            show_default=field.default is not None,
            required=field.name == "evaluate_on",
            help=field.metadata["help"],
        )(command)
    return command


@click.command("evaluate", short_help="Measure models on held-out problems.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@_options
@click.option("--instruction", help="Text below each question. By default GSM8K's if the answers look like GSM8K's.")
@click.option("--system-prompt", help="System message of every problem that does not begin with its own.")
@click.option("--dtype", default="auto", show_default=True, help="To load the models in.")
@click.option("--device", help="cpu, cuda or cuda:1. By default a GPU if there is one.")
@click.option("--revision", help="Branch, tag or commit of models on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with a model.")
@click.option("--output", type=Path, metavar="FILE", required=True, help="The JSON file for the results.")
def evaluate_models(
    models: tuple[str, ...],
    instruction: str | None,
    system_prompt: str | None,
    dtype: str,
    device: str | None,
    revision: str | None,
    trust_remote_code: bool,
    output: Path,
    **options: Any,
) -> None:
    """Measure how many held-out problems each MODEL answers right, and compare it with the previous one.

    A MODEL is a folder, also of a LoRA adapter, or a hub name. The data have the columns `prompt` and `answer`, or
    `question` and `answer` as GSM8K has. With `--samples 8`, each problem is also answered 8 times for pass@1 and
    pass@8. Completions are kept beside the output: an interrupted command continues where it stopped.

    \b
    hf-sched evaluate runs/demo/sft runs/demo/grpo --data runs/demo/task/grpo \\
      --output runs/demo/evaluation.json
    """
    if int(os.environ.get("RANK", 0)) > 0:
        return  # under `accelerate launch`, one process evaluates
    with waiting("loading"):
        from hf_sched.finetune.evaluation.evaluate import evaluate
        from hf_sched.finetune.evaluation.generation import Loading
        from hf_sched.finetune.evaluation.metrics import describe
        from hf_sched.finetune.terminal import quiet_libraries

        quiet_libraries()
    device = device or Loading().device
    loading = Loading(dtype, device, revision, trust_remote_code)
    try:
        results = evaluate(models, EvaluationArguments(**options), output, instruction, loading, system_prompt)
    except ArgumentError as error:
        if error.name in options:
            error.name = flag_of(error.name)
        raise
    for model, result in results.items():
        click.echo(wrapped("\n".join(describe(model, result)), sys.stdout))
