"""The model card of a recipe names the base model and the schedule."""

from __future__ import annotations

import pytest
import yaml

LOCAL = {"max_steps": 4, "warmup_steps": 1}


@pytest.mark.parametrize(
    ("given", "described"),
    [
        (
            {"lr_scheduler_type": "cosine_floor", "save_strategy": "steps", "save_steps": 4},
            "`cosine_floor` with a peak of 0.002 over 4 optimizer steps (`warmup 1 | decay 3 cosine; floor 0.1`)",
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.2}},
            "`cosine_with_min_lr` with a peak of 0.002 over 4 optimizer steps (warmup over 1 steps, "
            "`{'min_lr_rate': 0.2}`)",
        ),
    ],
    ids=["with a checkpoint", "built-in schedule, no checkpoint"],
)
def test_card_names_a_local_base_model_and_the_schedule(run_recipe, task, given, described):
    run = run_recipe("sft", **LOCAL, **given)
    text = (run.folder / "README.md").read_text()
    assert f"fine-tuned version of `{task / 'model'}`" in text and f'model="{run.folder}"' in text
    assert described in text
    assert "None" not in text and text.count("Learning rate:") == 1
    # The hub rejects a `base_model` that is no name of a model there.
    assert "base_model" not in yaml.safe_load(text.split("---")[1])
