"""Finds rows that a recipe cannot use before a model is loaded, and names them by file and line or row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

from datasets import Dataset

from hf_sched.finetune.data.conversion import KNOWN_ROLES, ROLES, role_of
from hf_sched.finetune.data.files import place_of_row
from hf_sched.schedules.validation import ArgumentError

CHATS = ("messages", "prompt", "completion", "chosen", "rejected")  # chat messages or, except for the first, text
ANSWERS = ("answer", "completion", "chosen", "rejected")  # numbers become text
OPTIONAL = ("input", "system")
SHOWN = 3  # wrong rows that are named


def check_rows(rows: Dataset, columns: Sequence[str], source: str, files: Sequence[str]) -> None:
    """Check `columns` of every row of `source`, which was read from `files` if they are known.

    Raises:
        ArgumentError: Rows are unusable: how many, and the first three by file and line.
    """
    batches = rows.select_columns(list(columns)).iter(1000)  # several times faster than row by row
    values = (row for batch in batches for row in zip(*(batch[column] for column in columns), strict=True))
    wrong, first = 0, []
    for number, row in enumerate(values):
        if fault := _first_fault(dict(zip(columns, row, strict=True)), columns):
            wrong += 1
            first += [(*fault, number)] if wrong <= SHOWN else []
    if first:
        raise _unusable(wrong, first, source, files)


def check_row(
    row: dict[str, Any], number: int, columns: Sequence[str], source: str, files: Sequence[str]
) -> dict[str, Any]:
    """Check one streamed row, numbered from 0, and return it."""
    if fault := _first_fault(row, columns):
        raise _unusable(1, [(*fault, number)], source, files)
    return row


def _unusable(wrong: int, first: Sequence[tuple[str, str, int]], source: str, files: Sequence[str]) -> ArgumentError:
    """Return the error for a number of rows, of which the first have these columns, faults and numbers."""
    (column, rule), *others = [
        (column, f"{fault} ({place_of_row(number, source, files)})") for column, fault, number in first
    ]
    if others:
        rule += f"; {wrong} rows are wrong, the next: {', '.join(f'`{name}` {fault}' for name, fault in others)}"
    return ArgumentError(column, rule=rule, hint=f"correct or remove the row{'s' if others else ''}")


def _first_fault(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, str] | None:
    faults = ((column, _fault(column, row.get(column))) for column in columns)
    return next(((column, fault) for column, fault in faults if fault), None)


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
