"""GRPO, reinforcement learning from rewards that check the answer, with TRL, under any schedule of hf_sched.

    accelerate launch --config_file accelerate_configs/ddp.yaml \\
        recipes/grpo.py --config recipes/configs/qwen2.5-0.5b_gsm8k_grpo.yaml

The arguments are those of TRL's ScriptArguments, GRPOConfig, ModelConfig and DatasetMixtureConfig, `reward_funcs` (see
rewards/), and those to branch off a cooldown (checkpoints.py) and to evaluate before and after (before_after.py); flags
win over the YAML file.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from functools import partial

from trl import (
    DatasetMixtureConfig,
    GRPOConfig,
    GRPOTrainer,
    ModelConfig,
    ScriptArguments,
    get_peft_config,
    get_quantization_config,
)

import hf_sched  # noqa: F401  (its schedules become values of lr_scheduler_type)
from hf_sched.finetune.callbacks.peer_failure import bound_waiting
from hf_sched.finetune.checkpoints.selection import BranchArguments, checkpoint_to_resume
from hf_sched.finetune.checkpoints.sharding import check_sharding
from hf_sched.finetune.config import parse, stop
from hf_sched.finetune.data.load import PROBLEMS, ColumnArguments, columns_of, load_rows, to_problem
from hf_sched.finetune.dry_run import PreviewArguments, preview
from hf_sched.finetune.evaluation.before_after import EvaluationArguments, check_evaluation, evaluate_before_and_after
from hf_sched.finetune.launch import check_launch, quiet_other_ranks
from hf_sched.finetune.memory.check import check_memory
from hf_sched.finetune.rewards import check_reward_columns, load_rewards
from hf_sched.finetune.training import check_model, model_init_kwargs, train_and_save


@dataclass
class GRPOScriptArguments(ScriptArguments):
    """TRL's script arguments, and the rewards."""

    reward_funcs: list[str] = field(
        default_factory=list, metadata={"help": "Rewards, by name or as mappings with parameters (see rewards/)."}
    )


def main() -> int:
    """Train as the command line says; the exit status."""
    script_args, training_args, model_args, mixture, branch, look, names, held_out = parse(
        GRPOScriptArguments,
        GRPOConfig,
        ModelConfig,
        DatasetMixtureConfig,
        BranchArguments,
        PreviewArguments,
        ColumnArguments,
        EvaluationArguments,
    )
    try:
        check_launch(training_args)
        bound_waiting(training_args)
        quiet_other_ranks()
        checkpoint = checkpoint_to_resume(training_args, branch)
        check_sharding(training_args, checkpoint)
        rewards, training_args.reward_weights = load_rewards(script_args.reward_funcs, training_args.reward_weights)
        evaluating = training_args.eval_strategy != "no"
        train_rows, eval_rows = load_rows(
            script_args,
            mixture,
            partial(to_problem, instruction=names.instruction),
            evaluating=evaluating,
            columns=names.columns,
            forms=PROBLEMS,
            max_steps=training_args.max_steps,
        )
        check_reward_columns(rewards, columns_of(train_rows))
        check_evaluation(held_out, names)
        check_model(model_args)
        check_memory("grpo", training_args, model_args, train_rows, in_full=look.dry_run)
    except ValueError as error:
        stop(error)

    training_args.model_init_kwargs = model_init_kwargs(training_args, model_args)
    trainer = GRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=rewards,
        args=training_args,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        peft_config=get_peft_config(model_args),
        quantization_config=get_quantization_config(model_args),
    )
    preview(trainer, "grpo", in_full=look.dry_run, rewards=rewards)
    status = 0
    if not look.dry_run:
        status = train_and_save(trainer, checkpoint=checkpoint, dataset_name=script_args.dataset_name)
    del trainer
    if training_args.world_size > 1:
        gc.collect()  # a DDP model that is still alive when Python exits can abort the process (torch 2.13, gloo)
    if status == 0 and not look.dry_run:
        evaluate_before_and_after(held_out, names, training_args, model_args)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
