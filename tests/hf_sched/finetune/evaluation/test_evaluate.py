"""An evaluation counts right, goes on where it was killed, and compares before and after a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.common.recipe_runs import LAUNCHES, Run, free_port
from hf_sched.finetune import grpo, sft
from hf_sched.finetune.data.load import ColumnArguments
from hf_sched.finetune.evaluation import evaluate as evaluation
from hf_sched.finetune.evaluation.before_after import EvaluationArguments, check_evaluation, command_for
from hf_sched.finetune.evaluation.evaluate import HeldOut, Settings, load_metric, plan_batches, seed_of
from hf_sched.finetune.evaluation.generation import Loading
from hf_sched.finetune.evaluation.generation_cache import Completion
from hf_sched.finetune.evaluation.metrics import compare, describe, score_greedy, score_sampled
from hf_sched.finetune.reports.report import describe_evaluation
from tests.helpers.recipes import COMMON, ONE_PROCESS, ROOT, SFT, TWO_PROCESSES, ZERO3, Finished, finish


@pytest.fixture(scope="module")
def run(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of recipes/sft.py that evaluates before and after."""
    folder = tmp_path_factory.mktemp("evaluated")
    arguments = {
        "model_name_or_path": str(task / "model"),
        "dataset_name": str(task / "sft"),
        "output_dir": str(folder / "run"),
        **COMMON,
        **SFT,
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 32,
        "max_steps": 150,
        "evaluate_on": str(task / "grpo"),
        "evaluate_metric": {"name": "exact_answer", "time_limit": 2},
        "evaluate_max_new_tokens": 10,
        "evaluate_samples": 4,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(arguments))
    return finish(ONE_PROCESS, ["recipes/sft.py", "--config", str(folder / "run.yaml")], folder / "run")


def read(folder: Path) -> list[dict]:
    return list(json.loads((folder / "evaluation.json").read_text()).values())


def test_a_run_is_evaluated_before_and_after(run: Finished, task: Path):
    before, after = read(run.folder)
    assert before["settings"]["model"] == str(task / "model") and after["settings"]["model"] == str(run.folder)
    assert before["right"] == 0 and before["problems"] == after["problems"] == 20
    assert after["right"] == sum(
        row["completion"] == "".join(sorted(row["prompt"][0]["content"].removeprefix("sort ")))
        for row in after["completions"]
    )
    assert after["right"] > 0, "150 steps teach it some"
    assert after["interval"][0] < after["exact_match"] < after["interval"][1]
    compared = after["compared"]
    assert compared["difference"] == after["exact_match"] and compared["gained"] == after["right"]
    assert set(after["sampled"]["pass_at"]) == set(compared["pass_at"]) == {"1", "4"}
    assert after["sampled"]["pass_at"]["1"]["value"] <= after["sampled"]["pass_at"]["4"]["value"]
    for result in (before, after):
        measured = {key: result["measured"][key] for key in ("metric", "data", "split", "samples", "temperature")}
        assert list(measured.values()) == [
            {"name": "exact_answer", "time_limit": 2},
            str(task / "grpo"),
            "test",
            4,
            1.0,
        ]
        assert all(line in run.output for name in [result["settings"]["model"]] for line in describe(name, result))
    report = "\n".join(describe_evaluation(json.loads((run.folder / "evaluation.json").read_text())))
    low, high = after["interval"]
    assert f"{after['exact_match']:.1%} ({low:.1%} to {high:.1%})" in report and "pass@4" in report
    assert f"against {task / 'model'}: {100 * compared['difference']:+.1f} points" in report


def words(run: Finished, task: Path, output: Path) -> list[str]:
    options = {"max_new_tokens": 10, "samples": 6, "temperature": 0.9, "batch_size": 1, "pass_at": 2, "output": output}
    models = ["--models", str(task / "model"), str(run.folder), "--data", str(task / "grpo")]
    return [
        "-m",
        "hf_sched.finetune.evaluation.evaluate",
        *models,
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
    ]


def test_killed_twice_it_ends_in_the_same_result(run: Finished, task: Path, tmp_path: Path, capsys, monkeypatch):
    journal = tmp_path / "killed.jsonl"
    # The first in the greedy answers of the first model, the second in the samples of the second one.
    for lines in (10, 200):
        command = [sys.executable, *words(run, task, tmp_path / "killed.json")]
        killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert killed.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.json").exists()
    journal.write_bytes(journal.read_bytes()[:-7])  # as if within a line
    everything = 2 * (20 + 120)
    assert 199 <= journal.read_bytes().count(b"\n") < everything

    for output in ("killed.json", "whole.json"):
        monkeypatch.setattr(sys, "argv", words(run, task, tmp_path / output))
        evaluation.main()
        told = capsys.readouterr().out
        assert ("20 of 20 batches (greedy)" in told and "going on from there" in told) == (output == "killed.json")
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sum("settings" in line for line in lines) == 4
    places = [(line["of"], line["problem"], line["sample"]) for line in lines if "of" in line]
    assert len(places) == len(set(places)) == everything, "nothing was generated twice"


def test_samples_do_not_depend_on_the_batch_size(run: Finished, task: Path, tmp_path: Path):
    problems = HeldOut(str(task / "grpo")).problems()
    found = []
    for batch_size in (7, 50):
        settings = Settings(max_new_tokens=10, samples=3, batch_size=batch_size, loading=Loading(device="cpu"))
        answers = evaluation.Answers(str(run.folder), problems, settings, tmp_path / f"{batch_size}.jsonl")
        found.append((answers.get(), answers.get(3, sampled=True)))
    assert found[0] == found[1]
    assert len({one.text for of_problem in found[0][1] for one in of_problem}) > 30


@pytest.fixture
def evaluate(run: Finished, task: Path, tmp_path: Path):
    """Evaluate the trained model in this process."""

    def evaluate(metric: str = "exact_answer", **given: object) -> dict:
        settings = Settings(loading=Loading(device="cpu"), **{"max_new_tokens": 10, **given})
        held_out = HeldOut(str(task / "grpo"), max_problems=8, metric=metric)
        results = evaluation.evaluate([str(run.folder)], held_out, settings, tmp_path / "evaluation.json")
        return results[str(run.folder)]

    return evaluate


def test_another_metric_and_more_samples_reuse_what_is_there(evaluate, capsys, monkeypatch):
    first = evaluate(samples=2)
    loaded = evaluation.load_engine
    monkeypatch.setattr(evaluation, "load_engine", None)
    second = evaluate(metric="final_number", samples=2)
    assert [row["completion"] for row in first["completions"]] == [row["completion"] for row in second["completions"]]
    assert [one["measured"]["metric"] for one in (first, second)] == ["exact_answer", "final_number"]
    monkeypatch.setattr(evaluation, "load_engine", loaded)
    capsys.readouterr()
    evaluate(samples=4)
    assert "1 of 1 batches (greedy) are in" in capsys.readouterr().out


def test_other_settings_are_told_of_and_evaluated_anew(evaluate, capsys):
    evaluate()
    capsys.readouterr()
    evaluate(max_new_tokens=3)
    assert "changed since it was evaluated before (max_new_tokens 10 -> 3), so it is evaluated anew" in (
        capsys.readouterr().out
    )


def test_problems_of_ones_own_columns_are_asked_without_the_instruction_of_gsm8k(tmp_path):
    file = tmp_path / "held out.csv"
    file.write_text('problem,solution\n"Wie viele Äpfel, ""rote""?",3\nUnd Birnen?,\n', encoding="utf-8")
    columns = {"question": "problem", "answer": "solution"}
    with pytest.raises(ValueError, match=r"held out\.csv, line 3: `answer` is missing"):
        HeldOut(str(file), columns=columns).problems()
    file.write_text(file.read_text(encoding="utf-8") + "4\n", encoding="utf-8")
    file.write_text(file.read_text(encoding="utf-8").replace("Birnen?,\n", "Birnen?,"), encoding="utf-8")
    bare = HeldOut(str(file), columns=columns, instruction="", max_problems=1).problems()
    assert bare == [{"prompt": [{"role": "user", "content": 'Wie viele Äpfel, "rote"?'}], "answer": "3"}]
    requested = HeldOut(str(file), columns=columns).problems()
    assert requested[1]["prompt"][0]["content"].startswith("Und Birnen?\nReason step by step") and len(requested) == 2
    with pytest.raises(ValueError, match="has the columns problem, solution; the recipe takes `prompt`, or `question`"):
        HeldOut(str(file)).problems()
    with pytest.raises(ValueError, match="needs a column `answer`"):
        held_out = HeldOut(str(file), columns={"prompt": "problem"})
        held_out.reward(held_out.problems())


def test_the_evaluation_of_a_run_takes_the_columns_of_its_data_unless_told_otherwise(task, tmp_path):
    (tmp_path / "test.csv").write_text("prompt,answer\nsort 21,12\n")
    named = ColumnArguments(columns={"question": "problem", "answer": "solution"}, instruction="")
    requested = EvaluationArguments(evaluate_on=str(tmp_path / "test.csv"))
    with pytest.raises(ValueError, match=r"`evaluate_on`: .*question: problem.*`evaluate_columns` says otherwise"):
        check_evaluation(requested, named)
    with pytest.raises(ValueError, match=r"^`evaluate_columns` says prompt: q"):
        check_evaluation(dataclasses.replace(requested, evaluate_columns={"prompt": "q"}), named)
    requested = EvaluationArguments(evaluate_on=str(tmp_path / "test.csv"), evaluate_columns="{}")
    check_evaluation(requested, named)
    args = argparse.Namespace(use_cpu=True, bf16=False, fp16=False, trust_remote_code=False, output_dir=str(tmp_path))
    model = argparse.Namespace(model_name_or_path="m", model_revision="main", dtype=None)
    words = command_for(requested, named, args, model)
    assert words[words.index("--columns") + 1] == "{}" and words[words.index("--instruction") + 1] == ""


def test_batches_hold_prompts_of_like_length_the_longest_first():
    lengths = [3, 9, 3, 5, 9, 1]
    batches = plan_batches(lengths, 2, 4)
    assert batches[0] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert sorted(place for batch in batches for place in batch) == [(n, s) for n in range(6) for s in range(2)]
    flat = [lengths[number] for batch in batches for number, _ in batch]
    assert flat == sorted(flat, reverse=True)


def test_each_sample_of_each_problem_has_a_seed_of_its_own():
    places = [(number, sample) for number in range(100) for sample in range(100)]
    assert len({seed_of(seed, place) for seed in (0, 1) for place in places}) == 20_000
    assert seed_of(0, (3, 5)) == seed_of(0, (3, 5))


def problems_and(*texts: str) -> tuple[list[Completion], list[dict]]:
    problems = [{"prompt": f"{number}?", "answer": str(number)} for number in range(len(texts))]
    return [Completion(text, text != "") for text in texts], problems


def test_figures_are_counted_right():
    completions, problems = problems_and("0", "5", "2", "")
    result = score_greedy(completions, problems, load_metric("exact_answer"))
    assert (result["right"], result["exact_match"], result["cut_off"]) == (2, 0.5, 1)
    assert [row["right"] for row in result["completions"]] == [True, False, True, False]
    assert "2 of 4 right, 50.0% (15.0% to 85.0%); 1 of 4 cut off at max_new_tokens" in describe("m", result)[0]

    samples = [[Completion(text, True) for text in texts] for texts in (("0", "x"), ("1", "1"), ("x", "x"), ("3", "x"))]
    sampled = score_sampled(samples, problems, load_metric("exact_answer"), [1, 2])
    assert sampled["right_of_each_problem"] == [1, 2, 0, 1]
    assert {k: one["value"] for k, one in sampled["pass_at"].items()} == {"1": 0.5, "2": 0.75}


def test_no_verdict_is_not_right_and_is_told():
    def undecided(completions: list[str], **_: object) -> list[float | None]:
        return [None, 0.5, 1.0, -1.0][: len(completions)]

    completions, problems = problems_and("0", "1", "2", "3")
    result = score_greedy(completions, problems, undecided)
    assert (result["right"], result["no_verdict"]) == (1, 1)
    assert "no verdict on 1" in describe("m", result)[0]


def test_a_difference_is_claimed_only_where_it_is_shown():
    wrong, problems = problems_and(*["x"] * 40)
    metric = load_metric("exact_answer")

    def result(right: int) -> dict:
        mixed = [Completion(str(number), True) if number < right else one for number, one in enumerate(wrong)]
        return score_greedy(mixed, problems, metric)

    assert compare(result(10), result(10), "m")["verdict"] == "no difference shown"
    assert compare(result(10), result(13), "m")["verdict"] == "no difference shown"
    better, worse = compare(result(10), result(30), "m"), compare(result(30), result(10), "m")
    assert (better["gained"], better["lost"], better["verdict"]) == (20, 0, "better")
    assert (worse["gained"], worse["lost"], worse["verdict"]) == (0, 20, "worse")
    assert better["difference"] == 0.5 and better["interval"][0] > 0.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": "/no/such/model"}, "`models` must be folders or hub names of models, received '/no/such/model'"),
        ({"metric": "exact_anser"}, "did you mean 'exact_answer'"),
        ({"metric": "org/reward-model"}, "`metric` must be one reward that checks answers"),
        ({"split": "dev"}, "`split` must be one of"),
        ({"samples": "4", "pass_at": "5"}, "`pass_at` must be between 1 and `samples`, 4, received 5"),
        ({"samples": "4", "temperature": "0"}, "`temperature` must be above 0 for `samples` to differ"),
        ({"batch_size": "0"}, "`batch_size` must be above 0, received 0"),
        ({"max_problems": "0"}, "`max_problems` must be above 0, received 0"),
        ({"engine": "vllm"}, "`engine` is 'vllm', which is not installed"),
    ],
)
def test_a_wrong_argument_is_named(task, tmp_path, capsys, monkeypatch, given, message):
    arguments = {"models": str(task / "model"), "data": str(task / "grpo"), "output": str(tmp_path / "e.json"), **given}
    words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *words])
    with pytest.raises(SystemExit) as ended:
        evaluation.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("recipe", [sft, grpo])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"evaluate_metric": "exact_anser"}, "error: `evaluate_metric` must be names of rewards"),
        ({"evaluate_on": "held_out.csv"}, "error: `evaluate_on` must be a hub name, a folder or a file"),
        ({"model_name_or_path": "runs/nothing"}, "error: `model_name_or_path` must be a hub name or the folder"),
    ],
)
def test_what_is_wrong_stops_a_recipe_before_it_trains(recipe, wrong, message, task, tmp_path, capsys, monkeypatch):
    arguments = {"model_name_or_path": task / "model", "dataset_name": task / recipe.__name__, "output_dir": tmp_path}
    arguments |= {"reward_funcs": "exact_answer"} if recipe is grpo else {}
    arguments |= {"evaluate_on": task / "grpo", "use_cpu": True, "bf16": False, **wrong}
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [f"{recipe.__name__}.py", *flags])
    assert recipe.main() == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TWO_PROCESSES, ZERO3], ids=["ddp", "zero3"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_run_on_several_processes_is_evaluated_by_one(run_recipe, task, launcher, lora):
    lora_settings = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"} if lora else {}
    run = run_recipe(
        "grpo", launcher, max_steps=2, evaluate_on=str(task / "grpo"), evaluate_max_new_tokens=10, **lora_settings
    )
    assert run.output.count("evaluating before and after") == 1
    before, after = read(run.folder)
    assert before["problems"] == after["problems"] == 20
    assert before["settings"]["weights"] != after["settings"]["weights"]


@pytest.mark.slow
def test_a_run_on_two_machines_is_evaluated_by_the_first(task, tmp_path):
    arguments = {
        "model_name_or_path": str(task / "model"),
        "dataset_name": str(task / "sft"),
        "output_dir": str(tmp_path / "shared"),
        **COMMON,
        **SFT,
        "max_steps": 3,
        "evaluate_on": str(task / "grpo"),
        "evaluate_max_new_tokens": 10,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(arguments))
    where = ("--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port()))
    command = ["recipes/sft.py", "--config", str(tmp_path / "run.yaml")]
    machines = [
        Run([*LAUNCHES["2"].words(*where, "--machine_rank", str(rank)), *command], tmp_path / f"machine-{rank}", {})
        for rank in (0, 1)
    ]
    try:
        for run in machines:
            run.finish()
    finally:
        for run in machines:
            run.kill(run.processes())
    assert ["evaluating before and after" in run.output for run in machines] == [True, False]
    assert json.loads((tmp_path / "shared" / "run.json").read_text())["sessions"][0]["processes"] == 2
    before, after = read(tmp_path / "shared")
    assert before["problems"] == after["problems"] == 20
    assert before["settings"]["weights"] != after["settings"]["weights"]
    assert len((tmp_path / "shared" / "evaluation.jsonl").read_text().splitlines()) == 2 * (1 + 20)
