"""Shell completion of schedule names; docs/commands.md says how to enable completion."""

from __future__ import annotations

from typing import Any

from hf_sched.schedules.registry import BUILTIN_NAMES, names


def complete_schedule(context: Any, parameter: Any, incomplete: str) -> list[str]:
    """Return the names of schedules, ours and transformers' own, that begin with the word typed so far."""
    return [name for name in (*names(), *BUILTIN_NAMES) if name.startswith(incomplete)]
