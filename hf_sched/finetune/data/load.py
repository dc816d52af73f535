"""Loads a dataset from the hub, a folder or a file, checks its rows, splits it and converts them."""

from __future__ import annotations

import glob
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd  # type: ignore[import-untyped]
import yaml
from datasets import Dataset, Features, IterableDataset, Value, load_dataset, load_dataset_builder
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset

from hf_sched.finetune.data.conversion import (
    FINAL_ANSWER,
    GIVEN,
    TARGETS,
    Conversion,
    Target,
    as_text,
    looks_like_gsm8k,
    sft_target,
)
from hf_sched.finetune.data.rows import OPTIONAL, check_row, check_rows, json_rows, unreadable_file
from hf_sched.schedules.validation import TEXT, ArgumentError, Number

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
SPLIT_SEED = 0  # of `test_split_size`: fixed, so that runs with other seeds and evaluations hold out the same rows
ROWS = 100  # whose answers are looked at
# Columns of ShareGPT and Alpaca, by the recipe's names; used if the recipe's own are missing.
KNOWN_COLUMNS = {"messages": "conversations", "question": "instruction", "answer": "output"}
# Names in use for questions and answers, to suggest `columns`.
USUAL_NAMES = {
    "question": ("question", "problem", "instruction", "query", "prompt", "input"),
    "answer": ("answer", "solution", "output", "response", "completion", "target", "label"),
}
FOR_THE_TEMPLATE = ("tools", "chat_template_kwargs", "image", "images")  # columns that TRL reads in all rows


@dataclass
class ColumnArguments:
    """Arguments for data with other column names, an instruction or a system prompt."""

    columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "The recipe's column names and yours: {question: problem, answer: label}."}
    )
    instruction: str | None = field(
        default=None,
        metadata={
            "help": "Appended to each `question`, but not to a `prompt`. By default GSM8K's where the answers look "
            'like GSM8K\'s, and none for other data; "" for none.'
        },
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "System message of every chat that does not begin with its own."}
    )

    def __post_init__(self) -> None:
        self.columns = names_of_columns(self.columns, "columns")
        for name in ("instruction", "system_prompt"):
            if getattr(self, name) is not None:
                TEXT(name, getattr(self, name))


class LoadedRows(NamedTuple):
    """The rows of a run."""

    train: Dataset
    evaluation: Dataset | None
    instruction: str | None
    """The instruction below each question; None lets an evaluation decide."""
    description: str
    """What the run uses of the data, in words."""


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

    All columns of CSV files are text, as written; only empty cells are missing. `argument` is the user's name for
    `dataset_name` in error messages.

    Raises:
        ArgumentError: Neither or both are given, or the dataset cannot be loaded.
    """
    name, streaming = script_args.dataset_name, script_args.dataset_streaming
    if bool(name) == bool(mixture.datasets):
        raise ArgumentError(argument, rule="or `datasets` must be given, and not both", received=name)
    if not name:
        # TRL would split without a seed: differently on each process and in each run.
        return get_dataset(replace(mixture, test_split_size=None))
    loader, is_file = LOADERS.get(Path(name).suffix), Path(name).is_file()
    allowed = f"a hub name, a folder, or a file that ends in {', '.join(LOADERS)}"
    if bool(loader) != is_file:
        raise ArgumentError(argument, allowed, name, hint="there is no such file" if loader else "")
    try:
        files = data_files(script_args)
        options = _csv_options([file for part in files.values() for file in part], argument)
        if loader:
            paths = {split: [glob.escape(file) for file in part] for split, part in files.items()}
            splits = load_dataset(loader, data_files=paths, streaming=streaming, **options)
        else:
            splits = load_dataset(name, name=script_args.dataset_config, streaming=streaming, **options)
    except ArgumentError:
        raise
    except Exception as error:
        wrong = unreadable_file(name, argument, error) if loader else None
        raise wrong or ArgumentError(argument, allowed, name, hint=str(error)) from error
    return {split: _with_text_as_written(rows, files.get(split, ())) for split, rows in splits.items()}


def data_files(script_args: ScriptArguments) -> dict[str, list[str]]:
    """Return the files of each split."""
    name = script_args.dataset_name
    if not name:
        return {}
    if Path(name).suffix in LOADERS:
        return {script_args.dataset_train_split: [name]}
    found = load_dataset_builder(name, name=script_args.dataset_config).config.data_files or {}
    return {str(split): list(files) for split, files in found.items()}


def load_rows(
    script_args: ScriptArguments,
    mixture: DatasetMixtureConfig,
    target: Target,
    arguments: ColumnArguments,
    *,
    evaluating: bool,
    max_steps: int = -1,
    is_last_turn_only: bool = False,
) -> LoadedRows:
    """Load the training rows and, if the run evaluates, the evaluation rows, checked and converted.

    `max_steps` is the length of the run, required for streamed data. Other arguments are those of `checked_split`.

    Raises:
        ArgumentError: The data cannot be loaded, lack columns, or a row is unusable.
    """
    if script_args.dataset_streaming and max_steps <= 0:
        rule = "needs `max_steps`, because the number of rows is not known in advance"
        raise ArgumentError("dataset_streaming", rule=rule)
    splits = load_splits(script_args, mixture)
    given = {"target": target, "is_last_turn_only": is_last_turn_only, "test_size": mixture.test_split_size}
    name = script_args.dataset_train_split
    train, conversion, text = checked_split(script_args, splits, name, "dataset_train_split", arguments, **given)
    given_instruction, test = arguments.instruction, None
    if evaluating:
        # The questions of both must read alike.
        arguments = replace(arguments, instruction=conversion.instruction)
        name = script_args.dataset_test_split
        test, _, _ = checked_split(script_args, splits, name, "dataset_test_split", arguments, **given)
    return LoadedRows(train, test, conversion.instruction or given_instruction, text)


def checked_split(
    script_args: ScriptArguments,
    splits: Mapping[str, Dataset],
    name: str,
    argument: str,
    arguments: ColumnArguments,
    *,
    target: Target,
    test_size: float | None = None,
    is_last_turn_only: bool = False,
) -> tuple[Dataset, Conversion, str]:
    """Select a split, rename its columns, check every row, and convert rows that TRL would not take as they are.

    Streamed rows are checked and converted as they are read.

    Args:
        script_args: The data's name and the names of its splits.
        splits: The splits that were loaded.
        name: The split to return.
        argument: The user's name for `name`.
        arguments: The columns, the instruction and the system prompt.
        target: What the trainer takes.
        test_size: `test_split_size`: the share, or the number, of training rows that are the test split.
        is_last_turn_only: Whether only the last turn of `messages` is trained on.

    Returns:
        The rows, their conversion, and what is used of the data, in words.

    Raises:
        ArgumentError: The split does not exist, lacks columns, or has an unusable row.
    """
    if test_size is not None:
        _check_test_size(script_args, splits, test_size)
    is_test = test_size is not None and name == script_args.dataset_test_split
    loaded = script_args.dataset_train_split if is_test else name
    if loaded not in splits:
        hint = "give a folder with train and test files, hold out rows with `test_split_size: 0.1`, or write "
        hint = f"{hint}`eval_strategy: 'no'`" if Path(script_args.dataset_name or "").is_file() else ""
        raise ArgumentError(argument, f"one of {', '.join(splits)}", name, hint)
    names = dict(arguments.columns) if isinstance(arguments.columns, dict) else {}
    rows = _rename(splits[loaded], names)
    source = f"{script_args.dataset_name or 'the data'} ({loaded})"
    if not columns_of(rows) or (isinstance(rows, Dataset) and not len(rows)):
        raise ArgumentError("dataset_name", rule=f"has no rows: {source}")
    form = _form(rows, target, names)
    if form is None or (not {"prompt", "question"} & {*form} and "chosen" in form):
        there = columns_of(rows)
        known = {ours: theirs for ours, theirs in KNOWN_COLUMNS.items() if theirs in there and ours not in there}
        rows, names = _rename(rows, known), names | known
        form = _form(rows, target, names)
    found = columns_of(rows)
    if form is None:
        if "input_ids" in found:
            return rows, Conversion(target, (), "", False), f"{source}: tokenized rows"
        raise _missing_columns(source, found, target.forms)
    is_chat = "question" in form or form == ("messages",)
    used = [*form, *(column for column in OPTIONAL if column in found and is_chat)]
    files = data_files(script_args) if Path(script_args.dataset_name or "").exists() else {}
    place: dict[str, Any] = {"columns": used, "source": source, "files": files.get(loaded, ())}
    conversion = _conversion(rows, target, form, arguments, is_last_turn_only=is_last_turn_only)
    if isinstance(rows, IterableDataset):
        rows = rows.map(check_row, with_indices=True, fn_kwargs=place)
    else:
        check_rows(rows, **place)
    if test_size is not None:
        rows = _part(rows, form[0], test_size, is_test=is_test)
    if target.takes_other_columns and "answer" in found and "answer" not in used:
        used.append("answer")  # of a `prompt`: may hold anything, but numbers become text
    others = [column for column in found if column not in used]
    unused = [column for column in others if not (target.takes_other_columns or column in FOR_THE_TEMPLATE)]
    shown = (f"`{column}`" + (f" (`{names[column]}`)" if column in names else "") for column in used)
    description = f"{source}: {', '.join(shown)}"
    if target.takes_other_columns and others:
        description += f"; for the rewards: {', '.join(f'`{column}`' for column in others)}"
    if unused:
        description += f"; not used: {', '.join(f'`{column}`' for column in unused)}"
    if arguments.instruction and "question" not in form:
        description += "; `instruction` is not used, because the rows have no `question`"
    elif conversion.instruction == FINAL_ANSWER and arguments.instruction is None:
        description += "; the answers look like GSM8K's, so its instruction follows each question (`instruction`)"
    return _converted(rows, conversion, used, unused), conversion, description


def data_faults(kind: str, given: Mapping[str, Any]) -> list[ArgumentError]:
    """Return what is wrong with the data of a recipe's arguments: files, columns, rows. Hub names are not looked up.

    `kind` is `sft`, `grpo` or `dpo`; `given` are the arguments, by name.
    """
    name = given.get("dataset_name")
    if not isinstance(name, str) or not (Path(name).exists() or Path(name).suffix in LOADERS):
        return []
    splits = {key: str(given[key]) for key in ("dataset_train_split", "dataset_test_split") if key in given}
    columns = {key: given[key] for key in ("columns", "instruction", "system_prompt") if key in given}
    evaluating = str(given.get("eval_strategy", "no")) not in ("no", "False")
    try:
        if (size := given.get("test_split_size")) is not None:
            size = Number(0, above_low=True)("test_split_size", size)
        mixture = DatasetMixtureConfig(test_split_size=size)
        target = sft_target(str(given.get("dataset_text_field", "text"))) if kind == "sft" else TARGETS[kind]
        script = ScriptArguments(name, dataset_streaming=given.get("dataset_streaming") is True, **splits)
        load_rows(script, mixture, target, ColumnArguments(**columns), evaluating=evaluating, max_steps=1)
    except ArgumentError as error:
        return [error]
    return []


def columns_of(rows: Dataset) -> list[str]:
    """Return the column names; those of a streamed file are only known once a row is read."""
    return list(rows.column_names or next(iter(rows), {}))


def _csv_options(files: Sequence[str], argument: str) -> dict[str, Any]:
    if not files or not all(file.endswith(".csv") for file in files):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # Otherwise pandas takes the first cells for row names where rows have more cells than the header.
            header = pd.read_csv(files[0], nrows=1, index_col=False).columns
        except pd.errors.ParserWarning:
            rule = f"has more cells in its rows than column names: {files[0]}"
            raise ArgumentError(
                argument, rule=rule, hint='put text with commas between double quotes: "a, b"'
            ) from None
    features = Features({column: Value("string") for column in header})
    return {"features": features, "keep_default_na": False, "na_values": [""]}


def _with_text_as_written(rows: Dataset, files: Sequence[str]) -> Dataset:
    """Read JSON files again where `datasets` took text for dates, or for JSON because a column has several types."""
    types = json.dumps(rows.features.to_dict()) if rows.features else "unknown"
    is_json = bool(files) and all(file.endswith((".jsonl", ".json")) for file in files)
    if not is_json or not re.search(r'unknown|"timestamp|"Json"', types):
        return rows
    if isinstance(rows, IterableDataset):
        given = {"files": list(files), "names": tuple(columns_of(rows))}
        return IterableDataset.from_generator(json_rows, gen_kwargs=given)
    features = Features.from_dict(json.loads(re.sub(r'"timestamp\[[^"]*\]"', '"string"', types)))
    read = list(json_rows(files, tuple(features)))
    columns = {name: [row[name] for row in read] for name in features}
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values)
        if is_text and not any(isinstance(value, (list, dict)) for value in values):
            columns[name] = [None if value is None else as_text(value) for value in values]
            features[name] = Value("string")
    return Dataset.from_dict(columns, features=features)


def _check_test_size(script_args: ScriptArguments, splits: Mapping[str, Dataset], test_size: float) -> None:
    if test_size < 1:
        Number(0, 1, above_low=True)("test_split_size", test_size)
    elif not float(test_size).is_integer():
        raise ArgumentError("test_split_size", "a share between 0 and 1 or a number of rows", test_size)
    if script_args.dataset_test_split in splits:
        hint = "omit it, or give the split that it makes another name with `dataset_test_split`"
        rule = f"would replace the split {script_args.dataset_test_split!r} of the data"
        raise ArgumentError("test_split_size", rule=rule, hint=hint)
    if script_args.dataset_streaming:
        raise ArgumentError("test_split_size", rule="is not possible with `dataset_streaming`")


def _part(rows: Dataset, column: str, test_size: float, *, is_test: bool) -> Dataset:
    """Return the test or the training rows; no training row has a question of the test rows."""
    size = test_size if test_size < 1 else int(test_size)
    try:
        parts = rows.train_test_split(test_size=size, seed=SPLIT_SEED)
    except ValueError as error:
        raise ArgumentError("test_split_size", rule=f"leaves no rows: {error}", received=test_size) from None
    if is_test:
        return parts["test"]
    held_out = {json.dumps(value, default=str) for value in parts["test"][column]}
    return parts["train"].filter(lambda value: json.dumps(value, default=str) not in held_out, input_columns=column)


def _form(rows: Dataset, target: Target, names: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the form of the rows; the one with most of the columns that the user names goes first."""
    forms = sorted(target.forms, key=lambda form: -len({*form} & {*names}))
    return next((form for form in forms if set(form) <= set(columns_of(rows))), None)


def _conversion(
    rows: Dataset, target: Target, form: tuple[str, ...], arguments: ColumnArguments, *, is_last_turn_only: bool
) -> Conversion:
    """Return the conversion of rows, which looks at the first ones."""
    first = list(islice(iter(rows), ROWS))
    is_gsm8k = "question" in form and looks_like_gsm8k([row[form[1]] for row in first])
    instruction = arguments.instruction
    if instruction is None:
        instruction = FINAL_ANSWER if is_gsm8k else ""
    system = arguments.system_prompt or None
    if system and first and "question" not in form and all(isinstance(first[0][name], str) for name in form):
        hint = "map the prompt to `question`, as in `columns: {question: prompt}`, or omit it"
        raise ArgumentError("system_prompt", rule=f"needs chats, but `{form[0]}` is text", hint=hint)
    is_last_turn_only = is_last_turn_only and form == ("messages",)
    return Conversion(target, form, instruction, is_gsm8k, system, is_last_turn_only)


def _converted(rows: Dataset, conversion: Conversion, used: Sequence[str], unused: Sequence[str]) -> Dataset:
    """Convert the rows unless they are already what the conversion makes of them."""
    first = {name: value for name, value in next(iter(rows)).items() if name in used}
    types = rows.features or {}
    is_text_or_chat = all(
        isinstance(value, list) or types.get(name) == Value("string") for name, value in first.items()
    )
    if is_text_or_chat and conversion(first) == first and not conversion.system_prompt:
        return rows.remove_columns(list(unused))
    given = {name: GIVEN + name for name in used}
    return rows.rename_columns(given).map(conversion, remove_columns=[*given.values(), *unused])


def _missing_columns(source: str, found: Sequence[str], forms: Sequence[Sequence[str]]) -> ArgumentError:
    takes = ", or ".join(dict.fromkeys(" and ".join(f"`{name}`" for name in form) for form in forms))
    form = next((form for form in forms if "question" in form), forms[-1])
    usual = {name: next((word for word in USUAL_NAMES.get(name, (name,)) if word in found), "...") for name in form}
    example = ", ".join(f"{name}: {theirs}" for name, theirs in usual.items())
    rule = f"must map your columns: {source} has the columns {', '.join(found)}, but the recipe takes {takes}"
    is_one = len(found) == 1 and any(separator in found[0] for separator in ";\t|")
    hint = "separate the columns with commas" if is_one else f"write `columns: {{{example}}}`"
    return ArgumentError("columns", rule=rule, hint=hint)


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
