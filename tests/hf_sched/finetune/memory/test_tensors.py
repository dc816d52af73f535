"""What is estimated on fake tensors is what real tensors take, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments

from hf_sched.finetune.memory import Lora, Settings, Spread, estimate, step
from hf_sched.finetune.memory.estimate import PASSES, REDUCTION, STEP
from hf_sched.finetune.memory.fake_model import build, load_config, nbytes, trainable, weight_bytes
from hf_sched.finetune.memory.generation import generation_bytes

LORA = Lora(r=4, target_modules="all-linear")
SHAPE = {"num_attention_heads": 4, "max_position_embeddings": 256, "tie_word_embeddings": True}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen2 of six blocks with grouped keys, tied embeddings and biases."""
    folder = tmp_path_factory.mktemp("qwen")
    config = Qwen2Config(
        vocab_size=300, hidden_size=32, intermediate_size=80, num_hidden_layers=6, num_key_value_heads=2, **SHAPE
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama whose head is a weight of its own."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_key_value_heads=4,
        **{**SHAPE, "tie_word_embeddings": False},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def on_cpu(model: str, batch: int = 2, length: int = 40, **changes: Any) -> Settings:
    return Settings("sft", model, batch, length, on_gpu=False, **changes)


def real(settings: Settings) -> Any:
    """The model with memory."""
    model = build(settings, load_config(settings)).to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)
    getattr(model, "get_base_model", lambda: model)().tie_weights()
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, LORA, Lora(r=2, target_modules=("q_proj",), modules_to_save=("lm_head",))])
def test_weights_and_gradients_are_those_of_the_real_model(qwen, llama, dtype, lora):
    from peft import LoraConfig, get_peft_model

    for folder, kind in ((qwen, Qwen2ForCausalLM), (llama, LlamaForCausalLM)):
        model = kind.from_pretrained(folder, dtype=getattr(torch, dtype))
        if lora:
            targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
            saved = list(lora.modules_to_save) if lora.modules_to_save else None
            model = get_peft_model(
                model, LoraConfig(r=lora.r, target_modules=targets, modules_to_save=saved, task_type="CAUSAL_LM")
            )
        found = estimate(on_cpu(folder, dtype=dtype, lora=lora))
        assert found.held["weights"] == sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
        assert found.parameters == sum(one.numel() for one in model.parameters())
        trained = [one for one in model.parameters() if one.requires_grad]
        assert found.trained == sum(one.numel() for one in trained)
        at_step = next(moment for moment in found.moments if moment.name == STEP)
        assert at_step.parts["gradients"] == sum(one.nbytes for one in trained)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "adafactor", "sgd", "rmsprop", "adagrad"])
def test_states_are_those_that_the_trainers_optimizer_keeps(qwen, tmp_path, optim):
    model = Qwen2ForCausalLM.from_pretrained(qwen)
    args = TrainingArguments(tmp_path, optim=optim, use_cpu=True, report_to="none")
    optimizer = Trainer(model, args).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    assert estimate(on_cpu(qwen, optim=optim)).held["optimizer states"] == sum(one.nbytes for one in kept)


def saved_for_backward(model: nn.Module, settings: Settings) -> int:
    """Bytes that autograd keeps when the forward pass is over, weights aside, as its own hooks see them."""
    known = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    storages: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            storages[storage._cdata] = storage
        return tensor

    ids, mask = step.batch_of(settings)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), step.autocast(settings):
        output = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False, fused_lm_head=True)
    size = sum(storage.nbytes() for storage in storages.values())
    del output
    return size


CASES = [
    {"checkpointing": False},
    {"checkpointing": True},
    {"checkpointing": False, "batch": 1, "length": 96},
    {"checkpointing": True, "batch": 3, "length": 24, "mixed": "bf16"},
    {"checkpointing": False, "mixed": "bf16"},
    {"checkpointing": False, "lora": LORA},
    {"checkpointing": True, "lora": LORA, "dtype": "bfloat16"},
    {"checkpointing": False, "attention": "eager"},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pass_on_fake_tensors_keeps_what_a_real_one_keeps(qwen, case):
    settings = on_cpu(qwen, **case)
    real_windows = step._run(real(settings), settings)[:3]
    found = step.trace_step(settings)
    assert found.activations == max(window.activations for window in real_windows)
    highest = max(real_windows, key=lambda window: window.transition)
    assert (found.transition, found.gradients) == (highest.transition, highest.gradients)


@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_autograds_own_hooks_agree_with_the_count(qwen, case):
    """What further blocks keep is the same by torch's hooks and by our count of storages."""
    settings = on_cpu(qwen, **case)
    config = load_config(settings)
    by_hooks, counted = [], []
    for blocks in (3, 6):
        config.num_hidden_layers = blocks
        config.layer_types = ["full_attention"] * blocks
        model = build(settings, config).to_empty(device="cpu")
        by_hooks.append(saved_for_backward(model, settings))
        counted.append(alive_after_forward(model, settings))
    assert by_hooks[1] - by_hooks[0] == counted[1] - counted[0] > 0


def alive_after_forward(model: nn.Module, settings: Settings) -> int:
    live = step.Live([*model.parameters(), *model.buffers()])
    ids, mask = step.batch_of(settings)
    alive = []
    with live:
        step.run_step(model, settings, ids, mask, turn=lambda: alive.append(live.all))
    return alive[0]


@pytest.mark.parametrize("case", [{"checkpointing": False}, {"mixed": "bf16"}, {"lora": LORA}], ids=str)
def test_blocks_that_are_not_traced_are_extrapolated_exactly(qwen, monkeypatch, case):
    settings = on_cpu(qwen, **case)
    short = step.trace_step.__wrapped__(settings)
    monkeypatch.setattr(step, "SHORT", 99)
    assert step.trace_step.__wrapped__(settings) == short


def test_the_cache_of_generation_is_that_of_a_real_one(qwen):
    settings = Settings("grpo", qwen, 4, 48, completion=32, generated=4, on_gpu=False)
    model = Qwen2ForCausalLM.from_pretrained(qwen)
    cache = model(torch.zeros((4, 48), dtype=torch.long), use_cache=True).past_key_values
    real_cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert (
        real_cache == 2 * 6 * 4 * 48 * 2 * 8 * 4
    )  # keys and values, blocks, rows, tokens, heads, their width, float32
    assert real_cache < generation_bytes(settings) < 2 * real_cache


@pytest.mark.parametrize(("bits", "nested"), [(8, False), (4, False), (4, True)])
def test_quantized_weights_have_the_layout_of_bitsandbytes(llama, bits, nested):
    settings = on_cpu(llama, dtype="bfloat16", bits=bits, nested=nested)
    model = build(settings.but(bits=0), load_config(settings)).requires_grad_(False)
    linear = 2 * (4 * 48 * 48 + 3 * 48 * 64)  # of two blocks; the head is not quantized
    rows = 2 * (4 * 48 + 2 * 64 + 48)
    blocks = linear // 64
    each = {4: linear // 2 + (blocks + 4 * 2 * (4 + 3) if nested else 4 * blocks), 8: linear + 4 * rows}[bits]
    assert weight_bytes(model, settings) == weight_bytes(model, settings.but(bits=0)) - 2 * linear + each


def test_what_is_sharded_follows_the_stage(qwen):
    """ZeRO (1910.02054) in bf16: weights, gradients and optimizer of 2, 2 and 12 bytes a parameter."""
    alone = estimate(on_cpu(qwen, mixed="bf16"))
    n, processes = alone.parameters, 4
    settings = on_cpu(qwen, mixed="bf16", optim="adamw_torch")
    part = -(-n // processes)
    buffers = nbytes(build(settings, load_config(settings)).buffers())

    def held(kind: str) -> dict[str, int]:
        return estimate(settings.but(spread=Spread(kind, processes))).held

    def gradients(kind: str) -> int:
        found = estimate(settings.but(spread=Spread(kind, processes)))
        return next(moment for moment in found.moments if moment.name == STEP).parts["gradients"]

    ddp = held("DDP")
    assert ddp["weights"] == 4 * n + buffers and ddp["DDP's buckets"] == gradients("DDP") == 4 * n
    for kind in ("ZeRO-1", "ZeRO-2", "ZeRO-3"):
        shared = held(kind)
        assert shared["float32 master weights"] == 4 * part
        assert shared["optimizer states"] == 8 * part + 4  # and a step count
    assert held("ZeRO-2")["weights"] == 2 * n + buffers
    assert held("ZeRO-3")["weights"] == (2 * n + buffers) // processes
    assert gradients("ZeRO-1") == 2 * n and gradients("ZeRO-2") == gradients("ZeRO-3") == 2 * n // processes
    # DeepSpeed copies the bucket that it reduces, which here holds all gradients; ZeRO-3 makes its buffers once.
    assert {"gradients", "DeepSpeed's bucket"} <= held("ZeRO-3").keys() and "gradients" not in held("ZeRO-2")
    for accumulation in (1, 2):
        found = estimate(settings.but(spread=Spread("ZeRO-2", processes), accumulation=accumulation))
        parts = next(moment for moment in found.moments if moment.name == REDUCTION).parts
        assert parts["DeepSpeed's bucket"] == parts["gradients being reduced"] == 2 * n
        assert parts.get("gradients", 0) == (accumulation - 1) * (2 * n // processes)
    in_full = estimate(settings.but(spread=Spread("ZeRO-3", processes), mixed="no"))
    assert in_full.held["float32 master weights"] == 4 * part  # beside float32 weights, too
    passing = next(moment for moment in in_full.moments if moment.name == PASSES).parts
    assert passing["gathered weights"] == passing["weights being gathered"] == 4 * n
    fsdp = held("FSDP2")
    assert fsdp["weights"] == (4 * n + buffers) // processes and gradients("FSDP2") == 4 * n // processes
    parameters = trainable(build(settings, load_config(settings)))
    rows = [(-(-one.shape[0] // processes)) * one[0].numel() for one in parameters]
    assert fsdp["optimizer states"] == 8 * sum(rows) + 4 * len(rows)


def test_all_accelerate_configs_are_read():
    from hf_sched.finetune.memory.spread import read_spread

    folder = Path(__file__).parents[4] / "accelerate_configs"
    kinds = {path.stem: str(read_spread(path)) for path in folder.glob("*.yaml")}
    assert kinds == {
        "cpu_2proc": "DDP, 2 processes",
        "ddp": "DDP, 8 processes",
        "fsdp2": "FSDP2, 8 processes",
        "single_gpu": "1 process",
        "zero2": "ZeRO-2, 8 processes",
        "zero3": "ZeRO-3, 8 processes",
    }
