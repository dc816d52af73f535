"""`hf-sched sweep`: its output, and its errors in one line. The runs are computed by a formula."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml

from tests.helpers.command_line import error_message, printed, run
from tests.helpers.extras import require

require("optuna")
require("trl")

from hf_sched.finetune.demo.sorting_task import save_data, save_model  # noqa: E402
from hf_sched.finetune.sweep import worker  # noqa: E402
from tests.helpers.sweeps import Formula  # noqa: E402

WIDE = ("--learning-rates", "1e-4..1e-2")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    save_model(folder / "model", layers=1, width=16, seed=0)
    save_data(folder, train=60, test=10, backwards_share=0.0, seed=0)
    arguments = {
        "model_name_or_path": str(folder / "model"),
        "dataset_name": str(folder / "sft"),
        "output_dir": str(folder / "run"),
        "lr_scheduler_type": "wsd:decay=30%",
        "warmup_steps": 5,
        "max_steps": 100,
        "use_cpu": True,
        "bf16": False,
        "seed": 7,
    }
    file = folder / "my.yaml"
    file.write_text(yaml.safe_dump(arguments))
    return file


@pytest.fixture
def formula(monkeypatch: pytest.MonkeyPatch) -> Formula:
    found = Formula()
    monkeypatch.setattr(worker, "train_in_process", found)
    return found


def test_table_picture_and_best_configuration(config, formula, tmp_path):
    output = printed("sweep", config, *WIDE, "--output", tmp_path, "--", "--weight_decay", "0.1")
    assert "7 points; points x seeds for steps: 7 x 1 for 12, then 4 x 1 for 35, then 2 x 3 for 100" in output
    assert "Best: 0.0008 (eval_loss" in output and "standing" in output
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best == {**yaml.safe_load(config.read_text()), "weight_decay": 0.1, "learning_rate": 8e-4}
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    assert {unit.seed for unit in formula.units} == {7, 8, 9}

    # The same again trains nothing, and prints JSON.
    trained = len(formula.units)
    answer = json.loads(
        run("sweep", config, *WIDE, "--output", tmp_path, "--json", "--", "--weight_decay", "0.1").stdout
    )
    assert len(formula.units) == trained and answer["steps_here"] == 0
    assert answer == {**json.loads((tmp_path / "sweep.json").read_text()), "steps_here": 0}
    assert answer["best"] == {"learning_rate": 8e-4} and answer["edge"] is None
    assert answer["steps"] <= 0.35 * answer["grid_steps"] and len(answer["points"]) == 7


def test_other_arguments_are_swept_with_the_peak(config, formula, tmp_path):
    formula.value = lambda unit: abs(unit.point.peak - 2e-3) + (unit.point.others != (("weight_decay", 0.3),))
    settings = ("--set", "weight_decay=0.1,0.3", "--set", "lr_scheduler_type=cosine_floor:floor_ratio=0.1")
    output = printed("sweep", config, "--learning-rates", "1e-3,2e-3,4e-3", *settings, "--output", tmp_path)
    assert "Best: 0.002, weight_decay=0.3" in output
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (best["weight_decay"], best["lr_scheduler_type"]) == (0.3, "cosine_floor:floor_ratio=0.1")


def test_every_run_warms_up_holds_and_cools_down(config, formula, tmp_path):
    def see(joined, trial, unit, checkpoint):
        found = yaml.safe_load(joined.recipe.write_config(unit, tmp_path / "trial", "").read_text())
        phases = found["lr_scheduler_kwargs"]["phases"]
        hold, decay = unit.hold - 5, unit.steps - unit.hold
        assert (phases, found["max_steps"]) == (f"warmup 5 | hold {hold} | decay {decay} 1-sqrt", unit.steps)
        assert found["lr_scheduler_type"] == "phases" and found["warmup_steps"] == 0
        return formula(joined, trial, unit, checkpoint)

    worker.train_in_process = see  # restored by the fixture
    printed("sweep", config, *WIDE, "--output", tmp_path)
    assert formula.units


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*WIDE, "--set", "weight_dekay=0.1"), "did you mean `weight_decay`?"),
        ((*WIDE, "--", "--max_stepz", "5"), "did you mean `max_steps`?"),
        (("--learning-rates", "1e-3..1e-4"), "the range is empty"),
        ((*WIDE, "--budget", "3%"), "`--budget` must be at least"),
        ((*WIDE, "--budget", "much"), "`--budget` must be a number from 0 to 1"),
        ((*WIDE, "--seeds", "0"), "`--seeds` must be a whole number, 1 or more"),
        ((*WIDE, "--kind", "kto"), "`--kind` must be one of sft, grpo, dpo"),
        ((*WIDE, "--storage", "nosuchdb://here/there"), "`--storage`"),
        ((*WIDE, "--storage", "/proc/sweep.db"), "`--storage` must be a database or file that can be written"),
    ],
)
def test_mistakes_are_named_in_one_line(config, formula, tmp_path, words, message):
    flags = words.index("--") if "--" in words else len(words)
    found = error_message("sweep", config, "--output", tmp_path, *words[:flags], *words[flags:])
    assert message in found and "\n" not in found
    assert not formula.units


def test_locked_storage_is_named(config, formula, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "LOCK_TIMEOUT", 0.1)
    printed("sweep", config, *WIDE, "--output", tmp_path)
    other = sqlite3.connect(tmp_path / "sweep.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        found = error_message("sweep", config, *WIDE, "--output", tmp_path)
    finally:
        other.close()
    assert "`--storage`" in found and "database is locked" in found and "journal file" in found
    assert "\n" not in found


def test_metric_that_is_not_logged_is_named(tmp_path):
    from hf_sched.finetune.sweep.grid import Point
    from hf_sched.finetune.sweep.halving import Unit
    from tests.helpers.sweeps import recipe

    (tmp_path / "log.txt").write_text("done")
    state = {"global_step": 5, "max_steps": 5, "log_history": [{"eval_loss": 1.0}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"`--metric` must be one of eval_loss, received 'eval_accuracy'"):
        recipe(metric="eval_accuracy").outcome(Unit(Point(1e-3), 0, 5), tmp_path, 0)


def test_missing_extra_is_named(config, monkeypatch):
    monkeypatch.setattr("hf_sched.cli.sweep.find_spec", lambda name: None if name == "optuna" else name)
    assert error_message("sweep", config, *WIDE) == "`sweep` needs optuna; pip install 'hf_sched[sweep]'"
