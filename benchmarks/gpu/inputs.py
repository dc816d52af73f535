"""A random model in the shape of Qwen2.5-0.5B, and made-up problems to train on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]

from benchmarks.common.task import byte_level_tokenizer, save_random_model
from hf_sched.finetune.data import to_demonstration, to_problem
from hf_sched.finetune.demo.sorting_task import TEMPLATE

# From the model's config.json.
SHAPE: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
}
TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<pad>"]


def make_problems(count: int) -> list[dict[str, str]]:
    """Return made-up problems of about the same length and form as GSM8K's."""
    rng = random.Random(0)
    problems = []
    for _ in range(count):
        bought = [rng.randint(2, 60) for _ in range(rng.randint(2, 8))]
        story = " ".join(f"On day {day} Ann buys {many} apples at the market." for day, many in enumerate(bought))
        worked, total = "", 0
        for day, many in enumerate(bought):
            worked += f"After day {day} she has {total} + {many} = {total + many} apples.\n"
            total += many
        problems.append({"question": f"{story} How many has she in all?", "answer": f"{worked}#### {total}"})
    return problems


def write_rows(problems: Sequence[dict[str, str]], folder: Path) -> None:
    """Write demonstrations (sft/) and prompts (grpo/) in the format that TRL's own scripts accept."""
    for kind, convert in (("sft", to_demonstration), ("grpo", to_problem)):
        (folder / kind).mkdir(parents=True)
        pd.DataFrame(map(convert, problems)).to_json(folder / kind / "train.jsonl", orient="records", lines=True)


def make_model(shape: dict[str, Any], folder: Path, problems: Sequence[dict[str, str]]) -> int:
    """Write a model with random weights, and a tokenizer trained on the problems; return the number of parameters."""
    from transformers import Qwen2Config

    tokenizer = byte_level_tokenizer((text for row in problems for text in row.values()), 8192, _SPECIAL)
    tokenizer.chat_template = TEMPLATE
    fixed = {"num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 32_768}
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(**{"vocab_size": len(tokenizer), **shape}, **fixed, **tokens)
    return save_random_model(config, tokenizer, folder, seed=0)
