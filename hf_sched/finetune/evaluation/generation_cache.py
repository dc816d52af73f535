"""Keeps generated batches on disk, so that an interrupted evaluation continues where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

# The files that determine a model's answers to given tokens; the folder of a run holds others too.
_MODEL_FILES = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "*config.json")


@dataclass(frozen=True)
class Completion:
    """What a model generated."""

    text: str
    ended: bool
    """Whether it ended by itself, and not at the token limit."""


class GenerationCache:
    """Batches of completions in a JSONL file, by a digest of everything that they depend on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: dict[str, list[Completion]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError):  # a line that a killed process left incomplete
                row = json.loads(line)
                self.batches[row["key"]] = [Completion(*completion) for completion in row["completions"]]

    def append(self, key: str, completions: Sequence[Completion]) -> None:
        """Add a batch to the file."""
        self.batches[key] = list(completions)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # The newline comes first: it ends a line that a killed process left incomplete.
            file.write("\n" + json.dumps({"key": key, "completions": [astuple(one) for one in completions]}))


def model_digest(model: str, revision: str | None = None) -> str:
    """A digest of the weights and configurations in a folder and of its base model; of a hub model the commit.

    A retrained model differs, and a copied one does not.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return f"commit {Path(str(cached_file(model, 'config.json', revision=revision))).parent.name}"
    parts = []
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)}):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                content.update(block)
        parts.append([path.name, content.hexdigest()])
    base = adapter_base(model)
    return digest([*parts, model_digest(base)] if base else parts)


def adapter_base(model: str) -> str | None:
    """The base model of an adapter's folder; None for any other model."""
    config = Path(model).expanduser() / "adapter_config.json"
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] if config.is_file() else None


def digest(value: Any) -> str:
    """A digest of a value that JSON can hold: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
