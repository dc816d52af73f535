"""Checks the data with the model's tokenizer before the model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from transformers import AutoProcessor
from trl.chat_template_utils import get_training_chat_template

from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

ROWS = 200  # of the data, which are tokenized
UNKNOWN = 0.01  # share of unknown tokens that is worth a warning


def check_tokens(kind: str, training_args: Any, model_args: Any, rows: Any) -> None:
    """Check that the tokenizer suits the data: chat template, unknown tokens, and prompts that fill `max_length`.

    `kind` is `sft`, `grpo` or `dpo`.

    Raises:
        ArgumentError: Chats without a chat template, a loss on assistant turns that the template does not mark, or
            `max_length` leaves nothing of any row.
    """
    first = list(islice(iter(rows), ROWS))
    name, template = model_args.model_name_or_path, getattr(training_args, "chat_template_path", None)
    options = {"revision": model_args.model_revision, "trust_remote_code": training_args.trust_remote_code}
    processor = AutoProcessor.from_pretrained(name, **options)
    tokenizer = getattr(processor, "tokenizer", processor)
    if any(isinstance(value, list) and value and isinstance(value[0], Mapping) for value in first[0].values()):
        if not template and not processor.chat_template:
            hint = "use the instruction-tuned version of the model, or save a template in its tokenizer's folder as "
            hint += "chat_template.jinja"
            if hasattr(training_args, "chat_template_path"):
                hint += ", or set `chat_template_path` to a Jinja file or to a model that has one"
            raise ArgumentError("model_name_or_path", rule="has no chat template, and the data are chats", hint=hint)
        if getattr(training_args, "assistant_only_loss", False) and not template:
            _check_assistant_mask(processor)
    elif getattr(training_args, "assistant_only_loss", False) and "input_ids" not in first[0]:
        raise ArgumentError("assistant_only_loss", rule="needs chats, and the data are text")
    names = ("prompt", "answer") if kind == "grpo" else first[0]
    _warn_of_unknown_tokens(tokenizer, [[row.get(name) for name in names] for row in first])
    is_cut = getattr(training_args, "truncation_mode", "") == "keep_start" and not getattr(
        training_args, "packing", False
    )
    most = getattr(training_args, "max_length", None)
    if is_cut and most and len(first) < ROWS and not template and all("prompt" in row for row in first):
        shortest = min(_prompt_length(processor, row["prompt"]) for row in first)
        if shortest >= most and getattr(training_args, "completion_only_loss", True) is not False:
            raise no_rows_left(most, len(first), hint=f"the shortest prompt has {shortest} tokens")


def check_kept_rows(trainer: Any, total: int | None) -> None:
    """Report how many of `total` rows the trainer has dropped because `max_length` left nothing to train on.

    Raises:
        ArgumentError: None is left.
    """
    args = trainer.args
    most = getattr(args, "max_length", None)
    if (
        total is None
        or most is None
        or getattr(args, "packing", False)
        or not hasattr(trainer.train_dataset, "__len__")
    ):
        return
    dropped = total - len(trainer.train_dataset)
    if dropped and dropped == total:
        raise no_rows_left(most, total)
    if dropped > 0:
        logger.warning(
            "max_length %d drops %d of %d rows: their prompts alone fill it, and nothing is left to train on",
            *(most, dropped, total),
        )


def no_rows_left(max_length: int, total: int, hint: str = "") -> ArgumentError:
    """Return the error for a `max_length` that leaves nothing to train on."""
    rule = f"is too small: the prompts of all {total} rows fill it, and nothing is left to train on"
    return ArgumentError("max_length", rule=rule, received=max_length, hint=hint or "increase it")


def _check_assistant_mask(processor: Any) -> None:
    try:
        get_training_chat_template(processor)
    except ValueError:
        rule = "needs a chat template that marks the assistant's turns with {% generation %}, and the model's does not"
        hint = "use `completion_only_loss: true` to train on the last turn of each chat"
        raise ArgumentError("assistant_only_loss", rule=rule, hint=hint) from None


def _warn_of_unknown_tokens(tokenizer: Any, rows: Sequence[Sequence[Any]]) -> None:
    if tokenizer.unk_token_id is None:
        return
    texts = [text for row in rows for text in _texts(row)]
    tokens = [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    unknown = tokens.count(tokenizer.unk_token_id)
    if unknown > UNKNOWN * len(tokens):
        logger.warning(
            "%.0f%% of the tokens of the first %d rows are unknown to the tokenizer (%s): the model can neither read "
            "nor write this text. Check the data, `instruction` and `system_prompt`, or use another model",
            *(100 * unknown / len(tokens), len(rows), tokenizer.unk_token),
        )


def _texts(row: Sequence[Any]) -> list[str]:
    texts = []
    for value in row:
        parts = value if isinstance(value, list) else [value]
        texts += [part.get("content") if isinstance(part, Mapping) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]


def _prompt_length(processor: Any, prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(processor(text=prompt)["input_ids"])
    text = processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return len(getattr(processor, "tokenizer", processor)(text, add_special_tokens=False)["input_ids"])
