"""Data come from folders and files, and question/answer rows become what each trainer takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.finetune.data.load import load_splits, split, to_demonstration, to_problem
from hf_sched.finetune.demo.sorting_task import make_rows, save_data

ROW = {"question": "How many?", "answer": "2 * 36 = <<2*36=72>>72\n#### 72"}


def load(name: str) -> dict:
    return load_splits(ScriptArguments(dataset_name=name), DatasetMixtureConfig())


def test_a_file_and_a_folder_load(tmp_path):
    rows = "".join(json.dumps(ROW) + "\n" for _ in range(3))
    (tmp_path / "train.jsonl").write_text(rows)
    assert load(str(tmp_path / "train.jsonl"))["train"].num_rows == 3
    (tmp_path / "test.jsonl").write_text(rows[: len(rows) // 3])
    assert {name: part.num_rows for name, part in load(str(tmp_path)).items()} == {"train": 3, "test": 1}


def test_questions_become_chats():
    demonstration, problem = to_demonstration(ROW), to_problem(ROW)
    assert demonstration["completion"] == [{"role": "assistant", "content": "2 * 36 = 72\n#### 72"}]
    assert problem["answer"] == "72"
    assert problem["prompt"] == demonstration["prompt"]
    assert "How many?" in problem["prompt"][0]["content"]


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file 'nothing\.jsonl'"):
        load("nothing.jsonl")
    for name in ("data/mine.cvs", str(tmp_path)):  # on no hub; a folder without data
        with pytest.raises(ValueError, match=r"a hub name, a folder, or a file that ends in \.jsonl, .*, received"):
            load(name)
    (tmp_path / "rows.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"ends in \.jsonl, .*: it is a file that ends in '\.txt'"):
        load(str(tmp_path / "rows.txt"))
    (tmp_path / "rows.txt").unlink()
    with pytest.raises(ValueError, match="either `dataset_name` or `datasets`"):
        load_splits(ScriptArguments(), DatasetMixtureConfig())
    (tmp_path / "train.jsonl").write_text(json.dumps(ROW) + "\n")
    with pytest.raises(ValueError, match="`dataset_test_split` must be one of train, received 'test'"):
        split(load(str(tmp_path)), "test", "dataset_test_split")


def test_no_held_out_prompt_of_the_sorting_task_occurs_in_training(tmp_path):
    save_data(tmp_path, train=300, test=50, backwards_share=0.6, seed=1)

    def rows(kind: str, part: str) -> list[dict]:
        return [json.loads(line) for line in (tmp_path / kind / f"{part}.jsonl").read_text().splitlines()]

    def digits(kind: str, part: str) -> list[str]:
        return [row["prompt"][0]["content"].removeprefix("sort ") for row in rows(kind, part)]

    assert digits("sft", "train") == digits("grpo", "train")
    assert not set(digits("grpo", "train")) & set(digits("grpo", "test"))
    assert len(set(make_rows(1000, 0))) == 1000
    for row, text in zip(rows("grpo", "test"), digits("grpo", "test"), strict=True):
        assert row["answer"] == "".join(sorted(text))
    answers = [row["completion"][0]["content"] for row in rows("sft", "train")]
    right = sum(answer == "".join(sorted(answer)) for answer in answers)
    assert 90 < right < 150  # 40% of 300, give or take


def test_the_real_gsm8k_turns_into_demonstrations_and_problems():
    folder = os.environ.get("HF_SCHED_GSM8K")
    if not folder or not (Path(folder) / "test.jsonl").is_file():
        pytest.skip("set HF_SCHED_GSM8K to a folder with GSM8K's train.jsonl and test.jsonl")
    problems = split(load(folder), "test", "dataset_test_split", to_problem)
    assert problems.num_rows == 1319
    assert all(problem["answer"].replace(",", "").lstrip("-").isdigit() for problem in problems)
