"""Horizons and durations in samples and tokens in the recipes: plans, refusals, and two processes after a kill."""

from __future__ import annotations

import re

import pytest

import hf_sched
from hf_sched._run_files import LEARNING_RATES
from hf_sched.audit import audit
from hf_sched.audit.run_record import read_run
from tests.helpers.recipe_runs import LAUNCHES, PEAK, SAVE_STEPS, SEQUENCES, Workshop


@pytest.mark.parametrize("packing", [False, True])
def test_the_dry_run_shows_the_steps_that_the_training_has(run_recipe, packing):
    text = "warmup 300tok | hold | decay 600tok; floor 0.1; horizon 2000tok"
    given = {"lr_scheduler_type": text, "max_steps": 5, "packing": packing, "warmup_steps": 0}
    output = run_recipe("sft", dry_run=True, **given).output
    planned = re.search(r"phases: (warmup \d+ \| hold \d+ \| decay \d+;\s+floor\s+0.1(;\s+horizon\s+\d+)?)", output)
    assert planned, output
    run = run_recipe("sft", **given)
    schedule = hf_sched.Schedule.parse(" ".join(planned[1].split())).in_run(5)
    assert run.logged("learning_rate") == schedule.curve(peak=2e-3).tolist()
    found = audit(run.folder)
    assert found.ok and found.record.plans[0].schedule == schedule
    # 8 rows of 56.8 tokens, of 21 without packing, and the note about the end of the run.
    assert schedule.horizon == (4 if packing else 12), output
    note = "The horizon ends at step 4: the learning rate stays at 0.0002 for 1 step."
    if not packing:
        note = "The run ends at step 5 of the horizon of 12, at a learning rate of 0.002, above the end level 0.0002."
    assert note in " ".join(output.split())


def test_tokens_of_completions_are_refused_before_training_and_samples_are_completions(run_recipe):
    tokens = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": "5k tok"}, "max_steps": 4}
    output = run_recipe("grpo", ok=False, **tokens).output
    error = "`decay` is in tokens (5000tok), but the completions are generated in training: write steps or samples"
    assert error in " ".join(output.split()) and "Traceback" not in output
    output = run_recipe("grpo", dry_run=True, **{**tokens, "lr_scheduler_kwargs": {"decay": "16 samples"}}).output
    assert re.search(r"wsd: hold 2 \| decay 2 1-sqrt", output), output


@pytest.mark.slow
def test_a_horizon_is_exact_on_two_processes_after_a_kill_and_with_more_steps(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("horizon"))
    # A row has 21.02 tokens on average.
    kwargs = {"decay": f"{8 * 21 * SEQUENCES}tok", "horizon": f"{16 * SEQUENCES} samples"}
    given = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": kwargs, "warmup_steps": 0.125}
    folder = workshop.place("sft", "2", 1)
    first = workshop.start("sft", LAUNCHES["2"], folder, max_steps=10, **given)
    assert first.wait_for(lambda: first.has_stepped(SAVE_STEPS + 3)), first.output
    assert first.kill(first.processes())
    # The killed run goes on with twice the steps, on the same curve: no `on_resume`.
    second = workshop.start("sft", LAUNCHES["2"], folder, max_steps=20, **given).finish()
    expected = hf_sched.Schedule.parse("warmup 2 | hold 6 | decay 8 1-sqrt")
    assert second.logged("learning_rate") == expected.curve(20, peak=PEAK["sft"]).tolist()
    found = audit(folder)
    assert found.ok, found.lines
    record = read_run(folder)
    assert len(record.plans) == 2 and record.resumes and (folder / LEARNING_RATES).is_file()
    assert [plan.total for plan in record.plans] == [10, 20]
    assert [plan.schedule for plan in record.plans] == [expected] * 2
