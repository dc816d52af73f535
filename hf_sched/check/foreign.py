"""Configurations of other programs, which a list of unknown keys would not help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HERE = "give the YAML or JSON file of training arguments that a script on transformers or TRL reads"
# What a program's files have: all keys of one of the sets, and what to say.
_PROGRAMS: tuple[tuple[str, tuple[frozenset[str], ...], str], ...] = (
    (
        "axolotl",
        (frozenset({"base_model", "datasets"}), frozenset({"base_model", "micro_batch_size"})),
        "`axolotl preprocess FILE` checks it",
    ),
    (
        "LLaMA-Factory",
        (frozenset({"stage", "finetuning_type"}), frozenset({"stage", "template", "model_name_or_path"})),
        "`llamafactory-cli train FILE` refuses its unknown keys",
    ),
    ("Accelerate", (frozenset({"compute_environment"}), frozenset({"distributed_type", "num_machines"})), _HERE),
    ("DeepSpeed", (frozenset({"zero_optimization"}), frozenset({"train_micro_batch_size_per_gpu"})), _HERE),
    ("verl", (frozenset({"actor_rollout_ref"}),), _HERE),
    ("Open-Instruct", (frozenset({"dataset_mixer_list"}),), _HERE),
    ("TRL's vLLM server", (frozenset({"model", "tensor_parallel_size"}),), _HERE),
)


def check_not_foreign(given: Mapping[str, Any], source: str) -> None:
    """Raise a ValueError for a configuration of a program whose keys are its own."""
    for program, signs, advice in _PROGRAMS:
        if any(sign <= given.keys() for sign in signs):
            raise ValueError(f"{source}: is a configuration of {program}, whose keys are its own: {advice}")
    if any(isinstance(value, Mapping) and "_component_" in value for value in given.values()):
        raise ValueError(f"{source}: is a configuration of torchtune: `tune validate FILE` checks it")
