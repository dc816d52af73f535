"""The same training by a recipe of ours and by TRL's own script, which take the same arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.programs import Program

BARE, RECIPE = "TRL's script", "recipe"
SCRIPTS = {BARE: ("-m", "trl.scripts.{kind}"), RECIPE: ("recipes/{kind}.py",)}


def training(script: str, kind: str, folder: Path, arguments: Mapping[str, Any]) -> Program:
    """A training of a kind, `sft` or `grpo`, by one of `SCRIPTS`, with its YAML file beside the output folder."""
    config = folder.parent / f"{folder.name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump({**arguments, "output_dir": str(folder)}), encoding="utf-8")
    words = (word.format(kind=kind) for word in SCRIPTS[script])
    return Program((*words, "--config", str(config)), folder)
