"""A tokenizer trained on the spot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def byte_level_tokenizer(texts: Iterable[str], size: int, special: Sequence[str]) -> Any:
    """Train byte-level BPE on texts. The first special token ends a text; the second one, or the same, pads it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(texts, vocab_size=size, special_tokens=list(special), show_progress=False)
    end, pad, *more = [*special, special[0]] if len(special) == 1 else special
    return PreTrainedTokenizerFast(
        tokenizer_object=backend._tokenizer, eos_token=end, pad_token=pad, additional_special_tokens=more
    )
