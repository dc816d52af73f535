"""Tokens per sample, measured on the training data with the run's own collator."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

MOST_ROWS = 5000
"""Of a larger data set, this many rows are measured, evenly spaced."""


def tokens_per_sample(rows: Any, collate: Callable[[Sequence[Any]], Any]) -> float:
    """The mean number of tokens of a row, without padding: a number that is the same on all processes.

    Args:
        rows: The training data as the trainer reads them: tokenized, and packed if the run packs.
        collate: Makes a batch of rows.

    Raises:
        ValueError: The rows have no tokens yet. The message completes a sentence with "but".
    """
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        raise ValueError("the data are streamed, so their tokens cannot be counted: write steps or samples")
    measured = range(0, len(rows), math.ceil(len(rows) / MOST_ROWS))
    with _unchanged_random_numbers():
        counts = [_tokens(collate([rows[number]])) for number in measured]
    mean = sum(counts) / len(counts)
    logger.info("%d of %d rows have %.6g tokens on average", len(counts), len(rows), mean)
    return mean


def _tokens(batch: Any) -> int:
    # A batch without padding has no mask (padding-free, packed).
    tokens = (batch.get("attention_mask"), batch.get("input_ids")) if isinstance(batch, Mapping) else (None, None)
    if tokens[1] is None:
        raise ValueError("a batch has no `input_ids` (completions are generated later): write steps or samples")
    return int(tokens[1].numel() if tokens[0] is None else tokens[0].sum())


@contextmanager
def _unchanged_random_numbers() -> Iterator[None]:
    """Collators may draw random numbers, and a run must not depend on whether its tokens were counted."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
