"""What is shown before a run is what the run then does and learns from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hf_sched.finetune.rewards import load_rewards
from hf_sched.finetune.rewards.probe import probe


def test_a_dry_run_of_sft_shows_plan_and_sample_and_does_not_train(run_recipe):
    dry = run_recipe("sft", name="dry", max_steps=7, lr_scheduler_type="wsd", warmup_steps=2, dry_run=True)
    assert "sft, 7 optimizer steps" in dry.output
    assert "wsd: warmup 2 | hold 4 | decay 1 1-sqrt" in dry.output
    assert "TRL drops" not in dry.output  # it has dropped what it does by then
    question = "<|user|>sort "
    shown = next(line for line in dry.output.splitlines() if line.startswith(question))
    prompt, _, answer = shown.removeprefix(question).partition("<|end|><|assistant|>")
    assert answer == f"«{''.join(sorted(prompt))}<|end|>»"
    assert "the stop token is trained in 64 of the first 64 samples" in dry.output
    assert not (dry.folder / "trainer_state.json").exists() and "train_loss" not in dry.output

    run = run_recipe("sft", name="run", max_steps=7, lr_scheduler_type="wsd", warmup_steps=2)
    assert "7 optimizer steps (0.14 epochs) of 8 samples; learning rate: warmup 2 | hold 4 | decay 1" in run.output
    assert len(run.logged("learning_rate")) == 7 and "The first sample" not in run.output


@pytest.mark.slow
def test_a_sample_that_is_cut_off_before_its_end_is_warned_of(run_recipe):
    run = run_recipe("sft", max_steps=1, max_length=14, dry_run=True)
    assert "warning the stop token is trained in" in run.output


def test_white_space_behind_the_stop_token_does_not_hide_it(run_recipe, task, tmp_path):
    # As in ChatML, where a line break follows it.
    model = shutil.copytree(task / "model", tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|end|>{% endfor %}", "<|end|> {% endfor %}"))
    run = run_recipe("sft", max_steps=1, model_name_or_path=str(model), dry_run=True)
    assert "<|end|> »" in run.output
    assert "the stop token is trained in 64 of the first 64 samples" in run.output


def test_a_dry_run_of_grpo_tries_the_rewards(run_recipe):
    rewards = ["exact_answer", {"name": "answer_format", "format": "no such thing"}]
    dry = run_recipe("grpo", name="dry", max_steps=5, reward_funcs=rewards, dry_run=True)
    assert "grpo, 5 optimizer steps" in dry.output
    rows = [line.split() for line in dry.output.splitlines()]
    assert ["exact_answer", "1", "'...'", "0", "0"] in rows
    assert "warning the reward 'answer_format' gives 0 to the right answer" in dry.output
    assert not dry.folder.joinpath("trainer_state.json").exists()


def row(**columns: object) -> dict[str, object]:
    return {"prompt": "What is 8 * 9?", "answer": "72", **columns}


def test_rewards_are_tried_on_right_wrong_and_no_answers():
    rewards, weights = load_rewards(
        ["final_number", {"name": "answer_format", "format": "boxed", "weight": 0.5}, "repetition_penalty"]
    )
    found = probe(rewards, row(), weights)
    assert found is not None
    (number, form, penalty), most = found
    assert (number.gold, number.wrong, number.empty) == (1, 0, 0)
    assert (form.gold, form.rendering, form.wrong, form.empty) == (1, r"\boxed{...}", 1, 0)
    assert penalty.is_penalty and not number.is_penalty
    assert penalty.gold == 0 and penalty.least < -0.9
    assert most == 1.5


def test_a_reward_that_never_pays_is_seen():
    rewards, _ = load_rewards([{"name": "answer_format", "format": "never"}])
    found = probe(rewards, row())
    assert found is not None
    ((form,), most) = found
    assert form.gold == most == 0 and not form.is_penalty


def test_without_a_right_answer_there_is_no_probe(tmp_path: Path):
    rewards, _ = load_rewards(["tag_count"])
    assert probe(rewards, {"prompt": "Say something."}) is None
    assert probe(rewards, json.loads('{"prompt": "x", "answer": ""}')) is None


def test_words_are_changed_too():
    rewards, _ = load_rewards(["exact_answer"])
    found = probe(rewards, row(answer="blue"))
    assert found is not None
    assert (found[0][0].gold, found[0][0].wrong) == (1, 0)
