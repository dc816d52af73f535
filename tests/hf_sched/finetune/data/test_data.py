"""Datasets load from folders and files, columns are mapped, bad rows are named by line, and rows are converted."""

from __future__ import annotations

import json
import re

import datasets
import pytest
from packaging.version import Version
from trl import DatasetMixtureConfig, ScriptArguments
from trl.scripts.utils import DatasetConfig

from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.data.conversion import TARGETS
from hf_sched.finetune.data.files import columns_of
from hf_sched.finetune.data.load import data_fault, load_rows
from hf_sched.finetune.evaluation import EvaluationArguments
from hf_sched.finetune.evaluation.evaluate import load_problems
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.rows import load, load_all, write

OWN = [{"id": number, "problem": f"What is {number} + 1?", "label": number + 1} for number in range(4)]
COLUMNS = {"question": "problem", "answer": "label"}
GOOD = {"question": "How many?", "answer": "72"}
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
# Some files can be read by datasets 5 only.
needs_datasets_5 = pytest.mark.skipif(Version(datasets.__version__) < Version("5"), reason="datasets 4 rejects them")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_columns_are_mapped_in_every_format(tmp_path, suffix, streaming):
    path = write(tmp_path / f"own{suffix}", OWN)
    for kind, answer, others in (("sft", "completion", []), ("grpo", "answer", ["id"])):
        rows = load(path, kind, columns=COLUMNS, streaming=streaming)
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
    chat = CHAT["messages"]
    assert load(write(tmp_path / "a.jsonl", [{"talk": chat}]), columns={"messages": "talk"})[0] == CHAT
    for row in ({"prompt": "p", "chosen": "c", "rejected": "r"}, {"chosen": chat, "rejected": chat}):
        assert load(write(tmp_path / f"{len(row)}.jsonl", [row]), "dpo")[0] == row


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(
            [GOOD, "", {"question": "Why?"}],
            r"^`answer` is missing \(.*own\.jsonl, line 3\); correct or remove the row$",
            marks=needs_datasets_5,
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


def test_number_of_bad_rows_and_the_first_three_are_named(tmp_path):
    bad = {"question": "Why?", "answer": ""}
    rows = [GOOD, bad, {"question": " ", "answer": "1"}, GOOD, bad, GOOD, bad]
    path = write(tmp_path / "own.jsonl", rows)
    first = f"`answer` is empty ({path}, line 2); "
    next_ones = f"4 rows are wrong, the next: `question` is empty ({path}, line 3), `answer` is empty ({path}, line 5)"
    with pytest.raises(ArgumentError, match=re.escape(f"{first}{next_ones}; correct or remove the rows")):
        load(path)
    with pytest.raises(
        ArgumentError, match=r"line 2\); 2 rows are wrong, the next: `question` is .* line 3\); correct"
    ):
        load(write(tmp_path / "two.jsonl", rows[:4]))


def test_bad_row_is_named_in_other_formats(tmp_path):
    (tmp_path / "own.csv").write_text('question,answer\n"How\nmany?",3\n\nWhy?,\n')
    with pytest.raises(ArgumentError, match=r"`answer` is missing \(.*own\.csv \(train\), row 2\)"):
        load(tmp_path / "own.csv")
    with pytest.raises(ArgumentError, match=r"`answer` is missing \(.*own\.parquet \(train\), row 2\)"):
        load(write(tmp_path / "own.parquet", [GOOD, {"question": "Why?", "answer": None}]))


def test_streamed_rows_are_checked_as_they_are_read(tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD, GOOD, {"question": "Why?", "answer": ""}])
    rows = iter(load(path, streaming=True))
    next(rows), next(rows)
    with pytest.raises(ArgumentError, match=r"`answer` is empty \(.*own\.jsonl, line 3\)"):
        next(rows)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, r"has the columns id, problem, label, but .*; write `columns: {question: problem, answer: label}`$"),
        ({"answer": "lable"}, r"`columns` has answer: lable, but the data have the columns id, problem, label$"),
        ({"label": "answer"}, r"`columns` has .*; write it the other way round, answer: label$"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns, message):
    with pytest.raises(ArgumentError, match=message):
        load(write(tmp_path / "own.jsonl", OWN), columns=columns)


def test_csv_with_another_separator_is_named(tmp_path):
    (tmp_path / "own.csv").write_text("question;answer\nHow many?;7\n")
    with pytest.raises(ArgumentError, match=r"has the columns question;answer, .*; separate the columns with commas$"):
        load(tmp_path / "own.csv")


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


def test_csv_cells_are_text_as_written(tmp_path):
    answers = ["007", "0123", "NA", "None", "null", "1.50"]
    text = "\ufeffquestion,answer\r\n" + "\r\n".join(f"How?,{answer}" for answer in answers)
    (folder := tmp_path / "folder").mkdir()
    for place, streaming in ((tmp_path / "own.csv", False), (folder / "train.csv", False), (tmp_path / "b.csv", True)):
        place.write_text(text, encoding="utf-8", newline="")
        name = folder if place.parent == folder else place
        rows = load(name, "grpo", streaming=streaming)
        assert [row["answer"] for row in rows] == answers


def test_csv_rows_with_unquoted_commas_are_not_shifted(tmp_path):
    (tmp_path / "all.csv").write_text("question,answer\nThree, or four?,7\nYes, or no?,8\n")
    with pytest.raises(
        ArgumentError, match=r"all\.csv: there are more cells in a row than column names; put text with"
    ):
        load(tmp_path / "all.csv")
    (tmp_path / "one.csv").write_text("question,answer\nHow many?,7\nYes, or no?,8\n")
    with pytest.raises(ArgumentError, match=r"cannot be read, or has no rows: .*Expected 2 fields in line 3, saw 3"):
        load(tmp_path / "one.csv")


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_answers_of_mixed_json_types_are_text(tmp_path, suffix):
    given, expected = [12, "x", 1.5, 2.0, True, "007"], ["12", "x", "1.5", "2", "true", "007"]
    asked = [{"question": "How many?", "answer": answer} for answer in given]
    prompted = [{"prompt": "How many?", "answer": answer} for answer in given]
    completed = [{"prompt": "How many?", "completion": answer} for answer in given]
    for rows, kind, column in (
        (asked, "grpo", "answer"),
        (prompted, "grpo", "answer"),
        (completed, "sft", "completion"),
    ):
        path = write(tmp_path / f"{kind}{'question' in rows[0]}{suffix}", rows)
        assert [row[column] for row in load(path, kind)] == expected
        assert [row[column] for row in load(path, kind, streaming=True)] == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_numbers_as_answers_are_text(tmp_path, suffix):
    for answers, expected in (([12, 7], ["12", "7"]), ([12, 1.5], ["12", "1.5"]), ([1.0, 2.0], ["1", "2"])):
        path = write(tmp_path / f"{expected[1]}{suffix}", [{"question": "?", "answer": answer} for answer in answers])
        assert [row["answer"] for row in load(path, "grpo")] == expected


@needs_datasets_5
def test_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path):
    (tmp_path / "own.jsonl").write_text("\ufeff" + "\r\n".join([json.dumps(GOOD)] * 2), encoding="utf-8", newline="")
    assert [row["answer"] for row in load(tmp_path / "own.jsonl", "grpo")] == ["72", "72"]


@needs_datasets_5
def test_number_that_is_too_long_is_rejected(tmp_path):
    path = write(tmp_path / "own.jsonl", ['{"question": "10**22 + 1?", "answer": 10000000000000000000001}'])
    with pytest.raises(ArgumentError, match=r"`answer` must be text, in quotes, because .* line 1\)"):
        load(path)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_dates_in_json_stay_text(tmp_path, suffix, streaming):
    chat = [{"role": "user", "content": "2024-01-05"}, {"role": "assistant", "content": "2024-01-06 10:00:00"}]
    path = write(tmp_path / f"chat{suffix}", [{"messages": chat}])
    assert list(load(path, streaming=streaming)) == [{"messages": chat}]
    path = write(tmp_path / f"day{suffix}", [{"question": "Which day?", "answer": "2024-01-05"}])
    assert next(iter(load(path, "grpo", streaming=streaming)))["answer"] == "2024-01-05"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "b.csv", "b.json"])
def test_files_without_rows_are_rejected(tmp_path, name):
    (tmp_path / name).write_text({"b.csv": "question,answer\n", "b.json": "[]"}.get(name, ""))
    with pytest.raises(ArgumentError, match=f"`dataset_name` cannot be read, or has no rows: .*{name}"):
        load(tmp_path / name)


def test_file_of_a_folder_is_named_with_its_line(tmp_path):
    write(tmp_path / "train.jsonl", [GOOD, {"question": "Why?", "answer": ""}])
    with pytest.raises(ArgumentError, match=r"`answer` is empty \(.*train\.jsonl, line 2\)"):
        load(tmp_path)


def test_one_file_is_split_without_common_questions(tmp_path):
    rows = [{"question": f"What is {number % 70}?", "answer": str(number % 70)} for number in range(100)]
    path = write(tmp_path / "own.jsonl", rows)
    first, again = (load_all(path, "grpo", evaluating=True, test_split_size=size) for size in (0.2, 20))
    assert [first.train[:], first.evaluation[:]] == [again.train[:], again.evaluation[:]]
    asked = [{row["answer"] for row in part} for part in (first.train, first.evaluation)]
    assert len(first.evaluation) == 20 and not asked[0] & asked[1] and len(asked[0] | asked[1]) == 70
    held_out = load_problems(EvaluationArguments(str(path), evaluate_test_split_size=0.2))
    assert held_out == list(first.evaluation)
    assert load(path, "grpo", test_split_size=0.2)[:] == first.train[:]


def test_mixture_is_split_with_a_seed(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"text": str(number)} for number in range(40)])
    mixture = DatasetMixtureConfig([DatasetConfig("json", data_files=str(path))], test_split_size=0.25)
    given = {"target": TARGETS["sft"], "arguments": ColumnArguments(), "evaluating": True}
    runs = [load_rows(ScriptArguments(), mixture, **given) for _ in range(2)]
    assert runs[0].evaluation[:] == runs[1].evaluation[:] and len(runs[0].evaluation) == 10
    assert not {*runs[0].train["text"]} & {*runs[0].evaluation["text"]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test_split_size": 1.5}, "must be a share between 0 and 1, or a number of rows .* received 1.5"),
        ({"test_split_size": -0.1}, "must be a share between 0 and 1, .* received -0.1"),
        ({"test_split_size": 40}, "number of rows that leaves some, received 40; test_size=40 should be"),
        ({"test_split_size": 0.5, "streaming": True}, "is not possible with `dataset_streaming`"),
    ],
)
def test_wrong_test_split_size_is_rejected(tmp_path, given, message):
    with pytest.raises(ArgumentError, match=message):
        load(write(tmp_path / "own.jsonl", [GOOD] * 4), **given)


def test_test_split_of_the_data_is_not_replaced(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", [GOOD] * 4)
    with pytest.raises(ArgumentError, match="`test_split_size` would replace the split 'test' of the data; omit it"):
        load(tmp_path, test_split_size=0.5)


def test_data_fault_names_files_columns_and_rows(tmp_path):
    path = str(write(tmp_path / "own.jsonl", OWN))
    for given, message in (
        ({"dataset_name": "nothing.jsonl"}, "there is no such file"),
        ({"dataset_name": path}, "must map your columns"),
        ({"dataset_name": path, "columns": COLUMNS, "eval_strategy": "steps"}, "`dataset_test_split` must be"),
        ({"dataset_name": path, "columns": COLUMNS, "test_split_size": 9}, "`test_split_size` must be"),
        ({"dataset_name": path, "columns": {"question": "problem", "answer": "id"}, "eval_strategy": "no"}, "None"),
        ({"dataset_name": path, "dataset_text_field": "problem"}, "None"),
        ({"dataset_name": path, "columns": COLUMNS, "dataset_streaming": True}, "None"),
        ({"dataset_name": "openai/gsm8k"}, "None"),
        ({}, "None"),
    ):
        assert message in str(data_fault("sft", given))


def test_recipe_trains_on_a_streamed_csv_file_with_other_columns(run_recipe, tmp_path):
    given = {"dataset_name": str(write(tmp_path / "own.csv", OWN * 8)), "columns": COLUMNS, "max_steps": 3}
    assert len(run_recipe("sft", dataset_streaming=True, **given, max_length=128).logged("loss")) == 3


def test_recipe_rejects_a_bad_row_before_it_looks_for_a_model(run_recipe, tmp_path):
    path = write(tmp_path / "own.jsonl", [GOOD, {"question": "Why?", "answer": ""}])
    given = {"dataset_name": str(path), "model_name_or_path": "nobody/no-such-model"}
    run = run_recipe("sft", ok=False, **given)
    assert run.returncode == 2 and "Traceback" not in run.output
    assert f"`answer` is empty ({path}, line 2)" in run.output
    run = run_recipe("sft", ok=False, dataset_streaming=True, **given)
    assert "`dataset_streaming` needs `max_steps`" in run.output
