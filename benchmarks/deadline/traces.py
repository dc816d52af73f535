"""Simulated runs: traces of step times that drive `hf_sched.LiveControl` with a clock of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import torch

import hf_sched

Array = npt.NDArray[np.float64]
STEPS = 20_000
"""Of the requested schedule: more than any budget allows."""
KINDS: dict[str, Callable[[np.random.Generator], Array]] = {
    "constant": lambda draw: np.ones(STEPS),
    "log-normal noise": lambda draw: draw.lognormal(0.0, draw.uniform(0.2, 0.8), STEPS),
    "slow drift": lambda draw: noise(draw) * np.linspace(1.0, draw.uniform(0.5, 8.0), STEPS),
    "twice as slow from a step on": lambda draw: noise(draw) * np.where(np.arange(STEPS) < half(draw), 1.0, 2.0),
    "twice as fast from a step on": lambda draw: noise(draw) * np.where(np.arange(STEPS) < half(draw), 1.0, 0.5),
    "stragglers": lambda draw: noise(draw) * np.where(draw.random(STEPS) < 0.02, draw.uniform(5, 20, STEPS), 1.0),
    "long first step": lambda draw: np.concatenate([[draw.uniform(50, 200)], noise(draw)[1:]]),
    "generation every fourth step": lambda draw: noise(draw) * np.where(np.arange(STEPS) % 4 == 0, 6.0, 0.5),
}


def noise(draw: np.random.Generator) -> Array:
    """Step times that vary by 10%."""
    return draw.lognormal(0.0, 0.1, STEPS)


def half(draw: np.random.Generator) -> int:
    """A step at which something changes, before or during the cooldown."""
    return int(draw.uniform(100, 2000))


@dataclass
class Ended:
    """How a run ended."""

    kind: str
    budget: float
    """Seconds."""
    left: float
    """Seconds before the deadline when everything was saved; negative if it was late."""
    longest_step: float
    steps: int
    changes: int
    """How often the cooldown began or became shorter."""
    is_on_floor: bool
    has_risen: bool
    """Whether the learning rate rose after the warmup."""


@dataclass
class Clock:
    """A clock that the simulation sets."""

    now: float = 1e9

    def __call__(self) -> float:
        return self.now


@dataclass
class Run:
    """A run of an optimizer without a model, with the events that a Trainer has."""

    folder: Path
    clock: Clock
    control: hf_sched.LiveControl
    eval_steps: int
    save_steps: int
    rates: list[float] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        names = {"logging_strategy": "no", "eval_strategy": "steps", "save_strategy": "steps"}
        schedule_of_args = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"floor_ratio": 0.1}}
        self.args = SimpleNamespace(
            output_dir=str(self.folder), device=torch.device("cpu"), **names, **schedule_of_args
        )
        self.state = SimpleNamespace(
            **{"global_step": 0, "max_steps": STEPS, "logging_steps": 10, "stateful_callbacks": {}},
            **{"eval_steps": self.eval_steps, "save_steps": self.save_steps, "is_world_process_zero": True},
        )
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = hf_sched.build("wsd", num_training_steps=STEPS, num_warmup_steps=50, floor_ratio=0.1)
        self.scheduler = hf_sched.ScheduleLR(optimizer, schedule, name="wsd")
        optimizer.step()  # torch checks the order of the calls
        self.optimizer = optimizer

    def event(self, name: str, seconds: float = 0.0) -> None:
        """Let the time of an event pass, and call the callback."""
        self.clock.now += seconds
        getattr(self.control, name)(self.args, self.state, None, lr_scheduler=self.scheduler)

    def train(self, times: Iterator[float], pause: Callable[[], float]) -> None:
        """Train to the end, with evaluations and checkpoints that last `pause()`."""
        self.event("on_train_begin")
        for seconds in times:
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            self.scheduler.step()
            self.state.global_step += 1
            before = self.scheduler.group_schedule
            self.event("on_step_end", seconds)
            self.changes += self.scheduler.group_schedule is not before
            ends = self.state.global_step >= self.state.max_steps
            if ends or self.state.global_step % self.eval_steps == 0:
                self.event("on_evaluate", pause())
            if ends or self.state.global_step % self.save_steps == 0:
                self.event("on_save", pause())
            if ends:
                break
        self.clock.now += pause()  # the model
        self.event("on_train_end")


def simulate(kind: str, seed: int, folder: Path) -> Ended:
    """Simulate a run of some kind of step times, in a budget of 300 to 5,000 steps of the first kind."""
    draw = np.random.default_rng([seed, *map(ord, kind)])
    times, budget = KINDS[kind](draw), float(np.exp(draw.uniform(np.log(300), np.log(5000))))
    clock = Clock()
    deadline = clock.now + budget
    control = hf_sched.LiveControl(f"{budget:.3f}s", clock=clock)
    longest = budget * draw.uniform(0.001, 0.02)  # of an evaluation or checkpoint
    eval_steps, save_steps = (int(budget * draw.uniform(0.05, 0.3)) for _ in range(2))
    run = Run(folder, clock, control, eval_steps, save_steps)
    run.train(iter(times.tolist()), lambda: longest * draw.uniform(0.8, 1.0))
    rates = np.array(run.rates)
    return Ended(
        kind,
        budget,
        deadline - clock.now,
        float(times[: len(rates)].max()),
        len(rates),
        run.changes,
        bool(rates[-1] == 0.1),
        bool((np.diff(rates[50:]) > 0).any()),
    )
