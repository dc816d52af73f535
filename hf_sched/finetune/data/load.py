"""Loads the rows of a run: reads them, checks each one, splits them and converts them to what a trainer takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, IterableDataset, Value
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.finetune.data.columns import ColumnArguments, rename_columns
from hf_sched.finetune.data.conversion import (
    FINAL_ANSWER,
    GIVEN,
    TARGETS,
    Conversion,
    Target,
    looks_like_gsm8k,
    sft_target,
)
from hf_sched.finetune.data.files import columns_of, data_files, load_splits
from hf_sched.finetune.data.rows import OPTIONAL, check_row, check_rows
from hf_sched.plan.dataset_size import BUILDERS
from hf_sched.schedules.validation import ArgumentError

SPLIT_SEED = 0  # of `test_split_size`: fixed, so that runs with other seeds and evaluations hold out the same rows
ROWS = 100  # whose answers are looked at
FOR_THE_TEMPLATE = ("tools", "chat_template_kwargs", "image", "images")  # columns that TRL reads in all rows


class LoadedRows(NamedTuple):
    """The rows of a run."""

    train: Dataset
    evaluation: Dataset | None
    instruction: str | None
    """The instruction below each question; None lets an evaluation decide."""
    description: str
    """What the run uses of the data, in words."""


def load_rows(
    script_args: ScriptArguments,
    mixture: DatasetMixtureConfig,
    target: Target,
    arguments: ColumnArguments,
    *,
    evaluating: bool,
) -> LoadedRows:
    """Load the training rows and, if the run evaluates, the evaluation rows, checked and converted.

    Raises:
        ArgumentError: The data cannot be loaded, lack columns, or have unusable rows.
    """
    splits = load_splits(script_args, mixture)
    given = {"target": target, "test_size": mixture.test_split_size}
    name = script_args.dataset_train_split
    train, conversion, text = checked_split(script_args, splits, name, "dataset_train_split", arguments, **given)
    test, instruction = None, conversion.instruction or arguments.instruction
    if evaluating:
        # The questions of both must read alike.
        arguments = replace(arguments, instruction=conversion.instruction)
        name = script_args.dataset_test_split
        test, _, _ = checked_split(script_args, splits, name, "dataset_test_split", arguments, **given)
    return LoadedRows(train, test, instruction, text)


def checked_split(
    script_args: ScriptArguments,
    splits: Mapping[str, Dataset],
    name: str,
    argument: str,
    arguments: ColumnArguments,
    *,
    target: Target,
    test_size: float | None = None,
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

    Returns:
        The rows, their conversion, and what is used of the data, in words.

    Raises:
        ArgumentError: The split does not exist, lacks columns, or has unusable rows.
    """
    if test_size is not None:
        _check_test_split(script_args, splits)
    is_test = test_size is not None and name == script_args.dataset_test_split
    loaded = script_args.dataset_train_split if is_test else name
    if loaded not in splits:
        hint = "give a folder with train and test files, hold out rows with `test_split_size: 0.1`, or write "
        hint = f"{hint}`eval_strategy: 'no'`" if Path(script_args.dataset_name or "").is_file() else ""
        raise ArgumentError(argument, f"one of {', '.join(splits)}", name, hint)
    rows, source = splits[loaded], f"{script_args.dataset_name or 'the data'} ({loaded})"
    if not columns_of(rows) or (isinstance(rows, Dataset) and not len(rows)):
        raise ArgumentError("dataset_name", rule=f"has no rows: {source}")
    given = arguments.columns if isinstance(arguments.columns, dict) else {}
    rows, form, names = rename_columns(rows, target, given, source)
    if not form:
        return rows, Conversion(target, (), "", False), f"{source}: tokenized rows"
    found, is_chat = columns_of(rows), "question" in form or form == ("messages",)
    used = [*form, *(column for column in OPTIONAL if column in found and is_chat)]
    files = data_files(script_args) if Path(script_args.dataset_name or "").exists() else {}
    place: dict[str, Any] = {"columns": used, "source": source, "files": files.get(loaded, ())}
    conversion = _conversion(rows, target, form, arguments)
    if isinstance(rows, IterableDataset):
        rows = rows.map(check_row, with_indices=True, fn_kwargs=place)
    else:
        check_rows(rows, **place)
    if test_size is not None:
        rows = _part(rows, form[0], test_size, is_test=is_test)
    if target.takes_other_columns and "answer" in found and "answer" not in used:
        used.append("answer")  # of a `prompt`: may hold anything, but numbers become text
    shown = (f"`{column}`" + (f" (`{names[column]}`)" if column in names else "") for column in used)
    description = f"{source}: {', '.join(shown)}"
    kept = () if target.takes_other_columns else FOR_THE_TEMPLATE
    if others := [column for column in found if column not in (*used, *kept)]:
        reason = "for the rewards" if target.takes_other_columns else "not used"
        description += f"; {reason}: {', '.join(f'`{column}`' for column in others)}"
    if arguments.instruction and "question" not in form:
        description += "; `instruction` is not used, because the rows have no `question`"
    elif conversion.instruction == FINAL_ANSWER and arguments.instruction is None:
        description += "; the answers look like GSM8K's, so its instruction follows each question (`instruction`)"
    unused = [] if target.takes_other_columns else others
    return _converted(rows, conversion, used, unused), conversion, description


def data_fault(kind: str, given: Mapping[str, Any]) -> ArgumentError | None:
    """Return what is wrong with the data of a recipe's arguments: files, columns, rows. Hub names are not looked up.

    `kind` is `sft`, `grpo` or `dpo`; `given` are the arguments, by name.
    """
    name = given.get("dataset_name")
    if not isinstance(name, str) or not (Path(name).exists() or Path(name).suffix in BUILDERS):
        return None
    splits = {key: str(given[key]) for key in ("dataset_train_split", "dataset_test_split") if key in given}
    columns = {key: given[key] for key in ("columns", "instruction", "system_prompt") if key in given}
    evaluating = str(given.get("eval_strategy", "no")) not in ("no", "False")
    mixture = DatasetMixtureConfig(test_split_size=given.get("test_split_size"))
    target = sft_target(str(given.get("dataset_text_field", "text"))) if kind == "sft" else TARGETS[kind]
    script = ScriptArguments(name, dataset_streaming=given.get("dataset_streaming") is True, **splits)
    try:
        load_rows(script, mixture, target, ColumnArguments(**columns), evaluating=evaluating)
    except ArgumentError as error:
        return error
    return None


def _check_test_split(script_args: ScriptArguments, splits: Mapping[str, Dataset]) -> None:
    if script_args.dataset_test_split in splits:
        hint = "omit it, or give the split that it makes another name with `dataset_test_split`"
        rule = f"would replace the split {script_args.dataset_test_split!r} of the data"
        raise ArgumentError("test_split_size", rule=rule, hint=hint)
    if script_args.dataset_streaming:
        raise ArgumentError("test_split_size", rule="is not possible with `dataset_streaming`")


def _part(rows: Dataset, column: str, test_size: float, *, is_test: bool) -> Dataset:
    """Return the test or the training rows; no training row has a question of the test rows."""
    try:
        size = int(test_size) if float(test_size).is_integer() else test_size
        parts = rows.train_test_split(test_size=size, seed=SPLIT_SEED)
    except (ValueError, OverflowError) as error:
        allowed = "a share between 0 and 1, or a number of rows that leaves some"
        raise ArgumentError("test_split_size", allowed, test_size, hint=str(error)) from None
    if is_test:
        return parts["test"]
    held_out = {json.dumps(value, default=str) for value in parts["test"][column]}
    return parts["train"].filter(lambda value: json.dumps(value, default=str) not in held_out, input_columns=column)


def _conversion(rows: Dataset, target: Target, form: tuple[str, ...], arguments: ColumnArguments) -> Conversion:
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
    return Conversion(target, form, instruction, is_gsm8k, system)


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
