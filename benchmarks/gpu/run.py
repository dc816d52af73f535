"""What the recipes reach on a GPU: tokens a second, memory, the share of the card's matrix rate; and what is learned.

    python -m benchmarks.gpu.run --gsm8k FOLDER --smollm2 runs/smollm2/model --output FOLDER     # hours; --only cuts it
    python -m benchmarks.gpu.run --device cpu --tiny --output FOLDER                             # shows that it runs

Speed: SFT and GRPO of models in the shapes of Qwen2.5-0.5B and 1.5B, with the configs that are shipped for them, on one
GPU. Beside them runs TRL's own script at the same settings (wanted: never slower than 0.99 times); and from TRL's
defaults up, settings are added one by one, to say which gave what (wanted: 1.5 times the defaults, at best). Weights
are random unless `--model` gives some, problems made up unless `--gsm8k` does.

Learning: SmolLM2-135M, as hf_sched.finetune.demo.smollm2 makes it, on GSM8K: accuracy before, after SFT and after GRPO, under four
schedules, with one seed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.common.intervals import Estimate
from benchmarks.common.recipe_runs import RunFailed
from benchmarks.common.reporting import table_head, table_row
from benchmarks.common.scripts import BARE, RECIPE
from benchmarks.gpu.inputs import SHAPES, make_model, read_problems, write_rows
from benchmarks.gpu.learning import SCHEDULES, Lesson, measure_learning
from benchmarks.gpu.matrix_rate import ModelCost, measure_matrix_rate, published_rate
from benchmarks.gpu.speed import DEFAULTS, LADDERS, Case, measure_speed, ratios

PACKAGES = ("torch", "transformers", "trl", "accelerate", "liger-kernel", "flash-attn", "vllm")
SAME, FASTER = 0.99, 1.5


def main() -> int:
    """Measure what is requested; the exit status is 1 if something of it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("speed", "learning"), default=["speed", "learning"])
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=LADDERS, default=list(LADDERS))
    parser.add_argument("--rounds", type=int, default=6, help="6 or more for a 95%% interval (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each run of speed (default: %(default)s)")
    parser.add_argument("--model", nargs="+", default=[], metavar="SIZE=FOLDER", help="weights, such as 0.5b=FOLDER")
    parser.add_argument("--tokenizer", help="a folder, for random weights (default: one is trained on the problems)")
    parser.add_argument("--gsm8k", type=Path, help="a folder with train.jsonl and test.jsonl")
    parser.add_argument("--smollm2", type=Path, help="the folder that hf_sched.finetune.demo.smollm2 has made")
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    parser.add_argument("--sft_steps", type=int, default=400, help="(default: %(default)s)")
    parser.add_argument("--grpo_steps", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument(
        "--problems", type=int, default=1319, help="held out, that are requested (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="models and data small enough for a CPU; no figure to quote"
    )
    parser.add_argument("--output", type=Path, required=True, help="a folder for gpu.md and gpu.json")
    args = parser.parse_args()
    try:
        models = _check(args)
    except ValueError as error:
        parser.error(str(error))
    results = _header(args.device, args.tiny)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
        if "speed" in args.only:
            for key, found in _speeds(args, models, Path(folder)):
                results["speed"][key] = found
                _write(args.output, results)
        if "learning" in args.only and args.smollm2:
            for schedule, rows in _lessons(args, Path(folder)):
                results["learning"][schedule] = rows
                _write(args.output, results)
    print(report(results))
    return int(any(isinstance(found, str) for part in ("speed", "learning") for found in results[part].values()))


def _check(args: argparse.Namespace) -> dict[str, Path]:
    """The folders of `--model` by size."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("`--device` is 'cuda', but torch sees no GPU: write `--device cpu --tiny` to try it out")
    if args.device == "cpu" and not args.tiny:
        raise ValueError("`--device cpu` would take days at these sizes: add `--tiny`")
    if args.smollm2 and not args.gsm8k:
        raise ValueError("`--smollm2` is trained on GSM8K: give its folder by `--gsm8k`")
    if args.steps < 4:
        raise ValueError(f"`--steps` must be at least 4, since the first two are not counted, received {args.steps}")
    models = {}
    for word in args.model:
        size, equals, folder = word.partition("=")
        if size not in SHAPES or not equals or not Path(folder).is_dir():
            raise ValueError(f"`--model` must be SIZE=FOLDER, SIZE one of {', '.join(SHAPES)}, received {word!r}")
        models[size] = Path(folder)
    return models


def _header(device: str, tiny: bool) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join(sys.argv),
        "date": date.today().isoformat(),
        "versions": versions,
        "device": name,
        "tiny": tiny,
        "matrix_rate": measure_matrix_rate(device),
        "published_rate": published_rate(name),
        "speed": {},
        "learning": {},
    }


def _speeds(args: argparse.Namespace, models: Mapping[str, Path], folder: Path) -> Any:
    problems = read_problems(args.gsm8k)
    write_rows(problems[:200] if args.tiny else problems, folder / "rows")
    order = random.Random(0)
    for size in args.sizes:
        model = models.get(size, folder / size)
        if size not in models:
            make_model(size, model, problems, tiny=args.tiny, tokenizer=args.tokenizer)
        with torch.device("meta"):
            parameters = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).num_parameters()
        cost = ModelCost.of(AutoConfig.from_pretrained(model), parameters)
        for kind in args.kinds:
            print(f"{size}, {kind}", file=sys.stderr, flush=True)
            case = Case(size, kind, model, folder / "rows", args.device, args.steps, args.tiny)
            try:
                runs = measure_speed(case, folder / "runs", args.rounds, order)
            except RunFailed as error:
                yield f"{size} {kind}", str(error)
                continue
            about = {"weights": "given" if size in models else "random", "parameters": parameters, "cost": vars(cost)}
            yield f"{size} {kind}", {"kind": kind, **about, "runs": runs, "failed": case.failed}


def _lessons(args: argparse.Namespace, folder: Path) -> Any:
    lesson = Lesson(
        args.smollm2, args.gsm8k, args.device, args.sft_steps, args.grpo_steps, args.problems, tiny=args.tiny
    )
    for schedule in args.schedules:
        print(f"SmolLM2, {schedule}", file=sys.stderr, flush=True)
        try:
            yield schedule, measure_learning(lesson, schedule, folder / "learning")
        except RunFailed as error:
            yield schedule, str(error)


def _write(folder: Path, results: Mapping[str, Any]) -> None:
    (folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(report(results) + "\n", encoding="utf-8")


def report(results: Mapping[str, Any]) -> str:
    """The Markdown section."""
    note = ["Tiny models: this shows that it runs, and no figure is worth quoting.", ""] if results["tiny"] else []
    rate, published = results["matrix_rate"], results["published_rate"]
    lines = [f"## Figures of a GPU: {results['device']}", "", *note]
    sheet = f"; its data sheet says {published / 1e12:.0f}" if published else ""
    lines += [f"Its matrix rate, bf16, measured on the spot: {rate / 1e12:.3g} TFLOP/s{sheet}.", ""]
    for key, found in results["speed"].items():
        lines += [*_speed_table(key, found, rate), ""]
    if results["speed"]:
        lines += [
            "Tokens without padding; of GRPO, prompts and completions. The share is of the matrix rate above, by what "
            "forward and backward pass need (6 FLOPs a weight and token, and attention); GRPO generates besides, which "
            "is not counted. Medians of the rounds, ratios with their interval by ranks.",
            "",
        ]
    if results["learning"]:
        lines += [*_learning_table(results["learning"]), ""]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return "\n".join([*lines, f"Measured on {results['date']} by `{results['command']}` with {versions}."])


def _speed_table(key: str, found: Mapping[str, Any] | str, rate: float) -> list[str]:
    if isinstance(found, str):
        return [f"### {key}", "", f"Failed: {found.splitlines()[-1]}"]
    runs, cost = found["runs"], ModelCost(**found["cost"])
    lines = [f"### {key}, {found['weights']} weights, {found['parameters'] / 1e6:.0f}M parameters", ""]
    lines += table_head("training", "tokens/s", "a step", "peak memory", "share of the matrix rate", "times as fast")
    before = DEFAULTS
    # That of a single sequence, also where several are packed into a row: none attends to another.
    length = _median(next((of_rounds for name, of_rounds in runs.items() if "packing" not in name), []), "length")
    for name, of_rounds in runs.items():
        tokens, step, peak = (_median(of_rounds, what) for what in ("tokens", "step", "peak_bytes"))
        against = f"shipped config, {BARE}" if name.startswith("shipped") else DEFAULTS
        times = ""
        if name != against and against in runs:
            times = f"{Estimate.of(ratios(of_rounds, runs[against]))} of {against}"
        if name.startswith("+") and before in runs and before != DEFAULTS:
            times += f"; {Estimate.of(ratios(of_rounds, runs[before]))} of the row above"
        if name.startswith("+"):
            before = name
        share = tokens * cost.training(length) / rate
        lines.append(
            table_row(name, f"{tokens:,.0f}", f"{step:.3g} s", f"{peak / 2**30:.2f} GiB", f"{share:.1%}", times)
        )
    lines += [table_row(name, "not measured:", why, "", "", "") for name, why in found["failed"].items()]
    return [*lines, "", *_verdicts(runs)]


def _median(of_rounds: Sequence[Mapping[str, Any]], what: str) -> float:
    return float(statistics.median([one[what] for one in of_rounds] or [math.nan]))


def _verdicts(runs: Mapping[str, Any]) -> list[str]:
    lines = []
    ours, theirs = (runs.get(f"shipped config, {script}") for script in (RECIPE, BARE))
    if ours and theirs:
        estimate = Estimate.of(ratios(ours, theirs))
        same = "the same" if ours[0]["losses"] == theirs[0]["losses"] else "NOT the same"
        lines.append(
            f"- The recipe at least {SAME} times as fast as TRL's script: {estimate.at_least(SAME)}; "
            f"their losses are {same}, to the bit."
        )
    climbed = [name for name in runs if name.startswith("+")]
    if climbed and DEFAULTS in runs:
        best = max(climbed, key=lambda name: _median(runs[name], "tokens"))
        estimate = Estimate.of(ratios(runs[best], runs[DEFAULTS]))
        lines.append(
            f'- At least {FASTER} times TRL\'s defaults, with all up to "{best}": {estimate.at_least(FASTER)}.'
        )
    return lines


def _learning_table(learning: Mapping[str, Any]) -> list[str]:
    lines = ["### SmolLM2-135M on GSM8K, one seed", ""]
    lines += table_head("schedule", "before", "after SFT", "after GRPO", "SFT changed", "GRPO changed")
    for schedule, rows in learning.items():
        if isinstance(rows, str):
            lines.append(table_row(schedule, "failed:", rows.splitlines()[-1], "", "", ""))
            continue
        shares = [f"{row['exact_match']:.1%} ({_span(row['interval'])})" for row in rows]
        changes = [f"{_points(row['compared'])}: {row['compared']['verdict']}" for row in rows[1:]]
        lines.append(table_row(schedule, *shares, *changes))
    total = next((rows[0]["problems"] for rows in learning.values() if not isinstance(rows, str)), 0)
    return [*lines, "", f"Exact match, greedy, on {total} held-out problems; Wilson's intervals, paired differences."]


def _span(interval: list[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _points(compared: Mapping[str, Any]) -> str:
    low, high = compared["interval"]
    return f"{100 * compared['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
