"""How fast do the recipes train on a GPU, and how much memory do they take?

    python -m benchmarks.gpu.run --output runs/gpu                          # hours; see --sizes and --kinds
    python -m benchmarks.gpu.run --device cpu --tiny --output runs/gpu      # a trial run

SFT and GRPO of models in the shapes of Qwen2.5-0.5B and 1.5B, with their shipped configs, on one GPU, compared with
TRL's own script at the same settings (target: at least 0.99 times as fast). Then settings are added to TRL's defaults
one by one, to show what each gives (target: 1.5 times the defaults in the end). Weights are random, problems made up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.common.recipe_runs import RunFailed
from benchmarks.common.reporting import installed_versions
from benchmarks.gpu.inputs import SHAPES, TINY, make_model, make_problems, write_rows
from benchmarks.gpu.matrix_rate import ModelCost, measure_matrix_rate, published_rate
from benchmarks.gpu.report import report
from benchmarks.gpu.speed import SETTINGS, Case, measure_speed

PACKAGES = ("torch", "transformers", "trl", "accelerate", "liger-kernel", "flash-attn", "vllm")


def main() -> int:
    """Measure what is requested; the exit status is 1 if a part of it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=6, help="at least 6 for a 95%% interval (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each run (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU; the figures mean nothing")
    parser.add_argument("--output", type=Path, required=True, help="a folder for gpu.md and gpu.json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("`--device` is 'cuda', but torch finds no GPU; for a trial run use `--device cpu --tiny`")
    if args.device == "cpu" and not args.tiny:
        parser.error("`--device cpu` would take days at these sizes; add `--tiny`")
    if args.steps < 4:
        parser.error(f"`--steps` must be at least 4, because the first two are not counted, received {args.steps}")
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    speed: dict[str, Any] = {}
    results: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.gpu.run", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "versions": installed_versions(*PACKAGES),
        "device": device,
        "tiny": args.tiny,
        "matrix_rate": measure_matrix_rate(args.device),
        "published_rate": published_rate(device),
        "speed": speed,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
        for key, found in _measure(args, Path(folder)):
            speed[key] = found
            (args.output / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            (args.output / "gpu.md").write_text(report(results) + "\n", encoding="utf-8")
    print(report(results))
    return int(any(isinstance(found, str) for found in speed.values()))


def _measure(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    problems = make_problems(200 if args.tiny else 2000)
    write_rows(problems, folder / "rows")
    order = random.Random(0)
    for size in args.sizes:
        model = folder / size
        make_model(TINY if args.tiny else SHAPES[size], model, problems)
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            parameters = AutoModelForCausalLM.from_config(config).num_parameters()
        about = {"parameters": parameters, "cost": vars(ModelCost.of(config, parameters))}
        for kind in args.kinds:
            print(f"{size}, {kind}", file=sys.stderr, flush=True)
            case = Case(size, kind, model, folder / "rows", args.device, args.steps, args.tiny)
            try:
                runs = measure_speed(case, folder / "runs", args.rounds, order)
                yield f"{size} {kind}", {**about, "runs": runs, "failed": case.failed}
            except RunFailed as error:
                yield f"{size} {kind}", str(error)


if __name__ == "__main__":
    sys.exit(main())
