"""Datasets load from folders and files, columns are mapped, bad rows are named by line, and rows are converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.finetune.data.conversion import TARGETS
from hf_sched.finetune.data.load import ColumnArguments, LoadedRows, columns_of, data_faults, load_rows
from hf_sched.schedules.validation import ArgumentError

OWN = [{"id": number, "problem": f"What is {number} + 1?", "label": number + 1} for number in range(4)]
COLUMNS = {"question": "problem", "answer": "label"}
GOOD = {"question": "How many?", "answer": "72"}
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def load_all(
    path: Path | str, kind: str = "sft", *, streaming: bool = False, test_split_size: float | None = None, **given: Any
) -> LoadedRows:
    requested = ScriptArguments(dataset_name=str(path), dataset_streaming=streaming)
    mixture = DatasetMixtureConfig(test_split_size=test_split_size)
    names = ("columns", "instruction", "system_prompt")
    arguments = ColumnArguments(**{name: given.pop(name) for name in names if name in given})
    return load_rows(requested, mixture, TARGETS[kind], arguments, **{"evaluating": False, **given})


def load(path: Path | str, kind: str = "sft", **given: Any) -> Any:
    return load_all(path, kind, **given).train


def write(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines) if path.suffix == ".jsonl" else json.dumps(rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_columns_are_mapped_in_every_format(tmp_path, suffix, streaming):
    path = write(tmp_path / f"own{suffix}", OWN)
    for kind, answer, others in (("sft", "completion", []), ("grpo", "answer", ["id"])):
        rows = load(path, kind, columns=COLUMNS, streaming=streaming, max_steps=5)
        assert sorted(columns_of(rows)) == sorted(["prompt", answer, *others])
        third = list(rows)[2]
        assert third["prompt"][0]["content"].startswith("What is 2 + 1?")
        assert third[answer] == ("3" if kind == "grpo" else [{"role": "assistant", "content": "3"}])


def test_columns_are_renamed_over_others_or_swapped(tmp_path):
    rows = [{"prompt": "old", "text": "new", "completion": "yes"}]
    renamed = load(write(tmp_path / "a.jsonl", rows), columns={"prompt": "text"})
    assert list(renamed) == [{"prompt": "new", "completion": "yes"}]
    swapped = load(write(tmp_path / "b.jsonl", rows), columns={"prompt": "completion", "completion": "prompt"})
    assert (swapped[0]["prompt"], swapped[0]["completion"]) == ("yes", "old")


def test_complete_rows_are_not_converted(tmp_path):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert load(write(tmp_path / "a.jsonl", [{"talk": chat}]), columns={"messages": "talk"})[0] == {"messages": chat}
    for row in ({"prompt": "p", "chosen": "c", "rejected": "r"}, {"chosen": chat, "rejected": chat}):
        assert load(write(tmp_path / f"{len(row)}.jsonl", [row]), "dpo")[0] == row


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(
            [GOOD, "", {"question": "Why?"}],
            r"^`answer` is missing \(.*own\.jsonl, line 3\); correct or remove the row$",
            marks=pytest.mark.skipif(datasets.__version__ < "5", reason="datasets 4 rejects such files itself"),
        ),
        ([GOOD, {"question": None, "answer": "7"}], r"`question` is missing \(.*own\.jsonl, line 2\)"),
        ([GOOD, {"question": "  ", "answer": "7"}], r"`question` is empty \(.*own\.jsonl, line 2\)"),
        ([{"question": 7, "answer": 7}], r"`question` must be text, received '7' \(.*own\.jsonl, line 1\)"),
        ([CHAT, {"messages": []}], r"`messages` is empty \(.*own\.jsonl, line 2\)"),
        ([{"messages": "hi"}], r"`messages` must be chat messages, received 'hi' \(.*own\.jsonl, line 1\)"),
        ([GOOD, '{"question": "Why?", "ans'], r"`dataset_name` must hold one JSON.*own\.jsonl, line 2, column 26"),
        ([GOOD, '"text"'], r"`dataset_name` must hold one JSON object per line: .*, line 2, received '\"text\"'"),
    ],
)
def test_bad_line_is_named(tmp_path, rows, message):
    with pytest.raises(ArgumentError, match=message):
        load(write(tmp_path / "own.jsonl", rows))


def test_bad_row_is_named_in_other_formats(tmp_path):
    (tmp_path / "own.csv").write_text('question,answer\n"How\nmany?",3\n\nWhy?,\n')
    with pytest.raises(ArgumentError, match=r"`answer` is missing \(.*own\.csv \(train\), row 2\)"):
        load(tmp_path / "own.csv")
    with pytest.raises(ArgumentError, match=r"`answer` is missing \(.*own\.parquet \(train\), row 2\)"):
        load(write(tmp_path / "own.parquet", [GOOD, {"question": "Why?", "answer": None}]))


def test_streamed_rows_are_checked_as_they_are_read(tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD, GOOD, {"question": "Why?", "answer": ""}])
    with pytest.raises(ArgumentError, match="`dataset_streaming` needs `max_steps`"):
        load(path, streaming=True)
    rows = iter(load(path, streaming=True, max_steps=3))
    next(rows), next(rows)
    with pytest.raises(ArgumentError, match=r"`answer` is empty \(.*own\.jsonl, line 3\)"):
        next(rows)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, r"has the columns id, problem, label, but the recipe takes .*; write `columns: {question: \.\.\., ans"),
        ({"answer": "lable"}, r"`columns` has answer: lable, but the data have the columns id, problem, label$"),
        ({"label": "answer"}, r"`columns` has .*; write it the other way round, answer: label$"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns, message):
    with pytest.raises(ArgumentError, match=message):
        load(write(tmp_path / "own.jsonl", OWN), columns=columns)


def test_wrong_data_arguments_are_named(tmp_path):
    with pytest.raises(ArgumentError, match="`columns` must be a mapping from the recipe's column names to yours"):
        ColumnArguments(columns=["question"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"`dataset_name` must be .*, received 'nothing\.jsonl'; there is no"):
        load("nothing.jsonl")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "rows.txt", ["a"])
    for name in ("data/mine.cvs", tmp_path / "empty", tmp_path / "rows.txt"):
        with pytest.raises(ArgumentError, match=r"a hub name, a folder, or a file that ends in \.jsonl, .*, received"):
            load(name)
    with pytest.raises(ArgumentError, match="`dataset_name` or `datasets` must be given"):
        load("")
    path = write(tmp_path / "train.jsonl", [GOOD])
    with pytest.raises(ArgumentError, match=r"`dataset_test_split` must .*; give a folder with train and test"):
        load(path, evaluating=True)
    (folder := tmp_path / "folder").mkdir()
    write(folder / "train.jsonl", [GOOD])
    with pytest.raises(ArgumentError, match="`dataset_test_split` must be one of train, received 'test'"):
        load(folder, evaluating=True)


def test_recipe_trains_on_a_streamed_csv_file_with_other_columns(run_recipe, tmp_path):
    given = {"dataset_name": str(write(tmp_path / "own.csv", OWN * 8)), "columns": COLUMNS, "max_steps": 3}
    assert len(run_recipe("sft", dataset_streaming=True, **given, max_length=128).logged("loss")) == 3


def test_recipe_rejects_a_bad_row_before_it_looks_for_a_model(run_recipe, tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD, {"question": "Why?", "answer": ""}])
    run = run_recipe("sft", ok=False, dataset_name=str(path), model_name_or_path="nobody/no-such-model")
    assert run.returncode == 2 and "Traceback" not in run.output
    assert f"`answer` is empty ({path}, line 2)" in run.output
