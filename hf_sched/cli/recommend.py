"""`hf-sched recommend`: a schedule and a range for its peak, by task, with the evidence."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from hf_sched.cli.output import print_json
from hf_sched.plots.console import wrapped
from hf_sched.schedules.validation import ArgumentError


@click.command("recommend", short_help="Recommend a schedule and a range for its peak.")
@click.argument("task")
@click.option("--steps", "num_training_steps", type=int, metavar="N", help="Optimizer steps of the run, if known.")
@click.option("--model", metavar="NAME|FOLDER", help="A model on this machine, for its width and layers.")
@click.option("--width", type=int, metavar="N", help="The model's `hidden_size`.")
@click.option("--layers", type=int, metavar="N", help="The model's number of layers.")
@click.option("--lora-r", type=int, metavar="N", help="The rank of LoRA; by default all weights are trained.")
@click.option("--lora-alpha", type=float, metavar="X", default=32, show_default=True, help="PEFT's `lora_alpha`.")
@click.option("--rslora", "use_rslora", is_flag=True, help="PEFT's `use_rslora`.")
@click.option("--batch-size", type=int, metavar="N", help="Samples (GRPO: completions) per optimizer step.")
@click.option("--optimizer", metavar="NAME", default="adamw", show_default=True, help="adamw, lion or muon.")
@click.option("--json", is_flag=True, help="Write a JSON object for machines.")
def recommend_schedule(task: str, model: str | None, json: bool, **run: Any) -> None:
    """Recommend a schedule for TASK and a range of peaks to start with, with reasons, evidence and sources.

    TASK is pretraining, sft, dpo, grpo, classification, cnn or long.
    """
    from hf_sched.schedules.recommend import recommend

    if model is not None:
        from hf_sched.check.peak import model_size

        width, layers = model_size(model)
        if width is None:
            raise ArgumentError("--model", "a model on this machine", model, hint="or give `--width` and `--layers`")
        run |= {"width": width, "layers": layers}
    advice = recommend(task=task, **run)
    if json:
        peak = advice.peak and {**dataclasses.asdict(advice.peak), "start": advice.peak.start}
        print_json({**dataclasses.asdict(advice), "peak": peak})
    else:
        click.echo(wrapped(str(advice), sys.stdout))
