"""`hf-sched evaluate`, and the evaluation before and after a run, on the embedded task."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.evaluation import EvaluationArguments
from hf_sched.finetune.evaluation.before_after import check_evaluation
from hf_sched.finetune.evaluation.evaluate import evaluate, load_metric, load_problems
from hf_sched.finetune.evaluation.generation import Loading
from hf_sched.finetune.evaluation.generation_cache import Completion
from hf_sched.finetune.evaluation.metrics import compare, compare_all, describe, score_greedy, score_sampled
from tests.helpers import command_line
from tests.helpers.recipes import COMMON, ONE_PROCESS, ROOT, SFT, TWO_PROCESSES, ZERO3, Finished, finish, run_main


@pytest.fixture(scope="module")
def run(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of recipes/sft.py that evaluates before and after."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    places = {"model_name_or_path": task / "model", "dataset_name": task / "sft", "output_dir": folder}
    places = {key: str(value) for key, value in {**places, "evaluate_on": task / "grpo"}.items()}
    training = {**SFT, "learning_rate": 5e-3, "per_device_train_batch_size": 32, "max_steps": 150}
    metric = {"name": "exact_answer", "time_limit": 2}
    evaluation = {"evaluate_metric": metric, "evaluate_samples": 4, "evaluate_max_new_tokens": 10}
    folder.with_suffix(".yaml").write_text(yaml.safe_dump({**places, **COMMON, **training, **evaluation}))
    return finish(ONE_PROCESS, ["recipes/sft.py", "--config", str(folder.with_suffix(".yaml"))], folder)


def read(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "evaluation.json").read_text())


def test_run_is_evaluated_before_and_after(run: Finished, task: Path):
    results = read(run.folder)
    assert list(results) == [str(task / "model"), str(run.folder)]
    before, after = results.values()
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
    for model, result in results.items():
        settings = [result["settings"][key] for key in ("metric", "on", "split", "samples", "temperature")]
        assert settings == [{"name": "exact_answer", "time_limit": 2}, str(task / "grpo"), "test", 4, 1.0]
        assert all(line in run.output for line in describe(model, result))


def words(run: Finished, task: Path, output: Path) -> list[str]:
    options = {"max-new-tokens": 10, "samples": 6, "temperature": 0.9, "batch-size": 1, "output": output}
    models = [str(task / "model"), str(run.folder), "--data", str(task / "grpo")]
    return ["evaluate", *models, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def test_killed_evaluation_ends_in_the_same_bytes(run: Finished, task: Path, tmp_path: Path):
    cache, everything = tmp_path / "killed.cache.jsonl", 2 * (20 + 120)
    command = [sys.executable, "-m", "hf_sched", *words(run, task, tmp_path / "killed.json")]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not cache.exists() or cache.read_bytes().count(b"\n") < 200:  # in the samples of the second model
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.json").exists()
    cache.write_bytes(cache.read_bytes()[:-7])  # an incomplete line
    assert 199 <= cache.read_bytes().count(b"\n") < everything

    for output in ("killed.json", "whole.json"):
        command_line.printed(*words(run, task, tmp_path / output))
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert cache.read_bytes().count(b"\n") == everything + 1, "only the incomplete batch is generated twice"


def test_only_the_first_process_evaluates(run: Finished, task: Path, tmp_path: Path):
    result = command_line.run(*words(run, task, tmp_path / "e.json"), env={"RANK": "1"})
    assert (result.exit_code, result.output, list(tmp_path.iterdir())) == (0, "", [])


def test_finished_generations_are_reused(run: Finished, task: Path, tmp_path: Path):
    def measure(**changes: object) -> tuple[dict, int]:
        options = {"evaluate_on": str(task / "grpo"), "evaluate_max_problems": 8, "evaluate_max_new_tokens": 10}
        options |= {f"evaluate_{name}": value for name, value in changes.items()}
        given, output = EvaluationArguments(**options), tmp_path / "evaluation.json"
        results = evaluate([str(run.folder)], given, output, "", Loading(device="cpu"))
        return results[str(run.folder)], (tmp_path / "evaluation.cache.jsonl").read_bytes().count(b"\n")

    first, batches = measure(samples=2)
    assert batches == 3, "a greedy batch, and one for each sample"
    second, batches = measure(metric="final_number", samples=2)
    assert batches == 3
    assert [row["completion"] for row in first["completions"]] == [row["completion"] for row in second["completions"]]
    assert [one["settings"]["metric"] for one in (first, second)] == ["exact_answer", "final_number"]
    assert measure(samples=4)[1] == 5
    assert measure(max_new_tokens=3)[1] == 6, "the completions differ"


def test_problems_with_own_columns_and_instruction(tmp_path):
    file = tmp_path / "held out.csv"
    file.write_text('problem,solution\n"Wie viele Äpfel, ""rote""?",#### 3\nUnd Birnen?,#### 4\n', encoding="utf-8")
    given = EvaluationArguments(str(file), evaluate_columns={"question": "problem", "answer": "solution"})
    bare = load_problems(dataclasses.replace(given, evaluate_max_problems=1), instruction="")
    assert bare == [{"prompt": [{"role": "user", "content": 'Wie viele Äpfel, "rote"?'}], "answer": "3"}]
    problems = load_problems(given)
    assert problems[1]["prompt"][0]["content"].startswith("Und Birnen?\nReason step by step") and len(problems) == 2
    with pytest.raises(ValueError, match=r"^`evaluate_columns` .*problem, solution, but the recipe takes `prompt`"):
        load_problems(EvaluationArguments(str(file)))
    with pytest.raises(ValueError, match=r"^`evaluate_metric` .*needs a column `answer`"):
        load_metric("exact_answer", [{"prompt": "1 + 1"}])


def test_columns_of_the_training_data_apply_unless_evaluate_columns_is_set(tmp_path):
    (tmp_path / "test.csv").write_text("prompt,answer\nsort 21,12\n")
    named = ColumnArguments(columns={"question": "problem", "answer": "solution"}, instruction="")
    given = EvaluationArguments(evaluate_on=str(tmp_path / "test.csv"))
    with pytest.raises(ValueError, match=r"^`evaluate_columns` has question: problem"):
        check_evaluation(given, named)
    given = dataclasses.replace(given, evaluate_columns="{}")
    check_evaluation(given, named)


def problems_and(*texts: str) -> tuple[list[Completion], list[dict]]:
    problems = [{"prompt": f"{number}?", "answer": str(number)} for number in range(len(texts))]
    return [Completion(text, text != "") for text in texts], problems


def test_right_answers_are_counted():
    completions, problems = problems_and("0", "5", "2", "")
    result = score_greedy(completions, problems, load_metric("exact_answer", problems))
    assert (result["right"], result["exact_match"], result["cut_off"]) == (2, 0.5, 1)
    assert [row["right"] for row in result["completions"]] == [True, False, True, False]
    assert "2 of 4 right, 50.0% (15.0% to 85.0%); 1 of 4 cut off at max_new_tokens" in describe("m", result)[0]

    undecided = score_greedy(completions, problems, lambda completions, **_: [None, 0.5, 1.0, -1.0])
    assert (undecided["right"], undecided["no_verdict"], undecided["mean"]) == (1, 1, 0.125)
    assert "no verdict on 1" in describe("m", undecided)[0]

    samples = [[Completion(text, True) for text in texts] for texts in (("0", "x"), ("1", "1"), ("x", "x"), ("3", "x"))]
    sampled = score_sampled(samples, problems, load_metric("exact_answer", problems), [1, 2])
    assert {k: one["each"] for k, one in sampled["pass_at"].items()} == {"1": [0.5, 1, 0, 0.5], "2": [1, 1, 0, 1]}
    assert {k: one["value"] for k, one in sampled["pass_at"].items()} == {"1": 0.5, "2": 0.75}


def test_difference_is_reported_only_if_it_is_significant():
    wrong, problems = problems_and(*["x"] * 40)
    metric = load_metric("exact_answer", problems)

    def result(right: int) -> dict:
        mixed = [Completion(str(number), True) if number < right else one for number, one in enumerate(wrong)]
        return score_greedy(mixed, problems, metric)

    assert compare(result(10), result(10), "m")["verdict"] == "no difference shown"
    assert compare(result(10), result(13), "m")["verdict"] == "no difference shown"
    better, worse = compare(result(10), result(30), "m"), compare(result(30), result(10), "m")
    assert (better["gained"], better["lost"], better["verdict"]) == (20, 0, "better")
    assert (worse["gained"], worse["lost"], worse["verdict"]) == (0, 20, "worse")
    assert better["difference"] == 0.5 and better["interval"][0] > 0.3


def test_verdict_follows_from_the_interval_as_shown():
    _, problems = problems_and(*["x"] * 40)

    def score(verdicts: list[int]) -> dict:
        return score_greedy([Completion("x", True)] * 40, problems, lambda **_: verdicts)

    for lost, gained in itertools.product(range(0, 9, 2), range(16)):
        before, after = [1] * lost + [0] * (40 - lost), [0] * (40 - gained) + [1] * gained
        compared = compare(score(before), score(after), "m")
        low, high = compared["interval"]
        assert compared["verdict"] == ("better" if low > 0 else "worse" if high < 0 else "no difference shown")
        assert low <= compared["difference"] <= high
        shown = re.search(r"points \((\S+) to (\S+)\)", describe("m", {**score(after), "compared": compared})[1])
        assert (float(shown[1]) > 0, float(shown[2]) < 0) == (low > 0, high < 0)


def test_metric_other_than_0_and_1_is_reported_as_a_mean():
    completions, problems = problems_and(*"01234567")
    results = {
        name: score_greedy(completions, problems, lambda value=value, **_: [value] * 8)
        for name, value in {"base": 0.0, "trained": 0.99}.items()
    }
    assert results["base"]["exact_match"] == 0
    base, trained = compare_all(results).values()
    for result, mean in ((base, 0), (trained, 0.99)):
        assert result["mean"] == pytest.approx(mean) and "exact_match" not in result
        assert result["interval"][0] <= mean <= result["interval"][1]
        assert describe("m", result)[0].startswith(f"m: mean score {mean:g} (")
    assert trained["compared"]["difference"] == pytest.approx(0.99) and trained["compared"]["verdict"] == "better"
    assert "right" not in describe("m", trained)[1]


def test_metric_is_called_with_a_hundred_completions_at_most():
    completions, problems = problems_and(*map(str, range(250)))
    sizes: list[int] = []

    def metric(completions: list[str], answer: list[str], **_: object) -> list[float]:
        sizes.append(len(completions))
        return [float(one == right) for one, right in zip(completions, answer, strict=True)]

    assert score_greedy(completions, problems, metric)["right"] == 250
    assert sizes == [100, 100, 50]


def test_metric_that_cannot_tell_the_answers_is_warned_of(caplog: pytest.LogCaptureFixture):
    problems = [{"prompt": "The capital of France?", "answer": "Paris"}, {"prompt": "Of Italy?", "answer": "Rome"}]
    load_metric("accuracy", problems)
    assert not caplog.records
    load_metric("final_number", problems)
    assert "`evaluate_metric`: the reward 'final_number' gives no reward to the right answer" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "/no/such/model"}, "`models` must be folders or hub names of models, received '/no/such/model'"),
        ({"--metric": "org/reward-model"}, "`--metric` must be one reward that checks answers"),
        ({"--split": "dev"}, "`--split` must be one of"),
        ({"--samples": "4", "--temperature": "0"}, "`--temperature` must be above 0"),
        ({"--max-problems": "0"}, "`--max-problems` must be a whole number, 1 or more, received 0"),
    ],
)
def test_command_names_the_wrong_flag(task, tmp_path, given, message):
    flags = {"--data": str(task / "grpo"), "--output": str(tmp_path / "e.json"), **given}
    model = flags.pop("model", str(task / "model"))
    assert message in command_line.error_message("evaluate", model, *(word for pair in flags.items() for word in pair))


def test_wrong_argument_stops_a_recipe_before_training(task, tmp_path):
    arguments = {"model_name_or_path": task / "model", "dataset_name": task / "sft", "output_dir": tmp_path}
    arguments |= {"evaluate_on": task / "grpo", "evaluate_metric": "exact_anser", "use_cpu": True, "bf16": False}
    status, output = run_main("sft", *(str(word) for key, value in arguments.items() for word in (f"--{key}", value)))
    assert status == 2 and "error: `evaluate_metric` must be" in output


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TWO_PROCESSES, ZERO3], ids=["ddp", "zero3"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_run_on_several_processes_is_evaluated_once(run_recipe, task, launcher, lora):
    lora_settings = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"} if lora else {}
    run = run_recipe(
        "grpo", launcher, max_steps=2, evaluate_on=str(task / "grpo"), evaluate_max_new_tokens=10, **lora_settings
    )
    assert run.output.count("evaluating before and after") == 1
    before, after = read(run.folder).values()
    assert before["problems"] == after["problems"] == 20
    assert before["settings"]["weights"] != after["settings"]["weights"]
