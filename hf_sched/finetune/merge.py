"""Merges a LoRA adapter into its base model, and proves it: what is saved gives the logits of base and adapter.

    python -m hf_sched.finetune.merge --adapter runs/qwen2.5-0.5b_gsm8k_sft_lora --output runs/qwen2.5-0.5b_gsm8k_sft_merged

An adapter that is empty (as some sharded trainings leave it) or changes nothing is refused. The merged model is written
only after it was loaded again and compared.
"""

from __future__ import annotations

import argparse
import gc
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "What is 48 + 24? Reason step by step.",
    "def fibonacci(n):\n    return n if n < 2 else",
)
# Of the largest logit: float32 leaves rounding alone; half precision rounds each merged weight once more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Comparison:
    """Logits of two models on the same texts."""

    deviation: float
    """The largest difference, as a share of the largest logit."""
    agreement: float
    """The share of positions with the same most likely token."""


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that would change nothing.

    Raises:
        ValueError: There is none in the folder, tensors in it are empty or not finite, or all that it adds is 0.
    """
    file = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not file.is_file():
        raise ValueError(
            f"`--adapter` must be a folder with adapter_config.json and {file.name}, received {str(folder)!r}"
        )
    tensors = load_file(file)
    of = f"of the {len(tensors)} tensors of the adapter {str(folder)!r}"
    if empty := [name for name, tensor in tensors.items() if tensor.numel() == 0]:
        raise ValueError(
            f"{len(empty)} {of} are empty, as {empty[0]} is: one process of a sharded training saved it. Save it with "
            "`stage3_gather_16bit_weights_on_model_save: true` (ZeRO-3) or FULL_STATE_DICT (FSDP)"
        )
    if broken := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ValueError(f"{len(broken)} {of} hold NaN or infinity, as {broken[0]} does")
    # What LoRA adds is B A; B starts at 0.
    added = [tensor for name, tensor in tensors.items() if "lora_B" in name or "lora_embedding_B" in name]
    if not tensors or (added and not any(bool(tensor.any()) for tensor in added)):
        raise ValueError(f"the adapter {str(folder)!r} changes nothing: all that it adds is 0, so it was never trained")


def merge(adapter: Path, output: Path, dtype: torch.dtype | None = None) -> Comparison:
    """Merge, save, load again, compare; `dtype` is that of the base model by default.

    Raises:
        ValueError: The adapter is none, or changes nothing, or the output exists.
        RuntimeError: The logits differ by more than rounding; nothing is left behind.
    """
    check_adapter(adapter)
    if output.exists():
        raise ValueError(f"`--output` must be a folder that is not there yet, received {str(output)!r}")
    config = PeftConfig.from_pretrained(str(adapter))
    if config.base_model_name_or_path is None:
        raise ValueError(f"adapter_config.json in {str(adapter)!r} does not say which model it is for")
    tokenizer = AutoTokenizer.from_pretrained(_tokenizer_folder(adapter, config))
    base = AutoModelForCausalLM.from_pretrained(
        config.base_model_name_or_path, revision=config.revision, dtype=dtype or "auto"
    )
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    wanted = _logits(model, tokenizer)
    model = model.merge_and_unload(safe_merge=True)

    unproven = output.with_name(f"{output.name}.unproven")
    shutil.rmtree(unproven, ignore_errors=True)
    try:
        model.save_pretrained(unproven)
        tokenizer.save_pretrained(unproven)
        kind = model.dtype
        del model, base
        gc.collect()
        again = AutoModelForCausalLM.from_pretrained(unproven, dtype="auto").eval()
        found = compare(wanted, _logits(again, tokenizer))
        if not found.deviation <= TOLERANCE.get(kind, 5e-2):
            raise RuntimeError(
                f"the merged model differs from base and adapter by {found.deviation:.3g} of the largest logit "
                f"({found.agreement:.1%} of the positions agree), more than rounding in {kind}: nothing was written"
            )
        _write_card(unproven, adapter, config.base_model_name_or_path, found)
        unproven.rename(output)
    finally:
        shutil.rmtree(unproven, ignore_errors=True)
    return found


def compare(wanted: list[torch.Tensor], found: list[torch.Tensor]) -> Comparison:
    """Compare logits, each of shape (tokens, vocabulary)."""
    largest = max(float(logits.abs().max()) for logits in wanted)
    worst = max(float((one - other).abs().max()) for one, other in zip(wanted, found, strict=True))
    same = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in zip(wanted, found, strict=True)])
    return Comparison(worst / largest if largest else worst, float(same.float().mean()))


def _logits(model: Any, tokenizer: Any) -> list[torch.Tensor]:
    logits = []
    for text in TEXTS:
        with torch.inference_mode():
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            logits.append(model(input_ids=ids.to(model.device)).logits[0].float().cpu())
    return logits


def _tokenizer_folder(adapter: Path, config: PeftConfig) -> str:
    # The Trainer saves it beside the adapter, with the chat template and tokens that were trained.
    return str(adapter) if (adapter / "tokenizer_config.json").is_file() else str(config.base_model_name_or_path)


def _write_card(folder: Path, adapter: Path, base_model: str, found: Comparison) -> None:
    local = Path(base_model).exists()
    data = ModelCardData(
        base_model=None if local else base_model, library_name="transformers", tags=["hf_sched", "merged"]
    )
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# {folder.name.removesuffix('.unproven')}\n\n"
        f"`{base_model}` with the LoRA adapter of `{adapter.name}` merged into it by hf_sched.finetune.merge of hf_sched.\n\n"
        f"Loaded again, its logits on {len(TEXTS)} texts differ from those of base and adapter by "
        f"{found.deviation:.2g} of the largest; {found.agreement:.1%} of the positions have the same top token.\n"
    )
    ModelCard(text).save(folder / "README.md")


def main() -> None:
    """Merge as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True, help="the output_dir of a run with use_peft")
    parser.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="(default: the base model's)")
    args = parser.parse_args()
    try:
        found = merge(args.adapter, args.output, getattr(torch, args.dtype) if args.dtype else None)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    print(
        f"{args.output}: merged; loaded again, its logits differ by {found.deviation:.2g} of the largest, and "
        f"{found.agreement:.1%} of the most likely tokens agree"
    )


if __name__ == "__main__":
    main()
