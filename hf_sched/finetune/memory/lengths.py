"""How long the samples are, before the trainer tokenizes them: the longest text of the first rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

LOOKED_AT = 2000
_TEMPLATE = 32  # tokens that a chat template may add


def longest_sample(rows: Iterable[dict[str, Any]], tokenizer: Any, columns: tuple[str, ...] | None = None) -> int:
    """Tokens of the row with the longest text, of the first `LOOKED_AT`, and what a chat template may add.

    Args:
        rows: The training data.
        tokenizer: The model's.
        columns: Those that count; None for all.
    """
    texts = (
        "\n".join(_texts([row[name] for name in columns or row if name in row])) for row in islice(rows, LOOKED_AT)
    )
    longest = max(texts, key=len, default="")
    return len(tokenizer(longest)["input_ids"]) + _TEMPLATE


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
