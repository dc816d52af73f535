"""A random model in the shape of Qwen2.5-0.5B, and made-up problems to train on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common.tokenizer import byte_level_tokenizer
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
_SPECIAL = ["<|end|>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>"]


def make_problems(count: int) -> list[dict[str, str]]:
    """Return made-up problems of about the same length and form as GSM8K's."""
    rng = random.Random(0)
    return [_made_up(rng) for _ in range(count)]


def _made_up(rng: random.Random) -> dict[str, str]:
    parts = [(rng.choice(("Ann", "Ben", "Eva", "Tom")), rng.randint(2, 60)) for _ in range(rng.randint(2, 8))]
    story = " ".join(f"On day {day} {who} buys {many} apples at the market." for day, (who, many) in enumerate(parts))
    worked, total = [], 0
    for who, many in parts:
        worked.append(f"With those of {who} there are {total} + {many} = {total + many} apples.")
        total += many
    answer = "\n".join([*worked, f"#### {total}"])
    return {"question": f"{story} How many apples are there in all?", "answer": answer}


def write_rows(problems: Iterable[dict[str, str]], folder: Path) -> None:
    """Write demonstrations (sft/) and prompts (grpo/) in the format that TRL's own scripts accept."""
    problems = list(problems)
    for kind, convert in (("sft", to_demonstration), ("grpo", to_problem)):
        file = folder / kind / "train.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(convert(row)) + "\n" for row in problems), encoding="utf-8")


def make_model(shape: dict[str, Any], folder: Path, problems: Iterable[dict[str, str]]) -> int:
    """Write a model with random weights, and a tokenizer trained on the problems; return the number of parameters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = byte_level_tokenizer((text for row in problems for text in row.values()), 8192, _SPECIAL)
    tokenizer.chat_template = TEMPLATE
    fixed = {"num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 32_768}
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**{"vocab_size": len(tokenizer), **shape}, **fixed, **tokens))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())
