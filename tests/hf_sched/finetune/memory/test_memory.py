"""The memory formula agrees with measured peaks, and changes that make a run fit are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config, Trainer, TrainingArguments
from trl import ModelConfig, SFTConfig

from hf_sched.cli import app
from hf_sched.finetune.memory import before_loading as check
from hf_sched.finetune.memory.estimate import GIB, GPU_OVERHEAD, alternative, estimate
from hf_sched.finetune.memory.run_settings import Run, Shape, read_config, read_parallelism
from hf_sched.schedules.validation import ArgumentError

ROOT = Path(__file__).parents[4]
MIB = 2**20


def shape_of(vocabulary: int, hidden: int, intermediate: int, layers: int, heads: int, kv: int = 2) -> dict[str, Any]:
    sizes = {"vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": intermediate}
    return sizes | {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv}


CONFIGS = {
    "qwen-0.5b": Qwen2Config(**shape_of(151_936, 896, 4864, 24, 14), tie_word_embeddings=True),
    "qwen-1.5b": Qwen2Config(**shape_of(151_936, 1536, 8960, 28, 12), tie_word_embeddings=True),
    "llama-15m": LlamaConfig(**shape_of(32_768, 256, 1024, 6, 4), tie_word_embeddings=True),
    "llama-51m": LlamaConfig(**shape_of(8192, 512, 2048, 12, 8, kv=4), tie_word_embeddings=True),
    "untied": LlamaConfig(**shape_of(200, 48, 64, 2, 4, kv=4), tie_word_embeddings=False),
}

# One NVIDIA H200, TRL 1.16 with the shape of Qwen2.5-0.5B, peak allocated in MiB. The longest of 96 GSM8K samples is
# about 2.07 times the mean; the mean was 183 tokens, so the longest had about 380. GRPO: prompts of at most 98 tokens.
H200 = {"model_name_or_path": "qwen-0.5b", "bf16": True, "per_device_train_batch_size": 8}
TUNED = {"gradient_checkpointing": False, "dtype": "bfloat16", "use_liger_kernel": True}
GRPO = {"max_completion_length": 128, "num_generations": 8}
# One process on a CPU: the kernel's peak above what was resident before the model was loaded.
CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "model_name_or_path": "llama-15m"}
SFT = {**CPU, "per_device_train_batch_size": 2, "max_length": 256}
CPU_GRPO = {**CPU, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 100}
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear"}
# Each of two processes on a CPU.
SHORT = {**CPU, "model_name_or_path": "llama-51m", "per_device_train_batch_size": 1, "max_length": 64}
MEASURED: dict[str, tuple[float, str, dict[str, Any], str]] = {
    "H200, SFT": (7.97 * 1024, "sft", {**H200, "max_length": 380}, ""),
    "H200, SFT, tuned": (6.61 * 1024, "sft", {**H200, **TUNED, "max_length": 380}, ""),
    "H200, GRPO": (7.96 * 1024, "grpo", {**H200, **GRPO}, ""),
    "H200, GRPO, tuned": (5.20 * 1024, "grpo", {**H200, **TUNED, **GRPO}, ""),
    "SFT": (855, "sft", SFT, ""),
    "checkpointing": (772, "sft", {**SFT, "gradient_checkpointing": True}, ""),
    "LoRA": (743, "sft", {**SFT, **LORA}, ""),
    "twice the batch": (1449, "sft", {**SFT, "per_device_train_batch_size": 4}, ""),
    "twice the length": (1457, "sft", {**SFT, "max_length": 512}, ""),
    "accumulation": (901, "sft", {**SFT, "gradient_accumulation_steps": 2}, ""),
    "Adafactor": (738, "sft", {**SFT, "optim": "adafactor"}, ""),
    "GRPO": (1189, "grpo", CPU_GRPO, ""),
    "GRPO, reference model": (1246, "grpo", {**CPU_GRPO, "beta": 0.1}, ""),
    "DDP": (1075, "sft", SHORT, "DDP"),
    "FSDP2": (544, "sft", SHORT, "FSDP2"),
    "ZeRO-2": (1007, "sft", SHORT, "ZeRO-2"),
    "ZeRO-2, accumulation": (1115, "sft", {**SHORT, "gradient_accumulation_steps": 2}, "ZeRO-2"),
    "ZeRO-3": (1227, "sft", SHORT, "ZeRO-3"),
    "ZeRO-3, bf16": (838, "sft", {**SHORT, "bf16": True}, "ZeRO-3"),
    "ZeRO-3, LoRA": (743, "sft", {**SHORT, **LORA}, "ZeRO-3"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with nothing but the config.json of each model."""
    folder = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        config.save_pretrained(folder / name)
    return folder


def write(models: Path, arguments: dict[str, Any]) -> str:
    file = models / "recipe.yaml"
    file.write_text(yaml.safe_dump({**arguments, "model_name_or_path": str(models / arguments["model_name_or_path"])}))
    return str(file)


def read(models: Path, kind: str, arguments: dict[str, Any], **given: Any) -> Run:
    # Older versions of TRL than the measured one compute all logits at once.
    return replace(read_config(write(models, arguments), kind, **given), full_logits=False)


@pytest.mark.parametrize("case", MEASURED)
def test_estimate_is_within_a_fifth_of_the_measured_peak(models, case):
    measured, kind, arguments, parallelism = MEASURED[case]
    run = read(models, kind, arguments, prompt=98 if case.startswith("H200") else 132)
    if parallelism:
        run = replace(run, parallelism=parallelism, processes=2)
    found = estimate(run)
    total = (found.total - GPU_OVERHEAD * (not run.use_cpu)) / MIB
    print(f"{case}: measured {measured:.0f} MiB, estimated {total:.0f} at the {found.peak}")
    assert total == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(("name", "parameters"), [("qwen-0.5b", 494_032_768), ("qwen-1.5b", 1_543_714_304)])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_parameters_are_those_published_and_of_peft(name, parameters, targets):
    run = Run("sft", Shape.of(CONFIGS[name]), use_peft=True, lora_r=8, lora_target_modules=targets)
    assert run.shape.parameters == parameters
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS[name])
        model = get_peft_model(model, LoraConfig(r=8, target_modules=targets, task_type="CAUSAL_LM"))
    assert estimate(run).trained == sum(one.numel() for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd", "rmsprop"])
def test_optimizer_states_are_those_of_the_optimizer(tmp_path, optim):
    model = AutoModelForCausalLM.from_config(CONFIGS["untied"])
    args = TrainingArguments(tmp_path, optim=optim, use_cpu=True, report_to="none")
    optimizer = Trainer(model, args).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    run = Run("sft", Shape.of(CONFIGS["untied"]), optim=optim, use_cpu=True)
    states = estimate(run).breakdown["optimizer step"].get("optimizer states", 0)
    assert states == sum(value.nbytes for value in kept if value.ndim)


def test_zero_and_fsdp_divide_by_the_processes():
    """ZeRO (arXiv 1910.02054) in bf16: 2, 2 and 12 bytes per parameter for weights, gradients and optimizer."""
    run = Run("sft", Shape.of(CONFIGS["qwen-1.5b"]), processes=4, bf16=True, use_cpu=True)
    n, launches = run.shape.parameters, ("DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP2")
    ddp, *zero, fsdp = (estimate(replace(run, parallelism=kind)).breakdown["optimizer step"] for kind in launches)
    assert ddp["weights"] == ddp["gradients"] == ddp["DDP's buckets"] == 4 * n
    for stage, found in enumerate(zero, 1):
        assert found["float32 master weights"] == n and found["optimizer states"] == 2 * n
        assert found["weights"] == 2 * n // (4 if stage == 3 else 1)
        assert found["gradients"] == 2 * n // (1 if stage == 1 else 4)
    assert fsdp["weights"] == fsdp["gradients"] == n and fsdp["optimizer states"] == 2 * n


def test_quantization_dpo_vllm_and_full_logits_change_the_estimate(models):
    lora = read(models, "sft", {**H200, **LORA, "max_length": 1024})
    linear, other = lora.shape.linear_parameters, lora.shape.parameters - lora.shape.linear_parameters
    quantized = estimate(replace(lora, load_in_4bit=True, dtype="bfloat16"))
    weights = int(linear * (0.5 + 4 / 64)) + 2 * other + 2 * quantized.trained
    assert quantized.breakdown["optimizer step"]["weights"] == weights
    dpo = estimate(read(models, "dpo", H200))
    assert dpo.run.batch == 16 and dpo.breakdown["optimizer step"]["reference model"] == 4 * dpo.trained
    vllm = read(models, "grpo", {**H200, **GRPO, "use_vllm": True, "vllm_mode": "colocate"})
    assert estimate(vllm, 80 * GIB).breakdown["generation"]["vLLM"] == 24 * GIB
    asleep = estimate(replace(vllm, vllm_enable_sleep_mode=True), 80 * GIB).breakdown
    assert "vLLM" in asleep["generation"] and "vLLM" not in asleep["optimizer step"]
    full = estimate(replace(lora, full_logits=True))
    assert full.total > estimate(lora).total + lora.batch * lora.length * lora.shape.vocabulary * 8


def test_unknown_architecture_is_named():
    with pytest.raises(ArgumentError, match="must be a dense model with gated MLPs, such as Llama, received 'gpt2'"):
        Shape.of(GPT2Config(n_embd=8, n_head=2, n_layer=1))


def test_changes_that_are_named_fit(models):
    run = read(models, "sft", {**H200, "max_length": 1024, "gradient_checkpointing": False})
    text, after = alternative(run, estimate(run).total - 1)
    assert text == "`gradient_checkpointing: true`" and after.total < estimate(run).total
    distributed = replace(run, gradient_checkpointing=True, parallelism="DDP", processes=8)
    text, after = alternative(distributed, 7 * GIB)
    assert text.startswith("`per_device_train_batch_size: 1`, `gradient_accumulation_steps: 8`")
    assert "accelerate_configs/zero2.yaml" in text and after.total <= 7 * GIB
    text, after = alternative(replace(run, bf16=False), 3 * GIB)
    assert text.startswith("`gradient_checkpointing: true`, `per_device") and "`use_peft: true`" in text
    assert after.total <= 3 * GIB
    assert alternative(run, GIB) is None


def test_every_accelerate_config_is_read(models):
    kinds = {}
    for path in (ROOT / "accelerate_configs").glob("*.yaml"):
        run = read(models, "sft", H200, accelerate_config=str(path))
        kinds[path.stem] = (run.parallelism, run.processes)
    assert kinds == {
        "cpu_2proc": ("DDP", 2),
        "ddp": ("DDP", 8),
        "fsdp2": ("FSDP2", 8),
        "single_gpu": ("one process", 1),
        "zero2": ("ZeRO-2", 8),
        "zero3": ("ZeRO-3", 8),
    }
    (models / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    launch = {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "ds.json"}}
    (models / "launch.yaml").write_text(yaml.safe_dump({**launch, "num_processes": 2}))
    run = read(models, "sft", H200, accelerate_config=str(models / "launch.yaml"))
    assert (run.parallelism, run.processes) == ("ZeRO-3", 2)
    with pytest.raises(ArgumentError, match="`fsdp_version` must be 2"):
        read_parallelism({"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 1}}, 2)
    with pytest.raises(ArgumentError, match="`offload_param` must be none"):
        read_parallelism({"deepspeed_config": {"zero_stage": 3, "offload_param_device": "cpu"}}, 2)


def command(models: Path, *words: str, **arguments: Any) -> Any:
    return CliRunner().invoke(app, ["memory", write(models, {**H200, "max_length": 1024, **arguments}), *words])


def test_command_shows_each_part_and_what_fits(models):
    zero2 = ["--accelerate-config", str(ROOT / "accelerate_configs" / "zero2.yaml"), "--num-processes", "2"]
    result = command(models, *zero2, "--gpu-memory", "80GB")
    assert result.exit_code == 0 and "ZeRO-2 with 2 processes, 8 x 1024 tokens" in result.output
    assert "it fits" in result.output and "assumed: full batches" in result.output
    found = json.loads(command(models, *zero2, "--json", "--length", "512").output)
    assert found["fits"] is None and found["total"] == sum(found["breakdown"][found["peak"]].values())
    result = command(models, "--gpu-memory", "8GB")
    assert result.exit_code == 1 and "it will not fit; this would: " in result.output
    found = json.loads(command(models, "--gpu-memory", "8GB", "--json").output)
    assert found["fits"] is False and found["alternative"]["total"] <= found["device"]


@pytest.mark.parametrize(
    ("words", "arguments", "message"),
    [
        (["--gpu-memory", "much"], {}, "`gpu_memory` must be a size such as 80GB or 24GiB, received 'much'"),
        (["--accelerate-config", "nowhere.yaml"], {}, "`accelerate_config` must be a file that exists"),
        ([], {"optim": "lomo"}, "`optim` must be one of adamw_torch"),
        ([], {"max_length": None}, "`max_length` must be a number of tokens, received None"),
    ],
)
def test_wrong_arguments_are_named(models, words, arguments, message):
    assert message in str(command(models, *words, **arguments).exception)


def run_check(model: Path, folder: Path, *, in_full: bool = True, **given: Any) -> None:
    args = SFTConfig(folder, use_cpu=True, bf16=False, report_to="none", **given)
    check.check_memory("sft", args, ModelConfig(str(model)), [{"text": "sort 52913" * 100}], in_full=in_full)


def test_recipe_on_a_cpu_shows_memory_in_a_dry_run_only(model_path, tmp_path, capsys, caplog):
    run_check(model_path, tmp_path)
    assert "Estimated memory per process" in capsys.readouterr().out
    run_check(model_path, tmp_path, in_full=False)
    assert capsys.readouterr().out == caplog.text == ""
    run_check(model_path, tmp_path, optim="schedule_free_adamw")
    assert "memory: not estimated (`optim` must be one of" in caplog.text


def test_recipe_warns_if_it_may_not_fit_and_stops_if_it_cannot(model_path, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(check, "device_memory", lambda args: 16 * MIB)
    run_check(model_path, tmp_path, gradient_checkpointing=False)
    assert "it will not fit; this would: " in caplog.text
    monkeypatch.setattr(check, "device_memory", lambda args: 2**12)
    with pytest.raises(ArgumentError, match=r"needs .* for weights, gradients and optimizer states alone, but"):
        run_check(model_path, tmp_path)
