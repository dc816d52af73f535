"""Keys that earlier versions of transformers and TRL had, and what stands for them now.

Taken from the dataclasses of transformers 4.36 to 4.57 and of TRL 0.7 to 1.8, against transformers 5.23 and TRL 1.16.
Where an older version is installed, a key that it still has is not looked up here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject


@dataclass(frozen=True)
class Moved:
    """What became of a key."""

    to: str | None = None
    """The key that stands for it now; None: there is none."""
    how: str | Callable[[Any], str] = ""
    """What to write, or why there is nothing to write; from the old value where it is a function."""
    kinds: tuple[str, ...] = ()
    """The kinds of trainer that this is true of; empty: all."""

    def advice(self, value: Any) -> str:
        """What to write instead of the old key with this value."""
        how = self.how(value) if callable(self.how) else self.how
        if self.to is None:
            return f"leave it out{': ' + how if how else ''}"
        return f"write `{how or f'{self.to}: {written(value)}'}`"


def written(value: Any) -> str:
    """A value as YAML has it on one line."""
    import yaml

    if isinstance(value, float) and value != 0:  # YAML writes 1e-07, and reads it as text
        return repr(value).replace("e", ".0e") if "e" in repr(value) and "." not in repr(value) else repr(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()


def _within(mapping: str, key: str) -> Callable[[Any], str]:
    return lambda value: f"{mapping}: {{{key}: {written(value)}}}"


_ALWAYS_SO = "that is how it works now"
_NATIVE = "mixed precision is torch's own now, set by `bf16` or `fp16` alone"
_NO_PROMPT_LENGTH = "prompts are no longer cut: filter long ones out of the data"
_BOTH_TOGETHER = "`max_length` limits prompt and completion together"
_IN_PYTHON = "it is given to the trainer in Python"
_BY_COLLATOR = "the data collator pads by itself"

RENAMED: dict[str, Moved | tuple[Moved, ...]] = {
    # transformers
    "warmup_ratio": Moved(
        "warmup_steps", lambda value: f"warmup_steps: {written(value)}  # below 1: a share of the run"
    ),
    "evaluation_strategy": Moved("eval_strategy"),
    "no_cuda": Moved("use_cpu"),
    "per_gpu_train_batch_size": Moved("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": Moved("per_device_eval_batch_size"),
    "overwrite_output_dir": Moved(
        how="what is in `output_dir` is overwritten anyway; to go on from it, `resume_from_checkpoint`"
    ),
    "logging_dir": Moved(how="set the environment variable TENSORBOARD_LOGGING_DIR"),
    "save_safetensors": Moved(how="checkpoints are always safetensors"),
    "group_by_length": Moved(
        "train_sampling_strategy",
        lambda value: f"train_sampling_strategy: {'group_by_length' if value else 'random'}",
    ),
    "adafactor": Moved("optim", lambda value: f"optim: {'adafactor' if value else 'adamw_torch_fused'}"),
    "torchdynamo": Moved("torch_compile_backend"),
    "push_to_hub_token": Moved("hub_token"),
    "push_to_hub_model_id": Moved("hub_model_id"),
    "push_to_hub_organization": Moved("hub_model_id", lambda value: f"hub_model_id: {written(value)}/NAME"),
    "fsdp_min_num_params": Moved("fsdp_config", _within("fsdp_config", "min_num_params")),
    "fsdp_transformer_layer_cls_to_wrap": Moved("fsdp_config", _within("fsdp_config", "transformer_layer_cls_to_wrap")),
    "dispatch_batches": Moved("accelerator_config", _within("accelerator_config", "dispatch_batches")),
    "split_batches": Moved("accelerator_config", _within("accelerator_config", "split_batches")),
    "include_inputs_for_metrics": Moved(
        "include_for_metrics", lambda value: f"include_for_metrics: [{'inputs' if value else ''}]"
    ),
    "include_tokens_per_second": Moved(
        "include_num_input_tokens_seen", lambda value: f"include_num_input_tokens_seen: {written(bool(value))}"
    ),
    "use_mps_device": Moved(how="an MPS device is used where there is one"),
    "fp16_backend": Moved(how=_NATIVE),
    "half_precision_backend": Moved(how=_NATIVE),
    "fp16_opt_level": Moved(how=_NATIVE),
    "jit_mode_eval": Moved(how="it is gone; `torch_compile` is what there is"),
    "use_ipex": Moved(how="it is gone"),
    "tpu_num_cores": Moved(how="the launcher sets it"),
    "tpu_metrics_debug": Moved(how="it is gone; `debug: tpu_metrics_debug` is what there is"),
    "past_index": Moved(how="it is gone"),
    "use_legacy_prediction_loop": Moved(how="it is gone"),
    "mp_parameters": Moved(how="it is gone"),
    "ray_scope": Moved(how="it is given to `hyperparameter_search` in Python"),
    # The model
    "torch_dtype": Moved("dtype"),
    "use_flash_attention_2": Moved(
        "attn_implementation", lambda value: f"attn_implementation: {'flash_attention_2' if value else 'sdpa'}"
    ),
    "gradient_checkpointing_use_reentrant": Moved(
        "activation_checkpointing_kwargs", _within("activation_checkpointing_kwargs", "use_reentrant")
    ),
    "tokenizer": Moved(how=f"{_IN_PYTHON}, as `processing_class`; by default it is the model's"),
    "tokenizer_name_or_path": Moved(how=f"{_IN_PYTHON}, as `processing_class`; by default it is the model's"),
    # All of TRL
    "max_seq_length": Moved("max_length"),
    "use_liger": Moved("use_liger_kernel"),
    "use_liger_loss": Moved("use_liger_kernel"),
    "label_pad_token_id": Moved(how=_BY_COLLATOR),
    "padding_value": Moved(how=_BY_COLLATOR),
    "max_target_length": Moved(how=_BOTH_TOGETHER),
    "is_encoder_decoder": Moved(how="encoder-decoder models are no longer trained"),
    "generate_during_eval": Moved(how="it is gone; a callback can generate"),
    "base_model_attribute_name": Moved(how="it is gone"),
    "sanity_check": Moved(how="it is gone; `max_steps: 10` makes a trial run"),
    # SFT
    "dataset_batch_size": Moved(how="it is gone"),
    "num_of_sequences": Moved(how="it is gone; `packing: true` packs to `max_length`"),
    "chars_per_token": Moved(how="it is gone; `packing: true` packs to `max_length`"),
    "chat_template": (
        Moved("chat_template_path", lambda value: "chat_template_path: FILE.jinja", ("sft", "reward")),
        Moved(how="the tokenizer brings its own", kinds=("dpo", "grpo", "kto", "rloo")),
    ),
    # DPO and KTO
    "max_prompt_length": (
        Moved(how=_NO_PROMPT_LENGTH, kinds=("grpo", "rloo")),
        Moved(how=_BOTH_TOGETHER, kinds=("dpo", "kto", "reward", "sft")),
    ),
    "max_completion_length": Moved(how=_BOTH_TOGETHER, kinds=("dpo", "kto")),
    "truncation_mode": Moved(how="the end is cut", kinds=("kto",)),
    "ref_model_init_kwargs": Moved(how="the reference model is loaded as the model is (`model_init_kwargs`)"),
    "model_adapter_name": Moved(how="the adapter that is trained is the model's own"),
    "ref_adapter_name": Moved(how="without an adapter the model is its own reference"),
    "reference_free": Moved(how="it is gone"),
    "force_use_ref_model": Moved(how=f"{_IN_PYTHON}, as `ref_model`"),
    "rpo_alpha": Moved(
        "loss_type", lambda value: f"loss_type: [sigmoid, sft]` and `loss_weights: [1.0, {written(value)}]", ("dpo",)
    ),
    "tools": Moved(how="tools stand in a column `tools` of the data", kinds=("dpo",)),
    "use_num_logits_to_keep": Moved(how=_ALWAYS_SO),
    "use_logits_to_keep": Moved(how=_ALWAYS_SO),
    "prompt_sample_size": Moved(how="it is gone"),
    "min_density_ratio": Moved(how="it is gone"),
    "max_density_ratio": Moved(how="it is gone"),
    # GRPO and RLOO
    "vllm_device": Moved(
        how="vLLM shares the training GPUs (`vllm_mode: colocate`), or is a server of its own (`vllm_mode: server`)"
    ),
    "vllm_dtype": Moved(how="vLLM takes the model's; a server's is set by `trl vllm-serve --dtype`"),
    "vllm_max_model_len": Moved("vllm_max_model_length", kinds=("grpo", "rloo")),
    "vllm_enable_prefix_caching": Moved(how="a server's is set by `trl vllm-serve --enable_prefix_caching`"),
    "vllm_guided_decoding_regex": Moved("vllm_structured_outputs_regex", kinds=("grpo", "rloo")),
    "wandb_log_unique_prompts": Moved("log_unique_prompts", kinds=("grpo", "rloo")),
    "exp_name": Moved("run_name"),
    "num_mini_batches": Moved("steps_per_generation", kinds=("rloo",)),
    "total_episodes": Moved("max_steps", lambda value: "max_steps: N  # optimizer steps, no longer episodes"),
    "local_rollout_forward_batch_size": Moved(how="it is `per_device_train_batch_size` now"),
    "num_sample_generations": Moved(how="`logging_steps` says how often completions are logged"),
    "response_length": Moved("max_completion_length", kinds=("rloo", "grpo")),
    "stop_token": Moved(how="it is the tokenizer's end-of-sequence token"),
    "stop_token_id": Moved(how="it is the tokenizer's end-of-sequence token"),
    "missing_eos_penalty": Moved(how="give it by a reward function that looks for the end-of-sequence token"),
    "non_eos_penalty": Moved(how="give it by a reward function that looks for the end-of-sequence token"),
    "penalty_reward_value": Moved(how="give it by a reward function that looks for the end-of-sequence token"),
    "reward_model_path": Moved("reward_model_name_or_path", kinds=("rloo", "grpo")),
    "base_model": Moved("model_name_or_path"),
    "sft_model_path": Moved("model_name_or_path"),
    "num_ppo_epochs": Moved("num_iterations", kinds=("rloo", "grpo")),
    "cliprange": Moved("epsilon", kinds=("rloo", "grpo")),
    "kl_coef": Moved("beta", kinds=("rloo", "grpo")),
    "rloo_k": Moved("num_generations", kinds=("rloo",)),
    "normalize_advantage": Moved("normalize_advantages", kinds=("rloo",)),
    "normalize_reward": Moved(
        how="it is gone; `reward_clip_range` and `normalize_advantages` are what there is", kinds=("rloo",)
    ),
    "whiten_rewards": Moved(how="it is gone; `normalize_advantages` is what there is", kinds=("rloo",)),
    "token_level_kl": Moved(how="the KL divergence is that of sequences"),
    "cliprange_value": Moved(how="it is PPO's"),
    "vf_coef": Moved(how="it is PPO's"),
    "gamma": Moved(how="it is PPO's"),
    "lam": Moved(how="it is PPO's"),
    "dataset_num_proc": Moved(how="the data are not prepared beforehand", kinds=("grpo", "rloo")),
}

# Still taken, with a warning: what to write, of the value that is given.
DEPRECATED: dict[str, Moved] = {
    "gradient_checkpointing": Moved("activation_checkpointing"),
    "gradient_checkpointing_kwargs": Moved("activation_checkpointing_kwargs"),
    "use_transformers_paged": Moved("use_transformers_continuous_batching"),
    "vllm_importance_sampling_cap": Moved("vllm_importance_sampling_clip_max"),
}

# What other programs and scripts call an argument.
ELSEWHERE: dict[str, str] = {
    "lr": "learning_rate",
    "peak_lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "scheduler": "lr_scheduler_type",
    "num_warmup_steps": "warmup_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "optimizer": "optim",
    "grad_accum": "gradient_accumulation_steps",
    "clip_grad_norm": "max_grad_norm",
    "model_name": "model_name_or_path",
    "model_id": "model_name_or_path",
    "dataset": "dataset_name",
    "dataset_mixture": "datasets",
    "dataset_mixer": "datasets",
    "dataset_splits": "dataset_train_split",
    "preprocessing_num_workers": "dataset_num_proc",
    "num_proc": "dataset_num_proc",
    "num_samples_per_prompt": "num_generations",
}


def moved(key: str, subject: Subject) -> Moved | None:
    """What became of a key, if it is an old one and what stands for it is there in the installed version."""
    entries = RENAMED.get(key, ())
    for entry in (entries,) if isinstance(entries, Moved) else entries:
        if (not entry.kinds or subject.kind in entry.kinds) and (entry.to is None or entry.to in subject.arguments):
            return entry
    return None


def deprecated(subject: Subject) -> Iterator[Finding]:
    """Keys that still work, but not for long."""
    for key, entry in DEPRECATED.items():
        if key in subject.given and key in subject.arguments and entry.to in subject.arguments:
            yield subject.warning(key, f"is deprecated: {entry.advice(subject.given[key])}")
