"""`hf-sched check` and `plan` end in a report or in one line, whatever a YAML file holds."""

from __future__ import annotations

import datetime
import os
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
WORDS = ("no", "auto", "true", "steps", "1e-5", "2e5", "10%", "1ep", "0x10", "1_000", "{", '{"a": 1}', "\0", "a" * 5000)
SCALARS = st.one_of(
    st.none() | st.booleans() | st.integers(-3, 20) | st.integers() | st.just(10**400),
    st.floats() | st.sampled_from((0.0, 0.5, 1e-300, 1e300)),
    st.sampled_from((*FILES, *WORDS)) | st.text(max_size=8),
    st.binary(max_size=4) | st.sets(st.integers(), max_size=2) | st.dates(),
    st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc)),
)
SCHEDULES = (*registry.available(), *builtin_schedules.BUILTIN)
OF_SCHEDULES = (
    *{name for schedule in registry.available() for name in registry.entry(schedule).arguments},
    *{name for schedule in builtin_schedules.BUILTIN for name in builtin_schedules.parameters(schedule)},
    *("on_resume", "num_training_steps", "num_warmup_steps", "steps_per_epoch", "optimizer", "name", "peak", "self"),
)
NESTED = (
    *("num_steps", "gradient_accumulation_kwargs", "split_batches", "scheduler", "optimizer", "params", "lr", "betas"),
    *("fp16", "enabled", "train_batch_size", "gradient_accumulation_steps", "deepspeed_config", "distributed_type"),
    *("name", "weight", "as", "format", "question", "answer", "path", "split", "type"),
)


def values(names: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """YAML values of every type, nested; `names` are the keys of mappings."""
    return st.recursive(SCALARS, lambda more: st.lists(more, max_size=3) | st.dictionaries(names, more, max_size=4))


ANY = values(st.sampled_from(NESTED) | st.text(max_size=4) | st.integers() | st.none() | st.booleans())
ARGUMENTS = st.dictionaries(st.sampled_from(OF_SCHEDULES), values(st.sampled_from(OF_SCHEDULES)), max_size=4)


@st.composite
def files(draw: Any) -> tuple[list[str], dict[str, Any]]:
    """Flags, and the keys and values of a file."""
    kind = draw(st.none() | st.sampled_from(KINDS))
    known = TrainingConfig(kind or "grpo", {}, extra=RECIPE_ARGUMENTS).fields
    keys = (*known, "accelerate_config", "num_processes", "env", "warmup_ratio", "max_seq_length")
    given = draw(st.dictionaries(st.sampled_from(sorted(keys)), ANY, max_size=4))
    if draw(st.booleans()):
        given |= {"lr_scheduler_type": draw(st.sampled_from(SCHEDULES)), "lr_scheduler_kwargs": draw(ARGUMENTS)}
    if draw(st.booleans()):
        given["max_steps"] = draw(st.integers(1, 50))
    flags = ["--kind", kind] if kind else []
    flags += ["--json"] if draw(st.booleans()) else []
    for name, value in (("dataset-size", st.integers(1, 100)), ("num-processes", st.integers(1, 4))):
        flags += draw(st.just([]) | value.map(lambda number, name=name: [f"--{name}", str(number)]))
    return flags, given


@pytest.mark.parametrize("command", ["check", "plan"])
def test_no_file_ends_in_a_traceback(command: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(files())
    def run(file: tuple[list[str], dict[str, Any]]) -> None:
        flags, arguments = file
        path.write_text(yaml.safe_dump(arguments, allow_unicode=True), encoding="utf-8")
        result = CliRunner().invoke(app, [command, str(path), *flags])
        # A check reports all mistakes; a plan ends at the first one, which `main` prints in one line.
        expected = (SystemExit,) if command == "check" else (SystemExit, ValueError)
        assert result.exception is None or isinstance(result.exception, expected), (flags, arguments)

    run()
