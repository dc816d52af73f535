"""Parameter groups by name in the recipes: real trainings, resumes, dry runs, several processes, wrong arguments."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import hf_sched
from benchmarks.common.task import RunFailed
from hf_sched.audit import audit
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.finetune.reports.report import report
from tests.helpers.findings import assert_error
from tests.helpers.findings import report as report_of
from tests.helpers.recipe_runs import LAUNCHES, SAVE_STEPS, Run, Workshop
from tests.helpers.recipe_runs import PEAK as LAUNCHED_PEAK
from tests.helpers.recipe_runs import SCHEDULE as LAUNCHED
from tests.helpers.recipe_runs import STEPS as LAUNCHED_STEPS
from tests.helpers.recipe_runs import WARMUP_STEPS as LAUNCHED_WARMUP
from tests.helpers.recipes import SFT, needs_compiler

PEAK, STEPS = SFT["learning_rate"], 6
SCHEDULE = {"lr_scheduler_type": "cosine_floor", "warmup_steps": 2, "max_steps": STEPS}
OWN = "hold 50% | decay"
GROUPS = {"embed_tokens|lm_head": "0.1x", "layers.0": {"lr": 1e-4, "schedule": OWN}}
NAMES = ("default", "embed_tokens_lm_head", "layers.0")
VALUES = {"weight_decay": "hold 50% | decay to 0", "adam_beta1": "decay to 0.5"}


def planned(peak: float, text: str = "cosine_floor", steps: int = STEPS, **arguments: float) -> list[float]:
    return hf_sched.build(text, num_training_steps=steps, num_warmup_steps=2, **arguments).curve(peak=peak).tolist()


def curves(peak: float, **run: float) -> list[list[float]]:
    """The rates of the groups of `GROUPS`."""
    own = planned(1e-4, OWN, **{key: value for key, value in run.items() if key == "steps"})
    return [planned(peak, **run), planned(0.1 * peak, **run), own]


def peaks(folder) -> dict[str, float]:
    return {one.label: one.peak for one in audit(folder).comparisons}


def test_each_group_follows_its_own_curve_in_log_audit_and_report(run_recipe):
    run = run_recipe("sft", lr_groups=GROUPS, **SCHEDULE)
    for name, curve in zip(NAMES, curves(PEAK), strict=True):
        assert run.logged(f"learning_rate/{name}") == curve
        assert run.logged(f"learning_rate/planned_{name}") == curve
    found = audit(run.folder)
    assert found.ok and [one.label for one in found.comparisons] == [*NAMES]
    (file,), _ = report([run.folder], None, None, html=False)
    assert "The learning rates are the planned ones." in file.read_text()


def test_resume_keeps_the_groups_and_shows_what_changed(run_recipe):
    saving = {"save_strategy": "steps", "save_steps": 3, "resume_from_checkpoint": "auto"}
    whole = run_recipe("sft", lr_groups=GROUPS, **SCHEDULE, **saving)
    losses, rates = whole.logged("loss"), whole.logged("learning_rate/layers.0")
    shutil.rmtree(whole.folder / f"checkpoint-{STEPS}")
    changed = {**GROUPS, "layers.0": {"lr": 1e-4}}
    output = run_recipe("sft", ok=False, lr_groups=changed, **SCHEDULE, **saving).output
    assert re.search(r"own curves +group 3: warmup 2 \| hold 3 \| decay 1,.* -> +none", output), output
    assert "Traceback" not in output and "on_resume" in output
    again = run_recipe("sft", lr_groups=GROUPS, **SCHEDULE, **saving)
    assert (again.logged("loss"), again.logged("learning_rate/layers.0")) == (losses, rates)
    assert audit(again.folder).ok


def test_dry_run_lists_the_groups_of_the_model(run_recipe):
    arguments = {"lr_groups": json.dumps(GROUPS), "dry_run": True, "weight_decay": 0.1}
    output = run_recipe("sft", **arguments, **SCHEDULE).output
    assert re.search(r"embed_tokens\|lm_head +peak 0\.0002", output)
    assert re.search(r"layers\.0 +peak 0\.0001, warmup 2 \| hold 3 \| decay 1", output)
    assert re.search(r"layers\.0 +64 +0\.0001 +0 +hold 50% \| decay", output)


def test_layer_decay_loraplus_and_muon_set_their_peaks(run_recipe):
    lora = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}
    run = run_recipe("sft", **lora, loraplus_lr_ratio=16, decay_per_layer=0.5, name="lora", **SCHEDULE)
    layers = {"layer_1": PEAK, "layer_0": PEAK / 2}
    assert peaks(run.folder) == layers | {f"{name}.lora_B": 16 * peak for name, peak in layers.items()}
    run = run_recipe("sft", optimizer="muon", muon_learning_rate="10x", lr_groups={"layers.0": "0.5x"}, **SCHEDULE)
    muon = {"muon": 10 * PEAK, "layers.0.muon": 5 * PEAK}
    assert peaks(run.folder) == {"default": PEAK, "layers.0": PEAK / 2} | muon
    assert audit(run.folder).ok and run.logged("loss")[-1] < run.logged("loss")[0]


WRONG = {
    "no match": ({"lr_groups": {"lora_B": "16x"}}, "matches no parameter; the trainable parameters have these parts: "),
    "overlap": ({"lr_groups": {"layers.0": "1x", "mlp": "1x"}}, "which both match .* such as model.layers.0.mlp"),
    "no rate": ({"lr_groups": {"mlp": "fast"}}, r"`lr_groups.mlp` must be a learning rate \(2e-5\) or a multiple"),
    "own schedule": ({"lr_groups": {"mlp": {"schedule": "wds"}}}, "`lr_groups.mlp` has an unusable schedule: .*'wsd'"),
    "built-in": (
        {"lr_groups": {"mlp": {"schedule": "hold"}}, "lr_scheduler_type": "cosine"},
        "own schedule, which needs an `lr_scheduler_type` of hf_sched",
    ),
    "no LoRA": ({"loraplus_lr_ratio": 16}, "needs trainable B matrices of LoRA"),
    "optimizer": ({"optimizer": "adamw_torch"}, "`optimizer` must be muon, received 'adamw_torch'; `optim` sets"),
    "optim": ({"optimizer": "muon", "optim": "adafactor"}, "does not work with `optim: adafactor`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_groups_are_rejected_before_training(run_recipe, case):
    given, message = WRONG[case]
    output = run_recipe("sft", ok=False, **{**SCHEDULE, **given}).output
    assert re.search(message, output) and "Traceback" not in output, output


def test_check_finds_schedules_of_groups_and_hyperparameters_that_do_not_fit_the_run():
    given = {
        "lr_groups": {"mlp": {"schedule": "warmup 200 | hold"}},
        "schedules": {"weight_decay": "hold"},
        **{"max_steps": 100, "weight_decay": 0.0},
    }
    groups, values = report_of(extra=RECIPE_ARGUMENTS, lr_scheduler_type="wsd", **given).findings
    assert_error(groups, "lr_groups.mlp", "take warmup 200 = 200 steps, but the run has 100")
    assert_error(values, "schedules.weight_decay", "is a multiple of the configured `weight_decay`, which is 0")
    (groups, _) = report_of(extra=RECIPE_ARGUMENTS, lr_scheduler_type="cosine", **given).findings
    assert_error(groups, "lr_groups.mlp", "own schedule, which needs an `lr_scheduler_type` of hf_sched")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("groups"))


def launched(workshop: Workshop, where: str, number: int, **given: object) -> Run:
    given |= {"lr_groups": GROUPS, "weight_decay": 0.1, "schedules": VALUES}
    return workshop.start("sft", LAUNCHES[where], workshop.place("sft", where, number), **given)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["2", pytest.param("zero2", marks=needs_compiler), "fsdp2"])
@pytest.mark.parametrize("given", [{}, {"optimizer": "muon"}], ids=["AdamW", "Muon"])
def test_groups_and_schedules_are_exact_on_two_processes_after_a_kill(workshop, where, given):
    number = 1 + bool(given)
    if given and where == "zero2":
        run = launched(workshop, where, number, **given)
        with pytest.raises(RunFailed):
            run.finish()
        assert "sft: error: `optimizer` 'muon' needs whole matrices, which DeepSpeed flattens" in run.output
        return
    one = launched(workshop, "1", number, **given).finish()
    run = launched(workshop, where, number, **given)
    assert run.wait_for(lambda: run.has_stepped(2 * SAVE_STEPS + 1)) and run.kill(run.processes())
    run = launched(workshop, where, number, **given).finish()
    found = audit(run.folder)
    assert found.ok and found.record.resumes
    expected = curves(LAUNCHED_PEAK["sft"], steps=LAUNCHED_STEPS, **LAUNCHED)
    assert LAUNCHED_WARMUP == 2
    for name, curve in zip(NAMES, expected, strict=True):
        assert run.logged(f"learning_rate/{name}") == one.logged(f"learning_rate/{name}") == curve
    for (name, text), configured in zip(VALUES.items(), (0.1, 0.9), strict=True):
        expected = hf_sched.build(text, num_training_steps=LAUNCHED_STEPS).curve(peak=configured).tolist()
        assert run.logged(f"hyperparameter/{name}") == one.logged(f"hyperparameter/{name}") == expected
    np.testing.assert_allclose(run.logged("loss"), one.logged("loss"), rtol=0, atol=1e-5 if not given else 1e-3)
