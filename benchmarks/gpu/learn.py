"""What do SFT and then GRPO teach a small model, in a few minutes of one GPU?

    python benchmarks/gpu/learn.py --model runs/smollm2/model --data GSM8K --output runs/gpu_learning

GSM8K is a folder with train.jsonl and test.jsonl. `python -m hf_sched.finetune.demo.smollm2` writes the model; any
other works too. Prints the share of right answers of the three models with 95% intervals, and the differences; the
seconds of each part are in seconds.json. Part by part, the same command continues after an interruption.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # if it runs as a script

from benchmarks.common.reporting import command_line
from benchmarks.common.task import ROOT, child_environment

# Beside the arguments of the shipped configurations. A model of 135M parameters takes higher rates than one of 0.5B.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 1e-4, "max_length": 512, "eval_strategy": "no"},
    "grpo": {
        "learning_rate": 5e-6,
        "max_completion_length": 256,
        "reward_funcs": ["accuracy", "{name: answer_format, format: hashes, weight: 0.2}"],
    },
}
ON_CPU = {"use_cpu": True, "bf16": False, "per_device_train_batch_size": 8, "dataloader_num_workers": 0}


def train(kind: str, model: str, data: Path, output: Path, steps: int, on_cpu: bool) -> None:
    """Run a recipe with its shipped configuration, unless `output` has a finished model.

    Raises:
        SystemExit: The training failed.
    """
    from hf_sched.finetune import grpo, sft

    arguments = {
        **ARGUMENTS[kind],
        "model_name_or_path": model,
        "dataset_name": data,
        "dataset_config": "default",
        "output_dir": output,
        "max_steps": steps,
        "warmup_steps": 0.05,
        "report_to": "none",
        "resume_from_checkpoint": "auto",
        **(ON_CPU if on_cpu else {}),
    }
    words = ["--config", str(ROOT / "recipes" / "configs" / f"qwen2.5-0.5b_gsm8k_{kind}.yaml")]
    for name, value in arguments.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    if status := {"sft": sft, "grpo": grpo}[kind].main(words):
        raise SystemExit(status)


def evaluate(models: list[str], data: Path, output: Path, problems: int, on_cpu: bool) -> None:
    """Run `hf-sched evaluate`, which prints the comparison, in a process that has the whole memory of the GPU."""
    words = ["--data", data, "--metric", "accuracy", "--max-problems", problems, "--output", output]
    words += ["--max-new-tokens", 8 if on_cpu else 256, "--batch-size", 250]
    command = [sys.executable, "-m", "hf_sched", "evaluate", *models, *map(str, words)]
    subprocess.run(command, env=child_environment(), check=True)


def main() -> None:
    """Train, evaluate, and print the result."""
    parser = command_line(__doc__)
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--data", type=Path, required=True, help="a folder with GSM8K's train.jsonl and test.jsonl")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_learning"))
    parser.add_argument("--sft-steps", type=int, default=230, help="of 64 samples (default: %(default)s, two epochs)")
    parser.add_argument("--grpo-steps", type=int, default=60, help="of 64 completions (default: %(default)s)")
    parser.add_argument("--problems", type=int, default=500, help="held-out problems (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="small batches and short answers, for a trial run")
    args = parser.parse_args()
    sft, grpo = args.output / "sft", args.output / "grpo"
    results = args.output / "evaluation.json"
    parts: dict[str, Callable[[], None]] = {
        "SFT": lambda: train("sft", args.model, args.data, sft, args.sft_steps, args.cpu),
        "GRPO": lambda: train("grpo", str(sft), args.data, grpo, args.grpo_steps, args.cpu),
        "evaluation": lambda: evaluate([args.model, str(sft), str(grpo)], args.data, results, args.problems, args.cpu),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for name, part in parts.items():
        start = time.monotonic()
        part()
        seconds[name] = round(time.monotonic() - start, 1)
        (args.output / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    print(", ".join(f"{name}: {used:.0f} s" for name, used in seconds.items()))


if __name__ == "__main__":
    main()
