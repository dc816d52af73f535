"""The pipeline of all recipes: parse, check, load the data, train, save, evaluate.

A recipe is a subclass of `Recipe` that defines what differs: config and trainer class, row formats, extra arguments,
and what a dry run shows. `sft.py` is the shortest example.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from datasets import IterableDataset
from transformers.utils import cached_file
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, get_peft_config, get_quantization_config

import hf_sched
from hf_sched._run_files import training_continues
from hf_sched.callbacks.time_budget import TimeBudget
from hf_sched.finetune.arguments import GroupArguments, PipelineArguments, RewardArguments
from hf_sched.finetune.callbacks.divergence import DivergenceStop
from hf_sched.finetune.callbacks.exact_resume import ExactResume
from hf_sched.finetune.callbacks.grpo_diagnostics import GRPODiagnostics
from hf_sched.finetune.callbacks.peer_failure import bound_waiting, explain_lost_process
from hf_sched.finetune.callbacks.preemption import EXIT_STATUS, CheckpointOnSigterm
from hf_sched.finetune.callbacks.progress import StandardErrorHandler, show_progress
from hf_sched.finetune.checkpoints.continuation import Resume, ResumeRejected, check_same_weights
from hf_sched.finetune.checkpoints.finished import RunFinished, StopIfFinished, restore_callbacks
from hf_sched.finetune.checkpoints.identity import RunIdentity
from hf_sched.finetune.checkpoints.selection import checkpoint_to_resume, clear_previous_run, is_in
from hf_sched.finetune.checkpoints.sharding import check_sharding
from hf_sched.finetune.config import WrongArguments, check_arguments, given_arguments, parse
from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.data.conversion import TARGETS, Target
from hf_sched.finetune.data.load import load_rows
from hf_sched.finetune.data.tokens import check_kept_rows, check_tokens
from hf_sched.finetune.dry_run import plan_of, show_plan
from hf_sched.finetune.evaluation import EvaluationArguments
from hf_sched.finetune.evaluation.before_after import check_evaluation, evaluate_before_and_after
from hf_sched.finetune.evaluation.generation_cache import adapter_base
from hf_sched.finetune.fast import drop_padding, make_fast
from hf_sched.finetune.launch import check_launch
from hf_sched.finetune.memory.before_loading import check_memory
from hf_sched.finetune.model_card import complete_model_cards
from hf_sched.finetune.optimizer import groups_of, with_groups
from hf_sched.finetune.provenance import write_provenance
from hf_sched.finetune.terminal import print_header, print_summary, quiet_libraries, quiet_training
from hf_sched.finetune.trackers import default_trackers, name_of_run
from hf_sched.integrations.token_count import tokens_per_sample
from hf_sched.plan import Plan
from hf_sched.plots.console import wrapped
from hf_sched.schedules.validation import ArgumentError, DurationUnknown

logger = logging.getLogger(__name__)

# By default DDP looks for unused parameters in each step, and warns if all are used. Only these parts of a model may be
# unused: experts, and encoders of images and audio.
_MAY_BE_UNUSED = re.compile(r"expert|vision|visual|image|audio")


@dataclass
class Run:
    """What the steps of the pipeline share: the parsed arguments, then what is made of them."""

    given: Mapping[str, Any]
    script: ScriptArguments
    training: Any
    model: ModelConfig
    mixture: DatasetMixtureConfig
    pipeline: PipelineArguments
    columns: ColumnArguments
    evaluation: EvaluationArguments
    groups: GroupArguments
    rewards: RewardArguments = field(default_factory=RewardArguments)
    checkpoint: str | None = None
    resume: Resume | None = None
    """What the checkpoint contains; None for a start."""
    train_rows: Any = None
    eval_rows: Any = None
    data: str = ""
    """What the run uses of the data, in words."""
    trainer_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of this recipe's trainer in addition to those of every trainer."""
    started: float = field(default_factory=time.time)
    """The Unix time at which `time_budget` begins."""


class Recipe:
    """Base of the recipes."""

    kind: ClassVar[str]
    config_class: ClassVar[type]
    trainer_class: ClassVar[Callable[..., Any]]
    extra_arguments: ClassVar[tuple[type, ...]] = ()

    def target(self, run: Run) -> Target:
        """Return the row forms that the trainer takes."""
        return TARGETS[self.kind]

    def check(self, run: Run) -> None:
        """Check this recipe's own arguments, before the data is loaded."""

    def check_rows(self, run: Run) -> None:
        """Check the data, before the model is loaded."""

    def preview(self, trainer: Any, run: Run) -> None:
        """Show what the run learns from."""


def run_recipe(recipe: Recipe, args: Sequence[str] | None = None) -> int:
    """Run a recipe with the given arguments, by default those of the command line.

    Returns:
        int: The exit status: 0, 1 (diverged), 2 (wrong arguments, named in one line), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    words = sys.argv[1:] if args is None else args
    try:
        quiet_libraries(verbose=given_arguments(words).get("verbose") is True)
        run = prepare(recipe, words)
    except ValueError as error:
        return reject(recipe, error)
    try:
        trainer = make_trainer(recipe, run)
        groups = groups_of(trainer, run.groups) if run.groups.are_given else []
        planned = plan_run(recipe, run, trainer.train_dataset, groups, trainer.data_collator)
    except (ArgumentError, ResumeRejected) as error:
        return reject(recipe, error)
    if trainer.is_world_process_zero():
        if run.pipeline.dry_run:
            show_plan(planned, run.data, {**vars(run.model), **vars(run.training)}, groups)
        else:
            print_header(trainer, planned, run.data, run.checkpoint)
        recipe.preview(trainer, run)
    if run.pipeline.dry_run:
        return 0
    if run.pipeline.overwrite and not is_in(run.training.output_dir, run.checkpoint):
        if run.training.should_save:
            clear_previous_run(run.training.output_dir)
        trainer.accelerator.wait_for_everyone()
    if not run.pipeline.verbose:
        quiet_training(trainer)
    try:
        status = train_and_save(
            trainer,
            run.checkpoint,
            run.given,
            run.script.dataset_name,
            run.model.model_name_or_path,
            live_control_of(run),
        )
    except ArgumentError as error:  # what only the optimizer shows
        return reject(recipe, error)
    except KeyboardInterrupt:
        logger.error("interrupted; `--resume_from_checkpoint auto` continues from the last checkpoint")
        return 128 + signal.SIGINT
    history = trainer.state.log_history
    del trainer
    if run.training.world_size > 1:
        gc.collect()  # a DDP model that is still alive when Python exits can abort the process (torch 2.13, gloo)
    if status == 0:
        evaluate_before_and_after(run.evaluation, run.columns, run.training, run.model)
        if run.training.process_index == 0:
            print_summary(recipe.kind, run.training.output_dir, history, is_adapter=run.model.use_peft)
    return status


def reject(recipe: Recipe, error: ValueError) -> int:
    """Print the error, in a line for each mistake, or the table of a resume; return the exit status."""
    if isinstance(error, ResumeRejected):
        if os.environ.get("RANK", "0") == "0":  # all processes compare the same checkpoint
            print(wrapped(f"{recipe.kind}: error: {error}", sys.stderr), file=sys.stderr)
    else:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(10)  # most errors are the same on all processes, and the launcher stops the others meanwhile
        for line in str(error).splitlines() if isinstance(error, WrongArguments) else [str(error)]:
            print(wrapped(f"{recipe.kind}: error: {' '.join(line.split())}", sys.stderr), file=sys.stderr)
    return 2


def prepare(recipe: Recipe, args: Sequence[str]) -> Run:
    """Parse the arguments, check them and load the data, but not the model; raise a ValueError for what is wrong."""
    warnings_of_check = check_arguments(recipe.kind, args)
    run = Run(given_arguments(args), *parse(*argument_types(recipe), args=args))
    configure_logging(run.training.process_index)
    for text in warnings_of_check:
        logger.warning(text)
    if "report_to" not in run.given:
        run.training.report_to = default_trackers()
    if "disable_tqdm" not in run.given:
        run.training.disable_tqdm = False  # transformers disables it when only its errors are shown
    if run.pipeline.time_budget is not None and not run.pipeline.dry_run:
        TimeBudget.parse(run.pipeline.time_budget, run.started).deadline(run.started)  # of a Slurm job, if it is one
    check_launch(run.training)
    bound_waiting(run.training)
    run.checkpoint = checkpoint_to_resume(run.training, run.pipeline, run.given)
    check_sharding(run.training, run.checkpoint)
    if run.checkpoint is not None:
        check_same_weights(run.checkpoint, is_peft=run.model.use_peft)
        run.resume = Resume.read(run.checkpoint, run.given, run.training.world_size)
    recipe.check(run)
    if run.script.dataset_streaming and run.training.max_steps <= 0:
        rule = "needs `max_steps`, because the number of rows is not known in advance"
        raise ArgumentError("dataset_streaming", rule=rule)
    evaluating = run.training.eval_strategy != "no"
    run.train_rows, run.eval_rows, run.columns.instruction, run.data = load_rows(
        run.script, run.mixture, recipe.target(run), run.columns, evaluating=evaluating
    )
    recipe.check_rows(run)
    if run.evaluation.evaluate_on == run.script.dataset_name and run.evaluation.evaluate_test_split_size is None:
        run.evaluation.evaluate_test_split_size = run.mixture.test_split_size
    check_evaluation(run.evaluation, run.columns)
    check_model(run.model)
    if run.resume is not None:
        if run.resume.knows_length(run.training) and not run.groups.are_given:
            with suppress(DurationUnknown):  # the rows are tokenized later
                plan_run(recipe, run, run.train_rows)
        run.resume.log(run.training.output_dir, is_branch=run.checkpoint == run.pipeline.anneal_from)
    check_tokens(recipe.kind, run.training, run.model, run.train_rows)
    if run.pipeline.fast:
        make_fast(recipe.kind, run.training, run.model, run.train_rows, run.given)
    check_memory(recipe.kind, run.training, run.model, run.train_rows, in_full=run.pipeline.dry_run)
    if isinstance(run.train_rows, IterableDataset):
        # One endless pass, because the Trainer does not know in which pass a checkpoint was saved.
        run.train_rows = run.train_rows.repeat(None)
    return run


def plan_run(
    recipe: Recipe,
    run: Run,
    rows: Any,
    groups: list[dict[str, Any]] | None = None,
    collate: Callable[[Sequence[Any]], Any] | None = None,
) -> Plan:
    """Return the plan of the run, after a resume if there is one; raise a ValueError if it cannot be resumed.

    `groups` are the optimizer's, if they are not those of the Trainer. `collate` makes a batch of tokenized rows.
    """
    names = ("schedules", "time_budget", "time_reserve", "anneal_duration")
    others = {**vars(run.groups), **{name: getattr(run.pipeline, name) for name in names}}
    others["evaluate_on"] = run.evaluation.evaluate_on
    count = None if collate is None else partial(tokens_per_sample, rows, collate)
    planned = plan_of(run.training, rows, recipe.kind, others, count)
    return planned if run.resume is None else run.resume.apply(run.training, planned, groups)


def argument_types(recipe: Recipe) -> tuple[type, ...]:
    """Return the dataclasses of a recipe's arguments, in the order of `Run`."""
    trl = (ScriptArguments, recipe.config_class, ModelConfig, DatasetMixtureConfig)
    ours = (PipelineArguments, ColumnArguments, EvaluationArguments, GroupArguments)
    return (*trl, *ours, *recipe.extra_arguments)


def make_trainer(recipe: Recipe, run: Run) -> Any:
    """Make the trainer, which loads the model: from TRL's ModelConfig, then `model_init_kwargs`, which win.

    Raises:
        ArgumentError: `max_length` leaves no rows.
    """
    run.training.model_init_kwargs = {
        "revision": run.model.model_revision,
        "trust_remote_code": run.training.trust_remote_code,
        "attn_implementation": run.model.attn_implementation,
        "dtype": run.model.dtype,
        **(run.training.model_init_kwargs or {}),
    }
    config = cached_file(run.model.model_name_or_path, "config.json", revision=run.model.model_revision)
    if run.training.ddp_find_unused_parameters is None:
        may_be_unused = _MAY_BE_UNUSED.search(Path(str(config)).read_text(encoding="utf-8"))
        run.training.ddp_find_unused_parameters = None if may_be_unused else False
    schedules: Any = run.pipeline.schedules  # no text after `__post_init__`
    trainer = with_groups(recipe.trainer_class, run.groups)(
        model=run.model.model_name_or_path,
        args=run.training,
        train_dataset=run.train_rows,
        eval_dataset=run.eval_rows,
        peft_config=get_peft_config(run.model),
        quantization_config=get_quantization_config(run.model),
        callbacks=[hf_sched.HyperparameterSchedules(schedules)] if schedules else [],
        **run.trainer_arguments,
    )
    if run.pipeline.fast:
        drop_padding(trainer, run.model.attn_implementation)
    check_kept_rows(trainer, len(run.train_rows) if hasattr(run.train_rows, "__len__") else None)
    return trainer


def live_control_of(run: Run) -> hf_sched.LiveControl:
    """The callback that cools the run down on request, or before its deadline."""
    pipeline = run.pipeline
    return hf_sched.LiveControl(
        pipeline.time_budget,
        pipeline.anneal_duration,
        pipeline.anneal_shape,
        pipeline.time_reserve,
        started=run.started,
    )


def train_and_save(
    trainer: Any,
    checkpoint: str | None = None,
    given: Mapping[str, Any] | None = None,
    dataset_name: str | None = None,
    base_model: str | None = None,
    live_control: hf_sched.LiveControl | None = None,
) -> int:
    """Train under all callbacks of the recipes, save the model, and push it if `push_to_hub` is set.

    `checkpoint` is the one to resume from, and `given` the arguments as they were written. A TRL trainer with a
    `base_model` writes a model card.

    Returns:
        int: The exit status: 1 if the run diverged, 143 if SIGTERM stopped it; neither saves a model. Otherwise 0.
    """
    divergence, preemption = DivergenceStop(trainer), CheckpointOnSigterm(trainer)
    show_progress(trainer)
    logs = (hf_sched.LearningRateLog(), live_control or hf_sched.LiveControl())
    identity = write_provenance(trainer, checkpoint, given or {})
    exactness = ExactResume(trainer, checkpoint)
    for callback in (identity, StopIfFinished(trainer), *logs, preemption, divergence, GRPODiagnostics(), exactness):
        trainer.add_callback(callback)
    trainer.args.run_name = trainer.args.run_name or name_of_run(trainer.args)
    if base_model:
        complete_model_cards(trainer, base_model)
    if checkpoint is not None:
        restore_callbacks(trainer, checkpoint)
    result, status = None, 0
    with explain_lost_process(trainer):
        try:
            result = trainer.train(resume_from_checkpoint=checkpoint)
            trainer.save_state()
        except RunFinished as finished:
            logger.info("%s", finished)
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
                trainer._load_best_model()
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            # The state written at the end of this run has records that no checkpoint has.
            folder = Path(trainer.args.output_dir)
            if not (folder / "trainer_state.json").is_file() or RunIdentity.of(folder).run_id != identity.run_id:
                trainer.save_state()
    is_main = trainer.is_world_process_zero()
    if divergence.reason is not None:
        status = 1
        if is_main:
            logger.error(divergence.message())
    elif preemption.stopped:
        status = EXIT_STATUS
        if is_main:
            logger.warning(preemption.message())
        # The first process to exit ends the others, which may still be writing their part of the checkpoint.
        trainer.accelerator.wait_for_everyone()
    else:
        trainer.save_model()
        if base_model:
            trainer.create_model_card(model_name=Path(trainer.args.output_dir).name)
        if result is not None:
            with training_continues(Path(trainer.args.output_dir, "train_results.json")):
                trainer.save_metrics("train", result.metrics)
        if trainer.args.push_to_hub:
            trainer.push_to_hub(dataset_name=dataset_name)
    trainer.accelerator.end_training()  # `trainer.end()` exists from transformers 5.18 on and does the same
    return status


def check_model(model_args: Any) -> None:
    """Raise an ArgumentError unless the model exists and is no LoRA adapter, without loading it."""
    name = model_args.model_name_or_path
    if not name:
        raise ArgumentError("model_name_or_path", rule="must be given: a hub name, or the folder of a model")
    folder = Path(name).expanduser()
    if folder.is_dir() and adapter_base(name) and not (folder / "config.json").is_file():
        hint = f"run `hf-sched merge {name} --output {folder}_merged` and use that folder"
        raise ArgumentError("model_name_or_path", "a complete model, not a LoRA adapter", name, hint)
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
    for handler in [each for each in log.handlers if isinstance(each, StandardErrorHandler)]:
        log.removeHandler(handler)  # of an earlier run in this process
    log.addHandler(StandardErrorHandler())
