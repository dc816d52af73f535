"""Sharded runs save complete models, resume exactly, and reject checkpoints that were sharded in another way."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.common.task import RunFailed
from hf_sched.finetune.checkpoints.sharding import Sharding, check_sharding, sharding_of_checkpoint
from hf_sched.finetune.merge import check_adapter, merge
from tests.helpers.recipe_runs import STEPS, Run, Workshop
from tests.helpers.recipes import needs_compiler
from tests.helpers.seen_by_ranks import LORA, OBSERVED, logits_of, planned, seen

SHARDED = [pytest.param("zero2", marks=needs_compiler), pytest.param("zero3", marks=needs_compiler), "fsdp2"]
SAVES_AT = STEPS // 2
# Sums in another order: measured 5e-7 for losses, 2.4e-5 for logits (of 0.5) after LoRA at its high rate.
LOSS_BOUND, LOGITS_BOUND = 1e-5, 1e-4


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("sharding"))


def start(workshop: Workshop, recipe: str, where: str, name: str, kind: str = "full", **given: object) -> Run:
    folder = workshop.folder / f"{recipe}-{where}-{kind}-{name}" / "run"
    requested = {"save_steps": SAVES_AT, **(LORA if kind == "lora" else {}), **given}
    return workshop.start(recipe, OBSERVED[where], folder, **requested)


@cache
def whole_run(workshop: Workshop, recipe: str, where: str, kind: str) -> Run:
    """An uninterrupted run, trained once."""
    return start(workshop, recipe, where, "whole", kind).finish()


def middle(run: Run) -> str:
    return str(run.folder / f"checkpoint-{SAVES_AT}")


def weights(run: Run, kind: str) -> dict[str, torch.Tensor]:
    return load_file(run.folder / ("adapter_model.safetensors" if kind == "lora" else "model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("where", SHARDED)
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("recipe", ["sft", "grpo"])
def test_sharded_run_equals_ddp_saves_a_complete_model_and_resumes_exactly(workshop, tmp_path, recipe, kind, where):
    model = workshop.folder / "task" / "model"
    reference, whole = whole_run(workshop, recipe, "2", kind), whole_run(workshop, recipe, where, kind)
    ranks, (ddp, _) = seen(whole.folder, 2), seen(reference.folder, 2)
    for rank in ranks:
        assert rank.sharded == (where != "zero2")  # its parameters are whole, by design
        for rates, rate in zip(rank.rates, planned(recipe, kind), strict=True):
            assert set(rates) == {rate}
        assert np.count_nonzero(rank.losses) == STEPS
        np.testing.assert_allclose(rank.losses, ddp.losses, rtol=0, atol=LOSS_BOUND)
        torch.testing.assert_close(rank.logits, ddp.logits, rtol=0, atol=LOGITS_BOUND)

    saved = logits_of(whole.folder, model, ranks[0].tokens)
    untrained = logits_of(model, model, ranks[0].tokens)
    assert (saved - untrained).abs().max() > 100 * LOGITS_BOUND
    for rank in ranks:
        torch.testing.assert_close(saved, rank.logits, rtol=0, atol=1e-6)
    if kind == "lora":
        shapes = {name: tensor.shape for name, tensor in weights(reference, kind).items()}
        for folder in (whole.folder, Path(middle(whole)), whole.folder / f"checkpoint-{STEPS}"):
            check_adapter(folder)
            found = load_file(folder / "adapter_model.safetensors")
            assert {name: tensor.shape for name, tensor in found.items()} == shapes
            assert all(bool(tensor.any()) for tensor in found.values())
        merge(whole.folder, tmp_path / "merged")

    resumed = start(workshop, recipe, where, "resumed", kind, resume_from_checkpoint=middle(whole)).finish()
    for rank, before in zip(seen(resumed.folder, 2), ranks, strict=True):
        assert rank.rates == before.rates[SAVES_AT:]
        assert rank.losses == before.losses
        assert torch.equal(rank.logits, before.logits)
    again = weights(resumed, kind)
    assert all(torch.equal(again[name], tensor) for name, tensor in weights(whole, kind).items())


@pytest.mark.slow
@pytest.mark.parametrize(("written", "where"), [("1", "2"), ("2", "1"), ("fsdp2", "fsdp2 on 1")])
def test_unsharded_checkpoint_resumes_on_another_number_of_processes(workshop, monkeypatch, written, where):
    monkeypatch.setitem(OBSERVED, "fsdp2 on 1", dataclasses.replace(OBSERVED["fsdp2"], processes=1))
    whole = whole_run(workshop, "sft", written, "full")
    resumed = start(workshop, "sft", where, f"from-{written}", resume_from_checkpoint=middle(whole)).finish()
    before = seen(whole.folder, OBSERVED[written].processes)[0]
    for rank in seen(resumed.folder, OBSERVED[where].processes):
        assert rank.rates == before.rates[SAVES_AT:]
        np.testing.assert_allclose(rank.losses, before.losses, rtol=0, atol=LOSS_BOUND)
        torch.testing.assert_close(rank.logits, before.logits, rtol=0, atol=LOGITS_BOUND)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("written", "where", "message"),
    [
        ("zero2", "zero2 on 1", "under ZeRO-2 on 2 processes and cannot be resumed under ZeRO-2 on 1 process"),
        ("zero3", "1", "cannot be resumed under one process or DDP"),
        ("1", "zero3", "under one process or DDP and cannot be resumed under ZeRO-3 on 2 processes"),
        ("2", "fsdp2", "under one process or DDP and cannot be resumed under FSDP"),
    ],
)
def test_other_sharding_is_rejected_before_a_model_is_loaded(workshop, monkeypatch, written, where, message):
    monkeypatch.setitem(OBSERVED, "zero2 on 1", dataclasses.replace(OBSERVED["zero2"], processes=1))
    checkpoint = middle(whole_run(workshop, "sft", written, "full"))
    given = {"resume_from_checkpoint": checkpoint, "model_name_or_path": "nowhere"}
    rejected = start(workshop, "sft", where, f"from-{written}", **given)
    with pytest.raises(RunFailed):
        rejected.finish()
    assert message in rejected.output
    assert "nowhere" not in rejected.output.split("sft: error:")[1].split("\n")[0]


LARS = {
    "lr_scheduler_type": "lars_warmup",
    "lr_scheduler_kwargs": {"warmup": SAVES_AT + 2, "trust_coefficient": 0.001, "after": "cosine_floor"},
    "warmup_steps": 0,
}


@pytest.mark.slow
def test_trust_ratios_are_equal_on_one_process_ddp_and_fsdp2_and_resume_in_the_warmup(workshop):
    # Under FSDP2 each process holds a part of every weight (a DTensor), under DDP all of it.
    one, ddp, fsdp2 = (start(workshop, "sft", where, "lars", **LARS).finish() for where in ("1", "2", "fsdp2"))
    (single,), (whole, _), ranks = seen(one.folder, 1), seen(ddp.folder, 2), seen(fsdp2.folder, 2)
    assert len(set(whole.rates[0])) > 10, "the rates of layers differ"
    np.testing.assert_allclose(whole.rates, single.rates, rtol=1e-4)
    for rank in ranks:
        assert rank.sharded
        np.testing.assert_allclose(rank.rates, whole.rates, rtol=1e-4)
        assert rank.rates == ranks[0].rates
    resumed = start(workshop, "sft", "fsdp2", "lars-resumed", resume_from_checkpoint=middle(fsdp2), **LARS).finish()
    for rank, before in zip(seen(resumed.folder, 2), ranks, strict=True):
        assert rank.rates == before.rates[SAVES_AT:]
        assert rank.losses == before.losses


def checkpoint(folder: Path, *files: str) -> Path:
    for file in ("model.safetensors", *files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("global_step8" if file == "latest" else "")
    return folder


def zero(stage: int, processes: int, prefix: str = "") -> list[str]:
    parts = [f"global_step8/{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(processes)]
    models = [f"global_step8/zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in range(processes)]
    return [*parts, *(models if stage == 3 else ["global_step8/mp_rank_00_model_states.pt"]), "latest"]


def arguments(stage: int | None = None, processes: int = 1, fsdp: bool = False, **deepspeed: object) -> SimpleNamespace:
    plugin = SimpleNamespace(zero_stage=stage, deepspeed_config=deepspeed) if stage is not None else None
    return SimpleNamespace(deepspeed_plugin=plugin, world_size=processes, fsdp=fsdp)


STAGE_0 = ["global_step8/mp_rank_00_model_states.pt", "latest"]
UNIVERSAL = arguments(2, 4, checkpoint={"load_universal": True})
PLAIN, FSDP = arguments(), arguments(fsdp=True)


@pytest.mark.parametrize(
    ("files", "expected", "fits", "others"),
    [
        ([], Sharding(None), [PLAIN, arguments(processes=8)], [arguments(2, 2), arguments(3, 2), FSDP]),
        (zero(2, 2), Sharding("ZeRO-2", 2), [arguments(2, 2), arguments(1, 2), UNIVERSAL],
         [arguments(2, 1), arguments(2, 4), arguments(3, 2), PLAIN, FSDP]),
        (zero(2, 4, "bf16_"), Sharding("ZeRO-2", 4), [arguments(2, 4)], [arguments(2, 2)]),
        (zero(3, 16), Sharding("ZeRO-3", 16), [arguments(3, 16)], [arguments(3, 1), arguments(2, 16), PLAIN]),
        (STAGE_0, Sharding("DeepSpeed without ZeRO"), [arguments(0, 2), arguments(0, 4)], [arguments(2, 2), PLAIN]),
        (["pytorch_model_fsdp.bin", "optimizer.bin"], Sharding("FSDP"), [arguments(processes=4, fsdp=True)], [PLAIN]),
        (["pytorch_model_fsdp_0/.metadata"], Sharding("FSDP"), [FSDP], [arguments(3, 2)]),
    ],
)  # fmt: skip
def test_sharding_is_recognized_by_file_names_and_only_equal_sharding_resumes(tmp_path, files, expected, fits, others):
    folder = checkpoint(tmp_path, *files)
    assert sharding_of_checkpoint(folder) == expected
    for args in fits:
        check_sharding(args, str(folder))
        check_sharding(args, None)
    for args in others:
        with pytest.raises(ValueError, match=r"was written under .* and cannot be resumed under"):
            check_sharding(args, str(folder))


def test_message_names_the_launch_and_for_an_adapter_the_merge(tmp_path):
    folder = checkpoint(tmp_path, *zero(3, 2))
    launch = "`--config_file accelerate_configs/zero3.yaml --num_processes 2`"
    with pytest.raises(ValueError, match=rf"{launch}.*`--model_name_or_path {folder}`"):
        check_sharding(PLAIN, str(folder))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"hf-sched merge {folder} --output FOLDER"):
        check_sharding(PLAIN, str(folder))
