"""`time_budget` in the recipes: plans, mistakes, runs of unknown length, and two processes after a kill."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hf_sched._run_files import read_trainer_state
from hf_sched.audit import audit
from hf_sched.check import check
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.finetune.check import check_recipe
from hf_sched.finetune.config import WrongArguments, check_arguments
from hf_sched.plan import plan
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.recipe_runs import LAUNCHES, PEAK, Workshop
from tests.helpers.recipes import CAN_BE_EARNED

FAR = 100_000  # steps: without the budget the run would take too long
ENDLESS = {
    **{"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold", "floor_ratio": 0.1}},
    **{"max_steps": FAR, "warmup_steps": 4, "logging_steps": 5, "save_strategy": "steps", "save_steps": 50},
}


def config(**given):
    return TrainingConfig("sft", {"max_steps": 100, "lr_scheduler_type": "wsd", **given}, extra=RECIPE_ARGUMENTS)


def test_plan_shows_the_budget():
    planned = plan(config(time_budget="2h30m", anneal_duration="10%", evaluate_on="data"))
    budget, reserve = planned.notes
    assert budget.startswith("Time budget 2h30m: ") and "a cooldown of 10%" in budget
    assert "`time_reserve`" in reserve
    with pytest.raises(ArgumentError, match="needs an `lr_scheduler_type` of hf_sched, not 'cosine'"):
        plan(config(time_budget="2h30m", lr_scheduler_type="cosine"))


@pytest.mark.parametrize(
    ("given", "key", "why"),
    [
        ({"time_budget": "2 hours"}, "time_budget", "must be a duration with units"),
        ({"time_budget": 1080}, "time_budget", "YAML reads 18:00 without quotes as a number"),
        ({"time_budget": "2020-01-01 10:00"}, "time_budget", "is in the past"),
        ({"time_budget": "1h", "anneal_from": "x"}, "time_budget", "cannot be combined with `anneal_from`"),
        ({"time_budget": "1h", "anneal_duration": "100%"}, "anneal_duration", "must be less than the whole run"),
        (
            {"time_budget": "1h", "lr_scheduler_type": "linear"},
            "time_budget",
            "needs an `lr_scheduler_type` of hf_sched",
        ),
        ({"time_budget": "1h", "time_reserve": "5"}, "time_reserve", "must be a duration with units"),
        ({"time_reserve": "5m"}, "time_reserve", "needs `time_budget`"),
    ],
)
def test_check_finds_a_wrong_budget(given, key, why):
    (finding,) = [one for one in check(config(**given), more=(check_recipe,)).errors if one.key == key]
    assert why in finding.message


def test_flags_are_checked_before_a_model_is_loaded(task):
    words = ["--model_name_or_path", str(task / "model"), "--dataset_name", str(task / "sft"), "--max_steps", "9"]
    words += ["--lr_scheduler_type", "wsd", "--output_dir", "unused"]
    for time in ("18:00", "2h", "2099-01-01 10:00:00"):
        check_arguments("sft", [*words, "--time_budget", time])
    with pytest.raises(WrongArguments, match="`time_budget` is in the past"):
        check_arguments("sft", [*words, "--time_budget", "2020-01-01 10:00:00"])


def test_slurm_budget_outside_a_job_is_an_error_before_the_data_is_loaded(run_recipe, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    output = run_recipe("sft", time_budget="slurm", ok=False, **ENDLESS).output
    assert "`time_budget` is slurm, but this is no Slurm job" in output and "Traceback" not in output


def ended_annealed(folder, peak):
    """Check that a run of unknown length ended on its floor, saved and audited; its last step."""
    report = audit(folder)
    assert report.ok and report.deviation == 0, report.lines
    rates, end = report.comparisons[0].actual, report.record.steps_made
    assert end < FAR and rates[-1] == 0.1 * peak == rates.min()
    assert (np.diff(rates[4:]) <= 0).all()
    assert (folder / f"checkpoint-{end}").is_dir() and (folder / "model.safetensors").is_file()
    return end


def test_sft_run_of_unknown_length_ends_annealed(run_recipe):
    done = run_recipe("sft", time_budget="12s", **ENDLESS)
    end = ended_annealed(done.folder, 2e-3)
    assert "to end before the deadline" in done.output and f"{end}" in done.output


@pytest.mark.slow
def test_grpo_run_of_unknown_length_ends_annealed(run_recipe):
    # The reward changes the lengths of the completions, and so the times of the steps.
    done = run_recipe("grpo", time_budget="60s", **CAN_BE_EARNED, **ENDLESS)
    end = ended_annealed(done.folder, 2e-4)
    state = read_trainer_state(done.folder / "trainer_state.json")
    assert state["global_step"] == state["max_steps"] == end > 20
    assert state["stateful_callbacks"]["LiveControl"]["attributes"]["elapsed"] < 60


@pytest.mark.slow
def test_two_processes_keep_their_deadline_after_a_kill(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("deadline"))
    given = {**ENDLESS, "time_budget": "60s", "save_steps": 10}
    folder = workshop.place("sft", "2", 1)
    run = workshop.start("sft", LAUNCHES["2"], folder, **given)
    assert run.wait_for(lambda: run.has_stepped(35)) and run.kill(run.processes())
    run = workshop.start("sft", LAUNCHES["2"], folder, **given).finish()
    end = ended_annealed(folder, PEAK["sft"])
    report = audit(folder)
    (resumed_at,) = report.record.resumes
    before, after = (
        json.loads((folder / name / "trainer_state.json").read_text())["stateful_callbacks"]["LiveControl"]
        for name in (f"checkpoint-{resumed_at}", "")
    )
    assert 0 < before["attributes"]["elapsed"] < after["attributes"]["elapsed"] < 60
    assert resumed_at in (10, 20, 30, 40) and end > resumed_at
