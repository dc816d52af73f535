"""Registers the schedules in a process under `hf-sched run`; its `sitecustomize` calls these functions."""

from __future__ import annotations

import importlib
import json
import os
import sys

_imported: set[str] = set()


def register() -> None:
    """Import hf_sched, which registers its schedules.

    A transformers that cannot be extended is an error where a script imports hf_sched. Here it is a message, since the
    process may never use a schedule of hf_sched.
    """
    import hf_sched  # noqa: F401
    from hf_sched.integrations import transformers

    transformers.on_unsupported = lambda error: print(f"hf-sched run: {error}", file=sys.stderr)


def import_modules() -> None:
    """Import the modules of `--import`, which register the user's schedules."""
    for name in json.loads(os.environ.get("HF_SCHED_RUN", "{}")).get("import", []):
        if name in _imported:
            continue
        _imported.add(name)
        try:
            importlib.import_module(name)
        except Exception as error:
            # Many libraries read an ImportError as "not installed" and hide it.
            print(f"hf-sched run: `--import {name}` failed: {type(error).__name__}: {error}", file=sys.stderr)
            raise
