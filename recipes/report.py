"""A report of finished runs: the learning rate planned and actual, loss, reward, answers before and after.

    python recipes/report.py --runs runs/demo/sft runs/demo/grpo \\
        --evaluation runs/demo/evaluation.json --output runs/demo/report.md

It reads what a recipe leaves in its run's folder (`training_args.bin`, which says what was asked for, and
`trainer_state.json` and `learning_rates.jsonl`, which say what was done), and the results of evaluation.py. The
pictures go beside the report.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hf_sched import plotting
from hf_sched.audit import AuditReport, audit
from scores import describe_difference, describe_points

Array = npt.NDArray[np.float64]
SAMPLES = 5


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    args: Any
    """Its training arguments."""
    history: list[dict[str, Any]]
    """What it logged."""

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's folder.

        Raises:
            ValueError: It is not the folder of a finished run.
        """
        for name in ("training_args.bin", "trainer_state.json"):
            if not (folder / name).is_file():
                raise ValueError(f"`--runs` must be folders of finished runs, but {str(folder)!r} has no {name}")
        args = torch.load(folder / "training_args.bin", weights_only=False)
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        return cls(folder, args, state["log_history"])

    @property
    def schedule_name(self) -> str:
        """What `lr_scheduler_type` was."""
        return str(getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type))

    @cached_property
    def audit(self) -> AuditReport:
        """The learning rates that were asked for, and those it trained with."""
        return audit(self.folder)

    def logged(self, key: str) -> tuple[Array, Array]:
        """The optimizer steps (from 0) at which something was logged, and its values."""
        rows = [(row["step"] - 1, row[key]) for row in self.history if key in row]
        if not rows:
            raise ValueError(f"{self.folder} logged no `{key}`: train with `logging_steps: 1`")
        steps, values = np.array(rows, dtype=np.float64).T
        return steps, values

    @property
    def is_rl(self) -> bool:
        """Whether it was trained on rewards."""
        return any("reward" in row for row in self.history)


def draw(run: Run, path: Path) -> None:
    """Draw learning rate, loss and, where there is one, reward of a run."""
    figure, axes = plotting.new_figure(3 if run.is_rl else 2)
    seen = run.audit.comparisons[0]
    plotting.draw_planned_and_actual(axes[0], run.audit.curve(), seen.steps, seen.actual, name=run.schedule_name)
    axes[0].set_title("learning rate")
    for ax, key in zip(axes[1:], ["reward", "loss"] if run.is_rl else ["loss"], strict=True):
        steps, values = run.logged(key)
        ax.plot(steps, values, color=plotting.COLORS[0], linewidth=0.8, alpha=0.4)
        window = min(10, len(values))
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        ax.plot(steps[window - 1 :], smooth, color=plotting.COLORS[0], label=f"mean of {window}")
        ax.set(title=key, xlabel="optimizer step", ylabel=key)
        ax.legend(frameon=False)
    figure.savefig(path)


def describe(run: Run, picture: str) -> list[str]:
    """The section of a run."""
    planned = run.audit.curve()
    schedule = run.audit.record.plans[-1].schedule
    return [
        f"## {run.folder.name}",
        "",
        f"![learning rate, planned and actual, and what was learned]({picture})",
        "",
        "| | |",
        "|---|---|",
        f"| schedule | `{run.schedule_name}` {json.dumps(run.args.lr_scheduler_kwargs or {})} |",
        *([f"| its phases, in optimizer steps | {_cell(str(schedule))} |"] if schedule else []),
        f"| optimizer steps | {len(planned)}, learning rate known at {len(run.audit.comparisons[0].steps)} of them |",
        f"| learning rate | {planned[0]:.4g} at the first step, {planned.max():.4g} at most, {planned[-1]:.4g} at the "
        "last |",
        f"| planned against actual | largest difference {run.audit.deviation:.3g} |",
        *(f"| **wrong** | {_cell(finding)} |" for finding in run.audit.findings),
        f"| processes x batch x accumulation | {run.args.world_size} x {run.args.per_device_train_batch_size} x "
        f"{run.args.gradient_accumulation_steps} |",
        "",
    ]


def describe_evaluation(results: dict[str, Any]) -> list[str]:
    """The tables of exact match and of differences, and the first answers of every model."""
    ks = list(dict.fromkeys(k for result in results.values() for k in result.get("sampled", {}).get("pass_at", {})))
    lines = [
        "## Exact match on held-out problems",
        "",
        "| model | right, greedy | exact match | " + "".join(f"pass@{k} | " for k in ks) + "cut off |",
        "|---" * (4 + len(ks)) + "|",
    ]
    for model, result in results.items():
        sampled = result.get("sampled", {}).get("pass_at", {})
        shares = [_share(result["exact_match"], result["interval"])]
        shares += [_share(sampled[k]["value"], sampled[k]["interval"]) if k in sampled else "" for k in ks]
        lines.append(
            f"| {model} | {result['right']} of {result['problems']} | {' | '.join(shares)} | {result['cut_off']} |"
        )
    lines += ["", *describe_comparisons(results), *describe_methods(results)]
    models = list(results)
    lines += ["", f"The first {SAMPLES} of them, answer by answer:", ""]
    lines += ["| problem | answer | " + " | ".join(models) + " |", "|---" * (2 + len(models)) + "|"]
    for rows in list(zip(*(results[model]["completions"] for model in models), strict=True))[:SAMPLES]:
        cells = [_prompt_text(rows[0]["prompt"]), rows[0]["answer"]]
        cells += [f"{row['completion'] or '(nothing)'} {'✓' if row['right'] else '✗'}" for row in rows]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return [*lines, ""]


def describe_comparisons(results: dict[str, Any]) -> list[str]:
    """What changed from one model to the next, on the same problems."""
    lines = []
    for model, result in results.items():
        if compared := result.get("compared"):
            lines.append(f"- {model} against {compared['with']}: {describe_difference(compared)}")
            lines += [f"  - pass@{k}: {describe_points(one)}" for k, one in compared.get("pass_at", {}).items()]
    return [*lines, ""] if lines else []


def describe_methods(results: dict[str, Any]) -> list[str]:
    """How the intervals were made."""
    *_, last = results.values()
    methods = [f"exact match: {last['interval_method']}"]
    if sampled := last.get("sampled"):
        settings = sampled["settings"]
        drawn = f"{sampled['samples']} samples at temperature {settings['temperature']}, top_p {settings['top_p']}"
        methods.append(f"pass@k: {drawn}; {sampled['estimator']}; {sampled['interval_method']}")
    if compared := last.get("compared"):
        methods.append(f"differences of exact match: {compared['interval_method']}")
    return [f"In brackets are confidence intervals. {'. '.join(one[0].upper() + one[1:] for one in methods)}."]


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of finished runs")
    parser.add_argument("--evaluation", type=Path, help="what evaluation.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="a Markdown file")
    args = parser.parse_args()
    try:
        runs = [Run.load(folder) for folder in args.runs]
    except ValueError as error:
        parser.error(str(error))
    results = json.loads(args.evaluation.read_text(encoding="utf-8")) if args.evaluation else {}

    lines = ["# Report", ""]
    lines += describe_evaluation(results) if results else []
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for run in runs:
        picture = f"{run.folder.name}.png"
        draw(run, args.output.parent / picture)
        lines += describe(run, picture)
    args.output.write_text("\n".join(lines), encoding="utf-8")
    print(f"The report is in {args.output}.")
    for model, result in results.items():
        print(f"  exact match of {model}: {_share(result['exact_match'], result['interval'])}")


def _share(value: float, interval: list[float]) -> str:
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def _prompt_text(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return flat if len(flat) <= 200 else flat[:200] + " ..."


if __name__ == "__main__":
    main()
