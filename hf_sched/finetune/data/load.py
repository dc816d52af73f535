"""Loads a dataset from the hub, a folder or a file, renames its columns, checks its rows and converts them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, IterableDataset, Value, load_dataset
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset

from hf_sched.finetune.data.rows import check_row, check_rows, unreadable_file
from hf_sched.schedules.validation import ArgumentError

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
FINAL_ANSWER = "Reason step by step, and give the final answer as a number after ####."

# The row forms of each trainer, by their columns; the first form whose columns are all there is used. Rows of a form
# with a `question` are converted: by `to_demonstration` (SFT), `to_problem` (GRPO) or `to_preference` (DPO).
DEMONSTRATIONS = (("messages",), ("prompt", "completion"), ("text",), ("question", "answer"))
PROBLEMS = (("prompt",), ("question", "answer"))
PREFERENCES = (("prompt", "chosen", "rejected"), ("question", "chosen", "rejected"), ("chosen", "rejected"))

Row = dict[str, Any]


@dataclass
class ColumnArguments:
    """Arguments for data with other column names or another instruction."""

    columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "The recipe's column names and yours: {question: problem, answer: label}."}
    )

    instruction: str = field(
        default=FINAL_ANSWER,
        metadata={"help": 'Appended to each `question`, but not to a `prompt`; "" for none. The default suits GSM8K.'},
    )

    def __post_init__(self) -> None:
        self.columns = names_of_columns(self.columns, "columns")


def names_of_columns(given: dict[str, str] | str | None, argument: str) -> dict[str, str] | None:
    """Read a mapping from the recipe's column names to those of the data, given as a dict or as YAML.

    Raises:
        ArgumentError: It is not such a mapping.
    """
    names = yaml.safe_load(given) if isinstance(given, str) else given
    if names is not None and (not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values())):
        allowed = "a mapping from the recipe's column names to yours, such as {question: problem, answer: label}"
        raise ArgumentError(argument, allowed, given)
    return names


def load_splits(
    script_args: ScriptArguments, mixture: DatasetMixtureConfig, argument: str = "dataset_name"
) -> Mapping[str, Dataset]:
    """Load the splits, by name, of `dataset_name` (hub name, folder or file) or of the mixture `datasets`.

    `argument` is the user's name for `dataset_name` in error messages.

    Raises:
        ArgumentError: Neither or both are given, or the dataset cannot be loaded.
    """
    name, streaming = script_args.dataset_name, script_args.dataset_streaming
    if bool(name) == bool(mixture.datasets):
        raise ArgumentError(argument, rule="or `datasets` must be given, and not both", received=name)
    if not name:
        return get_dataset(mixture)
    loader, is_file = LOADERS.get(Path(name).suffix), Path(name).is_file()
    allowed = f"a hub name, a folder, or a file that ends in {', '.join(LOADERS)}"
    if bool(loader) != is_file:
        raise ArgumentError(argument, allowed, name, hint="there is no such file" if loader else "")
    try:
        if loader:
            return load_dataset(loader, data_files={script_args.dataset_train_split: name}, streaming=streaming)
        return load_dataset(name, name=script_args.dataset_config, streaming=streaming)
    except Exception as error:
        wrong = unreadable_file(name, argument, error) if loader else None
        raise wrong or ArgumentError(argument, allowed, name, hint=str(error)) from error


def load_rows(
    script_args: ScriptArguments,
    mixture: DatasetMixtureConfig,
    convert: Callable[[Row], Row] | None,
    *,
    evaluating: bool,
    forms: Sequence[Sequence[str]],
    columns: Mapping[str, str] | None = None,
    max_steps: int = -1,
) -> tuple[Dataset, Dataset | None]:
    """Load the training rows and, if the run evaluates, the evaluation rows, checked and converted.

    `max_steps` is the length of the run, required for streamed data. Other arguments are those of `checked_split`.

    Raises:
        ArgumentError: The data cannot be loaded, lack columns, or a row is unusable.
    """
    if script_args.dataset_streaming and max_steps <= 0:
        rule = "needs `max_steps`, because the number of rows is not known in advance"
        raise ArgumentError("dataset_streaming", rule=rule)
    splits = load_splits(script_args, mixture)
    train, test = script_args.dataset_train_split, script_args.dataset_test_split
    read = partial(checked_split, script_args, splits, convert=convert, forms=forms, columns=columns)
    return read(train, "dataset_train_split"), read(test, "dataset_test_split") if evaluating else None


def checked_split(
    script_args: ScriptArguments,
    splits: Mapping[str, Dataset],
    name: str,
    argument: str,
    convert: Callable[[Row], Row] | None,
    *,
    forms: Sequence[Sequence[str]],
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Select a split, rename its columns, check every row, and convert rows with a `question`.

    Streamed rows are checked and converted as they are read. `argument` is the user's name for `name`; `forms` are the
    row forms that the trainer takes (`DEMONSTRATIONS`, `PROBLEMS` or `PREFERENCES`); `columns` maps the recipe's column
    names to those of the data.

    Raises:
        ArgumentError: The split does not exist, lacks columns, or has an unusable row.
    """
    if name not in splits:
        hint = "give a folder with train and test files, or write `eval_strategy: 'no'`" if _file(script_args) else ""
        raise ArgumentError(argument, f"one of {', '.join(splits)}", name, hint)
    rows = _rename(splits[name], columns or {})
    found = columns_of(rows)
    form = next((form for form in forms if set(form) <= set(found)), None)
    source = f"{script_args.dataset_name or 'the data'} ({name})"
    if form is None:
        if "input_ids" in found:
            return rows
        raise _missing_columns(source, found, forms)
    place: dict[str, Any] = {"columns": form, "source": source, "file": _file(script_args)}
    if isinstance(rows, IterableDataset):
        rows = rows.map(check_row, with_indices=True, fn_kwargs=place)
    else:
        check_rows(rows, **place)
    if "question" not in form:
        return rows
    if "answer" in form and rows.features and rows.features["answer"].dtype != "string":
        rows = rows.cast_column("answer", Value("string"))  # otherwise `map` turns answers back into numbers
    return rows.map(convert, remove_columns=found)


def columns_of(rows: Dataset) -> list[str]:
    """Return the column names; those of a streamed file are only known once a row is read."""
    return list(rows.column_names or next(iter(rows), {}))


def _file(script_args: ScriptArguments) -> str | None:
    name = script_args.dataset_name
    return name if name and Path(name).suffix in LOADERS else None


def _missing_columns(source: str, found: Sequence[str], forms: Sequence[Sequence[str]]) -> ArgumentError:
    takes = ", or ".join(dict.fromkeys(" and ".join(f"`{name}`" for name in form) for form in forms))
    example = ", ".join(f"{name}: ..." for name in next((form for form in forms if "question" in form), forms[-1]))
    rule = f"must map your columns: {source} has the columns {', '.join(found)}, but the recipe takes {takes}"
    return ArgumentError("columns", rule=rule, hint=f"write `columns: {{{example}}}`")


def _rename(rows: Dataset, columns: Mapping[str, str]) -> Dataset:
    found = columns_of(rows)
    for name, given in columns.items():
        if given not in found:
            rule = f"has {name}: {given}, but the data have the columns {', '.join(found)}"
            hint = f"write it the other way round, {given}: {name}" if name in found else ""
            raise ArgumentError("columns", rule=rule, hint=hint)
    moved = {given: name for name, given in columns.items() if given != name}
    covered = [name for name in moved.values() if name in found and name not in moved]
    return rows.remove_columns(covered).rename_columns(moved)


def to_demonstration(row: Row, instruction: str = FINAL_ANSWER) -> Row:
    """Convert a question and its worked answer to a chat to imitate, without GSM8K's calculator marks `<<...>>`.

    Examples:
        >>> to_demonstration({"question": "2 + 2?", "answer": "<<2+2=4>>4"}, instruction="")["completion"]
        [{'role': 'assistant', 'content': '4'}]
    """
    return {"prompt": _user(row, instruction), "completion": _assistant(re.sub(r"<<[^>]*>>", "", str(row["answer"])))}


def to_problem(row: Row, instruction: str = FINAL_ANSWER) -> Row:
    """Convert a question and its answer to a prompt and the final answer (after `####`), for GRPO and evaluation.

    Examples:
        >>> to_problem({"question": "2 + 2?", "answer": "It is 4. #### 4"})["answer"]
        '4'
    """
    return {"prompt": _user(row, instruction), "answer": str(row["answer"]).rpartition("####")[2].strip()}


def to_preference(row: Row, instruction: str = FINAL_ANSWER) -> Row:
    """Convert a question with a chosen and a rejected answer to chats, for DPO.

    >>> to_preference({"question": "2 + 2?", "chosen": "4", "rejected": "5"})["rejected"]
    [{'role': 'assistant', 'content': '5'}]
    """
    return {"prompt": _user(row, instruction), **{name: _assistant(row[name]) for name in ("chosen", "rejected")}}


def _user(row: Row, instruction: str) -> list[dict[str, str]]:
    question = row["question"]
    return [{"role": "user", "content": f"{question}\n{instruction}" if instruction else question}]


def _assistant(answer: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
