"""Schedules of hyperparameters in the recipes: GRPO's beta and epsilon, plans, and several processes after a kill."""

from __future__ import annotations

import re

import numpy as np
import pytest
from trl import DPOTrainer, GRPOTrainer

import hf_sched
from hf_sched.audit import audit
from hf_sched.finetune.reports.report import report
from tests.helpers.recipe_runs import LAUNCHES, SAVE_STEPS, STEPS, Workshop
from tests.helpers.recipes import CAN_BE_EARNED

SCHEDULES = {"beta": "hold 50% | decay to 0", "epsilon": "decay 50% to 0.5 | hold", "weight_decay": "decay to 0.1"}
RUN = {"lr_scheduler_type": "cosine_floor", "max_steps": 4, "weight_decay": 0.1}
GRPO = {**CAN_BE_EARNED, "beta": 0.5, "epsilon": 0.3, **RUN}


def planned(text: str, configured: float, steps: int) -> list[float]:
    return hf_sched.build(text, num_training_steps=steps).curve(peak=configured).tolist()


@pytest.fixture
def read_in_losses(monkeypatch):
    """A function that makes a trainer of TRL record attributes at each loss; it returns the records."""

    def observe(trainer, *names):
        read, compute_loss = [], trainer.compute_loss

        def observed(self, *args, **kwargs):
            read.append(tuple(getattr(self, name) for name in names))
            return compute_loss(self, *args, **kwargs)

        monkeypatch.setattr(trainer, "compute_loss", observed)
        return read

    return observe


def test_grpo_reads_beta_and_epsilon_at_every_step(run_recipe, read_in_losses):
    read = read_in_losses(GRPOTrainer, "beta", "epsilon_low", "epsilon_high")
    run = run_recipe("grpo", schedules=SCHEDULES, **GRPO)
    beta, epsilon = planned(SCHEDULES["beta"], 0.5, 4), planned(SCHEDULES["epsilon"], 0.3, 4)
    assert read == list(zip(beta, epsilon, epsilon, strict=True))
    assert run.logged("hyperparameter/beta") == beta and beta[-1] == 0
    found = audit(run.folder)
    assert found.ok and sum(one.is_hyperparameter for one in found.comparisons) == 3
    (file,), _ = report([run.folder], None, None, html=False)
    assert all(f"![{name}]" in file.read_text() for name in SCHEDULES)


def test_epsilon_sets_one_side_beside_epsilon_high_and_dpo_reads_beta(run_recipe, read_in_losses):
    text, given = "decay to 0.5", {**GRPO, "beta": 0.0, "epsilon_high": 0.4}
    read = read_in_losses(GRPOTrainer, "epsilon_low", "epsilon_high")
    run_recipe("grpo", schedules={"epsilon": text}, **given)
    assert read == [(value, 0.4) for value in planned(text, 0.3, 4)]
    read = read_in_losses(DPOTrainer, "beta")
    run = run_recipe("dpo", schedules={"beta": text}, beta=0.3, name="dpo", **RUN)
    assert read == [(value,) for value in planned(text, 0.3, 4)]
    assert audit(run.folder).ok


def test_plan_shows_the_schedules_and_mistakes_are_reported_before_training(run_recipe):
    output = run_recipe("grpo", schedules=SCHEDULES, dry_run=True, **GRPO).output
    assert re.search(r"beta +hold 2 \| decay 2 to 0\.0 \(multiples of 0\.5\)", output), output
    output = run_recipe("grpo", schedules={"temperature": "decay"}, ok=False, **GRPO).output
    assert "`schedules.temperature` cannot change during a run" in output and "Traceback" not in output
    output = run_recipe("sft", schedules={"momentum": "decay"}, ok=False, **RUN).output
    assert "`schedules.momentum` has no effect: the optimizer has no `momentum`" in output and "Traceback" not in output
    output = run_recipe("sft", schedules={"beta": "decay"}, ok=False, **RUN).output
    assert "`schedules.beta` has no effect" in output and "Traceback" not in output
    output = run_recipe("grpo", schedules={"beta": "decay"}, ok=False, **{**GRPO, "beta": 0.0}).output
    assert "`schedules.beta` is a multiple of the configured `beta`, which is 0" in output


@pytest.mark.slow
def test_two_processes_are_exact_after_a_kill(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("hyperparameters"))
    given = {"schedules": SCHEDULES, "weight_decay": 0.1, "beta": 0.5, "epsilon": 0.3, **CAN_BE_EARNED}
    runs = [workshop.place("grpo", "2", number) for number in (1, 2)]
    whole = workshop.start("grpo", LAUNCHES["2"], runs[0], **given).finish()
    run = workshop.start("grpo", LAUNCHES["2"], runs[1], **given)
    assert run.wait_for(lambda: run.has_stepped(2 * SAVE_STEPS + 1)) and run.kill(run.processes())
    run = workshop.start("grpo", LAUNCHES["2"], runs[1], **given).finish()
    found = audit(run.folder)
    assert found.ok and found.record.resumes
    for name, configured in (("beta", 0.5), ("epsilon", 0.3), ("weight_decay", 0.1)):
        assert run.logged(f"hyperparameter/{name}") == planned(SCHEDULES[name], configured, STEPS)
    np.testing.assert_array_equal(run.logged("loss"), whole.logged("loss"))
