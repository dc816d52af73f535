"""Run a recipe and measure the divergence check: its collective operations, and its share of an optimizer step.

    accelerate launch --config_file accelerate_configs/cpu_2proc.yaml tests/helpers/launchers/timed_divergence.py \
        recipes/sft.py --config recipes/configs/demo_sft.yaml

Prints a line for each rank, and writes it into `output_dir` as `divergence_RANK.json`. On a busy machine the wall time
is mostly the time that a rank waits for the other one; CPU time is what the check costs.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from hf_sched.finetune.callbacks.divergence import DivergenceStop

EVENTS = ("on_pre_optimizer_step", "on_optimizer_step", "on_step_end")


class Timed:
    """Wraps the check: wall and CPU seconds, and collective operations, of each step."""

    def __init__(self) -> None:
        self.seconds: dict[int, np.ndarray] = {}
        self.collectives: dict[int, int] = {}
        self.begun: list[np.ndarray] = []
        self.is_inside = False

    def wrap(self, name: str) -> Any:
        original = getattr(DivergenceStop, name)

        def timed(callback: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step = state.global_step + (name != "on_step_end")
            self.collectives.setdefault(step, 0)
            self.is_inside, start = True, now()
            self.step = step
            original(callback, args, state, control, **kwargs)
            self.is_inside = False
            self.seconds[step] = self.seconds.get(step, 0.0) + now() - start
            if name == "on_step_end":
                self.begun.append(start)
            if state.global_step == state.max_steps:
                self.report(args)

        return timed

    def all_reduce(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_inside:
            self.collectives[self.step] += 1
        return original_all_reduce(*args, **kwargs)

    def report(self, args: Any) -> None:
        step = np.median(np.diff(self.begun, axis=0), axis=0)
        wall, cpu = np.median(list(self.seconds.values()), axis=0) / step
        seen = {"wall_share": wall, "cpu_share": cpu, "collectives": list(self.collectives.values())}
        Path(args.output_dir, f"divergence_{args.process_index}.json").write_text(json.dumps(seen), encoding="utf-8")
        print(f"rank {args.process_index}: {wall:.2%} of the wall time and {cpu:.2%} of the CPU time of a step")


def now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


original_all_reduce = dist.all_reduce

if __name__ == "__main__":
    measured = Timed()
    for event in EVENTS:
        setattr(DivergenceStop, event, measured.wrap(event))
    dist.all_reduce = measured.all_reduce
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
