"""Arguments of earlier versions of transformers and TRL, and what replaces them.

Compiled from the dataclasses of transformers 4.36 to 4.57 and TRL 0.7 to 1.8, compared with transformers 5.23 and
TRL 1.16. An old key that the installed version still has is deprecated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hf_sched.check.context import Subject

# Old keys | new key | what to write (default: the new key with the old value), or why nothing replaces it
_TABLE = """
warmup_ratio                        | warmup_steps | warmup_steps: {value}  # a share of the run if it is below 1
evaluation_strategy                 | eval_strategy
no_cuda                             | use_cpu
overwrite_output_dir                | | `output_dir` is always overwritten; use `resume_from_checkpoint` to continue
logging_dir                         | | set the environment variable TENSORBOARD_LOGGING_DIR
save_safetensors                    | | checkpoints are always safetensors
group_by_length                     | train_sampling_strategy | train_sampling_strategy: group_by_length
adafactor                           | optim | optim: adafactor
fsdp_transformer_layer_cls_to_wrap  | fsdp_config | fsdp_config: {{transformer_layer_cls_to_wrap: {value}}}
dispatch_batches                    | accelerator_config | accelerator_config: {{dispatch_batches: {value}}}
split_batches                       | accelerator_config | accelerator_config: {{split_batches: {value}}}
include_tokens_per_second           | include_num_input_tokens_seen
fp16_backend half_precision_backend fp16_opt_level | | `bf16` or `fp16` alone set torch's mixed precision
torch_dtype                         | dtype
use_flash_attention_2               | attn_implementation | attn_implementation: flash_attention_2
gradient_checkpointing_use_reentrant | activation_checkpointing_kwargs | activation_checkpointing_kwargs: {{use_reentrant: {value}}}
tokenizer tokenizer_name_or_path    | | the model's tokenizer is the default; pass another as `processing_class` in Python
max_seq_length                      | max_length
use_liger use_liger_loss            | use_liger_kernel
base_model sft_model_path           | model_name_or_path
gradient_checkpointing              | activation_checkpointing
gradient_checkpointing_kwargs       | activation_checkpointing_kwargs
chat_template                       | chat_template_path | chat_template_path: FILE.jinja
chat_template                       | | the tokenizer has its own
max_prompt_length                   | | `max_length`, where it exists, limits prompt and completion together
truncation_mode                     | | the end is cut
vllm_device                         | | vLLM shares the training GPUs (`vllm_mode: colocate`) or is a server (`vllm_mode: server`)
vllm_max_model_len                  | vllm_max_model_length
"""  # noqa: E501
# New key | names of the same argument in other programs and scripts
_OTHER_NAMES = """
learning_rate               | lr peak_lr
lr_scheduler_type           | lr_scheduler scheduler
warmup_steps                | num_warmup_steps
num_train_epochs            | epochs num_epochs
per_device_train_batch_size | batch_size micro_batch_size train_batch_size
optim                       | optimizer
gradient_accumulation_steps | grad_accum
max_grad_norm               | clip_grad_norm
model_name_or_path          | model_name model_id
dataset_name                | dataset
datasets                    | dataset_mixture dataset_mixer
dataset_train_split         | dataset_splits
"""


class Renamed(NamedTuple):
    """A row of the table: the new key, if there is one, and what to write or why nothing replaces the old key."""

    to: str
    text: str

    def advice(self, value: Any) -> str:
        """What to write instead of the old key with this value."""
        if not self.to:
            return f"leave it out: {self.text}"
        if value is False and self.text and "{" not in self.text:
            return "leave it out: the default is the same"
        return f"write `{(self.text or self.to + ': {value}').format(value=as_yaml(value))}`"


RENAMED: dict[str, list[Renamed]] = {}
for _line in _TABLE.strip().splitlines():
    _keys, _to, _text = ([part.strip() for part in _line.split("|")] + [""])[:3]
    for _key in _keys.split():
        RENAMED.setdefault(_key, []).append(Renamed(_to, _text))
_pairs = (line.split("|") for line in _OTHER_NAMES.strip().splitlines())
OTHER_NAMES = {other: new.strip() for new, others in _pairs for other in others.split()}


def as_yaml(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    if isinstance(value, float) and "e" in repr(value):  # YAML reads 1e-07 as text and 1.0e-07 as a number
        mantissa, _, exponent = repr(value).partition("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()


def find_renamed(key: str, subject: Subject) -> Renamed | None:
    """The first row for an old key whose replacement, if any, exists in the installed version."""
    return next((row for row in RENAMED.get(key, ()) if not row.to or row.to in subject.arguments), None)
