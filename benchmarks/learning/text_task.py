"""A small language model to train from nothing on real text: tokenizer, models with random weights, text in pieces.

    python -m benchmarks.learning.text_task --text data/gsm8k --output runs/learning/text --seeds 0 1 2 3 4

The text is a file, or a folder with GSM8K's train.jsonl and test.jsonl, whose questions and answers are taken. Writes
data/train.jsonl and data/test.jsonl (`text`) and a model for each seed, model-0 and so on: a Llama with a byte-level
BPE tokenizer learnt from the training text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

PIECE = 4096
"""Characters of a row that is cut out of a file."""
END = "<|end|>"


def read_text(source: Path, held_out: float = 0.05) -> tuple[list[str], list[str]]:
    """Pieces of text to train on and to hold out: of GSM8K its own splits, of a file its last part.

    Raises:
        ValueError: It is neither a file nor such a folder, or too short to hold some of it out.
    """
    if source.is_dir():
        splits = [source / f"{split}.jsonl" for split in ("train", "test")]
        if not all(split.is_file() for split in splits):
            raise ValueError(
                f"`--text` must be a text file or a folder with train.jsonl and test.jsonl, received {source}"
            )
        train, test = ([_problem(line) for line in split.read_text(encoding="utf-8").splitlines()] for split in splits)
        return train, test
    if not source.is_file():
        raise ValueError(f"`--text` must be a text file or a folder with train.jsonl and test.jsonl, received {source}")
    text = source.read_text(encoding="utf-8")
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    last = max(1, round(held_out * len(pieces)))
    if len(pieces) < 20:
        raise ValueError(f"`--text` must have {20 * PIECE} characters or more, {source} has {len(text)}")
    return pieces[:-last], pieces[-last:]


def save_models(
    folder: Path, text: Sequence[str], seeds: Sequence[int], *, layers: int, width: int, vocab: int
) -> None:
    """Write `model-{seed}`, each with the same tokenizer and with random weights of its own."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(text, vocab_size=vocab, special_tokens=[END], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token=END, pad_token=END)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
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


def save_rows(file: Path, pieces: Sequence[str]) -> None:
    """Write one row a piece."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces), encoding="utf-8")


def main() -> None:
    """Make all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--train", type=int, default=3000, help="pieces to train on (default: %(default)s)")
    parser.add_argument("--test", type=int, default=200, help="pieces held out (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=512, help="tokens (default: %(default)s)")
    args = parser.parse_args()
    try:
        train, test = read_text(args.text)
    except ValueError as error:
        parser.error(str(error))
    save_rows(args.output / "data" / "train.jsonl", train[: args.train])
    save_rows(args.output / "data" / "test.jsonl", test[: args.test])
    save_models(args.output, train[: args.train], args.seeds, layers=args.layers, width=args.width, vocab=args.vocab)
    sizes = f"{len(train[: args.train])} pieces to train on, {len(test[: args.test])} held out"
    print(f"The text is in {args.output}: {sizes}.")


def _problem(line: str) -> str:
    row = json.loads(line)
    return f"{row['question']}\n{row['answer']}"


if __name__ == "__main__":
    main()
