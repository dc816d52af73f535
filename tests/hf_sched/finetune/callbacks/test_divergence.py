"""A run that diverges is stopped before it spoils its weights or a checkpoint, and says so by its exit status."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from hf_sched.finetune.callbacks import divergence
from hf_sched.finetune.callbacks.divergence import SKIPS_IN_A_ROW, DivergenceStop, _finite
from hf_sched.finetune.training import train_and_save
from tests.helpers.recipes import FSDP2, TWO_PROCESSES, ZERO2, ZERO3

# Sound steps, then one at 1e30, after which the next forward pass overflows.
BREAKS_AFTER_5 = {
    "lr_scheduler_type": "phases",
    "lr_scheduler_kwargs": {"phases": "hold 4 at 1e-33 | hold at 1"},
    "learning_rate": 1e30,
}
SAVING = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}


class Spoil(TrainerCallback):
    """Puts a number into one gradient, after the backward pass, or one weight, as a step is about to be made."""

    def __init__(self, value: float = math.nan, at: int = 5, weight: bool = False) -> None:
        self.value, self.at, self.weight = value, at, weight

    def after_backward(self, state: Any, model: Any) -> None:
        if state.global_step + 1 == self.at and not self.weight:
            list(model.parameters())[3].grad.view(-1)[7] = self.value

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step + 1 == self.at and self.weight:
            list(model.parameters())[3].data.view(-1)[7] = self.value


class ModelTrainer(Trainer):
    """A Trainer that begins with a model of its own."""

    def __init__(self, model_path: Path, folder: Path, *callbacks: TrainerCallback, **given: Any) -> None:
        tokens = torch.randint(6, 16, (16, 12), generator=torch.Generator().manual_seed(0))
        requested = {"max_steps": 8, "save_steps": 2, "logging_steps": 1, **given}
        args = TrainingArguments(
            str(folder), use_cpu=True, report_to="none", per_device_train_batch_size=4, **requested
        )
        model = AutoModelForCausalLM.from_pretrained(model_path)
        rows = [{"input_ids": row, "labels": row} for row in tokens]
        super().__init__(model, args, train_dataset=rows, callbacks=list(callbacks))

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, *args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Spoil):
                callback.after_backward(self.state, model)
        return loss

    def run(self, checkpoint: str | None = None) -> int:
        return train_and_save(self, checkpoint=checkpoint, dataset_name=None)


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def is_finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_the_step_is_not_made_and_the_checkpoints_before_are_kept(model_path, tmp_path, capsys, value, max_grad_norm):
    trainer = ModelTrainer(
        model_path, tmp_path, Spoil(value, at=6), save_total_limit=2, max_grad_norm=max_grad_norm, disable_tqdm=True
    )
    assert trainer.run() == 1
    assert steps_of(tmp_path) == [2, 4]  # a third, at step 6, would have deleted the first
    assert is_finite(trainer.model.state_dict())
    assert not (tmp_path / "model.safetensors").exists()
    said = capsys.readouterr().err
    assert "error: step 6 of 8: the gradients were not finite" in said
    assert f"The last good checkpoint is {tmp_path / 'checkpoint-4'} " in said
    assert ("`max_grad_norm: 1.0`, which was off" in said) == (max_grad_norm == 0)
    rows = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert max(row["step"] for row in rows) == 6


def test_what_is_left_resumes_as_if_nothing_had_happened(model_path, tmp_path):
    whole, broken = (ModelTrainer(model_path, tmp_path / name, disable_tqdm=True) for name in ("whole", "broken"))
    broken.add_callback(Spoil(at=5))
    assert (whole.run(), broken.run()) == (0, 1)
    again = ModelTrainer(model_path, tmp_path / "broken", disable_tqdm=True)
    assert again.run(str(tmp_path / "broken" / "checkpoint-4")) == 0
    for name, weight in load_file(tmp_path / "whole" / "model.safetensors").items():
        assert torch.equal(load_file(tmp_path / "broken" / "model.safetensors")[name], weight)


@pytest.mark.parametrize("given", [{}, {"save_strategy": "epoch"}, {"save_strategy": "no"}], ids=str)
def test_weights_that_are_not_finite_are_not_saved(model_path, tmp_path, capsys, given):
    """Wherever they came from: here the last step, behind the look at its gradients."""
    trainer = ModelTrainer(model_path, tmp_path, Spoil(at=8, weight=True), disable_tqdm=True, **given)
    assert trainer.run() == 1
    assert steps_of(tmp_path) == {"{}": [2, 4, 6], "epoch": [4], "no": []}[given.get("save_strategy", "{}")]
    assert not (tmp_path / "model.safetensors").exists()
    assert "step 8 of 8: the weights were not finite" in capsys.readouterr().err


class Scaled(ModelTrainer):
    """One with a gradient scaler, as fp16 has."""

    def __init__(self, *args: Any, init_scale: float, **given: Any) -> None:
        super().__init__(*args, **given)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)


def test_steps_that_a_gradient_scaler_skips_do_not_stop_the_run(model_path, tmp_path):
    trainer = Scaled(model_path, tmp_path, init_scale=2.0**68, max_grad_norm=0, disable_tqdm=True, max_steps=12)
    assert trainer.run() == 0
    skipped = math.log2(2.0**68 / trainer.accelerator.scaler.get_scale())
    assert 0 < skipped < 12
    assert is_finite(load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_where_it_skips_every_step_the_run_is_stopped(model_path, tmp_path, capsys, optim):
    requested = {"max_grad_norm": 0, "disable_tqdm": True, "max_steps": 40, "optim": optim}
    trainer = Scaled(model_path, tmp_path, *(Spoil(at=step) for step in range(3, 40)), init_scale=1.0, **requested)
    assert trainer.run() == 1
    assert f"{SKIPS_IN_A_ROW} optimizer steps in a row had infinite gradients" in capsys.readouterr().err
    assert trainer.state.global_step == 2 + SKIPS_IN_A_ROW


def test_a_run_that_goes_well_is_the_same_under_watch(model_path, tmp_path):
    plain, watched = (ModelTrainer(model_path, tmp_path / name, disable_tqdm=True) for name in ("plain", "watched"))
    watched.add_callback(DivergenceStop(watched))
    plain.train(), watched.train()
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(watched.model.state_dict()[name], weight)


def test_gradients_are_looked_at_where_their_norm_does_not_tell(model_path, tmp_path, monkeypatch):
    """A step costs no look otherwise; and a norm that overflows stops no run."""
    looks = []

    def look(tensors: Any) -> bool:
        looks.append(trainer.state.global_step)
        return _finite(tensors)

    monkeypatch.setattr(divergence, "_finite", look)
    trainer = ModelTrainer(model_path, tmp_path, Spoil(1e30, at=6), disable_tqdm=True, save_strategy="no")
    assert trainer.run() == 0
    assert looks == [5, 8]  # the gradients of the sixth step, and the weights at the end
    (row,) = (row for row in trainer.state.log_history if row["step"] == 6)
    assert row["grad_norm"] == math.inf


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(TWO_PROCESSES, id="DDP"),
        pytest.param(FSDP2, id="FSDP2", marks=pytest.mark.slow),
        pytest.param(ZERO2, id="ZeRO-2", marks=pytest.mark.slow),
        pytest.param(ZERO3, id="ZeRO-3", marks=pytest.mark.slow),
    ],
)
def test_a_recipe_that_diverges_on_two_processes_ends_with_an_error(run_recipe, launcher):
    if launcher in (ZERO2, ZERO3) and not shutil.which("c++"):
        pytest.skip("DeepSpeed compiles an operator when first used: install a C++ compiler to run this")
    run = run_recipe("sft", launcher, ok=False, max_steps=8, **BREAKS_AFTER_5, **SAVING)
    assert run.output.count("sft.py: error: step 6 of 8: the gradients were not finite") == 1
    assert f"The last good checkpoint is {run.folder / 'checkpoint-4'} " in run.output
    assert steps_of(run.folder) == [2, 4]
    for weights in (run.folder / "checkpoint-4").glob("*.safetensors"):
        assert is_finite(load_file(weights))
    assert not (run.folder / "model.safetensors").exists()
    assert run.logged("learning_rate")[-1] == 1e30
