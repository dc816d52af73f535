"""Real trainings by transformers' Trainer: every optimizer step uses the learning rate of the schedule."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import transformers
import yaml
from torch.optim.lr_scheduler import LambdaLR

import hf_sched
from hf_sched.audit import audit
from hf_sched.scheduler.schedule_lr import ScheduleLR
from hf_sched.schedules import registry
from hf_sched.schedules.validation import DurationUnknown
from tests.helpers.trainer import OURS, PEAK, STEPS, WARMUP, Endless, Recorder, logged, train, two_groups

# The example of each schedule, or one with more arguments.
SCHEDULES = {
    name: yaml.safe_load(re.search(r"Example: (\{.*\})", registry.entry(name).build_phases.__doc__)[1])
    for name in hf_sched.available()
} | {
    "warmup_cosine": {"warmup_shape": "cosine", "min_lr": "1e-4"},
    "cosine_restarts": {"num_cycles": 2, "peak_multiplier": 0.5, "rewarmup": 1, "floor_ratio": 0.1},
    "phases": {"phases": "hold 25% | decay cosine every 2 to 0.1"},
}
pytestmark = pytest.mark.filterwarnings("ignore:cosine_cyclic:UserWarning")


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_uses_the_planned_learning_rate_in_each_group(model_path, tmp_path, name):
    warmup = 0 if "warmup" in SCHEDULES[name] else WARMUP  # the Trainer's, unless the schedule sets its own
    given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": SCHEDULES[name], "warmup_steps": warmup}
    trainer, used = train(model_path, tmp_path, optimizers=two_groups, **given)
    schedule = hf_sched.build(name, num_training_steps=STEPS, num_warmup_steps=warmup, **SCHEDULES[name])
    peaks = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    assert set(peaks) == {PEAK, PEAK / 16}
    np.testing.assert_array_equal(used.T, [schedule.curve(peak=peak) for peak in peaks])
    assert used.max() > 0
    if name != "lars_warmup":  # scales each layer's rate once its gradient exists
        np.testing.assert_allclose(logged(trainer, "learning_rate"), schedule.curve(peak=PEAK), rtol=1e-12)


TEXT = "warmup 25% cosine | hold | decay 25% 1-sqrt to 0.1"
LIST = [{"warmup": "25%", "shape": "cosine"}, "hold", {"decay": "25%", "shape": "1-sqrt", "to": 0.1}]
PYTHON = [hf_sched.warmup("25%", shape="cosine"), hf_sched.hold(), hf_sched.decay("25%", shape="1-sqrt", to=0.1)]


@pytest.mark.parametrize(
    ("kwargs", "from_command_line"),
    [
        *((given, False) for given in ({"phases": TEXT}, {"phases": LIST}, {"phases": PYTHON})),
        *((json.dumps({"phases": phases}), True) for phases in (TEXT, LIST)),
    ],
)
def test_phases_are_trained_as_written(model_path, tmp_path, kwargs, from_command_line):
    given = {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": kwargs, "warmup_steps": 0}
    trainer, used = train(model_path, tmp_path, from_command_line=from_command_line, **given)
    curve = hf_sched.Schedule.parse("warmup 3 cosine | hold 6 | decay 3 1-sqrt to 0.1").curve(peak=PEAK)
    np.testing.assert_array_equal(used[:, 0], curve)
    np.testing.assert_allclose(logged(trainer, "learning_rate"), curve, rtol=1e-12)


PHASES_IN_EPOCHS = {
    "lr_scheduler_type": "phases",
    "lr_scheduler_kwargs": {"phases": "warmup 1ep | decay 1ep"},
    "warmup_steps": 0,
}
# 17 rows are 5 batches, the last one of a single row, and 3 optimizer steps, the last one of one batch.
SMALL = {"rows": 17, "gradient_accumulation_steps": 2, "max_steps": -1, "warmup_steps": 0}
NESTED = {"warmup": "1ep", "after": "wsd", "after_kwargs": {"decay": "0.5ep"}}


def test_warmup_of_one_epoch_ends_with_the_first_epoch(model_path, tmp_path):
    trainer, used = train(model_path, tmp_path, num_train_epochs=2, **{**SMALL, **PHASES_IN_EPOCHS})
    np.testing.assert_array_equal(used[:, 0], hf_sched.Schedule.parse("warmup 3 | decay 3").curve(peak=PEAK))
    steps = dict(zip(logged(trainer, "epoch"), logged(trainer, "learning_rate"), strict=False))
    assert steps[1.0] == max(steps.values()) == PEAK
    # Outside of this Trainer the epoch length is unknown.
    with pytest.raises(DurationUnknown):
        transformers.get_scheduler("phases", trainer.optimizer, 0, 6, PHASES_IN_EPOCHS["lr_scheduler_kwargs"])


@pytest.mark.parametrize(
    ("run", "name", "kwargs", "expected"),
    [
        ({"num_train_epochs": 4, "warmup_steps": 0.25}, "cosine_floor", {}, "warmup 3 | decay 9 cosine to 0.1"),
        ({"max_steps": 7}, "phases", {"phases": "warmup 1ep | decay"}, "warmup 3 | decay 4"),
        ({"num_train_epochs": 2.5}, "phases", {"phases": "hold 1.5ep | decay every 0.5ep"}, "hold 5 | decay 3 every 2"),
        ({"num_train_epochs": 3}, "multistep", {"milestones": ["1ep", "2ep"]}, "hold 3 | hold 3 at 0.1 | hold at 0.01"),
        ({"num_train_epochs": 2}, "gradual_warmup", NESTED, "warmup 3 | hold 1 | decay 2 1-sqrt"),
    ],
)
def test_fractions_and_epochs_use_the_trainers_steps(model_path, tmp_path, run, name, kwargs, expected):
    _, used = train(model_path, tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, **{**SMALL, **run})
    schedule = hf_sched.Schedule.parse(expected, num_training_steps=len(used))
    np.testing.assert_allclose(used[:, 0], schedule.curve(peak=PEAK), rtol=1e-12)


def test_impossible_schedule_stops_before_the_first_step(model_path, tmp_path):
    recorder = Recorder()
    with pytest.raises(DurationUnknown, match=r"`duration` is in epochs \(1ep\)"):
        train(model_path, tmp_path, recorder=recorder, data=Endless(), **PHASES_IN_EPOCHS)
    given = {"optimizers": two_groups, **OURS, "lr_scheduler_kwargs": {"min_lr": 1e-3}}
    with pytest.raises(ValueError, match=r"parameter group 1: `min_lr` must be at most the peak .* 0\.000625"):
        train(model_path, tmp_path, recorder=recorder, **given)
    assert recorder.used == []


def test_durations_in_epochs_in_trls_trainer(model_path, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict({"input_ids": [[*range(6, 16)]] * 17})
    args = SFTConfig(
        **{"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no"},
        **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2},
        **{"learning_rate": PEAK, **PHASES_IN_EPOCHS},
    )
    recorder = Recorder()
    SFTTrainer(str(model_path), args, train_dataset=data, callbacks=[recorder]).train()
    curve = hf_sched.Schedule.parse("warmup 3 | decay 3").curve(peak=PEAK)
    np.testing.assert_array_equal(np.array(recorder.used)[:, 0], curve)


def test_one_text_is_trained_recorded_and_audited(model_path, tmp_path):
    given = {"lr_scheduler_type": "wsd:decay=50%,floor_ratio=0.1", "callbacks": [hf_sched.LearningRateLog()]}
    trainer, used = train(model_path, tmp_path, **given)
    schedule = hf_sched.Schedule.parse("warmup 3 | hold 3 | decay 6 1-sqrt; floor 0.1")
    np.testing.assert_array_equal(used[:, 0], schedule.curve(peak=PEAK))
    session = json.loads((tmp_path / "learning_rates.jsonl").read_text().splitlines()[0])["session"]
    recorded = session["lr_scheduler_type"], session["lr_scheduler_kwargs"]
    assert recorded == ("wsd", {"decay": "50%", "floor_ratio": 0.1})
    assert audit(tmp_path).ok
    # Without the log, the saved arguments say what was requested.
    (tmp_path / "learning_rates.jsonl").unlink()
    trainer.save_model()
    trainer.save_state()
    assert audit(tmp_path).ok


@pytest.mark.parametrize("name", ["cosine_floor", "cosine_restarts", "phases", "cosine", "wsd:decay=50%"])
def test_resumed_run_equals_uninterrupted_run(model_path, tmp_path, name):
    given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": SCHEDULES.get(name)}
    given |= {"save_strategy": "steps", "save_steps": 5}
    whole, used = train(model_path, tmp_path / "whole", **given)
    checkpoint = str(tmp_path / "whole" / "checkpoint-5")
    resumed, used_after = train(model_path, tmp_path / "resumed", resume=checkpoint, **given)
    np.testing.assert_array_equal(used_after, used[5:])
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")
    kind = LambdaLR if name == "cosine" else ScheduleLR
    assert type(whole.lr_scheduler) is type(resumed.lr_scheduler) is kind
