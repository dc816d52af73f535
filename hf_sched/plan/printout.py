"""A plan as text and tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_sched.plan.grpo_batches import Generations
from hf_sched.plan.plan import Plan, PlannedGroup
from hf_sched.plots.console import has_colors
from hf_sched.plots.terminal import draw

_MOST_STEPS = 6


def print_plan(planned: Plan, out: Console) -> None:
    """Print a plan."""
    steps = _count(planned.num_training_steps, "optimizer step")
    out.print(f"[bold]{escape(planned.source)}[/]  {planned.kind}, {steps}")
    if planned.assumed:
        out.print(f"assumed: {', '.join(planned.assumed)}", markup=False)
    out.print()
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, fact in _facts(planned).items():
        facts.add_row(escape(name), escape(fact))
    out.print(facts)
    if planned.curves:
        out.print()
        out.print(draw(planned.curves, width=min(out.width, 80), height=10, lettered=not has_colors(out)))
    if planned.notes:
        out.print()
    for note in planned.notes:
        out.print(f"- {note}", markup=False)


def _facts(plan: Plan) -> dict[str, str]:
    processes, samples, device = plan.world_size, plan.dataset_size, plan.per_device_train_batch_size
    product = f"{device} per process x {processes.processes} x {plan.gradient_accumulation_steps} accumulated"
    epochs = "unknown without the number of samples: `--dataset-size N`"
    if plan.epochs is not None and plan.steps_per_epoch is not None:
        epochs = f"{plan.epochs:.4g} x {_count(plan.steps_per_epoch, 'step')}"
    rates = {"first": plan.first_lr, "peak": plan.peak_lr, "last": plan.last_lr}
    known_rates = [f"{name} {rate:.4g}" for name, rate in rates.items() if rate is not None]
    return {
        "processes": f"{processes.processes} ({processes.source})",
        "dataset": f"{'unknown' if samples.samples is None else f'{samples.samples:,}'} ({samples.source})",
        "effective batch": f"{plan.effective_batch:,} {'completions' if plan.grpo else 'samples'} = {product}",
        "epochs": epochs,
        **(_generations(plan.grpo, plan.gradient_accumulation_steps) if plan.grpo else {}),
        "schedule": f"{plan.schedule_name}: {plan.schedule or f'warmup {plan.num_warmup_steps}'}",
        "learning rate": ", ".join(known_rates),
        **{f"  {group.pattern}": _group(group) for group in plan.groups},
        **plan.hyperparameters,
        "evaluations": _steps(plan.evaluations),
        "checkpoints": _steps(plan.checkpoints),
        "output folder": plan.output_dir,
    }


def _group(group: PlannedGroup) -> str:
    return f"peak {group.peak:.4g}{'' if group.schedule is None else f', {group.schedule}'}"


def _generations(g: Generations, accumulation: int) -> dict[str, str]:
    prompts = _count(g.prompts_per_generation, "prompt")
    factors = f"steps_per_generation {g.steps_per_generation} x num_iterations {g.num_iterations}"
    steps = _count(g.optimizer_steps_per_generation, "optimizer step")
    return {
        "generation": f"{prompts} x num_generations {g.num_generations} = {g.generation_batch_size:,} completions",
        "used for": f"{steps} = {factors} / accumulation {accumulation}",
        "run": f"{_count(g.generations, 'generation')}: {g.prompts:,} prompts, {g.completions:,} completions",
    }


def _steps(steps: Sequence[int] | None) -> str:
    if not steps:
        return "none" if steps is not None else "unknown: at the ends of epochs, or after the best evaluations"
    shown = [f"{step:,}" for step in steps]
    if len(shown) > _MOST_STEPS:
        shown = [*shown[: _MOST_STEPS - 3], "...", *shown[-2:]]
    return f"{len(steps):,}, after step{'s' if len(steps) > 1 else ''} {', '.join(shown)}"


def _count(number: float, what: str) -> str:
    return f"{number:,.10g} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"
