"""Runs of recipes whose processes each record what they saw (tests/helpers/launchers/observed_recipe.py)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import hf_sched
from tests.helpers.recipe_runs import LAUNCHES, PEAK, SCHEDULE, STEPS, WARMUP_STEPS, Launch

OBSERVER = "tests/helpers/launchers/observed_recipe.py"
OBSERVED: dict[str, Launch] = {
    name: dataclasses.replace(launch, script=(*launch.script, OBSERVER)) for name, launch in LAUNCHES.items()
}
# Without dropout, whose masks depend on how a batch is split; the rate is high, to change the logits in a few steps.
LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear", "lora_dropout": 0.0, "learning_rate": 1e-2}


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the process of a rank recorded."""

    rates: list[list[float]]
    """Of each optimizer step, in each parameter group."""
    losses: list[float]
    tokens: torch.Tensor
    logits: torch.Tensor
    sharded: bool


def seen(folder: Path, processes: int) -> list[Seen]:
    """Read the records of a finished run, by rank."""
    found = []
    for rank in range(processes):
        read = json.loads((folder / f"observed_{rank}.json").read_text())
        assert read["world_size"] == processes
        first = STEPS - len(read["steps"])
        assert read["steps"] == list(range(first + 1, STEPS + 1))
        model = torch.load(folder / f"observed_{rank}.pt", weights_only=True)
        found.append(Seen(read["rates"], read["losses"], model["tokens"], model["logits"], read["sharded"]))
    return found


def planned(recipe: str, kind: str = "full") -> list[float]:
    """The planned learning rate of each step."""
    schedule = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP_STEPS, **SCHEDULE)
    return schedule.curve(peak=LORA["learning_rate"] if kind == "lora" else PEAK[recipe]).tolist()


def logits_of(saved: Path, base: Path, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of a saved model, or of a saved adapter on its base."""
    if (saved / "adapter_config.json").is_file():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(saved))
    else:
        model = AutoModelForCausalLM.from_pretrained(saved)
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits
