"""The audit of real trainings: right runs pass, and each known mistake is found with its cause."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback

import hf_sched
from hf_sched._run_files import LEARNING_RATES
from hf_sched.audit import audit
from hf_sched.scheduler.group_schedule import GroupSchedule
from tests.helpers.catalog import temporary_registrations
from tests.helpers.trainer import BUILTIN, OURS, PEAK, STEPS, WARMUP, make, two_groups

SAVING = {"save_strategy": "steps", "save_steps": 6}
# A run can be audited from the Trainer's log or from the log of every step.
WITH = pytest.mark.parametrize("log", [False, True], ids=["trainer_state", "every step"])
pytestmark = pytest.mark.filterwarnings("ignore:Detected call:UserWarning")


def run(model_path, folder, *, log=False, callbacks=(), resume=None, **given):
    """Train as a script does; returns the learning rates of the first group."""
    log_callback = [hf_sched.LearningRateLog()] if log else []
    trainer, recorder = make(model_path, folder, callbacks=[*callbacks, *log_callback], **{**BUILTIN, **given})
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_state()
    trainer.save_model()
    return np.array(recorder.used)[:, 0]


def finding(folder, **given) -> str:
    """The only finding of the audit."""
    report = audit(folder, **given)
    assert not report.ok
    assert len(report.findings) == 1, report.findings
    assert any(report.findings[0] in line for line in report.lines)
    return report.findings[0]


class StepAgain(TrainerCallback):
    """Steps the scheduler again after each optimizer step, or only after one of them."""

    def __init__(self, times=1, only=None):
        self.times, self.only = times, only

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        if self.only in (None, state.global_step):
            for _ in range(self.times):
                lr_scheduler.step()


# Right runs.


@WITH
@pytest.mark.parametrize(
    "given",
    [
        BUILTIN,
        OURS,
        {"lr_scheduler_type": "linear", "logging_steps": 5, "warmup_steps": 0.2},
        {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": "1ep"}, "max_steps": -1, "num_train_epochs": 2},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}, "gradient_accumulation_steps": 3},
        {**OURS, "optimizers": two_groups},
        {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {"warmup": 4, "after": "wsd"}, "warmup_steps": 0},
    ],
    ids=["built-in", "ours", "log of 5", "epochs", "arguments", "two groups", "trust ratios"],
)
def test_right_run_has_no_deviation(model_path, tmp_path, given, log):
    used = run(model_path, tmp_path, log=log, **{**SAVING, **given})
    report = audit(tmp_path)
    assert report.ok, report.lines
    assert report.deviation <= 1e-15
    assert report.departs is None
    every = given.get("logging_steps", 1)
    expected = range(len(used)) if log else range(every - 1, len(used), every)
    assert report.comparisons[0].steps.tolist() == list(expected)
    if given.get("lr_scheduler_type") != "lars_warmup":
        np.testing.assert_allclose(report.curve(), used, rtol=0, atol=1e-15)
    assert len(report.comparisons) == (2 if log and "optimizers" in given else 1)


@WITH
def test_killed_run_is_audited_up_to_its_last_step(model_path, tmp_path, log):
    class Kill(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            if state.global_step == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model_path, tmp_path, log=log, callbacks=[Kill()], **SAVING)
    if log:
        with (tmp_path / LEARNING_RATES).open("a") as file:
            file.write('{"step": 10, "ra')
    report = audit(tmp_path)
    assert report.ok
    assert report.comparisons[0].steps.tolist() == list(range(9 if log else 6))
    assert any(f"ends after {9 if log else 6} of 12" in note for note in report.notes)
    assert audit(tmp_path / "checkpoint-6").ok


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": PEAK / 2, "max_steps": 20, "lr_scheduler_kwargs": {"on_resume": "continue"}},
        {"learning_rate": PEAK / 2, "lr_scheduler_kwargs": {"on_resume": "replace"}, "save_strategy": "no"},
        {**BUILTIN, "lr_scheduler_kwargs": {"on_resume": "keep"}},
    ],
    ids=["continue", "replace", "keep"],
)
def test_resume_with_on_resume_is_right(model_path, tmp_path, changed):
    run(model_path, tmp_path, log=True, **OURS, **SAVING)
    used = run(model_path, tmp_path, log=True, resume=tmp_path / "checkpoint-6", **{**OURS, **SAVING, **changed})
    report = audit(tmp_path)
    assert report.ok, report.lines
    assert report.deviation <= 1e-15
    assert len(report.record.plans) == 2
    np.testing.assert_allclose(report.curve()[6:], used, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(report.comparisons[0].steps, range(changed.get("max_steps", STEPS)))


def test_branch_is_audited_from_its_checkpoint_on(model_path, tmp_path):
    run(model_path, tmp_path / "long", lr_scheduler_type="wsd", lr_scheduler_kwargs={"decay": 2}, **SAVING)
    branch = hf_sched.anneal_from(tmp_path / "long" / "checkpoint-6", 4)
    resume = branch["resume_from_checkpoint"]
    used = run(model_path, tmp_path / "cooled", log=True, resume=resume, **{**SAVING, **branch})
    report = audit(tmp_path / "cooled")
    assert report.ok, report.lines
    assert report.comparisons[0].steps.tolist() == [6, 7, 8, 9]
    np.testing.assert_array_equal(report.comparisons[0].planned, used)
    assert any("started at step 6, from a checkpoint" in note for note in report.notes)
    (tmp_path / "cooled" / LEARNING_RATES).unlink()
    with pytest.raises(ValueError, match=r"changed at a resume .* train with hf_sched.LearningRateLog"):
        audit(tmp_path / "cooled")


def test_unregistered_schedule_is_known_from_the_log(model_path, tmp_path):
    with temporary_registrations():
        hf_sched.register("own_for_the_audit")(lambda: [hf_sched.hold("50%"), hf_sched.decay()])
        run(model_path, tmp_path, lr_scheduler_type="own_for_the_audit", log=True)
    assert audit(tmp_path).ok
    (tmp_path / LEARNING_RATES).unlink()
    with pytest.raises(ValueError, match=r"'own_for_the_audit'; .* audit in Python"):
        audit(tmp_path)


def test_schedule_that_follows_a_metric_is_not_compared(model_path, tmp_path):
    class Evaluating(Trainer):
        def __init__(self, *args, train_dataset, **kwargs):
            super().__init__(*args, train_dataset=train_dataset, eval_dataset=train_dataset[:4], **kwargs)

    given = {"lr_scheduler_type": "reduce_lr_on_plateau", "warmup_steps": 0, "eval_strategy": "steps", "eval_steps": 3}
    run(model_path, tmp_path, cls=Evaluating, **given)
    report = audit(tmp_path)
    assert report.ok
    assert any("follows a metric" in note for note in report.notes)


# Wrong runs.


@WITH
@pytest.mark.parametrize(
    ("step", "given", "cause"),
    [
        ({}, {}, "stepped twice for each optimizer step: "),
        ({"times": 3}, {"max_steps": 40}, "stepped 4 times for each optimizer step: `accelerator.prepare(scheduler)`"),
        ({"times": 2}, {"gradient_accumulation_steps": 3}, "stepped 3 times for each optimizer step: "),
        ({"times": 3}, {"max_steps": 40, "logging_steps": 4}, "stepped 4 times for each optimizer step: "),
        ({"only": 6}, {}, "No known cause fits"),
    ],
    ids=["twice", "once per process", "once per batch", "sparse log", "once too often"],
)
def test_extra_steps_of_the_scheduler_are_found(model_path, tmp_path, log, step, given, cause):
    run(model_path, tmp_path, log=log, callbacks=[StepAgain(**step)], **given)
    assert cause in finding(tmp_path)
    # The Trainer's log knows the steps with a log line only.
    every = 1 if log else given.get("logging_steps", 1)
    assert audit(tmp_path).departs == max(step.get("only", 1), every - 1)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"learning_rate": PEAK / 4}, "still the rates of the old one (cosine, 12 steps,"),
        ({"max_steps": 24}, "resumed at step 6 with another plan, but these are still the rates of the"),
        ({}, "resumed at step 6, but the schedule restarted"),
    ],
    ids=["learning rate", "length", "no state"],
)
def test_resume_that_changes_the_schedule_is_found(model_path, tmp_path, changed, cause):
    run(model_path, tmp_path, log=True, **SAVING)
    for name in () if changed else ("scheduler.pt", "optimizer.pt"):
        (tmp_path / "checkpoint-6" / name).unlink()
    run(model_path, tmp_path, log=True, resume=tmp_path / "checkpoint-6", **SAVING, **changed)
    assert cause in finding(tmp_path)
    assert audit(tmp_path).departs == 6


@pytest.mark.parametrize(
    ("scheduler", "cause"),
    [
        (lambda o: transformers.get_scheduler("cosine", o, WARMUP, 3 * STEPS), "run of 36 steps, 3 times the 12"),
        (lambda o: transformers.get_scheduler("cosine", o, WARMUP, 31), "rates of a run of 31 steps"),
        (lambda o: transformers.get_scheduler("cosine", o, 0, STEPS), "rates with 0 steps of warmup, not 3"),
        (lambda o: transformers.get_scheduler("linear", o, WARMUP, STEPS), "these are the rates of 'linear'"),
        (lambda o: hf_sched.get_scheduler("cosine_floor", o, WARMUP, STEPS), "these are the rates of 'cosine_floor'"),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), "No known cause fits: another component set"),
    ],
    ids=["a horizon times 3", "another horizon", "another warmup", "another schedule", "one of ours", "of torch"],
)
def test_scheduler_passed_to_the_trainer_is_found(model_path, tmp_path, scheduler, cause):
    def optimizers(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        return optimizer, scheduler(optimizer)

    run(model_path, tmp_path, optimizers=optimizers)
    assert cause in finding(tmp_path)


def test_finding_names_the_parameter_group(model_path, tmp_path):
    class Meddle(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            optimizer.param_groups[1]["lr"] *= 0.5

    run(model_path, tmp_path, log=True, callbacks=[Meddle()], optimizers=two_groups)
    found = finding(tmp_path)
    assert found.startswith("group_1: off the plan from step 2 to 12")  # the warmup starts with a rate of 0
    assert "0.0003125 instead of 0.000625" in found
    values = json.loads(json.dumps(audit(tmp_path).as_dict()))
    assert (values["ok"], values["departs"], values["steps_made"]) == (False, 2, STEPS)
    assert values["deviation"] == pytest.approx(0.0003125)
    (tmp_path / LEARNING_RATES).unlink()
    assert audit(tmp_path).ok, "the Trainer's log holds the first group only"


# Reading the folder.


def test_configuration_file_may_say_what_was_planned(model_path, tmp_path):
    run(model_path, tmp_path)
    (tmp_path / "training_args.bin").unlink()
    with pytest.raises(ValueError, match=r"says what was requested .* give the YAML file of the run with --config"):
        audit(tmp_path)
    text = f"lr_scheduler_type: cosine\nwarmup_steps: {WARMUP}\nlearning_rate: "
    (tmp_path / "right.yaml").write_text(text + f"{PEAK}\n")
    (tmp_path / "wrong.yaml").write_text(text + f"{PEAK * 2}\n")
    assert audit(tmp_path, config=tmp_path / "right.yaml").ok
    assert "0.01 instead of 0.02" in finding(tmp_path, config=tmp_path / "wrong.yaml")


def test_reading_a_run_executes_no_code_of_its_pickles(model_path, tmp_path):
    run(model_path, tmp_path)

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "bang"), "w"))

    args = torch.load(tmp_path / "training_args.bin", weights_only=False)
    args.bomb = Bomb()
    torch.save(args, tmp_path / "training_args.bin")
    assert audit(tmp_path).ok
    assert not (tmp_path / "bang").exists()
    torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert (tmp_path / "bang").exists()  # an ordinary reader does


def test_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: it has no trainer_state.json, .* give the `output_dir`"):
        audit(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 2, "max_')
    with pytest.raises(ValueError, match=r"trainer_state.json is damaged"):
        audit(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 2, "max_steps": 4, "log_history": []}')
    with pytest.raises(ValueError, match="logged no learning rate: train with `logging_steps: 1`"):
        audit(tmp_path)


@pytest.mark.slow
def test_audit_of_a_million_steps_takes_2_seconds_and_200_megabytes(tmp_path):
    steps = 1_000_000
    schedule = GroupSchedule(hf_sched.build("cosine_floor", num_training_steps=steps, num_warmup_steps=100), (1e-3,))
    session = {
        **{"step": 0, "kinds": {"group_0": [0]}, "peaks": [1e-3], "learning_rate": 1e-3},
        **{"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {}, "group_schedule": schedule.state()},
        **{"num_training_steps": steps, "num_warmup_steps": 100},
    }
    with (tmp_path / LEARNING_RATES).open("w") as file:
        file.write(json.dumps({"session": session}) + "\n")
        for step, rate in enumerate(schedule.rates(0, steps)[0].tolist(), start=1):
            file.write(json.dumps({"step": step, "rates": [rate]}) + "\n")
    program = (
        "import sys, time; from hf_sched.audit import audit; start = time.process_time(); "
        "report = audit(sys.argv[1]); assert report.ok and report.deviation == 0; print(time.process_time() - start); "
        # `resource` reports at least the memory of the parent process.
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds <= 2 and kilobytes <= 200e3, done.stdout
