"""A small language model to train from random weights on the text of GSM8K."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]

from benchmarks.common.task import byte_level_tokenizer, save_random_model

MOST_ROWS = {"train": 1500, "test": 200}


def make_text_task(source: Path, folder: Path, seeds: Sequence[int]) -> None:
    """Write data/train.jsonl, data/test.jsonl (`text`) and a model for each seed: model-0, model-1, ...

    The source is a folder with train.jsonl and test.jsonl (`question`, `answer`).
    """
    from transformers import LlamaConfig

    (folder / "data").mkdir(parents=True, exist_ok=True)
    texts = {}
    for split, most in MOST_ROWS.items():
        rows = pd.read_json(source / f"{split}.jsonl", lines=True, dtype=False).head(most)
        texts[split] = rows["question"] + "\n" + rows["answer"]
        texts[split].to_frame("text").to_json(folder / "data" / f"{split}.jsonl", orient="records", lines=True)
    tokenizer = byte_level_tokenizer(texts["train"], 512, ["<|end|>"])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    for seed in seeds:
        save_random_model(config, tokenizer, folder / f"model-{seed}", seed)
