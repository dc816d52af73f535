"""Merges a LoRA adapter into its base model and verifies that the saved model gives the same logits.

An adapter that is empty (some sharded training runs save one) or that changes nothing is rejected. The merged model
appears in the output folder only after it has been loaded again and compared.
"""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_sched.schedules.validation import ArgumentError

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "What is 48 + 24? Reason step by step.",
    "def fibonacci(n):\n    return n if n < 2 else",
)
# Relative to the largest logit. In half precision, each merged weight is rounded once more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def check_adapter(folder: Path) -> None:
    """Check that a folder holds an adapter that changes its base model.

    Raises:
        ArgumentError: It holds no adapter, or one with empty or all-zero tensors.
    """
    file = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not file.is_file():
        raise ArgumentError("adapter", f"a folder with adapter_config.json and {file.name}", str(folder))
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ArgumentError("adapter", rule=f"is damaged: {error}", received=str(file)) from None
    if empty := [name for name, tensor in tensors.items() if tensor.numel() == 0]:
        raise ArgumentError(
            "adapter",
            rule=f"has {len(empty)} empty tensors of {len(tensors)} in {str(folder)!r}, such as {empty[0]}",
            hint="one process of a sharded training run saved it: save it again with "
            "`stage3_gather_16bit_weights_on_model_save: true` (ZeRO-3) or FULL_STATE_DICT (FSDP)",
        )
    # LoRA adds B A to a weight, and B starts at 0.
    added = [tensor for name, tensor in tensors.items() if "lora_B" in name or "lora_embedding_B" in name]
    if added and not any(bool(tensor.any()) for tensor in added):
        raise ArgumentError("adapter", rule="changes nothing, because it was never trained", received=str(folder))


def merge(adapter: Path, output: Path, dtype: torch.dtype | None = None) -> float:
    """Merge an adapter into its base model, save the result, load it again and compare its logits.

    Args:
        adapter: The folder of the adapter: the `output_dir` of a run with `use_peft`.
        output: A new folder for the merged model, its tokenizer and a model card.
        dtype: The dtype of the merged model; by default that of the base model.

    Returns:
        The largest difference of a logit, relative to the largest logit.

    Raises:
        ArgumentError: The adapter is unusable or the output folder exists.
        ValueError: The merged weights have NaN.
        RuntimeError: The logits differ by more than rounding. Nothing is written.
    """
    check_adapter(adapter)
    if output.exists():
        raise ArgumentError("output", "a folder that does not exist yet", str(output))
    config = PeftConfig.from_pretrained(str(adapter))
    name = str(config.base_model_name_or_path)
    # The Trainer saves the tokenizer, with the chat template and the tokens that were trained, next to the adapter.
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(str(adapter) if has_tokenizer else name)
    base = AutoModelForCausalLM.from_pretrained(name, revision=config.revision, dtype=dtype or "auto")
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    expected = _logits(model, tokenizer)
    model = model.merge_and_unload(safe_merge=True)

    unverified = output.with_name(f"{output.name}.unverified")
    shutil.rmtree(unverified, ignore_errors=True)
    try:
        model.save_pretrained(unverified)
        tokenizer.save_pretrained(unverified)
        used_dtype = model.dtype
        del model, base
        gc.collect()
        reloaded = AutoModelForCausalLM.from_pretrained(unverified, dtype="auto").eval()
        deviation = float((_logits(reloaded, tokenizer) - expected).abs().max() / expected.abs().max())
        if not deviation <= TOLERANCE.get(used_dtype, 5e-2):
            differs = f"the merged model's logits differ by {deviation:.3g} of the largest"
            raise RuntimeError(f"{differs}, more than rounding in {used_dtype}; nothing was written")
        _write_card(unverified, output.name, adapter, name, deviation)
        unverified.rename(output)
    finally:
        shutil.rmtree(unverified, ignore_errors=True)
    return deviation


def _logits(model: Any, tokenizer: Any) -> torch.Tensor:
    """Return the logits of all tokens of `TEXTS`, of shape (tokens, vocabulary)."""
    ids = [tokenizer(text, return_tensors="pt")["input_ids"].to(model.device) for text in TEXTS]
    with torch.inference_mode():
        return torch.cat([model(input_ids=one).logits[0].float().cpu() for one in ids])


def _write_card(folder: Path, name: str, adapter: Path, base_model: str, deviation: float) -> None:
    hub_name = None if Path(base_model).exists() else base_model
    data = ModelCardData(base_model=hub_name, library_name="transformers", tags=["hf_sched", "merged"])
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n"
        f"`{base_model}` with the LoRA adapter `{adapter.name}`, merged by `hf-sched merge`.\n\n"
        f"On {len(TEXTS)} texts, the logits of the saved model differ from those of base model and adapter by at most "
        f"{deviation:.2g} of the largest.\n"
    )
    ModelCard(text).save(folder / "README.md")
