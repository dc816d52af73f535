"""The schedule in a configuration: ours, transformers' own, and whether they fit the length of the run."""

from __future__ import annotations

import pytest
import torch

from hf_sched.integrations.builtin_schedules import scheduler_function
from tests.helpers.findings import assert_error, find, rejection, report

KWARGS = "lr_scheduler_kwargs"


def builtin(name: str, steps: int = 100, **kwargs):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    return get_scheduler(name, optimizer, 0, steps, kwargs)


def scheduled(name: str = "cosine_floor", *, max_steps: int = 100, warmup_steps: int = 0, **kwargs):
    run = {"max_steps": max_steps, "learning_rate": 1e-4, "warmup_steps": warmup_steps}
    return report(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, **run)


def test_every_wrong_argument_of_a_schedule_is_reported_at_once():
    found = scheduled(flor_ratio=0.1, floor_ratio=2, on_resume="kep", min_lr="1e-3").findings
    assert {finding.key.split(".")[1] for finding in found} >= {"flor_ratio", "floor_ratio", "on_resume", "min_lr"}
    assert any("did you mean 'floor_ratio'" in finding.message for finding in found)
    # Our schedules read numbers in text.
    assert not scheduled(min_lr="1e-7").findings and not scheduled(floor_ratio="10%").findings


@pytest.mark.parametrize(
    ("name", "kwargs", "key", "part"),
    [
        ("cosine_floor", {"min_lr": 1e-5, "floor_ratio": 0.1}, "min_lr", "second floor"),
        ("cosine_restarts", {"num_cycles": 90}, "num_cycles", "each of the cycles"),
        ("phases", {"phases": "warmup 5% | hodl"}, "phases", "hold"),
    ],
)
def test_arguments_that_our_schedules_reject_are_errors(name, kwargs, key, part):
    (found,) = scheduled(name, **kwargs).findings
    assert_error(found, f"{KWARGS}.{key}", part)


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("wsd:dekay=30%", f"{KWARGS}.dekay", "did you mean 'decay'"),
        ("wds:decay=30%", "lr_scheduler_type", "did you mean 'wsd'"),
        ("warmup 5% | hodl", f"{KWARGS}.phases", "did you mean 'hold'"),
        ("wsd:decay=200", f"{KWARGS}.decay", "but the run has 100"),
        ("cosine_with_min_lr:min_lr=1e-3", f"{KWARGS}.min_lr", "at most the `learning_rate` 0.0001"),
        ("wsd:decay=3,decay=4", "lr_scheduler_type", "`decay` is given twice"),
        ("no_module.trapezoid", "lr_scheduler_type", "No module named 'no_module'"),
    ],
)
def test_one_text_is_checked_like_a_name_with_arguments(text, key, part):
    (found,) = scheduled(text).findings
    assert_error(found, key, part)
    assert not scheduled("wsd:decay=30%,on_resume=keep").findings
    assert_error(scheduled("wsd:decay=30%", decay=3).findings[0], "lr_scheduler_type", "`decay` is given twice")


def test_an_unknown_length_limits_the_check():
    found = find(lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={"min_lr": 1e-3}, learning_rate=1e-4)
    assert_error(found, f"{KWARGS}.min_lr", "at most the `learning_rate` 0.0001")
    config = {"lr_scheduler_type": "cosine_floor", "dataset_name": "no/such"}
    assert report(**config).ok and "--dataset-size" in report(**config).not_judged[0]
    assert report(**config, dataset_size=1000).not_judged == ()


@pytest.mark.parametrize("name", ["cosine_floor", "linear"])
def test_a_warmup_longer_than_the_run_is_an_error(name):
    found = find(lr_scheduler_type=name, warmup_steps=100, max_steps=100)
    assert_error(found, "warmup_steps", "a warmup of 100 steps in a run of 100 (`max_steps`)")
    run = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "dataset_size": 400, "num_processes": 2}
    by_data = find(lr_scheduler_type=name, warmup_steps=100, **run)
    assert_error(by_data, "warmup_steps", "in a run of 25 (400 samples on 2 processes)")
    assert not report(lr_scheduler_type=name, warmup_steps=99, max_steps=100).findings


@pytest.mark.parametrize(
    ("name", "kwargs", "key", "part"),
    [
        ("linear", {"min_lr": 1e-6}, "min_lr", "linear takes no arguments; hf_sched's schedules have `floor_ratio`"),
        ("cosine_with_min_lr", {"min_lr": "1e-6"}, "min_lr", "write 1.0e-06"),
        ("cosine_with_min_lr", {"min_lr": 1e-6, "min_lr_rate": 0.1}, "min_lr", "Only one of min_lr or min_lr_rate"),
        ("warmup_stable_decay", {"num_decay_steps": 10, "decay_type": "sqrt"}, "decay_type", "1-sqrt"),
        ("cosine_with_min_lr", {}, "", "One of min_lr or min_lr_rate should be set"),
    ],
)
def test_arguments_that_transformers_rejects_are_errors(name, kwargs, key, part):
    found = find(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, learning_rate=1e-4)
    assert found.severity == "error" and part in found.message, found
    assert key in found.key + found.message
    with pytest.raises((TypeError, ValueError)):
        builtin(name, **kwargs).lr_lambdas[0](100)


@pytest.mark.parametrize(
    ("name", "kwargs", "part", "last"),
    [
        # transformers raises the learning rate, or cuts the decay.
        ("cosine_with_min_lr", {"min_lr": 1e-3}, "at most the `learning_rate` 0.0001", 10),
        ("cosine_with_min_lr", {"min_lr_rate": 2.0}, "must be a share of the peak", 2),
        ("warmup_stable_decay", {"num_decay_steps": 60, "num_stable_steps": 50}, "needs 110 steps with warmup", 0.02),
    ],
)
def test_a_floor_above_the_peak_or_a_decay_after_the_run_is_an_error(name, kwargs, part, last):
    (found,) = scheduled(name, **kwargs).findings
    assert found.severity == "error" and part in found.message
    assert builtin(name, **kwargs).lr_lambdas[0](100) > last / 2


METRIC = {"eval_strategy": "steps", "max_steps": 100}


@pytest.mark.parametrize(
    ("name", "kwargs", "peak", "key", "part"),
    [
        ("greedy", {"max_lr": 1e-4}, 2e-5, "min_lr", "at most the `learning_rate` 2e-05, is 0.001, its default"),
        ("greedy", {"min_lr": 0.0, "max_lr": 1e-5}, 2e-5, "max_lr", "must be at least the `learning_rate` 2e-05"),
        ("reduce_lr_on_plateau", {"min_lr": 1e-4}, 2e-5, "min_lr", "must be at most the `learning_rate` 2e-05"),
        ("reduce_lr_on_plateau", {}, 1e-8, "eps", "is 1e-08, its default, and smaller changes are not applied"),
        ("reduce_lr_on_plateau", {"factor": 0.995}, 1e-6, "eps", "lowers the `learning_rate` by 5e-09"),
    ],
)
def test_defaults_of_metric_schedules_are_compared_with_the_peak(name, kwargs, peak, key, part):
    given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": kwargs, "learning_rate": peak, "optim": "sgd", **METRIC}
    assert_error(find(**given), f"{KWARGS}.{key}", part)
    # What the error says: the rate never changes, or only in one direction.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = scheduler_function(name)(optimizer, **{"patience": 0, **kwargs})
    better, rates = ([1.0 / step for step in range(1, 30)], []) if key == "max_lr" else ([1.0] * 30, [])
    for metric in better:
        scheduler.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    assert max(rates) <= peak if key == "max_lr" else min(rates) >= peak


def test_the_rise_that_greedy_allows_is_a_warning():
    given = {"lr_scheduler_type": "greedy", "learning_rate": 2e-5, **METRIC}
    found = find(**given, lr_scheduler_kwargs={"min_lr": 1e-6})
    assert (found.severity, found.key) == ("warning", f"{KWARGS}.max_lr") and "50000 times" in found.message
    assert not report(**given, lr_scheduler_kwargs={"min_lr": 1e-6, "max_lr": 1e-4}).findings


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_metric_schedule_must_know_which_values_are_better(name):
    kwargs = {"min_lr": 1e-6, **({"max_lr": 1e-3} if name == "greedy" else {})}
    given = {"lr_scheduler_type": name, "learning_rate": 1e-4, "metric_for_best_model": "eval_reward", **METRIC}
    assert_error(find("grpo", **given, lr_scheduler_kwargs=kwargs), f"{KWARGS}.mode", "write mode: max")
    assert not report("grpo", **given, lr_scheduler_kwargs={**kwargs, "mode": "max"}).findings
    loss = {**given, "metric_for_best_model": "loss"}
    assert not report("sft", **loss, lr_scheduler_kwargs=kwargs).findings
    assert "write mode: min" in find("sft", **loss, lr_scheduler_kwargs={**kwargs, "mode": "max"}).message


def test_right_schedules_of_transformers_have_no_findings():
    right = {"cosine_with_min_lr": {"min_lr_rate": 0.1}, "warmup_stable_decay": {"num_decay_steps": 20}}
    for name, kwargs in right.items():
        assert scheduled(name, warmup_steps=10, **kwargs).findings == (), name
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"factor": 0.5}}
    assert report(**plateau, eval_strategy="steps").findings == ()
    assert find(**plateau).key == "lr_scheduler_type"
    assert rejection(**plateau)


def test_a_schedule_that_is_unknown_cut_off_or_ineffective_is_reported():
    assert_error(find(lr_scheduler_type="cosin_floor"), "lr_scheduler_type", "did you mean 'cosine_floor'?")
    assert rejection(lr_scheduler_type="cosin_floor")
    (cut_off,) = scheduled("cosine_restarts", first_cycle=30).findings
    assert (cut_off.severity, cut_off.key) == ("warning", KWARGS) and "10" in cut_off.message
    no_warmup = find(lr_scheduler_type="constant", warmup_steps=10)
    assert_error(no_warmup, "warmup_steps", "write lr_scheduler_type: constant_with_warmup")


def test_a_schedule_that_decays_under_a_schedule_free_optimizer_is_a_warning():
    for optimizer in ("schedule_free_adamw", "schedule_free_sgd", "schedule_free_radam"):
        run = {"optim": optimizer, "max_steps": 20, "warmup_steps": 2}
        for decaying in ("cosine_floor", "linear", "inverse_sqrt", "wsd"):
            found = find(lr_scheduler_type=decaying, **run)
            assert (found.severity, found.key) == ("warning", "lr_scheduler_type")
            assert "write constant_with_warmup" in found.message
        assert find(**run).severity == "warning"  # the default decays
        for kwargs in ({"phases": "warmup 2 | hold"}, {"phases": "hold 5 | hold"}):
            phases = {**run, "warmup_steps": 0, "lr_scheduler_kwargs": kwargs}
            assert not report(lr_scheduler_type="phases", **phases).findings
        assert not report(lr_scheduler_type="constant_with_warmup", **run).findings
        assert not report(lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={"floor_ratio": 1.0}, **run).findings
