"""The data of a recipe: from the hub, a folder or a file, in the form that its trainer takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
FINAL_ANSWER = "Reason step by step, and give the final answer as a number after ####."

Row = dict[str, Any]


def load_splits(script_args: ScriptArguments, mixture: DatasetMixtureConfig) -> Mapping[str, Dataset]:
    """The splits by name, of `dataset_name` (hub name, folder, or JSON, JSONL, CSV, Parquet file) or of `datasets`.

    Raises:
        ValueError: Neither or both are given, or there is no such file.
    """
    name = script_args.dataset_name
    if bool(name) == bool(mixture.datasets):
        raise ValueError(
            f"give either `dataset_name` or `datasets`, received dataset_name={name!r} and {len(mixture.datasets)} "
            "`datasets`"
        )
    if not name:
        return get_dataset(mixture)
    loader = LOADERS.get(Path(name).suffix)
    if loader:
        if not Path(name).is_file():
            raise ValueError(f"`dataset_name` must be a hub name, a folder or a file, but there is no file {name!r}")
        return load_dataset(loader, data_files={script_args.dataset_train_split: name})
    return load_dataset(name, name=script_args.dataset_config, streaming=script_args.dataset_streaming)


def split(
    splits: Mapping[str, Dataset], name: str, argument: str, convert: Callable[[Row], Row] | None = None
) -> Dataset:
    """One of the splits; rows of question and answer are turned by `convert` into what the trainer takes.

    Raises:
        ValueError: There is no such split; `argument` is what chose its name.
    """
    if name not in splits:
        raise ValueError(f"`{argument}` must be one of {', '.join(splits)}, received {name!r}")
    rows = splits[name]
    columns = rows.column_names or []
    if convert and "prompt" not in columns and {"question", "answer"} <= set(columns):
        return rows.map(convert, remove_columns=columns)
    return rows


def load_rows(
    script_args: ScriptArguments, mixture: DatasetMixtureConfig, convert: Callable[[Row], Row], *, evaluating: bool
) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and, where a run evaluates, those to evaluate on, in the form that `convert` gives them."""
    splits = load_splits(script_args, mixture)
    train = split(splits, script_args.dataset_train_split, "dataset_train_split", convert)
    test = split(splits, script_args.dataset_test_split, "dataset_test_split", convert) if evaluating else None
    return train, test


def to_demonstration(row: Row) -> Row:
    """A question and its worked answer, as a chat to imitate; GSM8K's calculator marks `<<...>>` are left out."""
    worked = re.sub(r"<<[^>]*>>", "", row["answer"])
    return {"prompt": _ask(row["question"]), "completion": [{"role": "assistant", "content": worked}]}


def to_problem(row: Row) -> Row:
    """A question and its final answer, what stands after `####`, as a prompt for GRPO and evaluation."""
    return {"prompt": _ask(row["question"]), "answer": row["answer"].rpartition("####")[2].strip()}


def _ask(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{question}\n{FINAL_ANSWER}"}]
