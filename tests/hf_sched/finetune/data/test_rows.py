"""Data of one's own: columns are mapped, every format loads, and a bad row is named by its line before a model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.finetune.data.load import (
    DEMONSTRATIONS,
    PROBLEMS,
    ColumnArguments,
    columns_of,
    load_rows,
    to_demonstration,
    to_problem,
)

OWN = [{"id": number, "problem": f"What is {number} + 1?", "label": number + 1} for number in range(4)]
COLUMNS = {"question": "problem", "answer": "label"}


def load(path: Path | str, kind: str = "sft", **given: Any) -> Any:
    streaming = given.pop("streaming", False)
    forms = DEMONSTRATIONS if kind == "sft" else PROBLEMS
    convert = to_demonstration if kind == "sft" else to_problem
    requested = ScriptArguments(dataset_name=str(path), dataset_streaming=streaming)
    rows, _ = load_rows(requested, DatasetMixtureConfig(), convert, evaluating=False, forms=forms, **given)
    return rows


def write(path: Path, rows: list[Any]) -> Path:
    match path.suffix:
        case ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        case ".parquet":
            pd.DataFrame(rows).to_parquet(path)
        case ".json":
            path.write_text(json.dumps(rows))
        case _:
            path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_columns_of_ones_own_are_mapped_in_every_format(tmp_path, suffix, streaming):
    path = write(tmp_path / f"own{suffix}", OWN)
    for kind, answer in (("sft", "completion"), ("grpo", "answer")):
        rows = load(path, kind, columns=COLUMNS, streaming=streaming, max_steps=5)
        assert sorted(columns_of(rows)) == sorted(["prompt", answer])
        third = list(rows)[2]
        assert third["prompt"][0]["content"].startswith("What is 2 + 1?")
        assert third[answer] == ("3" if kind == "grpo" else [{"role": "assistant", "content": "3"}])


def test_a_column_is_renamed_over_another_of_that_name(tmp_path):
    rows = [{"prompt": "old", "text": "new", "completion": "yes"}]
    assert list(load(write(tmp_path / "a.jsonl", rows), columns={"prompt": "text"})) == [
        {"prompt": "new", "completion": "yes"}
    ]
    swapped = load(write(tmp_path / "b.jsonl", rows), columns={"prompt": "completion", "completion": "prompt"})
    assert (swapped[0]["prompt"], swapped[0]["completion"]) == ("yes", "old")


def test_chats_are_taken_as_they_are(tmp_path):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = load(write(tmp_path / "chats.jsonl", [{"talk": chat}]), columns={"messages": "talk"})
    assert rows[0] == {"messages": chat}


GOOD = {"question": "How many?", "answer": "72"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([GOOD, "", {"question": "Why?"}], r"line 3: `answer` is missing"),
        ([GOOD, {"question": None, "answer": "7"}], r"line 2: `question` is missing"),
        ([GOOD, {"question": "  ", "answer": "7"}], r"line 2: `question` is empty"),
        ([{"question": 7, "answer": 7}], r"line 1: `question` must be text, received '7'"),
        ([GOOD, '{"question": "Why?", "ans'], r"line 2: no JSON \(.*, column 26\)"),
        ([GOOD, '"text"'], r"line 2: must be a mapping of columns, received '\"text\"'"),
        ([GOOD, {**GOOD, "answer": {"a": 7}}], r"line 2: `answer` must be text, received"),
        ([CHAT, {"messages": []}], r"line 2: `messages` is empty"),
        ([CHAT, {"messages": [{"role": "user"}]}], r"line 2: `messages` must be chat messages"),
        ([{"messages": "hi"}], r"line 1: `messages` must be chat messages, received 'hi'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, complaint):
    with pytest.raises(ValueError, match=r"own\.jsonl, " + complaint):
        load(write(tmp_path / "own.jsonl", rows))


def test_a_line_of_a_csv_file_is_that_of_the_file(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text('question,answer\n"How\nmany?",3\n\nWhy?,\n')
    with pytest.raises(ValueError, match=r"own\.csv, line 5: `answer` is missing"):
        load(path)
    path.write_text("question,answer\n,3\n")
    with pytest.raises(ValueError, match=r"own\.csv, line 2: `question` is missing"):
        load(path)


def test_other_files_are_told_by_their_row(tmp_path):
    rows = [GOOD, {"question": "Why?", "answer": None}]
    with pytest.raises(ValueError, match=r"own\.parquet \(train\), row 2: `answer` is missing"):
        load(write(tmp_path / "own.parquet", rows))


def test_streamed_rows_are_looked_at_as_they_come(tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD, GOOD, {"question": "Why?", "answer": ""}])
    with pytest.raises(ValueError, match="`dataset_streaming` needs `max_steps`"):
        load(path, streaming=True)
    rows = iter(load(path, streaming=True, max_steps=3))
    next(rows), next(rows)
    with pytest.raises(ValueError, match=r"own\.jsonl, line 3: `answer` is empty"):
        next(rows)


def test_columns_that_do_not_fit_are_named(tmp_path):
    path = write(tmp_path / "own.jsonl", OWN)
    with pytest.raises(ValueError, match=r"has the columns id, problem, label; the recipe takes .* `columns: \{quest"):
        load(path)
    with pytest.raises(ValueError, match=r"`columns` says answer: lable, but the data have the columns id, problem, l"):
        load(path, columns={"answer": "lable"})
    with pytest.raises(ValueError, match=r"but the data have .*: write it the other way round, answer: label$"):
        load(path, columns={"label": "answer"})
    with pytest.raises(ValueError, match=r"the recipe takes .*Say which is which: `columns: {question: a, answer: b}`"):
        load(write(tmp_path / "two.jsonl", [{"a": "x", "b": "y"}]))
    with pytest.raises(ValueError, match="`columns` must give each of the recipe's names yours"):
        ColumnArguments(columns=["question"])  # type: ignore[arg-type]


@pytest.mark.parametrize(("recipe", "streaming"), [("sft", True), pytest.param("grpo", False, marks=pytest.mark.slow)])
def test_a_recipe_trains_on_a_csv_file_of_ones_own(run_recipe, tmp_path, recipe, streaming):
    path = write(tmp_path / "own.csv", OWN * 8)
    length = {"max_length": 128} if recipe == "sft" else {}
    run = run_recipe(
        recipe, dataset_name=str(path), columns=COLUMNS, max_steps=3, dataset_streaming=streaming, **length
    )
    assert len(run.logged("loss")) == 3


def test_one_file_has_no_rows_to_evaluate_on(tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD])
    with pytest.raises(ValueError, match=r"`eval_strategy` needs rows .*own\.jsonl' is one file: give as"):
        load_rows(ScriptArguments(dataset_name=str(path)), DatasetMixtureConfig(), to_demonstration, evaluating=True)


def test_a_recipe_refuses_a_bad_row_before_it_looks_for_a_model(run_recipe, tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD, {"question": "Why?", "answer": ""}])
    run = run_recipe("sft", ok=False, dataset_name=str(path), model_name_or_path="nobody/no-such-model")
    assert run.returncode == 2
    assert f"sft.py: error: {path}, line 2: `answer` is empty" in run.output
    assert "Traceback" not in run.output
