"""A task, a model and its data made by code: something real to fine-tune on a CPU in minutes, without a hub.

    python -m hf_sched.finetune.demo.sorting_task --output_dir runs/demo/task

The task is to sort digits: "sort 52913" -> "12359". The demonstrations are of mixed quality, as scraped ones are: in
60% of them the digits are sorted the wrong way round, so a model trained on them learns two habits and answers mostly
in the wrong one. Reinforcement learning, which rewards the right answer, has something to find. No prompt of the test
set occurs in training.

Writes, below the output directory: `model/`, a Llama of 0.5M parameters with random weights, its tokenizer (one token a
character) and chat template; `sft/`, demonstrations (`prompt`, `completion`); `grpo/`, prompts with the right `answer`;
both as train.jsonl and test.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

INSTRUCTION = "sort "
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_rows(total: int, seed: int) -> list[str]:
    """`total` different strings of 4 to 8 digits."""
    rng = random.Random(seed)
    rows: dict[str, None] = {}
    while len(rows) < total:
        rows["".join(rng.choices("0123456789", k=rng.randint(4, 8)))] = None
    return list(rows)


def demonstration(digits: str, backwards: bool) -> dict[str, object]:
    """A prompt and the answer of a demonstrator who sorts it the right or the wrong way round."""
    answer = "".join(sorted(digits, reverse=backwards))
    return {"prompt": _user(digits), "completion": [{"role": "assistant", "content": answer}]}


def problem(digits: str) -> dict[str, object]:
    """A prompt and its right answer."""
    return {"prompt": _user(digits), "answer": "".join(sorted(digits))}


def save_data(directory: Path, *, train: int, test: int, backwards_share: float, seed: int) -> None:
    """Write the demonstrations and the problems; the test rows of both are the same prompts."""
    rows = make_rows(train + test, seed)
    rng = random.Random(seed)
    for split, digits in (("train", rows[:train]), ("test", rows[train:])):
        _write(directory / "sft" / f"{split}.jsonl", [demonstration(d, rng.random() < backwards_share) for d in digits])
        _write(directory / "grpo" / f"{split}.jsonl", [problem(d) for d in digits])


def save_model(directory: Path, *, layers: int, width: int, seed: int) -> None:
    """Write a small Llama with random weights, and a tokenizer of one token a character."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    characters = sorted(set(INSTRUCTION + "0123456789"))
    tokens = [*special, *characters]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=special[3:],
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def main() -> None:
    """Make all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo/task"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=6000, help="training prompts (default: %(default)s)")
    parser.add_argument("--test", type=int, default=500, help="held-out prompts (default: %(default)s)")
    parser.add_argument(
        "--backwards_share", type=float, default=0.6, help="of the demonstrations (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args()
    save_model(args.output_dir / "model", layers=args.layers, width=args.width, seed=args.seed)
    save_data(args.output_dir, train=args.train, test=args.test, backwards_share=args.backwards_share, seed=args.seed)
    print(f"The sorting task is in {args.output_dir}: {args.train} prompts to train on, {args.test} held out.")


def _user(digits: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": INSTRUCTION + digits}]


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
