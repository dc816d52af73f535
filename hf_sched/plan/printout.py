"""A plan as text and tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_sched.plan.grpo_batches import Generations
from hf_sched.plan.plan import Plan
from hf_sched.plots.terminal import draw

_MOST_PHASES = 12
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
        facts.add_row(name, escape(fact))
    out.print(facts)
    if planned.curve is not None:
        out.print()
        out.print(_phases(planned))
        out.print()
        out.print(draw({planned.schedule_name: planned.curve}, width=min(out.width, 80), height=10))
    if planned.notes:
        out.print()
    for note in planned.notes:
        out.print(f"- {note}", markup=False)


def _facts(plan: Plan) -> dict[str, str]:
    processes, samples, device = plan.world_size, plan.dataset_size, plan.per_device_train_batch_size
    product = f"{device} per process x {processes.processes}"
    if plan.split_batches:
        product = f"{device} split over {_count(processes.processes, 'process')}"
    product += f" x {plan.gradient_accumulation_steps} accumulated"
    epochs = "unknown without the number of samples: `--dataset-size N`"
    if plan.epochs is not None and plan.steps_per_epoch is not None:
        epochs = f"{plan.epochs:.4g} x {_count(plan.steps_per_epoch, 'step')}"
    checkpoints = _steps(plan.checkpoints)
    if plan.checkpoints_kept and plan.checkpoints_kept != plan.checkpoints:
        checkpoints += f"; kept: {_steps(plan.checkpoints_kept)} (save_total_limit {plan.save_total_limit})"
    rates = {"first": plan.first_lr, "peak": plan.peak_lr, "last": plan.last_lr}
    return {
        "processes": f"{processes.processes} ({processes.source})",
        "dataset": f"{'unknown' if samples.samples is None else f'{samples.samples:,}'} ({samples.source})",
        "effective batch": f"{plan.effective_batch:,} {'completions' if plan.grpo else 'samples'} = {product}",
        "epochs": epochs,
        **(_generations(plan.grpo, plan.gradient_accumulation_steps) if plan.grpo else {}),
        "schedule": plan.schedule_name + (f": {plan.schedule}" if plan.schedule else ""),
        "learning rate": ", ".join(f"{name} {_rate(rate)}" for name, rate in rates.items()),
        "evaluations": _steps(plan.evaluations),
        "checkpoints": checkpoints,
        "at the end": f"the model is saved in {plan.output_dir}" if plan.saves_model else "depends on the script",
    }


def _generations(g: Generations, accumulation: int) -> dict[str, str]:
    prompts = _count(g.prompts_per_generation, "prompt")
    factors = f"steps_per_generation {g.steps_per_generation} x num_iterations {g.num_iterations}"
    steps = _count(g.optimizer_steps_per_generation, "optimizer step")
    return {
        "generation": f"{prompts} x num_generations {g.num_generations} = {g.generation_batch_size:,} completions",
        "used for": f"{steps} = {factors} / accumulation {accumulation}",
        "run": f"{_count(g.generations, 'generation')}: {g.prompts:,} prompts, {g.completions:,} completions",
    }


def _phases(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("phase", no_wrap=True)
    for name in ("steps", "from", "to", "learning rate", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in plan.phases[:_MOST_PHASES]:
        steps = (phase.steps, phase.first_step, phase.first_step + phase.steps - 1)
        rates = (_rate(phase.first_lr), f"-> {_rate(phase.last_lr)}")
        table.add_row(phase.name, *(f"{number:,}" for number in steps), *rates)
    if len(plan.phases) > _MOST_PHASES:
        table.add_row(f"... {len(plan.phases) - _MOST_PHASES} more")
    return table


def _steps(steps: Sequence[int] | None) -> str:
    if not steps:
        return "none" if steps is not None else "unknown: at the ends of epochs, or after the best evaluations"
    shown = [f"{step:,}" for step in steps]
    if len(shown) > _MOST_STEPS:
        shown = [*shown[: _MOST_STEPS - 3], "...", *shown[-2:]]
    return f"{len(steps):,}, after step{'s' if len(steps) > 1 else ''} {', '.join(shown)}"


def _count(number: float, what: str) -> str:
    return f"{number:,.10g} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:.4g}"
