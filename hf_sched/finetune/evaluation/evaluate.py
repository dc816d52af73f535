"""Measures how many held-out problems a model answers right, greedy and sampled, with confidence intervals.

Each finished batch is kept beside the output (`evaluation.cache.jsonl`): an interrupted evaluation continues there and
ends in the same bytes. A finished one can be scored again by another metric, or extended to more samples, without
generating anything twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched._run_files import write_text
from hf_sched.finetune.data.columns import ColumnArguments, names_of_columns
from hf_sched.finetune.data.conversion import GRPO_ROWS
from hf_sched.finetune.data.files import load_splits
from hf_sched.finetune.data.load import checked_split
from hf_sched.finetune.evaluation.arguments import EvaluationArguments
from hf_sched.finetune.evaluation.generation import Generator, Loading
from hf_sched.finetune.evaluation.generation_cache import GenerationCache
from hf_sched.finetune.evaluation.metrics import Problem, Result, compare_all, score_greedy, score_sampled
from hf_sched.finetune.rewards import Reward, check_reward_columns, load_rewards
from hf_sched.finetune.rewards.probe import probe
from hf_sched.finetune.rewards.safe_reward import SafeReward
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)


def load_problems(
    arguments: EvaluationArguments, instruction: str | None = None, system_prompt: str | None = None
) -> list[Problem]:
    """Load the held-out problems; an `ArgumentError` says why they are missing, or which row is unusable.

    The instruction and the system prompt are those of `ColumnArguments`.
    """
    name, split, size = arguments.evaluate_on, arguments.evaluate_split, arguments.evaluate_test_split_size
    source = ScriptArguments(dataset_name=name, dataset_config=arguments.evaluate_config, dataset_test_split=split)
    if size is None:
        source.dataset_train_split = split
    columns = names_of_columns(arguments.evaluate_columns, "evaluate_columns")
    read = ColumnArguments(columns, instruction, system_prompt)
    splits = load_splits(source, DatasetMixtureConfig(), argument="evaluate_on")
    try:
        rows, _, _ = checked_split(source, splits, split, "evaluate_split", read, target=GRPO_ROWS, test_size=size)
    except ArgumentError as error:
        error.name = "evaluate_columns" if error.name == "columns" else error.name
        raise
    if not len(rows):
        raise ArgumentError("evaluate_split", rule=f"has no problems in {name!r}", received=split)
    return [dict(row) for row in rows.select(range(len(rows))[: arguments.evaluate_max_problems])]


def load_metric(named: Any, problems: Sequence[Problem]) -> Reward:
    """Load the reward that decides whether an answer is right; warn if it cannot tell the answers of the problems."""
    (metric, *others), _ = load_rewards(named, argument="evaluate_metric")
    if others or not isinstance(metric, SafeReward):
        raise ArgumentError("evaluate_metric", "one reward that checks answers, neither a model nor async", named)
    check_reward_columns([metric], list(problems[0]), argument="evaluate_metric")
    for one in probe([metric], problems[0], others=problems[1:]):
        if one.warning:
            logger.warning("`evaluate_metric`: %s", one.warning)
    return metric


def evaluate(
    models: Sequence[str],
    arguments: EvaluationArguments,
    output: Path,
    instruction: str | None,
    loading: Loading,
    system_prompt: str | None = None,
) -> dict[str, Result]:
    """Evaluate models (folders, also of LoRA adapters, or hub names) on the same problems; see `hf-sched evaluate`.

    Returns:
        The results by model, as they are written to `output`.

    Raises:
        ValueError: An argument is wrong, or a model cannot be loaded.
    """
    problems = load_problems(arguments, instruction, system_prompt)
    metric = load_metric(arguments.evaluate_metric, problems)
    given = {name.removeprefix("evaluate_"): value for name, value in asdict(arguments).items()}
    cache = GenerationCache(output.with_suffix(".cache.jsonl"))
    results: dict[str, Result] = {}
    for model in models:
        generator = Generator(model, loading, arguments.evaluate_batch_size)
        prompts = [generator.encode(problem["prompt"]) for problem in problems]
        greedy = {"max_new_tokens": arguments.evaluate_max_new_tokens, "do_sample": False}
        completions = generator.complete(prompts, greedy, cache)
        result = score_greedy([completion for (completion,) in completions], problems, metric)
        if samples := arguments.evaluate_samples:
            chosen = {"temperature": arguments.evaluate_temperature, "top_p": arguments.evaluate_top_p, "top_k": 0}
            decoding = {**greedy, "do_sample": True, **chosen}
            completions = generator.complete(prompts, decoding, cache, samples)
            result["sampled"] = score_sampled(completions, problems, metric, sorted({1, samples}))
        result["settings"] = {**given, "instruction": instruction, "system_prompt": system_prompt, **generator.settings}
        results[model] = result
    results = compare_all(results)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(results, indent=1))
    return results
