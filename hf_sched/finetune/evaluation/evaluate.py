"""Measures how many held-out problems a model answers right, greedy and sampled, with confidence intervals.

Each finished batch is kept beside the output (`evaluation.jsonl`): an interrupted evaluation continues there and, with
the same batch size, ends in the same bytes. A finished one can be scored again by another metric, or extended to more
samples, without generating anything twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched._run_files import write_text
from hf_sched.finetune.data.load import FINAL_ANSWER, PROBLEMS, checked_split, load_splits, names_of_columns, to_problem
from hf_sched.finetune.evaluation.arguments import EvaluationArguments
from hf_sched.finetune.evaluation.generation import (
    Decoding,
    Loading,
    TransformersEngine,
    VllmEngine,
    choose_engine,
    encode,
    load_tokenizer,
)
from hf_sched.finetune.evaluation.generation_cache import Completion, GenerationCache, SampleIndex, model_digest
from hf_sched.finetune.evaluation.metrics import Problem, Result, compare, score_greedy, score_sampled
from hf_sched.finetune.rewards import Reward, check_reward_columns, load_rewards
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)


def load_problems(arguments: EvaluationArguments, instruction: str = FINAL_ANSWER) -> list[Problem]:
    """Load the held-out problems; an `ArgumentError` says why there are none, or which row is unusable."""
    name, split = arguments.evaluate_on, arguments.evaluate_split
    source = ScriptArguments(dataset_name=name, dataset_config=arguments.evaluate_config, dataset_train_split=split)
    columns = names_of_columns(arguments.evaluate_columns, "evaluate_columns")
    convert = partial(to_problem, instruction=instruction)
    splits = load_splits(source, DatasetMixtureConfig(), argument="evaluate_on")
    try:
        rows = checked_split(source, splits, split, "evaluate_split", convert, columns=columns, forms=PROBLEMS)
    except ArgumentError as error:
        error.name = "evaluate_columns" if error.name == "columns" else error.name
        raise
    if not len(rows):
        raise ArgumentError("evaluate_split", rule=f"has no problems in {name!r}", received=split)
    return [dict(row) for row in rows.select(range(min(arguments.evaluate_max_problems or len(rows), len(rows))))]


def load_metric(named: Any, problems: Sequence[Problem] = ()) -> Reward:
    """Load the reward that decides whether an answer is right: one function, with the columns that it needs."""
    (metric, *others), _ = load_rewards(named, argument="evaluate_metric")
    if others or isinstance(metric, str):
        raise ArgumentError("evaluate_metric", "one reward that checks answers", named)
    if problems:
        check_reward_columns([metric], list(problems[0]), argument="evaluate_metric")
    return metric


def evaluate(
    models: Sequence[str], arguments: EvaluationArguments, output: Path, instruction: str, loading: Loading
) -> dict[str, Result]:
    """Evaluate models (folders, also of LoRA adapters, or hub names) on the same problems; see `hf-sched evaluate`.

    Returns:
        The results by model, as they are written to `output`.

    Raises:
        ValueError: An argument is wrong, a model cannot be loaded, or the file beside `output` has another format.
    """
    problems = load_problems(arguments, instruction)
    metric = load_metric(arguments.evaluate_metric, problems)
    keys = ("config", "split", "columns", "max_problems", "metric", "samples")
    measured = {"data": arguments.evaluate_on, "instruction": instruction}
    measured |= {key: getattr(arguments, f"evaluate_{key}") for key in keys}
    results: dict[str, Result] = {}
    for model in models:
        cached = CachedModel(model, problems, arguments, loading, output.with_suffix(".jsonl"))
        result = score_greedy([one for (one,) in cached.completions()], problems, metric)
        result["settings"] = cached.settings()
        if samples := arguments.evaluate_samples:
            completions = cached.completions(samples, is_sampled=True)
            result["sampled"] = score_sampled(completions, problems, metric, sorted({1, samples}))
            result["sampled"]["settings"] = cached.settings(is_sampled=True)
        result["measured"] = measured
        for before, other in list(results.items())[-1:]:
            result["compared"] = compare(other, result, before)
        results[model] = result
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(results, indent=1))
    return results


class CachedModel:
    """A model's completions of the problems, as far as possible from the cache. The model is loaded when needed."""

    def __init__(
        self, model: str, problems: Sequence[Problem], arguments: EvaluationArguments, loading: Loading, cache: Path
    ) -> None:
        self.model, self.arguments, self.loading, self.cache = model, arguments, loading, cache
        self.engine_name = choose_engine(arguments.evaluate_engine)
        try:
            self.tokenizer = load_tokenizer(model, loading)
            self.digest = model_digest(model, loading.revision)
        except OSError as error:
            raise ArgumentError("models", "folders or hub names of models", model, hint=str(error)) from None
        self.prompts = [encode(self.tokenizer, problem["prompt"]) for problem in problems]

    @cached_property
    def engine(self) -> TransformersEngine | VllmEngine:
        """The engine with the model loaded."""
        clear_device_cache(garbage_collection=True)  # of the previous model
        load = VllmEngine if self.engine_name == "vllm" else TransformersEngine
        return load(self.model, self.tokenizer, self.loading)

    def decoding(self, is_sampled: bool) -> Decoding:
        """How the tokens are chosen."""
        given = self.arguments
        chosen = (given.evaluate_temperature, given.evaluate_top_p) if is_sampled else ()
        return Decoding(given.evaluate_max_new_tokens, *chosen)

    def settings(self, is_sampled: bool = False) -> dict[str, Any]:
        """Everything that a completion depends on; not the number of samples, since each has its own seed."""
        return {
            "model": self.model,
            "decoding": "sampled" if is_sampled else "greedy",
            "weights": self.digest,
            "problems": hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()[:16],
            "engine": ", ".join(f"{name} {version(name)}" for name in (self.engine_name, "torch")),
            **asdict(self.loading),
            **asdict(self.decoding(is_sampled)),
        }

    def completions(self, samples: int = 1, *, is_sampled: bool = False) -> list[list[Completion]]:
        """The completions of each problem; missing ones are generated."""
        cache = GenerationCache(self.cache, self.settings(is_sampled))
        batches = plan_batches([len(prompt) for prompt in self.prompts], samples, self.arguments.evaluate_batch_size)
        missing = [batch for batch in batches if not all(place in cache.done for place in batch)]
        if missing != batches:
            done, kind = len(batches) - len(missing), "sampled" if is_sampled else "greedy"
            logger.info("%s: %d of %d batches (%s) are in %s", self.model, done, len(batches), kind, self.cache)
        for batch in tqdm(missing, desc=self.model, unit="batch", disable=None if missing else True):
            prompts = [self.prompts[number] for number, _ in batch]
            completed = self.engine.complete(prompts, [seed_of(place) for place in batch], self.decoding(is_sampled))
            cache.append(zip(batch, completed, strict=True))
        return [[cache.done[number, sample] for sample in range(samples)] for number in range(len(self.prompts))]


def plan_batches(lengths: Sequence[int], samples: int, batch_size: int) -> list[list[SampleIndex]]:
    """All samples of all problems, in batches of similar length, the longest first: too large a batch shows at once."""
    numbers = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    places = [(number, sample) for number in numbers for sample in range(samples)]
    return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]


def seed_of(place: SampleIndex) -> int:
    """The seed of one sample of one problem."""
    return int.from_bytes(hashlib.sha256(json.dumps([0, *place]).encode()).digest()[:7], "big")
