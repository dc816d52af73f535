"""What `hf-sched run` does in a process that imports transformers or diffusers, called by its sitecustomize."""

from __future__ import annotations

import importlib
import json
import os
import sys

_imported: list[str] = []
_told: list[str] = []


def register() -> None:
    """Import hf_sched, which registers its schedules; where the host has changed too much, say so and go on.

    In a script that imports hf_sched itself that is an error. Here nobody has requested this very process for a schedule.
    """
    from hf_sched.integrations import diffusers as diffusers_hook
    from hf_sched.integrations import transformers as transformers_hook

    transformers_hook.refuse = diffusers_hook.refuse = _tell_once


def import_modules() -> None:
    """Import the modules of `--import`, once; they register schedules of the user's own."""
    for name in json.loads(os.environ.get("HF_SCHED_RUN", "{}")).get("import", []):
        if name in _imported:
            continue
        _imported.append(name)
        try:
            importlib.import_module(name)
        except Exception as error:
            # Many a library takes an ImportError for "not installed" and says nothing.
            print(f"hf-sched run: `--import {name}` failed: {type(error).__name__}: {error}", file=sys.stderr)
            raise


def _tell_once(error: ImportError) -> None:
    if not _told and sys.stderr is not None:
        _told.append(str(error))
        print(f"hf-sched run: {error}", file=sys.stderr)
