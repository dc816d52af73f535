"""The data of a recipe: from the hub, a folder or a file, in the form that its trainer takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, IterableDataset, Value, load_dataset
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset

from hf_sched.finetune.data.rows import check_file, check_row, check_rows

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
FINAL_ANSWER = "Reason step by step, and give the final answer as a number after ####."

# What rows may be made of; the last is what a question of one's own is most likely to be.
DEMONSTRATIONS = (("messages",), ("prompt", "completion"), ("text",), ("question", "answer"))
PROBLEMS = (("prompt",), ("question", "answer"))

Row = dict[str, Any]


@dataclass
class ColumnArguments:
    """What columns are called, and what is asked with a question."""

    columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "The recipe's names of columns, and yours: {question: problem, answer: label}."}
    )

    instruction: str = field(
        default=FINAL_ANSWER,
        metadata={"help": 'Put below each `question`, not below a `prompt`; "" for nothing. By default for GSM8K.'},
    )

    def __post_init__(self) -> None:
        self.columns = names_of_columns(self.columns, "columns")


def names_of_columns(given: dict[str, str] | str | None, argument: str) -> dict[str, str] | None:
    """A mapping of the recipe's names to the data's, given as one or as YAML.

    Raises:
        ValueError: It is none.
    """
    names = yaml.safe_load(given) if isinstance(given, str) else given
    if names is not None and (not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values())):
        raise ValueError(
            f"`{argument}` must give each of the recipe's names yours, for example "
            f"{{question: problem, answer: label}}, received {given!r}"
        )
    return names


def load_splits(
    script_args: ScriptArguments, mixture: DatasetMixtureConfig, argument: str = "dataset_name"
) -> Mapping[str, Dataset]:
    """The splits by name, of `dataset_name` (hub name, folder, or JSON, JSONL, CSV, Parquet file) or of `datasets`.

    `argument` is what the user calls the first.

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
            raise ValueError(f"`{argument}` must be a hub name, a folder or a file, but there is no file {name!r}")
        try:
            return load_dataset(
                loader, data_files={script_args.dataset_train_split: name}, streaming=script_args.dataset_streaming
            )
        except Exception as error:
            check_file(name, error)
    try:
        if Path(name).is_file():
            raise FileNotFoundError(f"it is a file that ends in {Path(name).suffix or 'nothing'!r}")
        return load_dataset(name, name=script_args.dataset_config, streaming=script_args.dataset_streaming)
    except OSError as error:  # there is none on the hub, or no way to it, or the folder is empty
        kinds = ", ".join(LOADERS)
        raise ValueError(
            f"`{argument}` must be a hub name, a folder, or a file that ends in {kinds}, received {name!r}: {error}"
        ) from error


def split(
    splits: Mapping[str, Dataset],
    name: str,
    argument: str,
    convert: Callable[[Row], Row] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """One of the splits, its columns renamed; rows of question and answer become, by `convert`, what the trainer takes.

    Raises:
        ValueError: There is no such split, `argument` being what chose its name, or it lacks a column.
    """
    if name not in splits:
        raise ValueError(f"`{argument}` must be one of {', '.join(splits)}, received {name!r}")
    rows = _rename(splits[name], columns or {})
    found = columns_of(rows)
    if convert and "prompt" not in found and {"question", "answer"} <= set(found):
        if rows.features and rows.features["answer"].dtype != "string":
            rows = rows.cast_column("answer", Value("string"))  # `map` would make numbers of answers again
        return rows.map(convert, remove_columns=found)
    return rows


def load_rows(
    script_args: ScriptArguments,
    mixture: DatasetMixtureConfig,
    convert: Callable[[Row], Row],
    *,
    evaluating: bool,
    columns: Mapping[str, str] | None = None,
    forms: Sequence[Sequence[str]] = (),
    max_steps: int = -1,
) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and, where a run evaluates, those to evaluate on, in the form that the trainer takes.

    Args:
        script_args: Where they are.
        mixture: Where they are, if in several places.
        convert: What turns a question and its answer into that form.
        evaluating: Whether a run evaluates.
        columns: The recipe's names of columns, and what they are called in the data.
        forms: The columns, by the recipe's names, of which one set must be there; each row is checked for them.
        max_steps: The length of the run, which streamed data need to be given.

    Raises:
        ValueError: There are no such data, or a row is not what it must be.
    """
    if script_args.dataset_streaming and max_steps <= 0:
        raise ValueError("`dataset_streaming` needs `max_steps`: how many rows there are is known only at the end")
    splits = dict(load_splits(script_args, mixture))
    wanted = {"dataset_train_split": script_args.dataset_train_split}
    if evaluating:
        wanted["dataset_test_split"] = script_args.dataset_test_split
        if _file(script_args) and wanted["dataset_test_split"] not in splits:
            raise ValueError(
                f"`eval_strategy` needs rows to evaluate on, but {script_args.dataset_name!r} is one file: give as "
                '`dataset_name` a folder that holds train and test files, or write `eval_strategy: "no"`'
            )
    loaded = [
        checked_split(script_args, splits, name, argument, convert, columns=columns, forms=forms)
        for argument, name in wanted.items()
    ]
    return loaded[0], loaded[1] if evaluating else None


def checked_split(
    script_args: ScriptArguments,
    splits: Mapping[str, Dataset],
    name: str,
    argument: str,
    convert: Callable[[Row], Row],
    *,
    columns: Mapping[str, str] | None,
    forms: Sequence[Sequence[str]],
) -> Dataset:
    """As `split`, each row checked for one of `forms`, as `load_rows` says."""
    renamed = split(splits, name, argument, columns=columns)
    checked = _check(renamed, forms, f"{script_args.dataset_name or 'the data'} ({name})", _file(script_args))
    return split({name: checked}, name, argument, convert)


def _check(rows: Dataset, forms: Sequence[Sequence[str]], source: str, file: str | None) -> Dataset:
    found = columns_of(rows)
    form = next((form for form in forms if set(form) <= set(found)), None)
    if form is None:
        if not forms or "input_ids" in found:
            return rows
        takes = ", or ".join(dict.fromkeys(" and ".join(f"`{name}`" for name in form) for form in forms))
        likely = found if len(found) == len(forms[-1]) else ["..."] * len(forms[-1])
        example = ", ".join(f"{name}: {given}" for name, given in zip(forms[-1], likely, strict=True))
        raise ValueError(
            f"{source} has the columns {', '.join(found)}; the recipe takes {takes}. Say which is which: `columns: "
            f"{{{example}}}`"
        )
    if isinstance(rows, IterableDataset):
        return rows.map(_checked, with_indices=True, fn_kwargs={"columns": form, "source": source, "file": file})
    check_rows(rows, form, source, file)
    return rows


def _checked(row: Row, number: int, columns: Sequence[str], source: str, file: str | None) -> Row:
    check_row(row, number, columns, source, file)
    return row


def _rename(rows: Dataset, columns: Mapping[str, str]) -> Dataset:
    found = columns_of(rows)
    for name, given in columns.items():
        if given not in found:
            turned = f": write it the other way round, {given}: {name}" if name in found else ""
            raise ValueError(
                f"`columns` says {name}: {given}, but the data have the columns {', '.join(found)}{turned}"
            )
    moved = {given: name for name, given in columns.items() if given != name}
    covered = [name for name in moved.values() if name in found and name not in moved]
    rows = rows.remove_columns(covered) if covered else rows
    return rows.rename_columns(moved) if moved else rows


def columns_of(rows: Dataset) -> list[str]:
    """The names of the columns, which a streamed file gives only when it is read."""
    return list(rows.column_names or next(iter(rows), {}))


def _file(script_args: ScriptArguments) -> str | None:
    name = script_args.dataset_name
    return name if name and Path(name).suffix in LOADERS else None


def to_demonstration(row: Row, instruction: str = FINAL_ANSWER) -> Row:
    """A question and its worked answer, as a chat to imitate; GSM8K's calculator marks `<<...>>` are left out."""
    worked = re.sub(r"<<[^>]*>>", "", str(row["answer"]))
    return {"prompt": _ask(row["question"], instruction), "completion": [{"role": "assistant", "content": worked}]}


def to_problem(row: Row, instruction: str = FINAL_ANSWER) -> Row:
    """A question and its final answer, what stands after `####`, as a prompt for GRPO and evaluation."""
    final = str(row["answer"]).rpartition("####")[2].strip()
    return {"prompt": _ask(row["question"], instruction), "answer": final}


def _ask(question: str, instruction: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{question}\n{instruction}" if instruction else question}]
