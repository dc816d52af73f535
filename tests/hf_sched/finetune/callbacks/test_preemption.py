"""SIGTERM saves a checkpoint at the end of the step, exits with status 143, and the resume is exact."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.helpers.recipes import CAN_BE_EARNED, FSDP2, TWO_PROCESSES, ZERO3
from tests.helpers.seen_by_ranks import OBSERVER
from tests.helpers.tiny_trainer import ModelTrainer, steps_of

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5"), reason="transformers 4 has no enable_jit_checkpoint"
)
SAVING = {"save_steps": 100, "eval_strategy": "no", "enable_jit_checkpoint": True}


@pytest.fixture(autouse=True)
def restore_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class SendSigterm(TrainerCallback):
    """Sends SIGTERM to this process within a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def losses(folder: Path) -> list[float]:
    state = json.loads((folder / "trainer_state.json").read_text())
    return [row["loss"] for row in state["log_history"] if "loss" in row]


def test_sigterm_saves_a_checkpoint_that_resumes_exactly(model_path, tmp_path, caplog):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    assert ModelTrainer(model_path, stopped, SendSigterm(3), **SAVING).run() == 143
    assert steps_of(stopped) == [3]
    assert not (stopped / "model.safetensors").exists()
    assert f"stopped by SIGTERM after step 3 of 8, with a checkpoint in {stopped}" in caplog.text

    assert ModelTrainer(model_path, stopped, **SAVING).run(str(stopped / "checkpoint-3")) == 0
    assert ModelTrainer(model_path, whole, **SAVING).run() == 0
    assert losses(stopped) == losses(whole)
    assert len(losses(whole)) == 8
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def wait_for_sigterm(begun: Any) -> None:
    begun.set()
    time.sleep(60)


def test_handler_is_restored_after_the_run_and_in_forked_processes(model_path, tmp_path):
    ended = []

    class Fork(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                context = multiprocessing.get_context("fork")
                begun = context.Event()
                process = context.Process(target=wait_for_sigterm, args=(begun,))
                process.start()
                begun.wait(30)  # a signal that arrives before the fork is ready is lost
                process.terminate()
                process.join(30)
                ended.append(process.exitcode)

    before = signal.getsignal(signal.SIGTERM)
    trainer = ModelTrainer(model_path, tmp_path / "run", Fork(), **{**SAVING, "max_steps": 2})
    assert trainer.run() == 0
    assert ended == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "launcher"),
    [("grpo", TWO_PROCESSES), ("grpo", ZERO3), ("sft", FSDP2)],
    ids=["grpo-ddp", "grpo-zero3", "sft-fsdp2"],
)
def test_sigterm_to_one_process_stops_all_and_resumes_exactly(run_recipe, monkeypatch, recipe, launcher):
    given = {**SAVING, "save_strategy": "steps", "max_steps": 8, "lr_scheduler_type": "warmup_cosine"}
    given |= CAN_BE_EARNED if recipe == "grpo" else {}
    with monkeypatch.context() as patch:
        patch.setenv("SIGTERM_AT", "5")
        stopped = run_recipe(recipe, [*launcher, OBSERVER], name="stopped", ok=False, **given)
    assert "stopped by SIGTERM after step 5 of 8" in stopped.output
    assert steps_of(stopped.folder) == [5]

    resumed = run_recipe(recipe, launcher, name="stopped", resume_from_checkpoint="auto", **given)
    whole = run_recipe(recipe, launcher, name="whole", **given)
    assert whole.args.world_size == 2
    assert len(set(losses(whole.folder))) == 8
    assert losses(resumed.folder) == losses(whole.folder)
    assert resumed.logged("learning_rate") == whole.logged("learning_rate")
    weights, reference = (load_file(run.folder / "model.safetensors") for run in (resumed, whole))
    assert all(torch.equal(weights[name], tensor) for name, tensor in reference.items())
