"""Real trainings by transformers' Trainer: the learning rate that each optimizer step used is the schedule's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

import hf_sched

STEPS, PEAK = 12, 1e-2
SCHEDULES = {
    "cosine_floor": {"floor_ratio": 0.1},
    "warmup_cosine": {"warmup_shape": "cosine", "min_lr": "1e-4"},
    "cosine_restarts": {"num_cycles": 2, "peak_multiplier": 0.5, "rewarmup": 1, "floor_ratio": 0.1},
}


class Recorder(TrainerCallback):
    """Takes the learning rate of every group just before it is used."""

    def __init__(self) -> None:
        self.used: list[list[float]] = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.used.append([group["lr"] for group in optimizer.param_groups])


def train(
    model_path: Path,
    folder: Path,
    *,
    two_groups: bool = False,
    resume: str | None = None,
    recorder: Recorder | None = None,
    **given,
):
    """Train a tiny Llama; the trainer and what was recorded."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    tokens = torch.randint(6, 16, (64, 12), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row} for row in tokens]
    arguments = {"max_steps": STEPS, "learning_rate": PEAK, "warmup_steps": 3, "save_strategy": "no", **given}
    args = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", logging_steps=1, per_device_train_batch_size=4, **arguments
    )
    optimizer = None
    if two_groups:
        names = dict(model.named_parameters())
        head = [p for name, p in names.items() if "norm" in name]
        body = [p for name, p in names.items() if "norm" not in name]
        optimizer = torch.optim.AdamW([{"params": body, "lr": PEAK}, {"params": head, "lr": PEAK / 100}])
    recorder = recorder or Recorder()
    trainer = Trainer(model, args, train_dataset=data, optimizers=(optimizer, None), callbacks=[recorder])
    trainer.train(resume_from_checkpoint=resume)
    return trainer, np.array(recorder.used)


def logged(trainer: Trainer, key: str) -> list[float]:
    return [row[key] for row in trainer.state.log_history if key in row]


def planned(name: str, peak: float = PEAK, **changed) -> np.ndarray:
    kwargs = {**SCHEDULES[name], **changed}
    return hf_sched.build(name, num_training_steps=STEPS, num_warmup_steps=3, **kwargs).curve(peak=peak)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_uses_the_planned_learning_rate(model_path, tmp_path, name, accumulation):
    trainer, used = train(
        model_path,
        tmp_path,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=SCHEDULES[name],
        gradient_accumulation_steps=accumulation,
    )
    np.testing.assert_array_equal(used[:, 0], planned(name))
    np.testing.assert_allclose(logged(trainer, "learning_rate"), planned(name), rtol=1e-12)
    floor = 1e-4 if name == "warmup_cosine" else 0.1 * PEAK
    assert used[-1, 0] == pytest.approx(floor, rel=1e-12)
    assert used.min() > 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_group_has_its_own_peak_and_floor(model_path, tmp_path, name):
    _, used = train(model_path, tmp_path, two_groups=True, lr_scheduler_type=name, lr_scheduler_kwargs=SCHEDULES[name])
    np.testing.assert_array_equal(used[:, 0], planned(name))
    np.testing.assert_array_equal(used[:, 1], planned(name, PEAK / 100))


def test_a_floor_above_a_groups_peak_stops_before_the_first_step(model_path, tmp_path):
    with pytest.raises(ValueError, match=r"parameter group 1: `min_lr` must be at most the peak .* 0\.0001"):
        train(
            model_path,
            tmp_path,
            two_groups=True,
            lr_scheduler_type="cosine_floor",
            lr_scheduler_kwargs={"min_lr": 5e-4},
        )


def test_a_warmup_as_a_share_and_a_run_in_epochs(model_path, tmp_path):
    _, used = train(
        model_path, tmp_path, max_steps=-1, num_train_epochs=2, warmup_steps=0.25, lr_scheduler_type="cosine_floor"
    )
    schedule = hf_sched.build("cosine_floor", num_training_steps=32, num_warmup_steps=8)
    np.testing.assert_array_equal(used[:, 0], schedule.curve(peak=PEAK))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_run_is_the_run_never_interrupted(model_path, tmp_path, name):
    given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": SCHEDULES[name]}
    given |= {"save_strategy": "steps", "save_steps": 5}
    whole, used = train(model_path, tmp_path / "whole", **given)
    checkpoint = str(tmp_path / "whole" / "checkpoint-5")
    resumed, used_after = train(model_path, tmp_path / "resumed", resume=checkpoint, **given)
    np.testing.assert_array_equal(used_after, used[5:])
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")


@pytest.fixture(scope="module")
def checkpoints(model_path, tmp_path_factory):
    """Checkpoints of step 5 of runs of 12, by the schedule they were written under."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("cosine_floor", "cosine"):
        train(model_path, folder / name, lr_scheduler_type=name, save_strategy="steps", save_steps=5)
    return {name: str(folder / name / "checkpoint-5") for name in ("cosine_floor", "cosine")}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": PEAK / 2}, r"peak learning rates was \[0.01, 0.01\], now \[0.005, 0.005\]"),
        ({"warmup_steps": 4}, "curve was 'warmup 3 .*, now 'warmup 4 "),
        ({"max_steps": 20}, "curve was '.* decay 9 .*, now '.* decay 17 "),
        ({"lr_scheduler_kwargs": {"floor_ratio": 0.2}}, "curve was '.*floor 0.1 .*, now '.*floor 0.2 "),
        ({"lr_scheduler_type": "warmup_cosine"}, "name was 'cosine_floor', now 'warmup_cosine'"),
    ],
)
def test_a_resume_that_would_bend_the_curve_is_refused(model_path, checkpoints, tmp_path, changed, message):
    recorder = Recorder()
    with pytest.raises(ValueError, match=f"the checkpoint was written under another schedule: .*{message}"):
        train(
            model_path,
            tmp_path,
            resume=checkpoints["cosine_floor"],
            recorder=recorder,
            **{"lr_scheduler_type": "cosine_floor", **changed},
        )
    assert recorder.used == []  # before anything is trained


def test_a_resume_of_a_run_under_a_builtin_schedule_is_refused(model_path, checkpoints, tmp_path):
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"was not written by hf_sched .* this run asks for 'cosine_floor'"):
        train(model_path, tmp_path, resume=checkpoints["cosine"], recorder=recorder, lr_scheduler_type="cosine_floor")
    assert recorder.used == []
