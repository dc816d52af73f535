"""What an evaluation has generated so far, on disk: one that is killed goes on where it stopped.

A JSONL file that only grows: a line with the settings of an evaluation, then a line a completion. Under other settings,
or for a model whose weights have changed, another line with settings follows, and nothing of before is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Place = tuple[int, int]
"""Number of the problem, number of the sample."""

# What decides a model's answers; a folder also holds what a run left there.
_MODEL_FILES = (
    "*.safetensors",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)


@dataclass(frozen=True)
class Completion:
    """What a model wrote."""

    text: str
    ended: bool
    """Whether it stopped by itself, rather than at the most tokens it was given."""


class Journal:
    """The file, opened for one evaluation.

    Args:
        path: It need not exist.
        settings: All that the completions depend on, `model` and `decoding` among it.

    Raises:
        ValueError: The file is not a journal.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.key = _digest(self.settings)
        self.done: dict[Place, Completion] = {}
        self._headers: list[dict[str, Any]] = []
        self._read()

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """What differs from the last evaluation of this model here, if none was under these settings: old and new."""
        new = self.settings
        alike = [old for old in self._headers if all(old[name] == new[name] for name in ("model", "decoding"))]
        if not alike or new in alike:
            return {}
        old = alike[-1]
        return {name: (old.get(name), value) for name, value in new.items() if old.get(name) != value}

    def append(self, completions: Iterable[tuple[Place, Completion]]) -> None:
        """Write completions, in one go, so that a process killed at any moment leaves whole lines but for the last."""
        lines = []
        if self.settings not in self._headers:
            self._headers.append(self.settings)
            lines.append({"evaluation": self.key, "settings": self.settings})
        for (problem, sample), completion in completions:
            self.done[problem, sample] = completion
            lines.append({"of": self.key, "problem": problem, "sample": sample, **asdict(completion)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # the writer was killed within a line
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"line {number} of {str(self.path)!r} is not what an evaluation writes: move it away to begin anew"
                ) from None

    def _take(self, line: dict[str, Any]) -> None:
        if "settings" in line:
            settings = line["settings"]
            _ = settings["model"], settings["decoding"]
            self._headers.append(settings)
            return
        key, place = line["of"], (line["problem"], line["sample"])
        completion = Completion(line["text"], line["ended"])
        if key == self.key:
            self.done[place] = completion


def identity(model: str, revision: str | None = None) -> str:
    """A digest of all that a model is, weights, tokenizer and template; of an adapter with its base.

    A folder is read in full, so that a model trained anew is another one, and a copied one is not; of one on the hub it
    is the commit.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        from transformers import AutoConfig

        return f"commit {getattr(AutoConfig.from_pretrained(model, revision=revision), '_commit_hash', None)}"
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    parts = [[path.name, _digest_of(path)] for path in files]
    base = adapter_base(model)
    return _digest([*parts, identity(base)] if base else parts)


def adapter_base(model: str) -> str | None:
    """The base model of an adapter's folder; None for any other model."""
    config = Path(model).expanduser() / "adapter_config.json"
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] if config.is_file() else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
