"""A plan in words and tables, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_sched.plan.make import Plan
from hf_sched.plots.terminal import draw

_MOST_PHASES = 12
_MOST_STEPS = 6


def print_plan(planned: Plan, out: Console) -> None:
    """Write a plan for people."""
    out.print(
        f"[bold]{escape(planned.source)}[/]  {planned.kind}, {_count(planned.num_training_steps, 'optimizer step')}\n"
    )
    out.print(_facts(planned))
    if planned.curve is not None:
        out.print()
        out.print(_phases(planned))
        out.print()
        out.print(draw({planned.schedule_name: planned.curve}, width=min(out.width, 80), height=10))
    if planned.notes:
        out.print()
    for note in planned.notes:
        out.print(_note(note))


def _note(note: str) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_row("-", escape(note))
    return table


def _facts(plan: Plan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in [*_size(plan), *_generations(plan), *_rates(plan), *_events(plan)]:
        table.add_row(name, escape(fact))
    return table


def _size(plan: Plan) -> list[tuple[str, str]]:
    processes = plan.world_size
    device = plan.per_device_train_batch_size
    samples = plan.dataset_size
    what = "completions" if plan.grpo else "samples"
    of = f"{device} a process x {processes.processes}"
    if plan.split_batches:
        of = f"{device} split over {_count(processes.processes, 'process')}"
    of += f" x {plan.gradient_accumulation_steps} accumulated"
    epochs = (
        "unknown without the number of samples: `--dataset-size N`"
        if plan.epochs is None
        else f"{plan.epochs:.4g}, of {_count(plan.steps_per_epoch, 'step')} each"
    )
    return [
        ("processes", f"{processes.processes} ({processes.source})"),
        ("dataset", f"{'unknown' if samples.samples is None else f'{samples.samples:,}'} ({samples.source})"),
        ("effective batch", f"{plan.effective_batch:,} {what} = {of}"),
        ("epochs", epochs),
    ]


def _generations(plan: Plan) -> list[tuple[str, str]]:
    if plan.grpo is None:
        return []
    g = plan.grpo
    every = f"{g.optimizer_steps_per_generation:g} optimizer step{'s' if g.optimizer_steps_per_generation != 1 else ''}"
    rows = [
        (
            "a generation",
            f"{_count(g.prompts_per_generation, 'prompt')} x num_generations {g.num_generations} = "
            f"{g.generation_batch_size:,} completions",
        ),
        (
            "it lasts",
            f"{every} = steps_per_generation {g.steps_per_generation} x num_iterations {g.num_iterations} / "
            f"accumulation {plan.gradient_accumulation_steps}",
        ),
        ("an optimizer step", f"{g.completions_per_step:,} completions, as of {g.prompts_per_step:g} prompts"),
    ]
    if plan.dataset_size.samples is not None:
        fitting = plan.dataset_size.samples // g.prompts_per_generation
        rows.append(("an epoch", f"{_count(fitting, 'generation')} x {every} = {_count(plan.steps_per_epoch, 'step')}"))
    rows.append(
        ("the run", f"{_count(g.generations, 'generation')}: {g.prompts:,} prompts, {g.completions:,} completions")
    )
    return rows


def _rates(plan: Plan) -> list[tuple[str, str]]:
    last = "unknown" if plan.last_lr is None else _rate(plan.last_lr)
    text = plan.schedule_name + (f": {plan.schedule}" if plan.schedule else "")
    return [
        ("schedule", text),
        ("learning rate", f"first {_rate(plan.first_lr)}, peak {_rate(plan.peak_lr)}, last {last}"),
    ]


def _events(plan: Plan) -> list[tuple[str, str]]:
    checkpoints = "unknown (see below)" if plan.checkpoints is None else _steps(plan.checkpoints)
    if plan.checkpoints_kept and plan.checkpoints_kept != plan.checkpoints:
        checkpoints += f"; kept: {_steps(plan.checkpoints_kept)} (save_total_limit {plan.save_total_limit})"
    evaluations = "unknown (see below)" if plan.evaluations is None else _steps(plan.evaluations)
    return [
        ("evaluations", evaluations),
        ("checkpoints", checkpoints),
        ("at the end", f"the model is saved in {plan.output_dir}" if plan.saves_model else "what the script does"),
    ]


def _phases(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("phase", no_wrap=True)
    for name in ("steps", "from", "to", "learning rate", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in plan.phases[:_MOST_PHASES]:
        last = phase.first_step + phase.steps - 1
        table.add_row(
            phase.name,
            f"{phase.steps:,}",
            f"{phase.first_step:,}",
            f"{last:,}",
            _rate(phase.first_lr),
            f"-> {_rate(phase.last_lr)}",
        )
    if len(plan.phases) > _MOST_PHASES:
        table.add_row(f"... {len(plan.phases) - _MOST_PHASES} more")
    return table


def _steps(steps: Sequence[int]) -> str:
    if not steps:
        return "none"
    shown = [f"{step:,}" for step in steps]
    if len(shown) > _MOST_STEPS:
        shown = [*shown[: _MOST_STEPS - 3], "...", *shown[-2:]]
    return f"{len(steps):,}, after step{'s' if len(steps) > 1 else ''} {', '.join(shown)}"


def _count(number: int | None, what: str) -> str:
    return (
        f"unknown {what}s"
        if number is None
        else f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"
    )


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:.4g}"
