"""Horizons, durations in samples and tokens, and runs of unknown length in real trainings, exact to the curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hf_sched
from hf_sched import DurationUnknown
from hf_sched.audit import audit
from hf_sched.callbacks.cooldown_request import Request
from hf_sched.integrations import token_count
from hf_sched.integrations.token_count import tokens_per_sample
from hf_sched.scheduler.resume import ScheduleChanged
from tests.helpers.live_cooldown import RequestAfter, write_request
from tests.helpers.trainer import PEAK, Endless, Recorder, logged, train

WSD = {"lr_scheduler_type": "wsd", "warmup_steps": 0.25}


def horizon(value: object, **others: object) -> dict[str, object]:
    return {**WSD, "lr_scheduler_kwargs": {"horizon": value, **others}}


@pytest.mark.parametrize("from_command_line", [False, True])
@pytest.mark.parametrize(
    ("value", "phases"),
    [
        (24, "warmup 6 | hold 13 | decay 5 1-sqrt"),
        ("2x", "warmup 6 | hold 13 | decay 5 1-sqrt"),
        (8, "warmup 2 | hold 4 | decay 2 1-sqrt"),
        ("0.5ep", "warmup 2 | hold 4 | decay 2 1-sqrt"),
        ("32 samples", "warmup 2 | hold 4 | decay 2 1-sqrt"),
    ],
)
def test_a_run_follows_its_horizon_with_the_warmup_as_a_share_of_it(
    model_path, tmp_path, value, phases, from_command_line
):
    given = {**horizon(value), "callbacks": [hf_sched.LearningRateLog()]}
    if from_command_line:
        given = {**given, "lr_scheduler_type": f"wsd:horizon={value}", "lr_scheduler_kwargs": "{}"}
    trainer, used = train(model_path, tmp_path, from_command_line=from_command_line, **given)
    expected = hf_sched.Schedule.parse(phases).in_run(12)
    assert trainer.lr_scheduler.schedule == expected
    np.testing.assert_array_equal(used[:, 0], expected.curve(peak=PEAK))
    report = audit(tmp_path)
    assert report.ok, report.lines
    assert str(report.record.plans[0].schedule) == str(expected)


def test_a_longer_run_with_the_same_horizon_resumes_the_same_curve_without_a_choice(model_path, tmp_path):
    expected = hf_sched.build("wsd", num_training_steps=16, num_warmup_steps=3, horizon=12).curve(peak=PEAK)
    log = [hf_sched.LearningRateLog()]
    given = {**horizon(12), "save_strategy": "steps", "save_steps": 3}
    _, first = train(model_path, tmp_path, max_steps=6, callbacks=log, **given)
    checkpoint = str(tmp_path / "checkpoint-6")
    trainer, second = train(model_path, tmp_path, max_steps=16, callbacks=log, resume=checkpoint, **given)
    np.testing.assert_array_equal(np.concatenate([first, second])[:, 0], expected)
    assert trainer.lr_scheduler.schedule.num_training_steps == 16
    assert audit(tmp_path).ok
    # A multiple of the run's length is another curve in another run.
    with pytest.raises(ScheduleChanged):
        train(model_path, tmp_path, max_steps=16, resume=checkpoint, **{**given, **horizon("1x")})


def test_the_schedules_of_groups_and_hyperparameters_have_horizons_of_their_own(model_path, tmp_path):
    decayed = hf_sched.HyperparameterSchedules({"weight_decay": "decay; horizon 24"})

    def optimizers(model):
        parts = [[p for n, p in model.named_parameters() if ("norm" in n) == norm] for norm in (False, True)]
        groups = [{"params": parts[0]}, {"params": parts[1], "lr_schedule": "decay; horizon 9"}]
        return torch.optim.AdamW(groups, lr=PEAK, weight_decay=0.5), None

    given = {**horizon(24), "optimizers": optimizers, "callbacks": [decayed]}
    trainer, used = train(model_path, tmp_path, **given)
    main = hf_sched.build("wsd", num_training_steps=12, num_warmup_steps=6, horizon=24)
    np.testing.assert_array_equal(used[:, 0], main.curve(peak=PEAK))
    # The Trainer's warmup comes first in each.
    own = hf_sched.Schedule.parse("warmup 6 | decay 3").curve(12, peak=PEAK)
    np.testing.assert_array_equal(used[:, 1], own)
    values = logged(trainer, "hyperparameter/weight_decay")
    np.testing.assert_allclose(values, hf_sched.build("decay", num_training_steps=24).curve(12, peak=0.5), rtol=1e-12)


LENGTHS = [3 + (7 * n) % 10 for n in range(40)]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("trains", ["sft", "dpo"])
def test_tokens_are_those_of_the_trainers_batches_without_padding(model_path, tmp_path, packing, trains):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    if packing and trains == "dpo":
        pytest.skip("DPO does not pack")
    common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no"}
    common |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 9, "max_length": 16}
    common |= {"learning_rate": PEAK, "include_num_input_tokens_seen": "non_padding", "logging_steps": 1}
    common |= {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold | decay 100tok; horizon 250tok"}}
    recorder = Recorder()
    if trains == "sft":
        rows = Dataset.from_dict({"input_ids": [[*range(6, 6 + length)] for length in LENGTHS]})
        args = SFTConfig(**common, packing=packing)
        trainer = SFTTrainer(str(model_path), args, train_dataset=rows, callbacks=[recorder])
        in_all = sum(LENGTHS)
    else:
        pairs = {"prompt": ["1 2"], "chosen": [" 3 4 5"], "rejected": [" 6"]}
        rows = Dataset.from_dict({name: texts * 40 for name, texts in pairs.items()})
        trainer = DPOTrainer(str(model_path), args=DPOConfig(**common), train_dataset=rows, callbacks=[recorder])
        row = trainer.train_dataset[0]
        in_all = 40 * (2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]))
    trainer.train()
    per_step = 4 * in_all / len(trainer.train_dataset)
    assert len(trainer.train_dataset) < 40 if packing else len(trainer.train_dataset) == 40
    steps = {name: max(int(tokens / per_step + 0.5), 1) for name, tokens in (("decay", 100), ("horizon", 250))}
    expected = f"hold {steps['horizon'] - steps['decay']} | decay {steps['decay']}"
    assert trainer.lr_scheduler.schedule == hf_sched.Schedule.parse(expected)
    np.testing.assert_array_equal(np.array(recorder.used)[:, 0], trainer.lr_scheduler.schedule.curve(peak=PEAK))


def test_counting_tokens_changes_no_random_numbers_and_measures_evenly_spaced_rows(model_path, tmp_path, monkeypatch):
    def shuffled(rows):
        torch.rand(3), np.random.rand(2)
        return {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}

    losses = []
    for decay in ("4", "192tok"):
        given = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": decay}, "warmup_steps": 0}
        trainer, used = train(model_path, tmp_path, **given)
        losses.append((logged(trainer, "loss"), used.tolist()))
    assert losses[0] == losses[1]
    monkeypatch.setattr(token_count, "MOST_ROWS", 10)
    rows = [{"input_ids": torch.zeros(n), "labels": torch.zeros(n)} for n in range(1, 41)]
    before = torch.get_rng_state()
    assert tokens_per_sample(rows, shuffled) == np.mean(range(1, 41, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_that_cannot_be_counted_are_an_error_before_the_first_step(model_path, tmp_path):
    recorder = Recorder()
    with pytest.raises(DurationUnknown, match=r"`decay` is in tokens \(500tok\), but the data are streamed, .*: write"):
        train(model_path, tmp_path, data=Endless(), recorder=recorder, **horizon(None, decay="500 tok"))
    assert recorder.used == []
    with pytest.raises(ValueError, match=r"a batch has no `input_ids`.* write steps or samples"):
        tokens_per_sample([{"prompt": "1 2"}], lambda rows: rows)
    _, used = train(model_path, tmp_path, data=Endless(), **horizon(None, decay="16 samples"))
    curve = hf_sched.build("wsd", num_training_steps=12, num_warmup_steps=3, decay=4).curve(peak=PEAK)
    np.testing.assert_array_equal(used[:, 0], curve)


def test_a_live_cooldown_ends_a_run_whose_scheduler_knows_no_length(model_path, tmp_path):
    phases = {"phases": "warmup 5 | hold"}

    def optimizers(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        return optimizer, hf_sched.get_scheduler("phases", optimizer, None, None, phases)

    given = {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": phases, "warmup_steps": 0, "max_steps": 100_000}
    given |= {"optimizers": optimizers, "save_strategy": "steps", "save_steps": 7, "logging_steps": 4}
    callbacks = [RequestAfter(10, Request(6), write_request), hf_sched.LiveControl(), hf_sched.LearningRateLog()]
    trainer, used = train(model_path, tmp_path, callbacks=callbacks, **given)
    expected = hf_sched.Schedule.parse("warmup 5 | hold 7 | decay 6 1-sqrt").curve(peak=PEAK)
    np.testing.assert_array_equal(used[:, 0], expected)
    assert trainer.state.global_step == trainer.state.max_steps == 18
    assert audit(tmp_path).ok
    # In a run with a length, its checkpoint continues the cooldown, and one from before it the same curve.
    given |= {"optimizers": lambda model: (optimizers(model)[0], None), "callbacks": callbacks[1:]}
    trainer, used = train(model_path, tmp_path, resume=str(tmp_path / "checkpoint-14"), **{**given, "max_steps": 100})
    assert used[:, 0].tolist() == expected[14:].tolist() and trainer.state.max_steps == 18
    _, used = train(model_path, tmp_path, resume=str(tmp_path / "checkpoint-7"), **{**given, "max_steps": 20})
    assert used[:, 0].tolist() == [PEAK] * 13
    assert audit(tmp_path).ok
