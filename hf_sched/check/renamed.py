"""Arguments of earlier versions of transformers and TRL and of other programs, and what replaces them.

Compiled from the dataclasses of transformers 4.36 to 4.57 and TRL 0.7 to 1.8, compared with transformers 5.23 and
TRL 1.16. An old key that the installed version still has is deprecated.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

from hf_sched.check.finding import as_yaml

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
fp16_backend half_precision_backend fp16_opt_level | | `bf16` or `fp16` alone set torch's mixed precision
torch_dtype                         | dtype
use_flash_attention_2               | attn_implementation | attn_implementation: flash_attention_2
tokenizer tokenizer_name_or_path    | | the model's tokenizer is the default
max_seq_length                      | max_length
gradient_checkpointing              | activation_checkpointing
gradient_checkpointing_kwargs       | activation_checkpointing_kwargs
chat_template                       | chat_template_path | chat_template_path: FILE.jinja
chat_template                       | | the tokenizer has its own
max_prompt_length                   | | `max_length`, where it exists, limits prompt and completion together
lr peak_lr                          | learning_rate
lr_scheduler scheduler              | lr_scheduler_type
num_warmup_steps                    | warmup_steps
epochs num_epochs                   | num_train_epochs
batch_size micro_batch_size train_batch_size | per_device_train_batch_size
optimizer                           | optim
model_name model_id                 | model_name_or_path
dataset                             | dataset_name
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


def find_renamed(key: str, arguments: Container[str]) -> Renamed | None:
    """The first row for an old key whose replacement, if any, exists in the installed version."""
    return next((row for row in RENAMED.get(key, ()) if not row.to or row.to in arguments), None)
