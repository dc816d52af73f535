"""Run a script under FSDP2 on CPU processes over gloo; Accelerate itself shards on accelerators only.

accelerate launch --config_file tests/helpers/launchers/fsdp2_cpu_2proc.yaml tests/helpers/launchers/fsdp2_on_cpu.py ...

It replaces a private method of Accelerate.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate.state import PartialState
from accelerate.utils import DistributedType


def _prepare_backend(*_args: Any, **_kwargs: Any) -> tuple[str, DistributedType]:
    # Accelerate switches to FSDP from MULTI_GPU, and CPU tensors need gloo. Under `use_cpu: true` Accelerate creates a
    # process group for MULTI_CPU only, so create it here.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return "gloo", DistributedType.MULTI_GPU


def _set_device(state: PartialState) -> None:
    # For MULTI_GPU, Accelerate would look for a CUDA device.
    state.device = torch.device("cpu")


if __name__ == "__main__":
    PartialState._prepare_backend = _prepare_backend
    PartialState.set_device = _set_device
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
