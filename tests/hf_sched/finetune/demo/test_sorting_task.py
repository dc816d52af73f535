"""The embedded task: test prompts are held out, answers are right, and the data depend on the seed alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hf_sched.finetune.demo.sorting_task import make_rows, save_data


def read(folder: Path, kind: str, part: str) -> dict[str, dict]:
    rows = [json.loads(line) for line in (folder / kind / f"{part}.jsonl").read_text().splitlines()]
    return {row["prompt"][0]["content"].removeprefix("sort "): row for row in rows}


def test_test_prompts_are_held_out_and_answers_are_right(tmp_path):
    save_data(tmp_path, train=300, test=50, backwards_share=0.6, seed=1)
    train, test = read(tmp_path, "grpo", "train"), read(tmp_path, "grpo", "test")
    assert len(train) == 300 and len(test) == 50 and not set(train) & set(test)
    assert list(read(tmp_path, "sft", "train")) == list(train)
    assert len(set(make_rows(1000, 0))) == 1000
    for digits, row in test.items():
        assert row["answer"] == "".join(sorted(digits))
    answers = [row["completion"][0]["content"] for row in read(tmp_path, "sft", "train").values()]
    assert 90 < sum(answer == "".join(sorted(answer)) for answer in answers) < 150  # about 40% of 300
    for digits, row in read(tmp_path, "dpo", "train").items():
        chosen, rejected = (row[name][0]["content"] for name in ("chosen", "rejected"))
        assert digits in train and chosen == "".join(sorted(digits)) == rejected[::-1] != rejected


def test_data_of_a_seed_never_change(tmp_path):
    """Measured accuracies on this task (docs/benchmarks.md) depend on it."""
    save_data(tmp_path, train=100, test=10, backwards_share=0.6, seed=0)
    files = [tmp_path / kind / f"{part}.jsonl" for kind in ("sft", "grpo") for part in ("train", "test")]
    assert hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16] == "eb7b2014c8ee5f4b"
