"""How fast do the recipes train on a GPU, and how much memory do they take?

    python -m benchmarks.gpu.run --output runs/gpu             # hours; see --kinds
    python -m benchmarks.gpu.run --tiny --output runs/gpu      # a trial run on a CPU; its figures mean nothing

SFT and GRPO of a model in the shape of Qwen2.5-0.5B, with the shipped configs, on one GPU, compared with TRL's own
script at the same settings (target: at least 0.99 times as fast). Then settings are added to TRL's defaults one by one,
to show what each gives. Weights are random, problems made up. Writes the report gpu.md, and gpu.csv with a line for
each run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
import yaml

from benchmarks.common.intervals import Interval
from benchmarks.common.programs import BARE, RECIPE, WARM_UP, Observed, Program, run_in_rounds, training
from benchmarks.common.reporting import command_line, installed_versions, table
from benchmarks.common.task import ON_CPU, REWARD, ROOT
from benchmarks.gpu.inputs import SHAPE, TINY, make_model, make_problems, write_rows

SAME = 0.99
# Those without which a speed would not be that of the config. vLLM is a separate setting below.
_FROM_CONFIG = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "max_length"),
    *("num_generations", "max_completion_length", "learning_rate", "seed"),
)
# TRL's script knows neither our rewards nor our schedules.
_FIXED = {"lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "report_to": "none"}
_TINY: dict[str, dict[str, Any]] = {"sft": ON_CPU, "grpo": {**ON_CPU, "max_completion_length": 8}}
DEFAULTS = "TRL's defaults"
SHIPPED = {script: f"shipped config, {script}" for script in (BARE, RECIPE)}
# Each adds its arguments to those before, if the package that it needs is installed.
_SHARED: list[tuple[str, dict[str, Any], str]] = [
    ("+ no gradient checkpointing, bf16 weights", {"gradient_checkpointing": False, "dtype": "bfloat16"}, "torch"),
    ("+ Liger kernels", {"use_liger_kernel": True}, "liger_kernel"),
]
SETTINGS = {
    "sft": [
        *_SHARED,
        # Other kernels compute all pairs of tokens in the packed row and mask most of them.
        ("+ packing", {"attn_implementation": "flash_attention_2", "packing": True}, "flash_attn"),
        ("+ 16 sequences a process", {"per_device_train_batch_size": 16}, "torch"),
    ],
    "grpo": [
        *_SHARED,
        ("+ vLLM on the same GPU", {"use_vllm": True, "vllm_mode": "colocate"}, "vllm"),
        ("+ 64 completions a process", {"per_device_train_batch_size": 64}, "torch"),
    ],
}


def programs(kind: str, folder: Path, steps: int, tiny: bool) -> dict[str, Program]:
    """Return the trainings that are compared."""
    arguments = {
        "model_name_or_path": str(folder / "model"),
        "dataset_name": str(folder / "rows" / kind),
        "max_steps": steps,
        **({"reward_funcs": [REWARD]} if kind == "grpo" else {}),
        **_FIXED,
        **(_TINY[kind] if tiny else {}),
    }
    file = ROOT / "recipes" / "configs" / f"qwen2.5-0.5b_gsm8k_{kind}.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    shipped = {key: config[key] for key in _FROM_CONFIG if key in config} | arguments
    given = [(name, script, shipped) for script, name in SHIPPED.items()]
    given.append((DEFAULTS, BARE, arguments))
    for name, added, package in SETTINGS[kind]:
        if importlib.util.find_spec(package):
            arguments = arguments | added
            given.append((name, RECIPE, arguments))
    return {
        name: training(script, kind, folder / "runs" / f"{kind}-{number}", arguments)
        for number, (name, script, arguments) in enumerate(given)
    }


def figures(observed: Observed) -> dict[str, Any]:
    """Return the figures of a run from the steps after `WARM_UP`; `step` is the median, in seconds.

    Tokens are counted without padding: all that are read in SFT, prompts and completions in GRPO.
    """
    counted = observed.logged("num_tokens")
    walls = observed.steps[WARM_UP:, 0]
    return {
        "tokens_per_second": (counted[-1] - counted[WARM_UP - 1]) / walls.sum(),
        "step": np.median(walls),
        "peak_gib": (observed.record["gpu_bytes"] or observed.record["peak_bytes"]) / 2**30,
        "losses": json.dumps(observed.logged("loss")),
    }


def report(runs: pd.DataFrame, title: str) -> str:
    """Return the report of the runs in gpu.csv."""
    lines = [f"## {title}"]
    for kind, of_kind in runs.groupby("kind", sort=False):
        rates = of_kind.pivot(index="round", columns="training", values="tokens_per_second")
        rows = []
        for name, of_training in of_kind.groupby("training", sort=False):
            other = SHIPPED[BARE] if name in SHIPPED.values() else DEFAULTS
            times = Interval.of_median((rates[name] / rates[other]).tolist())
            tokens, step, peak = of_training[["tokens_per_second", "step", "peak_gib"]].median()
            cells = (f"{tokens:,.0f}", f"{step:.3g} s", f"{peak:.2f} GiB")
            rows.append([name, *cells, "" if name == other else f"{times} of {other}"])
        lines += ["", f"### {kind.upper()}", ""]
        lines += table(["training", "tokens/s", "a step", "peak memory", "times as fast"], rows)
        verdict = Interval.of_median((rates[SHIPPED[RECIPE]] / rates[SHIPPED[BARE]]).tolist()).verdict(at_least=SAME)
        losses = of_kind[of_kind["training"].isin(SHIPPED.values())]["losses"]
        same = "the same" if losses.nunique() == 1 else "NOT the same"
        lines += ["", f"At least {SAME} times as fast as TRL's script: {verdict}; the losses are {same}, bit for bit."]
    versions = installed_versions("torch", "transformers", "trl", "accelerate", "liger-kernel", "flash-attn", "vllm")
    lines += [
        "",
        "Tokens are without padding; in GRPO, prompts and completions. Figures are medians of the rounds; ratios are "
        f"within a round, with their interval by ranks. {date.today()}; {', '.join(map(' '.join, versions.items()))}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what is requested, write gpu.md and gpu.csv, and print the report."""
    parser = command_line(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=6, help="at least 6 for a 95%% interval (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each run, of which two do not count")
    parser.add_argument("--tiny", action="store_true", help="a small model on a CPU")
    parser.add_argument("--output", type=Path, required=True, help="a folder for gpu.md and gpu.csv")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("torch finds no GPU; add `--tiny` for a trial run")
    args.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        problems = make_problems(200 if args.tiny else 2000)
        write_rows(problems, folder / "rows")
        parameters = make_model(TINY if args.tiny else SHAPE, folder / "model", problems)
        device = "CPU" if args.tiny else torch.cuda.get_device_name()
        for kind in args.kinds:
            compared = programs(kind, folder, args.steps, args.tiny)
            # Before the first round, every training fills caches and compiles kernels.
            warm_up = [] if args.tiny else list(compared)
            for number, observed in enumerate(run_in_rounds(compared, args.rounds, warm_up), 1):
                for key, one in observed.items():
                    rows.append({"kind": kind, "training": key, "round": number, **figures(one)})
                runs = pd.DataFrame(rows)
                runs.to_csv(args.output / "gpu.csv", index=False)
                text = report(runs, f"{parameters / 1e6:.1f}M parameters on one {device}")
                (args.output / "gpu.md").write_text(text + "\n", encoding="utf-8")
                print(f"{kind}: round {number} of {args.rounds}", file=sys.stderr, flush=True)
    print(text)


if __name__ == "__main__":
    main()
