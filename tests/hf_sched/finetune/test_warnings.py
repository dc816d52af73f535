"""A fresh start warns of nothing that the recipe sets itself."""

from __future__ import annotations

import pytest

from tests.helpers.recipes import TWO_PROCESSES


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [None, False])
def test_fresh_start_of_an_adapter_on_two_processes_warns_of_nothing(run_recipe, checkpointing):
    run = run_recipe("sft", TWO_PROCESSES, max_steps=3, use_peft=True, activation_checkpointing=checkpointing)
    # DeepSpeed, if it is installed, reports that there is no GPU.
    lines = [line for line in run.output.splitlines() if "warn" in line.lower() and "real_accelerator" not in line]
    assert lines == []
    assert run.args.ddp_find_unused_parameters is False


def test_parameters_that_may_be_unused_are_still_looked_for(run_recipe, task):
    """The configuration of a model with experts names them."""
    config = task / "model" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("{", '{\n  "num_local_experts": 4,', 1))
    try:
        assert run_recipe("sft", max_steps=1).args.ddp_find_unused_parameters is None
    finally:
        config.write_text(text)
    assert run_recipe("sft", max_steps=1, ddp_find_unused_parameters=True).args.ddp_find_unused_parameters is True
