"""What benchmarks train on, and what their child processes need."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ON_CPU: dict[str, Any] = {"use_cpu": True, "bf16": False}
REWARD = "benchmarks.common.task.share_of_digits"
_SHARED = {**ON_CPU, "seed": 0, "report_to": "none", "logging_steps": 1}
TASK: dict[str, dict[str, Any]] = {
    "sft": {**_SHARED, "max_length": 64},
    # An untrained model gives no correct answer: with `exact_answer` every loss would be 0, and thus equal.
    "grpo": {**_SHARED, "num_generations": 4, "max_completion_length": 10, "reward_funcs": [REWARD]},
}


class RunFailed(RuntimeError):
    """Raised if a training ends with an error."""


def share_of_digits(completions: Sequence[Any], **_: Any) -> list[float]:
    """Reward an untrained model can earn: the share of digits in a completion."""
    texts = [completion[-1]["content"] or "" for completion in completions]
    return [sum(map(str.isdigit, text)) / max(len(text), 1) for text in texts]


def child_environment() -> dict[str, str]:
    """Return this environment, offline, with the repository importable before the caller's own paths."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    offline = {"HF_HUB_OFFLINE": "1", "CI": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths)}


def make_sorting_task(folder: Path, *, layers: int, width: int, train: int, backwards_share: float = 0.6) -> Path:
    """Write the sorting task and an untrained model of this size."""
    from hf_sched.finetune.demo.sorting_task import save_data, save_model

    save_model(folder / "model", layers=layers, width=width, seed=0)
    save_data(folder, train=train, test=20, backwards_share=backwards_share, seed=0)
    return folder


def byte_level_tokenizer(texts: Iterable[str], size: int, special: Sequence[str]) -> Any:
    """Train byte-level BPE on texts. The first special token ends a text, the last one pads it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(texts, vocab_size=size, special_tokens=list(special), show_progress=False)
    end, *others, pad = special if len(special) > 1 else [*special, *special]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend._tokenizer, eos_token=end, pad_token=pad, additional_special_tokens=others
    )


def save_random_model(config: Any, tokenizer: Any, folder: Path, seed: int) -> int:
    """Write a model with random weights and its tokenizer; return the number of parameters."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())
