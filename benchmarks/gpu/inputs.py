"""Models with random weights in the shape of real ones, and problems to train on."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.task import byte_level_tokenizer, save_random_model
from hf_sched.finetune.data import to_demonstration, to_problem
from hf_sched.finetune.demo.sorting_task import TEMPLATE

_NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# From the config.json of Qwen2.5. The tiny model runs on a CPU.
SHAPES = {"0.5B": (896, 4864, 24, 14), "1.5B": (1536, 8960, 28, 12), "tiny": (32, 64, 2, 4)}
_SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<pad>"]


def read_problems(folder: Path | None, count: int) -> list[dict[str, str]]:
    """Return problems of GSM8K (a folder with `train.jsonl`), or made-up ones of about the same length and form."""
    if folder is not None:
        lines = Path(folder, "train.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[:count]]
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


def make_inputs(problems: Sequence[dict[str, str]], folder: Path) -> dict[str, int]:
    """Write demonstrations (sft/) and prompts (grpo/) in the format that TRL's own scripts accept, and a tokenizer.

    Returns:
        dict[str, int]: Tokens of the longest demonstration and of the longest prompt.
    """
    tokenizer = byte_level_tokenizer((text for row in problems for text in row.values()), 8192, _SPECIAL)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "tokenizer")
    longest = {}
    for kind, convert in (("sft", to_demonstration), ("grpo", to_problem)):
        rows = [convert(row) for row in problems]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        chats = [[*row["prompt"], *row.get("completion", [])] for row in rows]
        longest[kind] = max(map(len, tokenizer.apply_chat_template(chats)["input_ids"]))
    return longest


def make_model(size: str, folder: Path) -> int:
    """Write a model with random weights to `folder`/`size`; return its number of parameters."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    shape = dict(zip(_NAMES, SHAPES[size], strict=True)) | {"num_key_value_heads": 2}
    vocabulary = len(tokenizer) if size == "tiny" else 151_936
    fixed = {"tie_word_embeddings": True, "max_position_embeddings": 32_768, "vocab_size": vocabulary}
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # a GPU draws 1.5 billion numbers at once
        return save_random_model(Qwen2Config(**fixed, **shape, **tokens), tokenizer, folder / size, seed=0)
