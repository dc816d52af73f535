"""`hf-sched list`: the names there are, a line each."""

from __future__ import annotations

from typing import Annotated

import typer


def list_schedules(
    json: Annotated[bool, typer.Option("--json", help="For machines: a JSON list.")] = False,
) -> None:
    """All schedules, a line each: ours and transformers' own."""
    raise NotImplementedError
