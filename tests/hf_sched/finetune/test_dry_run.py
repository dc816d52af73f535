"""A dry run shows what the run then does and learns from."""

from __future__ import annotations

import json
import shutil

import pytest

from hf_sched.finetune.rewards import load_rewards
from hf_sched.finetune.rewards.probe import probe

WSD = {"max_steps": 7, "lr_scheduler_type": "wsd", "warmup_steps": 2}


def test_dry_run_of_sft_shows_plan_and_sample(run_recipe):
    dry = run_recipe("sft", name="dry", dry_run=True, **WSD)
    assert "sft, 7 optimizer steps" in dry.output
    assert "wsd: warmup 2 | hold 4 | decay 1 1-sqrt" in dry.output
    question = "<|user|>sort "
    shown = next(line for line in dry.output.splitlines() if line.startswith(question))
    prompt, _, answer = shown.removeprefix(question).partition("<|end|><|assistant|>")
    assert answer == f"«{''.join(sorted(prompt))}<|end|>»"
    assert "the stop token is trained in 64 of the first 64 samples" in dry.output
    assert not (dry.folder / "trainer_state.json").exists() and "train_loss" not in dry.output

    run = run_recipe("sft", name="run", **WSD)
    assert "7 optimizer steps (0.14 epochs) of 8 samples; learning rate: warmup 2 | hold 4 | decay 1" in run.output
    assert len(run.logged("learning_rate")) == 7 and "The first sample" not in run.output


def test_stop_token_is_found_before_white_space_and_missed_if_samples_are_cut_off(run_recipe, task, tmp_path):
    assert "WARNING: the stop token is trained in" in run_recipe("sft", max_length=14, dry_run=True).output
    # As in ChatML, where a line break follows it.
    model = shutil.copytree(task / "model", tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|end|>{% endfor %}", "<|end|> {% endfor %}"))
    run = run_recipe("sft", max_steps=1, model_name_or_path=str(model), dry_run=True)
    assert "<|end|> »" in run.output
    assert "the stop token is trained in 64 of the first 64 samples" in run.output


def test_dry_run_of_grpo_probes_the_rewards(run_recipe):
    rewards = ["exact_answer", {"name": "answer_format", "format": "no such thing"}]
    dry = run_recipe("grpo", name="dry", max_steps=5, reward_funcs=rewards, dry_run=True)
    assert "grpo, 5 optimizer steps" in dry.output
    rows = [line.split() for line in dry.output.splitlines()]
    assert ["exact_answer", "1", "'...'", "0", "0"] in rows
    assert "WARNING: the reward 'answer_format' gives 0 to the right answer" in dry.output
    assert not dry.folder.joinpath("trainer_state.json").exists()


def test_dry_run_of_dpo_shows_a_pair_and_warns_of_equal_answers(run_recipe, task, tmp_path):
    rows = [json.loads(line) for line in (task / "dpo" / "train.jsonl").read_text().splitlines()]
    for row in rows[:3]:
        row["rejected"] = row["chosen"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dry = run_recipe("dpo", dry_run=True, dataset_name=str(tmp_path / "data"), **WSD)
    assert "dpo, 7 optimizer steps" in dry.output
    assert f"chosen: {rows[0]['chosen'][0]['content']}<|end|>" in dry.output
    assert "WARNING: the chosen and the rejected answer are equal in 3 of the first 64 pairs" in dry.output


@pytest.mark.parametrize("answer", ["72", "blue"])
def test_probe_grades_right_wrong_and_empty_answers(answer):
    rewards, _ = load_rewards(["exact_answer", {"name": "answer_format", "format": "boxed"}, "repetition_penalty"])
    exact, form, penalty = probe(rewards, {"prompt": "What is it?", "answer": answer})
    assert (exact.gold, exact.rendering, exact.wrong, exact.empty) == (1, "...", 0, 0)
    assert (form.gold, form.rendering, form.wrong, form.empty) == (1, r"\boxed{...}", 1, 0)
    assert penalty.gold == 0


@pytest.mark.parametrize("given", [{"prompt": "Say something."}, {"prompt": "x", "answer": ""}])
def test_without_a_right_answer_nothing_is_probed(given):
    rewards, _ = load_rewards(["tag_count"])
    assert probe(rewards, given) == []
