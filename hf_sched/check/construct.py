"""The trainer's own dataclass as the last judge: rules that are written down nowhere else, and its deprecations."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.renamed import DEPRECATED
from hf_sched.check.subject import Subject, arguments_of, classes_of
from hf_sched.check.values import ALSO_TAKEN

# They are about the machine, read files, or are checked for the real number of processes elsewhere.
_LEFT_OUT = (
    "bf16_full_eval",
    "ddp_backend",
    "deepspeed",
    "fp16_full_eval",
    "fsdp",
    "fsdp_config",
    "generation_batch_size",
    "hub_token",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "num_generations",
    "num_generations_eval",
    "output_dir",
    "parallelism_config",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "tf32",
    "torch_compile",
    "use_cpu",
)


def check_construction(subject: Subject, wrong: Mapping[str, Finding]) -> Iterator[Finding]:
    """Make the dataclass of what was given; nothing where `wrong` has an error or the process is one of several."""
    if "WORLD_SIZE" in os.environ or any(finding.severity == "error" for finding in wrong.values()):
        return
    cls = classes_of(subject.kind)[0]
    known = arguments_of(subject.kind)
    own = {field for field in cls.__dataclass_fields__ if field not in _LEFT_OUT}  # type: ignore[attr-defined]
    # Text that a parser mends is reported already.
    given = {
        key: value
        for key, value in subject.given.items()
        if key in own and key in known and (key not in wrong or key in (*DEPRECATED, *ALSO_TAKEN))
    }
    half = {"bf16": False, "fp16": False} if {"bf16", "fp16"} <= own else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            cls(**{**given, **half, **_batches(subject.kind), "output_dir": "out", "use_cpu": True})
        except (TypeError, ValueError, NotImplementedError) as error:
            key = _named(str(error), given)
            yield subject.error(key or next(iter(given), ""), f"is refused by {cls.__name__}: {_line(error)}")
            return
    for warning in caught:
        key = _named(str(warning.message), given)
        if issubclass(warning.category, FutureWarning) and key and key not in DEPRECATED:
            yield subject.warning(key, _line(warning.message))


def _batches(kind: str) -> dict[str, Any]:
    """A batch that holds one group of completions."""
    if kind not in ("grpo", "rloo"):
        return {}
    return {"num_generations": 2, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2}


def _named(message: str, given: Mapping[str, Any]) -> str | None:
    """The first of the arguments given that a message names, or whose value it quotes."""
    named = [(found.start(), key) for key in given if (found := re.search(rf"\b{key}\b", message))]
    if named:
        return min(named)[1]
    return next((key for key, value in given.items() if isinstance(value, str) and f"`{value}`" in message), None)


def _line(message: object) -> str:
    return " ".join(str(message).split())
