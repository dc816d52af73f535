"""`hf-sched merge`: merge a LoRA adapter into its base model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("merge", short_help="Merge a LoRA adapter into its base model.")
@click.argument("adapter", metavar="ADAPTER", type=Path)
@click.option("--output", metavar="FOLDER", type=Path, required=True, help="A folder that does not exist yet.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="By default the base model's.")
def merge_adapter(adapter: Path, output: Path, dtype: str | None) -> None:
    """Merge the LoRA adapter in the folder ADAPTER into its base model, and verify the result.

    ADAPTER is the `output_dir` of a run with `use_peft`. The saved model is loaded again and its logits are compared
    with those of base model and adapter before it appears in `--output`.
    """
    import torch

    from hf_sched.finetune.merge import merge

    try:
        deviation = merge(adapter, output, getattr(torch, dtype) if dtype else None)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{output}: merged and verified; its logits differ by at most {deviation:.2g} of the largest")
