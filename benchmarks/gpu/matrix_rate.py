"""How fast a device multiplies matrices, and how much of that a training of a language model needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

# Dense bf16 with sums in float32, in FLOP/s, by NVIDIA's data sheets; by what the device's name contains.
PUBLISHED = {
    "H200": 989e12,
    "H100 80GB HBM3": 989e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
SECONDS = 2.0
SIZES = {"cuda": 8192, "cpu": 256}


def measure_matrix_rate(device: str) -> float:
    """The most FLOP/s of a square bf16 matrix product that this device reaches within `SECONDS`."""
    size = SIZES[device]
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def published_rate(name: str) -> float | None:
    """The data sheet's rate of a device; None if it is not in the table."""
    return next((rate for part, rate in PUBLISHED.items() if part in name), None)


@dataclass(frozen=True)
class ModelCost:
    """What a token costs a decoder, in FLOPs of matrix products; recomputed activations are no part of it."""

    weights: int
    """That take part in matrix products: all but the embeddings that are only looked up, and the output's."""
    layers: int
    width: int

    @classmethod
    def of(cls, config: Any, parameters: int) -> ModelCost:
        """By the model's config and the number of its parameters, tied embeddings counted once."""
        looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        return cls(parameters - looked_up, config.num_hidden_layers, config.hidden_size)

    def forward(self, length: float) -> float:
        """Of a token in a sequence of this length: 2 a weight; attention is causal and sees half of it on average."""
        return 2 * self.weights + 4 * self.layers * self.width * length / 2

    def training(self, length: float) -> float:
        """Forward, and twice that backward: 6 a weight."""
        return 3 * self.forward(length)
