"""`hf-sched init`: the configurations that it writes pass the check and train."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from hf_sched.finetune.starter import Data, Device, starter_config
from hf_sched.schedules.recommend import recommend
from tests.helpers.command_line import error_message, printed
from tests.helpers.recipes import ONE_PROCESS, finish


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["problem", "solution"])
        rows.writerows([f"add {i} and 3", f"{i + 3}"] for i in range(300))
    return path


@pytest.mark.parametrize(
    ("kind", "flags", "steps"),
    [("sft", [], 108), ("sft", ["--full"], 108), ("grpo", [], 150), ("grpo", ["--full"], 150)],
)
def test_configuration_passes_the_check_and_has_the_steps_it_names(
    kind, flags, steps, problems, model_path, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    file = tmp_path / "my.yaml"
    printed("init", kind, "--model", model_path, "--data", problems, *flags, "--output", file)
    written = file.read_text(encoding="utf-8")
    assert f"{steps} optimizer steps" in written
    assert "errors: 0, warnings: 0" in printed("check", file, "--kind", kind)
    plan = json.loads(printed("plan", file, "--kind", kind, "--json"))
    assert plan["num_training_steps"] == steps
    given = yaml.safe_load(written)
    lora = {"lora_r": given["lora_r"], "lora_alpha": given["lora_alpha"]} if given.get("use_peft") else {}
    advice = recommend(task=kind, num_training_steps=steps, width=16, batch_size=8, **lora)
    assert advice.peak and given["learning_rate"] == advice.peak.start
    recommended = {key: value for key, value in advice.training_arguments().items() if value != {}}
    assert recommended == {key: given[key] for key in recommended}
    assert given["columns"] == {"question": "problem", "answer": "solution"}
    assert given.get("use_peft", False) == (not flags)


def test_batch_fits_the_gpus_and_keeps_the_effective_batch_size(model_path):
    def batches(processes: int, gib: float) -> tuple[int, int]:
        device = Device("GPUs", processes, int(gib * 2**30))
        given = yaml.safe_load(
            starter_config("sft", str(model_path), Data("x", {}, 10_000, False), lora=False, device=device)
        )
        assert given["fast"] is True
        return given["per_device_train_batch_size"], given["gradient_accumulation_steps"]

    assert batches(1, 80) == (32, 1)
    assert batches(8, 80) == (4, 1)
    batch, accumulation = batches(1, 1.13)
    assert 1 <= batch < 32 and batch * accumulation == 32


def test_unusable_requests_are_rejected_and_no_file_is_replaced(problems, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("mine")
    for words, expected in (
        (["sft", "--data", problems], "add `--force`"),
        (["dpo", "--data", problems, "--force"], "`chosen` and `rejected`"),
        (["sft", "--data", tmp_path / "no.csv", "--force"], "there is no such file"),
    ):
        assert expected in error_message("init", *words, "--model", "m", "--output", file)
        assert file.read_text() == "mine"


@pytest.mark.slow
def test_written_configuration_trains(problems, model_path, tmp_path):
    file = tmp_path / "my.yaml"
    printed("init", "sft", "--model", model_path, "--data", problems, "--output", file)
    words = ["-m", "hf_sched", "sft", "--config", file, "--output_dir", tmp_path / "run", "--num_train_epochs", 1]
    assert finish(ONE_PROCESS, [*map(str, words)], tmp_path / "run").args.num_train_epochs == 1
