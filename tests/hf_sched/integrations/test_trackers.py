"""What trackio and TensorBoard have on disk after a run: planned beside actual rates, the phase, and alerts."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import trackio
from tensorboard.backend.event_processing import event_accumulator as events
from transformers import TrainerCallback

import hf_sched
from hf_sched.finetune.callbacks.grpo_diagnostics import WINDOW, GRPODiagnostics
from hf_sched.integrations.trackers import send_alert
from tests.helpers.tiny_trainer import ModelTrainer
from tests.helpers.trainer import OURS, PEAK, STEPS, WARMUP, make, train

CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP).curve(peak=PEAK).tolist()
LEFT = {"warmup": [2, 1, 0], "decay": list(range(STEPS - WARMUP - 1, -1, -1))}


@pytest.fixture
def project(request):
    """A trackio project of this test."""
    return request.node.name.replace("[", "-").rstrip("]")


def alerts(project):
    return [(alert["level"], alert["title"], alert["text"]) for alert in trackio.Api().alerts(project)]


def trackio_values(project, name):
    (run,) = trackio.Api().runs(project)
    rows = trackio.sqlite_storage.SQLiteStorage.get_logs(project, run.name)
    return [row[f"train/{name}"] for row in rows if f"train/{name}" in row]


def tensorboard_values(folder, name):
    written = events.EventAccumulator(str(folder)).Reload()
    return [event.value for event in written.Scalars(f"train/{name}")]


def test_trackers_have_planned_and_actual_rates_and_the_phase(model_path, tmp_path, monkeypatch, project):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    given = {"report_to": ["trackio", "tensorboard"], "project": project, "callbacks": [hf_sched.LearningRateLog()]}
    train(model_path, tmp_path, **OURS, **given)
    for name in ("learning_rate/group_0", "learning_rate/planned_group_0"):
        assert trackio_values(project, name) == CURVE
        assert tensorboard_values(tmp_path / "events", name) == pytest.approx(CURVE, rel=1e-6)
    for phase, left in LEFT.items():
        assert trackio_values(project, f"phase_steps_left/{phase}") == left
        assert tensorboard_values(tmp_path / "events", f"phase_steps_left/{phase}") == left


def test_trackio_gets_an_alert_of_the_guard(model_path, tmp_path, project):
    class SetRate(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            optimizer.param_groups[0]["lr"] = 1.0

    trainer, _ = make(model_path, tmp_path, **OURS, report_to="trackio", project=project, callbacks=[SetRate()])
    with pytest.raises(ValueError, match="another component sets it"):
        trainer.train()
    trackio.finish()
    ((level, title, text),) = alerts(project)
    assert (level, title) == ("error", "learning rate off schedule") and "at a learning rate of 1.0" in text


def test_trackio_gets_an_alert_of_a_diverged_run(model_path, tmp_path, project, capsys):
    given = {"learning_rate": 1e30, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    assert ModelTrainer(model_path, tmp_path, **given, report_to="trackio", project=project).run() == 1
    ((level, title, text),) = alerts(project)
    assert (level, title) == ("error", "training diverged") and "Try a lower `learning_rate` than 1e+30" in text
    assert "TRACKIO" not in capsys.readouterr().out  # the message is in the log already


@pytest.mark.parametrize(
    ("last", "title"),
    [({"frac_reward_zero_std": 1.0, "entropy": 2.0}, "dead rewards"), ({"entropy": 0.1}, "entropy collapse")],
)
def test_trackio_gets_alerts_of_a_run_that_learns_nothing(project, last, title):
    records = [{"loss": 0.1, "reward": 0.4, "entropy": 2.0}] * WINDOW + [{"loss": 0.1, "reward": 0.4, **last}] * WINDOW
    sizes = {"num_generations": 4, "temperature": 1.0, "learning_rate": 1e-6, "beta": 0.0}
    state = SimpleNamespace(is_world_process_zero=True, log_history=records, global_step=len(records))
    trackio.init(project=project)
    diagnostics = GRPODiagnostics()
    for _ in range(2):
        diagnostics.on_log(SimpleNamespace(report_to=["trackio"], **sizes), state, None, logs=records[-1])
    trackio.finish()
    assert [alert[:2] for alert in alerts(project)] == [("warn", title)]


def test_tracker_that_is_not_open_ends_nothing(caplog):
    caplog.set_level(logging.WARNING, logger="hf_sched")
    send_alert(SimpleNamespace(report_to=["trackio"]), "title", "text")
    assert "the alert 'title' did not reach trackio: Call trackio.init()" in caplog.text
