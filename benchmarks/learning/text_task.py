"""A small language model to train from random weights on real text: tokenizer, models, and the text in pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.tokenizer import byte_level_tokenizer

PIECE = 4096
"""Characters per row of a text file."""
TRAIN, TEST = 1500, 200
"""The most rows of each split."""


def make_text_task(source: Path, folder: Path, seeds: Sequence[int]) -> None:
    """Write data/train.jsonl, data/test.jsonl (`text`) and a model for each seed: model-0, model-1, ...

    Raises:
        ValueError: The source is not a text, or is too short.
    """
    train, test = (pieces[:most] for pieces, most in zip(read_text(source), (TRAIN, TEST), strict=True))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, pieces in (("train", train), ("test", test)):
        rows = "".join(json.dumps({"text": piece}) + "\n" for piece in pieces)
        (folder / "data" / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    save_models(folder, train, seeds)


def read_text(source: Path, held_out: float = 0.05) -> tuple[list[str], list[str]]:
    """Return pieces of text to train on and to hold out: GSM8K's own splits, or the last part of a text file.

    Raises:
        ValueError: It is neither a text file nor such a folder, or it is too short.
    """
    if source.is_file():
        text = source.read_text(encoding="utf-8")
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        if len(pieces) < 20:
            raise ValueError(f"`--text` must have at least {20 * PIECE} characters; {source} has {len(text)}")
        last = max(1, round(held_out * len(pieces)))
        return pieces[:-last], pieces[-last:]
    splits = [source / f"{split}.jsonl" for split in ("train", "test")]
    if not all(split.is_file() for split in splits):
        raise ValueError(f"`--text` must be a text file or a folder with train.jsonl and test.jsonl, received {source}")
    rows = ([json.loads(line) for line in split.read_text(encoding="utf-8").splitlines()] for split in splits)
    train, test = ([f"{row['question']}\n{row['answer']}" for row in split] for split in rows)
    return train, test


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
