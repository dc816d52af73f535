"""Rows that a recipe cannot use, found before a model is loaded and named by the line they are in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

from datasets import Dataset

CHATS = ("messages", "prompt", "completion")  # chat messages, or, but for the first, text


def check_rows(rows: Dataset, columns: Sequence[str], source: str, file: str | None) -> None:
    """Raise a ValueError that names the first row where a column is not what it must be.

    Args:
        rows: All rows, in order.
        columns: What is looked at, by the names the recipe gives.
        source: What the data are called.
        file: The file they are from, if they are from one.
    """
    number = 0
    for batch in rows.select_columns(list(columns)).iter(1000):  # several times as fast as row by row
        for values in zip(*(batch[column] for column in columns), strict=True):
            check_row(dict(zip(columns, values, strict=True)), number, columns, source, file)
            number += 1


def check_row(
    row: Mapping[str, Any], number: int, columns: Sequence[str], source: str, file: str | None = None
) -> None:
    """As `check_rows`, of one row, the first being 0."""
    for column in columns:
        fault = _fault(column, row.get(column))
        if fault:
            raise ValueError(f"{_place(number, source, file)}: `{column}` {fault}: correct the row or leave it out")


def check_file(file: str, error: Exception) -> None:
    """Raise a ValueError that says why a file could not be read, with its line where that can be told."""
    if Path(file).suffix == ".jsonl":
        _refuse_bad_lines(file)
    raise ValueError(f"{file} cannot be read: {error.__cause__ or error}") from error


def _refuse_bad_lines(file: str) -> None:
    for line, text in _lines(file):
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {line}: no JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {line}: must be a mapping of columns, received {text.strip()[:80]!r}")


def _fault(column: str, value: Any) -> str | None:
    if value is None:
        return "is missing"
    if column in CHATS and not isinstance(value, str):
        return _fault_of_chat(value)
    if column == "answer" and isinstance(value, Number):
        return None
    if not isinstance(value, str) or column == "messages":
        return f"must be {'chat messages' if column == 'messages' else 'text'}, received {str(value)[:80]!r}"
    return None if value.strip() else "is empty"


def _fault_of_chat(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be text or chat messages, received {str(value)[:80]!r}"
    if not value:
        return "is empty"
    for message in value:
        said = isinstance(message, dict) and (message.get("content") is not None or message.get("tool_calls"))
        if not said or not isinstance(message.get("role"), str):
            return f"must be chat messages (`role`, `content`), received {str(message)[:80]!r} in it"
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
    """The records of a CSV file behind its header, with the line each begins in."""
    with open(file, encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader, None)
        begins = reader.line_num + 1
        for record in reader:
            if record:
                yield begins, record
            begins = reader.line_num + 1
