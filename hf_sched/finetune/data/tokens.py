"""Checks the data with the model's tokenizer before the model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from jinja2 import TemplateError
from transformers import AutoProcessor
from trl.chat_template_utils import get_training_chat_template

from hf_sched.finetune.data.rows import CHATS
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

ROWS = 200  # of the data, which are tokenized
UNKNOWN = 0.01  # share of unknown tokens that is worth a warning


def check_tokens(kind: str, training_args: Any, model_args: Any, rows: Any) -> None:
    """Check that the tokenizer suits the data: chat template, unknown tokens, and prompts that fill `max_length`.

    `kind` is `sft`, `grpo` or `dpo`.

    Raises:
        ArgumentError: There is no tokenizer; chats have no chat template, or one that rejects them or does not mark the
            turns that `assistant_only_loss` trains on; or `max_length` leaves nothing of any row.
    """
    first = list(islice(iter(rows), ROWS))
    processor = _load_processor(training_args, model_args)
    is_chat = any(isinstance(first[0].get(column), list) for column in CHATS)
    # SFT can take the template of another model, which is not known here.
    has_own_template = not getattr(training_args, "chat_template_path", None)
    if is_chat and has_own_template:
        _check_template(processor, hasattr(training_args, "chat_template_path"))
        _check_rendered(processor, first)
    if getattr(training_args, "assistant_only_loss", False) and "input_ids" not in first[0]:
        if not is_chat:
            raise ArgumentError("assistant_only_loss", rule="needs chats, and the data are text")
        if has_own_template:
            _check_assistant_mask(processor)
    columns = ("prompt", "answer") if kind == "grpo" else first[0]
    _warn_of_unknown_tokens(processor, [[row.get(column) for column in columns] for row in first])
    is_all = len(first) < ROWS and all("prompt" in row for row in first)
    if is_all and has_own_template and getattr(training_args, "completion_only_loss", True) is not False:
        _check_max_length(processor, training_args, [row["prompt"] for row in first])


def check_kept_rows(trainer: Any, total: int | None) -> None:
    """Report how many of `total` rows the trainer has dropped because `max_length` left nothing to train on.

    Raises:
        ArgumentError: None is left.
    """
    most, rows = getattr(trainer.args, "max_length", None), trainer.train_dataset
    if total is None or most is None or getattr(trainer.args, "packing", False) or not hasattr(rows, "__len__"):
        return
    dropped = total - len(rows)
    if dropped == total:
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


def _load_processor(training_args: Any, model_args: Any) -> Any:
    options = {"revision": model_args.model_revision, "trust_remote_code": training_args.trust_remote_code}
    try:
        return AutoProcessor.from_pretrained(model_args.model_name_or_path, **options)
    except (OSError, ValueError) as error:
        raise ArgumentError("model_name_or_path", rule="has no tokenizer that loads", hint=str(error)) from error


def _check_template(processor: Any, takes_path: bool) -> None:
    if not processor.chat_template:
        hint = "use the instruction-tuned version of the model, or save a template as chat_template.jinja in its folder"
        hint += ", or set `chat_template_path` to a Jinja file or to a model that has one" if takes_path else ""
        raise ArgumentError("model_name_or_path", rule="has no chat template, and the data are chats", hint=hint)


def _check_rendered(processor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        chat = [turn for name in ("messages", "prompt", "completion", "chosen") for turn in row.get(name) or ()]
        try:
            text = processor.apply_chat_template(chat, tokenize=False)
        except TemplateError as error:
            hint = "correct the roles of the data, or omit the system message"
            rule = f"has a chat template that rejects the chat {str(chat)[:80]!r}: {error}"
            raise ArgumentError("model_name_or_path", rule=rule, hint=hint) from None
        system = chat[0]["content"] if chat[0]["role"] == "system" else ""
        if isinstance(system, str) and system.strip() not in text:
            logger.warning("the model's chat template leaves out the system message %r", system[:80])
            break


def _check_assistant_mask(processor: Any) -> None:
    try:
        get_training_chat_template(processor)
    except ValueError:
        rule = "needs a chat template that marks the assistant's turns with {% generation %}, and the model's does not"
        hint = "use `completion_only_loss: true` to train on the last turn of each chat"
        raise ArgumentError("assistant_only_loss", rule=rule, hint=hint) from None


def _warn_of_unknown_tokens(processor: Any, rows: Sequence[Sequence[Any]]) -> None:
    tokenizer = getattr(processor, "tokenizer", processor)
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


def _check_max_length(processor: Any, training_args: Any, prompts: Sequence[Any]) -> None:
    most = getattr(training_args, "max_length", None)
    is_cut = getattr(training_args, "truncation_mode", "") == "keep_start" and not getattr(
        training_args, "packing", False
    )
    if most is not None and is_cut:
        shortest = min(_prompt_length(processor, prompt) for prompt in prompts)
        if shortest >= most:
            raise no_rows_left(most, len(prompts), hint=f"the shortest prompt has {shortest} tokens")


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
