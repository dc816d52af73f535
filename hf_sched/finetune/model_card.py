"""Completes TRL's model card, which names no base model in a local folder and no learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_sched._run_files import training_continues, write_text
from hf_sched.scheduler.resume import read_schedule
from hf_sched.scheduler.schedule_lr import schedule_of


def complete_model_cards(trainer: Any, base_model: str) -> None:
    """Add base model and schedule to each card of a TRL trainer: at checkpoints, at the end, and before a push."""
    create = trainer.create_model_card

    def create_complete(*args: Any, **kwargs: Any) -> None:
        file = Path(trainer.args.output_dir, "README.md")
        with training_continues(file):
            create(*args, **kwargs)
            if trainer.is_world_process_zero():
                text = file.read_text(encoding="utf-8")
                text = text.replace("[None](https://huggingface.co/None)", f"`{base_model}`")
                text = text.replace('model="None"', f'model="{trainer.args.output_dir}"')
                body, training, rest = text.partition("## Training procedure\n")
                write_text(file, f"{body}{training}\n{_describe_schedule(trainer)}\n{rest}")

    trainer.create_model_card = create_complete


def _describe_schedule(trainer: Any) -> str:
    args, scheduler = trainer.args, schedule_of(trainer.lr_scheduler)
    (name, arguments), steps = read_schedule(args), trainer.state.max_steps
    if scheduler is not None:
        curve = f"`{scheduler.group_schedule.schedule}`"
    else:
        curve = f"warmup over {args.get_warmup_steps(steps)} steps" + (f", `{arguments}`" if arguments else "")
    return (
        f"Learning rate: `{name}` with a peak of {args.learning_rate:g} over {steps} optimizer steps ({curve}), "
        "set by hf_sched."
    )
