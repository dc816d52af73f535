"""Finds rows that a recipe cannot use before a model is loaded, and names them by file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_sched.schedules.validation import ArgumentError

CHATS = ("messages", "prompt", "completion", "chosen", "rejected")  # chat messages or, except for the first, text


class RowError(ArgumentError):
    """An unusable row: "data.jsonl, line 3: `answer` is missing; correct or remove the row".

    Args:
        place: The file and line, or the dataset and row.
        column: The column at fault.
        rule: What is wrong with it.
    """

    def __init__(self, place: str, column: str, rule: str) -> None:
        super().__init__(column, rule=rule, hint="correct or remove the row")
        self.args = (place, column, rule)  # so that the error can be pickled
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {super().__str__()}"


def check_rows(rows: Dataset, columns: Sequence[str], source: str, file: str | None) -> None:
    """Check `columns` of every row.

    Args:
        rows: All rows, in order.
        columns: The columns, by the recipe's names.
        source: The name of the data.
        file: The file the rows were read from, if any.

    Raises:
        RowError: The first unusable row.
    """
    number = 0
    for batch in rows.select_columns(list(columns)).iter(1000):  # several times faster than row by row
        for values in zip(*(batch[column] for column in columns), strict=True):
            check_row(dict(zip(columns, values, strict=True)), number, columns, source, file)
            number += 1


def check_row(
    row: Mapping[str, Any], number: int, columns: Sequence[str], source: str, file: str | None = None
) -> None:
    """Check one row, numbered from 0, as `check_rows` does."""
    for column in columns:
        if fault := _fault(column, row.get(column)):
            raise RowError(_place(number, source, file), column, fault)


def unreadable_file(file: str, argument: str, error: Exception) -> ArgumentError:
    """Return the error for a file that `datasets` cannot read, with the line if it is a JSONL file."""
    if Path(file).suffix == ".jsonl":
        for line, text in _lines(file):
            try:
                row = json.loads(text)
            except json.JSONDecodeError as cause:
                where = f"{file}, line {line}, column {cause.colno}"
                return ArgumentError(argument, rule=f"must hold one JSON object per line: {where}: {cause.msg}")
            if not isinstance(row, dict):
                rule = f"must hold one JSON object per line: {file}, line {line}"
                return ArgumentError(argument, rule=rule, received=text.strip()[:80])
    return ArgumentError(argument, rule=f"cannot be read: {file}: {error.__cause__ or error}")


def _fault(column: str, value: Any) -> str | None:
    if value is None:
        return "is missing"
    if column in CHATS and not isinstance(value, str):
        return _chat_fault(value)
    if column == "answer" and isinstance(value, Number):
        return None
    if not isinstance(value, str) or column == "messages":
        return f"must be {'chat messages' if column == 'messages' else 'text'}, received {str(value)[:80]!r}"
    return None if value.strip() else "is empty"


def _chat_fault(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be text or chat messages, received {str(value)[:80]!r}"
    if not value:
        return "is empty"
    for message in value:
        has_content = isinstance(message, dict) and (message.get("content") is not None or message.get("tool_calls"))
        if not has_content or not isinstance(message.get("role"), str):
            return f"must be chat messages with `role` and `content`, but has the message {str(message)[:80]!r}"
    return None


def _place(number: int, source: str, file: str | None) -> str:
    if file and Path(file).suffix in (".jsonl", ".csv"):
        lines = _lines(file) if Path(file).suffix == ".jsonl" else _records(file)
        for place, (line, _) in enumerate(lines):
            if place == number:
                return f"{file}, line {line}"
    return f"{source}, row {number + 1}"


def _lines(file: str) -> Iterator[tuple[int, str]]:
    with open(file, encoding="utf-8") as lines:
        yield from ((line, text) for line, text in enumerate(lines, 1) if text.strip())


def _records(file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV file after its header, with the line on which each begins."""
    with open(file, encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader, None)
        begins = reader.line_num + 1
        for record in reader:
            if record:
                yield begins, record
            begins = reader.line_num + 1
