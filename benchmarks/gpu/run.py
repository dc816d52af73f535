"""Is the plugin exact on this GPU, how fast are the recipes, and is their memory as estimated?

    python benchmarks/gpu/run.py --minutes 8 --output runs/gpu
    python benchmarks/gpu/run.py --size tiny --output runs/gpu    # on a CPU: a trial run, its figures mean nothing

Works without internet: weights are random, in the shape of Qwen2.5, and `--data` names a folder with GSM8K's
train.jsonl (otherwise problems are made up). The most informative jobs come first. Each has a time limit, and its
result is written when it ends (results.json, table.md). The same command again continues; it repeats failed jobs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import product
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # if it runs as a script

import yaml

from benchmarks.common.reporting import command_line, table
from benchmarks.common.task import ON_CPU, REWARD, ROOT, child_environment

BARE, RECIPE, DEFAULTS = "TRL's script", "recipe", "TRL's defaults"
WARM_UP = 4  # steps that do not count: one generation of GRPO
ROUNDS = 3
LORA = {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear", "dtype": "bfloat16"}
# Beside the shipped configurations, trainings whose memory is compared with the estimate.
VARIANTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("sft", "0.5B", "LoRA", LORA),
    ("sft", "0.5B", "gradient checkpointing", {"gradient_checkpointing": True}),
    ("grpo", "1.5B", "shipped config", {}),
    ("sft", "1.5B", "gradient checkpointing", {"gradient_checkpointing": True}),
    ("sft", "1.5B", "LoRA", LORA),
    ("sft", "0.5B", "torch.compile", {"torch_compile": True}),
]
# Targets: as text, tokens per second, and the share of the matrix rate.
_SPEED: dict[str, tuple[Any, ...]] = {
    "SFT 0.5B, shipped config": ("60,000 tokens/s, 25%", 60_000, 0.25),
    "SFT 1.5B, shipped config": ("35%", 0, 0.35),
    "GRPO 0.5B, shipped config": ("3,700 tokens/s", 3_700, 0),
}
NOT_SHIPPED = ("model_name_or_path", "dataset_name", "dataset_config", "eval_strategy", "eval_steps", "save_steps")


@dataclass(frozen=True)
class Job:
    """Work for a worker, and the seconds that it may take."""

    name: str
    worker: str
    limit: float
    task: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, the most informative first."""

    size: str
    data: Path | None
    folder: Path
    """For models, data and the trainings' own output."""
    results: Mapping[str, dict[str, Any]]

    def __iter__(self) -> Iterator[Job]:
        is_tiny = self.size == "tiny"
        small = "tiny" if is_tiny else "0.5B"
        yield Job("machine", RECIPE, 90, {"do": "machine"})
        inputs = {"do": "prepare", "data": self.data and str(self.data), "problems": 200 if is_tiny else 2000}
        yield Job("inputs", RECIPE, 60, {**inputs, "size": "tiny"})
        for check in (
            "rates",
            "resume",
            "fp16 overflow",
            "tensor learning rate",
            "DDP",
            *(() if is_tiny else ("FSDP2",)),
        ):
            yield Job(f"plugin: {check}", RECIPE, 90, {"do": "plugin", "check": check})
        if not is_tiny:
            yield self._model(small)
        for number in range(1, 2 if is_tiny else ROUNDS + 1):
            for kind in ("sft", "grpo"):
                yield from self._round(kind, small, number)
            if number == 1 and not is_tiny:
                yield self._model("1.5B")
                yield self._train("sft", "1.5B", "shipped config", {})
        for kind, size, name, given in VARIANTS[:1] if is_tiny else VARIANTS:
            yield self._train(kind, small if is_tiny else size, name, given)

    def _model(self, size: str) -> Job:
        return Job(f"model {size}", RECIPE, 60, {"do": "prepare", "size": size, "longest": self._longest})

    @property
    def _longest(self) -> dict[str, int]:
        return dict(self.results.get("inputs", {}).get("longest", {}))

    def _round(self, kind: str, size: str, number: int) -> Iterator[Job]:
        own = self._train(kind, size, "shipped config", {}, number)
        yield own
        resolved = self.results.get(own.name, {}).get("resolved", {})
        others = [self._train(kind, size, name, given, number) for name, given in ((BARE, resolved), (DEFAULTS, {}))]
        yield from others if number % 2 else reversed(others)

    def _train(self, kind: str, size: str, name: str, given: Mapping[str, Any], number: int = 1) -> Job:
        title, is_recipe = f"{kind.upper()} {size}, {name}, round {number}", name not in (BARE, DEFAULTS)
        few = 4 if self.size == "tiny" or (kind == "grpo" and name == DEFAULTS) else 8
        arguments: dict[str, Any] = {
            "model_name_or_path": str(self.folder / size),
            "dataset_name": str(self.folder / kind),
            "output_dir": str(self.folder / "runs" / title.replace(" ", "_").replace("'", "").replace(",", "")),
            "max_steps": WARM_UP + (few if kind == "grpo" or self.size == "tiny" else 16),
            "logging_steps": WARM_UP,
            "save_strategy": "no",
            "report_to": "none",
            "lr_scheduler_type": "constant",
            **({"reward_funcs": [REWARD]} if kind == "grpo" else {}),
            **({"max_completion_length": 8 if self.size == "tiny" else 128} if kind == "grpo" else {}),
        }
        if name != DEFAULTS:
            file = ROOT / "recipes" / "configs" / f"qwen2.5-0.5b_gsm8k_{kind}.yaml"
            shipped = yaml.safe_load(file.read_text(encoding="utf-8"))
            arguments = {key: value for key, value in shipped.items() if key not in NOT_SHIPPED} | arguments
            arguments |= {"warmup_steps": 0, **given}
            del arguments["lr_scheduler_kwargs"]
        if self.size == "tiny":
            arguments |= {**ON_CPU, "per_device_train_batch_size": 4, "dataloader_num_workers": 0}
            arguments |= {"max_length": 256} if kind == "sft" else {"num_generations": 4}
        if name == BARE:
            del arguments["fast"]
        if is_recipe:  # the same rate as a constant one, set and checked by hf_sched
            arguments |= {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold"}}
        # Liger replaces functions for the rest of the process, and it needs a GPU.
        worker = RECIPE if is_recipe or self.size == "tiny" else name
        task = {"do": "train", "kind": kind, "script": RECIPE if is_recipe else BARE, "arguments": arguments}
        return Job(title, worker, 120, {**task, "warm_up": WARM_UP, "longest": self._longest})


class Workers:
    """Processes that take one job after another, with the libraries imported."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder, self._logs = folder, logs
        self._running: dict[str, tuple[BaseProcess, Connection]] = {}

    def start(self, name: str) -> tuple[BaseProcess, Connection]:
        """Return the worker of this name, started if necessary, and the connection to it."""
        if name not in self._running:
            ours, theirs = multiprocessing.Pipe()
            log = self._logs / f"{name.replace(' ', '_')}.log"
            process = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, self._folder, log))
            process.start()
            theirs.close()  # so that the end of the process ends the connection
            self._running[name] = process, ours
        return self._running[name]

    def run(self, job: Job, seconds: float) -> dict[str, Any]:
        """Run a job and return its answer, with `error` if it fails or takes longer than `seconds`."""
        process, connection = self.start(job.worker)
        connection.send({**job.task, "folder": str(self._folder)})
        error = f"stopped after {seconds:.0f} s"
        if connection.poll(seconds):
            try:
                return dict(connection.recv())
            except (EOFError, OSError):
                error = f"the process ended; see {job.worker}.log"
        _kill(process)
        del self._running[job.worker]
        return {"error": error}

    def end(self) -> None:
        """End all workers."""
        for process, _ in self._running.values():
            _kill(process)


def _work(connection: Connection, folder: Path, log: Path) -> None:
    """Run jobs until this process is killed. What they print goes to the log."""
    os.setsid()  # to be killed with what it starts
    os.chdir(ROOT)
    os.environ |= child_environment() | {"HF_DATASETS_CACHE": str(folder / "cache")}
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from benchmarks.gpu.worker import run_job  # imports the libraries

    while True:
        connection.send(run_job(connection.recv()))


def _kill(process: BaseProcess) -> None:
    """End a worker and what it has started: a launcher has its own processes."""
    if process.pid is not None:
        with suppress(ProcessLookupError):  # it has no group before `setsid`
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def report(results: Mapping[str, Any]) -> str:
    """Return one table: what was measured, the target, and whether it is met."""
    rows: list[list[str]] = []
    machine = results.get("machine", {})
    trained = {name: result for name, result in results.items() if "tokens_per_second" in result}
    for name, result in results.items():
        if "error" in result:
            rows.append([name, result["error"], "", "FAILED"])
        elif name.startswith("plugin: "):
            rows.append([name, result["text"], "exact", "met" if "needs" not in result["text"] else ""])
    trainings: dict[str, list[dict[str, Any]]] = {}
    for name, result in trained.items():
        trainings.setdefault(name.rpartition(", ")[0], []).append(result)
    for name, rounds in trainings.items():
        size = name.partition(",")[0].split()[1]
        parameters = results[f"model {size}" if size != "tiny" else "inputs"]["parameters"]
        tokens, step = (median(one[key] for one in rounds) for key in ("tokens_per_second", "step"))
        share = 6 * parameters * tokens / 1e12 / machine["tflops"]
        text = f"{tokens:,.0f} tokens/s, {step:.3g} s per step, {share:.1%} of the matrix rate"
        target, *least = _SPEED.get(name, ("",))
        met = tokens >= least[0] and share >= least[1] if least else None
        rows.append([name, text, target, _verdict(met)])
        if peak := max(one["peak"] or 0 for one in rounds):
            ratio = peak / rounds[0]["estimate"]
            text = f"{peak / 2**30:.2f} GiB, {ratio:.2f} times the estimate"
            rows.append([f"{name}, memory", text, "0.85 to 1.15", _verdict(0.85 <= ratio <= 1.15)])
    for kind, (other, target) in product(("SFT", "GRPO"), ((BARE, 0.99), (DEFAULTS, 5.0))):
        twins = {name: name.replace("shipped config", other) for name in trained if name.startswith(kind)}
        pairs = [(trained[name], trained[twin]) for name, twin in twins.items() if twin != name and twin in trained]
        if pairs:
            ratios = [one["tokens_per_second"] / two["tokens_per_second"] for one, two in pairs]
            text = f"{median(ratios):.3g} times as fast, {len(pairs)} pairs ({min(ratios):.3g} to {max(ratios):.3g})"
            rows.append([f"{kind}, recipe and {other}", text, f"{target:g}", _verdict(median(ratios) >= target)])
        if pairs and other == BARE:
            equal = all(one["losses"] == two["losses"] and any(one["losses"]) for one, two in pairs)
            text = "equal, bit for bit" if equal else "NOT equal, or all 0"
            rows.append([f"{kind}, losses of recipe and {other}", text, "equal", _verdict(equal)])
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    rate = f"{machine.get('tflops', 0):,.0f} TFLOP/s (bf16)"
    commit = (machine.get("commit") or {}).get("commit", "unknown")
    lines = [f"{machine.get('card')}, {rate}; {versions}; commit {commit}; {time.strftime('%Y-%m-%d')}", ""]
    return "\n".join(lines + table(["what", "measured", "target", ""], rows))


def _verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "MISSED"


def main() -> int:
    """Run the jobs that fit in the time, and print the table. The exit status is 1 if a job failed."""
    parser = command_line(__doc__)
    parser.add_argument("--minutes", type=float, default=8, help="when to stop (default: %(default)s)")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--data", type=Path, help="a folder with GSM8K's train.jsonl")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="for results.json, table.md and logs")
    parser.add_argument("--work", type=Path, help="for the models, gigabytes (default: a temporary folder)")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    with ExitStack() as stack:
        folder = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf_sched_gpu_")))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "tiny").is_dir():  # the data and models were in another folder
            results = {name: one for name, one in results.items() if name != "inputs" and not name.startswith("model ")}
        workers = Workers(folder.resolve(), args.output)
        stack.callback(workers.end)
        if args.size == "full":
            for name in (RECIPE, BARE, DEFAULTS):
                workers.start(name)
        for job in Plan(args.size, args.data and args.data.resolve(), folder.resolve(), results):
            left = deadline - time.monotonic()
            if job.name in results and "error" not in results[job.name]:
                continue
            if left < 10:
                break
            start = time.monotonic()
            results[job.name] = workers.run(job, min(job.limit, left))
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
            os.replace(temporary, file)
            (args.output / "table.md").write_text(report(results) + "\n", encoding="utf-8")
            print(f"{job.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(report(results))
    return int(any("error" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
