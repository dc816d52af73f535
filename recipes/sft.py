"""Supervised fine-tuning with TRL, full or by LoRA (`use_peft: true`), under any schedule of hf_sched.

    accelerate launch --config_file accelerate_configs/ddp.yaml \\
        recipes/sft.py --config recipes/configs/qwen2.5-0.5b_gsm8k_sft.yaml

The arguments are those of TRL's ScriptArguments, SFTConfig, ModelConfig and DatasetMixtureConfig; flags win over the
YAML file.
"""

from __future__ import annotations

from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    SFTConfig,
    SFTTrainer,
    get_peft_config,
    get_quantization_config,
)

import hf_sched  # noqa: F401  (its schedules become values of lr_scheduler_type)
from config import checkpoint_to_resume, parse, stop
from data import load_splits, split, to_demonstration
from launch import check_launch, quiet_other_ranks


def main() -> None:
    """Train as the command line says."""
    script_args, training_args, model_args, mixture = parse(
        ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig
    )
    try:
        check_launch(training_args)
        quiet_other_ranks()
        checkpoint = checkpoint_to_resume(training_args)
        splits = load_splits(script_args, mixture)
        train_rows = split(splits, script_args.dataset_train_split, "dataset_train_split", to_demonstration)
        eval_rows = None
        if training_args.eval_strategy != "no":
            eval_rows = split(splits, script_args.dataset_test_split, "dataset_test_split", to_demonstration)
    except ValueError as error:
        stop(error)

    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    trainer = SFTTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        peft_config=get_peft_config(model_args),
        quantization_config=get_quantization_config(model_args),
    )
    result = trainer.train(resume_from_checkpoint=checkpoint)

    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    trainer.save_model()
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


if __name__ == "__main__":
    main()
