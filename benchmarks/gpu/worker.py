"""The jobs of the GPU benchmark, run in a process that imports the libraries once."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.common.observed import Observer, run_observed
from benchmarks.common.programs import SCRIPTS
from benchmarks.common.reporting import installed_versions
from benchmarks.gpu.inputs import make_inputs, make_model, read_problems
from benchmarks.gpu.plugin import CHECKS
from hf_sched.finetune.memory.estimate import GPU_OVERHEAD, estimate
from hf_sched.finetune.memory.run_settings import read_config
from hf_sched.finetune.provenance import git_commit

# What `fast: true` may have changed, for TRL's script at the same settings and for the estimate.
RESOLVED = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "use_liger_kernel"),
    *("logging_nan_inf_filter", "steps_per_generation", "use_vllm"),
)
_PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "liger-kernel", "flash-attn", "vllm")


def describe_machine(job: dict[str, Any]) -> dict[str, Any]:
    """Return the card, its matrix rate in TFLOP/s (bf16, measured), the commit and the versions."""
    device, width = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 256)
    one = torch.randn(width, width, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(10):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    rate = 2 * width**3 / min(seconds) / 1e12
    return {"card": card, "tflops": rate, "commit": git_commit(), "versions": installed_versions(*_PACKAGES)}


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Write the data, the tokenizer and a model."""
    folder, longest = Path(job["folder"]), job.get("longest")
    if longest is None:
        data = Path(job["data"]) if job["data"] else None
        longest = make_inputs(read_problems(data, job["problems"]), folder)
    return {"longest": longest, "parameters": make_model(job["size"], folder)}


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Run a training and return its figures.

    Tokens are counted without padding: all that are read in SFT, prompts and completions in GRPO. The steps up to
    `warm_up`, at which the first record is logged, do not count.
    """
    kind, arguments, warm_up = job["kind"], job["arguments"], job["warm_up"]
    config = Path(f"{arguments['output_dir']}.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(arguments), encoding="utf-8")
    record = run_observed([word.format(kind=kind) for word in SCRIPTS[job["script"]]] + ["--config", str(config)])
    walls = [end - start for (start, _), (end, _) in zip(record["marks"], record["marks"][1:], strict=False)]
    counted = [row["num_tokens"] for row in record["logs"] if "num_tokens" in row]
    resolved = {name: getattr(Observer.arguments, name) for name in RESOLVED if hasattr(Observer.arguments, name)}
    attention = (Observer.arguments.model_init_kwargs or {}).get("attn_implementation")
    resolved |= {"attn_implementation": attention} if attention else {}
    if kind == "sft" and str(attention).startswith("flash_attention"):
        resolved |= {"padding_free": True, "max_length": None}
    own = {name: value for name, value in arguments.items() if name not in ("fast", "activation_checkpointing")}
    config.write_text(yaml.safe_dump(own | resolved), encoding="utf-8")
    expected = estimate(read_config(str(config), kind, length=job["longest"]["sft"], prompt=job["longest"]["grpo"]))
    return {
        "tokens_per_second": (counted[-1] - counted[0]) / sum(walls[warm_up:]),
        "step": sorted(walls[warm_up:])[len(walls[warm_up:]) // 2],
        "peak": record["gpu_bytes"],
        "estimate": expected.total - GPU_OVERHEAD * torch.cuda.is_available(),
        "losses": [row["loss"] for row in record["logs"] if "loss" in row],
        "resolved": resolved,
    }


def check_plugin(job: dict[str, Any]) -> dict[str, Any]:
    """Run a check of the plugin."""
    return {"text": CHECKS[job["check"]](Path(job["folder"], "plugin", job["check"]))}


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "machine": describe_machine,
    "prepare": prepare,
    "train": train,
    "plugin": check_plugin,
}


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job; return its result, or its error."""
    try:
        return JOBS[job["do"]](job)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
