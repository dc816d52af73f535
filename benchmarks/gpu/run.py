"""How fast do the recipes train on a GPU, and how much memory do they take?

    python -m benchmarks.gpu.run --output runs/gpu             # hours; see --kinds
    python -m benchmarks.gpu.run --tiny --output runs/gpu      # a trial run on a CPU; its figures mean nothing

SFT and GRPO of a model in the shape of Qwen2.5-0.5B, with the shipped configs, on one GPU, compared with TRL's own
script at the same settings (target: at least 0.99 times as fast). Then settings are added to TRL's defaults one by one,
to show what each gives. Weights are random, problems made up.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.reporting import command_line, installed_versions
from benchmarks.gpu.inputs import SHAPE, TINY, make_model, make_problems, write_rows
from benchmarks.gpu.report import report
from benchmarks.gpu.speed import SETTINGS, measure_matrix_rate, measure_speed, required_arguments

PACKAGES = ("torch", "transformers", "trl", "accelerate", "liger-kernel", "flash-attn", "vllm")


def main() -> None:
    """Measure what is requested, write gpu.md and gpu.json, and print the report."""
    parser = command_line(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=6, help="at least 6 for a 95%% interval (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each run (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a small model on a CPU")
    parser.add_argument("--output", type=Path, required=True, help="a folder for gpu.md and gpu.json")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("torch finds no GPU; add `--tiny` for a trial run")
    if args.steps < 4:
        parser.error(f"`--steps` must be at least 4, because the first two are not counted, received {args.steps}")
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        problems = make_problems(200 if args.tiny else 2000)
        write_rows(problems, folder / "rows")
        results: dict[str, Any] = {
            "command": " ".join(["python -m benchmarks.gpu.run", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "versions": installed_versions(*PACKAGES),
            "device": "CPU" if args.tiny else torch.cuda.get_device_name(),
            "tiny": args.tiny,
            "matrix_rate": measure_matrix_rate("cpu" if args.tiny else "cuda"),
            "parameters": make_model(TINY if args.tiny else SHAPE, folder / "model", problems),
            "kinds": {},
        }
        for kind in args.kinds:
            print(kind, file=sys.stderr, flush=True)
            required = required_arguments(kind, folder / "model", folder / "rows", args.steps, args.tiny)
            runs, failed = measure_speed(kind, required, folder / "runs", args.rounds)
            results["kinds"][kind] = {"runs": runs, "failed": failed}
            (args.output / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            (args.output / "gpu.md").write_text(report(results) + "\n", encoding="utf-8")
    print(report(results))


if __name__ == "__main__":
    main()
