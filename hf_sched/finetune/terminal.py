"""What a recipe shows besides its progress: a header before the training, and figures and the next command after it.

Messages of other libraries are hidden unless `verbose` is set.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import timedelta
from functools import partialmethod
from io import StringIO
from pathlib import Path
from statistics import mean
from typing import Any

import datasets
import transformers
from rich.console import Console
from rich.markup import escape
from tqdm import tqdm
from transformers.integrations import TrackioCallback

from hf_sched.audit import audit
from hf_sched.finetune.evaluation.metrics import headline
from hf_sched.plan import Plan
from hf_sched.plots.console import console
from hf_sched.plots.terminal import draw

logger = logging.getLogger(__name__)

LIBRARIES = (
    *("accelerate", "datasets", "DeepSpeed", "filelock", "fsspec", "httpx", "huggingface_hub", "peft", "tensorboard"),
    *("torch", "torchao", "transformers", "trl", "vllm"),
)
MAIN_FIGURE = {"sft": "loss", "grpo": "reward", "dpo": "rewards/accuracies"}
_HEIGHT, _WIDTH = 5, 80  # of the curve


def quiet_libraries(verbose: bool = False) -> None:
    """Hide what other libraries say below errors, and leave none of their progress bars on the screen.

    The bars are off on all but the main process, and in log files, even if `verbose` is set.
    """
    if os.environ.get("RANK", "0") != "0" or not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()  # that of huggingface_hub too
    if verbose:
        return
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).addFilter(_is_error)  # DeepSpeed sets its level when it is imported
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"hf_sched\b")
    warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
    if not getattr(tqdm.__init__, "keywords", None):
        tqdm.__init__ = partialmethod(tqdm.__init__, leave=False)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class QuietTrackioCallback(TrackioCallback):
    """Prints nothing; the header of a run says how to open the page."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        with redirect_stdout(StringIO()):
            super().setup(*args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        with redirect_stdout(StringIO()):
            super().on_train_end(*args, **kwargs)


def quiet_training(trainer: Any) -> None:
    """Leave only our progress on the screen from here on; call it when the model is loaded."""
    transformers.utils.logging.disable_progress_bar()
    if trainer.pop_callback(TrackioCallback):
        trainer.add_callback(QuietTrackioCallback())


def print_header(trainer: Any, planned: Plan, data: str, checkpoint: str | None) -> None:
    """Print model, data, plan and curve of a run that is about to start."""
    out = console(sys.stderr)
    _print_rows(out, _facts(trainer, planned, data) | ({"resumes from": checkpoint} if checkpoint else {}))
    if planned.curve is not None:
        out.print()
        out.print(draw({planned.schedule_name: planned.curve}, width=min(out.width, _WIDTH), height=_HEIGHT))


def _facts(trainer: Any, planned: Plan, data: str) -> dict[str, str]:
    args, model = trainer.args, trainer.model
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)
    share = "all trained" if trained == total else f"{_count(trained)} of them ({trained / total:.2%}) trained"
    samples, batch = planned.dataset_size.samples, f"{planned.effective_batch:,}"
    batch += " completions" if planned.grpo else " samples"
    epochs = "" if planned.epochs is None else f" ({planned.epochs:.3g} epoch{'' if planned.epochs == 1 else 's'})"
    processes = f"{args.world_size} process{'es' if args.world_size > 1 else ''}"
    curve = planned.schedule or f"warmup {planned.num_warmup_steps}"
    saving = f", a checkpoint every {args.save_steps:g} steps" if args.save_strategy == "steps" else ""
    page = f"trackio show --project {args.project}" if "trackio" in args.report_to else ", ".join(args.report_to)
    facts = {
        "model": f"{model.name_or_path}: {_count(total)} parameters, {share}",
        "data": data if samples is None else f"{data}: {samples:,} samples",
        "plan": f"{planned.num_training_steps:,} steps{epochs} of {batch}, {processes} on {args.device.type}",
        "learning rate": f"{planned.schedule_name}, peak {planned.peak_lr:.4g}: {curve}",
        "output": f"{args.output_dir}{saving}",
    }
    return facts | ({"tracker": page} if page else {})


def print_summary(kind: str, folder: str, history: Sequence[Mapping[str, Any]], *, is_adapter: bool) -> None:
    """Print the three most important figures of a finished run and the next command."""
    out = console(sys.stdout)
    last = {key: value for record in history for key, value in record.items()}
    took = f" after {timedelta(seconds=round(last['train_runtime']))}" if "train_runtime" in last else ""
    out.print(f"\n[bold]The model is in {escape(folder)}[/]{took}", soft_wrap=True)
    _print_rows(out, _figures(kind, history, last, Path(folder)))
    following = f"merge {folder} --output {folder}_merged" if is_adapter else f"report {folder}"
    out.print(f"next: hf-sched {following}", markup=False, soft_wrap=True)


def _figures(kind: str, history: Sequence[Mapping[str, Any]], last: Mapping[str, Any], folder: Path) -> dict[str, str]:
    figures = {}
    name = MAIN_FIGURE[kind]
    if values := [record[name] for record in history if name in record]:
        tenth = max(len(values) // 10, 1)
        figures[name] = f"{mean(values[:tenth]):.3g} -> {mean(values[-tenth:]):.3g} (first and last tenth of the run)"
    evaluation = folder / "evaluation.json"
    evaluated = [record["eval_loss"] for record in history if "eval_loss" in record]
    if evaluation.is_file():
        results = json.loads(evaluation.read_text(encoding="utf-8")).values()
        label, *_ = (headline(result)[0] for result in results)
        shown = " -> ".join(headline(result)[1].partition(" ")[0] for result in results)
        figures[label] = f"{shown} on {max(result['problems'] for result in results)} problems"
    elif evaluated:
        figures["eval loss"] = f"{evaluated[0]:.3g} -> {evaluated[-1]:.3g}"
    elif "train_samples_per_second" in last:
        figures["speed"] = f"{last['train_samples_per_second']:.3g} samples per second"
    figures["learning rate"] = _judged(folder)
    return figures


def _judged(folder: Path) -> str:
    report = audit(folder)
    if report.ok:
        return f"as planned at all {report.record.steps_made:,} steps"
    return f"off the plan; `hf-sched check {folder}` says where and why"


def _print_rows(out: Console, rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    indent = " " * (width + 4)
    for name, text in rows.items():
        lines = textwrap.wrap(text, out.width - len(indent), break_long_words=False, break_on_hyphens=False)
        shown = escape(f"\n{indent}".join(lines))
        out.print(f"  [dim]{name:<{width}}[/]  {shown}", soft_wrap=True)


def _count(parameters: int) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return str(parameters)
