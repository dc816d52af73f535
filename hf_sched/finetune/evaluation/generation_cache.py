"""Keeps generated completions on disk, so that an interrupted evaluation continues where it stopped.

The cache is a JSONL file that only grows: a line with the settings of an evaluation, then one line for each completion.
Completions are reused only under equal settings, which include a digest of the model's weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SampleIndex = tuple[int, int]
"""Number of the problem, number of the sample."""

# The files that determine a model's answers; the folder of a run holds others too.
_MODEL_FILES = (
    *("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "*.model", "vocab*", "merges.txt", "tokenizer*"),
    *("config.json", "generation_config.json", "adapter_config.json", "special_tokens_map.json", "added_tokens.json"),
    "chat_template*",
)


@dataclass(frozen=True)
class Completion:
    """What a model generated."""

    text: str
    ended: bool
    """Whether it ended by itself, and not at the token limit."""


class GenerationCache:
    """The completions of one model under one set of settings: everything that the completions depend on."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.key = _digest(self.settings)
        self.done: dict[SampleIndex, Completion] = {}
        self._has_settings = False
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # the process was killed while it wrote a line
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._read(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"line {number} of {str(path)!r} was not written by an evaluation: move the file away to start a "
                    "new one"
                ) from None

    def append(self, completions: Iterable[tuple[SampleIndex, Completion]]) -> None:
        """Write completions to the file."""
        lines: list[dict[str, Any]] = []
        if not self._has_settings:
            self._has_settings = True
            lines.append({"evaluation": self.key, "settings": self.settings})
        for (problem, sample), completion in completions:
            self.done[problem, sample] = completion
            lines.append({"of": self.key, "problem": problem, "sample": sample, **asdict(completion)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def _read(self, line: dict[str, Any]) -> None:
        if "settings" in line:
            self._has_settings |= line["evaluation"] == self.key
        else:
            place, completion = (line["problem"], line["sample"]), Completion(line["text"], line["ended"])
            if line["of"] == self.key:
                self.done[place] = completion


def model_digest(model: str, revision: str | None = None) -> str:
    """A digest of a folder's weights, tokenizer, chat template and base model; of a hub model the commit.

    A retrained model differs, and a copied one does not.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        from transformers import AutoConfig

        return f"commit {getattr(AutoConfig.from_pretrained(model, revision=revision), '_commit_hash', None)}"
    parts: list[Any] = []
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()}):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        parts.append([path.name, digest.hexdigest()])
    base = adapter_base(model)
    return _digest([*parts, model_digest(base)] if base else parts)


def adapter_base(model: str) -> str | None:
    """The base model of an adapter's folder; None for any other model."""
    config = Path(model).expanduser() / "adapter_config.json"
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] if config.is_file() else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
