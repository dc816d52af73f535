"""What the GPU benchmark trains: models in the shapes of Qwen2.5, and problems; made here where none are given."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
from hf_sched.finetune.data.load import to_demonstration, to_problem  # noqa: E402
from hf_sched.finetune.demo.sorting_task import TEMPLATE  # noqa: E402

VOCABULARY = 151_936
# Of Qwen2.5's config.json; both have 2 key-value heads and tied embeddings.
SHAPES: dict[str, dict[str, Any]] = {
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SPECIAL = ["<pad>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def read_problems(gsm8k: Path | None) -> list[dict[str, str]]:
    """The questions and answers of GSM8K's train.jsonl, or made-up ones, about as long and in the same form."""
    if gsm8k is not None:
        file = gsm8k / "train.jsonl"
        if not file.is_file():
            raise ValueError(f"`--gsm8k` must be a folder with train.jsonl and test.jsonl, received {str(gsm8k)!r}")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    return [_made_up(rng) for _ in range(2000)]


def _made_up(rng: random.Random) -> dict[str, str]:
    parts = [(rng.choice(("Ann", "Ben", "Eva", "Tom")), rng.randint(2, 60)) for _ in range(rng.randint(2, 8))]
    requested = " ".join(
        f"On day {day} {who} buys {many} apples at the market." for day, (who, many) in enumerate(parts)
    )
    worked, total = [], 0
    for who, many in parts:
        worked.append(f"With those of {who} there are {total} + {many} = {total + many} apples.")
        total += many
    return {
        "question": f"{requested} How many apples are there in all?",
        "answer": "\n".join([*worked, f"#### {total}"]),
    }


def write_rows(problems: Iterable[dict[str, str]], folder: Path) -> None:
    """As demonstrations in sft/ and as prompts in grpo/, in the form that TRL's own scripts take, too."""
    problems = list(problems)
    for kind, convert in (("sft", to_demonstration), ("grpo", to_problem)):
        file = folder / kind / "train.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(convert(row)) + "\n" for row in problems), encoding="utf-8")


def make_model(
    size: str, folder: Path, problems: Iterable[dict[str, str]], *, tiny: bool, tokenizer: str | None
) -> None:
    """Write a model with random weights, and its tokenizer: the one given, or one trained on the problems."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    read = AutoTokenizer.from_pretrained(tokenizer) if tokenizer else _train_tokenizer(problems)
    config = Qwen2Config(
        **(TINY if tiny else SHAPES[size]),
        vocab_size=len(read) if tiny else VOCABULARY,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=32_768,
        bos_token_id=None,
        eos_token_id=read.eos_token_id,
        pad_token_id=read.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    read.save_pretrained(folder)


def _train_tokenizer(problems: Iterable[dict[str, str]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, initial_alphabet=alphabet, special_tokens=_SPECIAL, show_progress=False
    )
    backend.train_from_iterator((text for row in problems for text in row.values()), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        pad_token="<pad>",
        additional_special_tokens=_SPECIAL[2:],
    )
    made.chat_template = TEMPLATE
    return made
