"""Reads the splits of a dataset from the hub, a folder or a file, with text as it is written."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from datasets import Dataset, Features, IterableDataset, Value, load_dataset, load_dataset_builder
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset

from hf_sched.finetune.data.conversion import as_text
from hf_sched.plan.dataset_size import BUILDERS
from hf_sched.schedules.validation import ArgumentError


def load_splits(
    script_args: ScriptArguments, mixture: DatasetMixtureConfig, argument: str = "dataset_name"
) -> Mapping[str, Dataset]:
    """Load the splits, by name, of `dataset_name` (hub name, folder or file) or of the mixture `datasets`.

    All columns of CSV files are text, as written; only empty cells are missing. `argument` is the user's name for
    `dataset_name` in error messages.

    Raises:
        ArgumentError: Neither or both are given, or the dataset cannot be loaded.
    """
    name = script_args.dataset_name
    if bool(name) == bool(mixture.datasets):
        raise ArgumentError(argument, rule="or `datasets` must be given, and not both", received=name)
    if not name:
        # TRL would split without a seed: differently on each process and in each run.
        return get_dataset(replace(mixture, test_split_size=None))
    builder = BUILDERS.get(Path(name).suffix)
    allowed = f"a hub name, a folder, or a file that ends in {', '.join(BUILDERS)}"
    if bool(builder) != Path(name).is_file():
        raise ArgumentError(argument, allowed, name, hint="there is no such file" if builder else "")
    try:
        files = data_files(script_args)
        options = _csv_options([file for part in files.values() for file in part])
        if builder:
            options["data_files"] = {split: [glob.escape(file) for file in part] for split, part in files.items()}
        config = None if builder else script_args.dataset_config
        splits = load_dataset(builder or name, config, streaming=script_args.dataset_streaming, **options)
    except Exception as error:
        wrong = _unreadable(name, argument, error) if builder else None
        raise wrong or ArgumentError(argument, allowed, name, hint=str(error)) from error
    return {split: _with_text_as_written(rows, files.get(split, ())) for split, rows in splits.items()}


def data_files(script_args: ScriptArguments) -> dict[str, list[str]]:
    """Return the files of each split."""
    name = script_args.dataset_name
    if not name:
        return {}
    if Path(name).suffix in BUILDERS:
        return {script_args.dataset_train_split: [name]}
    found = load_dataset_builder(name, name=script_args.dataset_config).config.data_files or {}
    return {str(split): list(files) for split, files in found.items()}


def columns_of(rows: Dataset) -> list[str]:
    """Return the column names; those of a streamed file are only known once a row is read."""
    return list(rows.column_names or next(iter(rows), {}))


def place_of_row(number: int, source: str, files: Sequence[str]) -> str:
    """Return where a row is: the line of a JSONL file, else its number in `source`. Rows count from 0."""
    for file in files if all(file.endswith(".jsonl") for file in files) else ():
        for line, _ in _json_lines(file):
            if number == 0:
                return f"{file}, line {line}"
            number -= 1
    return f"{source}, row {number + 1}"


def _json_lines(file: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, with their numbers from 1."""
    with open(file, encoding="utf-8-sig") as lines:
        yield from ((line, text) for line, text in enumerate(lines, 1) if text.strip())


def _unreadable(file: str, argument: str, error: Exception) -> ArgumentError:
    """Return the error for a file that `datasets` cannot read, with the line if it is a JSONL file."""
    for line, text in _json_lines(file) if file.endswith(".jsonl") else ():
        rule = f"must hold one JSON object per line: {file}, line {line}"
        try:
            if not isinstance(json.loads(text), dict):
                return ArgumentError(argument, rule=rule, received=text.strip()[:80])
        except json.JSONDecodeError as cause:
            return ArgumentError(argument, rule=f"{rule}, column {cause.colno}: {cause.msg}")
    reason = str(error.__cause__ or error).strip()
    return ArgumentError(argument, rule=f"cannot be read, or has no rows: {file}{': ' if reason else ''}{reason}")


def _csv_options(files: Sequence[str]) -> dict[str, Any]:
    if not files or not all(file.endswith(".csv") for file in files):
        return {}
    first = pd.read_csv(files[0], nrows=1)
    if len(first) and not isinstance(first.index, pd.RangeIndex):  # pandas takes the surplus cells for row names
        raise ValueError("there are more cells in a row than column names; put text with commas between double quotes")
    features = Features({column: Value("string") for column in first.columns})
    return {"features": features, "keep_default_na": False, "na_values": [""]}


def _with_text_as_written(rows: Dataset, files: Sequence[str]) -> Dataset:
    """Read JSON files again where `datasets` took text for dates, or for JSON because a column has several types."""
    types = json.dumps(rows.features.to_dict()) if rows.features else "unknown"
    is_json = bool(files) and all(file.endswith((".jsonl", ".json")) for file in files)
    if not is_json or not re.search(r'unknown|"timestamp|"Json"', types):
        return rows
    if isinstance(rows, IterableDataset):
        given = {"files": list(files), "names": tuple(columns_of(rows))}
        return IterableDataset.from_generator(_json_rows, gen_kwargs=given)
    features = Features.from_dict(json.loads(re.sub(r'"timestamp\[[^"]*\]"', '"string"', types)))
    read = list(_json_rows(files, tuple(features)))
    columns = {name: [row[name] for row in read] for name in features}
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values)
        if is_text and not any(isinstance(value, (list, dict)) for value in values):
            columns[name] = [None if value is None else as_text(value) for value in values]
            features[name] = Value("string")
    return Dataset.from_dict(columns, features=features)


def _json_rows(files: Sequence[str], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the columns `names` of the rows of JSON files: one object per line, or one list of objects."""
    for file in files:
        with open(file, encoding="utf-8-sig") as text:
            is_list = text.read(1) == "["
            text.seek(0)
            rows = json.load(text) if is_list else (json.loads(line) for line in text if line.strip())
            yield from ({name: row.get(name) for name in names} for row in rows)
