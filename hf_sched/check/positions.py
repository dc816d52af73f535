"""Where each key stands in a YAML or JSON file, and which one is there twice: what a loaded mapping no longer tells."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml


@dataclass(frozen=True)
class Positions:
    """The lines of the keys of a file, counted from 1; `lr_scheduler_kwargs.min_lr` is a key within another."""

    lines: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, list[int]] = field(default_factory=dict)
    """All lines of the keys that are there more than once."""

    @classmethod
    def of(cls, text: str) -> Positions:
        """Of the text of a file (JSON is YAML enough for this); empty where it cannot be read."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            return cls()
        found: dict[str, list[int]] = {}
        _walk(root, "", found)
        return cls(
            {key: lines[-1] for key, lines in found.items()}, {k: lines for k, lines in found.items() if len(lines) > 1}
        )


def _walk(node: yaml.Node | None, prefix: str, found: dict[str, list[int]]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            name = f"{prefix}{key.value}"
            found.setdefault(name, []).append(key.start_mark.line + 1)
            _walk(value, f"{name}.", found)
