"""A dry run shows what the run then does and learns from."""

from __future__ import annotations

import json
import shutil

import pytest

from hf_sched.finetune.rewards import load_rewards
from hf_sched.finetune.rewards.probe import probe
from hf_sched.finetune.rewards.safe_reward import SafeReward
from hf_sched.schedules.peak_range import peak_range

WSD = {"max_steps": 7, "lr_scheduler_type": "wsd", "warmup_steps": 2}


def test_dry_run_of_sft_shows_plan_and_sample(run_recipe):
    dry = run_recipe("sft", name="dry", dry_run=True, **WSD)
    assert "sft, 7 optimizer steps" in dry.output
    assert "wsd: warmup 2 | hold 4 | decay 1 1-sqrt" in dry.output
    assert f"usual peak: {peak_range('sft', width=32, layers=2, batch_size=8)}" in dry.output
    question = "<|user|>sort "
    shown = next(line for line in dry.output.splitlines() if line.startswith(question))
    prompt, _, answer = shown.removeprefix(question).partition("<|end|><|assistant|>")
    assert answer == f"«{''.join(sorted(prompt))}<|end|>»"
    assert "the stop token is trained in 64 of the first 64 samples" in dry.output
    assert not (dry.folder / "trainer_state.json").exists() and "train_loss" not in dry.output

    run = run_recipe("sft", name="run", **WSD)
    header = [line.split(maxsplit=1) for line in run.output.splitlines()]
    assert ["plan", "7 steps (0.14 epochs) of 8 samples, 1 process on cpu"] in header
    assert ["learning", "rate  wsd, peak 0.002: warmup 2 | hold 4 | decay 1 1-sqrt"] in header
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


def test_dry_run_of_grpo_probes_the_rewards(run_recipe, task):
    rewards = ["exact_answer", {"name": "answer_format", "format": "no such thing"}]
    dry = run_recipe("grpo", name="dry", max_steps=5, reward_funcs=rewards, dry_run=True)
    assert "grpo, 5 optimizer steps" in dry.output
    rows = [line.split() for line in dry.output.splitlines()]
    assert ["exact_answer", "1", "'...'", "0", "0"] in rows
    assert "WARNING: the reward 'answer_format' gives 0 to the right answer" in dry.output
    first, *others = [json.loads(line)["answer"] for line in (task / "grpo/train.jsonl").read_text().splitlines()]
    another = next(answer for answer in others if answer != first)
    assert f"right answer {first!r}, wrong answer {another!r}" in dry.output
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


def test_dry_run_warns_if_no_reward_tells_right_from_wrong(run_recipe):
    dry = run_recipe("grpo", max_steps=5, reward_funcs=[{"name": "answer_format", "format": ".*"}], dry_run=True)
    assert "WARNING: no reward tells the right answer to the first problem from a wrong one" in dry.output


@pytest.mark.parametrize(
    ("gold", "wrong"), [("72", "73"), ("#### 099", "#### 100"), ("(B)", "(C)"), ("Yes", "No"), ("blue", "eulb eulb")]
)
def test_wrong_answer_of_a_single_row_is_of_the_same_kind(gold, wrong):
    rewards, _ = load_rewards(["exact_answer"])
    (one,) = probe(rewards, {"prompt": "What is it?", "answer": gold})
    assert (one.right_answer, one.wrong_answer, one.wrong, one.warning) == (gold, wrong, 0, "")


def test_probe_warns_of_rewards_that_cannot_tell_the_answer_and_counts_for_nothing():
    def generous(completions, answer, **kwargs):
        return [1.0] * len(completions)

    def stateful(completions, trainer_state, log_metric, **kwargs):
        log_metric("step", trainer_state.global_step)
        return [0.5] * len(completions)

    def broken(completions, **kwargs):
        return [1 / 0 for _ in completions]

    rewards = [SafeReward(one.__name__, one, 5) for one in (generous, stateful, broken)]
    others = [{"answer": "blue"}, {"answer": "red"}]
    of_generous, of_stateful, of_broken = probe(rewards, {"prompt": "Which?", "answer": "blue"}, None, others)
    assert of_generous.warning == (
        "the reward 'generous' gives 1 to both the right answer 'blue' and the wrong answer 'red'"
    )
    assert (of_stateful.warning, of_stateful.gold) == ("", 0.5), "it does not check the answer"
    assert of_broken.warning.startswith("on answers to the first problem, the reward 'broken' failed (Zero")
    with pytest.raises(ValueError, match="on its first batch"):
        rewards[-1](completions=["a"])


def test_probe_without_a_verdict_says_so():
    (one,) = probe(load_rewards(["final_number"])[0], {"prompt": "Which?", "answer": "blue"})
    assert one.gold is None
    assert one.warning == "the reward 'final_number' gives no reward to the right answer, however it is written"


@pytest.mark.parametrize("given", [{"prompt": "Say something."}, {"prompt": "x", "answer": ""}])
def test_without_a_right_answer_nothing_is_probed(given):
    rewards, _ = load_rewards(["tag_count"])
    assert probe(rewards, given) == []
