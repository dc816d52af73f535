"""Finds rows that a recipe cannot use before a model is loaded, and names them by file and line or row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from numbers import Number
from typing import Any

from datasets import Dataset

from hf_sched.schedules.validation import ArgumentError

CHATS = ("messages", "prompt", "completion", "chosen", "rejected")  # chat messages or, except for the first, text


def check_rows(rows: Dataset, columns: Sequence[str], source: str, file: str | None) -> None:
    """Check `columns` of every row of `source`, which was read from `file` if that is given.

    Raises:
        ArgumentError: The first unusable row, by file and line.
    """
    batches = rows.select_columns(list(columns)).iter(1000)  # several times faster than row by row
    values = (row for batch in batches for row in zip(*(batch[column] for column in columns), strict=True))
    for number, row in enumerate(values):
        check_row(dict(zip(columns, row, strict=True)), number, columns, source, file)


def check_row(
    row: dict[str, Any], number: int, columns: Sequence[str], source: str, file: str | None
) -> dict[str, Any]:
    """Check one row, numbered from 0, as `check_rows` does, and return it."""
    for column in columns:
        if fault := _fault(column, row.get(column)):
            rule = f"{fault} ({_place(number, source, file)})"
            raise ArgumentError(column, rule=rule, hint="correct or remove the row")
    return row


def unreadable_file(file: str, argument: str, error: Exception) -> ArgumentError:
    """Return the error for a file that `datasets` cannot read, with the line if it is a JSONL file."""
    for line, text in _lines(file) if file.endswith(".jsonl") else ():
        rule = f"must hold one JSON object per line: {file}, line {line}"
        try:
            if not isinstance(json.loads(text), dict):
                return ArgumentError(argument, rule=rule, received=text.strip()[:80])
        except json.JSONDecodeError as cause:
            return ArgumentError(argument, rule=f"{rule}, column {cause.colno}: {cause.msg}")
    return ArgumentError(argument, rule=f"cannot be read: {file}: {error.__cause__ or error}")


def _fault(column: str, value: Any) -> str | None:
    received = f"received {str(value)[:80]!r}"
    if value is None:
        return "is missing"
    if isinstance(value, str) and column != "messages":
        return None if value.strip() else "is empty"
    if column not in CHATS:
        return None if column == "answer" and isinstance(value, Number) else f"must be text, {received}"
    if not isinstance(value, list):
        return f"must be {'' if column == 'messages' else 'text or '}chat messages, {received}"
    if not value:
        return "is empty"
    for message in value:
        has_content = isinstance(message, dict) and (message.get("content") is not None or message.get("tool_calls"))
        if not has_content or not isinstance(message.get("role"), str):
            return f"must be chat messages with `role` and `content`, but has the message {str(message)[:80]!r}"
    return None


def _place(number: int, source: str, file: str | None) -> str:
    if file and file.endswith(".jsonl"):
        line, _ = next(islice(_lines(file), number, None))
        return f"{file}, line {line}"
    return f"{source}, row {number + 1}"


def _lines(file: str) -> Iterator[tuple[int, str]]:
    with open(file, encoding="utf-8") as lines:
        yield from ((line, text) for line, text in enumerate(lines, 1) if text.strip())
