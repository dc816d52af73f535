"""A small language model to train from random weights on real text: tokenizer, models, and the text in pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.tokenizer import byte_level_tokenizer

PIECE = 4096  # characters per row of a text file
HELD_OUT = 0.05  # of a text file
MOST_ROWS = {"train": 1500, "test": 200}


def make_text_task(source: Path, folder: Path, seeds: Sequence[int]) -> None:
    """Write data/train.jsonl, data/test.jsonl (`text`) and a model for each seed: model-0, model-1, ...

    Raises:
        ValueError: The source is not a text, or is too short.
    """
    splits = read_text(source)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, most in MOST_ROWS.items():
        rows = "".join(json.dumps({"text": piece}) + "\n" for piece in splits[split][:most])
        (folder / "data" / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    save_models(folder, splits["train"][: MOST_ROWS["train"]], seeds)


def read_text(source: Path) -> dict[str, list[str]]:
    """Return pieces of text to train on and to hold out: GSM8K's own splits, or the last part of a text file."""
    if source.is_file():
        text = source.read_text(encoding="utf-8")
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        if len(pieces) < 20:
            raise ValueError(f"`--text` must have at least {20 * PIECE} characters; {source} has {len(text)}")
        test = round(HELD_OUT * len(pieces))
        return {"train": pieces[:-test], "test": pieces[-test:]}
    if not all((source / f"{split}.jsonl").is_file() for split in MOST_ROWS):
        raise ValueError(f"`--text` must be a text file or a folder with train.jsonl and test.jsonl, received {source}")
    found: dict[str, list[str]] = {}
    for split in MOST_ROWS:
        rows = map(json.loads, (source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines())
        found[split] = [f"{row['question']}\n{row['answer']}" for row in rows]
    return found


def save_models(folder: Path, text: Sequence[str], seeds: Sequence[int]) -> None:
    """Write a Llama for each seed with random weights, and a byte-level BPE tokenizer trained on the text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_level_tokenizer(text, 512, ["<|end|>"])
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
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder / f"model-{seed}")
        tokenizer.save_pretrained(folder / f"model-{seed}")
