"""`fast: true` uses what the machine offers, and trains on the same samples."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config

from hf_sched.finetune import fast
from hf_sched.finetune.fast import FEWEST, Machine, largest_batch
from hf_sched.finetune.memory.before_loading import CLOSE
from hf_sched.finetune.memory.estimate import GIB, estimate
from hf_sched.finetune.memory.run_settings import Run, Shape
from tests.helpers.recipes import CAN_BE_EARNED

SMALL = Qwen2Config(
    vocab_size=151_936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
SHUFFLED = {"train_sampling_strategy": "group_by_length", "max_steps": 12, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def sft_64() -> Run:
    """SFT of all weights of Qwen2.5-0.5B with 64 sequences per step, as in the configuration."""
    return Run("sft", Shape.of(SMALL), max_length=512, bf16=True, per_device_train_batch_size=64)


@pytest.mark.parametrize(
    ("gib", "rows", "checkpointing"), [(80, 64, False), (40, 32, False), (24, 8, False), (16, 64, True)]
)
def test_largest_batch_fits_the_card_and_keeps_the_samples_per_step(sft_64, gib, rows, checkpointing):
    found = largest_batch(sft_64, gib * GIB)
    assert (found.per_device_train_batch_size, found.gradient_checkpointing) == (rows, checkpointing)
    assert rows * found.gradient_accumulation_steps == 64
    assert estimate(found).total <= CLOSE * gib * GIB


def test_largest_batch_keeps_checkpointing_that_is_given_and_may_not_exist(sft_64):
    kept = largest_batch(replace(sft_64, gradient_checkpointing=False), 16 * GIB, decides_checkpointing=False)
    assert not kept.gradient_checkpointing and kept.per_device_train_batch_size < FEWEST
    assert largest_batch(sft_64, 4 * GIB) is None


@pytest.fixture
def card(monkeypatch):
    """Make `fast` see this GPU while the training runs on the CPU."""
    return lambda **offers: monkeypatch.setattr(fast.Machine, "find", lambda device: Machine(**offers))


def test_smaller_batches_give_the_losses_of_the_large_one(run_recipe, card):
    given = {"max_steps": 4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    whole = run_recipe("sft", **given)
    size = {}
    for name, memory in (("large", 2**34), ("small", 2**20)):
        card(memory=memory)
        run = run_recipe("sft", name=name, fast=True, **given)
        size[name] = run.args.per_device_train_batch_size, run.args.gradient_accumulation_steps
        assert run.logged("loss") == pytest.approx(whole.logged("loss"), rel=1e-5)
        assert run.logged("learning_rate") == whole.logged("learning_rate")
    assert size["large"] == (16, 1) and size["small"][0] <= 2 and size["small"][0] * size["small"][1] == 16


def test_generation_keeps_its_size_if_the_batch_changes(run_recipe, card):
    card(memory=2**34)
    given = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 3}
    run = run_recipe("grpo", fast=True, **given, **CAN_BE_EARNED)
    assert (run.args.per_device_train_batch_size, run.args.gradient_accumulation_steps) == (16, 1)
    assert run.args.steps_per_generation == 2 and run.args.generation_batch_size == 32


def test_batches_without_padding_give_the_same_losses(run_recipe, monkeypatch):
    given = {"max_steps": 4, "attn_implementation": "sdpa"}
    padded = run_recipe("sft", **given)
    # Without flash attention here: sdpa keeps the rows apart with a mask.
    monkeypatch.setattr(fast, "_needs_no_padding", lambda *_: True)
    free = run_recipe("sft", name="free", fast=True, **given)
    assert free.logged("loss") == pytest.approx(padded.logged("loss"), rel=1e-5)
    assert free.logged("num_tokens")[-1] == padded.logged("num_tokens")[-1]
    assert "batches without padding" in free.output


def test_log_says_in_one_line_what_was_chosen(run_recipe):
    lines = [line for line in run_recipe("grpo", fast=True, max_steps=1).output.splitlines() if "fast:" in line]
    assert lines == ["INFO: fast: sdpa attention; without Liger's kernels; generation by transformers"]


def test_arguments_that_are_given_are_kept(run_recipe, card):
    card(attention="flash_attention_2", has_vllm=True, has_liger=True)
    given = {"use_vllm": False, "use_liger_kernel": False, "attn_implementation": "eager"}
    run = run_recipe("grpo", fast=True, max_steps=1, logging_nan_inf_filter=True, **given)
    assert run.args.logging_nan_inf_filter and not run.args.use_vllm
    assert "eager attention; without Liger's kernels; generation by transformers" in run.output


def test_flash_attention_needs_half_precision(caplog, tmp_path):
    from trl import ModelConfig, SFTConfig

    machine, texts = Machine(attention="flash_attention_2", has_liger=True), {}
    for half in (True, False):
        args, model = SFTConfig(str(tmp_path), use_cpu=True, bf16=half), ModelConfig()
        texts[half] = fast._choose_installed("sft", args, model, {}, machine)
        assert args.use_liger_kernel
    assert texts[True] == ["flash_attention_2 attention", "batches without padding", "with Liger's kernels"]
    assert texts[False] == ["sdpa attention", "with Liger's kernels"]


def test_resume_in_a_later_epoch_keeps_the_order_by_length(run_recipe):
    given = {**SHUFFLED, "max_steps": 120, "save_strategy": "steps", "save_steps": 60, "per_device_train_batch_size": 8}
    whole = run_recipe("sft", **given)
    resumed = run_recipe("sft", name="resumed", resume_from_checkpoint=str(whole.folder / "checkpoint-60"), **given)
    assert resumed.logged("loss") == whole.logged("loss")


class Waits(TorchDispatchMode):
    """Counts operations that make the CPU wait for a GPU (`item`, `bool`, `float`), by the package that called them."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            files = [frame.filename for frame in traceback.extract_stack()[:-1] if "/torch/" not in frame.filename]
            package = next(name for name in ("hf_sched", "trl", "transformers", "") if name in files[-1])
            self.callers[package] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_callbacks_wait_for_the_device_once_per_step(run_recipe, kind):
    given = {**CAN_BE_EARNED} if kind == "grpo" else {}
    counted = []
    for steps in (3, 8):
        with Waits() as waits:
            run_recipe(kind, name=f"{steps}-steps", max_steps=steps, logging_steps=1, fast=True, **given)
        counted.append(waits.callers)
    per_step = {name: (counted[1][name] - counted[0][name]) / 5 for name in counted[1]}
    assert per_step["hf_sched"] == 1  # the norm of the gradients, before the step
    if kind == "sft":
        logged, transformers_own = 2, 2
        assert per_step["transformers"] == logged + transformers_own  # 2 more with `logging_nan_inf_filter`
