"""A GRPO run that is resumed in the middle of a generation trains on the completions of the uninterrupted run."""

from __future__ import annotations

import pytest

from tests.helpers.recipes import CAN_BE_EARNED, TWO_PROCESSES

RUN = {
    **CAN_BE_EARNED,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 1,
    "max_steps": 10,
    "save_strategy": "steps",
    "save_steps": 3,
    "lr_scheduler_type": "cosine_floor",
}


def weights(run: object) -> bytes:
    return (run.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("iterations", [1, 2])
def test_resume_within_a_generation_equals_an_uninterrupted_run(run_recipe, iterations):
    given = {**RUN, "num_iterations": iterations}
    whole = run_recipe("grpo", **given)
    checkpoint = whole.folder / "checkpoint-3"
    resumed = run_recipe("grpo", name="resumed", resume_from_checkpoint=str(checkpoint), **given)
    assert weights(resumed) == weights(whole)
    assert resumed.logged("reward") == whole.logged("reward") and len(set(whole.logged("reward"))) > 1
    assert "middle of a generation" not in resumed.output
    # As TRL's own script leaves it.
    (checkpoint / "completions_0.pt").unlink()
    changed = run_recipe("grpo", name="changed", resume_from_checkpoint=str(checkpoint), **given)
    assert f"resume exactly (`save_steps: {4 * iterations}`)" in changed.output
    assert weights(changed) != weights(whole)


def test_completions_are_saved_only_within_a_generation(run_recipe):
    run = run_recipe("grpo", **{**RUN, "save_steps": 2, "max_steps": 8})
    saved = sorted(path.parent.name for path in run.folder.glob("*/completions_*.pt"))
    assert saved == ["checkpoint-2", "checkpoint-6"]


@pytest.mark.slow
def test_two_processes_resume_within_a_generation(run_recipe):
    whole = run_recipe("grpo", TWO_PROCESSES, **RUN)
    checkpoint = str(whole.folder / "checkpoint-6")
    resumed = run_recipe("grpo", TWO_PROCESSES, name="resumed", resume_from_checkpoint=checkpoint, **RUN)
    assert weights(resumed) == weights(whole)
