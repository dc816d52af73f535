"""Keys: unknown, misspelt, repeated, of another trainer, or of earlier versions and other programs.

The table of old keys was compiled from the dataclasses of transformers 4.36 to 4.57 and TRL 0.7 to 1.8, compared with
transformers 5.24 and TRL 1.16. An old key that the installed version still has is deprecated.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from hf_sched.check.finding import Finding, as_yaml
from hf_sched.check.subject import Subject
from hf_sched.plan.processes import LAUNCH_KEYS
from hf_sched.plan.training_config import arguments_of, kinds_with

# Keys for TRL's parser, which sets environment variables, and for the launcher of the command `trl`.
_KEYS_OF_TRL = ("env", *LAUNCH_KEYS)
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


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Find repeated, unknown, misspelt, renamed and removed keys, and keys of another kind of trainer."""
    for key, lines in subject.lines.items():
        if len(lines) > 1:  # a YAML loader silently takes the last one
            places = ", ".join(map(str, lines))
            yield subject.error(key, f"is set {len(lines)} times (lines {places}), the last one counts: keep one")
    allowed = subject.allowed or ()
    known = {*subject.config.fields, *allowed, *(_KEYS_OF_TRL if subject.config.kind != "trainer" else ())}
    for key, value in subject.config.given.items():
        renamed = find_renamed(key, subject.config.fields)
        if key not in known:
            yield _unknown(key, subject)
        elif renamed and renamed.to and key not in allowed and key in arguments_of(subject.config.kind):
            yield subject.warning(key, f"is deprecated: {renamed.advice(value)}")


def _unknown(key: str, subject: Subject) -> Finding:
    kind, others, renamed = _called(subject.config.kind), kinds_with(key), find_renamed(key, subject.config.fields)
    rule = f"is not an argument of {kind}"
    if renamed is not None:
        is_set = f"leave it out, `{renamed.to}` is set"
        advice = is_set if renamed.to in subject.config.given else renamed.advice(subject.config.given[key])
        return subject.error(key, f"{rule}: {advice}")
    if similar := difflib.get_close_matches(key.replace("-", "_"), subject.config.fields, n=1, cutoff=0.8):
        return subject.error(key, f"{rule}: did you mean `{similar[0]}`?")
    if subject.config.kind == "trainer":
        return subject.warning(key, f"{rule}: fine (`--allow {key}`) if your script takes it")
    remedy = f"`--allow {key}` if your script takes it"
    if others:
        rule = f"is an argument of {' and '.join(map(_called, others[:3]))}, not of {kind}"
        remedy = f"check with `--kind {others[0]}`"
    else:
        rule = f"{rule} or of TRL's script"
    return subject.error(key, f"{rule}: leave it out{'' if subject.allowed is None else f', or {remedy}'}")


def _called(kind: str) -> str:
    return {"trainer": "TrainingArguments", "reward": "the reward trainer"}.get(kind, kind.upper())
