"""Draw the picture in the README: the schedules of hf_sched beside the built-in ones that come nearest.

python docs/draw_schedules.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import hf_sched
from hf_sched import plotting

STEPS, WARMUP, PEAK = 100, 10, 3e-4
PAST_THE_END = 15

# Ours and its arguments, and the built-in one and its arguments.
PAIRS = [
    ("cosine_floor", {"floor_ratio": 0.1}, "cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("warmup_cosine", {"warmup_shape": "exponential"}, "cosine", {}),
    ("cosine_restarts", {"num_cycles": 3, "peak_multiplier": 0.7}, "cosine_with_restarts", {"num_cycles": 3}),
]


def played(name: str, kwargs: dict[str, object]) -> list[float]:
    """The learning rates that a torch optimizer really trains with, past the end too."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = hf_sched.get_scheduler(name, optimizer, WARMUP, STEPS, dict(kwargs))
    rates = []
    for _ in range(STEPS + PAST_THE_END):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def main() -> None:
    """Write docs/schedules.png."""
    figure, axes = plotting.new_figure(len(PAIRS))
    for ax, (ours, our_kwargs, theirs, their_kwargs) in zip(axes, PAIRS, strict=True):
        curves = {
            ours: played(ours, our_kwargs),
            f"built-in {theirs}": played(theirs, their_kwargs),
        }
        plotting.draw_curves(ax, curves)
        ax.set_ylim(0, 1.35 * PEAK)  # room for the legend
        ax.axvline(STEPS - 1, color="0.6", linewidth=0.8, linestyle=":")
        ax.text(STEPS - 2, 0.6 * PEAK, "last step", ha="right", color="0.4", fontsize=8)
        ax.set_title(", ".join([ours, *(f"{key}={value}" for key, value in our_kwargs.items())]), fontsize=9)
    figure.savefig(Path(__file__).with_name("schedules.png"))


if __name__ == "__main__":
    main()
