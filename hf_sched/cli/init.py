"""`hf-sched init`: write a configuration to start from."""

from __future__ import annotations

from pathlib import Path

import click

from hf_sched.cli.finetune import KINDS
from hf_sched.plots.console import waiting
from hf_sched.schedules.validation import ArgumentError


@click.command("init", short_help="Write a configuration for your model and data.")
@click.argument("kind", type=click.Choice([*KINDS]))
@click.option("--model", metavar="NAME|FOLDER", required=True, help="The model, on the hub or on disk.")
@click.option("--data", metavar="FILE|FOLDER|NAME", required=True, type=click.Path(), help="JSONL, CSV, Parquet, hub.")
@click.option("--full", is_flag=True, help="Train all weights, not a LoRA adapter.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="By default my_KIND.yaml.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def write_starter(kind: str, model: str, data: str, full: bool, output: Path | None, force: bool) -> None:
    """Write a commented configuration for a model and data.

    The columns are read from the data, and the batch size follows from the GPUs of this machine, or its CPU.
    """
    output = output or Path(f"my_{kind}.yaml")
    if output.exists() and not force:
        raise ArgumentError("--output", "a new file", str(output), hint="or add `--force` to replace it")
    with waiting("reading the data"):
        from hf_sched.finetune.starter import Data, Device, starter_config

        text = starter_config(kind, model, Data.inspect(kind, data), lora=not full, device=Device.find())
    output.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}. Next: hf-sched {kind} --config {output} --dry_run true")
