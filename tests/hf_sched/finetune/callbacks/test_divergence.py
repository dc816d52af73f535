"""A run that diverges is stopped before it spoils its weights or a checkpoint, with exit status 1."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_sched.finetune.callbacks import divergence
from hf_sched.finetune.callbacks.divergence import SKIPS_IN_A_ROW, _all_finite
from hf_sched.finetune.demo.sorting_task import save_model
from tests.helpers.recipes import FSDP2, TWO_PROCESSES, ZERO2, ZERO3, needs_compiler
from tests.helpers.tiny_trainer import ModelTrainer, steps_of

# Sound steps, then one at 1e30, after which the next forward pass overflows.
BREAKS_AFTER_5 = {
    "lr_scheduler_type": "phases",
    "lr_scheduler_kwargs": {"phases": "hold 4 at 1e-33 | hold at 1"},
    "learning_rate": 1e30,
}
TIMED = "tests/helpers/launchers/timed_divergence.py"
SAVING = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}


class Spoil(TrainerCallback):
    """Puts a number into one gradient after the backward pass, or into one weight before a step."""

    def __init__(self, value: float = math.nan, at: int = 5, weight: bool = False) -> None:
        self.value, self.at, self.weight = value, at, weight

    def after_backward(self, state: Any, model: Any) -> None:
        if state.global_step + 1 == self.at and not self.weight:
            list(model.parameters())[3].grad.view(-1)[7] = self.value

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step + 1 == self.at and self.weight:
            list(model.parameters())[3].data.view(-1)[7] = self.value


def is_finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


@pytest.mark.parametrize(("value", "max_grad_norm"), [(math.nan, 1.0), (math.inf, 0.0)])
def test_gradients_that_are_not_finite_stop_the_run_and_keep_checkpoints(
    model_path, tmp_path, caplog, value, max_grad_norm
):
    trainer = ModelTrainer(model_path, tmp_path, Spoil(value, at=6), save_total_limit=2, max_grad_norm=max_grad_norm)
    assert trainer.run() == 1
    assert steps_of(tmp_path) == [2, 4]  # a third one would have deleted the first
    assert is_finite(trainer.model.state_dict())
    assert not (tmp_path / "model.safetensors").exists()
    assert "step 6 of 8: the gradients were not finite" in caplog.text
    assert f"The last good checkpoint is {tmp_path / 'checkpoint-4'} " in caplog.text
    assert ("`max_grad_norm: 1.0`, which was off" in caplog.text) == (max_grad_norm == 0)
    rows = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert max(row["step"] for row in rows) == 6


@pytest.mark.parametrize(("strategy", "saved"), [("steps", [2, 4, 6]), ("epoch", [4])])
def test_weights_that_are_not_finite_are_not_saved(model_path, tmp_path, caplog, strategy, saved):
    """Here they come from the last step, after the check of its gradients."""
    trainer = ModelTrainer(model_path, tmp_path, Spoil(at=8, weight=True), save_strategy=strategy)
    assert trainer.run() == 1
    assert steps_of(tmp_path) == saved
    assert not (tmp_path / "model.safetensors").exists()
    assert "step 8 of 8: the weights were not finite" in caplog.text


class Scaled(ModelTrainer):
    """Has a gradient scaler, as fp16 does."""

    def __init__(self, *args: Any, init_scale: float, **given: Any) -> None:
        super().__init__(*args, **given)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)


def test_steps_skipped_by_a_gradient_scaler_do_not_stop_the_run(model_path, tmp_path):
    trainer = Scaled(model_path, tmp_path, init_scale=2.0**68, max_grad_norm=0, max_steps=12)
    assert trainer.run() == 0
    skipped = math.log2(2.0**68 / trainer.accelerator.scaler.get_scale())
    assert 0 < skipped < 12
    assert is_finite(load_file(tmp_path / "model.safetensors"))


def test_gradient_scaler_that_skips_every_step_stops_the_run(model_path, tmp_path, caplog):
    spoil = (Spoil(at=step) for step in range(3, 40))
    trainer = Scaled(model_path, tmp_path, *spoil, init_scale=1.0, max_grad_norm=0, max_steps=40)
    assert trainer.run() == 1
    assert f"{SKIPS_IN_A_ROW} optimizer steps in a row had infinite gradients" in caplog.text
    assert trainer.state.global_step == 2 + SKIPS_IN_A_ROW


def test_gradients_are_checked_only_if_their_norm_is_not_finite(model_path, tmp_path, monkeypatch):
    """A norm that merely overflows does not stop the run."""
    checks = []

    def check(tensors: Any) -> bool:
        checks.append(trainer.state.global_step)
        return _all_finite(tensors)

    monkeypatch.setattr(divergence, "_all_finite", check)
    trainer = ModelTrainer(model_path, tmp_path, Spoil(1e30, at=6), save_strategy="no")
    assert trainer.run() == 0
    assert checks == [5, 8]  # the gradients of the sixth step, and the weights at the end
    (row,) = (row for row in trainer.state.log_history if row["step"] == 6)
    assert row["grad_norm"] == math.inf


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(TWO_PROCESSES, id="DDP"),
        pytest.param(FSDP2, id="FSDP2"),
        pytest.param(ZERO2, id="ZeRO-2", marks=needs_compiler),
        pytest.param(ZERO3, id="ZeRO-3", marks=needs_compiler),
    ],
)
def test_diverging_recipe_on_two_processes_exits_with_one_error(run_recipe, launcher):
    run = run_recipe("sft", launcher, ok=False, max_steps=8, **BREAKS_AFTER_5, **SAVING)
    assert run.output.count("ERROR: step 6 of 8: the gradients were not finite") == 1
    assert f"The last good checkpoint is {run.folder / 'checkpoint-4'} " in run.output
    assert steps_of(run.folder) == [2, 4]
    for weights in (run.folder / "checkpoint-4").glob("*.safetensors"):
        assert is_finite(load_file(weights))
    assert not (run.folder / "model.safetensors").exists()
    assert run.logged("learning_rate")[-1] == 1e30


@pytest.mark.slow
def test_check_makes_one_collective_operation_a_step_and_takes_less_than_a_hundredth_of_it(run_recipe, tmp_path):
    """Of a step of the demo, on two processes; the wall time of a busy machine is mostly that of waiting."""
    save_model(tmp_path / "model", layers=2, width=128, seed=0)
    demo = {"per_device_train_batch_size": 32, "max_steps": 40, "model_name_or_path": str(tmp_path / "model")}
    run = run_recipe("sft", [*TWO_PROCESSES, TIMED], **demo)
    for rank in range(2):
        seen = json.loads((run.folder / f"divergence_{rank}.json").read_text())
        assert seen["collectives"] == [1] * 39 + [2]  # the last weights are checked before they are saved
        assert seen["cpu_share"] <= 0.01
