"""Finds rows that a recipe cannot use before a model is loaded, and names them by file and line or row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

from datasets import Dataset

from hf_sched.finetune.data.conversion import KNOWN_ROLES, ROLES, role_of
from hf_sched.schedules.validation import ArgumentError

CHATS = ("messages", "prompt", "completion", "chosen", "rejected")  # chat messages or, except for the first, text
ANSWERS = ("answer", "completion", "chosen", "rejected")  # numbers become text
OPTIONAL = ("input", "system")


def check_rows(rows: Dataset, columns: Sequence[str], source: str, files: Sequence[str]) -> None:
    """Check `columns` of every row of `source`, which was read from `files` if they are known.

    Raises:
        ArgumentError: The first unusable row, by file and line.
    """
    batches = rows.select_columns(list(columns)).iter(1000)  # several times faster than row by row
    values = (row for batch in batches for row in zip(*(batch[column] for column in columns), strict=True))
    for number, row in enumerate(values):
        check_row(dict(zip(columns, row, strict=True)), number, columns, source, files)


def check_row(
    row: dict[str, Any], number: int, columns: Sequence[str], source: str, files: Sequence[str]
) -> dict[str, Any]:
    """Check one row, numbered from 0, as `check_rows` does, and return it."""
    for column in columns:
        if fault := _fault(column, row.get(column)):
            rule = f"{fault} ({_place(number, source, files)})"
            raise ArgumentError(column, rule=rule, hint="correct or remove the row")
    return row


def unreadable_file(file: str, argument: str, error: Exception) -> ArgumentError:
    """Return the error for a file that `datasets` cannot read, with the line if it is a JSONL file."""
    for line, text in json_lines(file) if file.endswith(".jsonl") else ():
        rule = f"must hold one JSON object per line: {file}, line {line}"
        try:
            if not isinstance(json.loads(text), dict):
                return ArgumentError(argument, rule=rule, received=text.strip()[:80])
        except json.JSONDecodeError as cause:
            return ArgumentError(argument, rule=f"{rule}, column {cause.colno}: {cause.msg}")
    reason = str(error.__cause__ or error).strip()
    return ArgumentError(argument, rule=f"cannot be read, or has no rows: {file}{': ' if reason else ''}{reason}")


def json_lines(file: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, with their numbers from 1."""
    with open(file, encoding="utf-8-sig") as lines:
        yield from ((line, text) for line, text in enumerate(lines, 1) if text.strip())


def json_rows(files: Sequence[str], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the columns `names` of the rows of JSON files: one object per line, or one list of objects."""
    for file in files:
        with open(file, encoding="utf-8-sig") as text:
            is_list = text.read(1) == "["
            text.seek(0)
            rows = json.load(text) if is_list else (json.loads(line) for line in text if line.strip())
            yield from ({name: row.get(name) for name in names} for row in rows)


def _fault(column: str, value: Any) -> str | None:
    received = f"received {str(value)[:80]!r}"
    if value is None:
        return None if column in OPTIONAL else "is missing"
    if isinstance(value, str) and column != "messages":
        return None if value.strip() or column in OPTIONAL else "is empty"
    if column in ANSWERS and isinstance(value, Number):
        is_exact = not isinstance(value, float) or abs(value) < 2**53
        return None if is_exact else f"must be text, in quotes, because the number is too long to be exact, {received}"
    if column not in CHATS:
        return f"must be text, {received}"
    if not isinstance(value, list):
        return f"must be {'' if column == 'messages' else 'text or '}chat messages, {received}"
    return _fault_of_chat(column, value) if value else "is empty"


def _fault_of_chat(column: str, messages: Sequence[Any]) -> str | None:
    role = None
    for message in messages:
        shown = f"but has the message {str(message)[:80]!r}"
        if not isinstance(message, Mapping):
            return f"must be chat messages with `role` and `content`, {shown}"
        role, content = role_of(message), message.get("content")
        content = message.get("value") if content is None else content
        is_content = isinstance(content, (str, list)) or (content is None and message.get("tool_calls"))
        if not is_content or not isinstance(role, str):
            return f"must be chat messages with `role` and `content`, {shown}"
        if not message.get("role") and role not in KNOWN_ROLES:
            return f"must have the roles {', '.join((*KNOWN_ROLES, *ROLES))}, {shown}"
    if column != "prompt" and role != "assistant":
        return f"must end with a turn of the assistant, but ends with one of {role!r}"
    return None


def _place(number: int, source: str, files: Sequence[str]) -> str:
    for file in files if all(file.endswith(".jsonl") for file in files) else ():
        for line, _ in json_lines(file):
            if number == 0:
                return f"{file}, line {line}"
            number -= 1
    return f"{source}, row {number + 1}"
