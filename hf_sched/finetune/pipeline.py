"""The pipeline of all recipes: parse, check, load the data, train, save, evaluate.

A recipe is a subclass of `Recipe` that defines what differs: config and trainer class, row formats, extra arguments,
and what a dry run shows. `sft.py` is the shortest example.
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from transformers.utils import cached_file
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, get_peft_config, get_quantization_config

import hf_sched  # noqa: F401  (registers the schedules as values of lr_scheduler_type)
from hf_sched.finetune.arguments import BranchArguments, DryRunArguments, RewardArguments
from hf_sched.finetune.callbacks.peer_failure import bound_waiting
from hf_sched.finetune.callbacks.progress import StandardErrorHandler
from hf_sched.finetune.checkpoints.selection import checkpoint_to_resume
from hf_sched.finetune.checkpoints.sharding import check_sharding
from hf_sched.finetune.config import given_arguments, parse
from hf_sched.finetune.data.load import ColumnArguments, load_rows, names_of_columns
from hf_sched.finetune.dry_run import show_plan
from hf_sched.finetune.evaluation import EvaluationArguments
from hf_sched.finetune.evaluation.before_after import check_evaluation, evaluate_before_and_after
from hf_sched.finetune.evaluation.generation_cache import adapter_base
from hf_sched.finetune.launch import check_launch, quiet_progress_bars
from hf_sched.finetune.memory.check import check_memory
from hf_sched.finetune.training import train_and_save
from hf_sched.schedules.validation import ArgumentError


@dataclass
class Run:
    """What the steps of the pipeline share: the parsed arguments, then what is made of them."""

    given: Mapping[str, Any]
    script: ScriptArguments
    training: Any
    model: ModelConfig
    mixture: DatasetMixtureConfig
    branch: BranchArguments
    inspection: DryRunArguments
    columns: ColumnArguments
    evaluation: EvaluationArguments
    rewards: RewardArguments = field(default_factory=RewardArguments)
    checkpoint: str | None = None
    train_rows: Any = None
    eval_rows: Any = None
    trainer_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of this recipe's trainer in addition to those of every trainer."""

    @property
    def is_dry_run(self) -> bool:
        """Whether to show what the run would do, and not train."""
        return self.inspection.dry_run


class Recipe:
    """Base of the recipes."""

    kind: ClassVar[str]
    config_class: ClassVar[type]
    trainer_class: ClassVar[Callable[..., Any]]
    extra_arguments: ClassVar[tuple[type, ...]] = ()
    convert: ClassVar[Callable[..., dict[str, Any]] | None] = None
    """Converts a row of `question` and `answer`."""

    def row_forms(self, run: Run) -> Sequence[Sequence[str]]:
        """Return the sets of columns of which the data must have one."""
        raise NotImplementedError

    def check_given(self, given: Mapping[str, Any]) -> None:
        """Check the arguments as they were written, before TRL's config class does."""

    def check(self, run: Run) -> None:
        """Check this recipe's own arguments, before the data is loaded."""

    def check_rows(self, run: Run) -> None:
        """Check the data, before the model is loaded."""

    def preview(self, trainer: Any, run: Run) -> None:
        """Show what the run learns from."""


def run_recipe(recipe: Recipe, args: Sequence[str] | None = None) -> int:
    """Run a recipe.

    Args:
        recipe: What to run.
        args: The command line; by default that of the program.

    Returns:
        int: The exit status: 0, 1 (diverged), 2 (wrong arguments, named in one line) or 143 (stopped by SIGTERM).
    """
    try:
        run = prepare(recipe, sys.argv[1:] if args is None else args)
    except ValueError as error:
        print(f"{recipe.kind}: error: {error}", file=sys.stderr)
        return 2
    trainer = make_trainer(recipe, run)
    if trainer.is_world_process_zero():
        show_plan(trainer, recipe.kind, in_full=run.is_dry_run)
        recipe.preview(trainer, run)
    status = 0
    if not run.is_dry_run:
        dataset_name = run.script.dataset_name
        status = train_and_save(trainer, checkpoint=run.checkpoint, dataset_name=dataset_name, given=run.given)
    del trainer
    if run.training.world_size > 1:
        gc.collect()  # a DDP model that is still alive when Python exits can abort the process (torch 2.13, gloo)
    if status == 0 and not run.is_dry_run:
        evaluate_before_and_after(run.evaluation, run.columns, run.training, run.model)
    return status


def prepare(recipe: Recipe, args: Sequence[str]) -> Run:
    """Parse the arguments, check them, and load the data; the model is not loaded yet.

    Raises:
        ValueError: An argument, the launch, a checkpoint or a row is wrong, or the run does not fit into memory.
    """
    given = given_arguments(args)
    recipe.check_given(given)
    run = Run(given, *parse(*argument_types(recipe), args=args))
    configure_logging(run.training.process_index)
    check_launch(run.training)
    bound_waiting(run.training)
    quiet_progress_bars()
    run.checkpoint = checkpoint_to_resume(run.training, run.branch)
    check_sharding(run.training, run.checkpoint)
    recipe.check(run)
    run.train_rows, run.eval_rows = load_rows(
        run.script,
        run.mixture,
        partial(recipe.convert, instruction=run.columns.instruction) if recipe.convert else None,
        evaluating=run.training.eval_strategy != "no",
        columns=names_of_columns(run.columns.columns, "columns"),
        forms=recipe.row_forms(run),
        max_steps=run.training.max_steps,
    )
    recipe.check_rows(run)
    check_evaluation(run.evaluation, run.columns)
    check_model(run.model)
    check_memory(recipe.kind, run.training, run.model, run.train_rows, in_full=run.is_dry_run)
    return run


def argument_types(recipe: Recipe) -> tuple[type, ...]:
    """Return the dataclasses of a recipe's arguments, in the order of `Run`."""
    trl = (ScriptArguments, recipe.config_class, ModelConfig, DatasetMixtureConfig)
    ours = (BranchArguments, DryRunArguments, ColumnArguments, EvaluationArguments)
    return (*trl, *ours, *recipe.extra_arguments)


def make_trainer(recipe: Recipe, run: Run) -> Any:
    """Make the trainer, which loads the model: from TRL's ModelConfig, then `model_init_kwargs`, which win."""
    run.training.model_init_kwargs = {
        "revision": run.model.model_revision,
        "trust_remote_code": run.training.trust_remote_code,
        "attn_implementation": run.model.attn_implementation,
        "dtype": run.model.dtype,
        **(run.training.model_init_kwargs or {}),
    }
    return recipe.trainer_class(
        model=run.model.model_name_or_path,
        args=run.training,
        train_dataset=run.train_rows,
        eval_dataset=run.eval_rows,
        peft_config=get_peft_config(run.model),
        quantization_config=get_quantization_config(run.model),
        **run.trainer_arguments,
    )


def check_model(model_args: Any) -> None:
    """Check that the model exists, without loading it.

    Raises:
        ArgumentError: It does not, or it is a LoRA adapter.
    """
    name = model_args.model_name_or_path
    if not name:
        raise ArgumentError("model_name_or_path", rule="must be given: a hub name, or the folder of a model")
    if (folder := Path(name).expanduser()).is_dir() and adapter_base(name) and not (folder / "config.json").is_file():
        merge = f"`hf-sched merge {name} --output {folder}_merged`"
        raise ArgumentError(
            "model_name_or_path", "a complete model, not a LoRA adapter", name, f"run {merge} and use that folder"
        )
    try:
        if cached_file(name, "config.json", revision=model_args.model_revision) is None:
            raise OSError("it has no config.json")
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ArgumentError("model_name_or_path", "a hub name or the folder of a model", name, reason) from error


def configure_logging(rank: int) -> None:
    """Show log messages of this package on standard error: all of the first rank, only errors of the others."""
    log = logging.getLogger("hf_sched")
    log.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    if not any(isinstance(handler, StandardErrorHandler) for handler in log.handlers):
        log.addHandler(StandardErrorHandler())
    # TRL still calls methods that transformers 5 has renamed; a user can do nothing about it.
    warnings.filterwarnings("ignore", r"`\w*gradient_checkpointing\w*` is deprecated", FutureWarning)
