"""What `hf-sched plan` and `hf-sched check` share: their options about a run, and how they read its file."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hf_sched.plan.training_config import TrainingConfig


def run_options(command: Any) -> Any:
    """Add the options that describe a run: `--kind`, `--num-processes`, `--accelerate-config`, `--dataset-size`,
    `--tokens-per-sample`."""
    for option in (
        click.option("--tokens-per-sample", type=float, metavar="N", help="Mean tokens, for durations in tokens."),
        click.option("--dataset-size", type=int, metavar="N", help="Training samples, if they cannot be counted."),
        click.option("--accelerate-config", metavar="FILE", help="The file for `accelerate launch --config_file`."),
        click.option("--num-processes", type=int, metavar="N", help="Processes; by default those of FILE, or 1."),
        click.option("--kind", metavar="KIND", help="sft, grpo, dpo, trainer, ...; by default the best fit."),
    ):
        command = option(command)
    return command


def read_training_file(path: str, kind: str | None = None) -> TrainingConfig:
    """Read a file of training arguments, including our recipes' own if the `recipes` extra is installed."""
    # Slow to import, and other commands do not need it.
    from hf_sched.plan.training_config import TrainingConfig, read_arguments

    read_arguments(path)  # unsuitable files are rejected before torch is imported
    return TrainingConfig.read(path, kind, recipe_arguments())


def recipe_arguments() -> tuple[type, ...]:
    """The dataclasses of our recipes' own arguments; empty without the `recipes` extra."""
    if not all(find_spec(module) for module in ("trl", "peft", "datasets")):
        return ()
    from hf_sched.finetune.arguments import RECIPE_ARGUMENTS

    return RECIPE_ARGUMENTS


def recipe_checks() -> tuple[Any, ...]:
    """The checks of our recipes' own arguments; empty without the `recipes` extra."""
    if not recipe_arguments():
        return ()
    from datasets import disable_progress_bars

    from hf_sched.finetune.check import check_data, check_recipe

    disable_progress_bars()
    return (check_recipe, check_data)
