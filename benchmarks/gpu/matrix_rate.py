"""How fast a device multiplies matrices, and how many operations training a language model needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

# Dense bf16 with float32 accumulation, in FLOP/s, from NVIDIA's data sheets, by a part of the device's name.
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
    """Return the highest FLOP/s of a square bf16 matrix product within `SECONDS`."""
    size = SIZES[device]
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def published_rate(name: str) -> float | None:
    """Return the data sheet's rate of a device; None if it is not in the table."""
    return next((rate for part, rate in PUBLISHED.items() if part in name), None)


@dataclass(frozen=True)
class ModelCost:
    """FLOPs of matrix products per token of a decoder, without recomputed activations."""

    weights: int
    """Weights in matrix products: all but embeddings that are only looked up."""
    layers: int
    width: int

    @classmethod
    def of(cls, config: Any, parameters: int) -> ModelCost:
        """Compute it from the model's config and its number of parameters, tied embeddings counted once."""
        looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        return cls(parameters - looked_up, config.num_hidden_layers, config.hidden_size)

    def forward(self, length: float) -> float:
        """Return 2 FLOPs per weight plus attention; causal attention sees half of the sequence on average."""
        return 2 * self.weights + 4 * self.layers * self.width * length / 2

    def training(self, length: float) -> float:
        """Return forward plus backward, which costs twice as much."""
        return 3 * self.forward(length)
