"""`hf-sched check` and `plan` end in a report or one line, whatever a YAML file holds."""

from __future__ import annotations

import datetime
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_sched.cli import app
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.integrations import builtin_schedules
from hf_sched.plan.training_config import KINDS, TrainingConfig
from hf_sched.schedules import registry

EXAMPLES = int(os.environ.get("HF_SCHED_FUZZ_EXAMPLES", "60"))
FILES = (
    "recipes/configs/demo_sft.yaml",
    "accelerate_configs/zero2.yaml",
    "setup.cfg",
    "recipes",
    "runs/none.json",
    "~",
)
WORDS = (
    "no",
    "none",
    "auto",
    "true",
    "steps",
    "1e-5",
    "2e5",
    "10%",
    "1ep",
    "0x10",
    "1_000",
    "{",
    '{"a": 1}',
    "[1",
    "\0",
)
SCALARS = st.one_of(
    st.none() | st.booleans(),
    st.integers(-3, 20) | st.integers() | st.sampled_from((2**53, 10**20, 10**400)),
    st.floats() | st.sampled_from((0.0, 1e-300, 1e300, 0.5)),
    st.sampled_from((*FILES, *WORDS)) | st.text(max_size=8) | st.just("long " * 1000),
    st.binary(max_size=4) | st.sets(st.integers(), max_size=2) | st.sampled_from((datetime.date(2026, 1, 1),)),
    st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc)),
)
NAMES = st.sampled_from((*registry.available(), *builtin_schedules.BUILTIN))


@cache
def arguments_of_schedules() -> tuple[str, ...]:
    ours = {name for schedule in registry.available() for name in registry.entry(schedule).arguments}
    theirs = {name for schedule in builtin_schedules.BUILTIN for name in builtin_schedules.parameters(schedule)}
    own = {"on_resume", "num_training_steps", "num_warmup_steps", "optimizer", "name", "peak", "last_epoch", "self"}
    return tuple(sorted(ours | theirs | own))


INNER = (
    *("num_steps", "gradient_accumulation_kwargs", "split_batches", "scheduler", "optimizer", "params", "lr", "type"),
    *("fp16", "bf16", "enabled", "train_batch_size", "gradient_accumulation_steps", "zero_optimization", "stage"),
    *("name", "weight", "as", "question", "answer", "path", "split", "distributed_type", "num_processes"),
)


def mappings(names: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    values = st.recursive(SCALARS, lambda more: st.lists(more, max_size=2) | st.dictionaries(names, more, max_size=2))
    return st.dictionaries(names, values, max_size=4)


KEYS = st.one_of(st.sampled_from(INNER), st.text(max_size=4), st.integers(), st.none(), st.booleans())
VALUES = st.recursive(SCALARS, lambda more: st.lists(more, max_size=3) | st.dictionaries(KEYS, more, max_size=3))


@st.composite
def configurations(draw: Any) -> tuple[str | None, dict[Any, Any]]:
    """A kind, and a mapping of its arguments to values of every type."""
    kind = draw(st.none() | st.sampled_from(KINDS))
    known = TrainingConfig(kind or "grpo", {}, extra=RECIPE_ARGUMENTS).fields
    keys = st.sampled_from(
        (*sorted(known), "accelerate_config", "num_processes", "env", "warmup_ratio", "max_seq_length")
    )
    chosen = draw(st.dictionaries(keys, VALUES, max_size=4))
    if draw(st.booleans()):
        chosen["lr_scheduler_type"] = draw(NAMES)
        chosen["lr_scheduler_kwargs"] = draw(mappings(st.sampled_from(arguments_of_schedules())))
    for key in ("accelerator_config", "deepspeed"):
        if draw(st.integers(0, 9)) == 0:
            chosen[key] = draw(mappings(st.sampled_from(INNER)))
    if draw(st.booleans()):
        chosen["max_steps"] = draw(st.integers(1, 50))
    return kind, chosen


@pytest.mark.parametrize("command", ["check", "plan"])
def test_no_configuration_ends_in_a_traceback(command: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(configurations(), st.none() | st.integers(1, 100), st.none() | st.integers(1, 4), st.booleans())
    def run(given: Any, dataset_size: int | None, processes: int | None, json: bool) -> None:
        kind, arguments = given
        path.write_text(yaml.safe_dump(arguments, allow_unicode=True), encoding="utf-8")
        words = [command, str(path), *(["--kind", kind] if kind else []), *(["--json"] if json else [])]
        words += [] if dataset_size is None else ["--dataset-size", str(dataset_size)]
        words += [] if processes is None else ["--num-processes", str(processes)]
        result = CliRunner().invoke(app, words)
        # `main` prints these as one line.
        assert result.exception is None or isinstance(result.exception, (SystemExit, ValueError, OSError)), arguments

    run()
