"""Checks that trainings on this device use exactly the planned learning rates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

import hf_sched
from benchmarks.common.task import ON_CPU
from hf_sched.audit import audit

LAUNCHES = {
    "DDP": ["torch.distributed.run", "--standalone", "--nproc-per-node=1"],
    "FSDP2": ["accelerate.commands.launch", "--config_file=accelerate_configs/fsdp2.yaml", "--num_processes=1"],
}
_ENVIRONMENT = dict(os.environ)  # to which trainings in this process add
STEPS, PEAK = 20, 1e-3
SCHEDULE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=5, floor_ratio=0.1)
ON_GPU = torch.cuda.is_available()
_SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
PRECISIONS: list[dict[str, Any]] = [
    {},
    {"bf16": True},
    {"optim": "sgd"},
    {"optim": "adafactor"},
    {"gradient_accumulation_steps": 2},
]
if ON_GPU:
    PRECISIONS += [{"fp16": True}, {"optim": "adamw_torch_fused", "bf16": True}]


class _Recorder(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Reads the learning rates that each optimizer step uses; stops after a step; makes gradients overflow."""

    def __init__(self, stop: int | None, overflow: int | None) -> None:
        self.stop, self.overflow = stop, overflow
        self.trainer: Any = None
        self.rates: list[list[float]] = []
        self.skipped: list[bool] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.overflow:
            self.trainer.accelerator.scaler.update(2.0**30)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.skipped.append(bool(optimizer.step_was_skipped))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.stop


def _train(
    folder: Path, *, resume: str | None = None, stop: int | None = None, overflow: int | None = None, **given: Any
) -> tuple[_Recorder, list[float]]:
    set_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=512, num_key_value_heads=4, **_SMALL))
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 512, (256, 32))]
    fixed = {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"floor_ratio": 0.1}, "warmup_steps": 5}
    common = {"max_steps": STEPS, "learning_rate": PEAK, "logging_steps": 1, "report_to": [], "save_steps": STEPS // 2}
    args = TrainingArguments(str(folder), **fixed, **common, use_cpu=not ON_GPU, disable_tqdm=True, **given)
    recorder = _Recorder(stop, overflow)
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[recorder, hf_sched.LearningRateLog()])
    recorder.trainer = trainer
    trainer.train(resume_from_checkpoint=resume)
    return recorder, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def check_rates(folder: Path) -> str:
    """Check every group's rate at every step, under several precisions and optimizers."""
    for number, given in enumerate(PRECISIONS):
        seen, _ = _train(folder / str(number), save_strategy="no", **given)
        planned = [SCHEDULE.lr(step, peak=PEAK) for step in range(STEPS)]
        made = [rates for rates, skipped in zip(seen.rates, seen.skipped, strict=True) if not skipped]
        _require(all(set(rates) == {plan} for rates, plan in zip(made, planned, strict=False)), f"off plan: {given}")
    return f"planned rate in all groups at all {STEPS} steps, {len(PRECISIONS)} trainings"


def check_resume(folder: Path) -> str:
    """Check that a resume has the rates and the losses of an uninterrupted run."""
    whole, losses = _train(folder / "whole", bf16=True)
    half = STEPS // 2
    _train(folder / "part", bf16=True, stop=half)
    rest, resumed = _train(folder / "part", bf16=True, resume=str(folder / "part" / f"checkpoint-{half}"))
    _require(rest.rates == whole.rates[half:], "other rates after the resume")
    _require(resumed[-half:] == losses[-half:], "other losses after the resume")
    return "rates and losses equal, bit for bit"


def check_overflow(folder: Path) -> str:
    """Check that a step which a gradient scaler skips does not step the schedule."""
    if not ON_GPU:
        return "needs a GPU"
    # Accelerate does not notice the steps that a fused optimizer skips.
    seen, _ = _train(folder, fp16=True, optim="adamw_torch", overflow=8, save_strategy="no")
    _require(any(seen.skipped[8:]), "no step was skipped")
    made = 0
    for rates, skipped in zip(seen.rates, seen.skipped, strict=True):
        _require(set(rates) == {SCHEDULE.lr(made, peak=PEAK)}, "a rate is off the plan")
        made += not skipped
    return f"{sum(seen.skipped)} steps skipped, the schedule waited"


def check_tensor_rate(folder: Path) -> str:
    """Check that a tensor as learning rate stays the same tensor, and that a compiled step is compiled once."""
    device = "cuda" if ON_GPU else "cpu"
    parameter = torch.nn.Parameter(torch.randn(1000, device=device))
    rate = torch.tensor(PEAK, device=device)
    optimizer = torch.optim.AdamW([parameter], lr=rate, capturable=ON_GPU, foreach=False)
    parameter.grad = torch.randn_like(parameter)
    scheduler = hf_sched.get_scheduler("cosine_floor", optimizer, 5, STEPS)
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(optimizer.step, backend=backend)
    compilations = []
    for step in range(STEPS):
        planned = SCHEDULE.lr(step, peak=PEAK)
        _require(abs(float(rate) - planned) <= 1e-6 * planned, f"off the plan at step {step}")
        compiled()
        compilations.append(len(graphs))
        scheduler.step()
    _require(optimizer.param_groups[0]["lr"] is rate, "the tensor was replaced")
    # The first step creates the optimizer's state, in a separate graph.
    _require(compilations[0] > 0 and compilations[1] == compilations[-1], f"recompilations: {compilations}")
    return "the same tensor, no recompilation"


def check_distributed(folder: Path, launch: str) -> str:
    """Check the learning rates of SFT in a process group of one process."""
    command = [sys.executable, "-m", *LAUNCHES[launch], "-m", "benchmarks.gpu.plugin", str(folder)]
    done = subprocess.run(command, env=_ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    _require(done.returncode == 0, "the training failed; see the log")
    return done.stdout.splitlines()[-1]


def _train_distributed(folder: Path) -> str:
    """Run SFT in the process group that this process was launched in, and audit its learning rates."""
    from accelerate import PartialState

    from hf_sched.finetune import sft

    inputs, config = folder.parents[1], folder / "config.yaml"
    arguments = {
        "model_name_or_path": str(inputs / "tiny"),
        "dataset_name": str(inputs / "sft"),
        "output_dir": str(folder / "run"),
        "lr_scheduler_type": "cosine_floor",
        "max_steps": 8,
        "save_strategy": "no",
        "report_to": "none",
        "per_device_train_batch_size": 2,
        "max_length": 256,
        **({} if ON_GPU else ON_CPU),
    }
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(arguments), encoding="utf-8")
    _require(sft.main(["--config", str(config)]) == 0, "the training failed")
    state = PartialState()
    _require(audit(folder / "run").ok, "the learning rates are off the plan")
    return f"{state.distributed_type.value} over {state.backend}: planned rates"


CHECKS: dict[str, Callable[[Path], str]] = {
    "rates": check_rates,
    "resume": check_resume,
    "fp16 overflow": check_overflow,
    "tensor learning rate": check_tensor_rate,
    **{launch: partial(check_distributed, launch=launch) for launch in LAUNCHES},
}

if __name__ == "__main__":
    print(_train_distributed(Path(sys.argv[1])))
